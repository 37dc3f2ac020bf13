"""Making the catalogue anew, where it is damaged, gone, or older than the files beside it.

Each sealed file says of itself what the catalogue has of it (`sealing.Facts`), and there is a copy of the catalogue
beside it. From the files come the list of what there is, what was taken, and the tags; from a note beside them how far
it had come, where no file says so, for no commit may have a number that was given before; from the copy, if it can be
read, what was held and what is known to be missing. Where that is gone as well, everything is held, until a person lets
it go: nothing is dropped that somebody may have wanted kept. Nothing is deleted here, and what cannot be read is set
aside.

Not here: when the keeper refuses a catalogue (store), the verb (cli.mirror).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from cofferdam.brokers.mirror import catalogue, hot, sealing
from cofferdam.brokers.mirror.catalogue import Catalogue, File, Hold, Loss, Tag
from cofferdam.brokers.mirror.columns import HOUR_NS
from cofferdam.errors import StoreError

BY: Final = "cofferdam mirror rebuild"
WHY: Final = "what was held before is not known: the catalogue was made anew"


class Rebuilt(msgspec.Struct):
    """What came of it."""

    files: int = 0
    rows: int = 0
    tags: int = 0
    damaged: list[str] = []
    held: bool = False
    before: bool = False
    """Whether a catalogue could be read, or its copy."""


def rebuild(folder: Path, wall: int, progress: Callable[[int, int], None] = lambda _done, _all: None) -> Rebuilt:
    """Puts a catalogue in place that is made of the files. Raises: StoreError, OSError: nothing was changed, but for
    damaged files, which were set aside."""
    found, made = Rebuilt(), Catalogue()
    for name in (catalogue.NAME, catalogue.COPY):  # one that was put back may be older than the copy
        with contextlib.suppress(StoreError):
            if (folder / name).exists() and (known := catalogue.load(folder, name)).generation >= made.generation:
                made, found.before = known, True
    noted = Catalogue()
    with contextlib.suppress(StoreError):
        noted = catalogue.load(folder, catalogue.NOTE)
    tags = made.tags if found.before else {}
    counted = frozenset(tags)
    files: list[tuple[File, sealing.Facts]] = []
    merged: set[str] = set()
    paths = sorted(path for path in folder.glob("*.parquet") if sealing.is_name(path.name))
    left = _left(folder, paths, made, noted)
    paths = [path for path in paths if path.name not in left]
    paths.sort(key=lambda path: -sealing.round_in(path.name))  # what was made of others, before these
    for number, path in enumerate(paths):
        progress(number, len(paths))
        if path.name in merged:  # what it has is in another, and has been counted
            with contextlib.suppress(StoreError):
                merged.update(sealing.facts_of(sealing.open_file(path)).of)
            continue
        try:
            file, facts = _file(path, tags, counted)
            files.append((file, facts))
            merged.update(facts.of)
        except StoreError as error:
            found.damaged.append(path.name)
            path.rename(path.with_name(f"{path.name}.damaged"))
            low, high = sealing.hours_in(path.name)
            made.losses.append(Loss(catalogue.ANY_SOURCE, low * HOUR_NS, (high + 1) * HOUR_NS, 0, str(error), wall))
    names = {file.name for file, _ in files}
    for gone in [file for file in made.files if not (folder / file.name).exists() and file.name not in merged]:
        made.losses.append(
            Loss(catalogue.ANY_SOURCE, gone.first * HOUR_NS, (gone.last + 1) * HOUR_NS, gone.rows, "its file is gone",
                 wall)
        )  # fmt: skip
    made.files = [file for file, _ in files]
    made.reckoned = [one for one in made.reckoned if names.issuperset(one.of) and (folder / one.name).exists()]
    made.tags = tags
    made.sealed = max([made.sealed, noted.sealed, *(file.commits for file in made.files)])
    for taken in (noted.taken, *(facts.taken for _, facts in files)):
        for lane, number in taken.items():
            made.taken[lane] = max(made.taken.get(lane, 0), number)
    if not found.before and made.files:
        made.holds = [Hold(min(file.first for file in made.files), max(file.last for file in made.files), BY, WHY)]
        found.held = True
    made.generation = max(made.generation, _generation(folder)) + 1
    made.found = f"the catalogue was made anew of {len(made.files)} sealed files" + (
        f", {len(found.damaged)} were damaged and set aside" if found.damaged else ""
    )
    found.files, found.tags = len(made.files), len(tags)
    found.rows = sum(file.rows for file in made.files)
    catalogue.save(folder, made)
    return found


def _left(folder: Path, paths: Iterable[Path], made: Catalogue, noted: Catalogue) -> set[str]:
    """The names of those that a sealing left which did not come to its end: each of them says that all up to its commit
    is sealed, and those of other days may not be there. All of it is hot still, where it counts; the keeper removes
    them. Files are merged of what a catalogue names alone: their commits are sealed."""
    commits = {path.name: sealing.commit_in(path.name) for path in paths}
    merged = [commit for name, commit in commits.items() if sealing.is_merged(name)]
    named = {file.name for file in made.files}
    sealed = max([made.sealed, noted.sealed, *merged])
    upto = reach(folder, sealed)
    return {name for name, commit in commits.items() if sealed < commit <= upto and name not in named}


def _generation(folder: Path) -> int:
    """The generation in a catalogue that is too damaged to be read whole: readers' marks must not come again."""
    with contextlib.suppress(OSError, ValueError, msgspec.MsgspecError):
        data = (folder / catalogue.NAME).read_bytes()[:200]
        at = data.index(b'"generation":') + len(b'"generation":')
        return int(data[at : at + 18].split(b",")[0])
    return int(max((path.stat().st_mtime for path in folder.iterdir()), default=0))


