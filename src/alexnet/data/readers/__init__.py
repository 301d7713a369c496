"""One module per format of labelled images; `open.open_source` chooses among them. A reader gives bytes and labels."""
