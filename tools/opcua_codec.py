"""Makes protocols/opcua/services.py from tools/opcua.txt: `python tools/opcua_codec.py > .../services.py`.

A type for each structure, a straight-line reader and writer, and two tables of those that have an encoding id.
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
HEAD = '''"""Structures of OPC UA, their readers and writers. Made by tools/opcua_codec.py from tools/opcua.txt: change
those."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from cofferdam.protocols.opcua.builtin import (
    Data,
    Extension,
    LocalizedText,
    NodeId,
    QualifiedName,
    Reader,
    Variant,
    Writer,
)
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


def make(text: str) -> str:
    """The module."""
    structures = parse(text)
    least = {kind: size for kind, (_, size) in PLAIN.items()}
    lines = [HEAD]
    for name, _, fields in structures:
        least[name] = sum(4 if array else least[kind] for _, kind, array in fields)
        lines += ["", f"class {name}(msgspec.Struct, frozen=True, gc=False):"]
        for what, kind, array in fields:
            python = PLAIN[kind][0] if kind in PLAIN else kind
            lines.append(f"    {what}: {f'list[{python}]' if array else python}")
        lines += ["", "", f"def read_{name}(r: Reader) -> {name}:", "    r.spend()", f"    return {name}("]
        for _, kind, array in fields:
            one = f"r.{kind}()" if kind in PLAIN else f"read_{kind}(r)"
            lines.append(f"        {f'[{one} for _ in range(r.count({least[kind]}))]' if array else one},")
        lines += ["    )", "", "", f"def write_{name}(w: Writer, v: {name}) -> None:"]
        for what, kind, array in fields:
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
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(make(TABLE.read_text()))
