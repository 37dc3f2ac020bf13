"""A filling line with an OPC UA server of its own (asyncua): speed, level, recipe, bottles and state, the methods
Reset and Purge, and a history of the level.

Beside it stands another line with nodes of the same names, in another namespace: who read by numbers would read it
after a restart in which both change places. Not here: who uses it (people), the gate.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from cofferdam.lab import events

LINE, OTHER = "urn:works:filler", "urn:works:packer"
OTHERS_SPEED = -1.0
BEAT_SECONDS = 0.1


async def serve(address: str, port: int, swapped: bool, sink: events.Sink) -> None:
    """Runs until it is ended. `swapped`: the two namespaces have changed places."""
    from asyncua import ua as types
    from asyncua.server.server import Server

    ua: Any = types
    logging.getLogger("asyncua").setLevel(logging.ERROR)
    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://{address}:{port}/")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    for uri in (OTHER, LINE) if swapped else (LINE, OTHER):
        await server.register_namespace(uri)
    level: Any = None
    for uri, speed in ((LINE, 300.0), (OTHER, OTHERS_SPEED)):
        ns = await server.get_namespace_index(uri)
        line = await server.nodes.objects.add_object(ua.NodeId("Line", ns), ua.QualifiedName("Line", ns))

        async def node(name: str, value: Any, kind: Any, line: Any = line, ns: int = ns) -> Any:
            made = await line.add_variable(ua.NodeId(f"Line.{name}", ns), ua.QualifiedName(name, ns), value, kind)
            await made.set_writable()
            return made

        async def method(_parent: Any, count: Any) -> list[Any]:
            return [ua.Variant(count.Value, ua.VariantType.Int32)]

        await node("Speed", speed, ua.VariantType.Double)
        await node("Bottles", 0, ua.VariantType.Int32)
        await node("State", 1, ua.VariantType.Int32)
        await node("Recipe", "cola", ua.VariantType.String)
        await node("Secret", 4711, ua.VariantType.Int32)
        found = await node("Level", 0.0, ua.VariantType.Double)
        level = found if uri == LINE else level
        for name in ("Reset", "Purge"):
            await line.add_method(
                ua.NodeId(f"Line.{name}", ns), ua.QualifiedName(name, ns), method, [ua.VariantType.Int32],
                [ua.VariantType.Int32],
            )  # fmt: skip
    async with server:
        await server.historize_node_data_change(level, count=100)
        sink(events.Listening(address, port))
        height = 0.0
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            height = (height + 1.0) % 100.0
            await level.write_value(height)
