"""Error rates and the one loop that measures a split.

Nothing here knows what computes the scores.
"""
