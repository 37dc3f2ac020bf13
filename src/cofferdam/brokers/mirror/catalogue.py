"""The catalogue: what the store holds, as one file that is renamed into place.

A reader that has it sees one generation from the start of a query to its end: the files that it names stay for
LINGER_SECONDS after a later generation has replaced them, and hot files beside it hold what came after `sealed`.

Not here: what is in a sealed file (sealing), the hot log (hot).
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from cofferdam.errors import StoreError, StoreFull
from cofferdam.policy.terms.mirror_rows import Qualities

NAME: Final = "catalogue.json"
COPY: Final = "catalogue.copy"
"""The same once more, for whoever has to make a catalogue anew. It is not waited for: it may be one generation off."""
LINGER_SECONDS: Final = 600
NOTE: Final = "sealed.json"
"""A catalogue that has no more than what is `sealed` and `taken`: no sealed file need say so, since those that repeat
others are not written, and others grow old or are set aside."""
VERSION: Final = 1
ANY_SOURCE: Final = "*"
"""Of a loss of which nobody knows whose it was, or that is of several."""


class File(Struct, frozen=True):
    """A sealed file. `first`, `last`: hours since 1970 (UTC) that it may have samples of; `sha256`: of its bytes;
    `commits`: it holds what was taken up to this commit; `revised`: how many of its samples are further ones of a time
    that a tag has a sample of in it; -1: nobody has counted them."""

    name: str
    first: int
    last: int
    rows: int
    size: int
    sha256: str
    commits: int
    tags: int
    revised: int = -1


class Reckoned(Struct, frozen=True):
    """A file of aggregates (partials). `step` in seconds; `of`: the sealed files that it was made of, all of one
    `month`."""

    name: str
    step: int
    of: tuple[str, ...]
    month: str
    rows: int
    size: int
    sha256: str
    form: int = 1
    """Which columns it has (partials.FORM)."""


class Loss(Struct, frozen=True):
    """What is not there, and why: of a source (or "*"), between two times (UTC ns). With a lane: its batches from
    `first` to `last`, which a strand has lost, and may bring later."""

    source: str
    since: int
    until: int
    points: int
    why: str
    at: int
    lane: str = ""
    first: int = 0
    last: int = 0

    @property
    def known(self) -> bool:
        """Whether anybody knows that there was anything."""
        return bool(self.until or not self.lane)


class Tag(Struct):
    """What is known of a tag. `kind`: of its last value; times of its samples in UTC ns; `points`: as they came,
    repetitions counted."""

    source: str
    kind: int
    first: int
    last: int
    points: int


class Hold(Struct, frozen=True):
    """A time that is kept, whatever its age: hours since 1970, both included."""

    first: int
    last: int
    by: str
    reason: str


class Catalogue(Struct):
    """The whole of it."""

    version: int = VERSION
    generation: int = 0
    sealed: int = 0
    """All commits up to this one are in sealed files."""
    taken: dict[str, int] = {}
    """By lane: the number of the last batch among them."""
    files: list[File] = []
    reckoned: list[Reckoned] = []
    losses: list[Loss] = []
    tags: dict[str, Tag] = {}
    holds: list[Hold] = []
    dropped: int = 0
    """Everything before this hour is gone by age or for want of room; 0: nothing."""
    qualities: tuple[Qualities, ...] = ()
    """What those of its tags mean, as the keeper's policy says. It stands here since what was reckoned beforehand goes
    by it: whoever reads one generation has both."""
    night: int = 0
    """Days since 1970: those before it were compared with the source at night."""
    known_at: int = 0
    """A time (UTC ns) that is over, whatever a clock says: by it history grows old (times)."""
    found: str = ""
    """What was mended when it was made anew, for the keeper to tell."""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Catalogue).decode


REBUILD: Final = "`cofferdam mirror rebuild` makes it anew of the sealed files; or put the store back from a backup"


def load(folder: Path, name: str = NAME) -> Catalogue:
    """The present one; an empty one where there was none yet. Raises: StoreError where it cannot be understood."""
    try:
        found = _decode((folder / name).read_bytes())
    except FileNotFoundError:
        if name == NAME and load(folder, COPY).generation > 1:  # of the first, the copy is there a moment before
            raise StoreError(f"{folder / NAME} is gone", hint=REBUILD) from None
        return Catalogue()
    except OSError as error:
        raise StoreError(f"{folder / name} cannot be read: {error.strerror or error}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StoreError(f"{folder / name} is damaged: {error}", hint=REBUILD) from None
    if found.version != VERSION:
        raise StoreError(f"{folder / name} is of version {found.version}, and this is {VERSION}")
    return found


def save(folder: Path, catalogue: Catalogue) -> None:
    """Puts it in place, one generation later. Raises: StoreFull, StoreError: the old one is still there."""
    catalogue.generation += 1
    fresh = folder / "catalogue.new"
    try:
        data = _encode(catalogue)
        write_durably(fresh, data, sync=False)
        fresh.rename(folder / COPY)
        write_durably(fresh, data)
        fresh.rename(folder / NAME)
        sync_folder(folder)
    except OSError as error:
        catalogue.generation -= 1
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise failed(error, folder) from None


def note(folder: Path, catalogue: Catalogue) -> None:
    """Puts the note in place. Raises: OSError: the old one is still there."""
    fresh = folder / "sealed.new"
    write_durably(fresh, _encode(Catalogue(sealed=catalogue.sealed, taken=catalogue.taken)))
    fresh.rename(folder / NOTE)
    sync_folder(folder)


def write_durably(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Raises: OSError."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]
        if sync:
            os.fsync(file)
    finally:
        os.close(file)


def sync_folder(folder: Path) -> None:
    """Raises: OSError."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def failed(error: OSError, folder: Path) -> StoreError:
    """What a failure of the disk is to the store."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(f"{folder} is full")
    return StoreError(f"the store {folder}: {error.strerror or error}")
