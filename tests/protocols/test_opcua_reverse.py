"""Reverse connect, at the machines: who says RHE and when, what is made of it, and what is none."""

from __future__ import annotations

import msgspec
import pytest

from cofferdam.brokers.registry import BROKERS
from cofferdam.enforce.plans.network import network_plan
from cofferdam.enforce.plans.rules import ruleset
from cofferdam.enforce.profile import Can
from cofferdam.errors import PolicyError, RemoteProtocolError
from cofferdam.model import Security
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.proof.rules.claims import LIVE, confinement
from cofferdam.proof.rules.listing import Ruleset
from cofferdam.proof.rules.solver import ask
from cofferdam.protocols.base import NEED_DATA, Established
from cofferdam.protocols.opcua.channel import take_reverse_hello
from cofferdam.protocols.opcua.machine import OpcUaClient, OpcUaServer
from tests.protocols.opcua.pair import Pair, facing, trust
from tests.protocols.opcua.reversed import reverse_hello

URL = "opc.tcp://127.0.0.1:4841"


def _called(server: str = "") -> OpcUaClient:
    """Our side towards an asset that has connected to us. `server`: who the policy says that it is."""
    stands = msgspec.structs.replace(facing(trust()), dialled=True)
    asset = msgspec.structs.replace(stands.asset, security=Security(("none",), "none", server=server))
    return OpcUaClient(msgspec.structs.replace(stands, asset=asset), 8)


def _calling() -> OpcUaServer:
    """Our side towards a client that we have connected to."""
    return OpcUaServer(msgspec.structs.replace(facing(trust()), dialled=True))


def test_a_server_that_connects_says_who_it_is_and_then_all_is_as_ever() -> None:
    server = _calling()
    said = server.take_output()
    assert said[:4] == b"RHEF" and take_reverse_hello(said[8:]) == (server.uri, URL)
    assert said == reverse_hello(server.uri, URL), "by the standard's own table"
    for step in (0, 1, 7):
        pair = Pair(_calling(), _called(server.uri), step)
        assert pair.client.take_output() == b"", "it waits to be told"
        pair.run()
        assert any(isinstance(one, Established) for one in pair.heard)
        assert pair.client.url == pair.server.url == URL, "HEL has what RHE said"


JUNK = {
    "another server": (reverse_hello("urn:another", URL), "calls itself 'urn:another'"),
    "no name": (reverse_hello("", URL), "calls itself ''"),
    "web": (b"GET / HTTP/1.1\r\n\r\n", "no OPC UA message"),
    "ACK": (b"ACKF" + (28).to_bytes(4, "little") + bytes(20), "another message than RHE"),
    "ERR": (b"ERRF" + (16).to_bytes(4, "little") + bytes(8), "another message than RHE"),
    "a large one": (b"RHEF" + (1 << 30).to_bytes(4, "little"), "a chunk of"),
    "chunked": (b"RHEC" + reverse_hello("urn:us", URL)[4:], "no OPC UA message"),
    "twice": (reverse_hello("urn:us", URL) * 2, "RHE where none is expected"),
    "a URL of 5,000 bytes": (reverse_hello("urn:us", "x" * 5000), "4,096 bytes or more"),
    "a name of 5,000 bytes": (reverse_hello("x" * 5000, URL), "4,096 bytes or more"),
    "cut short": (b"RHEF" + (12).to_bytes(4, "little") + b"\x40\0\0\0", "RHE: "),
    "spare bytes": (b"RHEF" + (17).to_bytes(4, "little") + b"\xff" * 8 + b"x", "RHE: "),
    "no UTF-8": (b"RHEF" + (18).to_bytes(4, "little") + b"\x02\0\0\0\xff\xff" + b"\xff" * 4, "RHE: "),
}


@pytest.mark.parametrize("what", JUNK)
def test_what_is_no_server_ends_its_connection(what: str) -> None:
    data, why = JUNK[what]
    client = _called("urn:us")
    client.on_time(1)
    client.receive_data(data)
    with pytest.raises(RemoteProtocolError, match=why.replace("(", ".")):
        while client.next_event() is not NEED_DATA:
            pass


