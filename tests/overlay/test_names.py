"""The name server: what it answers, what it refuses, what it does not answer at all; then as a process."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import random
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dnslib import EDNS0, QTYPE, RCODE, DNSHeader, DNSQuestion, DNSRecord

from cofferdam.crossing.framing import PACKET, Assembler, pack
from cofferdam.crossing.pipe import make_pipe
from cofferdam.enforce.overlay import pace
from cofferdam.enforce.overlay.answers import UDP_BYTES, Answers
from cofferdam.enforce.overlay.records import FROM_NAMES, TO_NAMES, FromNames, NamesReady, SetZone, StopNames, ToNames
from cofferdam.enforce.plans.overlay import Host, NameZone, name_zone, reverse_zones, zone_files
from cofferdam.errors import RemoteProtocolError
from tests.overlay.works import compiled, text
from tests.ports import held_for_udp_too
from tests.waiting import PATIENT

DOMAIN = "riverside-water.internal"
POLICY = compiled(text({"plc-7": "overlay: 10.64.7.17", "plc-8": ""}))
ZONE = name_zone(POLICY, 42)
assert ZONE is not None
ANSWERS = Answers(ZONE)


def ask(name: str, kind: str = "A", *, answers: Answers = ANSWERS, stream: bool = False, edns: int = 0) -> DNSRecord:
    question = DNSRecord.question(name, kind)
    if edns:
        question.add_ar(EDNS0(udp_len=edns))
    wire = answers.answer(bytes(question.pack()), stream=stream)
    reply = DNSRecord.parse(wire)
    assert reply.header.id == question.header.id
    assert reply.header.qr == 1
    assert reply.header.ra == 0
    return reply


def code(reply: DNSRecord) -> str:
    return str(RCODE[reply.header.rcode])


def data(reply: DNSRecord) -> list[str]:
    return [str(record.rdata) for record in reply.rr]


def test_addresses_of_an_asset() -> None:
    assert data(ask(f"plc-7.{DOMAIN}")) == ["10.64.7.17"]
    assert data(ask(f"plc-7.{DOMAIN}", "AAAA")) == [POLICY.assets["plc-7"].places[1][0]]
    assert ask(f"plc-7.{DOMAIN}").header.aa == 1


def test_the_real_address_of_a_device_is_nowhere() -> None:
    assert ZONE is not None
    said = "".join(zone_files(ZONE).values())
    assert "10.20.0.2" not in said
    assert POLICY.assets["plc-7"].address == "10.20.0.2"


def test_texts_server_and_authority() -> None:
    assert data(ask(f"plc-7.{DOMAIN}", "TXT")) == ['"protocol=modbus","port=502"']
    assert data(ask(DOMAIN, "NS")) == [f"ns.{DOMAIN}."]
    assert data(ask(DOMAIN, "SOA"))[0].split()[2] == "42"
    assert data(ask(f"ns.{DOMAIN}")) == ["10.64.7.1"]


def test_letters_of_a_question_come_back_as_they_were() -> None:
    wire = ANSWERS.answer(bytes(DNSRecord.question(f"PlC-7.{DOMAIN}").pack()))
    assert b"\x05PlC-7" in wire
    assert data(DNSRecord.parse(wire)) == ["10.64.7.17"]


def test_reverse() -> None:
    assert data(ask("17.7.64.10.in-addr.arpa", "PTR")) == [f"plc-7.{DOMAIN}."]
    pointer = ipaddress.ip_address(POLICY.assets["plc-8"].places[1][0]).reverse_pointer
    assert data(ask(pointer, "PTR")) == [f"plc-8.{DOMAIN}."]


def test_what_is_not_there_and_what_is_not_ours() -> None:
    reply = ask(f"plc-9.{DOMAIN}")
    assert code(reply) == "NXDOMAIN"
    assert [QTYPE[record.rtype] for record in reply.auth] == ["SOA"]
    empty = ask(f"plc-7.{DOMAIN}", "MX")
    assert (code(empty), empty.rr, len(empty.auth)) == ("NOERROR", [], 1)
    for name in ("example.com", "internal", f"x{DOMAIN}", ".", "18.8.64.10.in-addr.arpa"):
        other = ask(name)
        assert (code(other), other.rr, other.auth, other.header.aa) == ("REFUSED", [], [], 0), name
    for kind in ("AXFR", "IXFR"):
        assert code(ask(DOMAIN, kind)) == "REFUSED"


def test_a_question_for_anything_gets_one_set() -> None:
    assert len(ask(f"plc-7.{DOMAIN}", "ANY").rr) == 1


def test_a_name_between_exists_without_records() -> None:
    zone = NameZone("a.b", 1, ("192.0.2.1",), (Host("x", ("2001:db8::1",)),), reverse_zones("2001:db8::/32"))
    reply = ask("0.8.b.d.0.1.0.0.2.ip6.arpa", answers=Answers(zone))
    assert code(reply) == "NOERROR"


def test_other_opcodes_and_versions() -> None:
    question = DNSRecord(DNSHeader(opcode=2), q=DNSQuestion(DOMAIN))
    assert code(DNSRecord.parse(ANSWERS.answer(bytes(question.pack())))) == "NOTIMP"
    strange = DNSRecord.question(DOMAIN)
    strange.add_ar(EDNS0(version=1, udp_len=1232))
    reply = DNSRecord.parse(ANSWERS.answer(bytes(strange.pack())))
    assert reply.ar[0].ttl >> 24 == 1  # BADVERS is 16: its upper bits stand here
    assert not reply.rr


def test_a_long_answer_is_cut_short_by_udp_and_whole_by_tcp() -> None:
    hosts = (Host("big", tuple(f"10.64.{n // 250}.{n % 250 + 1}" for n in range(100))),)
    answers = Answers(NameZone(DOMAIN, 1, ("10.64.7.1",), hosts, ()))
    short = ask(f"big.{DOMAIN}", answers=answers)
    assert (short.header.tc, short.rr) == (1, [])
    assert ask(f"big.{DOMAIN}", answers=answers, edns=65535).header.tc == 1
    assert len(ask(f"big.{DOMAIN}", answers=answers, stream=True).rr) == 100
    wire = answers.answer(bytes(DNSRecord.question(f"big.{DOMAIN}").pack()))
    assert len(wire) <= 512


# With an id of our own: a random one would stand in the names of the cases.
GOOD = b"\x12\x34" + bytes(DNSRecord.question(f"plc-7.{DOMAIN}").pack())[2:]


@pytest.mark.parametrize(
    "wire",
    [
        b"", b"\0", GOOD[:11], GOOD[:-1], GOOD + b"\0", GOOD[:-5],
        GOOD[:2] + b"\x81" + GOOD[3:],  # an answer
        GOOD[:5] + b"\x02" + GOOD[6:],  # two questions
        GOOD[:7] + b"\x01" + GOOD[8:],  # an answer record
        GOOD[:9] + b"\x01" + GOOD[10:],  # an authority record
        GOOD[:11] + b"\x01" + GOOD[12:],  # an additional record that is not there
        GOOD[:11] + b"\x02" + GOOD[12:] + b"\0\0\x29\x04\xd0\0\0\0\0\0\0" * 2,
        GOOD[:12] + b"\xc0\x0c\0\x01\0\x01",  # a pointer to itself
        GOOD[:12] + b"\x40" + b"a" * 64 + b"\0\0\x01\0\x01",
        GOOD[:12] + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\x01\0\x01",  # 257 bytes
        GOOD + b"\0" * 2000,
        bytes(12) + b"\0\0\x01\0\x01",  # no question by its count
    ],
)  # fmt: skip
def test_malformed_gets_no_answer(wire: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        ANSWERS.answer(wire)
    assert "RFC" in caught.value.section


def test_any_bytes_are_answered_or_malformed() -> None:
    chance = random.Random(7)
    for _ in range(3000):
        wire = bytearray(GOOD)
        for _ in range(chance.randrange(1, 6)):
            wire[chance.randrange(len(wire))] = chance.randrange(256)
        with contextlib.suppress(RemoteProtocolError):
            reply = ANSWERS.answer(bytes(wire))
            assert reply[:2] == bytes(wire[:2])
            assert len(reply) <= UDP_BYTES
            DNSRecord.parse(reply)


@pytest.mark.parametrize(
    ("prefix", "zones"),
    [
        ("10.64.7.0/24", ("7.64.10.in-addr.arpa",)),
        ("10.64.0.0/16", ("64.10.in-addr.arpa",)),
        ("10.64.6.0/23", ("6.64.10.in-addr.arpa", "7.64.10.in-addr.arpa")),
        ("10.64.7.16/30", tuple(f"{n}.7.64.10.in-addr.arpa" for n in (16, 17, 18, 19))),
        ("fd00:1234::/64", ("0.0.0.0.0.0.0.0.4.3.2.1.0.0.d.f.ip6.arpa",)),
        ("2001:db8::/33", tuple(f"{n}.8.b.d.0.1.0.0.2.ip6.arpa" for n in range(8))),
    ],
)
def test_reverse_zones_hold_the_prefix_and_nothing_else(prefix: str, zones: tuple[str, ...]) -> None:
    assert reverse_zones(prefix) == zones


def test_pace_is_held_by_network() -> None:
    now = 10**12
    found = pace.Pace(now)
    said = [found.ask(f"10.1.2.{n % 250}", now) for n in range(300)]
    assert said.count(pace.ANSWER) == pace.BURST
    assert abs(said.count(pace.SHORT) - said.count(pace.NOTHING)) <= 1
    assert found.ask("10.1.3.1", now) == pace.ANSWER
    assert found.ask("fd00::1", now) == pace.ANSWER
    assert found.ask("10.1.2.9", now + 10**9) == pace.ANSWER


def test_pace_holds_all_together_and_remembers_a_bounded_number() -> None:
    now = 10**12
    found = pace.Pace(now)
    said = [found.ask(f"10.{n >> 8}.{n & 255}.1", now) for n in range(6000)]
    assert said.count(pace.ANSWER) == pace.TOTAL_BURST
    assert len(found._networks) == pace.NETWORKS


# --- the process ----------------------------------------------------------------------------------------------------


class Running:
    """The name server as a process, with its filter."""

    def __init__(self) -> None:
        self.udp, self.tcp = held_for_udp_too()
        self.place = self.udp.getsockname()
        to_read, to_write = make_pipe()
        from_read, from_write = make_pipe()
        self.control, self.said = to_write, from_read
        os.set_blocking(from_read, True)
        sockets = (self.udp.fileno(), self.tcp.fileno())
        # The process takes a run of descriptors, so they are put side by side, where nobody has any.
        taken = {int(path.name) for path in Path("/proc/self/fd").iterdir()}
        base = next(fd for fd in range(200, 1000, 2) if not {fd, fd + 1} & taken)
        for at, fd in enumerate(sockets):
            os.dup2(fd, base + at, inheritable=True)
        command = [sys.executable, "-I", "-m", "cofferdam.enforce.overlay.names"]
        command += [
            "--control-in",
            str(to_read),
            "--control-out",
            str(from_write),
            "--listeners-at",
            str(base),
            "--listeners",
            "2",
        ]
        self.process = subprocess.Popen(command, pass_fds=(to_read, from_write, base, base + 1), stderr=subprocess.PIPE)
        for fd in (to_read, from_write, base, base + 1):
            os.close(fd)
        self._feed = Assembler(FROM_NAMES.limit).feed

    def tell(self, record: ToNames) -> None:
        for packet in pack([TO_NAMES.encode(record)]):
            os.write(self.control, packet)

    def hear(self) -> FromNames:
        while True:
            packet = os.read(self.said, PACKET)
            assert packet, "the name server ended"
            for found in self._feed(packet):
                return FROM_NAMES.decode(found)

    def ready(self, zone: NameZone) -> NamesReady:
        self.tell(SetZone(zone))
        while not isinstance(record := self.hear(), NamesReady):
            pass
        return record

    def ask(self, wire: bytes, *, seconds: float = PATIENT) -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            asker.settimeout(seconds)
            asker.sendto(wire, self.place)
            return asker.recv(4096)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(PATIENT)
        assert self.process.stderr is not None
        self.process.stderr.close()
        for fd in (self.control, self.said):
            os.close(fd)
        self.udp.close()
        self.tcp.close()


@pytest.fixture
def running() -> Iterator[Running]:
    made = Running()
    try:
        assert ZONE is not None
        facts = made.ready(ZONE).facts
        assert any(name == "system-call filter" and holds for name, holds, _ in facts), facts
        yield made
    finally:
        made.close()


def test_no_option_leaves_its_filter_out() -> None:
    command = [sys.executable, "-I", "-m", "cofferdam.enforce.overlay.names"]
    given = ["--control-in", "0", "--control-out", "0", "--listeners-at", "0", "--listeners", "1"]
    shown = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout
    options = set(re.findall(r"--[a-z-]+", shown))
    assert options == {"--help", "--name", "--kind", "--part", *given[::2]}, (
        "a new one says how it keeps away from the sandbox"
    )
    done = subprocess.run([*command, *given, "--no-filter"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "unrecognized" in done.stderr


def test_process_answers_by_udp_and_tcp_under_its_filter(running: Running) -> None:
    wire = bytes(DNSRecord.question(f"plc-7.{DOMAIN}").pack())
    assert data(DNSRecord.parse(running.ask(wire))) == ["10.64.7.17"]
    with socket.create_connection(running.place, timeout=PATIENT) as asker:
        for _ in range(2):  # one byte at a time, and two questions on one connection
            for byte in struct.pack(">H", len(wire)) + wire:
                asker.sendall(bytes([byte]))
            with asker.makefile("rb") as answers:
                length = struct.unpack(">H", answers.read(2))[0]
                assert data(DNSRecord.parse(answers.read(length))) == ["10.64.7.17"]
    filters = Path(f"/proc/{running.process.pid}/status").read_text()
    assert "Seccomp:\t2" in filters


def test_process_takes_another_zone_while_it_runs(running: Running) -> None:
    zone = NameZone(DOMAIN, 43, ("10.64.7.1",), (Host("plc-7", ("10.64.7.99",)),))
    assert running.ready(zone).serial == 43
    wire = bytes(DNSRecord.question(f"plc-7.{DOMAIN}").pack())
    assert data(DNSRecord.parse(running.ask(wire))) == ["10.64.7.99"]


def test_process_drops_rubbish_and_lives_on(running: Running) -> None:
    chance = random.Random(1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        for _ in range(500):
            asker.sendto(chance.randbytes(chance.randrange(0, 1400)), running.place)
    with socket.create_connection(running.place, timeout=PATIENT) as asker:
        asker.sendall(struct.pack(">H", 9000) + chance.randbytes(100))
        assert asker.recv(1) == b""
    with socket.create_connection(running.place, timeout=PATIENT) as asker:
        asker.sendall(struct.pack(">H", 40) + chance.randbytes(40))
        assert asker.recv(1) == b""
    idle = [socket.create_connection(running.place, timeout=PATIENT) for _ in range(100)]
    wire = bytes(DNSRecord.question(f"plc-7.{DOMAIN}").pack())
    with socket.create_connection(running.place, timeout=PATIENT) as asker:  # 100 idle ones do not keep it out
        asker.sendall(struct.pack(">H", len(wire)) + wire)
        assert asker.recv(2)
    for sock in idle:
        sock.close()
    assert running.process.poll() is None


def test_process_ends_with_the_gate_and_when_told(running: Running) -> None:
    running.tell(StopNames())
    assert running.process.wait(PATIENT) == 0
    other = Running()
    try:
        os.close(other.control)
        assert other.process.wait(PATIENT) == 2
        other.control = os.open(os.devnull, os.O_RDONLY)
    finally:
        other.close()
