"""`cofferdam ping`: one read of an asset that the policy allows somebody anyway, by the half's own connection.

What may be read is decided here as for any client, by a rule that is open now; nobody hears the value, only that an
answer came and how long it took. It takes its place in the line like every other request, and is sent once.

Not here: who may ask and the entry in the log (the gate, before it asks).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from cofferdam.brokers.broker import Asked
from cofferdam.brokers.proxy.connection import Job
from cofferdam.brokers.proxy.sessions import Served
from cofferdam.errors import CofferdamError, GateError, LocalProtocolError
from cofferdam.model import Allow, Item, Span
from cofferdam.policy.points.decide import Flow
from cofferdam.policy.table import CompiledPolicy
from cofferdam.protocols.base import Protocol

PING: Final = "proxy:ping"
ANY_UNIT: Final = 1
"""Which unit is asked where an asset answers as all of them."""


class Ping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The arguments of PING. `by`: who asks."""

    asset: str
    by: str = ""


def ping(
    asked: Asked,
    served: dict[str, Served],
    policy: CompiledPolicy,
    protocol: Protocol[Any, Any],
    wall: int,
    clock: Callable[[], int],
) -> None:
    """Answers once the asset has, or its time is over: `answered`, `what` was read by which `rule`, `state` and
    `detail` of the device, `ms` that it took, `waited_ms` for a place.

    Raises:
        GateError: this half does not serve the asset.
    """
    name = asked.decode(Ping).asset
    one = served.get(name)
    if one is None:
        raise GateError(f"{name} is not served here")
    found = _readable(policy, protocol, one, wall)
    if found is None:
        detail = "no conduit lets anybody read it now, so nothing was asked"
        asked.answer(
            {"answered": False, "asked": False, "what": "", "state": one.device.state(one.asset.unit), "detail": detail}
        )
        return
    request, verdict, what = found

    def done(job: Job) -> None:
        answer: dict[str, Any] = {
            "asked": bool(job.sent), "what": what, "rule": verdict.rule, "answered": job.response is not None,
            "state": one.device.state(one.asset.unit), "detail": job.detail or one.device.detail,
            "ms": round((job.finished - job.sent) / 1e6, 3) if job.sent else 0.0,
            "waited_ms": round(max(0, (job.sent or job.finished) - job.arrived) / 1e6, 3),
        }  # fmt: skip
        if job.response is not None and protocol.is_error(job.response):
            answer["detail"] = f"it answers with its error {protocol.error_code(job.response)}"
        asked.answer(answer)

    job = Job(verdict, request, "", 0, clock(), one.timeout_ns, done)
    job.unit = one.asset.unit
    one.device.submit(job)


def keep_alive(served: Served, policy: CompiledPolicy, protocol: Protocol[Any, Any], wall: int, now: int) -> None:
    """Asks the same of an asset whose connection nobody has used for as long as it may lie, if anybody may."""
    if served.device.unused_ns(now) < served.asset.manners.keep_alive_ms * 1_000_000:
        return
    found = _readable(policy, protocol, served, wall)
    if found is None:
        return
    request, verdict, _ = found
    job = Job(verdict, request, "", 0, now, served.timeout_ns, _nothing)
    job.unit = served.asset.unit
    served.device.submit(job)


def _nothing(job: Job) -> None:
    """Whoever keeps a connection in use wants to know nothing."""


def _readable(
    policy: CompiledPolicy, protocol: Protocol[Any, Any], served: Served, wall: int
) -> tuple[Any, Allow, str] | None:
    """The first read that a rule allows now: the message, the verdict, and what it reads."""
    asset = served.asset
    unit = asset.unit if asset.unit >= 0 or protocol.dialect.units is None else ANY_UNIT
    for conduit in policy.conduits.values():
        for rule in conduit.rules:
            flow = policy.flow_of(conduit.broker, rule.who, asset.name) if rule.asset == asset.name else None
            if not isinstance(flow, Flow):
                continue
            for place, what in _places(rule.reads):
                try:
                    request = protocol.read_request(unit, place)
                    verdict = flow.decide(protocol.operation(request), wall)
                except (LocalProtocolError, CofferdamError):
                    continue
                if isinstance(verdict, Allow):
                    return request, verdict, what
    return None


def _places(pieces: Any) -> Iterator[tuple[Span | Item, str]]:
    for piece in pieces:
        if piece.prefix:
            continue
        place = piece.at
        if isinstance(place, Span) and not piece.point:
            place = Span(place.space, place.start, 1)
        yield place, piece.point or (f"{place.space} {place.start}" if isinstance(place, Span) else str(place))
