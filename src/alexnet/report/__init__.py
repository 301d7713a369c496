"""The report of a run as one HTML page: its history, its kernels, its examples, and their figures.

What is drawn or worded for people lives here; what is measured or computed for its own sake lives below.
"""