def _file(path: Path, tags: dict[str, Tag], counted: Collection[str]) -> tuple[File, sealing.Facts]:
    """What the catalogue has of a file, read whole; what it has of tags is added, but how many samples there are of
    those that are `counted`. Raises: StoreError."""
    opened = sealing.open_file(path)
    facts = sealing.facts_of(opened)
    rows, ends, own = 0, [], dict[str, Tag]()
    for index in range(opened.num_row_groups):
        group = sealing.read_group(opened, index)  # all of its columns: their checksums are looked at
        rows += group.num_rows
        plain = pa.table({"tag": group["tag"], "time": group["time"].cast(pa.int64()), "kind": group["kind"]})
        some = plain.group_by("tag", use_threads=False).aggregate(
            [("time", "min"), ("time", "max"), ("time", "count"), ("kind", "last")]
        )  # fmt: skip
        for row in some.to_pylist():
            _add(own, row)
        ends.append(pc.min_max(plain["time"]).as_py())
    if not ends:
        raise StoreError("it has no samples")
    for name, tag in own.items():
        had = tags.setdefault(name, Tag("", tag.kind, tag.first, tag.last, 0))
        if tag.last > had.last:
            had.kind = tag.kind
        had.first, had.last = min(had.first, tag.first), max(had.last, tag.last)
        had.points += 0 if name in counted else tag.points
    first, last = min(one["min"] for one in ends) // HOUR_NS, max(one["max"] for one in ends) // HOUR_NS
    if facts.commits:
        first, last = facts.first, facts.last
    else:  # of a version that wrote no facts: its name has the rest
        facts = msgspec.structs.replace(facts, commits=sealing.commit_in(path.name))
    size, sha256 = path.stat().st_size, sealing.sha256_of(path)
    return File(path.name, first, last, rows, size, sha256, facts.commits, len(own), facts.revised), facts


def _add(tags: dict[str, Tag], row: dict[str, Any]) -> None:
    low, high, kind, count = row["time_min"], row["time_max"], row["kind_last"], row["time_count"]
    had = tags.setdefault(row["tag"], Tag("", kind, low, high, 0))
    had.first, had.last = min(had.first, low), max(had.last, high)
    had.points += count


def reach(folder: Path, sealed: int) -> int:
    """Up to which commit the hot log goes on from what is sealed."""
    for path in hot.files(folder, 0):
        for one in hot.read(path):
            if one.commit == sealed + 1:
                sealed = one.commit
    return sealed
