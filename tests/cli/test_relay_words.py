"""What `cofferdam relay` prints of a stranger's words, and what it says where not every relay answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cofferdam.cli.main import main
from cofferdam.errors import GateError

EVIL = "\x1b]0;owned\x07\u202e\x9b2J\x7f\r\nforged"
ROW = {
    "row": 1, "channel": "counts", "key": EVIL, "who": "mes", "size": 3, "at": 0, "fault": "schema", "place": EVIL,
    "line": 1, "column": 1, "detail": EVIL, "editors": [EVIL], "approved": EVIL, "sha256": "00",
}  # fmt: skip
ANSWERS: dict[str, Any] = {
    "status": {"store": "s", "free": 1 << 30, "full": "", "channels": []},
    "list": [{"number": 1, "at": 0, "size": 3, "who": "mes", "key": EVIL}],
    "show": {
        "channel": "counts", "number": 1, "key": EVIL, "who": "mes", "at": 0, "size": 3, "sha256": "00",
        "consumers": {"erp": EVIL}, "body": EVIL, "whole": True,
    },
    "dead": [{"number": 1, "at": 0, "tries": 3, "reason": EVIL}],
    "held": [ROW],
    "held-show": {**ROW, "body": EVIL, "diff": [EVIL]},
}  # fmt: skip
VERBS = (
    ("list", "counts", "--most", "1"),
    ("show", "counts", "1", "--body"),
    ("dead", "counts", "erp"),
    ("quarantine", "list"),
    ("quarantine", "show", "1", "--body"),
)


@pytest.fixture
def keeper(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Crew -> its keeper's answers by verb; what a crew says in the gate's place."""
    crews: dict[str, Any] = {"relay": ANSWERS}

    def ask(
        state: Any, command: str, *, part: str, verb: str, crew: str, arguments: dict[str, Any], **more: Any
    ) -> Any:
        found: list[dict[str, Any]] = []
        for name, answers in crews.items():
            if crew not in ("", name):
                continue
            if part != "keeper":  # no strand carries any of them
                found.append({"crew": name, "error": f"{name}/{part} does not run now", "hint": "look there"})
                continue
            if isinstance(answers, str):
                found.append({"crew": name, "error": answers, "hint": "look there"})
                continue
            said = answers[verb]
            if verb in ("held", "dead"):
                after = arguments.get("after", 0)
                said = [row for row in said if row.get("row", row.get("number")) > after][: arguments["most"]]
            found.append({"crew": name, "result": said})
        if all("error" in each for each in found):
            raise GateError(found[0]["error"], hint=found[0]["hint"])
        return found

    monkeypatch.setattr("cofferdam.gate.client.ask", ask)
    return crews


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_no_word_of_a_stranger_drives_the_terminal(
    keeper: dict[str, Any], capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert main(["relay", *words]) == 0
    said = capsys.readouterr().out
    assert "\\x1b]0;owned\\x07\\u202e\\x9b2J\\x7f" in said
    assert all(letter.isprintable() or letter == "\n" for letter in said)
    if "--body" not in words:
        assert said.count("\n") == 1, said


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_json_has_such_words_as_escapes(
    keeper: dict[str, Any], capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert main(["relay", *words, "--json"]) == 0
    said = capsys.readouterr().out
    assert all(" " <= letter <= "~" for letter in said.rstrip("\n"))
    assert json.dumps(EVIL)[1:-1] in said


def test_an_error_that_quotes_a_stranger_is_escaped(
    keeper: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*_: Any, **__: Any) -> Any:
        raise GateError("mes's key \x1b]0;owned\x07", hint="\u202ehint")

    monkeypatch.setattr("cofferdam.gate.client.ask", ask)
    assert main(["relay", "list", "counts"]) == 2
    said = capsys.readouterr().err
    assert "\\x1b]0;owned\\x07" in said
    assert "\\u202ehint" in said
    assert "\x1b" not in said


def test_a_quarantine_that_cannot_be_listed_is_said(keeper: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    keeper["other"] = "it does not answer"
    assert main(["relay", "quarantine", "list"]) == 2
    said = capsys.readouterr()
    assert "counts" in said.out
    assert "other: it does not answer" in said.err
    keeper["relay"] = dict(ANSWERS, held=[])
    assert main(["relay", "quarantine", "list"]) == 2
    assert "nothing is in quarantine" not in capsys.readouterr().out
    keeper["other"] = "there is no channel 'counts'"
    assert main(["relay", "quarantine", "list", "counts"]) == 0


def test_a_long_quarantine_is_listed_whole(keeper: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    keeper["relay"] = dict(ANSWERS, held=[{**ROW, "row": number} for number in range(1, 2502)])
    assert main(["relay", "quarantine", "list"]) == 0
    assert capsys.readouterr().out.count("\n") == 2501


def test_many_dead_messages_are_listed_whole(keeper: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    dead = [{"number": number, "at": 0, "tries": 3, "reason": "no"} for number in range(1, 2502)]
    keeper["relay"] = dict(ANSWERS, dead=dead)
    assert main(["relay", "dead", "counts", "erp"]) == 0
    assert capsys.readouterr().out.count("\n") == 2501
