"""No cell of a CSV file is a formula, whatever a program takes to be between cells: of the log's export, of reports and
tables for an auditor, of the mirror's answers."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from cofferdam.audit.cells import no_formula
from cofferdam.audit.events.access import Malformed
from cofferdam.brokers.mirror.forms import csv_pieces
from cofferdam.evidence.reports import for_spreadsheet
from tests.audit.conftest import Opener
from tests.audit.test_cli import audit

TEXTS = [
    "=1+1",
    "see the note;=HYPERLINK(1)",
    'a; "=1',
    "a;b;@x",
    "=1;=1;-1+1",
    "a\n=1",
    'a\t"=1',
    " =1",
    "\t=1",
    '\n";+1',
    "\uff1d1+1",
    "a;\uff0b1",
    "\ufeff=1",
    "\u200b@x",
]


def _written(cells: list[str]) -> str:
    out = io.StringIO(newline="")
    csv.writer(out).writerow(cells)
    return out.getvalue()


WAYS: dict[str, Callable[[str], str]] = {
    "a report": lambda text: _written(["first", for_spreadsheet(text), "last"]),
    "a mirror's answer": lambda text: b"".join(
        csv_pieces(("tag", "value", "server"), [{"tag": "first", "value": text, "server": "last"}])
    ).decode(),
    "a mirror's columns": lambda text: b"".join(csv_pieces(("first", text), [{"first": "1"}])).decode(),
}


def none_is_a_formula(text: str) -> None:
    for delimiter in ",;\t":
        for cells in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
            for cell in cells:
                seen = unicodedata.normalize("NFKC", cell.lstrip(' "\t\r\n\0\u200b\ufeff'))
                assert not seen.startswith(("=", "+", "-", "@")), (delimiter, cells)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("text", TEXTS)
def test_no_cell_is_a_formula(way: str, text: str) -> None:
    none_is_a_formula(WAYS[way](text))


@pytest.mark.parametrize("text", TEXTS)
def test_no_cell_of_the_logs_export_is_a_formula(
    text: str, opener: Opener, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = opener()
    log.append([Malformed(session="s", source="10.9.9.9", section="x", detail=text)], maker="outer")
    log.close()
    code, out = audit(tmp_path, capsys, "export", "--format", "csv")
    assert code == 0 and "malformed" in out
    none_is_a_formula(out)


def test_numbers_stay_numbers() -> None:
    for text in ("-5", "-1.50", "7", "", "a;b", "x=1", "1;2"):
        assert no_formula(text) == text
