"""What our own openings and closings of connections at a device carry, and what an answer outside one does.

Not here: when a connection is opened and closed (client, explicit), those that clients open (connections).
"""

from __future__ import annotations

import struct

from cofferdam.protocols.enip import paths, requests, wire
from cofferdam.protocols.enip.io import PORT, IoForm
from cofferdam.protocols.enip.replies import Misfit


def closing(name: tuple[int, int, int], path: bytes) -> bytes:
    """A Forward Close of a connection of ours."""
    body = struct.pack("<BBHHIBx", 0x0A, 0x0E, *name, len(path) // 2) + path
    return requests.made(requests.CLOSE, paths.of_object(paths.MANAGER, 1), body)


def assemblies(form: IoForm) -> bytes:
    """The path of an I/O connection: configuration, outputs, inputs."""
    # Without a configuration there is no number: 0 is one that devices look for.
    return paths.of_object(paths.ASSEMBLY, form.config) + paths.of_points(form.outputs, form.inputs)


def carried(status: int, data: bytes, opens: bool) -> bytes:
    """The CIP in an answer outside a connection. `opens`: to an opening, which may have addresses beside it. Raises:
    Misfit, BadPacket."""
    if status:
        raise Misfit(f"the encapsulation's status {status:#x}")
    cip = wire.unconnected_of(data)
    if cip is not None:
        return cip
    found = wire.items_of(data)
    if opens:
        _check_addresses(found[2:])
        found = found[:2]
    if [kind for kind, _ in found] != [wire.NULL_ADDRESS, wire.UNCONNECTED] or found[0][1]:
        raise Misfit("no null address and unconnected data")
    return found[1][1]


def _check_addresses(beside: list[tuple[int, bytes]]) -> None:
    """Socket addresses beside an opening's answer. No other port than the usual one is open towards a device. Raises:
    Misfit."""
    for kind, data in beside:
        if kind not in (wire.TO_TARGET, wire.TO_ORIGINATOR) or len(data) != 16:
            raise Misfit(f"the item {kind:#06x} beside an opening's answer")
        if kind == wire.TO_TARGET and int.from_bytes(data[2:4], "big") not in (0, PORT):
            raise Misfit(f"outputs at UDP port {int.from_bytes(data[2:4], 'big')}; {PORT} is open")
