"""People of the jump server from a file: `cofferdam jump person import FILE.csv`.

All of the file is looked at before anybody is added; then each is what `person add`, `group join` and `factor key` do.

Not here: the other verbs (jump).
"""

from __future__ import annotations

import argparse
import csv
import io
import re
import sys
from typing import Any, Final

import msgspec

from cofferdam.cli.jump_asking import ask, ask_all, show
from cofferdam.errors import GateError
from cofferdam.policy.problems import nearest

COLUMNS: Final = ("person", "full", "account", "groups", "key")
_NAME: Final = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_MOST: Final = 16 << 20
NAMELESS: Final = (
    "without a whole name nobody sees that two accounts are one person's, who would approve their own request"
)
_LONGEST: Final = {"full": 128, "account": 64}
"""Letters, as the keeper takes them."""


class Row(msgspec.Struct):
    """A line. `at`: where it stands; `key`: the fingerprint of the public key in `line`; "" where there is none."""

    at: str
    person: str
    full: str
    account: str
    groups: list[str]
    line: str
    key: str


def read(text: str, where: str) -> list[Row]:
    """Raises: GateError, with the line."""
    from cofferdam.brokers.jump.accounts import key_name
    from cofferdam.brokers.jump.keeper_verbs import public_key

    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")), strict=True)
    hint = f"its first line names columns: {','.join(COLUMNS)}; groups are apart by spaces"
    rows: list[Row] = []
    seen: set[object] = set()
    try:
        names = reader.fieldnames or []
        if "person" not in names:
            hint = "fields are apart by commas, not by `;`" if ";" in "".join(names) else hint
            raise GateError(f"{where} has no column `person`", hint=hint)
        if len(set(names)) < len(names):
            raise GateError(f"{where} has a column twice", hint=hint)
        for name in names:
            if name not in COLUMNS:
                likely = nearest(name, COLUMNS)
                raise GateError(f"{where} has a column {name[:40]!r}" + (f" ({likely}?)" if likely else ""), hint=hint)
        for each in reader:
            at = f"{where}, line {reader.line_num}"
            if None in each or None in each.values():
                raise GateError(f"{at} has more or fewer fields than the first line", hint=hint)
            said = {name: value.strip() for name, value in each.items()}
            person, groups = said["person"], said.get("groups", "").split()
            for name in (person, *groups):
                if not _NAME.fullmatch(name):
                    raise GateError(f"{at}: {name[:80]!r} is no name", hint="letters, digits, `.`, `_` and `-`")
            if person in seen:
                raise GateError(f"{at}: {person} stands in it twice")
            seen.add(person)
            for name, most in _LONGEST.items():
                if len(said.get(name, "")) > most:
                    raise GateError(f"{at}: `{name}` has more than {most} letters")
            line = said.get("key", "")
            try:
                key = key_name(public_key(line).public_data) if line else ""
            except GateError as error:
                raise GateError(f"{at}: {error}", hint=error.hint) from None
            for what, mine in (("key", key), ("account", said.get("account", ""))):
                if mine and (what, mine) in seen:
                    raise GateError(f"{at}: that {what} is somebody else's in it")
                seen.add((what, mine))
            rows.append(Row(at, person, said.get("full", ""), said.get("account", ""), groups, line, key))
    except csv.Error as error:
        raise GateError(f"{where}, line {reader.line_num}: {error}", hint=hint) from None
    return rows


def _fits(rows: list[Row], known: dict[str, dict[str, Any]], assets: set[str]) -> None:
    """What the keeper would refuse is said before anybody is added. Raises: GateError, with the line."""
    keys = {key["fingerprint"]: name for name, one in known.items() for key in one["keys"]}
    accounts = {one["account"]: name for name, one in known.items() if one["account"]}
    for row in rows:
        if row.person in assets and row.person not in known:
            raise GateError(f"{row.at}: {row.person} is an asset's name: a user name must say which is meant")
        for what, owner in (("key", keys.get(row.key)), ("account", accounts.get(row.account))):
            if owner not in (None, row.person):
                raise GateError(f"{row.at}: that {what} is {owner}'s already")


def bring_in(args: argparse.Namespace) -> int:
    """Adds who is not known, and what of groups and keys they do not have; nobody loses any."""
    try:
        data = sys.stdin.buffer.read(_MOST + 1) if str(args.file) == "-" else args.file.read_bytes()
        text = data.decode("utf-8")
    except OSError as error:
        raise GateError(f"{args.file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise GateError(f"{args.file} is not UTF-8", hint="save it as CSV UTF-8") from None
    if len(data) > _MOST:
        raise GateError(f"{args.file} has more than {_MOST >> 20} MiB")
    rows = read(text, str(args.file))
    known: dict[str, dict[str, Any]] = {one["person"]: one for one in ask_all(args, "people")}
    _fits(rows, known, {one["asset"] for one in ask_all(args, "assets")})
    found, lines = [], []
    for row in rows:
        old = known.get(row.person)
        if old is None:
            ask(args, "person-add", person=row.person, full=row.full, account=row.account)
        groups = [name for name in row.groups if old is None or name not in old["groups"]]
        for name in groups:
            ask(args, "group-join", person=row.person, group=name)
        has = [one["fingerprint"] for one in old["keys"]] if old is not None else []
        key = row.key if row.key not in has else ""
        if key:
            ask(args, "key-add", person=row.person, key=row.line)
        found.append({"person": row.person, "new": old is None, "groups": groups, "key": key})
        what = ["is known now" + ("" if row.full else f" ({NAMELESS})")] if old is None else []
        what += [*(f"in {name}" for name in groups), *([f"key {key}"] if key else [])]
        lines.append(f"{row.person}: {', '.join(what or ['nothing new'])}")
    return show(args, found, lines or ["nobody stands in it"])
