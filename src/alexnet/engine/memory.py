"""Memory that is freed stays with the process, so that a training step touches no fresh pages."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Let the C library keep large freed blocks for reuse; whether it agreed.

    By default glibc hands every block over 32 MiB back to the system when it is freed and fetches fresh pages for the
    next, and the page faults cost more than the arithmetic of an activation. Call before large tensors are made. The
    process then holds its peak until it ends. Linux with glibc; elsewhere False, and nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return bool(mallopt and mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
