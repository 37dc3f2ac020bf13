"""Reads the keeper's files through, for `cofferdam patch verify`: hashes as the catalogue has them.

Not here: what the log and the metadata say of them (the command line compares).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from cofferdam.brokers.broker import Asked, Setting
from cofferdam.brokers.patch.asks import By
from cofferdam.brokers.patch.book import Table
from cofferdam.brokers.patch.catalogue import FileRow
from cofferdam.brokers.patch.repository import Repository
from cofferdam.brokers.patch.sealing import NotSealed, Sealing

PIECE: Final = 4 << 20
LISTED_MOST: Final = 5_000
"""Files that are told, the newest."""


class Keeping(Protocol):
    """The keeper, as this knows it."""

    setting: Setting
    store: Path
    files: Table[FileRow]
    sealing: Sealing
    repository: Repository


def verify(keeper: Keeping, asked: Asked) -> None:
    """Reads every file that is kept, in pieces between other work."""
    asked.decode(By)
    rows = [row for row in keeper.files.rows.values() if row.state not in ("rejected", "refused")]
    wrong: list[str] = []
    checked = 0

    def place(row: FileRow) -> Path:
        if row.state == "released":
            return keeper.repository.targets / row.product / row.version / f"{row.sha256}.{row.file}"
        return keeper.store / "quarantine" / str(row.number)

    def released(row: FileRow) -> Iterator[bytes | memoryview]:
        with place(row).open("rb") as opened:
            while data := opened.read(PIECE):
                yield data

    def next_file() -> None:
        nonlocal checked
        if not rows:
            listed = sorted([row.number, row.sha256, row.state] for row in keeper.files.rows.values())
            asked.answer({"checked": checked, "wrong": wrong[:100], "files": listed[-LISTED_MOST:]})
            return
        row = rows.pop()
        checked += 1
        digest = hashlib.sha256()
        pieces = released(row) if row.state == "released" else keeper.sealing.pieces(place(row))

        def step() -> None:
            try:
                data = next(pieces, b"")
            except (NotSealed, OSError) as error:
                wrong.append(f"file {row.number}: {getattr(error, 'strerror', None) or error}")
                keeper.setting.reactor.call_in(0, next_file)
                return
            digest.update(data)
            if data:
                keeper.setting.reactor.call_in(0, step)
                return
            if digest.hexdigest() != row.sha256:
                wrong.append(f"file {row.number} ({row.product}/{row.version}/{row.file}) has another hash")
            next_file()

        step()

    next_file()
