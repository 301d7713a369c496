"""Images and their labels: decoding, the way to a square, draws, batches and statistics.

Here lies what all sources share; formats are in `readers`, prepared images in `store`. Nothing here knows a network.
"""
