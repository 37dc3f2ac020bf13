"""What a fork of the tests' own process costs, made small.

A worker that has collected has 400 MB, and more with each test that needed much. Every fork copies the tables of its
pages, 100,000 and more, and takes them away again when the child ends: 25 to 80 ms of processor time for a child that
makes one system call. In pages of 2 MB there are a few hundred, and a fork takes 2 ms. The kernel puts memory into such
pages if it is asked to; so we ask, when all is collected, and again when there is much more.

A kernel that knows no MADV_COLLAPSE (before 6.1) refuses, and forks are as dear as they were.
"""

from __future__ import annotations

import ctypes
import resource
from pathlib import Path

MUCH = 64 << 20
"""Bytes of new memory that are worth another time."""
_MADV_COLLAPSE = 25
_PAGE = resource.getpagesize()
_seen = 0


def make_cheap() -> None:
    """Call it where what is there will stay. Does nothing where little has been added since."""
    global _seen
    if (now := _own()) < _seen + MUCH:
        return
    libc = ctypes.CDLL(None)
    for line in Path("/proc/self/maps").read_text().splitlines():
        where, rights, _, _, file, *name = line.split()
        if rights == "rw-p" and file == "0" and name in ([], ["[heap]"]):
            start, end = (int(word, 16) for word in where.split("-"))
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_COLLAPSE)
    _seen = now


def _own() -> int:
    """Bytes of memory that are no file's."""
    words = Path("/proc/self/statm").read_text().split()
    return (int(words[1]) - int(words[2])) * _PAGE
