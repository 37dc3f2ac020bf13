"""What the page on the mirror shows: its policy loads, and its API is the one that the reader has."""

from __future__ import annotations

import json
import re
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from cofferdam.brokers.kit.http.problems import Refusal
from cofferdam.brokers.mirror import api, forms
from cofferdam.errors import PolicyError
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.explain import Question
from cofferdam.policy.lint import lint
from cofferdam.policy.load import load, loads
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.base import Scope
from cofferdam.policy.terms.kinds import KINDS
from cofferdam.policy.terms.mirror_rows import About, MirrorRows, Postgres, meet

PAGE = Path(__file__).parents[3] / "docs" / "mirror.md"
POLICY = textwrap.dedent(re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.S)[0])


DATABASE = POLICY[POLICY.index("historian:") + len("historian:") : POLICY.index("    mirror: {")]
"""What the page says of its source."""


def compiled(text: str = POLICY) -> CompiledPolicy:
    return compile_policy(loads(text), now_ns=time.time_ns())


def test_the_policy_of_the_page_loads() -> None:
    row = compiled().conduits["history"].terms
    assert isinstance(row, MirrorRows)
    assert row.keep == 5 * 31_536_000 and row.rules[0].resolution == 60
    assert not lint(loads(POLICY))  # who copies it is told nothing


def test_each_part_knows_what_it_has_to_and_no_more() -> None:
    policy = compiled()
    scope = Scope(frozenset({"history"}), frozenset({"history"}))
    rows: dict[str, Any] = {}
    for part in ("collector", "spooler", "keeper", "reader"):
        table = KINDS["mirror"].slice(policy, scope, part)
        rows[part] = table.conduits["history"].terms
        assert ("bi" in table.principals) == (part == "reader")
    for part in ("spooler", "keeper", "reader"):
        assert "10.2.0.5" not in str(rows[part]), part
    assert not rows["collector"].rules and not rows["keeper"].rules


LISTED = "tag;Description;unit;PLC\r\ntank_1;Level of tank 1;m;7\r\nflow_total;;m³;\r\n\r\n"
SOURCE = "        tags: [tank_*, flow_*]"


def listed(folder: Path, text: bytes, also: str = "") -> MirrorRows:
    """The policy of the page with an engineer's list of tags."""
    (folder / "tags.csv").write_bytes(text)
    (folder / "policy.yaml").write_text(POLICY.replace(SOURCE, f"        list: tags.csv{also}"))
    row = compile_policy(load(folder / "policy.yaml"), now_ns=time.time_ns()).conduits["history"].terms
    assert isinstance(row, MirrorRows)
    return row


def test_a_list_of_the_engineer_s(tmp_path: Path) -> None:
    row = listed(tmp_path, b"\xef\xbb\xbf" + LISTED.encode())
    assert isinstance(row.sources[0], Postgres) and row.sources[0].tags == ("tank_1", "flow_total")
    assert row.about == {"tank_1": About("m", "Level of tank 1"), "flow_total": About("m³")}
    both = listed(tmp_path, b"tag\npump_1\n", f"\n{SOURCE}")
    assert isinstance(both.sources[0], Postgres) and set(both.sources[0].tags) == {"tank_*", "flow_*", "pump_1"}
    policy = compile_policy(load(tmp_path / "policy.yaml"), now_ns=time.time_ns())
    scope = Scope(frozenset({"history"}), frozenset({"history"}))
    for part in ("collector", "spooler", "keeper"):
        assert not KINDS["mirror"].slice(policy, scope, part).conduits["history"].terms.about  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"name,unit\na,m\n", "no column `tag`"),
        (b"tag,unit\na,m\na,m\n", "row 3: a is there twice"),
        (b"tag\nflow_*\n", "row 2: a tag's name"),
        (b"tag\n\n", "no tags"),
        (b"tag,unit\na,\xff\n", "no UTF-8 from byte 11"),
        (b'tag,unit\n"a,m\n', "row"),
        (b"tag,description\na," + b"x" * 301 + b"\n", "at most 300 characters"),
    ],
)
def test_a_list_that_is_none(tmp_path: Path, text: bytes, says: str) -> None:
    with pytest.raises(PolicyError) as error:
        listed(tmp_path, text)
    assert any(says in str(problem) for problem in error.value.problems), "\n".join(map(str, error.value.problems))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("from: control", "from: enterprise", "a zone of the ot side"),
        ("sql: true", "sql: true, resolution: 1 min", "read: all, as it is"),
        ("read: all, sql", "read: [flow_*], sql", "read: all"),
        ("who: bi", "who: data-like", "did you mean data-lake"),
        ("        table: public.samples\n", "", "table, or query"),
        ("        database: plant\n", "", "database: NAME"),
        ("keep: 5 years", "store: postgresql", "postgresql: {at: ADDRESS:PORT, database: NAME}"),
        ("keep: 5 years", "postgresql: {at: '10.1.0.40:5432', database: h}", "store: postgresql"),
        ("keep: 5 years", "acks: none", "no strand carries it"),
        ("        table: public.samples", "        query: DELETE FROM x", "SELECT or WITH"),
        ('        at: "10.2.0.5:5432"', "        folder: in", "it belongs to a database"),
        (DATABASE, "{folder: lab, times: '%d.%m.%Y'}", "zone: Europe/Berlin"),
        (DATABASE, "{folder: lab, times: ms, zone: UTC}", "they say what they are"),
        (DATABASE, "{folder: lab, zone: Europe/Berlim}", "did you mean Europe/Berlin"),
        (DATABASE, "{folder: lab, decimal: ','}", "another delimiter"),
        (DATABASE, "{folder: lab, wide: true, of: tank_1}", "wide, or of"),
        (DATABASE, "{folder: lab, wide: true, quality: q}", "each column is a tag"),
        (DATABASE, "{folder: lab, form: parquet, decimal: ','}", "form: csv"),
        (DATABASE, "{folder: lab, every: 5 s, overlap: 1 min}", "a database (at)"),
        (DATABASE, "{folder: lab}\n      other: {folder: lab}", "a folder of its own"),
        (DATABASE, "{folder: lab, asset: plc}", "asset and folder together"),
        (DATABASE, "{folder: ../etc}", "a name of small letters"),
        (DATABASE, "{folder: lab, times: '%c'}", "a pattern such as"),
        ("quality: quality", "quality: value", "a column for each"),
        ("every: 5 s", "every: 5 ms", "100 ms"),
        ("quality: quality", "qualities: opc-da", "quality: COLUMN"),
        ("every: 5 s", "qualities: opc-da\n      lab: {folder: lab, tags: [tank*9, x]}", "same tags (tank*9)"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_words(old: str, new: str, says: str) -> None:
    text = POLICY.replace(old, f" {new}\n" if old is DATABASE else new, 1)
    assert text != POLICY
    with pytest.raises(PolicyError) as error:
        compiled(text)
    assert any(says in str(problem) for problem in error.value.problems), "\n".join(map(str, error.value.problems))


@pytest.mark.parametrize(
    ("tags", "told"),
    [
        (r"plant\..*", True), ("flow_[0-9]*", True), (".*flow", True), ("^flow_*", True), ("(flow|tank)_*", True),
        (r"flow_\d+", True), ("plant.*", False), ("[default]Tank/*", False), ("\\\\srv\\unit.pv", False),
        ("[line-a]*", False), ("flow_*", False),
    ],
)  # fmt: skip
def test_a_pattern_that_is_written_like_a_regular_expression_is_told(tags: str, told: bool) -> None:
    said = [one for one in lint(loads(POLICY.replace("flow_*", f"'{tags}'"))) if one.check == "tag-pattern"]
    assert len(said) == (2 if told else 0)  # of what is mirrored, and of what may be read


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("a*", "*b", True), ("a*b", "a*c", False), ("*", "x", True), ("a*b*", "*c*b", True), ("ab", "ab", True),
        ("a*", "b*", False), ("ab*", "a", False), ("a*a", "a", False), ("*a*", "**", True), ("a*bc", "ab*bc", True),
    ],
)  # fmt: skip
def test_patterns_that_may_mean_the_same_tag(one: str, other: str, both: bool) -> None:
    assert meet(one, other) == meet(other, one) == both