def test_nobody_says_rhe_where_connections_are_opened_as_ever() -> None:
    client, server = OpcUaClient(facing(trust()), 8), OpcUaServer(facing(trust()))
    for machine in (client, server):
        machine.on_time(1)
        machine.receive_data(reverse_hello("urn:us", URL))
        with pytest.raises(RemoteProtocolError, match="RHE where none is expected"):
            machine.next_event()


def test_a_client_that_has_nothing_to_ask_yet_is_left_its_connection_for_two_minutes() -> None:
    server = _calling()
    server.on_time(1)
    assert server.deadline == 1 + 120 * 10**9
    server.on_time(119 * 10**9)
    assert server.next_event() is NEED_DATA
    server.on_time(121 * 10**9)
    with pytest.raises(RemoteProtocolError, match="in time"):
        server.next_event()


POLICY = """
site: s
zones:
  office: {side: it, interface: eth0, addresses: [10.1.0.1/24]}
  plant: {side: ot, interface: eth1, addresses: [10.20.0.1/24]}
assets:
  filler:
    {zone: plant, address: 10.20.0.31, protocol: opcua, listen: "10.1.0.1:4841",
     reverse: {listen: "10.20.0.1:4842", clients: ["10.1.0.20:4845", "10.1.0.99:4845"]},
     points: {speed: {at: "nsu=urn:x;s=Speed", type: Double}}}
principals:
  mes: {zone: office, addresses: [10.1.0.20]}
conduits:
  line: {from: office, to: plant, broker: opcua, owner: a, reason: b, allow: [{who: mes, asset: filler, read: [speed]}]}
"""


def test_what_may_pass_the_walls_follows_from_the_policy() -> None:
    plan = network_plan(compile_policy(loads(POLICY), now_ns=0))
    office, plant = plan.side("it"), plan.side("ot")
    [way] = plant.listens
    assert (way.sources, way.addresses, way.port) == (("10.20.0.31/32",), ("10.20.0.1",), 4842)
    assert not plant.reaches, "the gate opens no connection to it"
    [call] = office.reaches
    assert (call.addresses, call.port, call.part) == (("10.1.0.20",), 4845, "outer"), "nobody waits at the other"
    assert [one.port for one in office.listens] == [4841]
    for side in (office, plant):
        names = {"office": "eth0", "plant": "eth1"}
        users = {reach.who: 64_002 for reach in side.reaches}
        made = Ruleset.read(ruleset(side, names, users))
        answers = ask({LIVE: made}, confinement(side, names, users), ("eth0", "eth1"))
        assert [answer.question.name for answer in answers if answer.packet is not None] == []


def test_a_part_may_what_the_policy_needs_and_no_more() -> None:
    parts = BROKERS["opcua"].crew.parts
    outer, inner = parts["outer"], parts["inner"]
    assert outer.needing(listens=True, dials=False).can == Can.ACCEPT
    assert outer.needing(listens=True, dials=True).can == Can.ACCEPT | Can.DIAL_TCP
    assert inner.needing(listens=False, dials=True).can == Can.DIAL_TCP
    assert inner.needing(listens=True, dials=True).can == Can.ACCEPT | Can.DIAL_TCP
    modbus = BROKERS["modbus"].crew.parts
    assert modbus["outer"].needing(listens=False, dials=True).can == modbus["outer"].can == Can.ACCEPT


WRONG = {
    "port of a device that connects": ("protocol: opcua,", "protocol: opcua, port: 4840,", "the device opens the"),
    "an address that is not ours": ("listen: \"10.20.0.1:4842\"", "listen: \"10.20.0.2:4842\"", "of this machine in"),
    "nothing": ("reverse: {listen: \"10.20.0.1:4842\", clients: [\"10.1.0.20:4845\", \"10.1.0.99:4845\"]}",
                "reverse: {}", "listen, clients or both"),
    "another protocol": ("protocol: opcua,", "protocol: modbus,", "the protocol of the conduit"),
    "no place for clients": ("listen: \"10.1.0.1:4841\",", "", "listen or overlay as well"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_is_said_with_its_place(what: str) -> None:
    old, new, said = WRONG[what]
    assert old in POLICY
    with pytest.raises(PolicyError) as refused:
        loads(POLICY.replace(old, new, 1))
    assert said in " ".join(map(str, refused.value.problems))
