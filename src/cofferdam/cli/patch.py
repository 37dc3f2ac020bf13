"""`cofferdam patch ...`: what people do with files for assets: look, put, request, approve, plan, settle.

Files, requests and signatures are asked of the running keeper, plans and results of the installer. Signing happens
here, on the signer's machine, by `ssh-keygen`: what is shown before is read from the metadata that is signed.

Not here: roots (patch_root), keys and certificates (cli.keys).
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import re
import secrets as dice
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cofferdam.cli import patch_export, patch_sources
from cofferdam.cli.patch_asking import ask_part, claim_of, print_told, time_of
from cofferdam.cli.patch_shown import goes_to, next_window, shown, under_way, waiting, window
from cofferdam.errors import GateError

if TYPE_CHECKING:
    from cofferdam.policy.table import CompiledPolicy

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
"""As a policy's names are (records.Name)."""
SHOWN = 8
"""Windows of an asset that a plan shows in words."""
Work = Callable[[argparse.Namespace], int]
TOLD = "cofferdam.brokers.patch.told"
"""Where the types are of what the verbs print."""


def add(parser: argparse.ArgumentParser) -> None:
    from cofferdam.cli import keys, patch_advice, patch_root

    verbs = parser.add_subparsers(dest="what", metavar="WHAT", required=True)

    def verb(
        name: str, text: str, work: Work, prints: str, parent: Any = verbs, module: str = TOLD
    ) -> argparse.ArgumentParser:
        from cofferdam.cli.gate_options import add_json, add_state

        sub: argparse.ArgumentParser = parent.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(work=work)
        sub.add_argument(
            "--crew", default="", metavar="NAME", help="where several patch relays run: the crew (`status`)"
        )
        add_state(sub)
        if prints:
            add_json(sub, prints, module)
        return sub

    verb(
        "status", "what waits for whom, what is under way, and until when roots and signatures hold", _status, "Status"
    )
    verb("list", "all files, and where each stands", _list, "list[File]")
    show = verb("show", "one file: its origin, what the scanner said, who has signed", _show, "File")
    _number(show)
    put = verb("put", "bring a file in, or the signature beside it", _put, "Put")
    put.add_argument("file", type=Path, metavar="FILE", help="the file")
    put.add_argument("--product", required=True, metavar="PRODUCT", help="the product, as the policy names it")
    put.add_argument("--version", required=True, metavar="VERSION", help="the file's version")
    put.add_argument("--signature", type=Path, metavar="FILE", help="its detached signature, brought in with it")
    fetch = verb("fetch", "look at a source now, and fetch what rules name of it", _fetch, "Source")
    fetch.add_argument("source", metavar="SOURCE", help="the source, as the policy names it")
    fetch.add_argument(
        "--known", action="store_true",
        help="fetch nothing: you have seen what it changed, and it raises no alarm any more",
    )  # fmt: skip
    examine = verb("examine", "look at a file again that could not be examined or scanned", _examine, "Number")
    _number(examine)
    request = verb("request", "ask that a file be released: then people sign", _request, "Requested")
    _number(request)
    request.add_argument("--reason", default="", help="why, for those who sign")
    request.add_argument(
        "--emergency", action="store_true", help="outside windows; it needs a reason and all signatures"
    )
    approve = verb(
        "approve", "see what a release is, and sign it with your own OpenSSH key", _approve, "Approved | ToSign"
    )
    _number(approve)
    how = approve.add_mutually_exclusive_group(required=True)
    how.add_argument("--key", type=Path, metavar="FILE", help="your key, or its .pub where an agent or a token has it")
    how.add_argument("--save", type=Path, metavar="FILE", help="write what is to be signed, to sign it elsewhere")
    how.add_argument("--signature", type=Path, metavar="FILE", help="what `ssh-keygen -Y sign` made of the saved file")
    approve.add_argument(
        "--besides", action="store_true",
        help="sign although the list has files besides that the installer does not know: each of them is shown",
    )  # fmt: skip
    approve.add_argument("--yes", action="store_true", help="do not ask: you have seen it")
    reject = verb("reject", "give a release up, or throw a file away that was not released", _reject, "Number")
    _number(reject)
    reject.add_argument("--reason", default="", help="why, for the record")
    plan = verb(
        "plan",
        "which asset gets what and when: rings, windows of the next four weeks, what it waits for; or a plan for the "
        "assets of an advisory",
        _plan,
        "Plan | Advisory",
    )
    patch_advice.add(verb, plan)
    for name, text in (("pause", "begin no further transfers of a product"),
                       ("resume", "go on with a product that was paused, stopped, or stopped by failures"),
                       ("stop", "give the newest release of a product up: no asset gets it any more")):  # fmt: skip
        sub = verb(name, text, _set, "Plan")
        sub.add_argument("product", metavar="PRODUCT", help="the product")
    result = verb(
        "result", "say what an asset has, where nobody knows: done, failed, or let it be sent again", _result, "Plan"
    )
    result.add_argument("asset", metavar="ASSET", help="the asset")
    result.add_argument("product", metavar="PRODUCT", help="the product")
    result.add_argument("says", choices=["done", "failed", "again"], help="what you found")
    result.add_argument("--detail", default="", help="how you know, for the record")
    result.add_argument("--technician", metavar="NAME", default="", help="who has installed it by hand")
    result.add_argument("--reads", metavar="VERSION", default="", help="the version that the asset shows")
    verb(
        "verify",
        "read all files through: hashes as the catalogue, the metadata and the audit log have them",
        _verify,
        "Verdict",
    )
    export = verb(
        "export",
        "write the evidence out: files, origins, scans, signatures, steps (JSON)",
        patch_export.export,
        "Exported",
    )
    patch_export.add(export)
    patch_root.add(verbs, verb)
    keys.add_keys(KEYS(), _parser_of(verbs, "key", "API keys of those who upload, and of assets that fetch"), verb)
    keys.add_certificate(KEYS(), verbs, verb)
    text = "what we show to an asset (a password, or a private key), or what opens a product's archives"
    credential = keys._reader(KEYS(), verb)("credential", text, _credential, "PasswordTaken", verbs)
    credential.add_argument(
        "name",
        metavar="NAME",
        help="its name in the policy: `secret`, or the asset's; a product's `password` or `sign`",
    )
    credential.add_argument("--key", type=Path, metavar="FILE", help="an OpenSSH private key without a passphrase "
                            "(Ed25519 or ECDSA)")  # fmt: skip
    credential.add_argument("--file", type=Path, metavar="FILE", help="a password, on its first line; `-` for stdin")
    credential.add_argument("--make", type=Path, metavar="FILE", help="makes a product's `sign` key, and writes the "
                            "certificate that hosts believe to FILE")  # fmt: skip
    parser.epilog = "Who does something is who the gate sees, and stands in the audit log."


