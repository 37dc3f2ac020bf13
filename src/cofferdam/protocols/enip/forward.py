"""What our own openings and closings of connections at a device carry, and what is beside their answers.

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


def check_addresses(beside: list[tuple[int, bytes]]) -> None:
    """Socket addresses beside an opening's answer. No other port than the usual one is open towards a device. Raises:
    Misfit."""
    for kind, data in beside:
        if kind not in (wire.TO_TARGET, wire.TO_ORIGINATOR) or len(data) != 16:
            raise Misfit(f"the item {kind:#06x} beside an opening's answer")
        if kind == wire.TO_TARGET and int.from_bytes(data[2:4], "big") not in (0, PORT):
            raise Misfit(f"outputs at UDP port {int.from_bytes(data[2:4], 'big')}; {PORT} is open")
