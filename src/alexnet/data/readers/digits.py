"""Scikit-learn's handwritten digits, which are always there."""

from __future__ import annotations

import numpy as np

from alexnet.data.dataset import ArraySplit, Source, Split, check_source
from alexnet.data.random import raw_words


def open_digits() -> Source:
    """Scikit-learn's 1,797 handwritten digits, 8×8, with a fixed stratified fifth of each class as the test split."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.clip(np.rint(bunch.images * (255 / 16)), 0, 255).astype(np.uint8)
    images = np.repeat(grey[:, :, :, None], 3, axis=3)
    labels = bunch.target.astype(np.int64)
    words = raw_words(len(labels), 1998)
    tested = np.zeros(len(labels), dtype=bool)
    for digit in range(10):
        members = np.flatnonzero(labels == digit)
        tested[members[np.argsort(words[members], kind="stable")[: len(members) // 5]]] = True
    splits: dict[str, Split] = {}
    for name, chosen in (("train", ~tested), ("test", tested)):
        keys = [f"digit-{i:04d}" for i in np.flatnonzero(chosen)]
        splits[name] = ArraySplit(name, np.ascontiguousarray(images[chosen]), labels[chosen], keys)
    return check_source("digits", [str(digit) for digit in range(10)], splits)
