"""`cofferdam evidence attest|withdraw|signer|baseline|drill`: what people sign for and approve.

Signatures are made by `ssh-keygen -Y sign` where the person is, so a key may live in an agent or in hardware.

Not here: what is checked of them (evidence.attest).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cofferdam.errors import CofferdamError, GateError

if TYPE_CHECKING:
    from cofferdam.evidence.history import Signer
    from cofferdam.evidence.workbench import Bench

Common = Callable[[argparse.ArgumentParser, str], None]
DRILLS = ("island", "restore", "kill", "fail-over")


def add(verbs: Any, common: Common) -> None:
    """Declares the sub-verbs."""
    attest = verbs.add_parser("attest", help="sign for a check or a duty, with an SSH key")
    attest.add_argument("check", metavar="CHECK", help="the check, or patch-evaluation, patch-plan, vulnerability")
    attest.add_argument("--text", help="what was done or seen, in a sentence")
    attest.add_argument("--file", type=Path, metavar="PAPER", help="the paper that it is about; kept by its hash")
    attest.add_argument(
        "--until", metavar="TIME", help="until when it counts: 2027-06-30 (default: as the check allows)"
    )
    _signing(attest)
    common(attest, "Signed")

    withdraw = verbs.add_parser("withdraw", help="take an attestation back, with an SSH key")
    withdraw.add_argument("entry", type=int, metavar="ENTRY", help="the index of its entry")
    withdraw.add_argument("--text", default="", help="why")
    _signing(withdraw)
    common(withdraw, "Withdrawn")

    signer = verbs.add_parser("signer", help="who may sign attestations")
    signer.add_argument("what", choices=["add", "remove", "list"])
    signer.add_argument("person", nargs="?", metavar="PERSON", help="the person's name")
    signer.add_argument("key", nargs="?", type=Path, metavar="KEY.pub", help="the public SSH key")
    signer.add_argument("--role", default="", help="what the person answers for")
    common(signer, "list[Signer] | SignerAdded | SignerRemoved")

    baseline = verbs.add_parser("baseline", help="the gate's configuration as one document")
    baseline.add_argument("--approve", action="store_true", help="sign, with an SSH key, that it should be like this")
    baseline.add_argument("--text", default="", help="what was changed, and why")
    _signing(baseline)
    common(baseline, "Approved | dict[str, Any]")

    drill = verbs.add_parser("drill", help="record that a drill was held")
    drill.add_argument("drill", choices=DRILLS)
    drill.add_argument("--text", required=True, help="what was done, and what came of it")
    common(drill, "Drill")

    bom = verbs.add_parser("bom", help="the gate's bill of materials (CycloneDX)")
    common(bom, "dict[str, Any]")


def _signing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--as", dest="person", metavar="PERSON", help="who signs (default: whose key it is)")
    parser.add_argument(
        "--key", type=Path, metavar="FILE", help="the private SSH key, or the public half of one in an agent"
    )
    parser.add_argument("--print", action="store_true", dest="show", help="print what is to be signed, and stop")
    parser.add_argument("--statement", type=Path, metavar="FILE", help="what --print printed, signed elsewhere")
    parser.add_argument("--signature", type=Path, metavar="FILE", help="the signature over it")


def _tell(bench: Bench, **event: Any) -> None:
    from cofferdam.cli.evidence_bench import tell

    if bench.status is None:
        raise GateError("no gate runs here that could record it", hint="start the gate, then do it again")
    if not tell(bench.state, "record", event=event)["recorded"]:
        raise GateError("the audit log did not take it in time", hint="`cofferdam status` says why")


def _attest(args: argparse.Namespace) -> int:
    from cofferdam.audit.keys import write_beside
    from cofferdam.audit.show import last_moment
    from cofferdam.cli.evidence_bench import bench_of
    from cofferdam.evidence import attest, gather
    from cofferdam.policy.problems import nearest

    bench = bench_of(args)
    if not attest.may_be_attested(bench.catalogue, args.check):
        near = nearest(args.check, [*bench.catalogue.checks, *sorted(attest.EXTRA)])
        hint = f"did you mean {near}?" if near else "`cofferdam evidence list` shows them"
        raise CofferdamError(f"there is no check {args.check!r}", hint=hint)
    paper = b""
    if args.file is not None:
        try:
            with args.file.open("rb") as file:
                paper = file.read(attest.MAX_PAPER_BYTES + 1)
        except OSError as error:
            raise CofferdamError(f"{args.file} cannot be read: {error.strerror}") from None
        if len(paper) > attest.MAX_PAPER_BYTES:
            raise CofferdamError(f"{args.file} is larger than {attest.MAX_PAPER_BYTES >> 20} MiB")
    digest = attest.digest(paper) if args.file is not None else ""
    if args.statement is not None:
        text = _statement(args)
        said = attest.brought(text, args.check, bench.history)
        if said.paper != digest:
            raise CofferdamError("the statement is about another paper, or about none", hint="--file PAPER brings it")
        until, args.person = said.until_ns, said.person
        signer = _who(args, bench)
    else:
        now = time.time_ns()
        check = bench.catalogue.checks.get(args.check)
        longest = now + (check.valid if check is not None else 456 * 86400) * 10**9
        until = min(last_moment(args.until), longest) if args.until else longest
        signer = _who(args, bench)
        text = attest.statement(
            site=bench.history.site, check=args.check, text=args.text or "", person=signer.person, role=signer.role,
            made_ns=now, until_ns=until, policy=bench.policy, entries=bench.history.size, paper=digest,
            paper_name=args.file.name if args.file else "",
        )  # fmt: skip
    if args.show:
        print(text, end="")
        return 0
    signature = _signature(args, text, signer)
    if args.file is not None:
        where = gather.folder(bench.state, gather.PAPERS, make=True)
        write_beside(where / digest, paper, 0o600)
    _tell(
        bench, kind="attestation-made", check=args.check, person=signer.person, statement=text, signature=signature,
        paper=digest, until_ns=until // 10**9 * 10**9,
    )  # fmt: skip
    _say(args, {"check": args.check, "person": signer.person}, f"{signer.person} signed for {args.check}")
    return 0


def _withdraw(args: argparse.Namespace) -> int:
    from cofferdam.cli.evidence_bench import bench_of
    from cofferdam.evidence import attest

    bench = bench_of(args)
    if all(one.index != args.entry for one in bench.attestations):
        raise CofferdamError(f"entry {args.entry} is no attestation", hint="`cofferdam evidence list` shows entries")
    if (gone := max(one.withdrawn for one in bench.attestations if one.index == args.entry)) >= 0:
        raise CofferdamError(f"entry {args.entry} was withdrawn before, by entry {gone}")
    signer = _who(args, bench)
    if args.statement is not None:
        text = _statement(args)
        attest.brought_back(text, args.entry, signer.person, bench.history)
    else:
        text = attest.withdrawal(site=bench.history.site, attestation=args.entry, text=args.text, person=signer.person,
                                 made_ns=time.time_ns())  # fmt: skip
    if args.show:
        print(text, end="")
        return 0
    signature = _signature(args, text, signer)
    _tell(bench, kind="attestation-withdrawn", attestation=args.entry, person=signer.person, statement=text,
          signature=signature)  # fmt: skip
    _say(args, {"attestation": args.entry}, f"{signer.person} withdrew entry {args.entry}")
    return 0


def _who(args: argparse.Namespace, bench: Bench) -> Signer:
    """The signer: by name, or by the key. Raises: CofferdamError."""
    from cofferdam.evidence import sshsig

    allowed = [one for one in bench.history.signers if one.removed < 0]
    if args.person is not None:
        found = [one for one in allowed if one.person == args.person]
    elif args.key is not None:
        public = args.key if args.key.suffix == ".pub" else Path(f"{args.key}.pub")
        try:
            mine = sshsig.key_line(public.read_text("utf-8"))
        except OSError as error:
            raise CofferdamError(
                f"{public} cannot be read: {error.strerror}", hint="--as PERSON says who signs"
            ) from None
        found = [one for one in allowed if one.key == mine]
    else:
        raise CofferdamError("say who signs", hint="--key FILE, or --as PERSON with --statement and --signature")
    if not found:
        raise CofferdamError(
            "that is nobody who may sign", hint="`cofferdam evidence signer add PERSON KEY.pub` lets somebody"
        )
    return found[-1]


def _why(error: OSError | UnicodeDecodeError) -> str:
    return "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror or str(error)


def _statement(args: argparse.Namespace) -> str:
    """What was signed elsewhere. Raises: CofferdamError."""
    if args.signature is None and args.key is None:
        raise CofferdamError("there is no signature", hint="--signature FILE brings one")
    try:
        return str(args.statement.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CofferdamError(f"{args.statement} cannot be read: {_why(error)}") from None


def _signature(args: argparse.Namespace, text: str, signer: Signer) -> str:
    """Made by ssh-keygen, or read; checked before it goes to the gate. Raises: CofferdamError."""
    from cofferdam.evidence import sshsig

    if args.signature is not None:
        if args.statement is None:
            raise CofferdamError("say what was signed", hint="--statement FILE: what --print printed")
        try:
            signature = str(args.signature.read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise CofferdamError(f"{args.signature} cannot be read: {_why(error)}") from None
    elif args.key is not None:
        signature = _sign(args.key, text)
    else:
        raise CofferdamError("there is no signature", hint="--key FILE makes one, --signature FILE brings one")
    try:
        sshsig.verify(signature, text.encode(), signer.key)
    except sshsig.SignatureError as error:
        raise CofferdamError(f"the signature is not {signer.person}'s over this text: {error}") from None
    return signature


def _sign(key: Path, text: str) -> str:
    from cofferdam.evidence.sshsig import NAMESPACE

    program: str | None = shutil.which("ssh-keygen")
    if program is None:
        raise CofferdamError("there is no ssh-keygen here", hint="Debian: openssh-client; or sign elsewhere: --print")
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder) / "statement"
        said.write_text(text, encoding="utf-8")
        command = [program, "-Y", "sign", "-f", str(key), "-n", NAMESPACE, str(said)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
        if done.returncode:
            words = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise CofferdamError(f"ssh-keygen made no signature: {words}")
        return Path(f"{said}.sig").read_text("utf-8")


def _signer(args: argparse.Namespace) -> int:
    from cofferdam.audit.lines import escaped
    from cofferdam.cli.evidence_bench import bench_of
    from cofferdam.evidence import sshsig

    bench = bench_of(args)
    if args.what == "list":
        rows = [
            {"person": one.person, "role": one.role, "fingerprint": sshsig.fingerprint(one.key), "added": one.added,
             "removed": one.removed} for one in bench.history.signers
        ]  # fmt: skip
        if args.json:
            print(json.dumps(rows, indent=1))
        for row in [] if args.json else rows:
            ends = f", removed by entry {row['removed']}" if int(str(row["removed"])) >= 0 else ""
            who = f"{row['person']} ({row['role'] or 'no role'})"
            print(escaped(f"{who} {row['fingerprint']} entry {row['added']}{ends}"))
        return 0
    if args.person is None or not args.person.isprintable() or len(args.person) > 100:
        raise CofferdamError("name the person", hint=f"cofferdam evidence signer {args.what} PERSON KEY.pub")
    if args.what == "remove":
        mine = [one for one in bench.history.signers if one.person == args.person and one.removed < 0]
        if not mine:
            raise CofferdamError(f"{args.person} is nobody who may sign")
        for one in mine:
            _tell(bench, kind="signer-removed", person=one.person, key=one.key)
        _say(args, {"removed": len(mine)}, f"{args.person} signs no more")
        return 0
    if args.key is None:
        raise CofferdamError("name the public key", hint=f"cofferdam evidence signer add {args.person} KEY.pub")
    try:
        key = sshsig.key_line(args.key.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CofferdamError(f"{args.key} cannot be read: {_why(error)}") from None
    if any(one.key == key and one.removed < 0 for one in bench.history.signers):
        raise CofferdamError("somebody signs with this key already")
    _tell(bench, kind="signer-added", person=args.person, key=key, role=args.role)
    _say(args, {"person": args.person, "fingerprint": sshsig.fingerprint(key)},
         f"{args.person} may sign with {sshsig.fingerprint(key)}")  # fmt: skip
    return 0


def _baseline(args: argparse.Namespace) -> int:
    from cofferdam.cli.evidence_bench import bench_of, keep_baseline
    from cofferdam.evidence import attest, baseline, drifting, gather

    bench = bench_of(args)
    if bench.status is None:
        raise GateError("no gate runs here, so nothing says how it is configured")
    document = drifting.now(bench.status, bench.history, gather.installed())
    if not args.approve:
        print(json.dumps(document, indent=1, sort_keys=True))
        return 0
    digest = baseline.digest(document)
    if args.statement is not None:
        text = _statement(args)
        args.person = attest.brought_approval(text, digest, bench.history)
        signer = _who(args, bench)
    else:
        signer = _who(args, bench)
        text = attest.approval(site=bench.history.site, baseline=digest, text=args.text, person=signer.person,
                               role=signer.role, made_ns=time.time_ns())  # fmt: skip
    if args.show:
        print(text, end="")
        return 0
    signature = _signature(args, text, signer)
    keep_baseline(bench.state, document)
    _tell(bench, kind="baseline-taken", baseline=digest, approved=True, person=signer.person, statement=text,
          signature=signature)  # fmt: skip
    _say(args, {"baseline": digest, "person": signer.person}, f"{signer.person} approved {digest}")
    return 0


def _drill(args: argparse.Namespace) -> int:
    from cofferdam.audit.events.base import clip
    from cofferdam.cli.evidence_bench import bench_of

    bench = bench_of(args)
    _tell(bench, kind="drill-done", drill=args.drill, says=clip(args.text))
    _say(args, {"drill": args.drill}, f"recorded: {args.drill}")
    return 0


def _bom(args: argparse.Namespace) -> int:
    from cofferdam.cli.gate_options import state_of
    from cofferdam.evidence import gather

    print(json.dumps(gather.bill_of_materials(state_of(args).name), indent=1))
    return 0


def _say(args: argparse.Namespace, plain: dict[str, Any], words: str) -> None:
    from cofferdam.audit.lines import escaped

    print(json.dumps(plain) if args.json else escaped(words))


VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "attest": _attest,
    "withdraw": _withdraw,
    "signer": _signer,
    "baseline": _baseline,
    "drill": _drill,
    "bom": _bom,
}
