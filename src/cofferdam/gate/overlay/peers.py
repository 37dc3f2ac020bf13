"""Overlay peers on disk: who was let in, by which public key; and our own key, which nobody else reads.

peers.json       names and public keys
wireguard.key    our private key, mode 0600

Not here: the device (enforce.overlay.tunnel), what a peer may do (the policy, by the peer's address).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from cofferdam import owned
from cofferdam.enforce.orders import TUNNEL_PEERS
from cofferdam.errors import GateError

Key = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9+/]{43}=$")]


class Peer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One peer: since when (UTC ns), and who let it in."""

    name: Annotated[str, msgspec.Meta(max_length=63)]
    key: Key
    since_ns: Annotated[int, msgspec.Meta(ge=0)]
    by: str = ""


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Literal[1]
    peers: Annotated[tuple[Peer, ...], msgspec.Meta(max_length=TUNNEL_PEERS)]


def load_peers(state: Path) -> tuple[dict[str, Peer], str]:
    """The peers by name, and why the file cannot be understood, or "". A damaged file lets nobody in."""
    path = state / "peers.json"
    try:
        document = msgspec.json.decode(owned.read(path), type=_Document)
    except FileNotFoundError:
        return {}, ""
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return {}, f"{path} cannot be understood ({error}): no overlay peer is let in"
    return {peer.name: peer for peer in document.peers}, ""


def save_peers(state: Path, peers: dict[str, Peer]) -> None:
    """Durable on return. Raises: GateError; the old file is still there."""
    text = msgspec.json.format(msgspec.json.encode(_Document(1, tuple(peers.values()))))
    _write(state / "peers.json", text)


def private_key(state: Path) -> str:
    """Our private key; made at the first call. Raises: GateError."""
    path = state / "wireguard.key"
    try:
        text = owned.read(path).decode("ascii").strip()
    except FileNotFoundError:
        _, text = new_key()
        _write(path, text.encode() + b"\n")
    except (OSError, UnicodeDecodeError) as error:
        raise GateError(f"{path} cannot be read: {error}", hint="without it no overlay peer is let in") from None
    if len(decode_key(text)) != 32:
        raise GateError(
            f"{path} holds no WireGuard key",
            hint="remove it to have a new one made; every peer then needs a new configuration",
        )
    return text


def public_key(private: str) -> str:
    """The public key of a private one."""
    return base64.b64encode(
        X25519PrivateKey.from_private_bytes(decode_key(private)).public_key().public_bytes_raw()
    ).decode()


def new_key() -> tuple[str, str]:
    """(public, private), as WireGuard writes them. The private one is kept nowhere here."""
    private = base64.b64encode(X25519PrivateKey.generate().private_bytes_raw()).decode()
    return public_key(private), private


def private_file(path: Path) -> BinaryIO:
    """A new file that only this user reads. Raises: OSError, also if it is there already."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def decode_key(text: str) -> bytes:
    """The bytes of a key, or b"" where it is none."""
    try:
        found = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
    return found if len(found) == 32 and base64.b64encode(found).decode() == text else b""


def _write(path: Path, data: bytes) -> None:
    fresh = path.with_name(f"{path.name}.new")
    try:
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise GateError(f"cannot write {path}: {error.strerror or error}", hint="make room, then do it again") from None
