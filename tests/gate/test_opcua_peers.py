"""Every ordered pair of clients and servers by others (asyncua, node-opcua) through a real gate: all that they do with
each other, in each policy and mode, towards clients and towards assets.

The pairs with node-opcua need `npm ci` in tests/protocols/opcua/node, and are left out without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua as types
from asyncua.client.client import Client
from asyncua.crypto import security_policies as policies

from tests.gate.plant import Gate, cli, events, running
from tests.ports import held_ports
from tests.protocols.opcua.certificates import make
from tests.protocols.opcua.site import node_client, node_missing, node_plant, pki, plant
from tests.waiting import PATIENT, eventually

ua: Any = types
LINE = "urn:plant:line"
WORDS = [
    "none", "Basic256Sha256", "Basic256Sha256 sign", "Aes128_Sha256_RsaOaep", "Aes128_Sha256_RsaOaep sign",
    "Aes256_Sha256_RsaPss", "Aes256_Sha256_RsaPss sign",
]  # fmt: skip
SECURED = WORDS[1:]
MANY = pytest.mark.parametrize(("items", "renewals"), [(100, 5), pytest.param(1000, 20, marks=pytest.mark.soak)])
WITHOUT_NODE = node_missing()
SERVERS = ["asyncua", "node"] if not WITHOUT_NODE else ["asyncua"]
needs_node = pytest.mark.skipif(bool(WITHOUT_NODE), reason=WITHOUT_NODE or "-")
logging.getLogger("asyncua").setLevel(logging.CRITICAL)


class Site:
    """A gate before both servers."""

    def __init__(
        self, folder: Path, gate: Gate, plants: dict[str, int], ports: dict[str, int], calls: tuple[int, int]
    ) -> None:
        self.calls = calls
        self.folder = folder
        self.gate = gate
        self.plants = plants
        self.ports = ports

    def url(self, server: str) -> str:
        return f"opc.tcp://127.0.0.1:{self.ports[server]}"

    def ask_assets_by(self, word: str) -> None:
        """Has the gate speak with the servers in this way from now on."""
        (self.folder / "policy.yaml").write_text(_policy(self.plants, self.ports, self.calls, word))
        code, _, error = cli("reload", "--state", self.gate.state)
        assert code == 0, error


def _policy(plants: dict[str, int], ports: dict[str, int], calls: tuple[int, int], word: str = SECURED[0]) -> str:
    """The text, which is JSON and so YAML. `word`: how assets are spoken with. `calls`: where the gate waits for what
    connects to it, and where a client waits for the gate."""
    node = f"nsu={LINE};s=Line1"
    points = {
        "speed": {"at": f"{node}.Speed", "type": "Double", "min": 0, "max": 1500},
        "level": {"at": f"{node}.Level", "type": "Double", "fastest": "50 ms"},
        "counts": {"at": f"{node}.Counts", "type": "Int32", "elements": 4},
        "due": {"at": f"{node}.Due", "type": "DateTime", "min": "2027-01-01", "max": "2028-01-01"},
        "order": {"at": f"{node}.Order", "type": "Guid"},
        "target": {"at": f"{node}.Target", "type": "NodeId", "max_length": 100},
        "grid": {"at": f"{node}.Grid", "type": "Double", "dimensions": [2, 3], "min": 0, "max": 9},
    }
    argument = {"name": "count", "type": "Int32", "min": 0, "max": 10}
    acknowledge = [{"name": "event", "type": "ByteString", "max_length": 64},
                   {"name": "comment", "type": "String", "max_length": 100}]  # fmt: skip
    methods = {
        "acknowledge": {"at": f"{node}.SpeedAlarm -> i=9111", "arguments": acknowledge},
        "reset": {"at": f"{node} -> {node}.Reset", "arguments": [argument]},
    }
    fields = ["default", f"nsu={LINE};Batch", "AckedState/Id"]
    notifiers = {"alarms": {"at": node, "fields": fields}}
    # At one asset the rule for all conditions of a notifier is used in place of a method's name.
    by_rule = {"methods": {"reset": methods["reset"]},
               "notifiers": {"alarms": {"at": node, "fields": [*fields, "ConditionId"]}}}  # fmt: skip
    assets = {
        server: {
            # What connects to the gate is another device than those that it connects to, by its address.
            "zone": "plant", "address": "127.0.0.2" if server in plants else "127.0.0.1", "protocol": "opcua",
            **({"port": plants[server]} if server in plants else {"reverse": {
                "listen": f"127.0.0.1:{calls[0]}", "clients": f"127.0.0.1:{calls[1]}"}}),
            "listen": f"127.0.0.1:{port}", "outstanding": 8, "timeout": "20 s", "points": points, "methods": methods,
            "notifiers": notifiers, "browse": {"line": {"at": node, "depth": 3}},
            "security": {"clients": WORDS, "asset": word, "server": "urn:plant:server",
                         **({"login": "certificate"} if server == "asyncua" else {})},
            **(by_rule if server == "calls" else {}),
        }
        for server, port in ports.items()
    }  # fmt: skip
    verbs = {
        "read": ["speed", "level", "counts"], "write": ["speed"], "subscribe": ["level"], "history": ["level"],
        "call": ["reset", "acknowledge"], "events": ["alarms"],
    }  # fmt: skip
    told = {"call": ["reset"], "acknowledge": ["alarms"]}
    rules = [{"who": "mes", "asset": name, **verbs, **(told if name == "calls" else {})} for name in assets]
    forms = ["due", "order", "target", "grid"]
    rules.append({"who": "planner", "asset": list(assets), "browse": "all", "read": forms, "write": forms})
    conduit = {"from": "office", "to": "plant", "broker": "opcua", "owner": "x", "reason": "x", "allow": rules}
    return json.dumps(
        {
            "site": "riverside",
            "zones": {"office": {"side": "it"}, "plant": {"side": "ot"}},
            "assets": assets,
            "principals": {
                "mes": {"zone": "office", "addresses": ["127.0.0.1"]},
                "planner": {"zone": "office", "addresses": ["127.0.0.1"], "user": "bea"},
            },
            "conduits": {"line": conduit},
            "limits": {
                "client_standing": 2000,
                "client_refusals_per_connection": 1000,
                # On a busy machine a handshake, and an entry's way to the disk, take their time.
                "asset_connect_seconds": 60,
                "audit_wait_seconds": 60,
                "client_wait_seconds": 60,
            },
        }
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("peers")
    numbers = held_ports(2 * len(SERVERS) + 3)
    plants = dict(zip(SERVERS, numbers, strict=False))
    ports = dict(zip([*SERVERS, "calls"], numbers[len(SERVERS) :], strict=False))
    calls = (numbers[-2], numbers[-1])
    if WITHOUT_NODE:
        del ports["calls"]
    file, state = folder / "policy.yaml", folder / "state"
    file.write_text(_policy(plants, ports, calls))
    keys = {name: make(folder / name, f"urn:{name}") for name in ("mes", "anna", "bea")}
    server_key = make(folder / "plant", "urn:plant:server")

    def said_by(*words: Any) -> Any:
        code, said, error = pki(*words, "--policy", file, "--state", state, "--json")
        assert code == 0, error
        return json.loads(said)

    said_by("new")
    for name, path in said_by("export", folder / "ours").items():
        if name.endswith("/outer"):
            Path(path).rename(folder / "ours.der")
    said_by("trust", "--side", "outer", "--file", keys["mes"] / "own.der")
    said_by("trust", "--side", "inner", "--file", server_key / "own.der")
    # The server's certificate of last year is trusted still, so that it has to be asked which one is in use.
    said_by("trust", "--side", "inner", "--file", make(folder / "last year", "urn:plant:server") / "own.der")
    said_by("identity", "asyncua")
    for name in ("anna", "bea"):
        said_by("user", name, "--certificate", keys[name] / "own.der")
    with contextlib.ExitStack() as stack:
        stack.enter_context(plant(plants["asyncua"], "everywhere", "secure", server_key))
        if "node" in plants:
            stack.enter_context(node_plant(plants["node"], server_key, f"opc.tcp://127.0.0.1:{calls[0]}"))
        yield Site(folder, stack.enter_context(running(state, file)), plants, ports, calls)
        told = [one["detail"] for one in events(state, "malformed")]
        known = ("nobody may log in", "no such session")  # the latter when a connection was cut
        assert all(any(word in detail for word in known) for detail in told), told
        assert not events(state, "asset-malformed")


async def _client(site: Site, url: str, word: str) -> Client:
    client = Client(url, timeout=PATIENT)
    client.application_uri = "urn:mes"
    name, _, sign = word.partition(" ")
    if name != "none":
        keys = site.folder / "mes"
        await client.set_security(
            getattr(policies, f"SecurityPolicy{name.replace('_', '')}"), str(keys / "own.der"), str(keys / "own.pem"),
            server_certificate=str(site.folder / "ours.der"), mode=ua.MessageSecurityMode(2 if sign else 3),
        )  # fmt: skip
    return client


async def _status(work: Any) -> str:
    try:
        await work
    except ua.UaError as error:
        return type(error).__name__
    return "Good"


async def _short(site: Site, url: str, word: str) -> None:
    """What shows that a way works: a read, a write, a call."""
    async with await _client(site, url, word) as client:
        index = (await client.get_namespace_array()).index(LINE)
        line, speed = (client.get_node(ua.NodeId(name, index)) for name in ("Line1", "Line1.Speed"))
        assert isinstance(await speed.read_value(), float)
        assert await _status(speed.write_value(120.0)) == "Good"
        assert await _status(speed.write_value(9999.0)) == "BadOutOfRange"
        called = await line.call_method(ua.NodeId("Line1.Reset", index), ua.Variant(3, ua.VariantType.Int32))
        assert called >= 1


@pytest.mark.parametrize("server", SERVERS)
def test_each_policy_and_mode_towards_clients(site: Site, server: str) -> None:
    async def main() -> None:
        for word in WORDS:
            await _short(site, site.url(server), word)

    asyncio.run(main())


def test_each_policy_and_mode_towards_assets(site: Site) -> None:
    async def main() -> None:
        for word in [*SECURED[1:], SECURED[0]]:
            await asyncio.to_thread(site.ask_assets_by, word)
            for server in SERVERS:
                await _short(site, site.url(server), "none")

    asyncio.run(main())


EVENTS = {"tick": [100, "Line1", None, None], "jam": [700, "Line1", "B7", None]}
"""Severity, source, batch (of the plant's own type) and time zone (which no rule allows), by the message's word."""


class Counter:
    """Which items have brought a value, and what events there were."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.events: dict[str, list[Any]] = {}

    def event_notification(self, event: Any) -> None:
        found = [getattr(event, name, None) for name in ("Severity", "SourceName", "Batch", "LocalTime")]
        self.events[event.Message.Text.split()[0]] = found

    def datachange_notification(self, _node: Any, _value: Any, data: Any) -> None:
        self.seen.add(data.monitored_item.ClientHandle)


@MANY
@pytest.mark.parametrize("server", SERVERS)
def test_a_client_by_asyncua_does_all_that_clients_do(site: Site, server: str, items: int, renewals: int) -> None:
    async def main() -> None:
        async with await _client(site, site.url(server), "Basic256Sha256") as client:
            index = (await client.get_namespace_array()).index(LINE)
            line = client.get_node(ua.NodeId("Line1", index))
            below = {(await one.read_browse_name()).Name for one in await line.get_children()}
            assert below - {"SpeedAlarm"} == {"Speed", "Level", "Counts", "Reset"}
            reset = client.get_node(ua.NodeId("Line1.Reset", index))
            [arguments] = [one for one in await reset.get_properties() if "Input" in str(one.nodeid.Identifier)]
            [argument] = await arguments.read_value()
            assert (argument.Name, argument.DataType, argument.ValueRank) == ("count", ua.NodeId(6, 0), -1)
            level: Any = client.get_node(ua.NodeId("Line1.Level", index))
            now = datetime.now(UTC).replace(tzinfo=None)
            assert len(await level.read_raw_history(now - timedelta(minutes=1), now, 5)) == 5
            counter = Counter()
            subscription: Any = await client.create_subscription(100, counter)
            made = await subscription.subscribe_data_change([level] * items, queuesize=1, sampling_interval=1000)
            assert all(isinstance(one, int) for one in made)
            for _ in range(int(PATIENT * 10)):
                if len(counter.seen) == items:
                    break
                await asyncio.sleep(0.1)
            assert len(counter.seen) == items
            filter = ua.EventFilter()
            for name, space in (("Message", 0), ("Severity", 0), ("SourceName", 0), ("Batch", index), ("LocalTime", 0)):
                operand = ua.SimpleAttributeOperand(ua.NodeId(2041, 0), [ua.QualifiedName(name, space)])
                operand.AttributeId = ua.AttributeIds.Value
                filter.SelectClauses.append(operand)
            await subscription.subscribe_events(line, evfilter=filter)
            for _ in range(int(PATIENT * 10)):
                if len(counter.events) == 2:
                    break
                await asyncio.sleep(0.1)
            assert counter.events == EVENTS
            await subscription.delete()
            for _ in range(renewals):
                await asyncio.sleep(0.21)  # five a second are taken
                await client.uaclient.open_secure_channel(
                    ua.OpenSecureChannelParameters(
                        RequestType=ua.SecurityTokenRequestType.Renew,
                        SecurityMode=client.security_policy.Mode,
                        ClientNonce=os.urandom(32),
                        RequestedLifetime=600_000,
                    )
                )
                assert isinstance(await level.read_value(), float)

    asyncio.run(main())


@pytest.mark.parametrize("server", SERVERS)
def test_who_may_browse_sees_what_there_is_and_reads_none_of_it(site: Site, server: str) -> None:
    async def main() -> None:
        client = await _client(site, site.url(server), "Basic256Sha256")
        await client.load_client_certificate(str(site.folder / "bea" / "own.der"))
        await client.load_private_key(site.folder / "bea" / "own.pem")
        async with client:
            index = (await client.get_namespace_array()).index(LINE)
            line: Any = client.get_node(ua.NodeId("Line1", index))
            children: dict[str, Any] = {(await one.read_browse_name()).Name: one for one in await line.get_children()}
            assert children.keys() > {"Speed", "Level", "Counts", "Recipe", "Secret", "Reset", "Purge"}
            secret = children["Secret"]
            assert await secret.read_data_type() == ua.NodeId(6, 0)
            assert await secret.read_type_definition() == ua.NodeId(63, 0)
            assert await _status(secret.read_value()) == "BadUserAccessDenied"
            assert await _status(secret.write_value(1, ua.VariantType.Int32)) == "BadUserAccessDenied"
            executable = await children["Purge"].read_attribute(ua.AttributeIds.UserExecutable)
            assert executable.Value.Value is False
            assert isinstance(await children["Level"].read_value(), float), "what other rules say stands beside it"
            for name, value, kind in (
                ("Due", datetime(2027, 3, 1, 6, 30, tzinfo=UTC), ua.VariantType.DateTime),
                ("Order", uuid.UUID(int=8), ua.VariantType.Guid),
                ("Target", children["Speed"].nodeid, ua.VariantType.NodeId),
                ("Grid", [[6.0, 5.0, 4.0], [3.0, 2.0, 1.0]], ua.VariantType.Double),
            ):
                await children[name].write_value(value, kind)
                assert await children[name].read_value() == value
            late = children["Due"].write_value(datetime(2028, 3, 1, tzinfo=UTC), ua.VariantType.DateTime)
            assert await _status(late) == "BadOutOfRange"
            assert await _status(children["Grid"].write_value([1.0] * 6)) == "BadTypeMismatch"
            top = [(await one.read_browse_name()).Name for one in await client.nodes.objects.get_children()]
            assert sorted(top) == ["Line1", "Server"], "the other line is in no subtree"

    asyncio.run(main())


@needs_node
@MANY
def test_a_client_by_node_opcua_does_all_that_clients_do(site: Site, items: int, renewals: int) -> None:
    mes = str(site.folder / "mes")
    full = {"policy": "Basic256Sha256", "mode": "SignAndEncrypt", "folder": mes, "items": items, "renewals": renewals}
    runs = [{"url": site.url(server), **full, "events": True, "cuts": True, "refreshes": server == "node"}
            for server in SERVERS]  # fmt: skip
    for word in WORDS:
        name, _, sign = word.partition(" ")
        way = {"policy": name, "mode": "Sign" if sign else "SignAndEncrypt", "folder": mes}
        runs.append({"url": site.url("node"), **(way if name != "none" else {"policy": "None", "mode": "None"})})
    # The server has connected to the gate, and the gate connects to the client.
    brief = {**full, "items": 0, "renewals": 0}
    reverse = {"reverse": f"opc.tcp://127.0.0.1:{site.calls[1]}", "server": str(site.folder / "ours.der")}
    runs += [
        {"url": site.url("calls"), **brief, "events": True, "rule": True},
        {"url": site.url("calls"), **brief, **reverse},
    ]
    runs.append({"url": site.url("node"), **full, "items": 0, "renewals": 0, "certificate": str(site.folder / "anna")})
    runs.append({"url": site.url("node"), **full, "items": 0, "renewals": 0, "certificate": mes})
    *found, stranger = node_client(*runs)
    assert len(found) == len(runs) - 1
    for run, one in zip(runs, found, strict=False):
        assert one == {
            "browse": ["Counts", "Level", "Reset", "Speed"],
            "read": ["Good", "BadNodeIdUnknown", "Good"],
            "counts": [1, 2, 3, 4],
            "write": ["Good", "BadOutOfRange"],
            "call": ["Good", "BadOutOfRange", "BadNodeIdUnknown"],
            "arguments": ["count"],
            "history": ["Good", True],
            **({"items": items} if run.get("items") else {}),
            **({"events": EVENTS} if run.get("events") else {}),
            **({"refresh": ["Good", True]} if run.get("refreshes") else {}),
            **({"acknowledge": ["BadOutOfRange", False, "Good", True]} if run.get("refreshes") else {}),
            **(
                {"rule": ["BadInvalidArgument", "BadEventIdUnknown", "BadNodeIdUnknown", False, "Good", True]}
                if run.get("rule")
                else {}
            ),
            **(
                {"cut": {"session": True, "same": True, "more": True, "marks": [0x480], "whole": True}}
                if run.get("cuts")
                else {}
            ),
            "renewed": one.get("renewed") if run.get("renewals") else 0,
        }, run
        assert one["renewed"] >= int(run.get("renewals") or 0)  # type: ignore[call-overload]
    [told] = [one for one in events(site.gate.state, "write-allowed") if "seen by the rule" in json.dumps(one)]
    assert told["asset"] == "calls" and f"nsu={LINE};s=Line1.SpeedAlarm" in json.dumps(told)
    assert "error" in stranger, "a certificate by which nobody may log in"
    eventually(lambda: "anna" in {one["user"] for one in events(site.gate.state, "client-identified")})
