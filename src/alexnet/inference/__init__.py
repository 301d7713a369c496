"""Models as predictors: loading, preprocessing, views, backends, ensembles, int8, and measuring them on a source.

`load` is the one way in; what uses a trained network takes a `Predictor`.
"""
