"""What the proxies of request and answer declare: two halves, and a pipe each way."""

from __future__ import annotations

from cofferdam.audit.entry import kinds
from cofferdam.audit.events import access, gate
from cofferdam.brokers.broker import Broker
from cofferdam.enforce.profile import Can, Crew, Profile


def proxy(word: str) -> Broker:
    """The broker that speaks the protocol of this name (protocols.registry)."""
    return Broker(
        name=word,
        crew=Crew(
            kind=word,
            parts={
                "outer": Profile(
                    f"{word}/outer",
                    stands="outer",
                    can=Can.ACCEPT,
                    compiled=True,
                    says=kinds((*access.OUTER, *gate.PART)),
                ),
                "inner": Profile(
                    f"{word}/inner",
                    stands="inner",
                    can=Can.DIAL_TCP,
                    compiled=True,
                    says=kinds((*access.INNER, *gate.PART)),
                ),
            },
            pipes=(("outer", "inner"), ("inner", "outer")),
        ),
        make={"outer": "cofferdam.brokers.proxy.outer:Outer", "inner": "cofferdam.brokers.proxy.inner:Inner"},
        records={
            ("outer", "inner"): "cofferdam.brokers.proxy.records:to_inner",
            ("inner", "outer"): "cofferdam.brokers.proxy.records:to_outer",
        },
        answers=frozenset({"inner"}),
    )


MODBUS = proxy("modbus")
