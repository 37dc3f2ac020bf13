"""Makes protocols/opcua/structures.py and services.py from tools/opcua.txt: `python tools/opcua_codec.py FOLDER`.

A type for each structure (structures), a straight-line reader and writer, and two tables of those that have an encoding
id (services). They are two modules since only what defines no msgspec structure can be compiled (docs/adr/0020).
"""

from __future__ import annotations

import sys
from pathlib import Path

TABLE = Path(__file__).with_name("opcua.txt")
PLAIN = {  # type of the table -> (type in Python, bytes at least, default)
    "boolean": ("bool", 1), "byte": ("int", 1), "u16": ("int", 2), "u32": ("int", 4), "i32": ("int", 4),
    "i64": ("int", 8), "f64": ("float", 8), "string": ("str | None", 4), "octets": ("bytes | None", 4),
    "node": ("NodeId", 2), "expanded": ("NodeId", 2), "qualified": ("QualifiedName", 6),
    "localized": ("LocalizedText", 1), "extension": ("Extension", 3), "diagnostic": ("int", 1),
    "variant": ("Variant", 1), "value": ("Data", 1),
}  # fmt: skip
LETTERS = {"boolean": "?", "byte": "B", "u16": "H", "u32": "I", "i32": "i", "i64": "q", "f64": "d"}
"""Of struct: fields of a fixed size that follow each other are read and written at once."""
TYPES_HEAD = '''"""Structures of OPC UA. Made by tools/opcua_codec.py from tools/opcua.txt: change those."""

from __future__ import annotations

import msgspec

from cofferdam.protocols.opcua.builtin_types import Data, Extension, LocalizedText, NodeId, QualifiedName, Variant

'''
HEAD = '''"""Readers and writers of OPC UA's structures. Made by tools/opcua_codec.py from tools/opcua.txt:
change those."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from cofferdam.protocols.opcua.builtin import Reader, Writer
'''


def parse(text: str) -> list[tuple[str, int, list[tuple[str, str, bool]]]]:
    """(name, encoding id or 0, its fields as (name, type, is an array))."""
    found = []
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        head, _, rest = line.partition(":")
        name, _, number = head.partition(" ")
        fields = []
        for field in rest.split(","):
            what, kind = field.split()
            fields.append((what, kind.removeprefix("[]"), kind.startswith("[]")))
        found.append((name, int(number or 0), fields))
    return found


def _runs(fields: list[tuple[str, str, bool]]) -> list[list[tuple[str, str, bool]]]:
    """The fields, those together that are of a fixed size."""
    found: list[list[tuple[str, str, bool]]] = []
    for field in fields:
        plain = field[1] in LETTERS and not field[2]
        if plain and found and found[-1][0][1] in LETTERS and not found[-1][0][2]:
            found[-1].append(field)
        else:
            found.append([field])
    return found


def make_types(text: str) -> str:
    """The module of the types."""
    lines: list[str] = []
    for name, _, fields in parse(text):
        lines += ["", f"class {name}(msgspec.Struct, frozen=True, gc=False):"]
        for what, kind, array in fields:
            python = PLAIN[kind][0] if kind in PLAIN else kind
            lines.append(f"    {what}: {f'list[{python}]' if array else python}")
        lines.append("")
    return "\n".join([TYPES_HEAD.rstrip("\n"), "", *lines])


def make(text: str) -> str:
    """The module of the readers and writers."""
    structures = parse(text)
    least = {kind: size for kind, (_, size) in PLAIN.items()}
    lines: list[str] = []
    forms: set[str] = set()
    for name, _, fields in structures:
        least[name] = sum(4 if array else least[kind] for _, kind, array in fields)
        lines += ["", f"def read_{name}(r: Reader) -> {name}:", "    r.spend()"]
        for run in _runs(fields):
            what, kind, array = run[0]
            if len(run) > 1:
                form = "".join(LETTERS[kind] for _, kind, _ in run)
                forms.add(form)
                lines.append(f"    {', '.join(f'{what}_' for what, _, _ in run)} = r.unpack({_form(form)})")
                continue
            one = f"r.{kind}()" if kind in PLAIN else f"read_{kind}(r)"
            found = f"[{one} for _ in range(r.count({least[kind]}))]" if array else one
            lines.append(f"    {what}_ = {found}")
        values = ", ".join(f"{what}_" for what, _, _ in fields)
        made = f"    return {name}({values})"
        if len(made) > 120:
            lines += [f"    return {name}(", f"        {values}", "    )"]
        else:
            lines.append(made)
        lines += ["", "", f"def write_{name}(w: Writer, v: {name}) -> None:"]
        for run in _runs(fields):
            what, kind, array = run[0]
            if len(run) > 1:
                values = ", ".join(f"v.{what}" for what, _, _ in run)
                lines.append(f"    w.raw({_form(''.join(LETTERS[kind] for _, kind, _ in run))}.pack({values}))")
                continue
            write = f"w.{kind}({{}})" if kind in PLAIN else f"write_{kind}(w, {{}})"
            if array:
                lines += [
                    f"    w.count(len(v.{what}))",
                    f"    for {what}_one in v.{what}:",
                    f"        {write.format(f'{what}_one')}",
                ]
            else:
                lines.append(f"    {write.format(f'v.{what}')}")
        lines.append("")
    lines += ["", "READERS: dict[int, Callable[[Reader], Any]] = {"]
    lines += [f"    {number}: read_{name}," for name, number, _ in structures if number]
    lines += ["}", '"""By encoding id."""', "WRITERS: dict[type, tuple[int, Callable[[Writer, Any], None]]] = {"]
    lines += [f"    {name}: ({number}, write_{name})," for name, number, _ in structures if number]
    lines += ["}", '"""By type: its encoding id and its writer."""', ""]
    names = sorted((name for name, _, _ in structures), key=str.swapcase)
    imports = ["from cofferdam.protocols.opcua.structures import (", *(f"    {name}," for name in names), ")", ""]
    exported = ["__all__ = [", *(f'    "{name}",' for name in names), "]", ""]
    constants = [f'{_form(form)} = struct.Struct("<{form}")' for form in sorted(forms)]
    head = [HEAD.rstrip("\n"), *imports, *exported, *constants, ""]
    return "\n".join([*head, *lines])


def _form(letters: str) -> str:
    """The name of a form. Booleans are "o" in it."""
    return f"_{letters.replace('?', 'o')}"


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    (folder / "structures.py").write_text(make_types(TABLE.read_text()))
    (folder / "services.py").write_text(make(TABLE.read_text()))
