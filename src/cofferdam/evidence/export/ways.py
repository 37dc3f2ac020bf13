"""The ways to a collector: syslog over TLS, syslog over UDP to loopback, HTTPS, a file in a site's folder. Blocking.

A way takes a batch and says how many entries of it have surely arrived; what has not is sent again by the caller, from
the log. What "surely" is: HTTPS: answered with 2xx; a file: on disk; UDP: handed to the kernel, no more is known there;
TLS: the collector's kernel has confirmed every byte, and the connection still stood SETTLE_SECONDS later. A collector
that dies with more than that in its memory loses it: syslog has no word for "stored".

Not here: what is sent (forms), from where on (cursor).
"""

from __future__ import annotations

import abc
import contextlib
import errno
import fcntl
import http.client
import os
import socket
import ssl
import stat
import struct
import termios
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cofferdam.audit.lines import escaped
from cofferdam.brokers.kit.tls import show
from cofferdam.errors import CofferdamError, GateError
from cofferdam.evidence.export.forms import FORMS, Item, framed, syslog
from cofferdam.policy.rows import Collector

CONNECT_SECONDS = 10.0
STALL_SECONDS = 30.0
"""So long a collector may take nothing at all; one that reads slowly is only slow."""
SETTLE_SECONDS = 3.0
MAX_ANSWER_BYTES = 64 << 10
ANSWER_SECONDS = 60.0
"""For a whole answer, from the request on."""
MAX_DATAGRAM_BYTES = 60_000
FILE = "cofferdam.jsonl"
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
        self.handed = 0
        """Batches handed over, where that is all there is to know."""

    @abc.abstractmethod
    def send(self, items: Sequence[Item]) -> None:
        """Hands a batch over. Raises: WayError, with nothing known of the batch."""

    @abc.abstractmethod
    def arrived(self) -> int:
        """How many of the batches that were handed over since the last WayError have surely arrived. Raises: WayError,
        where one has not and will not."""

    def close(self) -> None:
        """Ends it in order; nothing is known of what was under way. It can be sent by again."""
        self.handed = 0


class Secrets(NamedTuple):
    """What of a collector stands in no policy: the certificate that we show and its key (PEM), the token for HTTPS."""

    certificate: bytes = b""
    key: bytes = b""
    token: bytes = b""


NO_SECRETS = Secrets()


def way(to: Collector, secrets: Secrets = NO_SECRETS, folder: Path | None = None) -> Way:
    """The way to a collector. `folder`: the site's folder, where it has one. Raises: WayError, where what it needs is
    not there, or is none."""
    secured = context(to, secrets) if to.way in ("tls", "https") else None
    match to.way:
        case "tls":
            return Syslog(to, secured)
        case "https":
            return Https(to, secured, _header(to, secrets))
        case "udp":
            return Datagrams(to)
        case _:
            if folder is None:
                raise WayError(f"the folder {to.folder} is not there")
            return Appended(to, folder)


