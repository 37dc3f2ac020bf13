"""`make bench ARGS=--cost`: what a read costs both halves in instructions, which nothing else on the machine changes.
Of Modbus; with `--enip` of a tag by EtherNet/IP, with `--packet` of 20 tags in one packet; with `--opcua` of a node by
OPC UA, with `--nodes` of 100.

Both halves run in one process, on the compiled build, over real sockets and pipes, under valgrind's callgrind; system
calls are not among the instructions. 32 clients ask for 32 different places, each many times. The figures stand beside
those that were recorded last (cost.json; `cost.py --record` writes them).

Not here: times (run.py), system calls (`--strace`).
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RECORDED = HERE / "cost.json"
CLIENTS, ROUNDS = 32, 40
ROWS = {
    "all": "crossing___reactor___Reactor___turn",
    "outer half, a request": "proxy___outer___Outer____on_data",
    "outer half, an answer": "proxy___outer___Outer___take",
    "inner half, a request": "proxy___inner___Inner___take",
    "inner half, an answer": "proxy___device___Device____on_data",
    "of these: frames to messages, outer": "{encapsulation}___next_event",
    "of these: messages to frames, outer": "{server}___(?:send|answer)",
    "of these: frames to messages, inner": "{client}___next_event",
    "of these: messages to frames, inner": "{client}___send",
    "of these: figures": "proxy___stats___FlowStats___answered",
    "records decoded, both": "crossing___records___Unpacker___feed",
}
"""What is shown, and the compiled function that does it, with all that it calls."""


class Modbus:
    """What is said by clients and by the device: frames, and the machines that read them."""

    names = {
        "encapsulation": "modbus___machine___ModbusServer", "server": "modbus___machine___ModbusServer",
        "client": "modbus___machine___ModbusClient",
    }  # fmt: skip
    steps, warm, rounds = 0, 0, ROUNDS
    """What is said at first and answered; how often clients ask before it counts, and afterwards."""

    def hello(self, step: int, at: int, said: bytes) -> bytes:
        """What a client says first. `said`: what it was answered last."""
        raise NotImplementedError

    def policy(self) -> str:
        """The benchmark's, with a device that is never late: valgrind makes everything fifty times slower."""
        from netns import LOOPBACK
        from paths import policy_text

        text = policy_text(LOOPBACK, "127.0.0.1", 15020, 15021)
        return text.replace("    unit: 1\n", "    unit: 1\n    timeout: 60s\n")

    def size(self, data: bytes) -> int:
        """Bytes of the frame that begins here."""
        return 6 + int.from_bytes(data[4:6], "big")

    def question(self, number: int, at: int, hello: bytes) -> bytes:
        """A client's. `hello`: what its first words were answered."""
        return struct.pack(">HHHBBHH", number, 0, 6, 1, 3, 7 * at, 10)

    def answer(self, question: bytes) -> bytes:
        """The device's."""
        return question[:2] + b"\0\0\0\x17\x01\x03\x14" + question[8:10] * 10


class Enip:
    """The same for a tag; the device is along a route."""

    names = {
        "encapsulation": "enip___encapsulation___Encapsulation", "server": "enip___server___EnipServer",
        "client": "enip___client___EnipClient",
    }  # fmt: skip
    steps, warm, rounds = 1, 0, ROUNDS

    def hello(self, step: int, at: int, said: bytes) -> bytes:
        return struct.pack("<HHII8sI", 0x65, 4, 0, 0, b"hello   ", 0) + b"\1\0\0\0"

    def policy(self) -> str:
        return (
            "site: bench\nzones: {office: {side: it}, plant: {side: ot}}\n"
            "assets:\n  packer:\n    {zone: plant, address: 127.0.0.1, port: 15020, protocol: enip, timeout: 60 s,\n"
            '     route: backplane 0, connections: 32, listen: "127.0.0.1:15021",\n'
            '     points: {counts: {at: "tag Counts[0-49]", type: dint}}}\n'
            "principals: {bench: {zone: office, addresses: [127.0.0.0/8]}}\n"
            "limits: {client_requests_per_second: 100000}\n"
            "conduits:\n  road: {from: office, to: plant, broker: enip, owner: a, reason: b,\n"
            "         allow: [{who: bench, asset: packer, read: [counts]}]}\n"
        )

    def size(self, data: bytes) -> int:
        return 24 + int.from_bytes(data[2:4], "little")

    def question(self, number: int, at: int, hello: bytes) -> bytes:
        cip = b"\x4c\x05\x91\x06counts\x28" + bytes([at]) + b"\1\0"
        body = bytes(6) + struct.pack("<HHHHH", 2, 0, 0, 0xB2, len(cip)) + cip
        return struct.pack("<HH4sI8sI", 0x6F, len(body), hello[4:8], 0, number.to_bytes(8, "little"), 0) + body

    def answer(self, question: bytes) -> bytes:
        if question[0] == 0x65:
            return question[:4] + b"\7\0\0\0" + question[8:]
        cip = b"\xcc\0\0\0\xc4\0" + question[-6:-2]
        body = bytes(6) + struct.pack("<HHHHH", 2, 0, 0, 0xB2, len(cip)) + cip
        return struct.pack("<HH4sI8sI", 0x6F, len(body), question[4:8], 0, question[12:20], 0) + body


