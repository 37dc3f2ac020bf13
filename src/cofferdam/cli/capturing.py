"""What the verbs `simulate` and `learn` share: opening a capture, --port, progress, the state of the capture in words.

Not here: reading captures (capture.*), the verbs' own arguments and reports.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from cofferdam.capture.files import CaptureFile
from cofferdam.capture.reading import Reading, followed
from cofferdam.capture.simulate import LinkReport, Remark
from cofferdam.errors import CaptureError
from cofferdam.policy.points.decide import show_utc
from cofferdam.protocols.terminals.dialect import TERMINALS

PROGRESS_BYTES = 8 << 20
"""Captures above this size show how far they were read, if a person watches."""
REMARKS = 12
"""Remarks that are printed; --json has them all."""

Tick = Callable[[int, int], None]


def add_port(parser: argparse.ArgumentParser) -> None:
    """Declare --port."""
    parser.add_argument(
        "--port",
        action="append",
        default=[],
        type=port,
        metavar="PORT[=PROTOCOL]",
        help="also follow servers on this TCP port (protocol: modbus unless given); may be repeated",
    )


def port(text: str) -> tuple[int, str]:
    """A value of --port. Raises: argparse.ArgumentTypeError."""
    number, _, protocol = text.partition("=")
    protocol = protocol or "modbus"
    if not (number.isascii() and number.isdigit() and 0 < int(number) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is not PORT or PORT=PROTOCOL; a port is 1 to 65535")
    known = followed()
    if protocol not in known:
        raise argparse.ArgumentTypeError(f"protocol {protocol!r} is not known; one of {', '.join(sorted(known))}")
    return int(number), protocol


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, Tick | None]]:
    """The capture, and what to call while it is read (None: nobody watches). Raises: CaptureError."""
    try:
        stream = path.open("rb")
        size = path.stat().st_size
    except OSError as error:
        raise CaptureError(
            f"{path} cannot be read: {error.strerror or error}", hint="name a pcap or pcapng file"
        ) from None
    with stream:
        if size < PROGRESS_BYTES or not sys.stderr.isatty():
            yield stream, None
            return
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task(path.name, total=size)

            def tick(packets: int, offset: int) -> None:
                progress.update(task, completed=offset, description=f"{path.name}: {packets} packets")

            yield stream, tick


def first_time(path: Path) -> int:
    """The time of the capture's first packet that has one, in UTC ns; 0 for none. Raises: CaptureError."""
    with opened(path) as (stream, _):
        for packet in CaptureFile(stream, str(path)):
            if packet.time_ns >= 0:
                return packet.time_ns
            if packet.number > 1000:
                break
    return 0


def nothing_found(reading: Reading, malformed: int, links: Sequence[LinkReport]) -> CaptureError:
    """The error for a capture without a single request of a known protocol."""
    what = f"{reading.name}: no request of a known protocol in {reading.packets} packets"
    hint = ""
    if malformed:
        what += f" ({malformed} malformed ones)"
    elif reading.other_ports:
        hint = _others(list(reading.other_ports)[:8])
    elif reading.skipped:
        seen = ", ".join(f"{count} {kind}" for kind, count in list(reading.skipped.items())[:5])
        hint = f"what the packets hold: {seen}"
    elif any(link.gaps for link in links):
        hint = "bytes are missing from its connections: was it made with whole packets (tcpdump -s 0)?"
    return CaptureError(what, hint=hint or "was the capture made where the requests pass?")


def _others(ports: Sequence[int]) -> str:
    """What to do about servers on ports that are not followed."""
    people = {dialect.default_port: dialect.name for dialect in TERMINALS}
    said = [
        f"port {port} is that of {people[port]}, by which people work: its captures are not read; "
        "`cofferdam explain --person` tells what the jump server would let through"
        for port in ports
        if port in people
    ]
    if seen := ", ".join(str(port) for port in ports if port not in people):
        said.append(f"TCP servers were seen on port {seen}; follow one with --port PORT=PROTOCOL")
    return "; ".join(said)


def state_lines(
    reading: Reading, links: Sequence[LinkReport], remarks: Sequence[Remark], remarks_total: int
) -> list[str]:
    """What a reader must know of the capture's state."""
    lines = []
    if reading.first_ns:
        span = f", {show_utc(reading.first_ns)} to {show_utc(reading.last_ns)}"
    else:
        span = ""
    lines.append(f"{reading.name}: {reading.format}, {_count(reading.packets, 'packet')}{span}")
    lines.append(f"{_count(reading.connections, 'connection')} followed, {_count(reading.segments, 'TCP segment')}")
    if reading.datagrams:
        lines.append(f"{_count(reading.datagrams, 'packet')} of streams by UDP")
    if reading.skipped:
        lines.append("not TCP over IP: " + ", ".join(f"{count} {kind}" for kind, count in reading.skipped.items()))
    if reading.other_ports:
        seen = ", ".join(f"{number} ({_count(count, 'segment')})" for number, count in reading.other_ports.items())
        lines.append(f"other TCP servers, not followed (--port): {seen}")
    for count, what in (
        (reading.untimed, "packets without a time, which count as sent at the time before them"),
        (reading.damaged, "packets with headers that are cut off or contradict themselves"),
        (reading.fragments_lost, "fragmented datagrams that could not be put together"),
        (reading.evicted, "connections closed early to make room"),
        (sum(link.one_sided for link in links), "connections of which one direction was captured"),
        (sum(link.mid_stream for link in links), "connections that began before the capture"),
        (sum(link.bad_answers for link in links), "answers that do not fit their requests"),
        (sum(link.inconsistent for link in links), "retransmissions whose content differs from the first time"),
        (sum(link.late for link in links), "segments after their connection's end, which were not read"),
    ):
        if count:
            lines.append(f"{what}: {count}")
    gaps, lost = sum(link.gaps for link in links), sum(link.gap_bytes for link in links)
    if gaps:
        lines.append(f"{_count(gaps, 'gap')}: {_count(lost, 'byte')} of connections are not in the capture")
    skipped = sum(link.skipped_bytes for link in links)
    if skipped:
        lines.append(f"{_count(skipped, 'byte')} belong to no whole frame and were skipped")
    for remark in remarks[:REMARKS]:
        lines.append(f"  packet {remark.packet}, {remark.client} to {remark.server}:{remark.port}: {remark.text}")
    if remarks_total > REMARKS:
        lines.append(f"  and {remarks_total - min(len(remarks), REMARKS)} more remarks (--json)")
    return lines


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
