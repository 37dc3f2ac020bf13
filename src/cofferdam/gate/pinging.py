"""`cofferdam ping`: does an asset answer, and which half takes how long?

Whoever may use the control socket may ask. The entry is on disk before anything leaves; what is read is chosen and
judged by the inner half (brokers.proxy.pinging), and its value comes back to nobody. One at a time, and no asset more
often than once a second: an operator's script is no load for a device.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec

from cofferdam.audit.events.base import clip
from cofferdam.audit.events.gate import AssetPinged
from cofferdam.brokers.kit.supervision import HOUSE_SESSIONS
from cofferdam.brokers.proxy.pinging import PING
from cofferdam.errors import GateError
from cofferdam.gate.asking import ASK_SECONDS
from cofferdam.gate.audit import now_ns
from cofferdam.gate.crew.crew import Crew
from cofferdam.gate.gate import Gate
from cofferdam.gate.sides import RECORD_SECONDS
from cofferdam.policy.problems import nearest

PAUSE_SECONDS = 1.0
"""From one question to an asset to the next."""
_asked: dict[str, float] = {}


async def ping_asset(gate: Gate, asset: str, by: str) -> dict[str, Any]:
    """What each half says, in ms, and what the device does.

    Raises:
        GateError: there is no such asset, nothing serves it, a side is severed, or it was asked a moment ago.
    """
    known = gate.policy.assets
    if asset not in known:
        near = nearest(asset, known)
        raise GateError(
            f"the policy has no asset {asset}",
            hint=f"did you mean {near}?" if near else f"it has {', '.join(sorted(known)[:10]) or 'none'}",
        )
    serving = (one for one in gate.crews.values() if asset in one.plan.asset_names)
    crew = next((one for one in serving if one.plan.broker == known[asset].protocol and _asks(one)), None)
    if crew is None:
        raise GateError(f"no crew of this gate asks {asset} questions", hint="cofferdam describe says who serves it")
    if gate.severed:
        raise GateError(f"the {gate.severed[0]} side is severed: nothing is asked", hint="cofferdam status says why")
    now = time.monotonic()
    if now - _asked.get(asset, -PAUSE_SECONDS) < PAUSE_SECONDS:
        raise GateError(f"{asset} was asked less than a second ago", hint="wait, and ask again")
    for name in [name for name, at in _asked.items() if now - at >= PAUSE_SECONDS]:
        del _asked[name]
    _asked[asset] = now
    outer_ms = await _round_trip(crew)
    entry = AssetPinged(asset=clip(asset, 128), by=clip(by, 128), wall_ns=now_ns())
    if not await gate.audit.record(entry, RECORD_SECONDS):
        raise GateError(f"it cannot be recorded ({gate.audit.reason}), so nothing was asked", hint="cofferdam status")
    begun = time.monotonic()
    told = await crew.ask("inner", PING, msgspec.json.encode({"asset": asset, "by": by}), ASK_SECONDS)
    took = (time.monotonic() - begun) * 1000
    if not isinstance(told, dict):
        raise GateError(f"{crew.name}/inner answers with what is no answer")
    device_ms, waited_ms = (float(told.get(key, 0.0)) for key in ("ms", "waited_ms"))
    place = known[asset]
    return {
        "asset": asset, "crew": crew.name, "address": place.address, "port": place.port,
        "clients_at": [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in place.places],
        "outer_ms": round(outer_ms, 3), "inner_ms": round(max(0.0, took - device_ms - waited_ms), 3),
        "device_ms": device_ms, "waited_ms": waited_ms, "asked": bool(told.get("asked")),
        "answered": bool(told.get("answered")), "what": str(told.get("what", ""))[:256],
        "rule": str(told.get("rule", ""))[:256], "state": str(told.get("state", ""))[:64],
        "detail": str(told.get("detail", ""))[:1024],
    }  # fmt: skip


def _asks(crew: Crew) -> bool:
    """Whether its inner half speaks with assets, as those of proxies do."""
    asked = any(share.reaches or share.spots.get("inner") for share in crew.plan.shares)
    return asked and "inner" in crew.plan.parts


async def _round_trip(crew: Crew) -> float:
    """How long the outer half takes to answer the gate (ms). Raises: GateError, if it does not."""
    begun = time.monotonic()
    await crew.ask("outer", HOUSE_SESSIONS, b"{}", ASK_SECONDS)
    return (time.monotonic() - begun) * 1000
