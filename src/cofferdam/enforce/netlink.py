"""What the kernel says of a network namespace, by netlink, without a process for it: who knocked at the firewall, how
the interfaces do, whether rules are as they were. PURE but for its socket.

A netlink socket stays in the network namespace in which it was made, so the launcher reads without entering it again.

Not here: counters (counters), which sets there are (plans.rules), what is made of it (gate.watch).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import ipaddress
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from cofferdam.enforce.plans.rules import MOST_STRANGERS, STRANGER_SECONDS, STRANGERS, TABLE
from cofferdam.errors import GateError

SECONDS: Final = 1.0
"""How long an answer may take."""
BUFFER: Final = 1 << 16
_ROUTE, _NETFILTER, _NFTABLES = 0, 12, 10 << 8
_REQUEST, _DUMP, _DONE, _ERROR, _INET = 1, 0x300, 3, 2, 1
_GET_SETELEM, _GET_LINK, _GET_ADDR = 13, 18, 22
_GET_TABLE, _GET_CHAIN, _GET_RULE, _GET_GENERATION = 1, 4, 7, 16
_HEAD, _ATTRIBUTE, _TYPE_BITS = struct.Struct("=IHHII"), struct.Struct("=HH"), 0x3FFF
# linux/netfilter/nf_tables.h
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_GENERATION, _TABLE_FLAGS, _CHAIN_NAME, _RULE_CHAIN, _RULE_SAYS = 1, 2, 3, 2, 4
_CHAIN_SAYS: Final = (4, 5, 7, 10)
"""Hook with priority, policy, type, flags."""
_KEY, _EXPIRATION, _EXPR, _VALUE, _EXPR_DATA, _COUNTER_PACKETS = 1, 5, 7, 1, 2, 2
# linux/if_link.h, linux/if_addr.h, linux/if.h
_IFNAME, _UP, _LOWER_UP, _SCOPE_LINK = 3, 1, 1 << 16, 253


class Knocking(NamedTuple):
    """Somebody who asked for a connection and has no principal: where from and to, how often lately, and how many
    seconds ago last."""

    source: str
    address: str
    port: int
    times: int
    seconds_ago: int


class Wire(NamedTuple):
    """An interface: whether it is up, whether its cable has a link, and how many addresses it has beyond the local
    link's."""

    name: str
    up: bool
    carrier: bool
    addresses: int


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes of a message or of another attribute. Raises: struct.error."""
    return dict(every_attribute(data))


def every_attribute(data: bytes) -> Iterator[tuple[int, bytes]]:
    """As `attributes`, where one number may come many times. Raises: struct.error."""
    while len(data) >= _ATTRIBUTE.size:
        length, number = _ATTRIBUTE.unpack_from(data)
        if not _ATTRIBUTE.size <= length <= len(data):
            raise struct.error(f"an attribute of {length} bytes in {len(data)}")
        yield number & _TYPE_BITS, data[_ATTRIBUTE.size : length]
        data = data[(length + 3) & ~3 :]


def attribute(number: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), number) + value + bytes(-len(value) % 4)


def text(value: str) -> bytes:
    return value.encode() + b"\0"


class _Asking:
    """One netlink socket, and questions whose answers are lists."""

    def __init__(self, family: int) -> None:
        """Raises: OSError."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        self._socket.settimeout(SECONDS)
        self._socket.bind((0, 0))
        self._serial = 0

    def dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        """The bodies of the answers. Raises: OSError, struct.error."""
        self._serial = (self._serial + 1) & 0xFFFFFFFF
        self._socket.send(_HEAD.pack(_HEAD.size + len(body), kind, _REQUEST | _DUMP, self._serial, 0) + body)
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            data = self._socket.recv(BUFFER)
            while len(data) >= _HEAD.size:
                length, found, _, serial, _ = _HEAD.unpack_from(data)
                if not _HEAD.size <= length <= len(data):
                    raise struct.error(f"a message of {length} bytes in {len(data)}")
                message, data = data[_HEAD.size : length], data[(length + 3) & ~3 :]
                if serial != self._serial:
                    continue  # the late answer to a question that was given up
                if found == _DONE:
                    return
                if found == _ERROR:
                    number = -int(struct.unpack_from("=i", message)[0])
                    raise OSError(number, f"netlink: error {number}")
                yield message
        raise TimeoutError("the kernel's list does not end")

    def ask(self, kind: int, body: bytes) -> bytes | None:
        """The body of the one answer; None where there is no such thing. Raises: OSError, struct.error."""
        self._serial = (self._serial + 1) & 0xFFFFFFFF
        self._socket.send(_HEAD.pack(_HEAD.size + len(body), kind, _REQUEST, self._serial, 0) + body)
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            data = self._socket.recv(BUFFER)
            length, found, _, serial, _ = _HEAD.unpack_from(data)
            if serial != self._serial:
                continue
            message = data[_HEAD.size : length]
            if found != _ERROR:
                return message
            number = -int(struct.unpack_from("=i", message)[0])
            if number == errno.ENOENT:
                return None
            raise OSError(number, f"netlink: error {number}")
        raise TimeoutError("the kernel does not answer")

    def close(self) -> None:
        self._socket.close()