class Packet(Enip):
    """The same for 20 tags in a Multiple Service Packet."""

    count = 20

    def question(self, number: int, at: int, hello: bytes) -> bytes:
        reads = [super(Packet, self).question(number, (at + one) % 50, hello)[40:] for one in range(self.count)]
        return self._framed(b"\x0a\2\x20\2\x24\1", reads, hello[4:8], number.to_bytes(8, "little"))

    def answer(self, question: bytes) -> bytes:
        if question[0] == 0x65:
            return super().answer(question)
        moved = question[12:15]  # values are others each time
        answers = [b"\xcc\0\0\0\xc4\0" + bytes([one]) + moved for one in range(self.count)]
        return self._framed(b"\x8a\0\0\0", answers, question[4:8], question[12:20])

    def _framed(self, head: bytes, parts: list[bytes], session: bytes, context: bytes) -> bytes:
        size = len(parts[0])
        places = [2 + 2 * len(parts) + size * one for one in range(len(parts))]
        cip = head + struct.pack(f"<{1 + len(parts)}H", len(parts), *places) + b"".join(parts)
        body = bytes(6) + struct.pack("<HHHHH", 2, 0, 0, 0xB2, len(cip)) + cip
        return struct.pack("<HH4sI8sI", 0x6F, len(body), session, 0, context, 0) + body


