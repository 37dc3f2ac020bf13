"""Hostile bytes at the HTTP edge: each is refused, and nobody else notices."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.brokers.kit.http.messages import HEAD_BYTES, BadRequest, Chunks, read_head
from cofferdam.brokers.relay.http_side import LIMITS
from tests.brokers.relay.crew import ELSEWHERE, OFFICE, RunningCrew, crew
from tests.waiting import PATIENT, eventually

COUNTS = "/v1/channels/counts"


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCrew]:
    with crew(tmp_path_factory.mktemp("relay") / "store") as running:
        yield running


def said(sock: socket.socket) -> bytes:
    """All that comes until the other end closes."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(65536):
            found += data
    return found


def asked(relay: RunningCrew, data: bytes, side: str = "outer") -> bytes:
    with relay.raw(side) as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(data)
        return said(sock)


def serves(relay: RunningCrew) -> None:
    """Others are served as ever, by both sides."""
    with relay.client("erp") as erp, relay.client("mes") as mes:
        assert erp.get("/v1").status_code == 200
        assert mes.get("/v1").status_code == 200


KEY = b"authorization: Bearer KEY\r\n"
HEAD = b"POST " + COUNTS.encode() + b"/lease HTTP/1.1\r\nhost: x\r\n" + KEY
SMUGGLED = b"GET /v1 HTTP/1.1\r\nhost: x\r\n" + KEY + b"\r\n"
REFUSED: dict[str, tuple[bytes, int]] = {
    "a length and chunks": (HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunks and a length": (HEAD + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n", 400),
    "two lengths": (HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}", 400),
    "two equal lengths": (HEAD + b"content-length: 2\r\ncontent-length: 2\r\n\r\n{}", 400),
    "two lengths in one": (HEAD + b"content-length: 2, 2\r\n\r\n{}", 400),
    "a length with a sign": (HEAD + b"content-length: +2\r\n\r\n{}", 400),
    "a length in hexadecimal": (HEAD + b"content-length: 0x2\r\n\r\n{}", 400),
    "a length with a space": (HEAD + b"content-length : 2\r\n\r\n{}", 400),
    "a huge length": (HEAD + b"content-length: 99999999999999999999\r\n\r\n{}", 400),
    "a large length": (HEAD + b"content-length: 99999999999\r\n\r\n{}", 413),
    "two codings": (HEAD + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n", 400),
    "gzip as coding": (HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n", 501),
    "a strange coding": (HEAD + b"transfer-encoding: xchunked\r\n\r\n", 501),
    "a coding with a tab": (HEAD + b"transfer-encoding:\x0bchunked\r\n\r\n", 400),
    "chunks of HTTP/1.0": (HEAD.replace(b"HTTP/1.1", b"HTTP/1.0") + b"transfer-encoding: chunked\r\n\r\n", 400),
    "a gzip bomb": (HEAD + b"content-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}", 415),
    "a folded line": (HEAD + b"x-a: b\r\n c: d\r\n\r\n", 400),
    "a folded first line": (b"GET /v1 HTTP/1.1\r\n x: y\r\nhost: x\r\n\r\n", 400),
    "a bare line feed": (HEAD + b"x-a: b\nx-c: d\r\n\r\n", 400),
    "bare line feeds": (b"GET /v1 HTTP/1.1\nhost: x\n\n", 400),
    "a bare carriage return": (HEAD + b"x-a: b\rx-c: d\r\n\r\n", 400),
    "NUL": (HEAD + b"x-a: b\0c\r\n\r\n", 400),
    "no host": (b"GET /v1 HTTP/1.1\r\n" + KEY + b"\r\n", 400),
    "two hosts": (HEAD + b"host: y\r\n\r\n", 400),
    "two keys": (HEAD + KEY + b"\r\n", 400),
    "an empty name": (HEAD + b": x\r\n\r\n", 400),
    "a name with a space": (HEAD + b"x y: z\r\n\r\n", 400),
    "a head of a megabyte": (b"GET /v1 HTTP/1.1\r\nhost: x\r\nx-a: " + b"a" * (1 << 20) + b"\r\n\r\n", 431),
    "many fields": (HEAD + b"".join(b"x-%d: y\r\n" % n for n in range(65)) + b"\r\n", 431),
    "a path of a megabyte": (b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\nhost: x\r\n\r\n", 431),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/3": (b"GET /v1 HTTP/3\r\nhost: x\r\n\r\n", 505),
    "HTTP/0.9": (b"GET /v1\r\n\r\n", 400),
    "no path": (b"GET * HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "a proxy's request": (b"GET http://other/ HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "CONNECT": (b"CONNECT plc:502 HTTP/1.1\r\nhost: plc\r\n\r\n", 400),
    "another method": (b"TRACE /v1 HTTP/1.1\r\nhost: x\r\n\r\n", 501),
    "a small method": (b"get /v1 HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "a strange expectation": (HEAD + b"expect: everything\r\ncontent-length: 2\r\n\r\n{}", 417),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_a_request_that_is_none_is_refused(relay: RunningCrew, what: str) -> None:
    data, status = REFUSED[what]
    answer = asked(relay, data.replace(b"KEY", relay.keys["erp"].encode()))
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    assert answer.count(b"connection: close") == answer.count(b"application/problem+json") == 1


def test_byte_by_byte_is_as_whole() -> None:
    """(Of the check: a head is looked at once it is whole.)"""
    for data, status in REFUSED.values():
        end = data.find(b"\r\n\r\n") + 4
        if end > 4 and end <= HEAD_BYTES and status not in (431,):
            with pytest.raises(BadRequest):
                read_head(data[:end], 1 << 25)


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=6),
    st.lists(st.integers(1, 30), max_size=12),
    st.binary(max_size=9),
)
def test_chunks_piece_by_piece_are_as_whole(content: list[bytes], cuts: list[int], behind: bytes) -> None:
    wire = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in content) + b"0\r\n\r\n" + behind
    chunks, found = Chunks(), b""
    for cut in [*cuts, len(wire)]:
        if chunks.done:
            break
        piece, wire = wire[:cut], wire[cut:]
        found += chunks.feed(piece)
    assert (chunks.done, found) == (True, b"".join(content))
    assert chunks.rest + wire == behind


@given(
    st.binary(max_size=60)
    | st.lists(st.sampled_from([b"2", b"0", b"\r\n", b"\r", b"\n", b"{}", b";", b"ff"])).map(b"".join)
)
def test_chunks_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(BadRequest):
        chunks = Chunks()
        assert len(chunks.feed(data)) <= len(data)


CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "chunks",
    [b"x\r\n\r\n", b"-1\r\n", b"2\r\n{}x", b"2\n{}\r\n0\r\n\r\n", b"fffffffffffffffffffff\r\n", b"0x2\r\n{}\r\n"],
)
def test_chunks_that_are_none_are_refused(relay: RunningCrew, chunks: bytes) -> None:
    answer = asked(relay, CHUNKED.replace(b"KEY", relay.keys["erp"].encode()) + chunks)
    assert answer.count(b"HTTP/1.1 ") <= 1
    assert not answer or answer.startswith(b"HTTP/1.1 400 ")


def test_what_stands_behind_a_request_is_never_read_as_one(relay: RunningCrew) -> None:
    """Neither behind a body whose length is said, nor behind one in chunks."""
    key = relay.keys["erp"].encode()
    for body in (b"content-length: 2\r\n\r\n{}", b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"):
        answer = asked(relay, (HEAD + body + SMUGGLED).replace(b"KEY", key))
        assert answer.count(b"HTTP/1.1 ") == 1
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"principal" not in answer
    answer = asked(relay, (SMUGGLED * 3).replace(b"KEY", key))
    assert answer.count(b"HTTP/1.1 200") == 1


def test_a_body_shorter_than_said_stores_nothing(relay: RunningCrew) -> None:
    body = b'{"line": "a", "n": 1}'
    head = (
        f"PUT {COUNTS}/messages/short HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {relay.keys['mes']}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body) + 1}\r\n\r\n"
    ).encode()
    with relay.raw("inner") as sock:
        sock.sendall(head + body)
        sock.shutdown(socket.SHUT_WR)
        assert said(sock) == b""
    with relay.client("mes") as mes:
        assert mes.put(f"{COUNTS}/messages/short", json={"line": "b", "n": 1}).status_code == 201


def test_many_small_chunks_are_bounded(relay: RunningCrew) -> None:
    key = relay.keys["erp"].encode()
    with relay.raw() as sock:
        sock.sendall(CHUNKED.replace(b"KEY", key))
        sent = 0
        with contextlib.suppress(ConnectionError, TimeoutError):
            while sent < 60 << 20:
                sent += sock.send(b"1\r\n \r\n" * 10_000)
        answer = said(sock)
    assert sent < 10 << 20
    assert not answer or answer.startswith(b"HTTP/1.1 400 ")
    serves(relay)


def test_an_early_answer_can_be_read_and_the_connection_goes_on(relay: RunningCrew) -> None:
    """A client that has its answer before its body was wanted may go on with the next request."""
    with relay.client("mes") as mes:
        for _ in range(20):
            answer = mes.put(f"{COUNTS}/messages/x", content=b"x" * 50_000, headers={"content-type": "text/plain"})
            assert answer.status_code == 415
            assert mes.get("/v1").status_code == 200


def test_slow_heads_do_not_hold_the_door(relay: RunningCrew) -> None:
    """Each source has so many connections; more are not taken, those of others are, and slow ones end by themselves."""
    held = []

    def another() -> None:
        held.append(sock := relay.raw())
        with contextlib.suppress(ConnectionError):  # it may have been turned away by then
            sock.sendall(b"GET /v1 HTT")

    def one_too_many() -> bool:
        """The first may have ended by themselves before the last came."""
        another()
        status = relay.children["outer"].status()
        connections = status.figures["http_connections"][""]
        assert isinstance(connections, int) and connections <= LIMITS.connections_source
        return "client_connections_per_address" in status.limits

    assert "client_connections_per_address" not in relay.children["outer"].status().limits
    for _ in range(LIMITS.connections_source):
        another()
    eventually(one_too_many)
    with relay.client("mes") as mes:
        assert mes.get("/v1").status_code == 200
    for sock in held:
        assert said(sock) == b""
        sock.close()
    serves(relay)


def test_who_has_no_business_here_gets_no_connection(relay: RunningCrew) -> None:
    for _ in range(300):
        with relay.raw(source=ELSEWHERE) as sock:
            assert said(sock) == b""
    eventually(lambda: relay.children["outer"].status().figures["http_connections"][""] == 0)


@pytest.mark.soak
def test_a_client_that_does_not_read_is_let_go(relay: RunningCrew) -> None:
    with relay.client("mes") as mes:
        for number in range(30):
            mes.put(f"{COUNTS}/messages/big-{number}", json={"line": "a", "n": 1, "note": "x" * 90_000})
    relay.listeners["outer"].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)  # those that it accepts have it too
    request = (
        f"GET {COUNTS}/messages?max=1000 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {relay.keys['lake']}\r\n\r\n"
    )
    with relay.raw() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(request.encode())
        eventually(lambda: relay.children["outer"].status().figures["http_connections"][""] == 1)
        eventually(lambda: relay.children["outer"].status().figures["http_connections"][""] == 0, PATIENT)
    assert "write_time" in relay.children["outer"].status().limits


def test_noise_ends_nobody(relay: RunningCrew) -> None:
    dice = random.Random(7)
    key = relay.keys["erp"].encode()
    valid = HEAD.replace(b"KEY", key) + b"content-length: 2\r\n\r\n{}"
    for _ in range(150):
        data = bytearray(valid)
        for _ in range(dice.randrange(1, 6)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        with relay.raw() as sock:
            with contextlib.suppress(OSError):  # it may have its answer, and its end, by then
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
            said(sock)
    serves(relay)
    relay.children["outer"].status()


def test_others_are_served_while_somebody_floods(relay: RunningCrew) -> None:
    stop = threading.Event()

    def flood() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError), relay.raw() as sock:
                sock.sendall(b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n" * 20)
                said(sock)

    threads = [threading.Thread(target=flood) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        with relay.client("mes") as mes:
            for _ in range(60):
                assert mes.get("/v1").status_code == 200
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENT)


PIECES = [
    b"GET", b"POST", b" ", b"/", b"/v1", b"HTTP/1.1", b"HTTP/2.0", b"\r\n", b"\n", b"\r", b"host: x", b":", b"\t",
    b"\0", b"content-length: 5", b"transfer-encoding: chunked", b"x: y", b"\xff", b", 5",
]  # fmt: skip


@given(st.binary(max_size=300) | st.lists(st.sampled_from(PIECES), max_size=14).map(b"".join))
def test_a_head_is_whole_and_unambiguous_or_refused(data: bytes) -> None:
    head = data + b"\r\n\r\n"
    head = head[: head.find(b"\r\n\r\n") + 4]
    with contextlib.suppress(BadRequest):
        length = read_head(head, 1 << 25).length
        lines = head.split(b"\r\n")
        assert all(b"\n" not in line and b"\r" not in line and not line.startswith((b" ", b"\t")) for line in lines)
        lengths = [line for line in lines if line.lower().startswith(b"content-length")]
        assert len(lengths) <= 1
        assert (length is None) == any(line.lower().startswith(b"transfer-encoding") for line in lines)


__all__ = ["OFFICE"]
