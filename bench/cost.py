"""`make bench ARGS=--cost`: what a read costs both halves in instructions, which nothing else on the machine changes.

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
    "of these: frames to messages, outer": "modbus___machine___ModbusServer___next_event",
    "of these: messages to frames, outer": "modbus___machine___ModbusServer___send",
    "of these: frames to messages, inner": "modbus___machine___ModbusClient___next_event",
    "of these: messages to frames, inner": "modbus___machine___ModbusClient___send",
    "of these: figures": "proxy___stats___FlowStats___answered",
    "records decoded, both": "crossing___records___Unpacker___feed",
}
"""What is shown, and the compiled function that does it, with all that it calls."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench/cost.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--record", action="store_true", help="keep the figures, for the next run to compare with")
    args = parser.parse_args(arguments)
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
        write_policy(folder / "policy")
        command = [
            "valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", "--collect-atstart=no",
            f"--toggle-collect=CPyDef_*{ROWS['all']}", sys.executable, "-I", build.arguments[0],
            "--run", str(HERE / "cost.py"), "inside", str(folder / "policy"),
        ]  # fmt: skip
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode:
            print(f"cost: {ran.stderr[-2000:]}", file=sys.stderr)
            return 2
        said = subprocess.run(
            ["callgrind_annotate", "--inclusive=yes", "--threshold=100", str(folder / "out")],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
    found = {name: instructions(said, function) for name, function in ROWS.items()}
    before = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    print(f"instructions of a read, {CLIENTS} clients, without the kernel's")
    print(f"  {'':38}{'now':>9}{'before':>9}{'ratio':>7}")
    for name, count in found.items():
        was = before.get(name, 0)
        print(f"  {name:38}{count:9,}{was:9,}{f'{count / was:7.2f}' if was else '      -'}")
    if not all(found.values()):
        print("cost: not every function was found: has one another name?", file=sys.stderr)
        return 2
    if args.record:
        RECORDED.write_text(json.dumps(found, indent=1) + "\n")
    return 0


def instructions(said: str, function: str) -> int:
    """Of one function and what it calls, for a transaction."""
    counts = [
        int(match[1].replace(",", ""))
        for match in re.finditer(rf"^ *([\d,]+) .*CPyDef_\w*{function}(?:'\d)? ", said, re.MULTILINE)
    ]
    return round(max(counts, default=0) / (CLIENTS * ROUNDS))


def write_policy(target: Path) -> None:
    """The benchmark's policy, with a device that is never late: valgrind makes everything fifty times slower."""
    from netns import LOOPBACK
    from paths import policy_text

    from cofferdam.policy.compile import compile_policy
    from cofferdam.policy.load import loads

    text = policy_text(LOOPBACK, "127.0.0.1", 15020, 15021).replace("    unit: 1\n", "    unit: 1\n    timeout: 60s\n")
    target.write_bytes(compile_policy(loads(text), now_ns=time.time_ns()).to_bytes())


def inside(policy_file: Path) -> None:
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
    for number in range(ROUNDS):
        for at, client in enumerate(clients):
            client.send(struct.pack(">HHHBBHH", number, 0, 6, 1, 3, 7 * at, 10))
        waiting = set(clients)
        until = time.monotonic() + 120
        while waiting:
            reactor.turn(0)
            for device in devices:
                for question in taken(device, 12):
                    device.send(question[:2] + b"\0\0\0\x17\x01\x03\x14" + question[8:10] * 10)
            waiting -= {client for client in waiting if taken(client, 29)}
            if time.monotonic() > until:
                sys.exit("no answer")


def taken(sock: socket.socket, size: int) -> list[bytes]:
    """What has come, in frames of this size."""
    try:
        data = sock.recv(65536)
    except BlockingIOError:
        return []
    if len(data) % size:
        sys.exit(f"an answer of {len(data)} bytes: {data[:64].hex()}")
    return [data[at : at + size] for at in range(0, len(data), size)]


if __name__ == "__main__":
    if sys.argv[1:2] == ["inside"]:
        inside(Path(sys.argv[2]))
        os._exit(0)
    sys.exit(main(sys.argv[1:]))
