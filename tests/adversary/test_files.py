"""No file that an operator names ends the gate or keeps it: it gets an answer, and nothing that runs has changed."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.errors import CofferdamError, PolicyError
from cofferdam.gate.client import ask
from cofferdam.gate.loading import handed_over, load_policy, taken
from cofferdam.policy.load import load, loads
from cofferdam.policy.problems import Problem
from cofferdam.policy.yamltext import parse
from tests.gate.conftest import Site
from tests.gate.conftest import calm as calm
from tests.gate.plant import Client, events

MERGE = "site: riverside\nzones: {control: {side: ot}}\nassets: {plc: {points: {p: {'<<': {max: 9}, max: 100}}}}\n"


def odd(folder: Path, what: str) -> Path:
    path = folder / f"{what}.yaml"
    if what == "fifo":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    elif what == "folder":
        path.mkdir()
    elif what == "merge":
        path.write_text(MERGE)
    elif what == "keys":
        path.write_text("{" + ",".join(f"k{n}: {n}" for n in range(50_000)) + "}")
    elif what == "bytes":
        path.write_bytes(b"\xff\xfe\0")
    return path


@pytest.mark.parametrize("what", ["fifo", "device", "folder", "merge", "keys", "bytes", "missing"])
def test_a_reload_of_anything_is_answered_and_changes_nothing(calm: Site, tmp_path: Path, what: str) -> None:
    with Client(calm.port) as client:
        before = calm.up.status()["policy"]
        with pytest.raises(CofferdamError) as caught:
            ask(calm.state, "reload", path=str(odd(tmp_path, what)))
        if what == "keys":  # each was compared with all others: a minute, and three for the command that reloads
            assert isinstance(caught.value, PolicyError) and len(caught.value.problems) > 50_000
        after = calm.up.status()
        assert after["policy"] == before
        assert client.read()[0] == 3


@pytest.mark.parametrize("there", [True, False])
def test_a_policy_whose_name_is_no_text_is_told_as_that(calm: Site, tmp_path: Path, there: bool) -> None:
    """`reload` ended in a traceback, and the gate's own loading in none that said so."""
    path = tmp_path / os.fsdecode(b"\xff.yaml")
    if there:
        path.write_text(calm.policy.read_text())
    with pytest.raises(PolicyError, match=r"\\udcff.* is not UTF-8"):
        taken(handed_over(path), "")
    with pytest.raises(PolicyError, match=r"\\udcff.* is not UTF-8"):
        asyncio.run(load_policy(path))


def test_what_was_refused_and_what_was_loaded_are_on_record(calm: Site, tmp_path: Path) -> None:
    with pytest.raises(PolicyError):
        ask(calm.state, "reload", path=str(odd(tmp_path, "merge")))
    assert any("merge.yaml" in event["problem"] for event in events(calm.state, "policy-refused"))
    [loaded] = events(calm.state, "policy-loaded")
    digest = hashlib.sha256(calm.policy.read_bytes()).hexdigest()
    assert loaded["files"] == [f"{calm.policy} sha256:{digest}"]


def test_a_policy_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "slow.yaml"
    path.write_text(MERGE)
    with pytest.raises(PolicyError, match="not loaded after"):
        asyncio.run(load_policy(path, 0.001))


def test_a_quoted_merge_key_is_a_name_like_any_other() -> None:
    with pytest.raises(PolicyError) as caught:
        loads(MERGE)
    assert any("<<" in str(problem) for problem in caught.value.problems)


def test_the_overlay_record_beside_a_policy_can_say_nothing_else(tmp_path: Path) -> None:
    policy = tmp_path / "site.yaml"
    policy.write_text("site: s\nzones: {a: {side: it}}\n")
    assert list(load(policy).sources) == [str(policy)]
    record = tmp_path / "site.overlay.yaml"
    record.write_text("zones: {b: {side: ot}}\noverlay: {prefix: 100.64.0.0/16}\n")
    with pytest.raises(PolicyError) as caught:
        load(policy)
    wrong = [problem for problem in caught.value.problems if isinstance(problem, Problem)]
    assert [problem.check for problem in wrong if problem.file == str(record)][:2] == ["overlay-record"] * 2


PIECES = "<< '<<' &a *a &b *b x y ~ [ ] { } : , - ?"
_words = st.sampled_from([*PIECES.split(), "\n", "  "])


@given(st.lists(_words, max_size=40).map(" ".join))
def test_text_of_any_kind_is_a_tree_or_a_problem(text: str) -> None:
    problems: list[Problem] = []
    root = parse(text, "p.yaml", problems)
    assert root is None or root.plain() is not Ellipsis
