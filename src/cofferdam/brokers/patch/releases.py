"""How a file is released: somebody asks for it, people sign, and it is laid out for the installer; or it is rejected.
And the roots that say who they are.

A request makes the metadata that people are to sign; one stands at a time, since each is the whole list of what is
released. A signature is checked here for a quick answer, and by the installer for real.

Not here: files that come and are examined (keeper_verbs), keys of people (never here: they sign on their own machines).
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from msgspec.structs import replace
from tuf.api.metadata import Targets

from cofferdam.audit.entry import Draft
from cofferdam.audit.events import patch as events
from cofferdam.audit.events.base import clip
from cofferdam.brokers.broker import Asked
from cofferdam.brokers.patch import asks, told, trustkeys
from cofferdam.brokers.patch.catalogue import FileRow, Pending
from cofferdam.brokers.patch.examining import unseal
from cofferdam.brokers.patch.keeping import Keeping, row_of
from cofferdam.brokers.patch.records import Custom, path_of, same_person
from cofferdam.brokers.patch.witnesses import concerned, custom_of, not_seen
from cofferdam.errors import CofferdamError, GateError, StoreError

PIECE_TO_SIGN: Final = 256 << 10
"""Characters of metadata in one answer, where they have at most twice as many: they are ASCII, with quotes and line
ends."""
SIGNATURES_BYTES: Final = 64 << 10
"""Room for signatures beside a list of releases."""


class Releases:
    """The keeper's."""

    def __init__(self, keeper: Keeping) -> None:
        self._keeper = keeper
        self._deciding: set[int] = set()
        """Files of which something is being recorded: until it is, nothing else is decided about them."""
        self._unfinished: set[int] = set()
        """Those that have their signatures and could not be released."""
        self.verbs: dict[str, Callable[[Asked], None]] = {
            "request": self._request,
            "to-sign": self._to_sign,
            "approve": self._approve,
            "reject": self._reject,
            "root": self._root,
        }

    def mend(self) -> None:
        """After a crash between two rows of the book: a file and what is asked for it say the same again. What has its
        signatures is released, and what was rejected stays so, whoever signed it before."""
        keeper = self._keeper
        for pending in list(keeper.pending.rows.values()):
            row = keeper.files.get(pending.number)
            if row is not None and row.state == "passed":
                keeper.keep(replace(row, state="requested"))
            elif row is None or row.state != "requested":
                try:
                    keeper.pending.drop(pending.number)
                except StoreError:  # until the next start, if there is no room even for that
                    del keeper.pending.rows[str(pending.number)]
                continue
            self.finish_if_signed(pending, "the keeper")
        for row in list(keeper.files.rows.values()):
            if row.state == "requested" and keeper.pending.get(row.number) is None:
                keeper.keep(replace(row, state="passed"))
            with contextlib.suppress(OSError):  # what is left over takes room, and no more
                if row.state == "rejected":
                    keeper.drop_files(row.number)
                elif row.state == "released":  # it lies where the installer takes it from
                    (keeper.store / "quarantine" / str(row.number)).unlink(missing_ok=True)

    def _decide(self, asked: Asked, number: int, draft: Draft, act: Callable[[], None]) -> None:
        """Recorded, then done. `act` answers."""
        self._deciding.add(number)

        def told(ok: bool, why: str) -> None:
            self._deciding.discard(number)
            if not ok:
                asked.refuse(f"nothing can be recorded: {why}", "nothing has changed")
                return
            try:
                act()
            except (CofferdamError, OSError) as error:
                asked.refuse(f"the keeper's disk: {getattr(error, 'strerror', None) or error}")

        self._keeper.setting.audit.record(draft, told)

    def undecided(self, number: int) -> None:
        """Raises: GateError."""
        if number in self._deciding:
            raise GateError(f"file {number} is being decided on by somebody else", hint="look again in a moment")

    def shown(self, pending: Pending) -> told.Pending:
        """For people."""
        people = self._keeper.repository.people()
        row = row_of(self._keeper, pending.number)
        return {
            "number": pending.number,
            "file": f"{row.product}/{row.version}/{row.file}",
            "by": pending.by,
            "reason": pending.reason,
            "emergency": pending.emergency,
            "signed": sorted(people.get(keyid, "?") for keyid in pending.signatures),
            "needs": self._keeper.repository.threshold,
        }

    def _request(self, asked: Asked) -> None:
        said, keeper = asked.decode(asks.Request), self._keeper
        row, repository = row_of(keeper, said.number), keeper.repository
        self.undecided(row.number)
        if keeper.desk.is_document(row):
            raise GateError(f"file {row.number} is a document about files: it is not released")
        if row.state == "requested":
            hint = f"`cofferdam patch approve {row.number}`, or `reject`"
            raise GateError(f"file {row.number} was asked for already: it waits for its signatures", hint=hint)
        if row.state != "passed" or row.report is None:
            why = f" ({row.reason})" if row.reason else ""
            raise GateError(f"file {row.number} is {row.state}{why}: it cannot be released")
        if not keeper.as_asked(row):
            raise GateError(
                f"file {row.number} was examined by another policy: it asks for another proof or scan now",
                hint=f"`cofferdam patch examine {row.number}` has it looked at again",
            )
        if repository.unfit:
            raise GateError(repository.unfit)
        if keeper.pending.rows or self._deciding:
            other = next(iter([*keeper.pending.rows, *self._deciding]))
            raise GateError(
                f"file {other} waits for its signatures: one release stands at a time",
                hint=f"`cofferdam patch approve {other}` or `cofferdam patch reject {other}` first",
            )
        if said.emergency and not said.reason.strip():
            raise GateError("an emergency has a reason", hint="--reason 'why it cannot wait for its window'")
        report = row.report
        scan = f"{report.scan}, {report.base}" if report.base else report.scan
        custom = Custom(
            number=row.number, product=row.product, version=row.version, file=row.file, uploaded_by=row.by,
            requested_by=said.by, origin=clip(report.origin), scan=clip(f"{scan}; {report.kind}"),
            at=datetime.fromtimestamp(keeper.now // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            emergency=said.emergency, reason=said.reason, brought=row.vouches, asked=said.vouch,
        )  # fmt: skip
        if why := self._unseen(custom, row.sha256):
            raise not_seen(row.number, why)
        metadata = repository.draft(custom, row.size, row.sha256)
        encoded = trustkeys.encode(metadata).decode()
        if len(encoded) > trustkeys.METADATA_BYTES - SIGNATURES_BYTES:
            raise GateError(f"the list of what is released is full: it would have {len(encoded)} bytes")
        pending = Pending(
            number=row.number, by=said.by, at=keeper.now, metadata=encoded, reason=said.reason,
            emergency=said.emergency,
        )  # fmt: skip
        draft = events.ReleaseRequested(
            wall_ns=keeper.now, number=row.number, product=row.product, version=row.version, file=row.file,
            sha256=row.sha256, by=clip(said.by, 128), targets=metadata.signed.version, emergency=said.emergency,
            reason=clip(said.reason),
        )  # fmt: skip

        def act() -> None:
            keeper.pending.put(row.number, pending)
            keeper.keep(replace(row, state="requested"))
            answer: told.Requested = {"number": row.number, "targets": metadata.signed.version}
            asked.answer(answer)

        self._decide(asked, row.number, draft, act)

    def _unseen(self, custom: Custom, sha256: str) -> str:
        """Why the installer would not believe who brought it in or asked for it, "" if it would: with such a release in
        the list, it believed nothing at all."""
        keeper = self._keeper
        return keeper.witnesses.why_not(custom, sha256) if keeper.rows.separate else ""

    def _waiting(self, number: int) -> Pending:
        pending = self._keeper.pending.get(number)
        if pending is None:
            row = row_of(self._keeper, number)
            raise GateError(f"nothing is asked for file {number}: it is {row.state}")
        return pending

    def _to_sign(self, asked: Asked) -> None:
        """The metadata, in pieces that an answer holds: "more" is where the next one begins, 0 behind the last. What is
        signed is what the signer's own machine makes of them."""
        said = asked.decode(asks.ToSign)
        pending, end = self._waiting(said.number), said.offset + PIECE_TO_SIGN
        answer: told.Piece = {
            "number": pending.number, "metadata": pending.metadata[said.offset : end],
            "more": end if end < len(pending.metadata) else 0, "needs": self._keeper.repository.threshold,
        }  # fmt: skip
        asked.answer(answer)

    def _approve(self, asked: Asked) -> None:
        said, keeper = asked.decode(asks.Approve), self._keeper
        pending, row, repository = self._waiting(said.number), row_of(keeper, said.number), keeper.repository
        self.undecided(said.number)
        metadata = trustkeys.decode(pending.metadata.encode(), Targets)
        signature = trustkeys.signature(said.signature.encode())
        people = repository.people()
        person = people.get(signature.keyid)
        if person is None:
            raise GateError("that key is no approver's", hint=f"the root has {', '.join(sorted(people.values()))}")
        key = repository.root.signed.keys[signature.keyid]
        try:
            key.verify_signature(signature, trustkeys.to_sign(metadata.signed))
        except Exception as error:
            raise GateError(f"the signature does not hold: {error}", hint="sign what `patch show` has now") from None
        custom = custom_of(row, metadata)
        if why := self._unseen(custom, row.sha256):
            raise not_seen(row.number, why)
        if keeper.rows.separate and same_person(person) in concerned(custom):
            asked_for_it = same_person(person) == same_person(pending.by)
            what = "asked for its release" if asked_for_it else "brought the file in"
            raise GateError(f"{person} {what}, and cannot be one of those who approve it")
        if signature.keyid in pending.signatures:
            raise GateError(f"{person} has signed already: it takes another person")
        signatures = {**pending.signatures, signature.keyid: signature.signature}
        so_far = tuple(sorted(people[keyid] for keyid in signatures if keyid in people))
        draft = events.ReleaseSigned(
            wall_ns=keeper.now, number=row.number, sha256=row.sha256, targets=metadata.signed.version,
            person=clip(person, 128), by=clip(said.by, 128), people=so_far[:16],
        )  # fmt: skip

        def act() -> None:
            fresh = replace(pending, signatures=signatures)
            keeper.pending.put(row.number, fresh)
            answer: told.Approved = {
                "number": row.number, "signed": so_far, "needs": repository.threshold, "released": False,
            }  # fmt: skip
            if not self.finish_if_signed(fresh, said.by, lambda ok, why: self._finished(asked, answer, ok, why)):
                asked.answer(answer)

        self._decide(asked, row.number, draft, act)

    @staticmethod
    def _finished(asked: Asked, answer: told.Approved, ok: bool, why: str) -> None:
        if ok:
            asked.answer({**answer, "released": True})
        else:
            asked.refuse(
                f"it has its signatures and is not released yet: {why}",
                "it is tried again by itself, once there is room",
            )

    def finish_if_signed(
        self, pending: Pending, by: str, done: Callable[[bool, str], None] = lambda _ok, _why: None
    ) -> bool:
        """Publishes what has enough signatures. Whether it has."""
        keeper, repository = self._keeper, self._keeper.repository
        metadata = trustkeys.decode(pending.metadata.encode(), Targets)
        for keyid, value in pending.signatures.items():
            metadata.signatures[keyid] = trustkeys.Signature(keyid, value)
        people = tuple(sorted(trustkeys.signed_by(repository.root.signed, "targets", metadata)))
        row = keeper.files.get(pending.number)
        if len(people) < max(repository.threshold, keeper.rows.signatures) or row is None or repository.unfit:
            return False
        if self._unseen(custom_of(row, metadata), row.sha256):
            return False  # whoever approves is told why
        draft = events.ReleaseDecided(
            wall_ns=keeper.now, number=row.number, product=row.product, version=row.version, file=row.file,
            sha256=row.sha256, decision="released", by=clip(by, 128), people=people[:16],
            targets=metadata.signed.version,
        )  # fmt: skip

        self._deciding.add(row.number)

        def ended(ok: bool, why: str) -> None:
            (self._unfinished.discard if ok else self._unfinished.add)(row.number)
            done(ok, why)

        def told(ok: bool, why: str) -> None:
            self._deciding.discard(row.number)
            if not ok:
                ended(False, f"nothing can be recorded: {why}")
                return
            self._publish(row, metadata, ended)

        keeper.setting.audit.record(draft, told)
        return True

    def try_again(self) -> None:
        """What has its signatures and could not be released: with room for it, which it lacked."""
        for number in list(self._unfinished - self._deciding):
            pending, row = self._keeper.pending.get(number), self._keeper.files.get(number)
            if pending is None or row is None:
                self._unfinished.discard(number)
            elif self._keeper.room(row.size):
                self.finish_if_signed(pending, "the keeper")

    def _publish(self, row: FileRow, metadata: Any, done: Callable[[bool, str], None]) -> None:
        """Lays the file out for the installer, unsealed, then the metadata. Until both are there it waits, and is laid
        out anew after a crash."""
        keeper, repository = self._keeper, self._keeper.repository
        quarantined = keeper.store / "quarantine" / str(row.number)

        def laid_out(why: str) -> None:
            self._deciding.discard(row.number)
            if why:
                done(False, why)
                return
            try:
                if fresh.exists():
                    fresh.rename(place)
                repository.publish(metadata)
                keeper.files.put(row.number, replace(row, state="released"))
                keeper.pending.drop(row.number)
                quarantined.unlink(missing_ok=True)
            except (CofferdamError, OSError) as error:
                done(False, f"the keeper's disk: {getattr(error, 'strerror', None) or error}")
                return
            keeper.tell_installer()
            done(True, "")

        try:
            custom = custom_of(row, metadata)
            place = repository.place(custom, row.sha256)
            fresh = place.with_name(f"{place.name}.new")
            place.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        except OSError as error:
            done(False, f"the keeper's disk: {error.strerror}")
            return
        self._deciding.add(row.number)
        if quarantined.exists():
            unseal(keeper.sealing, keeper.setting.reactor, quarantined, fresh, laid_out, sync=True)
        else:
            laid_out("")

    def _reject(self, asked: Asked) -> None:
        said, keeper = asked.decode(asks.Reject), self._keeper
        row, pending = row_of(self._keeper, said.number), keeper.pending.get(said.number)
        self.undecided(said.number)
        if row.state not in ("passed", "requested", "refused", "not-scanned", "failed", "waiting", "read"):
            raise GateError(f"file {row.number} is {row.state}: it cannot be rejected")
        draft = events.ReleaseDecided(
            wall_ns=keeper.now, number=row.number, product=row.product, version=row.version, file=row.file,
            sha256=row.sha256, decision="rejected", by=clip(said.by, 128), reason=clip(said.reason),
        )  # fmt: skip

        def act() -> None:
            if pending is not None:
                keeper.pending.drop(row.number)  # first: what is not there can be signed by nobody
            keeper.files.put(row.number, replace(row, state="rejected", reason=said.reason))
            keeper.drop_files(row.number)
            if keeper.rows.separate and not self._was_seen(row):
                keeper.fetching.forget(row)
            answer: told.Number = {"number": row.number}
            asked.answer(answer)

        self._decide(asked, row.number, draft, act)

    def _was_seen(self, row: FileRow) -> bool:
        """Whether somebody's word stands for who brought it in, each time that it came."""
        path = path_of(row.product, row.version, row.file)
        return bool(row.vouches) and all(self._keeper.witnesses.saw(each, path, row.sha256) for each in row.vouches)

    def _root(self, asked: Asked) -> None:
        said, keeper = asked.decode(asks.Root), self._keeper
        data = said.metadata.encode()
        try:
            fresh = keeper.repository.check_root(data)
        except CofferdamError as error:
            raise GateError(f"that root is not taken: {error}") from None
        draft = events.RootTaken(
            wall_ns=keeper.now,
            root=fresh.signed.version,
            by=clip(said.by, 128),
            sha256=hashlib.sha256(data).hexdigest(),
        )

        def act() -> None:
            keeper.repository.take_root(data)  # checked again: another may have come meanwhile
            keeper.tell_installer()
            answer: told.RootTaken = {"root": fresh.signed.version}
            asked.answer(answer)

        self._decide(asked, 0, draft, act)
