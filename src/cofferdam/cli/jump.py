"""`cofferdam jump ...`: what operators do with the jump server: people and factors, assets' keys and credentials,
requests and sessions. Recordings have a module of their own (jump_recordings).

Everything is asked of the running keeper, which records it before it does it.
"""

from __future__ import annotations

import argparse
import getpass
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from cofferdam.cli.findings import count_of
from cofferdam.cli.jump_asking import add_signing, ask, ask_all, show, signature, time_of
from cofferdam.errors import GateError

ROTATE_SECONDS = 150.0
"""How long a change of a password may take, sign-ins by both and all."""
Work = Callable[[argparse.Namespace], int]
TOLD = "cofferdam.brokers.jump.told"
"""Where the types are of what the verbs print."""


def add(parser: argparse.ArgumentParser) -> None:
    from cofferdam.cli import jump_glass, jump_people, jump_quarantine, jump_recordings
    from cofferdam.cli.gate_options import add_reason

    verbs = parser.add_subparsers(dest="what", metavar="WHAT", required=True)

    def verb(
        name: str, text: str, work: Work, prints: str, parent: Any = verbs, module: str = TOLD
    ) -> argparse.ArgumentParser:
        from cofferdam.cli.gate_options import add_json, add_state

        sub: argparse.ArgumentParser = parent.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(work=work)
        sub.add_argument(
            "--crew", default="", metavar="NAME", help="where several jump servers run: the crew (`status`)"
        )
        add_state(sub)
        if prints:
            add_json(sub, prints, module)
        return sub

    def group(name: str, text: str) -> Any:
        sub = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        return sub.add_subparsers(dest="which", metavar="WHICH", required=True)

    people = group("person", "people who may sign in")
    _word(verb("list", "people, their groups and factors", _people, "list[Person]", people))
    new = verb("add", "a new person", _person_add, "OfPerson", people)
    _person(new)
    new.add_argument("--full", default="", metavar="NAME", help="the person's whole name")
    new.add_argument("--account", default="", metavar="LOGIN", help="the user of this machine who is the same person")
    new.add_argument("--group", action="append", default=[], metavar="GROUP", help="a group; may be given again")
    _person(
        verb(
            "remove",
            "take a person away, with keys and groups; sessions end at once",
            _person_remove,
            "OfPerson",
            people,
        )
    )
    many = verb("import", "people of a CSV file, with their groups and keys: who is known gets what is new",
                jump_people.bring_in, "list[Imported]", people)  # fmt: skip
    many.add_argument("file", type=Path, metavar="FILE",
                      help=f"its first line names columns: {','.join(jump_people.COLUMNS)}; `-` for stdin")  # fmt: skip
    groups = group("group", "who is in which group")
    for name, text in (("join", "put somebody into a group"), ("leave", "take somebody out of a group")):
        sub = verb(name, text, _membership, "Groups", groups)
        _person(sub)
        sub.add_argument("group", metavar="GROUP", help="the group's name, as the policy has it")
    factors = group("factor", "by what people sign in")
    key = verb(
        "key",
        "a public key that is somebody's (`ssh-ed25519 AAAA...`), also of a security key",
        _key,
        "Fingerprint",
        factors,
    )
    _person(key)
    key.add_argument("file", type=Path, metavar="FILE", help="the public key; `-` for stdin")
    code = verb("code", "a new code generator (TOTP): its secret is printed, this once", _code, "Code", factors)
    _person(code)
    password = verb(
        "password", "a password, for those who sign in by password and code", _password, "OfPerson", factors
    )
    _person(password)
    password.add_argument("--file", type=Path, metavar="FILE", help="its first line (default: it is asked for)")
    old = verb("remove-key", "take a key away, at once", _key_remove, "Fingerprint", factors)
    _person(old)
    old.add_argument("fingerprint", metavar="FINGERPRINT", help="as `person list` shows it, or its beginning")
    _word(verb("assets", "assets, their host keys and credentials", _assets, "list[Asset]"))
    pin = verb("host-key", "accept an asset's host key: it is shown before", _host_key, "HostKey")
    pin.add_argument("asset", metavar="ASSET", help="the asset")
    pin.add_argument("--file", type=Path, metavar="FILE", help="what ssh-keyscan printed, or a public key; `-`: stdin")
    pin.add_argument("--yes", action="store_true", help="without asking")
    credential = verb("credential", "by what the gate signs in at an asset", _credential, "CredentialSet")
    credential.add_argument("asset", metavar="ASSET", help="the asset")
    credential.add_argument("login", metavar="LOGIN", help="the account there")
    kind = credential.add_mutually_exclusive_group(required=True)
    kind.add_argument("--new-key", action="store_true", help="make a key; the public one is printed, for the asset")
    kind.add_argument("--key", type=Path, metavar="FILE", help="a private key without a password")
    kind.add_argument("--password", type=Path, metavar="FILE", help="a password, in the file's first line; `-`: stdin")
    kind.add_argument(
        "--certificate",
        action="store_true",
        help="a certificate for each session, by the gate's authority; its line for the asset is printed",
    )
    kind.add_argument("--none", action="store_true", help="it does not ask (telnet and serial lines alone)")
    rotate = verb(
        "rotate", "change a password of the gate's at an asset, by the policy's command", _rotate, "AssetCredential"
    )
    rotate.add_argument("asset", metavar="ASSET", help="the asset")
    rotate.add_argument("login", metavar="LOGIN", help="the account there")
    verb("known-hosts", "the lines by which users know the gate: by its authority, for assets too, or its key",
         _known_hosts, "GateKey")  # fmt: skip
    _word(verb("requests", "who asks for approval, and what is granted", _requests, "list[Request]"))
    for name, text in (
        ("approve", "approve somebody's request, as the person whom you are logged in as"),
        ("deny", "deny a request"),
        ("revoke", "take an approval back: its sessions end at once"),
        ("withdraw", "take a request of your own back, while it waits"),
    ):
        sub = verb(name, text, _decide, "str")
        sub.add_argument("number", type=int, metavar="N", help="the request's number")
        sub.add_argument("--reason", default="", help="why, for the record")
        if name in ("approve", "deny"):
            add_signing(sub)
    statement = verb("statement", "what there is to sign to approve a request", _statement, "str")
    statement.add_argument("number", type=int, metavar="N", help="the request's number")
    statement.add_argument("--deny", action="store_true", help="to deny it")
    _word(verb("sessions", "who is at which asset", _sessions, "list[Session]"))
    watch = verb("watch", "see live what a session shows; its recording is what is looked at", _watch, "")
    watch.add_argument("number", type=int, metavar="N", help="the session's number")
    say = verb("say", "words to who sits at a session", _say, "str")
    say.add_argument("number", type=int, metavar="N", help="the session's number")
    say.add_argument("text", nargs="+", metavar="WORDS", help="what they are told")
    kill = verb("kill", "end a session now, and bar the return", _kill, "str")
    kill.add_argument("number", type=int, metavar="N", help="the session's number")
    kill.add_argument("--bar", default="pair", choices=["pair", "person", "asset", "both", "none"],
                      help="who may not come back until that is lifted: this person to this asset (pair, default), the "
                      "person, everybody to the asset, both, or nobody")  # fmt: skip
    add_reason(kill)
    block = verb("block", "bar a person or an asset", _block, "Block")
    block.add_argument("kind", choices=["person", "asset"], help="which")
    block.add_argument("name", metavar="NAME", help="the person or the asset")
    add_reason(block)
    _word(verb("blocks", "who and what is barred", _blocks, "list[Blocked]"))
    unblock = verb("unblock", "let somebody or something come again", _unblock, "Unblocked")
    unblock.add_argument("name", nargs="+", metavar="NAME", help="the person, the asset, or both")
    jump_glass.add(group("break-glass", "a sealed code for when nobody is there to approve"), verb)
    jump_recordings.add(group("recording", "what was recorded"), verb)
    jump_quarantine.add(group("quarantine", "files that were not scanned, or in which something was found"), verb)
    parser.epilog = "Who does something is who the gate sees, and stands in the audit log."


