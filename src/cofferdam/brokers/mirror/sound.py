"""Files that have the bytes that they were sealed with, and cannot be read all the same: whoever could write to the
store and its catalogue has left them, or an error of ours. Work that fails by one says which, so that the keeper sets
it aside as a damaged one and goes on; else it would end of it again and again.

Not here: bytes that have changed (sealing.damaged), what becomes of such files (verifying).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import pyarrow as pa

from cofferdam.brokers.mirror import partials, sealing
from cofferdam.brokers.mirror.catalogue import File, Reckoned
from cofferdam.brokers.mirror.columns import STORED
from cofferdam.errors import StoreError, StoreFull
from cofferdam.policy.terms.mirror_rows import Qualities

_MAY_BE_OF_A_FILE: Final = (StoreError, pa.ArrowException, ValueError, TypeError, LookupError, AttributeError)
_Found = TypeVar("_Found")
_MAY_BE_NULL: Final = ("value", "whole", "text", "server")


def unreadable(folder: Path, files: Iterable[File | Reckoned], schema: pa.Schema = STORED) -> list[str]:
    """The names of those that cannot be read through, as what they are. Raises: StoreError, for want of memory or
    rights, say."""
    return [file.name for file in files if not _reads(folder / file.name, file.rows, schema)]


def _reads(path: Path, rows: int, schema: pa.Schema) -> bool:
    try:
        opened = sealing.open_file(path, schema, mapped=False)
        for index in range(opened.num_row_groups):
            table = sealing.read_group(opened, index)
            table.validate(full=True)  # texts are UTF-8, lengths are within what there is
            if schema is STORED and any(table[name].null_count for name in schema.names if name not in _MAY_BE_NULL):
                return False
            rows -= table.num_rows
    except MemoryError:
        raise
    except (sealing.Unreadable, pa.ArrowException, ValueError):
        return False
    return rows == 0


def of_files(
    folder: Path, files: Iterable[File | Reckoned], work: Callable[[], _Found], schema: pa.Schema = STORED
) -> _Found | Unsound:
    """What the work gives, that reads these files; or those of them by which it failed. Raises: what it raised, where
    all of them can be read."""
    try:
        return work()
    except (StoreFull, MemoryError):
        raise
    except _MAY_BE_OF_A_FILE:
        if names := unreadable(folder, files, schema):
            return Unsound(names)
        raise


class Unsound(list[str]):
    """Names of files that cannot be read."""


def merge_days(folder: Path, some: Iterable[tuple[Sequence[File], bool]]) -> list[File | list[str]]:
    """Each of these (files, and whether they are all of their day) as one file; in place of one, the names of what is
    damaged or cannot be read, which must not become the sound bytes of a new file. Where one cannot be made, those
    before it are given: the disk has them already, and a full one would be fuller by what nobody knows of. Raises:
    StoreError, where that is the first."""
    found: list[File | list[str]] = []
    for files, whole in some:
        try:
            bad = sealing.damaged(folder, files)
            found.append(bad or of_files(folder, files, functools.partial(sealing.merge, folder, files, whole=whole)))
        except StoreError:
            if not found:
                raise
            break  # it is first the next time, and told then
    return found


def make(
    folder: Path, what: partials.Wanted, by: Sequence[Qualities]
) -> list[Reckoned] | tuple[Collection[str], Collection[str]]:
    """What is reckoned beforehand; or which files are in its way, of hours and of samples: damaged, or unreadable."""
    joined = [what.joined] if what.joined is not None else []

    def made() -> list[Reckoned]:
        return partials.make(folder, what, by)

    try:
        found = of_files(folder, what.files, made)
    except (StoreFull, MemoryError):
        raise
    except _MAY_BE_OF_A_FILE:
        if names := partials.damaged(folder, joined) or unreadable(folder, joined, partials.HOURLY):
            return names, ()
        raise
    return ((), found) if isinstance(found, Unsound) else found
