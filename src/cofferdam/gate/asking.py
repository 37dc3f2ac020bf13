"""An operator's questions to parts: one answer of each crew that is asked.

Not here: who may ask (commands), one part's answer (crew).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from cofferdam.errors import GateError
from cofferdam.gate.crew.crew import Crew

ASK_SECONDS = 10.0
"""For a part to answer an operator."""
UNHEARD = " (login unknown)"
"""Behind the user of whom the launcher did not say in time who logged in: they may be who asked for the grant that they
agree to, or who approves the release that they ask for."""


def told_apart(by: str) -> None:
    """Raises: GateError: of who asks it is not known who they are among those who may ask as this user."""
    if by.endswith(UNHEARD):
        raise GateError("the launcher is too busy to say whose login this is", hint="ask again in a moment")


async def ask_parts(
    crews: Mapping[str, Crew], broker: str, part: str, verb: str, arguments: dict[str, Any], crew: str, by: str
) -> list[dict[str, Any]]:
    """Asks this part of a crew of a broker, or of all its crews (crew ""): one answer for each, with `result`, or
    `error` and `hint`. `by` is set in the arguments: who asks, as the kernel knows them.

    Raises:
        GateError: no such crew runs, or every one of them says no.
    """
    asked = [one for one in crews.values() if one.plan.broker == broker and crew in ("", one.name)]
    if not asked:
        running = ", ".join(sorted(name for name, one in crews.items() if one.plan.broker == broker))
        what = f"crew {crew!r} of the broker {broker}" if crew else f"crew of the broker {broker}"
        raise GateError(f"no {what} runs here", hint=f"there is {running}" if running else "the policy needs none")
    said = [_vouched(one, part, verb, {**arguments, "by": by}) for one in asked]
    answers = await asyncio.gather(
        *(one.ask(part, verb, data, ASK_SECONDS) for one, data in zip(asked, said, strict=True)), return_exceptions=True
    )
    found: list[dict[str, Any]] = []
    refused: list[GateError] = []
    for one, answer in zip(asked, answers, strict=True):
        if isinstance(answer, GateError):
            refused.append(answer)
            found.append({"crew": one.name, "error": str(answer), "hint": answer.hint})
        elif isinstance(answer, BaseException):
            raise answer
        else:
            found.append({"crew": one.name, "result": answer})
    if len(refused) == len(asked):
        raise refused[0]
    return found


def _vouched(crew: Crew, part: str, verb: str, arguments: dict[str, Any]) -> bytes:
    """The arguments, with the gate's word for who asks in the place of what they claim, where the broker wants it.

    Raises: GateError."""
    if (part, verb) in crew.broker.vouched:
        told_apart(arguments["by"])
        arguments["vouch"] = crew.vouch(verb, arguments["by"], arguments.pop("claim", None))
    return msgspec.json.encode(arguments)
