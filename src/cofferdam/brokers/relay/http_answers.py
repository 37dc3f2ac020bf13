"""What the relay's HTTP API answers: what became of messages, messages that were handed out, and its problems.

The words of problems are those that quarantine keeps. Not here: when which is answered (http_api).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from cofferdam.brokers.kit.http.messages import Answer
from cofferdam.brokers.kit.http.problems import Problems, answer, time_of
from cofferdam.brokers.relay.records import Handed, Result
from cofferdam.policy.messages.checked import Problem
from cofferdam.policy.terms.relay_rows import Channel

PROBLEMS: Final = Problems(
    "urn:cofferdam:relay:",
    {
        "conflict": "Another message has this id",
        "syntax": "The message cannot be read",
        "schema": "The message is not as the channel's schema has it",
        "fields": "The message has what the channel does not let through",
        "limit": "A value is not within the channel's limits",
        "step": "A value is too far from the last one",
        "rate": "Too many within a minute",
        "stamp": "The message's time is not right",
        "room": "The channel is full",
        "lease": "Not leased to you",
    },
    {"conflict": 409, "lease": 409},
    "The message is refused",
)
shown = PROBLEMS.shown


def result(found: Result, key: str, problem: Problem | None) -> dict[str, Any]:
    """What became of one message. `problem` is the one to tell of, with its place in what was sent."""
    if found.state == "stored":
        status = 200 if found.again else 201
        if not found.sha256:
            return {"id": key, "status": status, "number": found.number}
        return {"id": key, "status": status, "number": found.number, "sha256": found.sha256.hex()}
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
    body_of: Callable[[bytes], Any] = bytes.decode if channel.form == "xml" else msgspec.Raw
    messages = [
        {
            "number": message.number, "id": message.key, "from": message.who, "sha256": message.sha256.hex(),
            "at": time_of(message.at), "count": message.count, "data": body_of(message.body),
        }
        for message in found.messages
    ]  # fmt: skip
    if not found.lease:
        for each in messages:
            del each["count"]
    lease = {"lease": str(found.lease), "seconds": found.seconds} if found.lease else {}
    missing = {"missing": found.missing} if found.missing else {}
    return answer({"channel": channel.name, **lease, "upto": found.upto, **missing, "messages": messages})
