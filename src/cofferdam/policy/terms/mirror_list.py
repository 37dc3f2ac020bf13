"""An engineer's list of tags: CSV beside the policy, as spreadsheets and engineering tools write it. PURE.

The first row names the columns: `tag`, and perhaps `unit` and `description`; others are passed over. Cells are parted
by what parts them in that row: a comma, a semicolon or a tab. Not here: where it is named (mirror_model).
"""

from __future__ import annotations

import csv
import io
from typing import Final

from cofferdam.policy.terms.mirror_rows import TAG_CHARACTERS, About, tag_name

LIST_TAGS: Final = 50_000
LIST_BYTES: Final = 8 << 20
UNIT_CHARACTERS: Final = 32
TEXT_CHARACTERS: Final = 300


def listed(data: bytes) -> dict[str, About]:
    """What it says, by tag. Raises: ValueError, in words, with the row."""
    if len(data) > LIST_BYTES:
        raise ValueError(f"a list of {len(data)} bytes; at most {LIST_BYTES} are read")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is no UTF-8 from byte {error.start} on") from None
    head = text.partition("\n")[0].lower()
    for mark in ",;\t":
        columns = [cell.strip().strip('"') for cell in head.split(mark)]
        if columns.count("tag") == 1:
            break
    else:
        raise ValueError("its first row names no column `tag`, or more than one")
    at = {name: columns.index(name) for name in ("tag", "unit", "description") if name in columns}
    found: dict[str, About] = {}
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
    try:
        next(rows)
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            if len(found) >= LIST_TAGS:
                raise ValueError(f"more than {LIST_TAGS} tags")
            cells = {name: row[place].strip() if place < len(row) else "" for name, place in at.items()}
            name = cells["tag"]
            if not tag_name(name):
                what = f"a tag's name has 1 to {TAG_CHARACTERS} printable characters, and no *"
                raise ValueError(f"row {rows.line_num}: {what}")
            if name in found:
                raise ValueError(f"row {rows.line_num}: {name} is there twice")
            about = About(cells.get("unit", ""), cells.get("description", ""))
            for what, said, most in (("unit", about.unit, UNIT_CHARACTERS),
                                     ("description", about.description, TEXT_CHARACTERS)):  # fmt: skip
                if len(said) > most or not (said.isprintable() or not said):
                    raise ValueError(f"row {rows.line_num}: a {what} has at most {most} characters, in one line")
            found[name] = about
    except csv.Error as error:
        raise ValueError(f"row {rows.line_num}: {error}") from None
    if not found:
        raise ValueError("no tags")
    return found
