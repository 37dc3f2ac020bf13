"""What stands on an operator's screen: tickets as letters, and the QR codes above or below them, cell by cell.

Not here: what a ticket says (brokers.diode.tickets).
"""

from __future__ import annotations

import io
import re

import segno

_CELLS = frozenset(" █▀▄")


def tickets(screen: str) -> tuple[list[str], list[str]]:
    """The tickets' letters, and what is drawn as codes, in their order."""
    texts = [
        "".join(found.group(1).split()) for found in re.finditer(r"^ticket \d+ for .*:\n +([2-9A-Z ]+)$", screen, re.M)
    ]
    codes: list[list[str]] = []
    before = ""
    for line in screen.splitlines():
        if line and set(line) <= _CELLS:
            if not before:
                codes.append([])
            codes[-1].append(line)
            before = line
        else:
            before = ""
    return texts, ["\n".join(code) for code in codes]


def code(text: str) -> str:
    """How a QR code of this text is drawn."""
    out = io.StringIO()
    segno.make(text, error="m").terminal(out, compact=True)
    return out.getvalue().rstrip("\n")
