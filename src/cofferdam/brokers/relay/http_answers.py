"""What the HTTP API answers: JSON, NDJSON, and problems as RFC 9457 has them.

A problem's `type` ends with one stable word, `detail` is for people; `pointer`, `line` and `column` say where in the
message, where it was the message. The words are those that quarantine keeps.

Not here: when which is answered (http_api).
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from cofferdam.brokers.relay.http_protocol import Answer
from cofferdam.brokers.relay.records import Handed, Result
from cofferdam.policy.messages.checked import Problem
from cofferdam.policy.terms.relay_rows import Channel

TYPE: Final = "urn:cofferdam:relay:"
TITLES: Final = {
    "key": "Not known here",
    "not-found": "There is no such thing here for you",
    "method": "Not with this method",
    "request": "The request is not understood",
    "media": "Not in this form",
    "conflict": "Another message has this id",
    "syntax": "The message cannot be read",
    "schema": "The message is not as the channel's schema has it",
    "fields": "The message has what the channel does not let through",
    "limit": "A value is not within the channel's limits",
    "step": "A value is too far from the last one",
    "rate": "Too many within a minute",
    "stamp": "The message's time is not right",
    "size": "Too large",
    "policy": "Not allowed",
    "window": "Not at this time",
    "room": "The channel is full",
    "busy": "Busy",
    "lease": "Not leased to you",
}
STATUS: Final = {
    "key": 401, "not-found": 404, "method": 405, "request": 400, "media": 415, "conflict": 409, "size": 413,
    "policy": 403, "window": 403, "lease": 409,
    "room": 503, "busy": 503, "severed": 503, "paused": 503, "stopped": 503, "log": 503, "store": 503,
}  # fmt: skip
"""Whatever is not here is a fault of the message: 422."""
RETRY_SECONDS: Final = 1
_encode = msgspec.json.Encoder().encode


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


def status_of(problem: Problem) -> int:
    """The HTTP status that says what a problem says."""
    return STATUS.get(problem.fault, 422)


def shown(problem: Problem, **more: Any) -> dict[str, Any]:
    """A problem's members."""
    found: dict[str, Any] = {
        "type": TYPE + problem.fault,
        "title": TITLES.get(problem.fault, "Not now" if status_of(problem) == 503 else "The message is refused"),
        "status": status_of(problem),
        "detail": problem.detail,
    }
    if status_of(problem) == 422:
        found["pointer"] = problem.place
        if problem.line:
            found |= {"line": problem.line, "column": problem.column}
    return found | more


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """JSON."""
    return Answer(status, _encode(value), headers=headers or {})


def problem(members: dict[str, Any], headers: Mapping[str, str] | None = None) -> Answer:
    """A problem with these members."""
    return Answer(members["status"], _encode(members), "application/problem+json", headers or {})


def refused(error: Refusal) -> Answer:
    """A problem."""
    headers = dict(error.headers)
    if error.retry:
        headers["retry-after"] = str(error.retry)
    if status_of(error.problem) == 401:
        headers["www-authenticate"] = "Bearer"
    return problem(shown(error.problem, **error.more), headers)


def lines(values: list[dict[str, Any]]) -> Answer:
    """NDJSON: a line for each line that came."""
    return Answer(200, b"".join(_encode(value) + b"\n" for value in values), "application/x-ndjson")


def result(found: Result, key: str, problem: Problem | None) -> dict[str, Any]:
    """What became of one message. `problem` is the one to tell of, with its place in what was sent."""
    if found.state == "stored":
        said = {"id": key, "status": 200 if found.again else 201, "number": found.number}
        return said | ({"sha256": found.sha256.hex()} if found.sha256 else {})
    if found.state == "conflict":
        known = {"sha256": found.sha256.hex(), "stored_sha256": found.other.hex()}
        return {"id": key, **shown(Problem("conflict", "the id is taken by a message of other content"), **known)}
    told = problem or found.problem or Problem("policy", "refused")
    more: dict[str, Any] = {"quarantine": found.number} if found.state == "quarantined" else {}
    if found.retry:
        more["retry_after"] = found.retry
    return {"id": key, **shown(told, **more)}


def handed(found: Handed, channel: Channel) -> Answer:
    """Messages that were leased or browsed. One that is XML stands as a text."""
    as_text = channel.form == "xml"
    messages = [
        {
            "number": message.number,
            "id": message.key,
            "from": message.who,
            "sha256": message.sha256.hex(),
            "at": time_of(message.at),
            **({"count": message.count} if found.lease else {}),
            "data": message.body.decode() if as_text else msgspec.Raw(message.body),
        }
        for message in found.messages
    ]
    lease = {"lease": str(found.lease), "seconds": found.seconds} if found.lease else {}
    return answer({"channel": channel.name, **lease, "upto": found.upto, "messages": messages})


def time_of(ns: int) -> str:
    """UTC ns as RFC 3339 has them, to the nanosecond."""
    moment = datetime.datetime.fromtimestamp(ns // 1_000_000_000, datetime.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ns % 1_000_000_000:09d}Z"
