"""One file an experiment; each writes a record beside it, from which the tables people read are made."""
