"""A server of SFTP version 3 towards one client: bytes in, operations out; answers in, bytes out. PURE.

draft-ietf-secsh-filexfer-02. Of OpenSSH's extensions it has limits@openssh.com and posix-rename@openssh.com; links are
not made and not read. A client may have so many requests under way; what it asks for beyond that waits in its channel.

    new ──INIT──► open ──a packet that is none──► broken

A packet that breaks the form is a RemoteProtocolError, after which the session ends; a request whose content cannot be
served (a path that is no text, an unknown operation) is answered with a status.

Not here: what files there are (the brokers).
"""

from __future__ import annotations

import stat
import struct
from datetime import UTC, datetime
from typing import Final

from cofferdam.errors import RemoteProtocolError
from cofferdam.protocols.sftp import messages as m

VERSION: Final = 3
PACKET_BYTES: Final = 262_144 + 1_024
UNDER_WAY_MOST: Final = 64
HANDLES_MOST: Final = 256
(
    INIT, OPEN, CLOSE, READ, WRITE, LSTAT, FSTAT, SETSTAT, FSETSTAT, OPENDIR, READDIR, REMOVE, MKDIR, RMDIR, REALPATH,
    STAT, RENAME, READLINK, SYMLINK,
) = (1, *range(3, 21))  # fmt: skip
EXTENDED: Final = 200
_VERSION, _STATUS, _HANDLE, _DATA, _NAME, _ATTRS, _EXTENDED_REPLY = 2, 101, 102, 103, 104, 105, 201
_SIZE, _OWNER, _MODE, _TIMES, _EXTRA = 1, 2, 4, 8, 0x80000000
_READ, _WRITE, _APPEND, _CREAT, _TRUNC, _EXCL = 1, 2, 4, 8, 16, 32
_CODES: Final[dict[m.Why, int]] = {
    "ok": 0, "eof": 1, "no such file": 2, "permission denied": 3, "failure": 4, "unsupported": 8,
}  # fmt: skip


def _wrong(what: str) -> RemoteProtocolError:
    return RemoteProtocolError(what, section="draft-ietf-secsh-filexfer-02, 3 to 7")


class _Unserved(Exception):
    """A request of good form that cannot be served."""


