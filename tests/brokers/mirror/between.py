"""Somebody between the mirror and its historian, who passes everything on, and after the beginning of a COPY says what
the test gives instead of the historian."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

COPY_OUT = b"H"


class Between:
    """Listens at `port`; `say` replaces the historian's next COPY, if it is set: pieces, and how often each."""

    def __init__(self, port: int) -> None:
        self._theirs = port
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.say: list[tuple[bytes, int]] = []
        self.skip = 0
        """How many of the historian's COPYs pass before that."""
        self.said = 0
        self.goes_on = threading.Event()
        """Nothing else is passed on after what it said, unless this is set."""
        self.goes_on.set()
        self.change: Callable[[bytes], bytes] = bytes
        """What becomes of each of the historian's messages."""
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = self._socket.accept()
                there = socket.create_connection(("127.0.0.1", self._theirs))
                for one, other, work in ((here, there, self._pass), (there, here, self._answer)):
                    threading.Thread(target=work, args=(one, other), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError), _both(source, target):
            while data := source.recv(1 << 16):
                target.sendall(data)

    def _answer(self, source: socket.socket, target: socket.socket) -> None:
        """Message by message: a letter, a length, what follows."""
        with contextlib.suppress(OSError), _both(source, target):
            waiting = b""
            while data := source.recv(1 << 16):
                waiting += data
                while len(waiting) >= 5 and len(waiting) > (size := int.from_bytes(waiting[1:5], "big")):
                    message, waiting = waiting[: size + 1], waiting[size + 1 :]
                    target.sendall(self.change(message))
                    if message[:1] == COPY_OUT and self.say and self.skip:
                        self.skip -= 1
                    elif message[:1] == COPY_OUT and self.say:
                        said, self.say = self.say, []
                        self.said += 1
                        for piece, times in said:
                            for _ in range(times):
                                target.sendall(piece)
                        self.goes_on.wait()

    def close(self) -> None:
        self._socket.close()


@contextlib.contextmanager
def _both(*ends: socket.socket) -> Iterator[None]:
    """Both end together: one that is closed while a thread reads of it would stay open."""
    try:
        yield
    finally:
        for one in ends:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@contextlib.contextmanager
def between(port: int) -> Iterator[Between]:
    found = Between(port)
    try:
        yield found
    finally:
        found.close()


HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)


def data(body: bytes) -> bytes:
    """A CopyData message."""
    return b"d" + (len(body) + 4).to_bytes(4, "big") + body


def huge(size: int) -> list[tuple[bytes, int]]:
    """One row that says to have so many bytes, and has them."""
    return [(b"d" + (size + 4).to_bytes(4, "big"), 1), (bytes(1 << 20), size >> 20)]


def row(*fields: bytes | None) -> bytes:
    """A row as COPY BINARY has it."""
    found = len(fields).to_bytes(2, "big")
    for one in fields:
        found += (-1).to_bytes(4, "big", signed=True) if one is None else len(one).to_bytes(4, "big") + one
    return found
