"""What operators ask of the patch keeper: what there is, files that come in, sources that are looked at. Who asks is
who the gate sees.

Not here: releases, signatures and roots (releases), advisories (advice.desk), plans and results (installer).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cofferdam.audit.events import patch as events
from cofferdam.audit.events.base import clip
from cofferdam.brokers.broker import Asked
from cofferdam.brokers.patch import asks, told
from cofferdam.brokers.patch.catalogue import FileRow, FileTold
from cofferdam.brokers.patch.keeping import Keeping, row_of
from cofferdam.brokers.patch.records import path_of
from cofferdam.brokers.patch.releases import Releases
from cofferdam.brokers.patch.verifying import verify
from cofferdam.errors import GateError

PIECE: Final = 4 << 20
_STAGED: Final = re.compile(r"[a-z0-9]{8,64}\Z")


class Verbs:
    """The keeper's."""

    def __init__(self, keeper: Keeping, releases: Releases) -> None:
        self._keeper = keeper
        self._releases = releases
        self._verbs: dict[str, Callable[[Asked], None]] = {
            "status": self._status,
            "list": self._list,
            "show": self._show,
            "put": self._put,
            "examine": self._examine,
            "fetch": self._fetch,
            "verify": lambda asked: verify(keeper, asked),
            **releases.verbs,
            **keeper.desk.verbs,
        }

    def command(self, asked: Asked) -> None:
        work = self._verbs.get(asked.verb)
        if work is None:
            asked.refuse(f"the patch keeper has no verb {asked.verb!r}")
            return
        try:
            work(asked)
        except OSError as error:
            raise GateError(f"the keeper's disk: {error.strerror or error}") from None

    # --- looking

    def _status(self, asked: Asked) -> None:
        asked.decode(asks.By)
        keeper, repository = self._keeper, self._keeper.repository
        states: dict[str, int] = {}
        for row in keeper.files.rows.values():
            states[row.state] = states.get(row.state, 0) + 1
        pending = next(iter(keeper.pending.rows.values()), None)
        root = repository.root.signed
        answer: told.Keeper = {
            "root": root.version,
            "root_expires": root.expires.isoformat(),
            "unfit": repository.unfit,
            "approvers": sorted(repository.people().values()),
            "threshold": repository.threshold,
            "files": states,
            "pending": self._releases.shown(pending) if pending else None,
            "sources": [keeper.fetching.told(source.name) for source in keeper.rows.sources],
            "encrypted": keeper.sealing.encrypt,
            "scanner": keeper.examining.scanner,
            "unscanned": keeper.examining.unfit,
            "installer": {"targets": keeper.looked.version, "refused": keeper.looked.refused},
            "advisories": keeper.desk.counts,
            "soonest": keeper.desk.soonest(),
        }
        asked.answer(answer)

    def _list(self, asked: Asked) -> None:
        asked.decode(asks.By)
        rows = sorted(self._keeper.files.rows.values(), key=lambda row: row.number)
        asked.answer([self._told(row, short=True) for row in rows[-1000:]])

    def _show(self, asked: Asked) -> None:
        asked.answer(self._told(row_of(self._keeper, asked.decode(asks.Number).number)))

    def _told(self, row: FileRow, *, short: bool = False) -> told.File:
        shared = {name: getattr(row, name) for name in FileTold.__struct_fields__}
        if short:
            return told.File(**shared)
        pending = self._keeper.pending.get(row.number)
        return told.File(
            **shared, report=row.report, pending=self._releases.shown(pending) if pending is not None else None
        )

    # --- files

    def _put(self, asked: Asked) -> None:
        """A file that the command line has laid into the drop folder, read in pieces between other work."""
        said = asked.decode(asks.Put)
        if not _STAGED.match(said.staged):
            raise GateError("that is no staged file")
        staged = self._keeper.store / "drop" / said.staged
        product = self._keeper.product_of(said.product)
        if product is None:
            raise GateError(f"there is no product {said.product}", hint="the policy's `products:` names them")
        fault, why = self._keeper.why_not(said.product, said.version, said.file)
        if not fault and (why := self._keeper.too_much(said.by, 0)):
            fault = "room"
        if fault:
            staged.unlink(missing_ok=True)
            self._keeper.note_refused(said.product, said.version, said.file, said.by, fault, why)
            raise GateError(why)
        fd = os.open(staged, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        self._copy(asked, said, staged, fd, product.most)

    def _copy(self, asked: Asked, said: asks.Put, staged: Path, fd: int, most: int) -> None:
        keeper = self._keeper
        target = keeper.store / "incoming" / f"put-{said.staged}"
        try:
            out = keeper.sealing.create(target)
        except OSError:
            os.close(fd)
            raise
        digest, size = hashlib.sha256(), 0

        def refuse(fault: str, why: str) -> None:
            keeper.note_refused(said.product, said.version, said.file, said.by, fault, why)
            asked.refuse(why)

        def end() -> None:
            os.close(fd)
            out.close()
            staged.unlink(missing_ok=True)

        def step() -> None:
            nonlocal size
            try:
                data = os.read(fd, PIECE)
                out.write(data)
                size += len(data)
                digest.update(data)
                if not data:
                    out.sync()
            except OSError as error:
                end()
                target.unlink(missing_ok=True)
                refuse("store", f"the keeper's disk: {error.strerror}")
                return
            if size > most or not keeper.room(0):
                end()
                target.unlink(missing_ok=True)
                refuse(
                    "room", f"{said.product} has at most {most} bytes" if size > most else "the keeper's disk is full"
                )
            elif data:
                keeper.setting.reactor.call_in(0, step)
            else:
                end()
                sha256 = digest.hexdigest()

                def done(number: int, waits: str, fault: str, why: str) -> None:
                    if fault:
                        refuse(fault, why)
                    else:
                        here = number if number < 1 << 52 else 0
                        answer: told.Put = {"number": here, "sha256": sha256, "waits": waits}
                        asked.answer(answer)

                if not size:
                    target.unlink(missing_ok=True)
                    refuse("policy", "the file is empty")
                    return
                if not keeper.witnesses.saw(said.vouch, path_of(said.product, said.version, said.file), sha256):
                    target.unlink(missing_ok=True)
                    refuse("policy", f"it is another file than was to be brought in: its SHA-256 is {sha256}")
                    return
                keeper.take_file(
                    target, said.product, said.version, said.file, size, sha256, said.by, "put", said.vouch, done
                )

        step()

    def _examine(self, asked: Asked) -> None:
        row = row_of(self._keeper, asked.decode(asks.Number).number)
        self._releases.undecided(row.number)
        if row.state not in ("not-scanned", "failed", "passed"):
            raise GateError(f"file {row.number} is {row.state}: it is not looked at again")
        self._keeper.examine(row.number)
        answer: told.Number = {"number": row.number}
        asked.answer(answer)

    def _fetch(self, asked: Asked) -> None:
        """Has a source looked at now; or what it changed is known."""
        said, keeper = asked.decode(asks.Fetch), self._keeper
        source = keeper.rows.source(said.source)
        if source is None:
            known = ", ".join(each.name for each in keeper.rows.sources) or "none"
            raise GateError(f"there is no source {said.source}", hint=f"the policy has {known}")
        draft = events.SourceAsked(wall_ns=keeper.now, source=said.source, by=clip(said.by, 128), known=said.known)

        def told(ok: bool, why: str) -> None:
            if not ok:
                asked.refuse(f"nothing can be recorded: {why}", "nothing has changed")
                return
            if said.known:
                keeper.fetching.is_known(said.source)
            elif source.kind == "folder":
                keeper.drops.go()
            else:
                keeper.fetching.go(said.source)
            asked.answer(keeper.fetching.told(said.source))

        keeper.setting.audit.record(draft, told)
