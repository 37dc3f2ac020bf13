"""What an HTTP API answers: JSON, lines of JSON, and problems as RFC 9457 has them.

A problem's `type` ends with one stable word, its fault; `detail` is for people; `pointer`, `line` and `column` say
where in the body, where it was the body.

Not here: when which is answered (each broker's API).
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from cofferdam.brokers.kit.http.messages import Answer
from cofferdam.policy.messages.checked import Problem

TITLES: Final = {
    "key": "Not known here",
    "not-found": "There is no such thing here for you",
    "method": "Not with this method",
    "request": "The request is not understood",
    "media": "Not in this form",
    "size": "Too large",
    "policy": "Not allowed",
    "window": "Not at this time",
    "busy": "Busy",
}
STATUS: Final = {
    "key": 401, "not-found": 404, "method": 405, "request": 400, "media": 415, "size": 413, "policy": 403,
    "window": 403, "room": 503, "busy": 503, "severed": 503, "paused": 503, "stopped": 503, "log": 503, "store": 503,
}  # fmt: skip
"""Faults that any API may have. Whatever has no status is a fault of the body: 422."""
_encoder = msgspec.json.Encoder()
_encode = _encoder.encode


class Refusal(Exception):
    """The request is answered with a problem. `more` are further members of it."""

    def __init__(
        self, problem: Problem, *, retry: int = 0, headers: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(problem.detail)
        self.problem = problem
        self.retry = retry
        self.headers = dict(headers or {})
        self.more = more


def refusal(fault: str, detail: str, **how: Any) -> Refusal:
    """One without a place."""
    return Refusal(Problem(fault, detail), **how)


class Problems:
    """The problems of one broker: `kind` begins their types, `titles` and `status` are those that only it has."""

    def __init__(
        self,
        kind: str,
        titles: Mapping[str, str] | None = None,
        status: Mapping[str, int] | None = None,
        otherwise: str = "The request is refused",
    ) -> None:
        self.kind = kind
        self._titles = {**TITLES, **(titles or {})}
        self._status = {**STATUS, **(status or {})}
        self._otherwise = otherwise

    def status(self, problem: Problem) -> int:
        """The HTTP status that says what a problem says."""
        return self._status.get(problem.fault, 422)

    def shown(self, problem: Problem, **more: Any) -> dict[str, Any]:
        """A problem's members."""
        status = self.status(problem)
        found: dict[str, Any] = {
            "type": self.kind + problem.fault,
            "title": self._titles.get(problem.fault, "Not now" if status == 503 else self._otherwise),
            "status": status,
            "detail": problem.detail,
        }
        if status == 422:
            found["pointer"] = problem.place
            if problem.line:
                found |= {"line": problem.line, "column": problem.column}
        return found | more

    def refused(self, error: Refusal) -> Answer:
        """A problem, as an answer."""
        headers = dict(error.headers)
        if error.retry:
            headers["retry-after"] = str(error.retry)
        if self.status(error.problem) == 401:
            headers["www-authenticate"] = "Bearer"
        return problem(self.shown(error.problem, **error.more), headers)


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """JSON."""
    return Answer(status, _encode(value), headers=headers or {})


def problem(members: dict[str, Any], headers: Mapping[str, str] | None = None) -> Answer:
    """A problem with these members."""
    return Answer(members["status"], _encode(members), "application/problem+json", headers or {})


def lines(values: list[dict[str, Any]]) -> Answer:
    """NDJSON: a line for each value."""
    return Answer(200, _encoder.encode_lines(values), "application/x-ndjson")


@functools.lru_cache(maxsize=64)
def time_of(ns: int) -> str:
    """UTC ns as RFC 3339 has them, to the nanosecond. (What was pushed together has one time.)"""
    return f"{_second(ns // 1_000_000_000)}.{ns % 1_000_000_000:09d}Z"


@functools.lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    """Many values of one answer are of the same second, and to write one costs more than the rest of a message."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat()[:19]
