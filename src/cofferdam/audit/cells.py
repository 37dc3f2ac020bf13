"""Texts in cells of a CSV file, of which parts come from the network: none is a formula to whatever opens it.

Not here: what cannot be printed (lines), the tables themselves.
"""

from __future__ import annotations

import re

_SIGNS = "=+\\-@\uff1d\uff0b\uff0d\uff20"
"""By which a formula begins, in full width as well."""
_UNSEEN = "\\s\\x00\u200b\ufeff"
_BEGINS = re.compile(rf"[\t\r]|[{_UNSEEN}]*[{_SIGNS}]")
_BEHIND = re.compile(rf"""([;\t\r\n][{_UNSEEN}"]*)(?=[{_SIGNS}])""")
"""What begins a cell where a program takes the semicolon (as where commas are for decimals) or the tab between cells.
It sees no quotation mark that is not at a cell's beginning, and so a line's end in the text as the row's."""
_NUMBER = re.compile(r"-[0-9]+(\.[0-9]+)?")


def no_formula(text: str) -> str:
    """The same text, with an apostrophe wherever a spreadsheet would see a formula begin. A negative number is none."""
    if _NUMBER.fullmatch(text):
        return text
    text = _BEHIND.sub(r"\1'", text)
    return f"'{text}" if _BEGINS.match(text) else text
