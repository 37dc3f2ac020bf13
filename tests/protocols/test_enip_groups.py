"""EtherNet/IP's inputs by multicast: one producer for all clients of a stream, and what a policy may say of it."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from cofferdam.errors import PolicyError
from cofferdam.model import Item, Stream
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.protocols.base import NEED_DATA, Facing, LocalAnswer, RequestReceived
from cofferdam.protocols.enip import messages as m
from cofferdam.protocols.enip import paths, requests, wire
from cofferdam.protocols.enip.dialect import group_of
from cofferdam.protocols.enip.io import Producers
from cofferdam.protocols.enip.server import EnipServer
from tests.policy.plant import NOW
from tests.protocols.enip import ASSET, REGISTER, cip_of, facing, rr
from tests.protocols.test_enip import datagram
from tests.verbs import cli

GROUP = "239.192.1.32"
MULTICAST, TO_ONE = 0x2000, 0x4000
SHARED = replace(
    ASSET,
    streams=(
        Stream("inputs", Item("io", "inputs"), 0, "outputs 193 of 0 bytes, inputs 100 of 8 bytes, no run", GROUP),
    ),
)
_COUNT = iter(range(1, 1 << 20))


def numbers(count: int) -> bytes:
    """Numbers that differ each time."""
    return next(_COUNT).to_bytes(count, "little")


class Client:
    """A machine with one client, and the answer to its opening. `rpi`: of the inputs, in µs."""

    def __init__(self, common: Any, asset: Any = SHARED, kind: int = MULTICAST, rpi: int = 10_000) -> None:
        place: Facing = replace(facing(asset), common=common, random=numbers)
        self.machine = EnipServer(place)
        self.machine.on_time(1)
        self.machine.receive_data(REGISTER)
        while (event := self.machine.next_event()) is not NEED_DATA:
            if isinstance(event, LocalAnswer):
                self.machine.send(event.token, event.reply)
        serial = next(_COUNT)
        body = struct.pack("<BBIIHHIB3xIHIHBB", 10, 14, 0, 0x5000 + serial, serial, 77, 4711, 0, 10_000, 0x4802, rpi,
                           kind | 0x080A, 1, 4)  # fmt: skip
        path = b"\x20\x04\x24\x00\x2c\xc1\x2c\x64"
        self.machine.receive_data(rr(requests.made(0x54, paths.of_object(6, 1), body + path)))
        asked = self.machine.next_event()
        assert isinstance(asked, RequestReceived), asked
        self.standing = asked.token
        frame = self.machine.send(asked.token, m.IoOpened(10_000, rpi))
        self.items = wire.items_of(frame[wire.SIZE :])
        self.to_us, self.to_client = struct.unpack_from("<II", cip_of(frame), 4)

    def packet(self, data: bytes, moved: bool = True) -> list[tuple[int, bytes, str]]:
        """What leaves when the device's packet comes by this client's connection."""
        self.machine.frame(self.standing, m.IoData(moved, True, data))
        return self.machine.take_datagrams()


def test_clients_of_one_stream_hear_one_producer() -> None:
    common = Producers()
    one, other = Client(common), Client(common)
    address = b"\0\2\x08\xae" + bytes([239, 192, 1, 32]) + bytes(8)
    for client in (one, other):
        assert client.items[2:] == [(wire.TO_ORIGINATOR, address)], "where the inputs are heard"
    assert one.to_client == other.to_client and one.to_us != other.to_us
    assert one.packet(b"ABCDEFGH") == [(2222, datagram(one.to_client, 1, b"\1\0ABCDEFGH"), GROUP)]
    assert other.packet(b"ABCDEFGH") == [], "the same is not said twice"
    assert one.packet(b"ABCDEFGH", moved=False) == [(2222, datagram(one.to_client, 2, b"\1\0ABCDEFGH"), GROUP)]
    # Whoever led is gone: the next one goes on with the same id, number and count.
    one.machine.over(one.standing, None)
    assert other.packet(b"abcdefgh", moved=False) == [(2222, datagram(one.to_client, 3, b"\2\0abcdefgh"), GROUP)]
    # So is a client whose connection has ended, and then none is left.
    third = Client(common)
    other.machine.gone()
    assert third.packet(b"12345678") == [(2222, datagram(one.to_client, 4, b"\3\0" + b"12345678"), GROUP)]
    third.machine.gone()
    assert Client(common).to_client != one.to_client


def test_a_leader_of_which_nothing_comes_leads_no_longer() -> None:
    common = Producers()
    one, other = Client(common), Client(common)
    assert len(one.packet(b"ABCDEFGH")) == 1
    said = [bool(other.packet(b"ABCDEFGH")) for _ in range(6)]
    assert said == [False, False, True, True, True, True], "within less than four intervals"
    assert not one.packet(b"ABCDEFGH"), "it is one of several now"


def test_a_producer_is_for_those_who_asked_for_the_same() -> None:
    common = Producers()
    one = Client(common)
    for other in (Client(common, rpi=20_000), Client(Producers())):
        assert other.to_client != one.to_client
    apart = Client(common, kind=TO_ONE)
    assert len(apart.items) == 2, "point to point, as it was asked"
    [(port, data, group)] = apart.packet(b"ABCDEFGH")
    assert (port, group) == (2222, "") and data[6:10] == apart.to_client.to_bytes(4, "little")
    # Where the policy has no group, who asks for multicast is sent its own.
    none = replace(SHARED, streams=(replace(SHARED.streams[0], group=""),))
    alone = Client(common, none)
    assert len(alone.items) == 2 and [found[2] for found in alone.packet(b"ABCDEFGH")] == [""]


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("10.0.0.1", "239.192.1.0"), ("192.168.1.30", "239.192.4.160"), ("172.16.0.2", "239.192.1.32"),
        ("10.0.4.0", "239.192.128.224"), ("100.64.7.30", "239.192.100.160"),
    ],
)  # fmt: skip
def test_a_group_is_derived_from_an_address(address: str, group: str) -> None:
    assert group_of(address) == group


POLICY = """\
site: works
zones: {{office: {{side: it}}, plant: {{side: ot}}}}
overlay: {{wireguard: {{endpoint: "192.0.2.1:51820", peers: 10.64.8.0/24}}}}
assets:
  drive:
    {{zone: plant, address: 10.0.0.9, protocol: enip, {place}, streams: {{drive:
     {{at: io Drive, form: "outputs 150 of 4 bytes, inputs 100 of 8 bytes{more}, multicast: {group}}}}}}}
principals: {{scada: {{zone: office, {who}}}}}
conduits:
  road: {{from: office, to: plant, broker: enip, owner: me, reason: a test,
         allow: [{{who: scada, asset: drive, stream: drive}}]}}
"""


def policy(
    place: str = "overlay: 100.64.7.30", group: str = "derived", who: str = "addresses: [10.1.0.1]", more: str = '"'
) -> Any:
    """`more`: behind the form."""
    return compile_policy(loads(POLICY.format(place=place, group=group, who=who, more=more)), now_ns=NOW)


def test_a_policy_says_the_group_and_the_configuration() -> None:
    [stream] = policy(more=', config 151", config: "01 00 DC"').assets["drive"].streams
    assert stream.config == "0100dc"
    for place, group, found in (
        ("overlay: 100.64.7.30", "derived", "239.192.100.160"),
        ('listen: "10.1.0.7:44818"', "derived", "239.192.1.192"),
        ("overlay: 100.64.7.30", "239.1.2.3", "239.1.2.3"),
    ):
        [stream] = policy(place, group).assets["drive"].streams
        assert stream.group == found


def test_explain_says_where_inputs_go(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY.format(place="overlay: 100.64.7.30", group=GROUP, who="addresses: [10.1.0.1]", more='"'))
    asked = ("--who", "scada", "--asset", "drive", "--operation", "stream drive")
    code, out, error = cli("explain", file, *asked)
    assert code == 0 and f"to the group {GROUP} (TTL 1)" in out, out + error


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"group": "224.0.0.1"}, "an address of 239.0.0.0/8"),
        ({"group": "239.1.2"}, "an address of 239.0.0.0/8"),
        ({"group": '"ff15::1"'}, "an address of 239.0.0.0/8"),
        ({"group": "10.0.0.9"}, "an address of 239.0.0.0/8"),
        ({"place": 'listen: "0.0.0.0:44818"'}, "an IPv4 address of its own"),
        ({"place": 'listen: "[fd00::7]:44818"'}, "an IPv4 address of its own"),
        ({"who": "peer: laptop"}, "groups do not go by the tunnel"),
        ({"more": ', config 151", config: "0g"'}, "bytes in hexadecimal"),
        ({"more": ', config 151", config: "01 0"'}, "bytes in hexadecimal"),
        ({"more": f', config 151", config: "{"00" * 401}"'}, "1 to 400 bytes"),
        ({"more": '", config: "01"'}, "to which assembly it goes"),
    ],
)
def test_a_policy_with_another_group_or_configuration_is_told(changed: dict[str, str], words: str) -> None:
    with pytest.raises(PolicyError) as refused:
        policy(**changed)
    assert words in "".join(str(problem) for problem in refused.value.problems)
