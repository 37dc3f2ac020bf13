"""Fuzz targets: capture files of any content, and Modbus streams inside captures of any shape."""

from __future__ import annotations

import io
from collections.abc import Hashable

from cofferdam.capture.files import CaptureFile
from cofferdam.capture.learn import learn
from cofferdam.errors import CaptureError
from cofferdam.policy.load import loads
from tests.capture.maker import (
    ACK,
    Connection,
    enhanced,
    interface,
    pcap,
    pcapng,
    read_answer,
    read_request,
    section,
    simple,
    write_request,
)
from tests.capture.traffic import filled
from tests.fuzz.engine import Target


def _connection() -> Connection:
    connection = Connection().open()
    connection.ask(read_request(1, 0, 2) + read_request(2, 5, 1))
    connection.answer(read_answer(1, [1, 2]))
    connection.ask(write_request(3, 7, 9))
    connection.packet(True, ACK)
    connection.answer(read_answer(2, [3]) + write_request(3, 7, 9))
    return connection.close()


def _files() -> list[bytes]:
    frames = _connection().frames
    several = section() + interface(tsresol=9) + interface(link=113) + enhanced(frames[0]) + simple(frames[3])
    return [pcap(frames), pcap(frames, order=">", nano=True), pcapng(frames), pcapng(frames, ">"), several]


def _read(data: bytes) -> Hashable:
    capture = CaptureFile(io.BytesIO(data), "fuzz")
    links = set()
    try:
        for packet in capture:
            links.add(packet.link)
            if len(packet.data) > len(data):
                raise ValueError("more data than the file holds")
    except CaptureError as error:
        return capture.format, min(capture.packets, 8), str(error).split(";")[0].translate(_NO_DIGITS)
    return capture.format, min(capture.packets, 8), len(links)


def _learn(data: bytes) -> Hashable:
    """The whole way: what is learned must always load."""
    try:
        learned = learn(io.BytesIO(data), "fuzz")
    except CaptureError:
        return "unreadable"
    loads(filled(learned.text))
    reading = learned.reading
    return (
        min(learned.requests, 4), min(learned.malformed, 3), learned.points, reading.connections, bool(reading.error),
        tuple(sorted(reading.skipped)), reading.damaged > 0, tuple(sorted({remark.kind for remark in learned.remarks})),
    )  # fmt: skip


_NO_DIGITS = str.maketrans("", "", "0123456789")

TARGETS = [
    Target("capture-files", _files, _read, tokens=(b"\x0a\x0d\x0d\x0a", b"\xd4\xc3\xb2\xa1", b"\x1a\x2b\x3c\x4d")),
    Target("capture-learn", _files, _learn, tokens=(read_request(4, 1, 1), b"\x88\xa8\0\x01\x81\0\0\x01")),
]
