"""A plant's server in a process of its own: asyncua, by others. `python plant.py PORT [OPTION...]`.

Options: `swap` has its namespaces in another order; `secure FOLDER` has a key there, and offers security alone;
`everywhere` has it listen at all addresses; `many N SECONDS` has it have N nodes that change so often, and nothing else
that does. It says "ready" on stdout. Line1 has Speed (writable), Level, Recipe, Counts (an array), Limits (a
structure), Title, Grid (a matrix), Due, Order, Target, Verdict and Topic (of the standard's other types), Secret, and
the methods Reset, Purge and Rinse. Five times a second it has an event of severity 100, and one of 700 of a type of its
own, with Batch and Cost.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from asyncua import ua as types
from asyncua.server.server import Server

ua: Any = types

LINE, OTHER = "urn:plant:line", "urn:plant:other"


async def _change(many: list[Any], every: float) -> None:
    """All of these change every so many seconds, or as often as this server can."""
    at, due = 0.0, asyncio.get_running_loop().time()
    while True:
        at, due = at + 1.0, due + every
        for node in many:
            await node.write_value(at)
        await asyncio.sleep(max(due - asyncio.get_running_loop().time(), 0.0))


async def run(port: int, options: list[str]) -> None:
    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://{'0.0.0.0' if 'everywhere' in options else '127.0.0.1'}:{port}/")
    await server.set_application_uri("urn:plant:server")
    if "secure" in options:
        folder = Path(options[options.index("secure") + 1])
        await server.load_certificate(folder / "own.der")
        await server.load_private_key(folder / "own.pem")
        server.set_security_policy(
            [
                ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt,
                ua.SecurityPolicyType.Basic256Sha256_Sign,
                ua.SecurityPolicyType.Aes128Sha256RsaOaep_SignAndEncrypt,
                ua.SecurityPolicyType.Aes128Sha256RsaOaep_Sign,
                ua.SecurityPolicyType.Aes256Sha256RsaPss_Sign,
                ua.SecurityPolicyType.Aes256Sha256RsaPss_SignAndEncrypt,
            ]
        )
    else:
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    for uri in (OTHER, LINE) if "swap" in options else (LINE, OTHER):
        await server.register_namespace(uri)
    ns, other = await server.get_namespace_index(LINE), await server.get_namespace_index(OTHER)
    objects = server.nodes.objects
    for index, names in ((ns, ("Speed", "Level")), (other, ("Speed", "Level"))):
        line = await objects.add_object(ua.NodeId("Line1", index), ua.QualifiedName("Line1", index))
        for name in names:
            number = 100.0 if index == ns else -1.0
            node = await line.add_variable(
                ua.NodeId(f"Line1.{name}", index), ua.QualifiedName(name, index), number, ua.VariantType.Double
            )
            await node.set_writable()
            if name == "Level":
                await server.historize_node_data_change(node, count=100)
    line = server.get_node(ua.NodeId("Line1", ns))
    more: Any = (
        ("Recipe", "cola", ua.VariantType.String),
        ("Counts", [1, 2, 3, 4], ua.VariantType.Int32),
        ("Secret", 42, ua.VariantType.Int32),
        ("Limits", ua.Range(0.0, 1500.0), ua.VariantType.ExtensionObject),
        ("Title", ua.LocalizedText("filler", "en"), ua.VariantType.LocalizedText),
        ("Due", datetime(2027, 6, 30, 12, tzinfo=UTC), ua.VariantType.DateTime),
        ("Order", uuid.UUID(int=7), ua.VariantType.Guid),
        ("Target", ua.NodeId("Line1", ns), ua.VariantType.NodeId),
        ("Verdict", ua.StatusCode(0), ua.VariantType.StatusCode),
        ("Grid", [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], ua.VariantType.Double),
        ("Topic", ua.QualifiedName("mixing", ns), ua.VariantType.QualifiedName),
    )
    for name, value, kind in more:
        node = await line.add_variable(ua.NodeId(f"Line1.{name}", ns), ua.QualifiedName(name, ns), value, kind)
        await node.set_writable()
    calls: list[int] = []

    async def reset(_parent: Any, count: Any) -> list[Any]:
        calls.append(count.Value)
        return [ua.Variant(len(calls), ua.VariantType.Int32)]

    for name in ("Reset", "Purge", "Rinse"):
        await line.add_method(
            ua.NodeId(f"Line1.{name}", ns), ua.QualifiedName(name, ns), reset, [ua.VariantType.Int32],
            [ua.VariantType.Int32],
        )  # fmt: skip
    level = server.get_node(ua.NodeId("Line1.Level", ns))
    jam = await server.create_custom_event_type(
        ns,
        "JamEventType",
        ua.ObjectIds.BaseEventType,
        [("Batch", ua.VariantType.String), ("Cost", ua.VariantType.Double)],
    )
    events = [
        await server.get_event_generator(kind, emitting_node=line.nodeid)
        for kind in (ua.ObjectIds.BaseEventType, jam.nodeid)
    ]
    events[1].event.Batch, events[1].event.Cost = "B7", 12.5
    many, every = [], 0.0
    if "many" in options:
        count, every = int(options[options.index("many") + 1]), float(options[options.index("many") + 2])
        many = [
            await line.add_variable(
                ua.NodeId(f"Line1.N{number}", ns), ua.QualifiedName(f"N{number}", ns), 0.0, ua.VariantType.Double
            )
            for number in range(count)
        ]
    async with server:
        print("ready", flush=True)
        if many:
            await _change(many, every)
        at = 0.0
        while True:
            await asyncio.sleep(0.05)
            at += 1.0
            await level.write_value(at)
            if at % 4 == 0:
                for number, event in enumerate(events):
                    event.event.Severity = 100 + 600 * number
                    await event.trigger(message=f"{'jam' if number else 'tick'} {at:g}")


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1]), sys.argv[2:]))
