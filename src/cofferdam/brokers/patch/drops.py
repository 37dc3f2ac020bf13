"""Folders of the site's in which files are left for the keeper: a source like another, only that nobody fetches.

A file counts once it has stood unchanged for SETTLE_SECONDS (or was renamed in whole before that); then its name is
held to the rules, and it is read, piece by piece, into quarantine. What was taken, or is known, is moved to `done`;
what no rule names, or was refused, to `bad` with the reason beside it. Nothing is moved before it is acknowledged.

Not here: working in folders that others work in as well (kit.folders), what becomes of a file (keeper).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from cofferdam.audit.events.base import clip
from cofferdam.brokers.kit import folders as kit
from cofferdam.brokers.patch.beside import SIGNATURES
from cofferdam.brokers.patch.receiving import SIGNATURE_BYTES, Keeping
from cofferdam.brokers.patch.records import Ended
from cofferdam.policy.terms.patch_rows import Product
from cofferdam.policy.terms.patch_source_rows import Fetch, Source

SETTLE_SECONDS: Final = 2.0
LOOK_SECONDS: Final = 5.0
PIECE: Final = 1 << 20
NAMES_MOST: Final = 1_000
"""Files of one folder that are looked at in one go."""


class Telling(Protocol):
    """Who is told how a look at a folder ended."""

    def tell_end(self, ended: Ended, refused: str) -> None:
        """That it did."""


class Drops:
    """All folders of the keeper. One file is read at a time."""

    def __init__(self, keeper: Keeping, telling: Telling, paths: Mapping[str, Path]) -> None:
        self._keeper = keeper
        self._telling = telling
        self._paths = paths
        self._stood: dict[tuple[str, str], tuple[kit.Facts, float]] = {}
        """What a file was like, since when (monotonic)."""
        self._reading: _Reading | None = None
        self._at = float("-inf")
        self._number = 0
        self._said: dict[str, str] = {}

    def go(self) -> None:
        """They are looked at now."""
        self._at = float("-inf")

    def tick(self) -> None:
        now = time.monotonic()
        if self._reading is not None or now - self._at < LOOK_SECONDS / (2 if self._stood else 1):
            return
        self._at = now
        for source in self._keeper.rows.sources:
            if not source.folder:
                continue
            try:
                listed, taken = self._look(source, now)
            except OSError as error:
                self._tell(source, 0, 0, f"{Path(str(error.filename or source.folder)).name}: {error.strerror}")
                continue
            if taken or not listed:
                self._tell(source, listed, taken, "")
            if self._busy():
                return

    def _busy(self) -> bool:
        return self._reading is not None

    def _tell(self, source: Source, listed: int, taken: int, refused: str) -> None:
        if taken or refused != self._said.get(source.name, ""):
            self._said[source.name] = refused
            self._telling.tell_end(Ended(source.name, listed, taken, taken, ""), clip(refused))

    def trouble(self, source: Source, why: str) -> None:
        """A file stays where it is, for now."""
        self._tell(source, 0, 0, why)

    def _look(self, source: Source, now: float) -> tuple[int, int]:
        """(files that lie there, whether one is being read). Raises: OSError."""
        path = self._paths.get(source.folder)
        if path is None:
            raise FileNotFoundError(
                2, "it is not there; `cofferdam up --folders DIR` says where it lies", source.folder
            )
        listed = 0
        found: set[tuple[str, str]] = set()
        with os.scandir(path) as entries:
            for entry in entries:
                if kit.is_writers(entry.name):
                    continue
                listed += 1
                if listed > NAMES_MOST:
                    break
                facts = kit.facts_of(entry.stat(follow_symlinks=False))
                key = (source.folder, entry.name)
                found.add(key)
                before = self._stood.get(key)
                if before is None or before[0] != facts:
                    self._stood[key] = (facts, now)
                elif now - before[1] >= SETTLE_SECONDS and self._reading is None:
                    self._take(source, path, entry.name, facts)
        for gone in [key for key in self._stood if key[0] == source.folder and key not in found]:
            del self._stood[gone]
        return listed, int(self._reading is not None)

    def _take(self, source: Source, path: Path, name: str, facts: kit.Facts) -> None:
        self._stood.pop((source.folder, name), None)
        with kit.opened(path) as here:
            found = os.stat(name, dir_fd=here, follow_symlinks=False)
            if not stat.S_ISREG(found.st_mode):
                self.trouble(source, f"{kit.shown(name)} is no plain file: it stays where it is")
                return
            rule, version = self._named(source, name)
            if rule is None:
                self._away(path, name, facts, "no rule names this file")
                self._keeper.note_refused("?", "", kit.shown(name), source.name, "policy", "no rule names this file")
                return
            fd = kit.open_plain(name, facts, here)
        if fd is None:
            return
        self._number += 1
        self._reading = _Reading(self, self._keeper, source, path, name, facts, fd, rule.product, version, self._number)
        self._reading.start()

    def _named(self, source: Source, name: str) -> tuple[Fetch | None, str]:
        """The rule that names a file, or the file that it is the signature of; and the version."""
        for rule in self._keeper.rows.fetches:
            product = self._keeper.product_of(rule.product)
            if rule.source != source.name or product is None:
                continue
            base = name
            if product.origin.detached and not product.origin.list:
                base = next((name[: -len(end)] for end in SIGNATURES if name.endswith(end)), name)
            if version := rule.version_of(base):
                return rule, version
        return None, ""

    def _away(self, path: Path, name: str, facts: kit.Facts, why: str) -> None:
        """To `done`, or to `bad` with the reason. Raises: OSError."""
        with kit.opened(path) as here:
            there = kit.beneath(here, kit.BAD if why else kit.DONE)
            try:
                with contextlib.suppress(FileNotFoundError):
                    kit.move(name, facts, [why] if why else [], here, there)
            finally:
                os.close(there)

    def read(self, name: str, facts: kit.Facts, path: Path, why: str, *, leave: bool) -> None:
        """A file is dealt with. `leave`: it stays, and is tried again."""
        self._reading = None
        if not leave:
            with contextlib.suppress(OSError):  # it is read again, and is a conflict then
                self._away(path, name, facts, why)

    def end(self) -> None:
        if self._reading is not None:
            self._reading.drop()


class _Reading:
    """One file that is being read."""

    def __init__(
        self, drops: Drops, keeper: Keeping, source: Source, path: Path, name: str, facts: kit.Facts, fd: int,
        product: str, version: str, number: int,
    ) -> None:  # fmt: skip
        self._drops, self._keeper, self._source = drops, keeper, source
        self._path, self._name, self._facts, self._fd = path, name, facts, fd
        self._product, self._version = product, version
        self._target = keeper.store / "incoming" / f"folder-{number}"
        self._digest, self._size = hashlib.sha256(), 0
        self._open = True

    def start(self) -> None:
        said = self._keeper.product_of(self._product)
        fault, why = self._keeper.why_not(self._product, self._version, self._name, self._source.name, "folder")
        shut = self._keeper.shut(self._product)
        if said is None or fault or shut:
            os.close(self._fd)
            self._open = False
            self._no(fault or "window", why or shut or "there is no such product")
            return
        try:
            self._out = self._keeper.sealing.create(self._target)
        except OSError as error:
            os.close(self._fd)
            self._open = False
            self._no("store", f"the keeper's disk: {error.strerror or error}")
            return
        self._step(said)

    def _step(self, product: Product) -> None:
        most = SIGNATURE_BYTES if self._keeper.is_beside(product, self._name) else product.most
        try:
            data = os.read(self._fd, PIECE)
            self._out.write(data)
            self._size += len(data)
            self._digest.update(data)
            if not data:
                self._out.sync()
        except OSError as error:
            self.drop()
            self._no("store", f"it cannot be read, or the keeper's disk: {error.strerror}")
            return
        if self._size > most or not self._keeper.room(0):
            self.drop()
            self._no("room" if self._size > most else "store", f"more than {most} bytes, or the disk is full")
        elif data:
            self._keeper.setting.reactor.call_in(0, lambda: self._step(product))
        elif not self._size:
            self.drop()
            self._no("policy", "the file is empty")
        else:
            os.close(self._fd)
            self._out.close()
            self._open = False
            self._keeper.take_file(
                self._target, self._product, self._version, self._name, self._size, self._digest.hexdigest(),
                self._source.name, "folder", None, self._done,
            )  # fmt: skip

    def _done(self, number: int, waits: str, fault: str, why: str) -> None:
        if fault:
            self._no(fault, why)
        else:
            self._drops.read(self._name, self._facts, self._path, "", leave=False)

    def _no(self, fault: str, why: str) -> None:
        leave = fault in ("store", "log", "window", "busy", "severed")
        if leave:
            self._drops.trouble(self._source, f"{self._name}: {why}")
        else:
            self._keeper.note_refused(self._product, self._version, self._name, self._source.name, fault, why)
        self._drops.read(self._name, self._facts, self._path, why, leave=leave)

    def drop(self) -> None:
        if self._open:
            self._open = False
            os.close(self._fd)
            self._out.close()
            self._target.unlink(missing_ok=True)
