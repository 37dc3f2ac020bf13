"""What the parts of the diode count and measure."""

from __future__ import annotations

from typing import Final

from cofferdam.brokers.kit.figures import counter, gauge


class Speed:
    """Bits a second, of bytes that are counted, from one look to the next."""

    def __init__(self) -> None:
        self._at = self._bytes = 0

    def look(self, now_ns: int, size: int) -> int:
        """`size`: of all that has ever gone by."""
        passed, more = now_ns - self._at, size - self._bytes
        self._at, self._bytes = now_ns, size
        return round(more * 8e9 / passed) if passed > 0 else 0


SENDER: Final = (
    counter("packets", "packets that were sent over the strand"),
    counter("sent", "bytes that were sent over the strand, parity among them", unit="bytes"),
    counter("unsent", "writes that the kernel refused: no link, no way, or nobody there"),
    gauge("rate", "bits a second at which is sent at most"),
    gauge("sending", "bits a second that went out lately, parity among them"),
    gauge("queue", "bytes that wait in the sender", unit="bytes"),
    gauge("prompt_queue", "packets of what is prompt that wait in the sender"),
    gauge("blocks", "blocks that were made in this epoch"),
)
SPOOL: Final = (
    counter("files_sent", "files that were sent", by="channel"),
    counter("records_sent", "records that were handed to the sender, re-sends among them", by="channel"),
    counter("resent", "records that were sent again", by="channel"),
    counter("spool_dropped", "records that went before their time, for want of room", by="channel"),
    gauge("spool_size", "bytes that are kept", unit="bytes"),
    gauge("spool_oldest", "when the oldest that is kept was sent", unit="time"),
    gauge("behind", "bytes of records of conduits that wait to be sent", unit="bytes"),
    gauge("waiting", "bytes of files that wait to be sent", unit="bytes"),
)
RECEIVER: Final = (
    counter("received", "packets that came over the strand"),
    gauge("hearing", "bits a second that came lately, parity among them"),
    counter("foreign", "packets that are not the sender's, of another epoch or out of bounds"),
    counter("repeated", "packets that came before"),
    counter("repaired", "packets that were missing and were worked out"),
    counter("blocks_whole", "blocks that are whole"),
    counter("blocks_spoiled", "attempts at a block whose seal did not hold"),
    counter("blocks_lost", "blocks that were given up, false ones among them"),
    counter("kernel_drops", "packets that the kernel had no room for"),
    counter("overrun", "records that the keeper did not take in time"),
    counter("refused_hellos", "announcements that were not believed"),
    gauge("blocks_open", "blocks that are being collected"),
    gauge("held", "bytes of blocks that are being collected", unit="bytes"),
)
KEEPER: Final = (
    counter("records", "records that came", by="channel"),
    counter("records_again", "records that had come before", by="channel"),
    counter("files_received", "files that came whole", by="channel"),
    counter("files_refused", "files that were refused", by="channel"),
    gauge("missing", "records that are missing", by="channel"),
    counter("lost", "records that will not come any more", by="channel"),
    gauge("gap_since", "since when the oldest gap stands", by="channel", unit="time"),
    gauge("heartbeat", "when the last heartbeat came", unit="time"),
)
