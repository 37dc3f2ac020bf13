"""The ways to a collector: syslog over TLS, syslog over UDP to loopback, HTTPS, a file. Blocking.

A way takes a batch and says how many entries of it have surely arrived; what has not is sent again by the caller, from
the log. What "surely" is: HTTPS: answered with 2xx; a file: on disk; UDP: handed to the kernel, no more is known there;
TLS: the collector's kernel has confirmed every byte, and the connection still stood SETTLE_SECONDS later. A collector
that dies with more than that in its memory loses it: syslog has no word for "stored".

Not here: what is sent (forms), from where on (cursor).
"""

from __future__ import annotations

import abc
import contextlib
import fcntl
import http.client
import os
import socket
import ssl
import struct
import termios
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cofferdam.errors import CofferdamError
from cofferdam.evidence.export.forms import FORMS, Item, framed, syslog
from cofferdam.evidence.export.settings import Collector

CONNECT_SECONDS = 10.0
STALL_SECONDS = 30.0
"""So long a collector may take nothing at all; one that reads slowly is only slow."""
SETTLE_SECONDS = 3.0
MAX_ANSWER_BYTES = 64 << 10
MAX_DATAGRAM_BYTES = 60_000
FILE_BYTES = 256 << 20
"""A file that has grown to this is renamed to NAME.1, and a new one begun."""


class WayError(CofferdamError):
    """Nothing can be given over now. The message is for the alarm."""


class Way(abc.ABC):
    """One collector's. `send` is called with entries in order, again and again with what has not arrived."""

    batch = 500
    """Entries at once."""

    def __init__(self, to: Collector) -> None:
        self.to = to
        self.form = FORMS[to.form]
        self.secured: ssl.SSLContext | None = None
        """Its certificates, where they have been read already."""
        self.handed = 0
        """Batches handed over, where that is all there is to know."""

    @abc.abstractmethod
    def send(self, items: Sequence[Item]) -> None:
        """Hands a batch over. Raises: WayError, with nothing known of the batch."""

    @abc.abstractmethod
    def arrived(self) -> int:
        """How many of the batches that were handed over since the last WayError have surely arrived. Raises: WayError,
        where one has not and will not."""

    def close(self) -> None:  # noqa: B027 - not every way has something to close
        """Ends it in order."""


@dataclass(frozen=True)
class Prepared:
    """A collector whose certificates and tokens have been read."""

    to: Collector
    secured: ssl.SSLContext | None

    def way(self, to: Collector) -> Way:
        """A way to it."""
        made = way(to)
        made.secured = self.secured
        return made


def prepared(to: Collector) -> Prepared:
    """Reads what only root may. Raises: WayError."""
    header = []
    for name, value in to.header:
        if value.startswith("file:"):
            try:
                value = Path(value.removeprefix("file:")).read_text("utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise WayError(f"the header {name} cannot be read: {error}") from None
        header.append((name, value))
    secured = context(to) if to.way in ("tls", "https") else None
    return Prepared(msgspec.structs.replace(to, header=tuple(header)), secured)


def way(to: Collector) -> Way:
    """The way to a collector."""
    kinds: dict[str, Callable[[Collector], Way]] = {
        "tls": Syslog, "udp": Datagrams, "https": Https, "file": Appended,
    }  # fmt: skip
    return kinds[to.way](to)


def context(to: Collector) -> ssl.SSLContext:
    """TLS 1.2 or later, the collector's certificate checked, ours shown where there is one. Raises: WayError."""
    try:
        made = ssl.create_default_context(cafile=to.ca or None)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        if to.certificate:
            made.load_cert_chain(to.certificate, to.key)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise WayError(f"its certificates cannot be read: {error}") from None
    return made


class Syslog(Way):
    """RFC 5424 over TLS (RFC 5425): octet counting."""

    def __init__(self, to: Collector) -> None:
        super().__init__(to)
        self._socket: ssl.SSLSocket | None = None
        self._bytes = 0
        self._flight: deque[tuple[int, float]] = deque()
        """Of each batch under way: the bytes of the connection after it, and when it was handed over."""
        self._settled = 0
        self._moved_at = 0.0
        self._waiting = 0
        """Bytes that the collector's kernel has not confirmed, when it was asked last."""

    def send(self, items: Sequence[Item]) -> None:
        connection = self._connected()
        data = b"".join(framed(syslog(one, self.form, self.to.enterprise)) for one in items)
        view = memoryview(data)
        try:
            while view:
                connection.settimeout(STALL_SECONDS)
                view = view[connection.send(view[: 64 << 10]) :]
                self._look(connection)
        except (OSError, ValueError) as error:
            self._drop()
            raise WayError(f"the connection broke: {error}") from None
        now = time.monotonic()
        self._bytes += len(data)
        self._flight.append((self._bytes, now))
        self._moved_at = now

    def arrived(self) -> int:
        connection = self._socket
        if connection is None:
            if self._settled or self._flight:
                self._drop()
                raise WayError("there is no connection")
            return 0
        try:
            self._look(connection)
            waiting = struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0]
        except (OSError, ValueError) as error:
            self._drop()
            raise WayError(f"the connection broke: {error}") from None
        now = time.monotonic()
        if waiting < self._waiting:
            self._moved_at = now  # slowly, but it takes them
        self._waiting = waiting
        if waiting and now - self._moved_at > STALL_SECONDS:
            self._drop()
            raise WayError(f"it has taken nothing for {STALL_SECONDS:.0f} s")
        # What waits is encrypted, so at least as many bytes of ours have been confirmed as this says.
        while self._flight and self._flight[0][0] <= self._bytes - waiting and (
            now - self._flight[0][1] > SETTLE_SECONDS
        ):  # fmt: skip
            self._flight.popleft()
            self._settled += 1
        return self._settled

    def close(self) -> None:
        connection, self._socket = self._socket, None
        if connection is not None:
            with contextlib.suppress(OSError, ValueError):
                connection.settimeout(CONNECT_SECONDS)
                connection.unwrap()
            connection.close()

    def _connected(self) -> ssl.SSLSocket:
        if self._socket is None:
            secured = self.secured or context(self.to)
            try:
                plain = socket.create_connection((self.to.host, self.to.port), CONNECT_SECONDS)
            except OSError as error:
                raise WayError(f"{self.to.where} does not answer: {error}") from None
            try:
                self._socket = secured.wrap_socket(plain, server_hostname=self.to.server_name or self.to.host)
            except (OSError, ssl.SSLError, ValueError) as error:
                plain.close()
                raise WayError(f"no TLS with {self.to.where}: {error}") from None
        return self._socket

    @staticmethod
    def _look(connection: ssl.SSLSocket) -> None:
        """A collector says nothing; one that closes says so here. Raises: OSError."""
        connection.settimeout(0)
        try:
            if connection.recv(4096) == b"":
                raise ConnectionResetError("the collector closed it")
        except (ssl.SSLWantReadError, BlockingIOError):
            pass

    def _drop(self) -> None:
        connection, self._socket = self._socket, None
        self._bytes, self._settled, self._waiting = 0, 0, 0
        self._flight.clear()
        if connection is not None:
            connection.close()


