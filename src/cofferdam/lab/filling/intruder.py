"""What somebody tries who has an address that may come, and nothing else: no certificate, a token of
somebody else's, a chain that goes in circles, chunks without an end. Not here: who tells of it (people).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from typing import Any

PATIENCE_SECONDS = 60.0
MOST = 10 << 20
"""Bytes of chunks that are sent, if they are taken."""
CHUNK = 60_000
POLICIES = b"http://opcfoundation.org/UA/SecurityPolicy#"


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + data


def _message(kind: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return kind + (8 + len(data)).to_bytes(4, "little") + data


_OPENING = (
    (1).to_bytes(4, "little"), (1).to_bytes(4, "little"),  # sequence number, request id
    b"\x01\x00\xbe\x01", bytes(2), bytes(8), bytes(4), bytes(4), b"\xff" * 4, bytes(4), bytes(3),  # OPN's header
    bytes(4), bytes(4), (1).to_bytes(4, "little"), b"\xff" * 4, (600_000).to_bytes(4, "little"),
)  # fmt: skip
"""The rest of an OPN without security (OPC 10000-6, 6.7.4; -4, 5.5.2)."""


async def intrude(how: str, url: str, own: bytes, server: bytes, token: Any) -> str:
    """Tries it: the status or error that comes of it. `own`: a certificate (DER) that is trusted, of whose key nothing
    is used; `server`: the gate's; `token`: of a session that is not the intruder's."""
    if how in ("without a certificate", "with a stolen token"):
        return await _plain(url, token if how == "with a stolen token" else None)
    host, _, port = url.removeprefix("opc.tcp://").rpartition(":")
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port.strip("/")))
    try:
        numbers = [number.to_bytes(4, "little") for number in (0, 65536, 65536, 0, 0)]
        writer.write(_message(b"HELF", *numbers, _string(b"opc")))
        await reader.readexactly(28)
        if how == "with a looped chain":
            mark = hashlib.sha1(server, usedforsecurity=False).digest()
            uri = _string(POLICIES + b"Basic256Sha256")
            writer.write(_message(b"OPNF", bytes(4), uri, _string(own * 2), _string(mark), bytes(512)))
            return await _last_word(reader)
        return await _chunks(reader, writer)
    finally:
        writer.close()


async def _plain(url: str, token: Any) -> str:
    """On a channel without security, which is for looking which endpoints there are."""
    from asyncua.client.client import Client

    client: Any = Client(url, timeout=PATIENCE_SECONDS)
    await client.connect_socket()
    try:
        await client.send_hello()
        await client.open_secure_channel()
        if token is None:
            await client.create_session()
        else:
            client.uaclient.session.authentication_token = token
            await client.nodes.server.read_browse_name()
    finally:
        client.disconnect_socket()
    return "let in"


async def _chunks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    """A message of more and more chunks, on a channel that is open."""
    uri = POLICIES + b"None"
    writer.write(_message(b"OPNF", bytes(4), _string(uri), b"\xff" * 8, *_OPENING))
    head = await reader.readexactly(8)
    answer = await reader.readexactly(int.from_bytes(head[4:], "little") - 8)
    body = answer[4 + 4 + len(uri) + 8 + 8 :]  # the channel's id, the policy, nothing twice, two numbers
    channel, token = body[32:36], body[36:40]  # behind the type, the answer's header and the version
    sent = 0
    with contextlib.suppress(ConnectionError):
        while sent < MOST:
            number = (2 + sent // CHUNK).to_bytes(4, "little")
            writer.write(_message(b"MSGC", channel, token, number, (2).to_bytes(4, "little"), bytes(CHUNK)))
            await writer.drain()
            sent += CHUNK
    return await _last_word(reader) if sent < MOST else f"{sent} bytes were taken"


async def _last_word(reader: asyncio.StreamReader) -> str:
    """The status of ERR, or that the connection was closed."""
    from asyncua import ua as types

    ua: Any = types
    last = b""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(PATIENCE_SECONDS):
            while data := await reader.read(4096):
                last = data
    return str(ua.StatusCode(int.from_bytes(last[8:12], "little")).name) if last[:3] == b"ERR" else "closed"
