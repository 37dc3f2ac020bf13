"""OSCAL: documents that another implementation reads (compliance-trestle), whatever words stand in the evidence."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cofferdam.evidence import oscal, reports
from cofferdam.evidence.catalogue import catalogue, with_own
from cofferdam.evidence.history import read
from cofferdam.evidence.model import Catalogue
from tests.evidence.test_standing import FORWARDED, done, entries, now

WORDS = st.one_of(st.text(max_size=60), st.sampled_from(["", "\n", "a\nb\r\nc", "x" * 10_000, "\x00", 'é ] " \\']))


def report(name: str, *said: tuple[float, Any], found: Catalogue | None = None) -> reports.Report:
    known = found or catalogue()
    return reports.make(known, known.frameworks[name], now(read(entries(*said)), 1), version="0.1.0")


def valid(document: dict[str, Any], kind: str) -> None:
    """By the other implementation's models, and by what a schema cannot say."""
    if kind == "catalog":
        pytest.importorskip("trestle.oscal.catalog").Catalog.parse_obj(document["catalog"])
        ids = [control["id"] for control in document["catalog"]["controls"]]
        assert len(ids) == len(set(ids))
    else:
        models = pytest.importorskip("trestle.oscal.assessment_results")
        result = document["assessment-results"]["results"][0]
        components = {one["uuid"] for one in result["local-definitions"]["components"]}
        subjects = {one["subject-uuid"] for seen in result.get("observations", []) for one in seen["subjects"]}
        assert subjects <= components
        models.AssessmentResults.parse_obj(document["assessment-results"])


@pytest.mark.parametrize("name", catalogue().frameworks)
def test_every_framework(name: str) -> None:
    made = report(
        name, (0, done(FORWARDED, "proved")), (0, done("log.whole", "failed")), (0, done("leak.silent", "tested"))
    )
    document = oscal.assessment_results(made)
    valid(document, "assessment-results")
    valid(oscal.catalog(catalogue().frameworks[name], made.made), "catalog")
    result = document["assessment-results"]["results"][0]
    states = {
        finding["title"].partition(": ")[0]: (
            finding["target"]["status"]["state"],
            next(prop["value"] for prop in finding["props"] if prop["name"] == "status"),
        )
        for finding in result["findings"]
    }
    for row in made.rows:
        state, status = states[row.control.id]
        assert status == row.control.status
        good = status in oscal.SATISFIED and row.control.by != "part"
        assert (state == "satisfied") == good
    assert json.dumps(document) == json.dumps(oscal.assessment_results(made))
    known = {observation["uuid"] for observation in result.get("observations", [])}
    named = {
        related["observation-uuid"]
        for finding in result["findings"]
        for related in finding.get("related-observations", [])
    }
    assert named <= known
    # A finding is about a statement of the catalogue that goes with it.
    catalog = oscal.catalog(catalogue().frameworks[name], made.made)["catalog"]["controls"]
    statements = {part["id"] for one in catalog for part in one["parts"]}
    assert {finding["target"]["target-id"] for finding in result["findings"]} <= statements


def test_an_empty_log_is_a_document_too() -> None:
    valid(oscal.assessment_results(report("nis2")), "assessment-results")


@settings(max_examples=40)
@given(st.lists(WORDS, min_size=4, max_size=4))
def test_whatever_words(words: list[str]) -> None:
    made = report("iec62443-3-2", (0, done(FORWARDED, "proved")))
    rows = tuple(
        msgspec.structs.replace(
            row,
            control=msgspec.structs.replace(row.control, says=words[0], why=words[1], rest=words[2]),
            checks=tuple(msgspec.structs.replace(one, says=words[3], facts=tuple(words)) for one in row.checks),
        )
        for row in made.rows
    )
    document = oscal.assessment_results(msgspec.structs.replace(made, rows=rows, site=words[0], policy=words[1]))
    valid(document, "assessment-results")
    for value in re.findall(r'"value": "((?:[^"\\]|\\.)*)"', json.dumps(document)):
        assert value
        assert "\\n" not in value


def test_control_names_that_are_no_tokens(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        'framework: own\ntitle: "T"\ncontrols:\n'
        '  "§ 7 (2) a)": {by: gate, theme: [log], says: "x", checks: [log.whole]}\n'
        '  "\u30a2": {by: outside, theme: [log], says: "y"}\n'
        '  "\u30a3": {by: outside, theme: [log], says: "z"}\n'
    )
    found = with_own(catalogue(), [path])
    valid(oscal.assessment_results(report("own", found=found)), "assessment-results")
    valid(oscal.catalog(found.frameworks["own"], "2026-11-26T00:00:00Z"), "catalog")
