"""The commands, one verb a file: its arguments, its work, its words.

Work that others could use lives in the rooms below.
"""
