"""OPC UA with many: changes of many nodes to many clients, and a flood of channels beside a client that reads.

    python -m bench.opcua_many [--nodes N] [--every SECONDS] [--clients N] [--seconds N]

Prints a JSON line for each. Changes: a plant by others (asyncua) writes all its nodes at each interval; first one
client has them direct, then so many have them through the gate. Told are the changes that came to each client in a
second, the CPU time of the plant's server in a second, and that of each half for a change that it passed on; from
these follows how many a pair could carry on a core of its own. Flood: a source that is no principal opens connections
and channels as fast as it can. The clients are our own machines, since none by others could take so many. Not here:
single reads (opcua).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import multiprocessing
import os
import selectors
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.gate.plant import running
from tests.ports import held_ports
from tests.protocols.opcua.pair import asset
from tests.protocols.opcua.site import plant

from cofferdam.model import Item
from cofferdam.protocols.base import NEED_DATA, Established, Facing, NoticeReceived
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua.machine import OpcUaClient
from cofferdam.protocols.opcua.trust import Trust

LINE = "nsu=urn:plant:line;s=Line1"


def cpu_of(pid: int) -> float:
    """CPU time that a process has used (µs), more finely than by ticks of the clock."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1000


class Client:
    """A client on a socket of its own: our machine."""

    def __init__(self, port: int) -> None:
        facing = Facing(Trust({}), asset(), os.urandom, time.time_ns, lambda _op: True, lambda _verb, _item: True)
        self.machine = OpcUaClient(facing, 16)
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.up = False
        self.changes = 0
        self.stands = 0
        self.turn(b"")
        while not self.up:
            self.turn(self.sock.recv(65536))

    def turn(self, data: bytes) -> Any:
        """Takes what has come, and sends what follows. The last answer."""
        answer = None
        self.machine.on_time(time.monotonic_ns())
        self.machine.receive_data(data)
        while (event := self.machine.next_event()) is not NEED_DATA:
            if isinstance(event, NoticeReceived):
                news = len(event.message.samples) if isinstance(event.message, m.Changed) else 0
                self.changes += news * (1 + len(event.also))
            elif isinstance(event, Established):
                self.up = True
            else:
                answer = event
                self.stands += type(getattr(event, "response", None)) is m.Subscribed
        out = self.machine.take_output()
        if out:
            self.sock.sendall(out)
        return answer

    def ask(self, request: Any) -> Any:
        _, data = self.machine.send(request)
        self.sock.sendall(data)
        while (answer := self.turn(self.sock.recv(65536))) is None:
            pass
        return answer

    def subscribe(self, nodes: int) -> None:
        for number in range(nodes):
            _, data = self.machine.send(m.Subscribe(Item("node", f"{LINE}.N{number}"), 100_000, 1))
            if data:
                self.sock.sendall(data)


def hear(clients: list[Client], seconds: float) -> float:
    """Has them hear for so long: changes in a second to each."""
    before = [one.changes for one in clients]
    begin = time.monotonic()
    with selectors.DefaultSelector() as ready:
        for one in clients:
            one.sock.setblocking(True)
            ready.register(one.sock, selectors.EVENT_READ, one)
        while (left := begin + seconds - time.monotonic()) > 0:
            found = ready.select(min(left, 0.05))
            for key, _ in found:
                data = key.fileobj.recv(1 << 20)  # type: ignore[union-attr]
                if not data:
                    raise SystemExit("a client's connection was closed")
                key.data.turn(data)
            if not found:
                for one in clients:
                    one.turn(b"")
    took = time.monotonic() - begin
    return sum(one.changes - old for one, old in zip(clients, before, strict=True)) / took / len(clients)


