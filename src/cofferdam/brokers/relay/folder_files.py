"""What lies in a file: messages, one by one, each with its key and the words that refuse it.

A file is one message (JSON or XML), or each of its lines (NDJSON) or rows (CSV) is one. Rows of CSV become objects: the
first row names the fields, `columns` say which of them are numbers or true and false, everything else is a text.

Not here: finding, moving and writing files (folder_work), what a message has to look like (policy.messages).
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator
from typing import Any, Final

from cofferdam.brokers.relay.http_messages import Outcome, is_key, single
from cofferdam.policy.messages.bounds import KEY_CHARACTERS
from cofferdam.policy.messages.checked import Problem
from cofferdam.policy.messages.checking import Checks, pointer
from cofferdam.policy.messages.json_reading import NotJson, read
from cofferdam.policy.terms.relay_rows import Folder

ROWS_MOST: Final = 100_000
"""Messages in one file."""
CELL_MOST: Final = 65_536
"""Characters of one cell."""
COLUMNS_MOST: Final = 1_000
ROW_MOST: Final = 1 << 20
"""Characters of one row of CSV."""
LINES_MOST: Final = 1_000_000
"""Lines of one file, empty ones too."""
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,19}\Z")
_TRUE_FALSE: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}

Found = tuple[int, Outcome]
"""(line in the file, what is there)."""


def messages(checks: Checks, folder: Folder, name: str, content: bytes) -> Iterator[Found]:
    """The messages of a file, in its order."""
    if folder.form in ("json", "xml"):
        yield 1, _message(checks, folder, name, content, "")
        return
    rows = _csv(folder, content) if folder.form == "csv" else _lines(content)
    for count, (line, body) in enumerate(rows, 1):
        if line > LINES_MOST:
            yield line, Outcome("", None, Problem("size", f"more than {LINES_MOST} lines in one file", "", line, 1))
            return
        if count > ROWS_MOST:
            yield line, Outcome("", None, Problem("size", f"more than {ROWS_MOST} messages in one file", "", line, 1))
            return
        if isinstance(body, Problem):
            yield line, Outcome("", None, body)
        else:
            yield line, _message(checks, folder, name, body, f"#{count}")


def _message(checks: Checks, folder: Folder, name: str, body: bytes, number: str) -> Outcome:
    key = _key(folder, name, body, number)
    return Outcome("", None, key) if isinstance(key, Problem) else single(checks, folder.channel, key, body)


def _key(folder: Folder, name: str, body: bytes, number: str) -> str | Problem:
    if folder.id == "name":
        key = name + number
    elif folder.id == "content":
        key = hashlib.sha256(body).hexdigest()
    else:
        try:
            value, _ = read(body)
            for step in pointer(folder.id):
                value = value[int(step)] if isinstance(value, list) else value[step]
        except NotJson as error:
            return Problem("syntax", error.words[:500], error.pointer, 1, 1)
        except (KeyError, IndexError, ValueError, TypeError):
            return Problem("syntax", f"the message has no id at {folder.id}", folder.id)
        key = value if isinstance(value, str) else json.dumps(value) if type(value) in (int, float) else ""
    if not is_key(key) or len(key) > KEY_CHARACTERS:
        return Problem("syntax", "an id is a text of 1 to 200 printable characters")
    return key


def _lines(content: bytes) -> Iterator[tuple[int, bytes | Problem]]:
    for line, row in enumerate(io.BytesIO(content), 1):  # one by one: a file may be nothing but ends of lines
        if row.strip() or line > LINES_MOST:
            yield line, row.removesuffix(b"\n")


def _csv(folder: Folder, content: bytes) -> Iterator[tuple[int, bytes | Problem]]:
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        yield line, Problem("syntax", "not UTF-8", "", line, 1)
        return
    if b"\0" in content:
        line = content.count(b"\n", 0, content.index(b"\0")) + 1
        yield line, Problem("syntax", "a NUL", "", line, 1)
        return
    text = _Rows(content)
    rows = csv.reader(text, delimiter=folder.delimiter, strict=True)
    head: list[str] = []
    line = 1
    while True:
        line = rows.line_num + 1
        text.taken = 0
        if line > LINES_MOST:
            yield line, b""
            return
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, Problem("syntax", f"no row of CSV: {error}", "", line, 1)
            return  # where the next row begins cannot be told
        if not row:
            continue
        if not head:
            if len(row) > COLUMNS_MOST:
                yield line, Problem("size", f"{len(row)} columns; at most {COLUMNS_MOST} are read", "", line, 1)
                return
            head = [cell.strip() for cell in row]
            missing = [name for name, _ in folder.columns if name not in head]
            twice = next((name for name in head if head.count(name) > 1), "")
            if missing or twice or not all(head):
                said = f"no column {missing[0]}" if missing else f"the column {twice or 'without a name'} twice"
                said = said if all(head) or missing else "a column without a name"
                yield line, Problem("syntax", f"the first row has {said}; the delimiter is {folder.delimiter!r}"[:500])
                return
            continue
        yield line, _row(folder, head, row, line)


class _Rows:
    """Lines for the reader of CSV, which would read a row of any length."""

    def __init__(self, content: bytes) -> None:
        self._lines = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", newline="")
        self.taken = 0
        """Characters of this row."""

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.taken += len(line)
            if self.taken > ROW_MOST:
                raise csv.Error(f"a row of more than {ROW_MOST} characters")
            yield line


def _row(folder: Folder, head: list[str], row: list[str], line: int) -> bytes | Problem:
    if len(row) != len(head):
        return Problem("syntax", f"{len(row)} cells, and {len(head)} columns", "", line, 1)
    kinds = dict(folder.columns)
    value: dict[str, Any] = {}
    for name, cell in zip(head, row, strict=True):
        if len(cell) > CELL_MOST:
            return Problem("size", f"a cell of more than {CELL_MOST} characters", f"/{name}"[:256], line, 1)
        kind = kinds.get(name, "text")
        if kind == "text":
            value[name] = cell
            continue
        if not cell.strip():
            continue  # an empty cell is a field that is not there: the schema says whether it may be missing
        read_as = _typed(kind, cell.strip(), folder.decimal)
        if read_as is None:
            return Problem("syntax", f"{cell[:64]!r} is no {kind}", f"/{name}"[:256], line, 1)
        value[name] = read_as
    return json.dumps(value, ensure_ascii=False).encode()


def _typed(kind: str, cell: str, decimal: str) -> int | float | bool | None:
    if kind == "boolean":
        return _TRUE_FALSE.get(cell.lower())
    if kind == "integer":
        return int(cell) if _INTEGER.match(cell) else None
    text = cell.replace(decimal, ".") if decimal != "." else cell
    return float(text) if re.fullmatch(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?", text) else None
