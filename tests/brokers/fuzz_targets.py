"""Fuzz targets: an inner half under an outer half that sends anything, and an outer half under clients that do."""

from __future__ import annotations

from collections.abc import Hashable

import msgspec

from cofferdam.brokers.kit.http.messages import BadRequest, Chunks, read_head
from cofferdam.brokers.proxy import records
from cofferdam.brokers.proxy.records import Closed, Opened, Request
from cofferdam.crossing.framing import pack
from cofferdam.crossing.records import RecordCodec, Unpacker
from cofferdam.errors import CrossingError, RemoteProtocolError
from cofferdam.protocols.modbus.messages import ReadHoldingRegisters, WriteMultipleRegisters, WriteSingleRegister
from tests.brokers.diode import strand
from tests.brokers.harness import make_policy
from tests.brokers.stage import Stage, answer, read, write
from tests.brokers.test_processes import allowed
from tests.fuzz.engine import Target

POLICY = make_policy(device_port=5020, port=502, asset_extra="outstanding: 16\n    connections: 4")


def _session(*requests: object) -> bytes:
    """A stream of packets, each behind its length (2 bytes)."""
    encode = msgspec.msgpack.encode
    stream = [encode(Opened(1, "t-1", "127.0.0.1", "plc")), *(encode(request) for request in requests)]
    return b"".join(len(packet).to_bytes(2, "big") + packet for record in stream for packet in pack([record]))


def _records() -> list[bytes]:
    read_some = ReadHoldingRegisters(1, 0, 10)
    return [
        _session(Request(1, 2, read_some), Request(1, 3, WriteSingleRegister(1, 200, 1400)), Closed(1)),
        _session(Request(1, 2, WriteMultipleRegisters(1, 200, (1500,))), Request(1, 9, read_some)),
        _session(Request(1, 2, WriteSingleRegister(1, 210, 50)), Request(1, 3, WriteSingleRegister(1, 220, 5))),
    ]


def _inner(data: bytes) -> Hashable:
    """Whatever arrives over the crossing: nothing outside policy is ever written to the asset."""
    stage = Stage(policy=POLICY)
    codec: RecordCodec[object] = records.to_inner(POLICY, "modbus")
    unpacker = Unpacker(codec)
    seen = set()
    at = 0
    try:
        while at + 2 <= len(data):
            size = int.from_bytes(data[at : at + 2], "big")
            packet = data[at + 2 : at + 2 + size]
            at += 2 + size
            if not packet:  # an empty read is the end of a pipe
                break
            for record in unpacker.feed(packet):
                stage.inner.take(record)
                stage.cross()
                for device in stage.devices:
                    if device.on_connected is not None:
                        connected, device.on_connected = device.on_connected, None
                        connected()
                    for frame in device.take():
                        if not allowed(frame):
                            raise ValueError(f"outside policy: {frame.hex()}")
                        seen.add(frame[7])
                        count = int.from_bytes(frame[10:12], "big") if frame[7] in (3, 4) else 0
                        device.on_data(answer(frame, *[500] * count) if count or frame[7] == 6 else frame[:12])
                stage.cross()
    except CrossingError as error:
        return "violation", str(error)[:24], frozenset(seen)
    return frozenset(seen), len(stage.dials), tuple(sorted(stage.inner.faults))


def _frames() -> list[bytes]:
    return [
        read(1, 0, 10) + read(2, 300, 1) + write(3, 200, 9),
        read(1, 99, 5) + b"\x00\x02\x00\x00\x00\x02\x01\x11",
        write(7, 210, 5) + write(8, 200, 1501),
    ]


def _outer(data: bytes) -> Hashable:
    """Whatever a client sends: only what policy allows goes over the crossing, and another client is still served."""
    stage = Stage(policy=POLICY)
    client, other = stage.client(port=1), stage.client(port=2)
    for at in range(0, len(data), 37):
        if not client.closed:
            client.on_data(data[at : at + 37])
    crossed = stage.to_inner.take()
    for record in crossed:
        if isinstance(record, Request):
            _, frame = stage.protocol.client().send(record.message)
            if not allowed(frame):
                raise ValueError(f"outside policy: {frame.hex()}")
    other.on_data(read(1, 0, 1))
    if not any(isinstance(record, Request) for record in stage.to_inner.take()):
        raise ValueError("another client is not served any more")
    return client.closed, len(crossed), tuple(sorted(stage.outer.stats.faults)), min(stage.outer.malformed, 3)


