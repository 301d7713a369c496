"""Philox4x32-10 as the engine computes it, in plain Python: random words that are a pure function of key and counter.

Source: Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3 (2011).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

WORD = 0xFFFFFFFF  # the largest of 32 bits
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def philox(counter: Sequence[Any], key: tuple[int, int]) -> tuple[Any, Any, Any, Any]:
    """Return the four 32-bit words of a counter of four words and a key of two, all below 2**32.

    The counter's words are Python integers, uint64 arrays or int64 tensors that broadcast together. Products that wrap
    in int64 have the same 64 bits, and their sign is masked away.
    """
    a, b, c, d = counter
    first, second = key
    for _ in range(10):
        left, right = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b, c, d = (right >> 32 & WORD) ^ b ^ first, right & WORD, (left >> 32 & WORD) ^ d ^ second, left & WORD
        first, second = first + _WEYL[0] & WORD, second + _WEYL[1] & WORD
    return a, b, c, d
