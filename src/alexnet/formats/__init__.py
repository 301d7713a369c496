"""Weights out to other libraries and formats, and back. Files are written from a network and its facts alone.

Nothing here knows of runs: who has one passes its network on.
"""
