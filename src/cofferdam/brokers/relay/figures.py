"""The figures that the relay's keeper reports. Sides have their own.

A consumer's label is "CHANNEL CONSUMER".
"""

from __future__ import annotations

from typing import Final

from cofferdam.brokers.kit.figures import Figure, counter, gauge, histogram

FIGURES: Final[tuple[Figure, ...]] = (
    counter("pushed", "Messages that were stored", by="channel"),
    counter("repeated", "Messages that were pushed again and had been stored before", by="channel"),
    counter("conflicts", "Messages whose key was taken by another content", by="channel"),
    counter("quarantined", "Messages that were put into quarantine", by="channel"),
    counter("refused", "Messages and requests that were refused", by="channel"),
    counter("handed", "Messages that were handed out, each time counted", by="consumer"),
    counter("settled", "Messages that were done", by="consumer"),
    counter("dead", "Messages that were handed to a consumer in vain until none of its tries was left", by="channel"),
    counter("removed", "Messages that were removed after their time", by="channel"),
    gauge("messages", "Messages in the store", by="channel"),
    gauge("size", "Bytes of messages in the store", by="channel", unit="bytes"),
    gauge("room", "Bytes that a channel may have in the store", by="channel", unit="bytes"),
    gauge("waiting", "Messages that some consumer has not settled", by="channel"),
    gauge("oldest", "How long the oldest of them has waited", by="channel", unit="seconds"),
    gauge("leases", "Messages that are under way with consumers", by="channel"),
    gauge("quarantine", "Messages in quarantine", by="channel"),
    counter("late", "Messages that a strand brought after those behind them", by="channel"),
    gauge("missing", "Numbers that a strand has not brought", by="channel"),
    gauge("dead_letters", "Messages that are dead to a consumer", by="consumer"),
    gauge("lag", "Messages that a consumer has not settled", by="consumer"),
    gauge("unlogged", "Messages that wait for the audit log"),
    gauge("store_free", "Bytes free where the store lies", unit="bytes"),
    gauge("store_size", "Bytes of the disk that the store lies on", unit="bytes"),
    histogram("commit", "From the end of a turn until its commit was on the disk"),
    histogram("logged", "From the end of a turn until its entries were in the audit log"),
)