class Opcua(Modbus):
    """The same for a node without security; its value is another each time."""

    names = {
        "encapsulation": "opcua___server___OpcUaServer", "server": "opcua___server___OpcUaServer",
        "client": "opcua___client___OpcUaClient",
    }  # fmt: skip
    steps, warm = 5, 1
    count = 1
    uris = ("http://opcfoundation.org/UA/", "urn:bench:server", "urn:bench")

    def __init__(self) -> None:
        self._sequences: dict[tuple[str, int], int] = {}
        self._tokens: dict[int, Any] = {}  # of sessions, by client
        self._channels: dict[int, bytes] = {}
        self._turn = 0

    def policy(self) -> str:
        points = ", ".join(f'n{one}: {{at: "nsu=urn:bench;s=Line1.N{one}", type: Double}}' for one in range(100))
        return (
            "site: bench\nzones: {office: {side: it}, plant: {side: ot}}\n"
            "assets:\n  line:\n    {zone: plant, address: 127.0.0.1, port: 15020, protocol: opcua, timeout: 60 s,\n"
            '     outstanding: 16, listen: "127.0.0.1:15021", security: {clients: none, asset: none},\n'
            f"     points: {{{points}}}}}\n"
            "principals: {bench: {zone: office, addresses: [127.0.0.0/8]}}\n"
            "limits: {client_requests_per_second: 100000}\n"
            "conduits:\n  road: {from: office, to: plant, broker: opcua, owner: a, reason: b,\n"
            "         allow: [{who: bench, asset: line, read: all}]}\n"
        )

    def size(self, data: bytes) -> int:
        return int.from_bytes(data[4:8], "little")

    def _framed(self, kind: bytes, head: bytes, whose: tuple[str, int], request: int, message: Any) -> bytes:
        from cofferdam.protocols.opcua import wire

        sequence = self._sequences[whose] = self._sequences.get(whose, 0) + 1
        data = head + struct.pack("<II", sequence, request) + wire.encode(message)
        return kind + struct.pack("<I", 8 + len(data)) + data

    def _header(self, at: int, handle: int) -> Any:
        from cofferdam.protocols.opcua import services as s
        from cofferdam.protocols.opcua import wire
        from cofferdam.protocols.opcua.builtin_types import NULL_NODE

        token = self._tokens.get(at, NULL_NODE)
        return s.RequestHeader(token, wire.ticks(time.time_ns()), handle, 0, None, 10_000, wire.NO_EXTENSION)

    def hello(self, step: int, at: int, said: bytes) -> bytes:
        from cofferdam.protocols.opcua import channel, wire
        from cofferdam.protocols.opcua import services as s
        from cofferdam.protocols.opcua.builtin_types import LocalizedText, NodeId, QualifiedName

        if step == 0:
            return channel.Channel(server=False, own=None, judge=lambda *_: None).hello("opc.tcp://bench")
        header = self._header(at, step)
        if step == 1:
            head = bytes(4) + struct.pack("<I", len(_NONE)) + _NONE + b"\xff" * 8
            opening = s.OpenChannelRequest(header, 0, 0, 1, None, 3_600_000)
            return self._framed(b"OPNF", head, ("client", at), step, opening)
        if step == 2:
            answer = wire.decode(said[12 + 4 + len(_NONE) + 16 :], request=False)
            self._channels[at] = struct.pack("<II", answer.channel, answer.token)
            client = s.ApplicationDescription("urn:bench:client", None, LocalizedText(None, None), 1, None, None, [])
            made: Any = s.CreateSessionRequest(header, client, None, "opc.tcp://bench", "bench", None, None, 3.6e6, 0)
        elif step == 3:
            self._tokens[at] = wire.decode(said[24:], request=False).token
            none = s.SignatureData(None, None)
            identity = wire.pack(s.AnonymousToken("anonymous"))
            made = s.ActivateSessionRequest(self._header(at, step), none, [], [], identity, none)
        else:
            asked = s.ReadValueId(NodeId(0, 2255), 13, None, QualifiedName(0, None))
            made = s.ReadRequest(header, 0.0, 2, [asked])
        return self._framed(b"MSGF", self._channels[at], ("client", at), step, made)

    def question(self, number: int, at: int, hello: bytes) -> bytes:
        from cofferdam.protocols.opcua import services as s
        from cofferdam.protocols.opcua.builtin_types import NodeId, QualifiedName

        nodes = [
            s.ReadValueId(NodeId(2, f"Line1.N{(3 * at + one) % 100}", "s"), 13, None, QualifiedName(0, None))
            for one in range(self.count)
        ]
        request = s.ReadRequest(self._header(at, 100 + number), 0.0, 2, nodes)
        return self._framed(b"MSGF", self._channels[at], ("client", at), 100 + number, request)

    def answer(self, question: bytes) -> bytes:
        from cofferdam.protocols.opcua import services as s
        from cofferdam.protocols.opcua import wire
        from cofferdam.protocols.opcua.builtin_types import Data, LocalizedText, NodeId, Variant

        if question[:3] == b"HEL":
            return b"ACKF" + struct.pack("<IIIIII", 28, 0, 65536, 65536, 0, 0)
        opens = question[:3] == b"OPN"
        at = 12 + 4 + len(_NONE) + 8 if opens else 16
        number = 1 if opens else int.from_bytes(question[8:12], "little")
        request = wire.decode(question[at + 8 :], request=True)
        now = wire.ticks(time.time_ns())
        header = s.ResponseHeader(now, request.header.handle, 0, 0, [], wire.NO_EXTENSION)
        made: Any
        if opens:
            made = s.OpenChannelResponse(header, 0, number, 1, now, 3_600_000, None)
        elif isinstance(request, s.CreateSessionRequest):
            server = s.ApplicationDescription(self.uris[1], None, LocalizedText(None, None), 0, None, None, [])
            token = s.UserTokenPolicy("anonymous", 0, None, None, None)
            endpoint = s.EndpointDescription("opc.tcp://bench", server, None, 1, _NONE.decode(), [token], None, 0)
            none = s.SignatureData(None, None)
            made = s.CreateSessionResponse(
                header, NodeId(1, 1), NodeId(1, 2), 3.6e6, b"n" * 32, None, [endpoint], [], none, 0
            )
        elif isinstance(request, s.ActivateSessionRequest):
            made = s.ActivateSessionResponse(header, b"m" * 32, [], [])
        elif request.nodes[0].node.ns == 0:
            made = s.ReadResponse(header, [Data(Variant(12, list(self.uris), True), 0, now, now)], [])
        else:
            self._turn += 1
            values = [Variant(11, float(self._turn + one)) for one in range(len(request.nodes))]
            made = s.ReadResponse(header, [Data(value, 0, now, now) for value in values], [])
        head = struct.pack("<II", number, len(_NONE)) + _NONE + b"\xff" * 8 if opens else question[8:16]
        return self._framed(question[:4], head, ("device", number), struct.unpack_from("<I", question, at + 4)[0], made)


