"""The 2012 paper's rivals as working systems (Tables 1 and 2): sparse coding, and SIFT with Fisher vectors.

Descriptors of patches on a grid are encoded, pooled over a spatial pyramid and classified by linear support vector
machines; several such members are averaged. A fitted directory is a `Predictor`.
"""
