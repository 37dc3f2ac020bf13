"""`cofferdam diode pair`: this end's keys, which are files in the state directory for the parts that need them, and the
file of the other end.

Not here: what is in them (brokers.diode.pairing).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from cofferdam.cli.diode_shown import qr, say, write
from cofferdam.errors import AuditError, GateError


def pair(args: argparse.Namespace) -> int:
    from cofferdam.brokers.diode import pairing
    from cofferdam.cli.gate_options import state_of
    from cofferdam.cli.keys import policy_of
    from cofferdam.gate.crew.plan import plan_crews
    from cofferdam.policy.terms.diode_rows import DiodeRows

    policy = policy_of(args)
    strands = {name: conduit.terms for name, conduit in policy.conduits.items() if isinstance(conduit.terms, DiodeRows)}
    if args.strand:
        strands = {name: row for name, row in strands.items() if name == args.strand}
    if len(strands) != 1:
        known = ", ".join(strands) or "none"
        raise GateError(f"the policy has {known} for strands", hint="say which with --strand CONDUIT")
    ((strand, row),) = strands.items()
    machine = row.inside if args.end == "inside" else row.outside
    plans = plan_crews(policy.on(machine))
    base = next(plan.base for plan in plans.values() if plan.broker == "diode" and strand in plan.conduits)
    keys = Keys(state_of(args), base)
    own = keys.own(args.end, new=args.new, old_days=args.old_days)
    log = _log_key(state_of(args)) if args.end == "inside" else ""
    mine = pairing.PairFile("pair of a strand", 1, policy.site, strand, args.end, *own, log)
    shown = {"end": args.end, "strand": strand, "words": mine.words, "file": "", "taken": "", "log": ""}
    if args.take is not None:
        other = pairing.read(_read(args.take))
        _check(other, mine)
        shown["log"] = keys.take(args.end, other, args.old_days)
        shown["taken"] = other.words
    if args.output is not None or args.take is None:
        path = args.output or Path(f"{strand}-{args.end}.pair")
        write(path, _encode(mine) + b"\n", 0o644)
        shown["file"] = str(path)
    if args.json:
        print(json.dumps(shown))
        return 0
    if shown["file"]:
        say([f"{shown['file']}: for the machine at the other end of {strand}. It holds no secret.",
              f"  its words: {mine.words}"])  # fmt: skip
        qr(mine.words)
        if args.end == "inside" and not log and "log" in row.gate:
            say(["  The audit log has no key yet. Once the gate has run, a file that is written anew has it, too:",
                  "  with it the outside checks who has signed the log."])  # fmt: skip
    if shown["taken"]:
        say([f"taken: the {'outside' if args.end == 'inside' else 'inside'} end of {strand}",
              f"  its words: {shown['taken']}",
              *([f"  {shown['log']}."] if shown["log"] else []),
              "Compare them with those on the other machine's screen. If they differ, somebody has changed the file.",
              "Then start the gate; or, if it runs: cofferdam reload."])  # fmt: skip
    return 0


def _log_key(state: Path) -> str:
    """The public key of this machine's audit log, "" where there is none yet. Raises: CofferdamError."""
    from cofferdam.audit.keys import find_public

    path = state / "keys" / "audit.pub"
    return find_public(None, path).text if path.exists() else ""


def _check(other: Any, mine: Any) -> None:
    """Raises: GateError, where a file is not that of the other end of the same strand."""
    if other.end == mine.end:
        raise GateError(f"this file is of the {other.end} end, and so is this machine", hint="take the other one")
    if (other.site, other.strand) != (mine.site, mine.strand):
        raise GateError(
            f"this file is for the strand {other.strand} of {other.site}, not {mine.strand} of {mine.site}",
            hint="each strand has a pair of files of its own",
        )
    if other.log:
        from cofferdam.audit.checkpoint import VerifierKey

        try:
            VerifierKey.parse(other.log)
        except AuditError as error:
            raise GateError(f"this file's key of the audit log is none: {error}", hint="have it made anew") from None
    if other.end == "outside" and not other.seal:
        raise GateError("this file has no key to seal to", hint="have it made anew")


def _encode(record: Any) -> bytes:
    import msgspec

    return msgspec.json.encode(record)


