"""How full a disk is, as `df` says it: once, for whatever warns of it.

Not here: quotas of a store (they are its broker's), what is done when a disk is full (audit.log, the brokers' stores).
"""

from __future__ import annotations

import os
from pathlib import Path


def room(folder: Path | str) -> tuple[int, int]:
    """Bytes that are free for those who are not root, and bytes in all, of the disk where `folder` lies.

    Blocks that are kept for root count in neither: they are not used, and nobody of ours may use them. A disk with
    many of them would otherwise be called full long before `df` says so.

    Raises:
        OSError: there is no such folder.
    """
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize, (found.f_blocks - found.f_bfree + found.f_bavail) * found.f_frsize
