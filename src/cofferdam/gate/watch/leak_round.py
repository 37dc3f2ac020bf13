"""One round of the leak probe: a crew is born for it, asks, answers, and is ended.

Not here: when (leaks), the asking (proof.leak_part).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from cofferdam.crossing.link import Link
from cofferdam.enforce.orders import PartOrder, Place
from cofferdam.enforce.plans.network import network_plan
from cofferdam.errors import CrossingError, GateError
from cofferdam.gate.context import Context
from cofferdam.gate.crew.hearing import Bounded
from cofferdam.proof import leaking
from cofferdam.proof.leak_records import ASK_ROUND, ROUND_DONE, AskRound, RoundDone
from cofferdam.proof.statements import Statements

ROUND_SECONDS = 60.0
"""Two seconds of waiting by each interface, and the sending; one that takes longer hangs."""
Round = Callable[[Context], Coroutine[Any, Any, tuple[list[str], dict[str, str]]]]


async def one_round(gate: Context) -> tuple[list[str], dict[str, str]]:
    """Tries each asset's real address from the IT side: the assets that were tried, and those that leak, with how.

    Raises:
        GateError: it could not be asked, with why.
    """
    policy = gate.policy
    plan = network_plan(policy)
    targets = leaking.targets(plan)
    zone = next((link.zone for link in plan.side("it").links), "")
    if not zone:
        return [], {}  # a machine without an IT side: nobody could come round the gate from there
    (born,) = await gate.launcher.spawn("leaks", "leaks", [PartOrder("probe", Place("it", zone))])
    done: asyncio.Future[RoundDone] = asyncio.get_running_loop().create_future()

    def on_closed(error: CrossingError | None) -> None:
        if error is not None and not done.done():
            done.set_exception(GateError(f"the leak probe says what is no answer: {error}"))

    link: Link[AskRound, RoundDone] = Link(
        gate.reactor,
        born.read_fd,
        born.write_fd,
        Bounded(ROUND_DONE),
        ASK_ROUND,
        lambda record: None if done.done() else done.set_result(record),
        on_closed,
    )
    link.send(AskRound(tuple(targets)))
    try:
        either: set[asyncio.Future[Any]] = {done, born.ended}
        await asyncio.wait(either, timeout=ROUND_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        link.drain()
        if not done.done():
            how = f"ended ({born.ended.result()})" if born.ended.done() else f"said nothing for {ROUND_SECONDS:.0f} s"
            raise GateError(f"the leak probe's process {how}", hint="its messages stand on stderr")
        found = done.result()
    finally:
        done.cancel()
        gate.launcher.kill(born)
        link.close()
    out = Statements()
    leaking.judge({"answers": found.answers, "asked": found.asked}, targets, out)
    tried, leaks = leaking.verdicts(out, leaking.named(policy))
    return tried, dict(leaks)
