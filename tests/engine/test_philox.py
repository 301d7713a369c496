"""The random words are those that the algorithm's authors publish."""

import numpy as np
import pytest
import torch

from alexnet.engine.philox import philox

ALL = 0xFFFFFFFF
# Counter, key and result of kat_vectors in Random123, philox4x32 with 10 rounds.
PUBLISHED = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ALL, ALL, ALL, ALL), (ALL, ALL), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), PUBLISHED)
def test_integers_arrays_and_tensors_give_the_published_answers(
    counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    assert philox(counter, key) == expected
    for words in (
        philox([np.full(3, word, np.uint64) for word in counter], key),
        philox([torch.full((3,), word) for word in counter], key),
    ):
        assert [word.tolist() for word in words] == [[word] * 3 for word in expected]
