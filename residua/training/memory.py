"""What the C library does with freed memory, which a training step frees and asks for again.

glibc gives blocks above a threshold (at most 32 MiB) back to the system when they are freed, so that each
step maps its activations anew and the kernel fills every page with zeros first. Kept, the pages are there.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h
_NEVER = 2**31 - 1  # bytes; a C int


def keep_freed_memory() -> bool:
    """Have this process keep freed memory for itself; return whether its C library was able to.

    A no-op on other systems than Linux with glibc. The process's peak grows by what cannot be reused.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl has none
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))
