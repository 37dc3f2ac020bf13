"""Entries of a ZIP under AES (AE-1 and AE-2, as WinZip and 7-Zip make them), which zipfile does not open: decrypted and
unpacked piece by piece. Runs in the examiner.

An entry is a salt, two bytes by which most wrong passwords show, what is encrypted, and a code over that. Its last
piece is given out once that code holds. Not here: what an archive may have in it (archives).
"""

from __future__ import annotations

import hashlib
import hmac
import io
import struct
import zipfile
import zlib
from typing import IO, Any, Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

METHOD: Final = 99
"""Of packing, which is said of such an entry; the real one stands in its extra field."""
_FIELD: Final = 0x9901
_ROUNDS: Final = 1000
_CODE: Final = 10
_BLOCK: Final = 16
PIECE: Final = 64 << 10


def opened(archive: zipfile.ZipFile, info: zipfile.ZipInfo, password: bytes) -> IO[bytes]:
    """What an entry is. Raises: RuntimeError: the password does not open it; zipfile.BadZipFile."""
    version, strength, method = _said(info.extra)
    keys, salts = 8 * (strength + 1), 4 * (strength + 1)
    source: Any = archive.fp
    source.seek(info.header_offset + 26)
    start = info.header_offset + 30 + sum(struct.unpack("<HH", source.read(4)))
    source.seek(start)
    salt, check = source.read(salts), source.read(2)
    size = info.compress_size - salts - 2 - _CODE
    if len(check) != 2 or size < 0:
        raise zipfile.BadZipFile("an entry under AES that is cut off")
    made = hashlib.pbkdf2_hmac("sha1", password, salt, _ROUNDS, 2 * keys + 2)
    if made[-2:] != check:
        raise RuntimeError("another password")
    crc = info.CRC if version == 1 else None
    return io.BufferedReader(
        _Entry(source, start + salts + 2, size, made[:keys], made[keys:-2], method, info.file_size, crc)
    )


def _said(extra: bytes) -> tuple[int, int, int]:
    """(version, strength, method of packing) of the extra field. Raises: zipfile.BadZipFile."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        if kind == _FIELD and length == 7 and len(extra) >= 11:
            version, vendor, strength, method = struct.unpack_from("<H2sBH", extra, 4)
            if version in (1, 2) and vendor == b"AE" and strength in (1, 2, 3) and method in (0, 8):
                return version, strength, method
        extra = extra[4 + length :]
    raise zipfile.BadZipFile("an entry under AES of a kind that is not known here")


class _Entry(io.RawIOBase):
    """What is in it, decrypted and unpacked while it is read."""

    def __init__(
        self, source: Any, at: int, size: int, key: bytes, code: bytes, method: int, unpacked: int, crc: int | None
    ) -> None:
        self._source, self._at, self._left = source, at, size
        self._cipher = Cipher(AES(key), ECB()).encryptor()  # noqa: S305 - counters are encrypted, and each once
        self._code = hmac.new(code, digestmod="sha1")
        self._unpack = zlib.decompressobj(-zlib.MAX_WBITS) if method == zipfile.ZIP_DEFLATED else None
        self._blocks = 1
        self._waits = b""
        """Decrypted, and not unpacked yet."""
        self._ready = b""
        self._rest, self._crc, self._wanted = unpacked, 0, crc
        self._holds = self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        room = memoryview(buffer)
        while not self._ready and not self._ended:
            self._ready = self._more(max(len(room), PIECE))
        count = min(len(room), len(self._ready))
        room[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _more(self, most: int) -> bytes:
        """The next piece. Raises: zipfile.BadZipFile."""
        packed = self._waits or self._decrypted()
        if self._unpack is None:
            self._waits, data = b"", packed
        else:
            data = self._unpack.decompress(packed, most)
            self._waits = self._unpack.unconsumed_tail
            if self._unpack.unused_data or (not data and not packed and not self._unpack.eof):
                raise zipfile.BadZipFile("an entry under AES that is packed wrongly")
        self._rest -= len(data)
        self._crc = zlib.crc32(data, self._crc)
        if self._rest < 0:
            raise zipfile.BadZipFile("an entry under AES that is longer than it says")
        if not data and not self._waits and self._holds:
            self._end()
        return data

    def _decrypted(self) -> bytes:
        count = min(PIECE, self._left)
        if self._holds:
            return b""
        self._source.seek(self._at)
        data: bytes = self._source.read(count)
        if len(data) != count:
            raise zipfile.BadZipFile("an entry under AES that is cut off")
        self._at, self._left = self._at + count, self._left - count
        self._code.update(data)
        blocks = range(self._blocks, self._blocks + -(-count // _BLOCK))
        self._blocks = blocks.stop
        stream = self._cipher.update(b"".join(each.to_bytes(_BLOCK, "little") for each in blocks))[:count]
        mixed = int.from_bytes(data, "little") ^ int.from_bytes(stream, "little")
        if not self._left:
            self._holds = hmac.compare_digest(self._source.read(_CODE), self._code.digest()[:_CODE])
            if not self._holds:
                raise zipfile.BadZipFile("an entry under AES that was changed")
        return mixed.to_bytes(count, "little")

    def _end(self) -> None:
        self._ended = True
        whole = self._unpack is None or self._unpack.eof
        if not whole or self._rest or (self._wanted is not None and self._crc != self._wanted):
            raise zipfile.BadZipFile("an entry under AES that is not what it says")