class _Reader:
    """The fields of one packet."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        if count > len(self._data) - self._at:
            raise _wrong(f"a field of {count} bytes in a packet that has {len(self._data) - self._at} left")
        found = self._data[self._at : self._at + count]
        self._at += count
        return found

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "big")

    def string(self) -> bytes:
        return self.take(self.u32())

    def path(self) -> str:
        raw = self.string()
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            raise _Unserved("a path that is no UTF-8") from None
        if "\0" in text or len(raw) > m.PATH_BYTES:
            raise _Unserved("a path with NUL, or too long")
        return text

    def handle(self) -> int:
        raw = self.string()
        number = int.from_bytes(raw, "big") if len(raw) == 4 else 0
        if not 1 <= number < 1 << 31:
            raise _Unserved("a handle that was never given out")
        return number

    def offset(self) -> int:
        found = self.u64()
        if found >= 1 << 63:
            raise _Unserved("an offset beyond 2^63")
        return found

    def attributes(self) -> m.Attributes:
        flags = self.u32()
        if flags & ~(_SIZE | _OWNER | _MODE | _TIMES | _EXTRA):
            raise _wrong(f"attributes with the flags {flags:#x}")
        size = self.u64() if flags & _SIZE else None
        owner = (self.u32(), self.u32()) if flags & _OWNER else None
        mode = self.u32() if flags & _MODE else None
        times = (self.u32(), self.u32()) if flags & _TIMES else None
        if flags & _EXTRA:
            count = self.u32()
            if count > 16:
                raise _wrong(f"{count} extended attributes")
            for _ in range(count):
                self.string(), self.string()
        if size is not None and size >= 1 << 63:
            raise _Unserved("a size beyond 2^63")
        return m.Attributes(size, owner, mode, times)

    def end(self) -> None:
        if self._at != len(self._data):
            raise _wrong(f"a packet with {len(self._data) - self._at} bytes left over")


class Server:
    """One client's session."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._open = False
        self._ids: dict[int, tuple[int, m.Operation]] = {}
        self._last = 0
        self._ready = bytearray()

    @property
    def under_way(self) -> int:
        """Requests that wait for their answers."""
        return len(self._ids)

    def receive_data(self, data: bytes) -> None:
        """Takes bytes of the client."""
        self._buffer += data

    def data_to_send(self) -> bytes:
        """What was answered by now."""
        data, self._ready = bytes(self._ready), bytearray()
        return data

    def next_operation(self) -> tuple[int, m.Operation] | None:
        """The next thing that is asked for, with a number for its answer; None: none yet, or too many are under way.

        Raises: RemoteProtocolError: the client speaks no SFTP.
        """
        while len(self._ids) < UNDER_WAY_MOST:
            packet = self._packet()
            if packet is None:
                return None
            kind, reader = packet[0], _Reader(packet[1:])
            if not self._open:
                if kind != INIT:
                    raise _wrong(f"packet {kind} before INIT")
                if reader.u32() < VERSION:
                    raise _wrong("a client of an older version than 3")
                self._open = True
                self._put(_VERSION, struct.pack(">I", VERSION), _string(b"limits@openssh.com"), _string(b"1"),
                          _string(b"posix-rename@openssh.com"), _string(b"1"))  # fmt: skip
                continue
            if kind == INIT:
                raise _wrong("a second INIT")
            request = reader.u32()
            try:
                operation = self._operation(kind, reader, request)
            except _Unserved as error:
                self._status(request, "failure", str(error))
                continue
            if operation is not None:
                self._last += 1
                self._ids[self._last] = (request, operation)
                return self._last, operation
        return None

    def _packet(self) -> bytes | None:
        if len(self._buffer) < 4:
            return None
        size = int.from_bytes(self._buffer[:4], "big")
        if not 1 <= size <= PACKET_BYTES:
            raise _wrong(f"a packet of {size} bytes; from 1 to {PACKET_BYTES} are taken")
        if len(self._buffer) < 4 + size:
            return None
        packet = bytes(self._buffer[4 : 4 + size])
        del self._buffer[: 4 + size]
        return packet

    def _operation(self, kind: int, reader: _Reader, request: int) -> m.Operation | None:
        """What a packet asks for; None: it is answered already."""
        match kind:
            case 3:  # OPEN
                path, flags = reader.path(), reader.u32()
                found: m.Operation = m.Open(
                    path, bool(flags & _READ), bool(flags & _WRITE), bool(flags & _APPEND), bool(flags & _CREAT),
                    bool(flags & _TRUNC), bool(flags & _EXCL), reader.attributes(),
                )  # fmt: skip
            case 4:  # CLOSE
                found = m.Close(reader.handle())
            case 5:  # READ: more than there may be in one answer is answered short
                found = m.Read(reader.handle(), reader.offset(), min(reader.u32(), m.DATA_BYTES))
            case 6:  # WRITE
                handle, offset, data = reader.handle(), reader.offset(), reader.string()
                if len(data) > m.DATA_BYTES or offset + len(data) >= 1 << 63:
                    raise _Unserved(f"a write of {len(data)} bytes")
                found = m.Write(handle, offset, data)
            case 7 | 17:  # LSTAT, STAT
                found = m.Stat(reader.path(), kind == STAT)
            case 8:
                found = m.HandleStat(reader.handle())
            case 9:
                found = m.SetStat(reader.path(), reader.attributes())
            case 10:
                found = m.HandleSetStat(reader.handle(), reader.attributes())
            case 11:
                found = m.OpenFolder(reader.path())
            case 12:
                found = m.ReadFolder(reader.handle())
            case 13:
                found = m.Remove(reader.path())
            case 14:
                found = m.MakeFolder(reader.path())
                reader.attributes()
            case 15:
                found = m.RemoveFolder(reader.path())
            case 16:
                found = m.RealPath(reader.path())
            case 18:
                found = m.Rename(reader.path(), reader.path(), False)
            case 200:
                return self._extended(reader, request)
            case _:
                self._status(request, "unsupported", "there is no such operation here")
                return None
        reader.end()
        return found

    def _extended(self, reader: _Reader, request: int) -> m.Operation | None:
        name = reader.string()
        if name == b"posix-rename@openssh.com":
            found = m.Rename(reader.path(), reader.path(), True)
            reader.end()
            return found
        if name == b"limits@openssh.com":
            reader.end()
            sizes = (PACKET_BYTES, m.DATA_BYTES, m.DATA_BYTES, HANDLES_MOST)
            self._put(_EXTENDED_REPLY, struct.pack(">I4Q", request, *sizes))
            return None
        self._status(request, "unsupported", "there is no such extension here")
        return None

    # --- answers ----------------------------------------------------------------------------------------------------

    def answer(self, number: int, said: m.Answer) -> None:
        """Answers what was asked under this number, once."""
        request, operation = self._ids.pop(number)
        head = struct.pack(">I", request)
        match said:
            case m.Status(why, text):
                self._status(request, why, text)
            case m.Opened(handle):
                self._put(_HANDLE, head, _string(handle.to_bytes(4, "big")))
            case m.Content(data):
                self._put(_DATA, head, _string(data))
            case m.Found(attributes):
                self._put(_ATTRS, head, encode(attributes))
            case m.Names(names):
                bare = isinstance(operation, m.RealPath)
                parts = [_entry(one, bare) for one in names]
                self._put(_NAME, head, struct.pack(">I", len(parts)), *parts)

    def _status(self, request: int, why: m.Why, text: str) -> None:
        self._put(_STATUS, struct.pack(">II", request, _CODES[why]), _string((text or why).encode()), _string(b"en"))

    def _put(self, kind: int, *parts: bytes) -> None:
        body = b"".join(parts)
        self._ready += struct.pack(">IB", len(body) + 1, kind) + body


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def encode(attributes: m.Attributes) -> bytes:
    """Attributes as they stand in packets."""
    flags, parts = 0, [b""]
    if attributes.size is not None:
        flags |= _SIZE
        parts.append(struct.pack(">Q", attributes.size))
    if attributes.owner is not None:
        flags |= _OWNER
        parts.append(struct.pack(">II", *attributes.owner))
    if attributes.mode is not None:
        flags |= _MODE
        parts.append(struct.pack(">I", attributes.mode))
    if attributes.times is not None:
        flags |= _TIMES
        parts.append(struct.pack(">II", *attributes.times))
    parts[0] = struct.pack(">I", flags)
    return b"".join(parts)


def _entry(one: m.Name, bare: bool) -> bytes:
    """A name, the line that `ls -l` would show, attributes."""
    line = one.name if bare else long_name(one)
    return _string(one.name.encode()) + _string(line.encode()) + encode(one.attributes)


def long_name(one: m.Name) -> str:
    """A line as `ls -l` has it, of nothing but the attributes."""
    attributes = one.attributes
    mode = stat.filemode(attributes.mode) if attributes.mode is not None else "?---------"
    when = ""
    if attributes.times is not None:
        when = f"{datetime.fromtimestamp(attributes.times[1], UTC):%b %d %Y}"
    owner, group = attributes.owner or (0, 0)
    return f"{mode} 1 {owner} {group} {attributes.size or 0:>12} {when} {one.name}"