def changes(args: argparse.Namespace, folder: Path) -> None:
    plant_port, port = held_ports(2)
    file = folder / "policy.yaml"
    points = {f"n{number}": {"at": f"{LINE}.N{number}", "type": "Double", "fastest": "50 ms"}
              for number in range(args.nodes)}  # fmt: skip
    rule = {"who": "mes", "asset": "filler", "subscribe": "all", "read": "all"}
    filler = {"zone": "plant", "address": "127.0.0.1", "port": plant_port, "protocol": "opcua", "timeout": "10 s",
              "listen": f"127.0.0.1:{port}", "outstanding": 8, "security": {"clients": "none", "asset": "none"},
              "points": points}  # fmt: skip
    conduit = {"from": "office", "to": "plant", "broker": "opcua", "owner": "x", "reason": "x", "allow": [rule]}
    standing = 2 * args.nodes * args.clients
    file.write_text(json.dumps({
        "site": "s", "zones": {"office": {"side": "it"}, "plant": {"side": "ot"}}, "assets": {"filler": filler},
        "principals": {"mes": {"zone": "office", "addresses": ["127.0.0.1"]}}, "conduits": {"line": conduit},
        "limits": {"client_standing": min(standing, 10_000), "asset_standing": min(standing, 100_000)},
    }))  # fmt: skip
    with plant(plant_port, "many", args.nodes, args.every) as server, running(folder / "state", file) as gate:
        pids = gate.pids()
        for way, where, count in (("direct", plant_port, 1), ("gate", port, args.clients)):
            clients = [Client(where) for _ in range(count)]
            for one in clients:
                one.subscribe(args.nodes)
            for _ in range(60):  # until all is watched that is to be: on a busy machine that takes long
                hear(clients, 5)
                if all(one.stands == args.nodes for one in clients):
                    break
            else:
                raise SystemExit("not everything that was subscribed to stands after five minutes")
            before = {"server": cpu_of(server.pid), **{half: cpu_of(pids[half]) for half in ("outer", "inner")}}
            begin = time.monotonic()
            each = hear(clients, args.seconds)
            took = time.monotonic() - begin
            used = {name: cpu_of(pids.get(name, server.pid)) - us for name, us in before.items()}
            found: dict[str, Any] = {
                "changes": way, "nodes": args.nodes, "every_s": args.every, "clients": count,
                "written_s": round(args.nodes / args.every), "each_client_s": round(each),
                "server_cpu": round(used["server"] / took / 1e6, 2),
            }  # fmt: skip
            if way == "gate":
                out, came = each * count * took, each * took
                found |= {"outer_cpu_us": round(used["outer"] / out, 2), "inner_cpu_us": round(used["inner"] / came, 2)}
                # What a core could bring from the asset in a second, and hand out.
                found |= {"inner_could_s": round(1e6 / found["inner_cpu_us"]),
                          "outer_could_s": round(1e6 / found["outer_cpu_us"])}  # fmt: skip
            print(json.dumps(found), flush=True)
            for one in clients:
                one.sock.close()


HELLO = (
    b"HELF"
    + (36).to_bytes(4, "little")
    + b"".join(n.to_bytes(4, "little") for n in (0, 65536, 65536, 0, 0, 4))
    + b"opc:"
)
URI = b"http://opcfoundation.org/UA/SecurityPolicy#None"


def _flood(port: int, done: Any, count: Any) -> None:
    """Connections with a hello and an OPN, from an address that is nobody's."""
    body = bytes(4) + len(URI).to_bytes(4, "little") + URI + b"\xff" * 8 + (1).to_bytes(4, "little") * 2 + bytes(40)
    opening = b"OPNF" + (8 + len(body)).to_bytes(4, "little") + body
    while not done.is_set():
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.settimeout(0.2)
            sock.bind(("127.0.0.2", 0))
            sock.connect(("127.0.0.1", port))
            sock.sendall(HELLO + opening)
            count.value += 1


def flood(args: argparse.Namespace, folder: Path) -> None:
    from tests.protocols.opcua.site import policy

    plant_port, port = held_ports(2)
    file = folder / "flood.yaml"
    file.write_text(policy(plant_port, port))
    with plant(plant_port), running(folder / "flooded", file) as gate:
        client = Client(port)
        asked = m.Read((Item("node", f"{LINE}.Speed"),))
        outer = gate.pids()["outer"]
        p99: list[float] = []
        for flooded in (False, True):
            done, count = multiprocessing.Event(), multiprocessing.Value("i", 0)
            flooder = multiprocessing.Process(target=_flood, args=(port, done, count))
            if flooded:
                flooder.start()
            taken: list[int] = []
            used, end = cpu_of(outer), time.monotonic() + args.seconds
            while time.monotonic() < end:
                begin = time.perf_counter_ns()
                client.ask(asked)
                taken.append(time.perf_counter_ns() - begin)
            used = cpu_of(outer) - used
            if flooded:
                done.set()
                flooder.join()
            p99.append(sorted(taken)[len(taken) * 99 // 100] / 1000)
            print(json.dumps({"flood": flooded, "openings_s": round(count.value / args.seconds), "reads": len(taken),
                              "p50_us": round(sorted(taken)[len(taken) // 2] / 1000), "p99_us": round(p99[-1]),
                              "outer_cpu": round(used / args.seconds / 1e6, 2)}), flush=True)  # fmt: skip
        print(json.dumps({"flood_p99_ratio": round(p99[1] / p99[0], 2)}), flush=True)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--every", type=float, default=0.1)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=8)
    args = parser.parse_args(argv)
    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    print(json.dumps({"load": round(os.getloadavg()[0], 1), "cores": os.cpu_count()}), flush=True)
    with tempfile.TemporaryDirectory() as name:
        changes(args, Path(name))
        flood(args, Path(name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
