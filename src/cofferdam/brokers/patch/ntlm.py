"""NTLM version 2 ([MS-NLMP]), as the client of one log-in: three messages, and a key that both sides have afterwards.

The password never leaves; but whoever is asked can try passwords on the answer at home, so take a long random one. That
the server knows it as well shows in what it signs and encrypts with the key (smb). Not here: Kerberos, NTLM version 1,
messages that NTLM itself signs.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import struct
from typing import Final

from cofferdam.errors import CofferdamError

_MARK: Final = b"NTLMSSP\0"
_FLAGS: Final = 0x1 | 0x4 | 0x10 | 0x200 | 0x8000 | 0x80000 | 0x800000 | 0x20000000 | 0x80000000
"""Unicode, target, sign, NTLM, always sign, extended session security, target info, keys of 128 and 56 bits."""
_END, _NAME_FLAGS, _TIME = 0, 6, 7
_HAS_MIC: Final = 2
INFO_BYTES: Final = 4096


class NoLogin(CofferdamError):
    """The server's part of a log-in is none."""


def negotiate() -> bytes:
    """The first message."""
    return _MARK + struct.pack("<II", 1, _FLAGS) + bytes(16)


def authenticate(user: str, password: str, first: bytes, challenge: bytes, domain: str = "") -> tuple[bytes, bytes]:
    """(the last message, the key of the session), once the server has asked. Raises: NoLogin."""
    if len(challenge) < 48 or challenge[:12] != _MARK + struct.pack("<I", 2):
        raise NoLogin("the server's question is none of NTLM")
    flags, asked = struct.unpack_from("<I8s", challenge, 20)
    length, _, offset = struct.unpack_from("<HHI", challenge, 40)
    info = challenge[offset : offset + length]
    if len(info) != length or not 4 <= length <= INFO_BYTES or not flags & 0x800000 or not flags & 0x80000:
        raise NoLogin("the server speaks NTLM of an old kind")
    names = _names(info)
    if _TIME not in names or len(names[_TIME]) != 8:
        raise NoLogin("the server speaks NTLM of an old kind, without its time")
    (said,) = struct.unpack("<I", names.get(_NAME_FLAGS, bytes(4)).ljust(4, b"\0")[:4])
    names[_NAME_FLAGS] = struct.pack("<I", said | _HAS_MIC)
    told = b"".join(struct.pack("<HH", name, len(value)) + value for name, value in names.items()) + bytes(4)
    key = _hmac(md4(password.encode("utf-16-le")), (user.upper() + domain).encode("utf-16-le"))
    temp = b"\1\1" + bytes(6) + names[_TIME] + secrets.token_bytes(8) + bytes(4) + told + bytes(4)
    proof = _hmac(key, asked + temp)
    session = _hmac(key, proof)
    at, fields, payload = 88, b"", b""
    for value in (bytes(24), proof + temp, domain.encode("utf-16-le"), user.encode("utf-16-le"), b"", b""):
        fields += struct.pack("<HHI", len(value), len(value), at + len(payload))
        payload += value
    head = _MARK + struct.pack("<I", 3) + fields + struct.pack("<I", flags & _FLAGS) + bytes(8)
    mic = _hmac(session, first + challenge + head + bytes(16) + payload)
    return head + mic + payload, session


def _names(info: bytes) -> dict[int, bytes]:
    """What the server says of itself. Raises: NoLogin."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(info):
        name, length = struct.unpack_from("<HH", info, at)
        if name == _END:
            return found
        value = info[at + 4 : at + 4 + length]
        if len(value) != length or name in found:
            break
        found[name] = value
        at += 4 + length
    raise NoLogin("what the server says of itself makes no sense")


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, hashlib.md5).digest()


def md4(data: bytes) -> bytes:
    """RFC 1320, which OpenSSL has no more. For NTLM alone, whose strength is the password's."""
    state = [0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476]
    whole = data + b"\x80" + bytes(-(len(data) + 9) % 64) + struct.pack("<Q", len(data) * 8)
    orders = (
        range(16),
        [at % 4 * 4 + at // 4 for at in range(16)],
        (0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15),
    )
    turns = ((3, 7, 11, 19), (3, 5, 9, 13), (3, 9, 11, 15))
    for start in range(0, len(whole), 64):
        words = struct.unpack_from("<16I", whole, start)
        a, b, c, d = state
        for step, (order, turn) in enumerate(zip(orders, turns, strict=True)):
            for number, at in enumerate(order):
                if step == 0:
                    mixed, more = (b & c) | (~b & d), 0
                elif step == 1:
                    mixed, more = (b & c) | (b & d) | (c & d), 0x5A827999
                else:
                    mixed, more = b ^ c ^ d, 0x6ED9EBA1
                made = (a + mixed + words[at] + more) & 0xFFFFFFFF
                by = turn[number % 4]
                a, b, c, d = d, ((made << by) | (made >> (32 - by))) & 0xFFFFFFFF, b, c
        state = [(old + new) & 0xFFFFFFFF for old, new in zip(state, (a, b, c, d), strict=True)]
    return struct.pack("<4I", *state)
