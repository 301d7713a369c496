"""Networks as torch modules, made from descriptions, and their layers.

Nothing here knows of data, runs or training.
"""
