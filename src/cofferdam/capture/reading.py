"""One pass over a capture file: reader, decoder, reassembly and conversations put together.

A file that is damaged or cut off in the middle is followed up to there; the error is kept in the result, so that what
was read can be reported before the error is.

Not here: what is done with the requests (simulate.py, learn.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import msgspec

from cofferdam.capture.conversation import Conversations, Watcher
from cofferdam.capture.files import CaptureFile
from cofferdam.capture.frames import Decoder
from cofferdam.capture.limits import CaptureLimits
from cofferdam.capture.streams import Reassembler
from cofferdam.errors import CaptureError
from cofferdam.protocols.base import Protocol
from cofferdam.protocols.registry import PROTOCOLS, Protocols

PROGRESS_PACKETS = 5000


class Reading(msgspec.Struct):
    """What a pass over a file met, apart from the conversations themselves. `offset` is in bytes, times in UTC ns (0
    where no packet had one), `untimed` counts packets without a time. `error` is the sentence that stopped the pass, or
    "", and `hint` the way out."""

    name: str
    format: str = ""
    packets: int = 0
    offset: int = 0
    first_ns: int = 0
    last_ns: int = 0
    untimed: int = 0
    segments: int = 0
    datagrams: int = 0
    connections: int = 0
    skipped: dict[str, int] = {}
    damaged: int = 0
    fragments_lost: int = 0
    evicted: int = 0
    other_ports: dict[int, int] = {}
    error: str = ""
    hint: str = ""


def followed(protocols: Protocols = PROTOCOLS) -> dict[str, Protocol[Any, Any]]:
    """The protocols whose captures can be followed: those with a view."""
    return {name: protocol for name, protocol in protocols.items() if protocol.view is not None}


def default_ports(protocols: Protocols = PROTOCOLS) -> dict[int, str]:
    """Server port -> protocol, for every protocol that can be followed."""
    return {protocol.dialect.default_port: name for name, protocol in followed(protocols).items()}


def follow(
    stream: BinaryIO,
    name: str,
    watcher: Watcher,
    ports: Mapping[int, str],
    limits: CaptureLimits | None = None,
    progress: Callable[[int, int], None] | None = None,
    protocols: Protocols = PROTOCOLS,
) -> Reading:
    """Reads a capture to its end, or to where it breaks, and tells `watcher` all conversations with `ports` (server
    port -> protocol). `progress` is called now and then with packets and bytes read.

    Raises:
        CaptureError: not one packet could be read.
    """
    limits = limits or CaptureLimits()
    capture = CaptureFile(stream, name, limits)
    conversations = Conversations(watcher, ports, limits, protocols)
    decoder = Decoder(limits, conversations.datagram_ports)
    reassembler = Reassembler(conversations, ports.keys(), limits)
    reading = Reading(name)
    try:
        for packet in capture:
            if packet.time_ns < 0:
                reading.untimed += 1
            else:
                reading.first_ns = reading.first_ns or packet.time_ns
                reading.last_ns = max(reading.last_ns, packet.time_ns)
            segment = decoder.segment(packet)
            if segment is not None:
                reassembler.segment(segment)
            elif decoder.datagram is not None:
                reading.datagrams += 1
                conversations.datagram(decoder.datagram)
            if progress is not None and not packet.number % PROGRESS_PACKETS:
                progress(packet.number, capture.offset)
    except CaptureError as error:
        if not capture.packets:
            raise
        reading.error, reading.hint = str(error), error.hint
    decoder.finish()
    reassembler.finish()
    reading.format, reading.packets, reading.offset = capture.format, capture.packets, capture.offset
    reading.segments, reading.connections = decoder.segments, reassembler.flows
    reading.skipped, reading.damaged = dict(decoder.skipped.most_common()), decoder.damaged
    reading.fragments_lost, reading.evicted = decoder.fragments_lost, reassembler.evicted
    reading.other_ports = dict(reassembler.other_ports.most_common(20))
    return reading
