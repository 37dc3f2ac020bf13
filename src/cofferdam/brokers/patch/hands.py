"""What a technician installs with the maker's own tool: the released file is laid out in a folder of the site's, with a
form beside it. The site gives that folder out to read only, by its file server or as files of the jump server.

    FOLDER/ASSET/FILE             the file that people signed, read back
    FOLDER/ASSET/FILE.form.txt    what it is, and what is to be said of it

It lies there until somebody says what became of it: who did it, and which version the asset shows.

Not here: when it is laid out (plan), what is said of it (installer_verbs).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from cofferdam.brokers.kit import folders
from cofferdam.brokers.patch.outcome import Outcome
from cofferdam.brokers.patch.records import Release

PIECE: Final = 1 << 20
FORM: Final = """\
{product} {version} for {asset}

File:     {file}
SHA-256:  {sha256}

Before you begin, compare the SHA-256 on the machine that installs (certutil -hashfile FILE SHA256, sha256sum FILE).
Afterwards, read the version back from the asset itself, and say so, or have it said, at the gate:

    cofferdam patch result {asset} {product} done --technician NAME --reads VERSION --detail "how it went"
    cofferdam patch result {asset} {product} failed --technician NAME --detail "what happened"

Technician:   ____________________    Date and time:   ____________________
Version that the asset shows:         ____________________
"""


async def lay_out(place: Path | None, asset: str, release: Release, file: Path) -> Outcome:
    """The file, and its form. Never raises for what the folder is or does."""
    custom, name = release.custom, release.custom.file
    form = FORM.format(
        asset=asset, product=custom.product, version=custom.version, file=name, sha256=release.sha256
    ).encode()
    part = f".{name}.part"
    try:
        if place is None:
            raise FileNotFoundError(2, "the folder is not there")
        with _beneath(place, asset) as there:
            for old in (part, f"{name}.form.txt", name):
                _gone(there, old)
            with _written(part, there) as out, file.open("rb") as source:
                while piece := source.read(PIECE):
                    out.write(piece)
                    await asyncio.sleep(0)
                out.flush()
                os.fsync(out.fileno())
                out.seek(0)
                digest = hashlib.sha256()
                while piece := out.read(PIECE):
                    digest.update(piece)
                    await asyncio.sleep(0)
            if digest.hexdigest() != release.sha256:
                _gone(there, part)
                return Outcome("failed", "what was laid out reads back otherwise; nothing lies there")
            folders.write(there, f"{name}.form.txt", form)
            folders.rename(there, part, there, name)
            os.fsync(there)
    except OSError as error:
        return Outcome("failed", f"it cannot be laid out: {error.strerror or error}")
    return Outcome("sent", "laid out for a technician, until somebody says what became of it")


def take_away(place: Path | None, asset: str, name: str) -> None:
    """What was dealt with lies there no more."""
    with contextlib.suppress(OSError):
        if place is not None:
            with _beneath(place, asset) as there:
                for old in (name, f"{name}.form.txt", f".{name}.part"):
                    _gone(there, old)


@contextlib.contextmanager
def _beneath(place: Path, asset: str) -> Iterator[int]:
    """The asset's own folder. Raises: OSError."""
    with folders.opened(place) as here:
        there = folders.beneath(here, asset)
        try:
            yield there
        finally:
            os.close(there)


def _written(name: str, there: int) -> IO[bytes]:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(name, flags, 0o440, dir_fd=there), "w+b")


def _gone(there: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=there)