class Rules:
    """Whether a table of the network namespace of the calling process, at the time of making, is as it was."""

    def __init__(self) -> None:
        """Raises: OSError."""
        self._filter = _Asking(_NETFILTER)

    def close(self) -> None:
        self._filter.close()

    def generation(self) -> int:
        """A number that grows with each change of any rule there. Raises: OSError, struct.error, KeyError."""
        said = self._filter.ask(_NFTABLES | _GET_GENERATION, struct.pack("=BBH", 0, 0, 0)) or b""
        return int.from_bytes(attributes(said[4:])[_GENERATION])

    def tables(self) -> tuple[str, ...]:
        """The names of all in the family inet. Raises: OSError, struct.error, KeyError."""
        found = self._filter.dump(_NFTABLES | _GET_TABLE, struct.pack("=BBH", _INET, 0, 0))
        return tuple(attributes(one[4:])[_LIST_TABLE].rstrip(b"\0").decode("utf-8", "replace") for one in found)

    def table(self, name: str, chains: Iterable[str]) -> bytes:
        """What it says, without what it has counted and what the kernel numbers it by; b"" where it is not there. A
        hash: what it is for is to be compared.

        Raises: OSError, struct.error, KeyError.
        """
        head = struct.pack("=BBH", _INET, 0, 0)
        found = self._filter.ask(_NFTABLES | _GET_TABLE, head + attribute(_LIST_TABLE, text(name)))
        if found is None:
            return b""
        seen = hashlib.sha256(attributes(found[4:]).get(_TABLE_FLAGS, b""))
        for chain in chains:
            asked = head + attribute(_LIST_TABLE, text(name)) + attribute(_CHAIN_NAME, text(chain))
            said = attributes((self._filter.ask(_NFTABLES | _GET_CHAIN, asked) or b"")[4:])
            seen.update(b"chain" + b"".join(said.get(number, b"-") for number in _CHAIN_SAYS))
        for message in self._filter.dump(_NFTABLES | _GET_RULE, head + attribute(_LIST_TABLE, text(name))):
            said = attributes(message[4:])
            seen.update(b"rule" + said[_RULE_CHAIN] + said.get(_RULE_SAYS, b""))
        return seen.digest()


class Seen:
    """Looks at the network namespace of the calling process at the time of making."""

    def __init__(self) -> None:
        """Raises: OSError."""
        self._filter, self._route = _Asking(_NETFILTER), _Asking(_ROUTE)
        self._earlier: dict[tuple[str, str, int], tuple[float, int]] = {}
        """Who knocked while other rules were in force: when last (monotonic), and how often."""

    def close(self) -> None:
        self._filter.close()
        self._route.close()

    def knocking(self) -> tuple[Knocking, ...]:
        """Whom the firewall has dropped lately, the last first. Where somebody flushed the rules, those of before.

        Raises: GateError: the kernel does not say.
        """
        found: dict[tuple[str, str, int], Knocking] = {}
        try:
            for version, name in STRANGERS.items():
                with contextlib.suppress(FileNotFoundError):  # a side without IPv6 has one of them
                    found |= {one[:3]: one for one in self._knocking(name, 4 if version == "ip" else 16)}
        except (OSError, struct.error, KeyError, ValueError) as error:
            raise GateError(f"whom the firewall dropped cannot be read: {error}") from None
        now = time.monotonic()
        for key, (last, times) in self._earlier.items():
            if now - last <= STRANGER_SECONDS:
                again = found.get(key, Knocking(*key, 0, round(now - last)))
                found[key] = again._replace(times=again.times + times)
        return tuple(sorted(found.values(), key=lambda one: one.seconds_ago))[: len(STRANGERS) * MOST_STRANGERS]

    def keep(self, knocked: Iterable[Knocking], let_in: Callable[[Knocking], bool]) -> None:
        """New rules are in force, and have seen nobody: these had knocked before. Those whom the new ones let in are
        strangers no more."""
        now = time.monotonic()
        self._earlier = {one[:3]: (now - one.seconds_ago, one.times) for one in knocked if not let_in(one)}

    def _knocking(self, name: str, size: int) -> Iterator[Knocking]:
        asked = struct.pack("=BBH", _INET, 0, 0)
        asked += attribute(_LIST_TABLE, text(TABLE)) + attribute(_LIST_SET, text(name))
        for message in self._filter.dump(_NFTABLES | _GET_SETELEM, asked):
            for _, element in every_attribute(attributes(message[4:]).get(_LIST_ELEMENTS, b"")):
                said = attributes(element)
                key = attributes(said[_KEY])[_VALUE]
                left = int.from_bytes(said[_EXPIRATION]) / 1000 if _EXPIRATION in said else 0.0
                times = 1
                if _EXPR in said:
                    data = attributes(attributes(said[_EXPR]).get(_EXPR_DATA, b""))
                    times = int.from_bytes(data.get(_COUNTER_PACKETS, b"\x01"))
                yield Knocking(
                    str(ipaddress.ip_address(key[:size])),
                    str(ipaddress.ip_address(key[size : 2 * size])),
                    int.from_bytes(key[2 * size : 2 * size + 2]),
                    times,
                    max(0, round(STRANGER_SECONDS - left)),
                )

    def wires(self) -> tuple[Wire, ...]:
        """The interfaces but the loopback. Raises: GateError: the kernel does not say."""
        try:
            counts: dict[int, int] = {}
            for message in self._route.dump(_GET_ADDR, struct.pack("=BBBBI", 0, 0, 0, 0, 0)):
                _, _, _, scope, index = struct.unpack_from("=BBBBI", message)
                if scope != _SCOPE_LINK:
                    counts[index] = counts.get(index, 0) + 1
            found = []
            for message in self._route.dump(_GET_LINK, struct.pack("=BBHiII", 0, 0, 0, 0, 0, 0)):
                _, _, _, index, flags, _ = struct.unpack_from("=BBHiII", message)
                name = attributes(message[16:])[_IFNAME].rstrip(b"\0").decode("utf-8", "replace")
                if name != "lo":
                    found.append(Wire(name, bool(flags & _UP), bool(flags & _LOWER_UP), counts.get(index, 0)))
        except (OSError, struct.error, KeyError) as error:
            raise GateError(f"the interfaces cannot be looked at: {error}") from None
        return tuple(found)
