"""Tables and lines on a terminal, for verbs that print rows. Not here: what they print."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDE = 4000
"""Columns where the output is no terminal: a file or another program takes lines as long as they are."""


def terminal() -> Console:
    """Where lines go. Without markup: what is printed may quote strangers."""
    from rich.console import Console

    return Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else WIDE, soft_wrap=True)


def table(*columns: str) -> Table:
    """A table without a title."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    return made