def _word(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("word", nargs="?", metavar="WORD", help="only those that have it somewhere, in whatever case")


def _person(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("person", metavar="PERSON", help="the person's name")


def run(args: argparse.Namespace) -> int:
    code: int = args.work(args)
    return code


def _read(path: Path) -> str:
    return sys.stdin.read() if str(path) == "-" else path.read_text("utf-8")


# --- people ---------------------------------------------------------------------------------------------------------


def _people(args: argparse.Namespace) -> int:
    found = ask_all(args, "people")

    def lines() -> Iterable[str]:
        for one in found:
            factors = (
                ", ".join([*one["factors"], *(count_of(len(one["keys"]), "keys") for _ in one["keys"][:1])])
                or "no factor"
            )
            last = f"last from {one['last_source']} {time_of(one['last_ns'])}" if one["last_ns"] else "never signed in"
            account = f" = {one['account']}" if one["account"] else ""
            yield f"{one['person']:16}{account} {one['full']} [{' '.join(one['groups'])}] {factors}; {last}"
            for key in one["keys"]:
                yield f"    {key['fingerprint']} {key['comment']}"
        if not found:
            yield (
                f"nobody has {args.word!r}"
                if args.word
                else "there is nobody; `cofferdam jump person add NAME` is the beginning"
            )

    return show(args, found, lines())


def _person_add(args: argparse.Namespace) -> int:
    from cofferdam.cli.jump_people import NAMELESS

    found = ask(args, "person-add", person=args.person, full=args.full, account=args.account)
    for name in args.group:
        ask(args, "group-join", person=args.person, group=name)
    known = f"{args.person} is known; `cofferdam jump factor ...` says by what"
    return show(args, found, [known, *([] if args.full else [f"{NAMELESS}: remove {args.person}, add with --full"])])


def _person_remove(args: argparse.Namespace) -> int:
    return show(args, ask(args, "person-remove", person=args.person), [f"{args.person} is gone"])


def _membership(args: argparse.Namespace) -> int:
    found = ask(args, f"group-{args.which}", person=args.person, group=args.group)
    return show(args, found, [f"{args.person} is in {', '.join(found['groups']) or 'no group'}"])


def _key(args: argparse.Namespace) -> int:
    found = ask(args, "key-add", person=args.person, key=_read(args.file))
    return show(args, found, [f"{args.person} may sign in by {found['fingerprint']}, and a second factor"])


def _code(args: argparse.Namespace) -> int:
    found = ask(args, "code-new", person=args.person)
    return show(
        args,
        found,
        [found["uri"], f"secret {found['secret']}; it is not shown again, and one of before counts no more"],
    )


def _password(args: argparse.Namespace) -> int:
    if args.file is not None:
        text = args.file.read_text("utf-8").split("\n")[0]
    else:
        text = getpass.getpass(f"password of {args.person}: ")
        if getpass.getpass("again: ") != text:
            raise GateError("the two are not the same")
    return show(args, ask(args, "password-set", person=args.person, password=text), [f"{args.person} has a password"])


def _key_remove(args: argparse.Namespace) -> int:
    found = ask(args, "key-remove", person=args.person, fingerprint=args.fingerprint)
    return show(args, found, [f"{found['fingerprint']} is no key of {args.person} any more"])


# --- assets ---------------------------------------------------------------------------------------------------------


def _credential_line(each: dict[str, Any]) -> str:
    said = f"{each['kind']} by {each['by']}, {time_of(each['set_ns'])}"
    return f"{said}: {each['state']}" if each["state"] else said


def _assets(args: argparse.Namespace) -> int:
    found = ask_all(args, "assets")

    def lines() -> Iterable[str]:
        for one in found:
            shows = f"host key {one['host_key'] or 'NOT ACCEPTED YET'}" if one["protocol"] == "ssh" else "UNENCRYPTED"
            yield f"{one['asset']:24} {one['protocol']}, {shows}"
            known = {each["login"]: each for each in one["credentials"]}
            for login in sorted({*one["logins"], *known}):
                each = known.get(login)
                idle = "" if login in one["logins"] else "; no rule goes there so"
                yield f"    {login}: {_credential_line(each) if each else 'NO CREDENTIAL'}{idle}"

    return show(args, found, lines())


def _host_key(args: argparse.Namespace) -> int:
    from cofferdam.brokers.jump.accounts import key_name
    from cofferdam.brokers.jump.keeper_verbs import public_key

    if args.file is None:
        raise GateError(
            "the gate does not fetch keys from the network", hint="ssh-keyscan from a host that you trust, to --file -"
        )
    text = _read(args.file)
    name = key_name(public_key(text).public_data)
    if not args.yes:
        print(f"{args.asset} is to show {name}: compare it at the asset (ssh-keygen -lf /etc/ssh/ssh_host_*.pub)")
        if not sys.stdin.isatty() or input("accept it? yes/no: ").strip() != "yes":
            raise GateError("not accepted", hint="--yes, where it was compared before")
    found = ask(args, "host-key", asset=args.asset, key=text)
    before = f", instead of {found['before']}" if found["before"] else ""
    return show(args, found, [f"{args.asset} has to show {found['fingerprint']}{before}"])


def _credential(args: argparse.Namespace) -> int:
    made = [kind for kind in ("new-key", "certificate", "none") if getattr(args, kind.replace("-", "_"))]
    kind = made[0] if made else "key" if args.key else "password"
    secret = "" if made else _read(args.key) if args.key else _read(args.password).split("\n")[0]
    found = ask(args, "credential-set", asset=args.asset, login=args.login, kind=kind, secret=secret)
    lines = [f"the gate signs in at {args.asset} as {args.login} by {found['kind']}"]
    if found["public_key"]:
        lines.append(f"authorized_keys of {args.login} there: {found['public_key']}")
    asset = next(one for one in ask_all(args, "assets") if one["asset"] == args.asset)
    if args.login not in asset["logins"]:
        lines.append(
            f"no rule of the policy goes there as {args.login}, but as {', '.join(asset['logins']) or 'nobody'}"
        )
    return show(args, found, lines)


def _rotate(args: argparse.Namespace) -> int:
    """Has it changed, and waits until that is done."""
    ask(args, "rotate", asset=args.asset, login=args.login)
    until = time.monotonic() + ROTATE_SECONDS
    while True:
        (found,) = [
            {"asset": args.asset, **each}
            for one in ask_all(args, "assets") if one["asset"] == args.asset
            for each in one["credentials"] if each["login"] == args.login
        ]  # fmt: skip
        if found["state"] != "is being changed" or time.monotonic() > until:
            break
        time.sleep(0.2)
    whose = f"the password of {args.login} at {args.asset}"
    show(args, found, [f"{whose}: {found['state']}" if found["state"] else f"{whose} is a new one, which let us in"])
    return 1 if found["state"] else 0


def _known_hosts(args: argparse.Namespace) -> int:
    found = ask(args, "gate-key")
    doors = [where if port == 22 else f"[{where}]:{port}" for where, port in found["doors"]]
    # At another port than 22 an ssh looks for the name with that port.
    names = [f"[{name}]:{port}" for _, port in found["doors"] if port != 22 for name in found["names"]]
    known = ",".join(dict.fromkeys([*doors, *names, *found["names"]]))
    lines = [f"@cert-authority {known} {found['authority']}"]
    for address, port in found["doors"]:
        where = address if port == 22 else f"[{address}]:{port}"
        lines.append(f"{where} {found['key']}")
    return show(args, found, lines)


# --- requests, sessions -----------------------------------------------------------------------------------------------


def _requests(args: argparse.Namespace) -> int:
    from cofferdam.brokers.jump.menu import request_line

    found = ask_all(args, "requests")

    return show(args, found, [request_line(one) for one in found] or ["no requests"])


def _decide(args: argparse.Namespace) -> int:
    found = ask(args, args.what, number=args.number, reason=args.reason, **signature(args, lambda: _to_sign(args)))
    return show(args, found, [str(found)])


def _to_sign(args: argparse.Namespace) -> str:
    return str(ask(args, "statement", number=args.number, deny=args.what == "deny"))


def _statement(args: argparse.Namespace) -> int:
    found = ask(args, "statement", number=args.number, deny=args.deny)
    return show(args, found, str(found).splitlines())


def _sessions(args: argparse.Namespace) -> int:
    found = ask_all(args, "sessions")
    return show(args, found, [one["line"] for one in found] or ["nobody is at an asset"])


def _watch(args: argparse.Namespace) -> int:
    from cofferdam.cli.jump_recordings import follow

    found = [one for one in ask_all(args, "sessions") if one["number"] == args.number]
    if not found:
        raise GateError(f"there is no session {args.number}", hint="`cofferdam jump sessions` shows them")
    return follow(args, found[0]["session"])


def _say(args: argparse.Namespace) -> int:
    return show(args, found := ask(args, "say", number=args.number, text=" ".join(args.text)), [str(found)])


def _kill(args: argparse.Namespace) -> int:
    found = ask(args, "kill", number=args.number, bar=args.bar, reason=args.reason)
    return show(args, found, [str(found)])


def _block(args: argparse.Namespace) -> int:
    found = ask(args, "block", kind=args.kind, name=args.name, reason=args.reason)
    return show(args, found, [f"{args.name} is barred"])


def _unblock(args: argparse.Namespace) -> int:
    return show(args, ask(args, "unblock", name=" ".join(args.name)), [f"{' '.join(args.name)} may come again"])


def _blocks(args: argparse.Namespace) -> int:
    found = ask_all(args, "blocks")
    return show(args, found, [
        f"{one['kind']:7} {one['name']}, by {one['by']} {time_of(one['at_ns'])} {one['reason']}".rstrip()
        for one in found
    ] or ["nobody is barred"])  # fmt: skip