def _http(data: bytes) -> Hashable:
    """A request on the relay's HTTP edge: a head that can be read in one way, or a refusal; chunks likewise, and byte
    by byte as in one piece."""
    end = data.find(b"\r\n\r\n") + 4
    if end < 4:
        return "no head"
    try:
        head = read_head(data[:end], 1 << 25)
    except BadRequest as error:
        return error.status, error.title[:16]
    if head.length is not None:
        return "length", head.method
    found = []
    for step in (len(data) or 1, 1):
        chunks, content = Chunks(), b""
        try:
            for at in range(end, len(data), step):
                if not chunks.done:
                    content += chunks.feed(data[at : at + step])
            found.append((chunks.done, content))
        except BadRequest as error:
            found.append((False, error.title.encode()))
    if found[0] != found[1] and b"small chunks" not in found[0][1] + found[1][1]:
        raise ValueError(f"read differently in pieces: {found}")
    return "chunks", found[0][0]


REQUEST = b"POST /v1/channels/c/lease?x=1 HTTP/1.1\r\nHost: relay\r\nAuthorization: Bearer k\r\n"
HTTP_WORDS = (
    b"\r\n",
    b"\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b" HTTP/1.1",
    b"5\r\nhello\r\n",
)


def _sshsig(data: bytes) -> Hashable:
    from cofferdam.brokers.kit import sshsig

    try:
        sshsig.verify(data, sshsig.signer(data), "test", b"hello")
    except sshsig.SignatureRefused as error:
        return str(error)[:30]
    return "holds"


def _ssh_seeds() -> list[bytes]:
    import asyncssh

    from cofferdam.brokers.kit import sshsig

    kinds = ("ssh-ed25519", "ecdsa-sha2-nistp256")
    return [sshsig.sign(asyncssh.generate_private_key(kind), "test", b"hello") for kind in kinds]


def _archive(data: bytes) -> Hashable:
    import tempfile
    from pathlib import Path

    from cofferdam.brokers.kit.archives import ArchiveRefused, look

    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        said: list[Hashable] = []
        for strict in (True, False):
            try:
                said.append(look(Path(file.name), strict=strict).entries)
            except ArchiveRefused as error:
                said.append(str(error)[:30])
        return tuple(said)


def _changes(data: bytes) -> Hashable:
    """One message, after the table was described."""
    from cofferdam.brokers.relay.pgoutput import Decoder
    from tests.brokers.relay.test_pgoutput import BEGIN, relation

    decoder = Decoder()
    for message in (BEGIN, relation()):
        decoder.take(message)
    try:
        return decoder.take(data) is None
    except RemoteProtocolError as error:
        return str(error)[:30]


def _changes_seeds() -> list[bytes]:
    from tests.brokers.relay.test_pgoutput import COMMIT, OLD, UNCHANGED, inserted, relation, updated

    return [inserted(), updated(b"O" + OLD, UNCHANGED), relation(), COMMIT]


def _archive_seeds() -> list[bytes]:
    import gzip

    from tests.brokers.patch.test_archives import nest, tarred, zipped

    return [zipped(("a", b"x"), ("b/c", b"y")), nest(3), tarred(b"0"), gzip.compress(tarred(b"0"))]


TARGETS = [
    Target("ssh-signature", _ssh_seeds, _sshsig, tokens=(b"SSHSIG", b"sha512")),
    Target("patch-archive", _archive_seeds, _archive, tokens=(b"PK\x03\x04", b"PK\x05\x06", b"ustar")),
    Target(
        "relay-http",
        lambda: [
            REQUEST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3\r\nyou\r\n0\r\n\r\n",
            REQUEST + b"Content-Length: 2\r\n\r\n{}",
        ],
        _http,
        tokens=HTTP_WORDS,
    ),
    Target("pgoutput", _changes_seeds, _changes, tokens=(b"\0\0\0\x05", b"N\0\x06", b"t\0\0\0\x01")),
    Target("strand", lambda: [strand.stream()], strand.heard, tokens=(b"CD\x01\x00", b"CD\x01\x01", b"CD\x01\x03")),
    Target("inner-half", _records, _inner, tokens=(b"\x94\x02\x01", b"\x93\x06\x01\xcc\xc8")),
    Target("outer-half", _frames, _outer, tokens=(read(1, 0, 1), write(2, 200, 1))),
]
