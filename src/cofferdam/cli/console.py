"""Tables and lines on a terminal, for verbs that print rows. Not here: what they print."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDE = 4000
"""Columns where the output is no terminal: a file or another program takes lines as long as they are."""


def terminal() -> Console:
    """Where lines go. Without markup, and without what drives a terminal: what is printed may quote strangers."""
    from rich.console import Console

    from cofferdam.audit.lines import escaped

    class Lines(Console):
        def print(self, *given: Any, **named: Any) -> None:
            super().print(*(escaped(one) if isinstance(one, str) else one for one in given), **named)

    return Lines(markup=False, highlight=False, width=None if sys.stdout.isatty() else WIDE, soft_wrap=True)


def table(*columns: str) -> Table:
    """A table without a title, whose cells are texts."""
    from rich import box
    from rich.table import Table

    from cofferdam.audit.lines import escaped

    class Rows(Table):
        def add_row(self, *cells: Any, **named: Any) -> None:
            super().add_row(*(escaped(one) if isinstance(one, str) else one for one in cells), **named)

    made = Rows(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    return made
