"""What stands at an asset after a request was answered: a watch, or an open stream.

Not here: what is done with it (inner_standing), its connection (device).
"""

from __future__ import annotations

from typing import Any

from cofferdam.brokers.kit.pace import Bucket
from cofferdam.brokers.proxy.frame_times import Times
from cofferdam.model import Allow, Asset, Item, Opening, Operation, Watch


def watched(operation: Operation) -> bool:
    """Whether a request, well answered, leaves a watch standing."""
    return any(type(read) is Watch for read in operation.reads)


def opened(operation: Operation) -> Item | None:
    """The stream that a request opens, if it does."""
    for write in operation.writes:
        if type(write) is Opening:
            return write.item
    return None


def form_of(asset: Asset, stream: Item) -> tuple[str, ...]:
    """What the policy says of a stream's form, configuration and group; nothing where it has no such stream."""
    found = (one for one in asset.streams if one.at.space == stream.space)
    return next(((one.form, one.config, one.group) for one in found), ())


class Standing:
    """One watch or stream. Its device sets `connection` and `token` when the asset has agreed to it."""

    __slots__ = (
        "allow", "bucket", "connection", "dropped", "early", "form", "from_wall", "handle", "in_a_row",
        "lost_in", "lost_out", "operation", "received", "refused", "request", "sent", "served", "session", "stream",
        "times", "token", "write",
    )  # fmt: skip

    def __init__(self, session: Any, served: Any, request: Any, operation: Operation, allow: Allow) -> None:
        self.session = session
        self.served = served
        self.request = request
        self.operation = operation
        self.allow = allow
        self.stream = opened(operation)
        self.form = () if self.stream is None else form_of(served.asset, self.stream)
        self.write = ""  # the name of the write that opened a stream
        self.handle = 0
        self.connection: Any = None
        self.token = 0
        self.times: Times | None = None  # of a stream, as far as it has times
        self.early: list[Any] = []  # what came before the outer half was told the handle
        self.bucket = Bucket(0.0, 0)
        self.from_wall = 0
        self.in_a_row = 0  # frames refused, one after the other
        # Frames of a stream, notices of a watch.
        self.sent = 0
        self.received = 0
        self.refused = 0
        self.dropped = 0
        self.lost_out = 0  # on their way to us: from the client, from the asset
        self.lost_in = 0
