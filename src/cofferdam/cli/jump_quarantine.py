"""`cofferdam jump quarantine ...`: files that did not pass: what lies there, and what becomes of it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import Any

from cofferdam.cli.jump_asking import add_signing, ask, ask_all, show, signature, time_of
from cofferdam.errors import GateError

USUAL = "24h"


def add(parent: Any, verb: Callable[..., argparse.ArgumentParser]) -> None:
    """The words."""
    verb("list", "what waits for somebody, what was decided, and what lies there", _list, "list[HeldFile]", parent)
    shown = verb("show", "one of them, with all that is known of it", _show, "HeldFile", parent)
    release = verb(
        "release", "let a file pass that could not be scanned whole, when who brought it brings it once more: it takes "
        "somebody else, and never one in which something was found", _release, "str", parent,
    )  # fmt: skip
    statement = verb("statement", "what there is to sign to release one", _statement, "str", parent)
    reject = verb("reject", "let it never pass, and throw it away", _reject, "str", parent)
    for sub in (shown, release, statement):
        sub.add_argument("number", type=int, metavar="N", help="its number, as `list` shows it")
    reject.add_argument("file", metavar="N|NAME", help="its number, or the name of what lies there without one")
    for sub in (release, reject):
        many = "+" if sub is release else "*"
        sub.add_argument("reason", nargs=many, metavar="WHY", help="why, for the record")
    for sub in (release, statement):
        sub.add_argument("--for", dest="span", default=USUAL, metavar="TIME",
                         help=f"how long it may come: 2h, 90min; at most 168h (default {USUAL})")  # fmt: skip
    add_signing(release)


def _all(args: argparse.Namespace) -> list[dict[str, Any]]:
    """What the keeper knows, and what lies there besides."""
    found: list[dict[str, Any]] = ask_all(args, "files")
    known = {one["kept"] for one in found}
    for one in ask(args, "quarantine", part="archivist"):
        if one["name"] not in known:
            line = f"   -  {one['name']}, {one['size']} bytes, {time_of(one['at_ns'])}: the log says why it is here"
            words = dict.fromkeys(("person", "asset", "conduit", "way", "path", "sha256", "detail", "by", "reason"), "")
            found.append({
                "number": 0, **words, "size": one["size"], "kept": one["name"], "at_ns": one["at_ns"], "state": "kept",
                "until_ns": 0, "line": line,
            })  # fmt: skip
    return found


def _list(args: argparse.Namespace) -> int:
    found = _all(args)
    return show(args, found, [one["line"] for one in found] or ["nothing is in quarantine"])


def _one(args: argparse.Namespace, number: int) -> dict[str, Any]:
    for one in ask_all(args, "files"):
        if one["number"] == number:
            return dict(one)
    raise GateError(f"there is no file {number}", hint="`cofferdam jump quarantine list` shows them")


def _show(args: argparse.Namespace) -> int:
    one = _one(args, args.number)

    def lines() -> Iterable[str]:
        yield one["line"]
        yield f"    SHA-256 {one['sha256']}, brought {time_of(one['at_ns'])} by the conduit {one['conduit']}"
        yield f"    in the archivist's folder: quarantine/{one['kept']}" if one["kept"] else "    it was not kept"
        if one["reason"]:
            yield f"    {one['by'] or 'the scanner'}: {one['reason']}"

    return show(args, one, lines())


def _seconds(args: argparse.Namespace) -> int:
    from cofferdam.brokers.jump.menu import seconds_of

    return seconds_of(args.span)


def _to_sign(args: argparse.Namespace) -> str:
    return str(ask(args, "file-statement", number=args.number, seconds=_seconds(args)))


def _release(args: argparse.Namespace) -> int:
    found = ask(args, "file-release", number=args.number, reason=" ".join(args.reason), seconds=_seconds(args),
                **signature(args, lambda: _to_sign(args)))  # fmt: skip
    return show(args, found, [str(found)])


def _statement(args: argparse.Namespace) -> int:
    return show(args, found := _to_sign(args), found.splitlines())


def _reject(args: argparse.Namespace) -> int:
    reason, name, said = " ".join(args.reason), args.file, []
    if args.file.isdecimal():
        name = _one(args, int(args.file))["kept"]
        said.append(str(ask(args, "file-reject", number=int(args.file), reason=reason)))
        if name not in {one["name"] for one in ask(args, "quarantine", part="archivist")}:
            name = ""
    if name:
        ask(args, "quarantine-remove", part="archivist", name=name, reason=reason)
        said.append(f"{name} is thrown away")
    return show(args, "; ".join(said), said)