class Nodes(Opcua):
    """The same for 100 nodes."""

    count, rounds = 100, 10


_NONE = b"http://opcfoundation.org/UA/SecurityPolicy#None"
SPOKEN = {"modbus": Modbus(), "enip": Enip(), "enip-packet": Packet(), "opcua": Opcua(), "opcua-nodes": Nodes()}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench/cost.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--record", action="store_true", help="keep the figures, for the next run to compare with")
    parser.add_argument("--enip", action="store_true", help="a tag by EtherNet/IP instead of Modbus")
    parser.add_argument("--packet", action="store_true", help="20 tags in a packet by EtherNet/IP instead of Modbus")
    parser.add_argument("--opcua", action="store_true", help="a node by OPC UA instead of Modbus")
    parser.add_argument("--nodes", action="store_true", help="100 nodes by OPC UA instead of Modbus")
    args = parser.parse_args(arguments)
    protocol = "enip-packet" if args.packet else "enip" if args.enip else "modbus"
    protocol = "opcua-nodes" if args.nodes else "opcua" if args.opcua else protocol
    if not shutil.which("valgrind"):
        print("cost: valgrind is not installed (sudo apt-get install valgrind)", file=sys.stderr)
        return 2
    from cofferdam.enforce import compiled

    build = compiled.find()
    if not build.is_compiled:
        print(f"cost: {build.why}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="cofferdam-bench-") as name:
        folder = Path(name)
        write_policy(protocol, folder / "policy")
        command = [
            "valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", "--collect-atstart=no",
            f"--toggle-collect=CPyDef_*{ROWS['all']}", "--zero-before=getpgrp",
            sys.executable, "-I", build.arguments[0], "--run", str(HERE / "cost.py"),
            "inside", protocol, str(folder / "policy"),
        ]  # fmt: skip
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode:
            print(f"cost: {ran.stderr[-2000:]}", file=sys.stderr)
            return 2
        said = subprocess.run(
            ["callgrind_annotate", "--inclusive=yes", "--threshold=100", str(folder / "out")],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
    names, reads = SPOKEN[protocol].names, CLIENTS * SPOKEN[protocol].rounds
    found = {name: instructions(said, function.format(**names), reads) for name, function in ROWS.items()}
    recorded = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    before = recorded.get(protocol, {})
    print(f"instructions of a read by {protocol}, {CLIENTS} clients, without the kernel's")
    print(f"  {'':38}{'now':>9}{'before':>9}{'ratio':>7}")
    for name, count in found.items():
        was = before.get(name, 0)
        print(f"  {name:38}{count:9,}{was:9,}{f'{count / was:7.2f}' if was else '      -'}")
    if not all(found.values()):
        print("cost: not every function was found: has one another name?", file=sys.stderr)
        return 2
    if args.record:
        RECORDED.write_text(json.dumps(recorded | {protocol: found}, indent=1) + "\n")
    return 0


def instructions(said: str, function: str, reads: int) -> int:
    """Of one function and what it calls, for a transaction."""
    counts = [
        int(match[1].replace(",", ""))
        for match in re.finditer(rf"^ *([\d,]+) .*CPyDef_\w*{function}(?:'\d)? ", said, re.MULTILINE)
    ]
    return round(max(counts, default=0) / reads)


def write_policy(protocol: str, target: Path) -> None:
    """What both halves judge by."""
    from cofferdam.policy.compile import compile_policy
    from cofferdam.policy.load import loads

    target.write_bytes(compile_policy(loads(SPOKEN[protocol].policy()), now_ns=time.time_ns()).to_bytes())


def inside(protocol: str, policy_file: Path) -> None:
    """Both halves, their clients and their device."""
    from cofferdam.audit.client import AuditClient
    from cofferdam.audit.records import ToAuditor
    from cofferdam.brokers.broker import Setting
    from cofferdam.brokers.kit.transport import TcpTransport
    from cofferdam.brokers.proxy import records
    from cofferdam.brokers.proxy.inner import Inner
    from cofferdam.brokers.proxy.outer import Outer
    from cofferdam.crossing.pipe import PipeReceiver, PipeSender, make_pipe
    from cofferdam.crossing.reactor import Reactor
    from cofferdam.crossing.records import RecordCodec
    from cofferdam.errors import CrossingError
    from cofferdam.policy.table import CompiledPolicy

    policy = CompiledPolicy.from_bytes(policy_file.read_bytes())
    (conduit,) = policy.conduits.values()
    reactor = Reactor()
    to_auditor: RecordCodec[ToAuditor] = RecordCodec(ToAuditor)
    audit = AuditClient(reactor, PipeSender(reactor, make_pipe()[1], to_auditor), wait_seconds=1e6)
    audit.writable = True
    listening = socket.create_server(("127.0.0.1", 0))
    devices: list[socket.socket] = []

    def dial(_address: str, _port: int, connected: Any) -> TcpTransport:
        transport = TcpTransport.connect(reactor, *listening.getsockname())
        transport.on_connected = connected
        device = listening.accept()[0]
        device.setblocking(False)
        devices.append(device)
        return transport

    to_inner, to_outer = records.to_inner(policy, conduit.broker), records.to_outer(policy, conduit.broker)
    (inner_read, outer_write), (outer_read, inner_write) = make_pipe(), make_pipe()

    def setting(part: str, senders: dict[str, Any]) -> Setting:
        return Setting(
            crew="bench", part=part, broker=conduit.broker, boot="bench", again=False, policy=policy,
            severed=frozenset(), assets=tuple(policy.assets), zones=((conduit.from_zone,), conduit.to_zone),
            reactor=reactor, audit=audit, senders=senders, dial=dial,
        )  # fmt: skip

    outer = Outer(setting("outer", {"inner": PipeSender(reactor, outer_write, to_inner, batches=True)}))
    inner = Inner(setting("inner", {"outer": PipeSender(reactor, inner_write, to_outer, batches=True)}))
    PipeReceiver(reactor, outer_read, to_outer, outer.taker("inner"))
    PipeReceiver(reactor, inner_read, to_inner, inner.taker("outer"))
    for codec in (to_inner, to_outer):  # what decodes is made with the first record, once in a half's life
        codec.decode_many(b"\x90")
        with contextlib.suppress(CrossingError):
            codec.decode(b"\xc0")
    place = next(place for asset in policy.assets.values() for place in asset.places)
    front = socket.create_server(("127.0.0.1", 0))
    clients = []
    for _ in range(CLIENTS):
        clients.append(socket.create_connection(front.getsockname()))
        clients[-1].setblocking(False)
        sock, peer = front.accept()
        outer.accept(TcpTransport(reactor, sock), peer[0], peer[1], place)
    gc.freeze()
    gc.disable()
    spoken = SPOKEN[protocol]
    hellos = [b""] * CLIENTS
    for step in range(spoken.steps):
        said = [spoken.hello(step, at, hello) for at, hello in enumerate(hellos)]
        hellos = asked(reactor, spoken, clients, devices, said)
    for number in range(-spoken.warm, spoken.rounds):
        if number == 0 and spoken.warm:
            os.getpgrp()  # what was counted until now counts no more (--zero-before)
        questions = [spoken.question(number, at, hello) for at, hello in enumerate(hellos)]
        asked(reactor, spoken, clients, devices, questions)


def asked(
    reactor: Any, spoken: Modbus, clients: list[socket.socket], devices: list[socket.socket], said: list[bytes]
) -> list[bytes]:
    """Has each client say something, and the device answer what comes to it; what each client was told."""
    for client, question in zip(clients, said, strict=True):
        client.send(question)
    told: dict[socket.socket, bytes] = {}
    until = time.monotonic() + 120
    while len(told) < len(clients):
        reactor.turn(0)
        for device in devices:
            for question in taken(spoken, device):
                device.send(spoken.answer(question))
        for client in clients:
            for answer in taken(spoken, client):
                told[client] = answer
        if time.monotonic() > until:
            sys.exit("no answer")
    return [told[client] for client in clients]


def taken(spoken: Modbus, sock: socket.socket) -> list[bytes]:
    """The frames that have come, whole ones."""
    try:
        data = sock.recv(65536)
    except BlockingIOError:
        return []
    found = []
    while data:
        size = spoken.size(data)
        if len(data) < size:
            sys.exit(f"a piece of an answer: {data[:64].hex()}")
        found.append(data[:size])
        data = data[size:]
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["inside"]:
        inside(sys.argv[2], Path(sys.argv[3]))
        os._exit(0)
    sys.exit(main(sys.argv[1:]))