def test_the_api_is_described() -> None:
    paths = json.loads(api._OPENAPI)["paths"]
    words = {path.removeprefix("/v1/"): {one["name"] for one in found["get"]["parameters"]}
             for path, found in paths.items() if path.startswith("/v1/") and "get" in found}  # fmt: skip
    assert {name: words[name] for name in api._WORDS} == api._WORDS
    assert "/v1/sql" in paths
    for path in paths:
        assert path == "/v1" or path in api.__doc__ or path.removeprefix("/v1") in str(api.__doc__)


@pytest.mark.parametrize(
    ("source", "tag", "allowed", "says"),
    [
        ("10.1.0.30", "flow_total", True, "history/0"),
        ("10.1.0.30", "tank_level", False, "data-lake may"),
        ("10.1.0.31", "tank_level", True, "history/1"),
        ("10.9.9.9", "flow_total", False, "no principal"),
    ],
)
def test_explain_says_who_may_read_what(source: str, tag: str, allowed: bool, says: str) -> None:
    found = KINDS["mirror"].explain(compiled(), Question(source, {"tag": tag}, time.time_ns()))
    assert found.allowed is allowed
    assert says in found.sentence + found.rule
    if "0.30" in source and allowed:
        assert found.conditions == ("nothing finer than aggregates over 60 s",)


@pytest.mark.parametrize("text", ["1764000000", "1764000000000", "1764000000000000"])
def test_seconds_and_milliseconds_are_not_taken_for_nanoseconds(text: str) -> None:
    """Of a client that reckons in them, which got nothing of 1970."""
    with pytest.raises(Refusal, match="19 digits"):
        forms.moment(text, 0)
    assert forms.moment(text.ljust(19, "0"), 0) == 1_764_000_000 * 10**9


def test_a_negative_number_is_no_formula_and_what_begins_like_one_may_be() -> None:
    """Whole numbers beyond 2^53, and SQL's decimals, are texts before they are cells."""
    texts = ["-9007199254740993", "-1.50", "-1+1", "-5,3", "=A1", "@x", "-"]
    lines = b"".join(forms.csv_pieces(("value",), [{"value": text} for text in texts])).decode().splitlines()
    assert lines == ["value", "-9007199254740993", "-1.50", "'-1+1", '"\'-5,3"', "'=A1", "'@x", "'-"]


def test_a_plus_that_came_as_a_space_is_told() -> None:
    with pytest.raises(Refusal, match="%2B"):
        forms.moment("2027-03-01T12:00:00 01:00", 0)
    assert forms.moment("2027-03-01 12:00:00+01:00", 0) == forms.moment("2027-03-01T11:00:00Z", 0)
    with pytest.raises(Refusal, match=r"-24h are$"):
        forms.moment("yesterday", 0)