def context(to: Collector, secrets: Secrets) -> ssl.SSLContext:
    """TLS 1.2 or later, the collector's certificate checked, ours shown where there is one. Raises: WayError."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        made.load_verify_locations(cadata=to.authority.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise WayError(f"the authority's certificates cannot be read: {error}") from None
    if secrets.certificate or secrets.key:
        try:
            show(made, secrets.certificate, secrets.key)
        except GateError as wrong:
            raise WayError(f"the certificate for {to.name}: {wrong}") from None
    return made


def _header(to: Collector, secrets: Secrets) -> dict[str, str]:
    if not to.header:
        return {}
    text = secrets.token.decode("utf-8", "replace").strip()
    if not text:
        raise WayError(f"there is no token for {to.header}: cofferdam export secret {to.name} --token FILE")
    if not text.isascii() or not text.isprintable():
        raise WayError(f"the token for {to.header} is not one line of ASCII")
    return {to.header: text}


def dialled(to: Collector) -> socket.socket:
    """A connection to it. Raises: WayError."""
    connection = socket.socket(socket.AF_INET6 if ":" in to.address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        connection.settimeout(CONNECT_SECONDS)
        connection.connect((to.address, to.port))
    except OSError as error:
        connection.close()
        raise WayError(f"{to.where} does not answer: {error}") from None
    return connection


def _secured(to: Collector, secured: ssl.SSLContext) -> ssl.SSLSocket:
    """Raises: WayError."""
    plain = dialled(to)
    try:
        return secured.wrap_socket(plain, server_hostname=to.host or to.address)
    except (OSError, ssl.SSLError, ValueError) as error:
        plain.close()
        raise WayError(f"no TLS with {to.where}: {error}") from None


class Syslog(Way):
    """RFC 5424 over TLS (RFC 5425): octet counting."""

    def __init__(self, to: Collector, secured: ssl.SSLContext | None) -> None:
        super().__init__(to)
        self._secured = secured or context(to, NO_SECRETS)
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
        form, enterprise = self.form, self.to.enterprise
        data = b"".join([framed(syslog(one, form, enterprise)) for one in items])
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
        if self._socket is not None:
            with contextlib.suppress(OSError, ValueError):
                self._socket.settimeout(CONNECT_SECONDS)
                self._socket.unwrap()
        self._drop()

    def _connected(self) -> ssl.SSLSocket:
        if self._socket is None:
            self._socket = _secured(self.to, self._secured)
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
        self._socket: socket.socket | None = None

    def send(self, items: Sequence[Item]) -> None:
        try:
            if self._socket is None:
                self._socket = socket.socket(
                    socket.AF_INET6 if ":" in self.to.address else socket.AF_INET, socket.SOCK_DGRAM
                )
                self._socket.settimeout(STALL_SECONDS)
                self._socket.connect((self.to.address, self.to.port))
            for one in items:
                self._socket.send(syslog(one, self.form, self.to.enterprise)[:MAX_DATAGRAM_BYTES])
        except OSError as error:
            self.close()
            raise WayError(f"{self.to.where} does not take it: {error}") from None
        self.handed += 1

    def arrived(self) -> int:
        return self.handed

    def close(self) -> None:
        super().close()
        connection, self._socket = self._socket, None
        if connection is not None:
            connection.close()


class Https(Way):
    """Batches of JSON lines by POST; 2xx is an acknowledgement."""

    def __init__(self, to: Collector, secured: ssl.SSLContext | None, header: dict[str, str]) -> None:
        super().__init__(to)
        self._secured = secured or context(to, NO_SECRETS)
        self._header = header
        self._connection: http.client.HTTPSConnection | None = None

    def send(self, items: Sequence[Item]) -> None:
        body = b"".join(self.form(one) + b"\n" for one in items)
        kind = "text/plain; charset=utf-8" if self.to.form == "cef" else "application/x-ndjson"
        headers = {"Content-Type": kind, "User-Agent": "cofferdam-export", **self._header}
        try:
            connection = self._connected()
            connection.request("POST", self.to.path or "/", body, headers)
            answer = connection.getresponse()
            answer.read(MAX_ANSWER_BYTES)
            if not answer.isclosed():  # an answer that does not end: what it said is said, the connection is not kept
                connection.close()
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._drop()
            raise WayError(f"{self.to.where}: {escaped(str(error)[:300]) or type(error).__name__}") from None
        if not 200 <= answer.status < 300:
            self._drop()
            raise WayError(f"{self.to.where} answers {answer.status} {escaped(answer.reason[:200])}")
        self.handed += 1

    def arrived(self) -> int:
        return self.handed

    def close(self) -> None:
        self._drop()

    def _connected(self) -> http.client.HTTPSConnection:
        if self._connection is None:
            self._connection = _Connection(self.to, self._secured)
        return self._connection

    def _drop(self) -> None:
        self.handed = 0
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class _Bounded:
    """A file of an answer, of which no more is read than an answer may have, in no more time: the library reads
    whatever a chunk says of its length, and passes over any number of answers 100."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._left = 2 * MAX_ANSWER_BYTES
        self._until = time.monotonic() + ANSWER_SECONDS

    def _most(self, count: int | None) -> int:
        if self._left <= 0 or time.monotonic() > self._until:
            raise OSError(errno.EMSGSIZE, "its answer is too long, or takes too long")
        return self._left if count is None or count < 0 else min(count, self._left)

    def read(self, count: int | None = -1) -> bytes:
        data: bytes = self._file.read(self._most(count))
        self._left -= len(data)
        return data

    def readline(self, count: int | None = -1) -> bytes:
        data: bytes = self._file.readline(self._most(count))
        self._left -= len(data)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _Answer(http.client.HTTPResponse):
    """An answer of which so much is read and no more."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.fp = _Bounded(self.fp)  # type: ignore[assignment]


class _Connection(http.client.HTTPSConnection):
    """To an address, by whatever name its certificate has."""

    response_class = _Answer

    def __init__(self, to: Collector, secured: ssl.SSLContext) -> None:
        super().__init__(to.host or to.address, to.port, timeout=STALL_SECONDS, context=secured)
        self._to, self._secured = to, secured

    def connect(self) -> None:
        self.sock = _secured(self._to, self._secured)
        self.sock.settimeout(STALL_SECONDS)


class Appended(Way):
    """A file of lines in a folder of the site's, for a collector that reads files; on disk before it counts. Others
    may write in the folder: what is there under our name and is no plain file is not written to."""

    def __init__(self, to: Collector, folder: Path) -> None:
        super().__init__(to)
        self.path = folder / FILE

    def send(self, items: Sequence[Item]) -> None:
        path = self.path
        try:
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_size > FILE_BYTES:
                    path.replace(path.with_name(path.name + ".1"))
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            with os.fdopen(os.open(path, flags, 0o640), "ab", buffering=0) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise OSError(errno.EINVAL, "no plain file")
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