def run(args: argparse.Namespace) -> int:
    code: int = args.work(args)
    return code


def KEYS() -> Any:
    from cofferdam.cli import keys

    return keys.Keys("patch", ("put",), "product", _sides, "API keys of those who upload, and of assets that fetch")


def _parser_of(verbs: Any, name: str, text: str) -> Any:
    sub = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    return sub.add_subparsers(dest="which", metavar="WHICH", required=True)


def _number(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("number", type=int, metavar="NUMBER", help="the file's number, as `list` shows it")


def _sides(policy: CompiledPolicy, crew: str) -> list[Any]:
    from cofferdam.cli.keys import Side
    from cofferdam.gate.crew.plan import plan_crews
    from cofferdam.policy.terms.patch import INSTALLER, INTAKE, KEEPER
    from cofferdam.policy.terms.patch_rows import PatchRows

    found = []
    for plan in plan_crews(policy).values():
        if plan.broker != "patch" or crew not in ("", plan.name):
            continue
        rows = [row for name in plan.conduits if isinstance(row := policy.conduits[name].terms, PatchRows)]
        opens = frozenset(product.password for row in rows for product in row.products if product.password)
        found.append(Side(plan.base, KEEPER, passwords=opens))
        for part in (INTAKE, INSTALLER):
            zones = {row.outer if part == INTAKE else row.inner for row in rows}
            who = {name for row in rows for name, zone in row.stands.items() if zone in zones}
            tls = {door.tls for row in rows for door in row.doors if door.zone in zones and door.tls}
            names = {way.secret for row in rows for way in row.ways if way.secret}
            passwords = frozenset(names) if part == INSTALLER else frozenset()
            signs = {product.sign for row in rows for product in row.products if product.sign}
            made = frozenset(signs) if part == INSTALLER else frozenset()
            found.append(Side(plan.base, part, frozenset(who), frozenset(tls), passwords, made))
    return found


# --- asking ----------------------------------------------------------------------------------------------------------


def _keeper(args: argparse.Namespace, verb: str, **arguments: object) -> Any:
    return ask_part(args, "keeper", verb, **arguments)[1]


def _installer(args: argparse.Namespace, verb: str, **arguments: object) -> Any:
    return ask_part(args, "installer", verb, **arguments)[1]


# --- looking ---------------------------------------------------------------------------------------------------------


def _status(args: argparse.Namespace) -> int:
    found = {"keeper": _keeper(args, "status"), "installer": _installer(args, "plan")}

    def lines() -> Iterator[str]:
        keeper, installer = found["keeper"], found["installer"]
        yield f"root {keeper['root']}, good until {keeper['root_expires'][:10]}; {keeper['threshold']} of " + ", ".join(
            keeper["approvers"]
        )
        if keeper["unfit"]:
            yield f"NOTHING CAN BE RELEASED: {keeper['unfit']}"
        yield "files: " + (", ".join(f"{count} {state}" for state, count in sorted(keeper["files"].items())) or "none")
        if keeper["unscanned"]:
            yield f"NOTHING CAN BE SCANNED: {keeper['unscanned']}"
        elif keeper["scanner"]:
            yield f"scanner: {keeper['scanner']}"
        yield from waiting(keeper)
        released = len(installer["releases"])
        yield f"installer: root {installer['root']}, targets {installer['targets']}, {released} released"
        if installer["refused"]:
            yield f"THE INSTALLER REFUSES what is released: {installer['refused']}"
        for why in installer["unsigned"].values():
            yield f"A REPOSITORY IS NOT SERVED: {why}"
        yield from under_way(installer)
        yield from _assets(installer, windows=False)
        for source in keeper["sources"]:
            yield from patch_sources.lines(source)

    return print_told(args, found, lines())


def _assets(installer: dict[str, Any], *, windows: bool) -> Iterator[str]:
    emergencies = {each["number"]: each["reason"] for each in installer["releases"] if each["emergency"]}
    for row in installer["assets"]:
        has = f"has {row['has']} ({row['state']})" if row["state"] else "nothing was sent"
        wants = f", {row['release']}: {row['why']}" if row["release"] else ""
        yield f"  {row['asset']:16} {row['product']:20} ring {row['ring']:10} {has}{wants}"
        if row["detail"] and row["state"] in ("failed", "unknown", "back"):
            yield f"    {row['detail']}"
        if row["number"] in emergencies and (row["state"] != "done" or row["has"] != row["release"]):
            yield f"    EMERGENCY, in no window: {emergencies[row['number']]}"
        if not windows and (following := next_window(row, emergencies)):
            yield f"    {following}"
        if windows:
            for start, stop in row["windows"][:SHOWN]:
                yield f"    {window(start, stop)}"
            if more := row["windows"][SHOWN:]:
                yield f"    and {len(more)} more until {time_of(more[-1][1])} (--json has all)"


def _list(args: argparse.Namespace) -> int:
    found = _keeper(args, "list")
    return print_told(args, found, (_line(row) for row in found))


def _line(row: dict[str, Any]) -> str:
    why = f" ({row['reason']})" if row["reason"] else ""
    return (
        f"{row['number']:5} {row['product']}/{row['version']}/{row['file']}  {row['size']} bytes  "
        f"{row['sha256'][:16]}…  from {row['by']}, {time_of(row['at'])}: {row['state']}{why}"
    )


def _show(args: argparse.Namespace) -> int:
    found = _keeper(args, "show", number=args.number)

    def lines() -> Iterator[str]:
        yield _line(found)
        yield f"  SHA-256 {found['sha256']}"
        report = found["report"]
        if report:
            yield f"  origin: {report['origin'] or 'not proved: ' + report['refused']}"
            for name, value in report["facts"].items():
                yield f"    {name}: {value}"
            yield f"  scan: {report['scan']} {report['scan_detail']} {report['base']}".rstrip()
            yield f"  content: {report['archive'] or report['kind']}"
        if found["pending"]:
            signed = ", ".join(found["pending"]["signed"]) or "nobody yet"
            yield f"  asked by {found['pending']['by']}; signed by {signed}; {found['pending']['needs']} are needed"

    return print_told(args, found, lines())


# --- files -----------------------------------------------------------------------------------------------------------


def _put(args: argparse.Namespace) -> int:
    from cofferdam.brokers.patch.beside import SIGNATURES
    from cofferdam.policy.terms.patch_source_rows import FILE

    for path in (args.file, args.signature):
        if path is not None and not path.is_file():
            raise GateError(f"{path} is no file")
    _named("product", args.product)
    name = args.file.name
    for what, said in (("a file's name", name), ("a version", args.version)):
        if not FILE.match(said):
            hint = f"{what} has letters, digits and . _ + - alone, at most 128, and begins with a letter or digit"
            raise GateError(f"{said!r} cannot be {what} here", hint=hint)
    if args.signature is not None:
        ending = next((each for each in SIGNATURES if args.signature.name.endswith(each)), ".sig")
        _stage(args, args.signature, f"{name}{ending}")
    found = _stage(args, args.file, name)
    waits = f"; it waits for {found['waits']}" if found["waits"] else ""
    return print_told(args, found, [f"file {found['number']}, SHA-256 {found['sha256']}{waits}"])


def _named(what: str, said: str) -> None:
    """Raises: GateError: a policy could not even have a thing of this name."""
    if not _NAME.match(said):
        raise GateError(f"there is no {what} {said!r}", hint=f"the policy's `{what}s:` names them")


def _stage(args: argparse.Namespace, file: Path, name: str) -> Any:
    """Lays a file where the keeper looks, for its user, and has the keeper take it."""
    from cofferdam.cli.gate_options import state_of
    from cofferdam.enforce import stores

    crew, _ = ask_part(args, "keeper", "status")
    drop = stores.of(state_of(args), crew, "keeper") / "drop"
    staged = dice.token_hex(16)
    target = drop / staged
    try:
        owner = drop.stat()
        digest = hashlib.sha256()
        with file.open("rb") as source, target.open("xb") as out:
            while piece := source.read(1 << 20):
                digest.update(piece)
                out.write(piece)
        target.chmod(0o640)
        if os.geteuid() == 0:
            os.chown(target, owner.st_uid, owner.st_gid)
    except OSError as error:
        target.unlink(missing_ok=True)
        raise GateError(f"{file} cannot be laid into {drop}: {error.strerror or error}") from None
    try:
        said = {"product": args.product, "version": args.version, "file": name}
        return _keeper(args, "put", staged=staged, **said, claim=claim_of({**said, "sha256": digest.hexdigest()}))
    except GateError:
        target.unlink(missing_ok=True)
        raise


def _fetch(args: argparse.Namespace) -> int:
    _named("source", args.source)
    found = _keeper(args, "fetch", source=args.source, known=args.known)
    if not args.known:
        found = patch_sources.follow(args, found, lambda: _keeper(args, "status")["sources"])
    print_told(args, found, patch_sources.lines(found))
    return 1 if found["refused"] and not args.known else 0


def _examine(args: argparse.Namespace) -> int:
    found = _keeper(args, "examine", number=args.number)
    return print_told(args, found, [f"file {args.number} is looked at again"])


# --- releases --------------------------------------------------------------------------------------------------------


def _request(args: argparse.Namespace) -> int:
    row = _keeper(args, "show", number=args.number)
    claim = claim_of(row)  # a number is the keeper's to give: whoever asks sees which file they stand for
    said = {"number": args.number, "reason": args.reason, "emergency": args.emergency}
    found = _keeper(args, "request", **said, claim=claim)
    lines = (
        f"file {args.number}: targets {found['targets']} wait for signatures",
        f"you asked for {claim['what']}, SHA-256 {claim['sha256']}",
    )
    return print_told(args, found, lines)


def _to_sign(args: argparse.Namespace) -> str:
    """The metadata that wait, which come in pieces. Raises: GateError."""
    from cofferdam.brokers.patch.trustkeys import METADATA_BYTES

    found, more = "", 1
    while more and len(found) <= METADATA_BYTES:  # a keeper that was taken over has them come for ever
        piece = _keeper(args, "to-sign", number=args.number, offset=len(found))
        found, more = found + piece["metadata"], piece["more"] if piece["metadata"] else 0
    return found


def _approve(args: argparse.Namespace) -> int:
    from tuf.api.metadata import Targets

    from cofferdam.audit.lines import escaped
    from cofferdam.brokers.patch import trustkeys
    from cofferdam.cli.ssh_signing import ssh_sign

    for path in (args.key, args.signature):
        if path is not None and not path.is_file():
            raise GateError(f"{path} is no file")
    metadata = trustkeys.decode(_to_sign(args).encode(), Targets)
    message = trustkeys.to_sign(metadata.signed)
    believed = _installer(args, "believed")
    if args.signature is None:
        advisories = _keeper(args, "advisories")["advisories"]
        for line in shown(metadata.signed, args.number, believed, besides=args.besides):
            print(escaped(line), file=sys.stderr)
        for line in goes_to(metadata.signed, args.number, _installer(args, "plan"), advisories):
            print(escaped(line), file=sys.stderr)
    if args.save is not None:
        args.save.write_bytes(message)
        how = f"sign it there: ssh-keygen -Y sign -n {trustkeys.NAMESPACE} -f YOUR_KEY {args.save}"
        if args.json:
            return print_told(args, {"file": str(args.save)}, ())
        print(how, file=sys.stderr)
        return 0
    if args.signature is not None:
        armored = args.signature.read_bytes()
    else:
        if not args.yes:
            print("Sign it? [y/N] ", end="", file=sys.stderr, flush=True)
            if sys.stdin.readline().strip().lower() not in ("y", "yes"):
                raise GateError("not signed")
        armored = ssh_sign(args.key, message)
    found = _keeper(args, "approve", number=args.number, signature=armored.decode("ascii", "replace"))
    signed = ", ".join(found["signed"])
    what = "released" if found["released"] else f"{found['needs']} are needed"
    return print_told(args, found, [f"file {args.number} is signed by {signed}: {what}"])


def _reject(args: argparse.Namespace) -> int:
    found = _keeper(args, "reject", number=args.number, reason=args.reason)
    return print_told(args, found, [f"file {args.number} is rejected"])


# --- plans -----------------------------------------------------------------------------------------------------------


def _plan(args: argparse.Namespace) -> int:
    if args.advisory:
        from cofferdam.cli import patch_advice

        return patch_advice.plan(args)
    if args.approve or args.owner or args.text or args.until or args.asset:
        raise GateError("a plan is one of an advisory", hint="cofferdam patch plan ID ...")
    return _told(args, _installer(args, "plan"))


def _told(args: argparse.Namespace, found: dict[str, Any]) -> int:
    def lines() -> Iterator[str]:
        for word in ("refused", "shut"):
            if found[word]:
                yield f"NOTHING GOES OUT: {found[word]}"
        for word in ("paused", "stopped"):
            if found[word]:
                yield f"{word}: {', '.join(map(str, found[word]))}"
        yield from _assets(found, windows=True)

    return print_told(args, found, lines())


def _set(args: argparse.Namespace) -> int:
    return _told(args, _installer(args, args.what, product=args.product))


def _result(args: argparse.Namespace) -> int:
    words = ("asset", "product", "says", "detail", "technician", "reads")
    said = {word: getattr(args, word) for word in words}
    return _told(args, _installer(args, "result", **said))


# --- evidence --------------------------------------------------------------------------------------------------------


def compared(files: dict[int, str], log: Iterable[dict[str, Any]], least: int) -> tuple[int, list[str]]:
    """How many files the log knows, and what differs. What was refused or rejected may have been thrown away since;
    of files before number `least` the keeper has told nothing."""
    told: dict[int, str] = {}
    gone: set[int] = set()
    for entry in log:
        number = int(entry.get("number", 0))
        if entry["kind"] == "file-taken":
            told[number] = entry["sha256"]
            gone.discard(number)
        elif entry.get("verdict") == "refused" or entry.get("decision") == "rejected":
            gone.add(number)
    wrong = [
        f"file {number}: the audit log has another hash, or does not know it"
        for number, sha256 in files.items() if told.get(number) != sha256
    ] + [
        f"file {number}: the audit log knows it, and the keeper does not"
        for number in told if number not in files and number not in gone and number >= least
    ]  # fmt: skip
    return len(told), wrong


def _verify(args: argparse.Namespace) -> int:
    from cofferdam.brokers.patch.verifying import LISTED_MOST

    found = _keeper(args, "verify")
    files = {number: sha256 for number, sha256, _state in found["files"]}
    told, differs = compared(files, patch_export.log_of(args), min(files) if len(files) >= LISTED_MOST else 0)
    wrong: list[str] = [*found["wrong"], *differs]
    installer = _installer(args, "plan")
    if installer["refused"]:
        wrong.append(f"the installer refuses the metadata: {installer['refused']}")
    verdict = {"checked": found["checked"], "told": told, "wrong": wrong}
    print_told(
        args, verdict, [*wrong, f"{found['checked']} files, {told} in the audit log: {'NO' if wrong else 'good'}"]
    )
    return 1 if wrong else 0


# --- credentials -----------------------------------------------------------------------------------------------------


def _credential(args: argparse.Namespace) -> int:
    from cofferdam.brokers.kit.http.vault import KEY_CHARACTERS, PASSWORD_CHARACTERS, locked
    from cofferdam.brokers.patch import apt_sign
    from cofferdam.brokers.patch.sftp import KEY_MARK
    from cofferdam.cli import keys
    from cofferdam.cli.gate_options import state_of
    from cofferdam.policy.problems import one_of

    sides = keys.sides_of(args)
    own = [side for side in sides if args.name in (side.passwords if args.make is None else side.made)]
    if not own and args.make is not None:
        found = f"no product of the policy is signed by a key {args.name!r}"
        raise GateError(found, hint="a product with `origin: {apt: ...}` and `sign: NAME`")
    if not own:
        known = sorted({name for side in sides for name in side.passwords})
        found = f"no asset or archive of the policy takes a credential {args.name!r}"
        raise GateError(found, hint=f"they take {one_of(known)}")
    if sum(each is not None for each in (args.key, args.file, args.make)) != 1:
        raise GateError("one of --key, --file and --make")
    place = args.name
    if args.make is not None:
        place, secret = apt_sign.place(args.name), _site_key(args, own)
    else:
        secret = KEY_MARK + _private_key(args.key) if args.key is not None else keys._read(args.file)
    runs = True
    with locked(state_of(args)):
        for side in own:
            vault = keys.vault_of(args, side)
            vault.set_password(place, secret, KEY_CHARACTERS if args.make is not None else PASSWORD_CHARACTERS)
            runs = keys.save(args, side, vault) and runs
    later = "" if runs else "; it is used once the gate runs"
    return print_told(args, {"name": args.name, "in_use": runs}, [f"{args.name}: the credential is there{later}"])


def _site_key(args: argparse.Namespace, own: list[Any]) -> str:
    """A new key of a name that has none, once its certificate is where hosts can get it. Raises: GateError."""
    from cofferdam.brokers.patch import apt_sign
    from cofferdam.cli import keys

    if any(apt_sign.place(args.name) in keys.vault_of(args, side).secrets.passwords for side in own):
        hint = "another name in the policy, which hosts are told to believe as well, before this one goes"
        raise GateError(f"there is a key {args.name!r}, and hosts believe it", hint=hint)
    secret, certificate = apt_sign.make(f"{args.name}, repositories of the site")
    try:
        with args.make.open("xb") as file:
            file.write(certificate)
    except OSError as error:
        raise GateError(f"cannot write {args.make}: {error.strerror}", hint="a file that is not there yet") from None
    return secret


def _private_key(file: Path) -> str:
    import asyncssh

    try:
        asyncssh.read_private_key(str(file))
    except (OSError, asyncssh.Error, ValueError) as error:
        raise GateError(f"{file} is no private key without a passphrase: {error}") from None
    return base64.b64encode(file.read_bytes()).decode()
