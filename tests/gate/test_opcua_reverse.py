"""Reverse connect behind a real gate: the plant's server opens the connection to us, and we open one to a client."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from asyncua import ua as types
from asyncua.client.client import Client

from tests.gate.plant import Gate, cli, events, running
from tests.ports import held_ports
from tests.protocols.opcua.reversed import Answerer, Caller, reverse_hello
from tests.protocols.opcua.site import plant, policy
from tests.waiting import PATIENT, comes_true, eventually

ua: Any = types
LINE = "urn:plant:line"
logging.getLogger("asyncua").setLevel(logging.CRITICAL)


class Site:
    """The gate, which the plant's server connects to, and which connects to a client."""

    def __init__(self, gate: Gate, plant_port: int, port: int, calls_at: int, client: int, near: int) -> None:
        self.gate = gate
        self.plant = plant_port
        self.port = port
        self.calls_at = calls_at
        self.client = client
        self.near = near

    def text(self, clients: bool = True) -> str:
        said = f'{{listen: "127.0.0.1:{self.calls_at}"'
        said += f', clients: "127.0.0.1:{self.client}"}}' if clients else "}"
        security = "{clients: none, asset: none, server: urn:plant:server}"
        return policy(0, self.port, security=security, reverse=said)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("reverse")
    ports = held_ports(5)
    file = folder / "policy.yaml"
    made = Site(None, *ports)  # type: ignore[arg-type]
    file.write_text(made.text())
    with plant(ports[0]), running(folder / "state", file) as gate:
        made.gate = gate
        yield made


async def _speed(client: Any) -> Any:
    index = (await client.get_namespace_array()).index(LINE)
    return client.get_node(ua.NodeId("Line1.Speed", index))


def _reads(port: int) -> float | str:
    async def main() -> Any:
        async with Client(f"opc.tcp://127.0.0.1:{port}", timeout=PATIENT) as client:
            try:
                return await (await _speed(client)).read_value()
            except ua.UaStatusCodeError as error:
                return type(error).__name__

    return asyncio.run(main())  # type: ignore[no-any-return]


def _read_in_the_end(port: int) -> bool:
    return isinstance(_reads(port), float)


def _stray(site: Site) -> int:
    code, said, _ = cli("status", "--state", site.gate.state, "--json")
    assert code == 0
    return said.count("stray_connections")


def test_nothing_is_asked_of_a_server_that_has_not_connected(site: Site) -> None:
    assert _reads(site.port) == "BadNoCommunication"


def test_a_server_that_connects_is_read_written_and_watched_over_a_break(site: Site) -> None:
    class Handler:
        def __init__(self) -> None:
            self.values: list[float] = []
            self.bad = 0

        def datachange_notification(self, _node: Any, value: float, data: Any) -> None:
            if data.monitored_item.Value.StatusCode.is_good():
                self.values.append(value)
            else:
                self.bad += 1

    async def until(handler: Handler, more: int) -> None:
        for _ in range(int(PATIENT * 20)):
            if len(handler.values) >= more:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(handler.values)

    async def main(caller: Caller) -> None:
        async with Client(f"opc.tcp://127.0.0.1:{site.port}", timeout=PATIENT) as client:
            speed = await _speed(client)
            await speed.write_value(150.0)
            assert await speed.read_value() == 150.0
            handler = Handler()
            subscription = await client.create_subscription(100, handler)
            level = client.get_node(ua.NodeId("Line1.Level", speed.nodeid.NamespaceIndex))
            await subscription.subscribe_data_change(level, queuesize=10)
            await until(handler, 3)
            calls = caller.calls
            caller.cut()
            await comes_true(lambda: caller.calls > calls)
            await until(handler, len(handler.values) + 3)

    with Caller(site.plant, site.calls_at) as caller:
        eventually(lambda: _read_in_the_end(site.port))
        asyncio.run(main(caller))


def test_a_client_that_is_connected_to_is_judged_as_if_it_had_come(site: Site) -> None:
    async def main() -> None:
        async with Client(f"opc.tcp://127.0.0.1:{site.near}", timeout=PATIENT) as client:
            speed = await _speed(client)
            await speed.write_value(160.0)
            assert await speed.read_value() == 160.0
            with pytest.raises(ua.UaStatusCodeError):
                await speed.write_value(1600.0)

    before = len(events(site.gate.state, "write-allowed"))
    with Caller(site.plant, site.calls_at), Answerer(site.client, site.near) as answerer:
        eventually(lambda: _read_in_the_end(site.port))
        for connection in range(1, 3):  # the first was used and has ended: there is another
            asyncio.run(main())
            assert len(answerer.said) >= connection
        assert answerer.said[0][1] == f"opc.tcp://127.0.0.1:{site.port}"
    writes = events(site.gate.state, "write-allowed")[before:]
    assert [entry["source"] for entry in writes] == ["127.0.0.1"] * 2


JUNK = {
    "another server": reverse_hello("urn:another", "opc.tcp://x"),
    "web": b"GET / HTTP/1.1\r\n\r\n",
    "acknowledged first": b"ACKF" + (28).to_bytes(4, "little") + bytes(20),
}


def test_what_is_no_server_is_closed_and_the_half_lives(site: Site) -> None:
    inner = site.gate.pids()["inner"]
    for what, data in JUNK.items():
        with socket.create_connection(("127.0.0.1", site.calls_at), timeout=PATIENT) as sock:
            sock.sendall(data)
            with contextlib.suppress(ConnectionError):
                while sock.recv(4096):
                    pass  # HEL, where it was taken for a server at first
            assert what
    strange = socket.create_connection(("127.0.0.1", site.calls_at), timeout=PATIENT, source_address=("127.0.0.2", 0))
    with strange, contextlib.suppress(ConnectionError):
        assert strange.recv(10) == b"", "it comes from elsewhere"
    eventually(lambda: _stray(site))
    told = str(events(site.gate.state, "malformed"))
    assert "calls itself 'urn:another'" in told
    assert site.gate.pids()["inner"] == inner
    with Caller(site.plant, site.calls_at):
        eventually(lambda: _read_in_the_end(site.port))


def test_a_client_that_the_policy_names_no_more_loses_its_connection(site: Site) -> None:
    file = site.gate.state.parent / "policy.yaml"
    with Answerer(site.client, site.near) as answerer:
        eventually(lambda: answerer.said)
        file.write_text(site.text(clients=False))
        assert cli("reload", "--state", site.gate.state)[0] == 0
        before = len(answerer.said)
        file.write_text(site.text())
        assert cli("reload", "--state", site.gate.state)[0] == 0
        eventually(lambda: len(answerer.said) > before)
