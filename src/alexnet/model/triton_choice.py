"""Whether a Triton kernel may compute: only where it agrees with torch's own operations, here and now.

The two are compared on small tensors when the kernel is first wanted, before the first step of a training and at the
first prediction. Where they differ or the kernel cannot be compiled, torch's operations serve, and a warning says by
how much.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

_chosen: dict[tuple[object, ...], bool] = {}


def usable(what: str, case: tuple[object, ...], compare: Callable[[], str | None]) -> bool:
    """Whether a kernel may compute a case of `what`; `compare` is asked once, and returns why not, None where it may.

    Warns of the first case of `what` that may not.
    """
    if (what, *case) not in _chosen:
        try:
            why = compare()
        except Exception as error:  # whatever a compiler or a driver raises
            line = next(iter(str(error).strip().splitlines()), "")
            why = f"Triton's kernels do not run here ({type(error).__name__}: {line})"
        if why and all(good for key, good in _chosen.items() if key[0] == what):
            warnings.warn(f"{what} goes without Triton, slower: {why}", RuntimeWarning, 2)
        _chosen[what, *case] = why is None
    return _chosen[what, *case]
