"""One module per format of labelled images; `open.open_source` chooses among them.

A reader gives bytes and labels; what is done with the pixels is the same for all and lives in `data`.
"""
