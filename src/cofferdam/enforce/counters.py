"""The firewall's named counters, read from the kernel by netlink: microseconds, where `nft list` costs a process.

A netlink socket stays in the network namespace in which it was made, so the launcher reads without entering it again.
The kernel wants CAP_NET_ADMIN of whoever asks, so this is the launcher's work.

Not here: which counters there are (plans.rules), what is made of them (gate.drops).
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable
from typing import Final

from cofferdam.enforce.netlink import attribute, attributes, text
from cofferdam.enforce.plans.rules import TABLE
from cofferdam.errors import GateError

SECONDS: Final = 1.0
"""How long an answer may take; the kernel gives it before `send` returns."""
_NETLINK_NETFILTER, _NFTABLES, _GET_OBJECT, _NEW_OBJECT, _ERROR = 12, 10 << 8, 19, 18, 2
_REQUEST, _INET, _COUNTER = 1, 1, 1
_OBJ_TABLE, _OBJ_NAME, _OBJ_TYPE, _OBJ_DATA, _COUNTER_PACKETS = 1, 2, 3, 4, 2  # linux/netfilter/nf_tables.h
_HEAD = struct.Struct("=IHHII")


class Counters:
    """Those of a table of ours in the network namespace of the calling process, at the time of making."""

    def __init__(self, table: str = TABLE) -> None:
        """Raises: OSError."""
        self._table = table
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        self._socket.settimeout(SECONDS)
        self._socket.bind((0, 0))
        self._serial = 0

    def packets(self, names: Iterable[str]) -> dict[str, int]:
        """What each has counted; one that is not there (somebody flushed the rules) is left out.

        Raises:
            GateError: the kernel does not say.
        """
        try:
            found = {name: self._packets(name) for name in names}
        except (OSError, struct.error, KeyError) as error:
            raise GateError(f"the firewall's counters cannot be read: {error}") from None
        return {name: count for name, count in found.items() if count is not None}

    def _packets(self, name: str) -> int | None:
        self._serial = (self._serial + 1) & 0xFFFFFFFF
        body = struct.pack("=BBH", _INET, 0, 0)
        for number, value in (
            (_OBJ_TABLE, text(self._table)),
            (_OBJ_NAME, text(name)),
            (_OBJ_TYPE, _COUNTER.to_bytes(4)),
        ):
            body += attribute(number, value)
        head = _HEAD.pack(_HEAD.size + len(body), _NFTABLES | _GET_OBJECT, _REQUEST, self._serial, 0)
        self._socket.send(head + body)
        while True:
            answer = self._socket.recv(8192)
            _, kind, _, serial, _ = _HEAD.unpack_from(answer)
            if serial == self._serial:
                break  # another one is the late answer to a question that was given up
        if kind == _ERROR:
            number = -int(struct.unpack_from("=i", answer, _HEAD.size)[0])
            if number == errno.ENOENT:
                return None
            raise OSError(number, f"counter {name}: error {number}")
        if kind != _NFTABLES | _NEW_OBJECT:
            raise OSError(errno.EPROTO, f"counter {name}: an answer of kind {kind}")
        data = attributes(attributes(answer[_HEAD.size + 4 :])[_OBJ_DATA])
        return int.from_bytes(data[_COUNTER_PACKETS])

    def close(self) -> None:
        self._socket.close()
