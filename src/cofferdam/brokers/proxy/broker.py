"""What the proxies of request and answer declare: two halves, and a pipe each way."""

from __future__ import annotations

from cofferdam.audit.entry import kinds
from cofferdam.audit.events import access, gate
from cofferdam.brokers.broker import Broker
from cofferdam.brokers.kit.figures import Figure, Metric, counter, gauge, histogram
from cofferdam.enforce.profile import Can, Crew, Profile
from cofferdam.protocols.dialects import DIALECTS

_REQUESTS = "requests that the asset answered; kind is read or write"

OUTER = (
    counter(
        "reads",
        "reads that the asset answered",
        by="conduit",
        metric=Metric("cofferdam_requests_total", {"kind": "read"}, _REQUESTS),
    ),
    counter(
        "writes",
        "writes that the asset answered",
        by="conduit",
        metric=Metric("cofferdam_requests_total", {"kind": "write"}, _REQUESTS),
    ),
    counter(
        "shared",
        "reads answered without asking the device",
        by="conduit",
        metric=Metric("cofferdam_shared_reads_total"),
    ),
    counter(
        "refused",
        "requests refused by policy; conduit is empty where none has to do with it",
        by="conduit",
        metric=Metric("cofferdam_refused_total"),
    ),
    counter(
        "failed",
        "allowed requests that got no answer from the asset",
        by="conduit",
        metric=Metric("cofferdam_failed_total"),
    ),
    histogram(
        "added",
        "what the gate added between request and answer, without the device and without waiting",
        by="conduit",
        metric=Metric("cofferdam_added_latency_seconds"),
    ),
    histogram(
        "waited",
        "waiting for a free place at the device and, for writes, for the disk",
        by="conduit",
        metric=Metric("cofferdam_waited_seconds"),
    ),
    histogram("device", "the device's own time", by="conduit", metric=Metric("cofferdam_device_seconds")),
)
"""What the outer half counts: it sees a request's whole way."""
INNER = (
    gauge("connections", "open connections to the device", by="asset", metric=Metric("cofferdam_asset_connections")),
    gauge(
        "in_flight",
        "requests that the device is working on",
        by="asset",
        metric=Metric("cofferdam_asset_in_flight"),
    ),
    gauge("queued", "requests that wait for the device", by="asset", metric=Metric("cofferdam_asset_queued")),
    counter("requests", "requests sent to the device", by="asset", metric=Metric("cofferdam_asset_requests_total")),
    counter(
        "failures",
        "failures of the device: no connection, no answer",
        by="asset",
        metric=Metric("cofferdam_asset_failures_total"),
    ),
    counter(
        "late",
        "answers that came too late and were discarded",
        by="asset",
        metric=Metric("cofferdam_asset_late_total"),
    ),
    counter(
        "broken",
        "answers that break the protocol",
        by="asset",
        metric=Metric("cofferdam_asset_broken_total"),
    ),
    counter(
        "unasked",
        "frames that nobody asked for",
        by="asset",
        metric=Metric("cofferdam_asset_unasked_total"),
    ),
    counter(
        "identities",
        "times that the device said that it is another one than before",
        by="asset",
        metric=Metric("cofferdam_asset_identities_total"),
    ),
)
"""What the inner half counts of each device."""


def _way(name: str, way: str, words: str) -> tuple[Figure, Figure]:
    """Of streams, in the half that sends this way."""
    return (
        histogram(
            f"{name}_age",
            f"how old packets {words} were as they left, from when the other half had read them",
            by="stream",
            metric=Metric("cofferdam_stream_age_seconds", {"way": way}, "how old streams' packets were as they left"),
        ),
        histogram(
            f"{name}_jitter",
            f"how far the time between two packets {words} was from their interval",
            by="stream",
            metric=Metric(
                "cofferdam_stream_jitter_seconds",
                {"way": way},
                "how far the time between two packets of a stream was from their interval",
            ),
        ),
    )


PACKETS = histogram(
    "packets",
    "how old packets of streams were as they left, both ways: the conduit's latency budget holds for them, too",
    by="conduit",
    metric=Metric("cofferdam_packet_latency_seconds"),
)
HELD = histogram(
    "held",
    "how long a half did not look at what had come, where it was more than a millisecond: by a turn of its own, or "
    "since the machine gave it none",
    by="half",
    metric=Metric("cofferdam_half_held_seconds"),
)
STREAMS_OUTER = (*_way("inputs", "in", "from a device"), PACKETS, HELD)
STREAMS_INNER = (*_way("outputs", "out", "to a device"), PACKETS, HELD)
"""What the halves of a protocol with streams measure besides."""


def proxy(word: str) -> Broker:
    """The broker that speaks the protocol of this name (protocols.registry)."""
    dialect = DIALECTS.get(word)
    secrets, preload = (dialect.secrets, dialect.preload) if dialect is not None else ((), ())
    # The socket towards devices is made before the filter is on.
    streams = dialect is not None and any(kind.open for kind in dialect.kinds)
    datagrams = Can.DATAGRAMS if dialect is not None and dialect.datagrams else Can(0)
    # Who serves may open the connection: then the halves do what else the other does, where a policy says so.
    reverse = dialect is not None and dialect.reverse
    dials, accepts = (Can.DIAL_TCP, Can.ACCEPT) if reverse else (Can(0), Can(0))
    return Broker(
        name=word,
        crew=Crew(
            kind=word,
            parts={
                "outer": Profile(
                    f"{word}/outer",
                    stands="outer",
                    can=Can.ACCEPT | datagrams | dials,
                    by_need=dials,
                    compiled=True,
                    urgent=streams,
                    secrets=secrets,
                    preload=preload,
                    says=kinds((*access.OUTER, *gate.PART)),
                    seam="back",
                ),
                "inner": Profile(
                    f"{word}/inner",
                    stands="inner",
                    can=Can.DIAL_TCP | datagrams | accepts,
                    by_need=accepts,
                    compiled=True,
                    urgent=streams,
                    secrets=secrets,
                    preload=preload,
                    says=kinds((*access.INNER, *gate.PART)),
                    seam="back",
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
        rekeys=frozenset({"outer", "inner"}) if dialect is not None and dialect.secure_port else frozenset(),
        alarms=frozenset({"outer", "inner"}),
        needs=dialect.needs if dialect is not None else (),
        figures={
            "outer": (*OUTER, *STREAMS_OUTER) if streams else OUTER,
            "inner": (*INNER, *STREAMS_INNER) if streams else INNER,
        },
    )