class Datagrams(Way):
    """RFC 5424 in datagrams (RFC 5426), to loopback. A message that is too long for one is cut."""

    def __init__(self, to: Collector) -> None:
        super().__init__(to)
        family = socket.AF_INET6 if ":" in to.host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.settimeout(STALL_SECONDS)
        self._connected = False

    def send(self, items: Sequence[Item]) -> None:
        try:
            if not self._connected:
                self._socket.connect((self.to.host, self.to.port))
                self._connected = True
            for one in items:
                self._socket.send(syslog(one, self.form, self.to.enterprise)[:MAX_DATAGRAM_BYTES])
        except OSError as error:
            self.handed = 0
            raise WayError(f"{self.to.where} does not take it: {error}") from None
        self.handed += 1

    def arrived(self) -> int:
        return self.handed

    def close(self) -> None:
        self._socket.close()


class Https(Way):
    """Batches of JSON lines by POST; 2xx is an acknowledgement."""

    def __init__(self, to: Collector) -> None:
        super().__init__(to)
        self._connection: http.client.HTTPSConnection | None = None

    def send(self, items: Sequence[Item]) -> None:
        body = b"".join(self.form(one) + b"\n" for one in items)
        kind = "text/plain; charset=utf-8" if self.to.form == "cef" else "application/x-ndjson"
        headers = {"Content-Type": kind, "User-Agent": "cofferdam-export", **dict(self.to.header)}
        try:
            connection = self._connected()
            connection.request("POST", self.to.path or "/", body, headers)
            answer = connection.getresponse()
            answer.read(MAX_ANSWER_BYTES)
            if not answer.isclosed():  # an answer that does not end: what it said is said, the connection is not kept
                connection.close()
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._drop()
            raise WayError(f"{self.to.where}: {str(error) or type(error).__name__}") from None
        if not 200 <= answer.status < 300:
            self._drop()
            raise WayError(f"{self.to.where} answers {answer.status} {answer.reason}")
        self.handed += 1

    def arrived(self) -> int:
        return self.handed

    def close(self) -> None:
        self._drop()

    def _connected(self) -> http.client.HTTPSConnection:
        if self._connection is None:
            secured = self.secured or context(self.to)
            if self.to.server_name:
                self._connection = _Named(self.to, secured)
            else:
                self._connection = http.client.HTTPSConnection(
                    self.to.host, self.to.port, timeout=STALL_SECONDS, context=secured
                )
        return self._connection

    def _drop(self) -> None:
        self.handed = 0
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class _Named(http.client.HTTPSConnection):
    """To an address whose certificate has a name."""

    def __init__(self, to: Collector, secured: ssl.SSLContext) -> None:
        super().__init__(to.host, to.port, timeout=STALL_SECONDS, context=secured)
        self._to, self._secured = to, secured

    def connect(self) -> None:
        plain = socket.create_connection((self._to.host, self._to.port), CONNECT_SECONDS)
        plain.settimeout(STALL_SECONDS)
        self.sock = self._secured.wrap_socket(plain, server_hostname=self._to.server_name)


class Appended(Way):
    """A file of lines, for a collector that reads files; on disk before it counts."""

    def send(self, items: Sequence[Item]) -> None:
        path = Path(self.to.path)
        try:
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_size > FILE_BYTES:
                    path.replace(path.with_name(path.name + ".1"))
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            with os.fdopen(os.open(path, flags, 0o640), "ab", buffering=0) as file:
                view = memoryview(b"".join(self.form(one) + b"\n" for one in items))
                while view:
                    view = view[file.write(view) or 0 :]
                os.fsync(file.fileno())
        except OSError as error:
            self.handed = 0
            raise WayError(f"{path} cannot be written: {error.strerror}") from None
        self.handed += 1

    def arrived(self) -> int:
        return self.handed
