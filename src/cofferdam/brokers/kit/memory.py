"""Memory of a part that makes and drops megabytes many times a second: what it drops it takes again.

The C library gives what is free back to the kernel at once, and large pieces always; the next one then costs a page
fault for each 4 KiB. With the diode's sender that was a third of its processor time.

Not here: how much a part may have (the launcher's limit).
"""

from __future__ import annotations

import ctypes
from typing import Final

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST: Final = 32 << 20
"""What glibc takes for pieces that come from the heap."""


def keep_freed(size: int) -> None:
    """Up to so many bytes that are free stay with this process. Where the C library is none that can, nothing
    changes."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST)
        mallopt(_TRIM_THRESHOLD, size)
