"""asyncssh by itself: what it would ask the machine, it is told before the filter is on.

Not here: the server and the client (outer_ssh, inner_ssh), which lean on it.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from collections.abc import Callable
from typing import Any, Final, NoReturn

from asyncssh.connection import SSHConnection
from asyncssh.constants import MSG_IGNORE

CIPHERS: Final = (
    "aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes256-ctr", "aes192-ctr",
    "aes128-ctr",
)  # fmt: skip
"""None of them chains from one packet to the next."""


DEFERRED_MOST: Final = 16_384
"""Packets that wait for the end of a key exchange."""


class Frugal(SSHConnection):
    """asyncssh sends an empty packet before each one, which makes a key's way twice as long. It hides where ciphers in
    CBC mode chain (RFC 4251, 9.3.1); there are none among ours.

    Until a key exchange ends all else waits in memory, and the other end may begin one and not go on: a connection in
    the midst of one is `full`, and where that is not enough it ends."""

    _wire_full = _stalled = False

    @property
    def full(self) -> bool:
        """Whether the other end does not take what it was sent, whatever windows it has given."""
        return self._wire_full or not self._kex_complete

    def send_packet(self, pkttype: int, *args: bytes, **more: Any) -> None:
        if pkttype != MSG_IGNORE:
            super().send_packet(pkttype, *args, **more)
            if len(self._deferred_packets) > DEFERRED_MOST and not self._stalled:
                self._stalled = True
                self._loop.call_soon(self.stall)

    def stall(self) -> None:
        """Too much waits for a key exchange."""
        self.abort()

    def has_room(self) -> None:
        """It is not full any more, or may not be."""

    def _send_deferred_packets(self) -> None:
        super()._send_deferred_packets()
        if not self.full:
            self.has_room()


def alone() -> None:
    """No account and no home of this machine is looked up, and no client is told of on stderr."""
    os.environ["LOGNAME"] = "cofferdam"
    os.environ["HOME"] = "/nonexistent"
    logging.disable(logging.CRITICAL)


def unswallowed(callback: Callable[[Any, Exception | None], None]) -> Callable[[Any, Exception | None], None]:
    """For `connection_lost`, whose exceptions asyncssh drops without a word. By it a session learns that it is over:
    where that fails, the part ends, and its crew with it, and says why. Nothing lives on that nobody knows of."""

    @functools.wraps(callback)
    def called(owner: Any, exc: Exception | None) -> None:
        try:
            callback(owner, exc)
        except Exception as error:
            asyncio.get_event_loop().call_soon(_raise, error)

    return called


def _raise(error: Exception) -> NoReturn:
    """In a call-back of the loop, which ends the part (crossing.loops)."""
    raise error