class Keys:
    """The files of the state folder in which the parts' keys are."""

    def __init__(self, state: Path, base: str) -> None:
        self._state, self._base = state, base

    def _path(self, part: str) -> Path:
        from cofferdam.brokers.diode.pairing import SECRET
        from cofferdam.gate.secrets import secret_file

        return secret_file(self._state, self._base, part, SECRET)

    def _load(self, part: str, kind: Any) -> Any:
        from cofferdam.brokers.diode.pairing import SECRET, load
        from cofferdam.gate.secrets import read_secret

        path = self._path(part)
        try:
            found = {SECRET: read_secret(path)}
        except FileNotFoundError:
            found = {}
        except OSError as error:
            raise GateError(f"{path} cannot be read: {error.strerror or error}") from None
        return load(kind, found)

    def _save(self, part: str, keys: Any) -> None:
        import os

        from cofferdam.gate.secrets import save_secret

        state = self._state
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = state.stat().st_gid if os.geteuid() == 0 else os.geteuid()  # the gate's group is its user's own
        save_secret(self._path(part), _encode(keys), owner)

    def own(self, end: str, *, new: bool, old_days: int) -> tuple[str, str]:
        """This end's public keys (sign, seal); made if there are none, or `new` ones. Raises: GateError."""
        from cofferdam.brokers.diode import pairing
        from cofferdam.brokers.diode.pairing import KeeperKeys, ReceiverKeys, SenderKeys, SpoolKeys

        if end == "inside":
            sender = self._load("sender", SenderKeys)
            if sender is None or new:
                private = pairing.new_signer()[0]
                if sender is None:
                    sender = SenderKeys(private)
                else:
                    former = pairing.former(sender.former, sender.sign, *_days(old_days))
                    sender = SenderKeys(private, sender.receivers, former)
                self._save("sender", sender)
                if self._load("spool", SpoolKeys) is None:
                    self._save("spool", SpoolKeys())
            return pairing.signer_public(sender.sign), ""
        receiver, keeper = self._load("receiver", ReceiverKeys), self._load("keeper", KeeperKeys)
        if receiver is None or keeper is None or new:
            private = pairing.new_sealer()[0]
            if receiver is None:
                receiver = ReceiverKeys(private)
            else:
                former = pairing.former(receiver.former, receiver.seal, *_days(old_days))
                receiver = ReceiverKeys(private, receiver.senders, former)
            keeper = KeeperKeys(pairing.new_signer()[0], keeper.log if keeper is not None else "")
            self._save("receiver", receiver)
            self._save("keeper", keeper)
        return pairing.signer_public(keeper.sign), pairing.sealer_public(receiver.seal)

    def take(self, end: str, other: Any, old_days: int) -> str:
        """Brings the other end's keys in; what is to be said of the audit log's. Raises: GateError."""
        from cofferdam.brokers.diode.pairing import KeeperKeys, ReceiverKeys, SenderKeys, SpoolKeys, take

        now, until = _days(old_days)
        if end == "inside":
            sender, spool = self._load("sender", SenderKeys), self._load("spool", SpoolKeys)
            self._save("sender", SenderKeys(sender.sign, take(sender.receivers, other.seal, now, until), sender.former))
            self._save("spool", SpoolKeys(take(spool.tickets, other.sign, now, until)))
        else:
            receiver = self._load("receiver", ReceiverKeys)
            known = any(one.key == other.sign for one in receiver.senders)
            senders = take(receiver.senders, other.sign, now, until)
            self._save("receiver", ReceiverKeys(receiver.seal, senders, receiver.former))
            keeper = self._load("keeper", KeeperKeys)
            # A file that was written before the log had a key is none that says that it has another.
            if keeper.log != other.log and (other.log or not known):
                self._save("keeper", KeeperKeys(keeper.sign, other.log))
            return self._about_log(keeper.log, other.log, known)
        return ""

    @staticmethod
    def _about_log(before: str, now: str, known: bool) -> str:
        """What becomes of the key of the inside's log that was taken before, "" where nothing does."""
        if not before or before == now:
            return ""
        if now:
            return f"the key of the inside's audit log is another from now on: {now} in the place of {before}"
        if known:
            return "this file is older than the key of the inside's audit log, which stays as it is"
        return (
            "this file is of another machine, and has no key of its audit log: from now on who signs the log is not "
            "checked. Have the file written anew once the gate inside has run"
        )


def _days(count: int) -> tuple[int, int]:
    """(now, so many days later), UTC ns."""
    from cofferdam.brokers.diode.pairing import EVER

    now = time.time_ns()
    return now, min(EVER, now + max(0, count) * 86_400 * 10**9)


def _read(path: Path) -> bytes:
    data = path.read_bytes() if path.stat().st_size <= 1 << 16 else b""
    if not data:
        raise GateError(f"{path} is no file of a pair")
    return data
