"""What a client that is let in tries against a real gate of OPC UA: limits gone round by another form of a value or of
a node, another's session, one source that keeps the gate busy. A fair client is served meanwhile."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from asyncua import ua as types
from asyncua.client.client import Client

from tests.gate.plant import Gate, events, running
from tests.ports import held_ports
from tests.protocols.opcua.site import plant, policy
from tests.waiting import PATIENT, eventually

ua: Any = types
LINE = "urn:plant:line"
RULE = "{who: mes, asset: filler, read: all, write: all, subscribe: [level], call: [reset]}"
logging.getLogger("asyncua").setLevel(logging.CRITICAL)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gate, int, int]]:
    folder = tmp_path_factory.mktemp("opcua")
    plant_port, port = held_ports(2)
    file = folder / "policy.yaml"
    file.write_text(policy(plant_port, port, RULE))
    with plant(plant_port), running(folder / "state", file) as gate:
        yield gate, plant_port, port


def client(port: int) -> Client:
    return Client(f"opc.tcp://127.0.0.1:{port}", timeout=PATIENT)


async def write(one: Client, name: Any, value: Any, index_range: str | None = None) -> str:
    """The status of a write."""
    index = (await one.get_namespace_array()).index(LINE)
    node = ua.NodeId(name, index) if isinstance(name, str) else name
    asked = ua.WriteValue(node, ua.AttributeIds.Value, index_range, ua.DataValue(value))
    [status] = await one.uaclient.write(ua.WriteParameters(NodesToWrite=[asked]))
    return str(status.name)


async def held(port: int, name: str) -> Any:
    """What the plant's own server holds."""
    async with client(port) as one:
        index = (await one.get_namespace_array()).index(LINE)
        return await one.get_node(ua.NodeId(name, index)).read_value()


DOUBLE, TEXT, INT32 = ua.VariantType.Double, ua.VariantType.String, ua.VariantType.Int32
FORMS = [
    ("Line1.Speed", ua.Variant([150.0], DOUBLE), None),  # an array of one
    ("Line1.Speed", ua.Variant([150.0, 9999.0], DOUBLE), None),
    ("Line1.Speed", ua.Variant([9999.0], DOUBLE), "0"),
    ("Line1.Speed", ua.Variant(150.0, DOUBLE), "0"),
    ("Line1.Speed", ua.Variant(float("nan"), DOUBLE), None),
    ("Line1.Speed", ua.Variant(float("inf"), DOUBLE), None),
    ("Line1.Speed", ua.Variant("9999", TEXT), None),
    ("Line1.Speed", ua.Variant(ua.Variant(9999.0, DOUBLE), ua.VariantType.Variant), None),
    ("Line1.Speed", ua.Variant([[1.0], [2.0]], DOUBLE), None),
    ("Line1.Recipe", ua.Variant("123456789", TEXT), None),
    ("Line1.Recipe", ua.Variant("9", TEXT), "8"),  # a part of a text
    ("Line1.Recipe", ua.Variant("90", TEXT), "8:9"),
    ("Line1.Counts", ua.Variant([1, 2, 3, 4, 5], INT32), None),
    ("Line1.Counts", ua.Variant([5], INT32), "4"),
    ("Line1.Counts", ua.Variant(5, INT32), "0"),
    ("Line1.Counts", ua.Variant([5], INT32), "0:"),
    ("Line1.Counts", ua.Variant([5], INT32), "0,0"),
    ("line1.speed", ua.Variant(150.0, DOUBLE), None),
    (ua.NodeId("Line1.Speed", 0), ua.Variant(150.0, DOUBLE), None),
    (ua.NodeId("Line1.Speed", 1), ua.Variant(150.0, DOUBLE), None),
    (ua.NodeId("Line1.Speed", 77), ua.Variant(150.0, DOUBLE), None),
]  # fmt: skip


def test_no_form_of_a_value_goes_round_its_limits(site: tuple[Gate, int, int]) -> None:
    _, plant_port, port = site

    async def work() -> None:
        async with client(port) as one:
            for name, value, index_range in FORMS:
                try:
                    found = await write(one, name, value, index_range)
                except (ua.UaError, TypeError, AttributeError, ValueError) as error:
                    found = type(error).__name__  # refused as a whole, or none that this client can say
                assert found != "Good", (name, value, index_range)
            assert await write(one, "Line1.Speed", ua.Variant(150.0, DOUBLE)) == "Good"
            assert await write(one, "Line1.Recipe", ua.Variant("12345678", TEXT)) == "Good"

    asyncio.run(work())
    assert asyncio.run(held(plant_port, "Line1.Speed")) == 150.0
    assert asyncio.run(held(plant_port, "Line1.Recipe")) == "12345678"
    assert asyncio.run(held(plant_port, "Line1.Counts")) == [1, 2, 3, 4]


def test_anothers_session_is_of_no_use(site: tuple[Gate, int, int]) -> None:
    _, _, port = site

    async def work() -> None:
        async with client(port) as one, client(port) as thief:
            token = one.uaclient.protocol.authentication_token  # type: ignore[union-attr]
            own = thief.uaclient.protocol.authentication_token  # type: ignore[union-attr]
            thief.uaclient.protocol.authentication_token = token  # type: ignore[union-attr]
            with pytest.raises(ua.UaError):
                await write(thief, "Line1.Speed", ua.Variant(140.0, DOUBLE))
            thief.uaclient.protocol.authentication_token = own  # type: ignore[union-attr]
            assert await write(one, "Line1.Speed", ua.Variant(145.0, DOUBLE)) == "Good"

    asyncio.run(work())


def test_a_fair_client_is_served_while_another_has_items_without_end(site: tuple[Gate, int, int]) -> None:
    gate, _, port = site

    class Silent:
        def datachange_notification(self, *_args: Any) -> None:
            return

    async def work() -> None:
        async with client(port) as greedy, client(port) as one:
            refused = 0
            for _ in range(5):
                subscription = await greedy.create_subscription(50, Silent())
                wanted = [greedy.get_node(ua.NodeId(2258, 0))] * 1000
                made = await subscription.subscribe_data_change(wanted)
                refused += sum(isinstance(each, ua.StatusCode) for each in made)
            assert refused == 4900
            for _ in range(20):
                assert await write(one, "Line1.Speed", ua.Variant(146.0, DOUBLE)) == "Good"

    asyncio.run(work())
    assert "internal_error" not in str(events(gate.state, "limit-hit"))


def test_connections_that_are_opened_and_left_cost_nobody_theirs(site: tuple[Gate, int, int]) -> None:
    gate, _, port = site

    async def work() -> None:
        async with client(port) as one:
            left = [socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.2", 0)) for _ in range(60)]
            for _ in range(20):
                assert await write(one, "Line1.Speed", ua.Variant(147.0, DOUBLE)) == "Good"
            for each in left:
                each.close()

    pids = gate.pids()
    asyncio.run(work())
    assert gate.pids() == pids
    eventually(lambda: "stranger_connections_per_address" in str(events(gate.state, "limit-hit")))
