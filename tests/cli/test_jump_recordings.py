"""What is searched in recordings."""

from __future__ import annotations

import json

from cofferdam.cli.jump_recordings import LINE_SHARED, _seen


def test_a_line_without_an_end_is_read_once() -> None:
    """Of what somebody has written so that a search never ends; a word in two pieces is found."""
    pieces = ["a" * 15_990 + "nee", "dle" + "b" * 16_000] * 20
    head = json.dumps({"width": 80, "height": 24, "env": {"TERM": ""}})
    events = [head, *(json.dumps([0, "o", one]) for one in pieces)]
    lines = [line for _, line in _seen("\n".join([*events, ""]).encode())]
    assert sum(line.count("needle") for line in lines) >= 20
    assert sum(map(len, lines)) <= sum(map(len, pieces)) + len(lines) * LINE_SHARED
