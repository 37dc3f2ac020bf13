"""`make bench ARGS=--diode`: a strand between two network namespaces, its sender and receiver as they are, each a
process of one core at most, beside udpcast in its asynchronous mode with forward error correction and plain UDP.

    sender  a0 == b0  receiver

Segments are split on the sender's side, as a card would; loss is made by a rule before the receiver. Pieces go in
without a spool and come out without a keeper: what is measured is sealing, coding, pacing, packets and repair, not
disks. The strand's receiving end may send nothing; udpcast's has to be let speak, since it says hello and ends without
an answer. How to read the figures: docs/diode.md.

Not here: spool, keeper and their disks (tests/brokers/diode run them).
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

HERE = Path(__file__).parent
A, B = "10.86.0.1", "10.86.0.2"
PORT = 4799
POLICY = """
site: bench
zones:
  strand-in: {{side: ot, addresses: [10.86.0.1/30], crossing: diode}}
  strand-out: {{side: it, addresses: [10.86.0.2/30], crossing: diode}}
conduits:
  strand:
    {{from: strand-in, to: strand-out, broker: diode, owner: bench, reason: bench, rate: {rate} Mbit/s, burst: {burst},
     jumbo: {jumbo}, carries: ["files:bench"], files: {{bench: {{names: ["*"]}}}}}}
"""
CREDIT = 16 << 20
BORN = [0.0]
"""CPU that a process had used when it was ready."""
BUFFER = 64 << 20


# --- the ends, each in its process ------------------------------------------------------------------------------------


def setting(facts: dict[str, Any], reactor: Any, keys: Any, other: str, send: Any) -> Any:
    import msgspec

    from cofferdam.brokers.diode import pairing
    from cofferdam.policy.compile import compile_policy
    from cofferdam.policy.load import loads

    policy = compile_policy(loads(facts["policy"]), now_ns=time.time_ns())
    return SimpleNamespace(
        policy=policy, severed=frozenset(), zones=(("strand-out",), "strand-in"), reactor=reactor, wall=time.time_ns,
        clock=time.monotonic_ns, secrets={pairing.SECRET: msgspec.json.encode(keys)},
        senders={other: SimpleNamespace(send=send, backlog=0)},
    )  # fmt: skip


def told(more: dict[str, Any]) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    # Not ru_maxrss: a process inherits it from who started it, which here has held whole files.
    most = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    print(
        json.dumps({"cpu": used.ru_utime + used.ru_stime - BORN[0], "memory_mb": int(most.split()[1]) >> 10, **more}),
        flush=True,
    )


def born() -> None:
    """As a part is once it is ready."""
    gc.collect()
    gc.freeze()
    gc.disable()
    used = resource.getrusage(resource.RUSAGE_SELF)
    BORN[0] = used.ru_utime + used.ru_stime


def sender(facts: dict[str, Any]) -> None:
    from cofferdam.brokers.diode import pairing, records
    from cofferdam.brokers.diode.sender import Sender
    from cofferdam.brokers.kit.supervision import Listener
    from cofferdam.crossing.reactor import Reactor

    reactor = Reactor()
    left = [0]

    def room(record: records.Room) -> None:
        left[0] += record.sent

    keys = pairing.SenderKeys(facts["sign"], (pairing.Good(facts["seal_public"]),))
    part = Sender(setting(facts, reactor, keys, "spool", room))
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)
    sock.bind((A, PORT))
    sock.connect((B, PORT))
    sock.shutdown(socket.SHUT_RD)
    sock.setblocking(False)
    part.serve_datagrams(sock, Listener(sock.fileno(), A, PORT, True, "out"))
    part.on_record("spool", records.Begin(1))
    born()
    body, total, size = os.urandom(records.CHUNK_BYTES), facts["bytes"], 0
    until = time.monotonic_ns() + int(facts["seconds"] * 1e9)
    number = 0
    messages, due = 0, 0

    def feed() -> None:
        nonlocal size, number, messages, due
        turn = size + (256 << 10 if facts["messages"] else 4 << 20)  # as from a pipe: others have their turn between
        while size < min(total, turn) and size - left[0] < CREDIT:
            number += 1
            part.on_record("spool", records.Piece("files:bench", 1, number, body))
            size += len(body)
        now = time.monotonic_ns()
        due = due or now
        while facts["messages"] and due <= now < until:
            messages += 1
            stamp = now.to_bytes(8) + bytes(92)
            part.on_record("spool", records.Piece("records:bench", 1, messages, stamp, prompt=True))
            due += 1_000_000
        if (now < until and (size < total or facts["messages"])) or left[0] < size:
            reactor.call_in(0.0002, feed)
        else:
            reactor.call_in(0.5, reactor.stop)

    def tick() -> None:
        part.tick()
        reactor.call_in(0.5, tick)

    tick()
    reactor.call_in(0.2, feed)
    reactor.run()
    figures = part.figures()
    told({"bytes": size, "messages": messages, "wire": figures["sent"], "packets": figures["packets"]})


def receiver(facts: dict[str, Any]) -> None:
    from cofferdam.brokers.diode import pairing, records
    from cofferdam.brokers.diode.receiver import Receiver
    from cofferdam.brokers.kit.supervision import Listener
    from cofferdam.crossing.reactor import Reactor

    reactor = Reactor()
    got = SimpleNamespace(bytes=0, first=0, last=0, waits=[])

    def take(record: Any) -> None:
        if not isinstance(record, records.Piece):
            return
        now = time.monotonic_ns()
        if record.prompt:
            got.waits.append(now - int.from_bytes(record.body[:8]))
            return
        got.first = got.first or now
        got.bytes, got.last = got.bytes + len(record.body), now

    keys = pairing.ReceiverKeys(facts["seal"], (pairing.Good(facts["sign_public"]),))
    part = Receiver(setting(facts, reactor, keys, "keeper", take))
    part.on_record("keeper", records.Start(0))
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, 33, BUFFER)  # SO_RCVBUFFORCE: the launcher does it
    sock.setsockopt(socket.SOL_SOCKET, 40, 1)  # SO_RXQ_OVFL
    sock.bind((B, PORT))
    sock.setblocking(False)
    part.serve_datagrams(sock, Listener(sock.fileno(), B, PORT, True, "in"))
    born()
    print("ready", flush=True)

    ending = SimpleNamespace(now=False, before=-1)

    def tick() -> None:
        part.tick()
        came = first(cast(Any, part.figures()["received"]))
        if ending.now and came == ending.before:  # what lies in the socket's buffer is worked off first
            reactor.stop()
        ending.before = came
        reactor.call_in(0.5, tick)

    import signal

    signal.signal(signal.SIGTERM, lambda *_: setattr(ending, "now", True))
    tick()
    reactor.run()
    waits = sorted(got.waits)
    figures = part.figures()
    told({
        "bytes": got.bytes, "seconds": (got.last - got.first) / 1e9, "messages": len(waits),
        "p50_ms": waits[len(waits) // 2] / 1e6 if waits else 0, "p99_ms": waits[len(waits) * 99 // 100] / 1e6 if waits
        else 0, **{name: figures[name] for name in ("repaired", "blocks_lost", "kernel_drops", "received")},
    })  # fmt: skip


def blast_sender(facts: dict[str, Any]) -> None:
    """The same bytes as plain UDP, as fast as they go, in bundles as the strand's: no seal, no parity, no pace."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)
    sock.setsockopt(socket.SOL_UDP, 103, facts["packet"])  # UDP_SEGMENT
    sock.bind((A, PORT))
    sock.connect((B, PORT))
    body, left = os.urandom(facts["packet"] * (65_000 // facts["packet"])), facts["bytes"]
    born()
    while left > 0:
        left -= os.write(sock.fileno(), body)
    told({"bytes": facts["bytes"] - left})


def blast_receiver(facts: dict[str, Any]) -> None:
    """Counts what comes, by the strand's own way to take packets in batches."""
    import select
    import signal

    from cofferdam.brokers.diode.receiver import Batches

    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, 33, BUFFER)  # SO_RCVBUFFORCE
    sock.bind((B, PORT))
    batches = Batches(sock.fileno(), facts["packet"] + 64)
    ending = SimpleNamespace(now=False)
    signal.signal(signal.SIGTERM, lambda *_: setattr(ending, "now", True))
    born()
    print("ready", flush=True)
    size = begun = last = 0
    while True:
        if packets := batches.take():
            last = time.monotonic_ns()
            begun = begun or last
            size += sum(map(len, packets))
        elif ending.now:
            break
        else:
            select.select([sock], [], [], 0.05)
    told({"bytes": size, "seconds": (last - begun) / 1e9})


# --- the bench --------------------------------------------------------------------------------------------------------


def run(*command: str, text: str = "") -> str:
    return subprocess.run(command, input=text, text=True, check=True, capture_output=True).stdout


class Wire:
    """Two namespaces and a veth."""

    def __init__(self, mtu: int) -> None:
        self.a, self.b = (f"cofferdam-bench-{os.getpid()}-{end}" for end in "ab")
        for name in (self.a, self.b):
            run("ip", "netns", "add", name)
        run("ip", "-n", self.a, "link", "add", "a0", "type", "veth", "peer", "name", "b0", "netns", self.b)
        run("ip", "-n", self.a, "link", "set", "a0", "gso_max_segs", "1")
        for name, link, address in ((self.a, "a0", A), (self.b, "b0", B)):
            run("ip", "-n", name, "address", "add", f"{address}/30", "brd", "+", "dev", link)
            run("ip", "-n", name, "link", "set", link, "mtu", str(mtu), "up")
            run("ip", "-n", name, "link", "set", "lo", "up")
            run("ip", "-n", name, "route", "add", "224.0.0.0/4", "dev", link)  # udpcast's

    def lose(self, permille: int) -> None:
        text = "add table netdev loss\ndelete table netdev loss\n"
        if permille:
            text += ('table netdev loss { chain in {\ntype filter hook ingress device "b0" priority 0;\n'
                     f"numgen random mod 1000 < {permille} drop\n}}\n}}\n")  # fmt: skip
        run("ip", "netns", "exec", self.b, "nft", "-f", "-", text=text)

    def mute(self, on: bool) -> None:
        """Nothing leaves the receiver's end; neighbours are permanent."""
        text = "add table netdev mute\ndelete table netdev mute\n"
        if on:
            text += ('table netdev mute {\nchain out {\ntype filter hook egress device "b0" priority 0; policy drop;\n'
                     "}\n}\n")  # fmt: skip
            mac = json.loads(run("ip", "-n", self.b, "-json", "link", "show", "b0"))[0]["address"]
            run("ip", "-n", self.a, "neigh", "replace", B, "lladdr", mac, "dev", "a0", "nud", "permanent")
        run("ip", "netns", "exec", self.b, "nft", "-f", "-", text=text)

    def close(self) -> None:
        for name in (self.a, self.b):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@contextlib.contextmanager
def wire(mtu: int) -> Iterator[Wire]:
    made = Wire(mtu)
    try:
        yield made
    finally:
        made.close()


def strand(one: Wire, *, rate: int, mtu: int, size: int, messages: bool = False, seconds: float = 0) -> dict[str, Any]:
    """One run of the strand: what both ends say."""
    from cofferdam.brokers.diode import pairing

    sign, sign_public = pairing.new_signer()
    seal, seal_public = pairing.new_sealer()
    facts = {
        "policy": POLICY.format(
            rate=rate, burst="128 kB" if messages else "4 MB", jumbo="true" if mtu > 1500 else "false"
        ),
        "sign": sign,
        "sign_public": sign_public, "seal": seal, "seal_public": seal_public, "bytes": size, "messages": messages,
        "seconds": seconds,
    }  # fmt: skip
    one.mute(True)
    command = [sys.executable, str(Path(__file__))]
    environment = {**os.environ, "STRAND_BENCH": json.dumps(facts)}

    def start(space: str, end: str) -> subprocess.Popen[str]:
        whole = ["ip", "netns", "exec", space, *command, "--end", end]
        return subprocess.Popen(whole, stdout=subprocess.PIPE, text=True, env=environment)

    with start(one.b, "receiver") as hears:
        assert hears.stdout is not None and hears.stdout.readline() == "ready\n"
        with start(one.a, "sender") as sends:
            said = sends.communicate(timeout=120)[0]
        time.sleep(0.5)
        hears.terminate()
        heard = hears.communicate(timeout=30)[0]
    return {"sender": json.loads(said), "receiver": json.loads(heard)}


def blast(one: Wire, *, mtu: int, size: int) -> dict[str, Any]:
    """One run of plain UDP: what both ends say."""
    one.mute(True)
    facts = {"packet": mtu - 28, "bytes": size}
    command = [sys.executable, str(Path(__file__))]
    environment = {**os.environ, "STRAND_BENCH": json.dumps(facts)}

    def start(space: str, end: str) -> subprocess.Popen[str]:
        whole = ["ip", "netns", "exec", space, *command, "--end", end]
        return subprocess.Popen(whole, stdout=subprocess.PIPE, text=True, env=environment)

    with start(one.b, "blast-receiver") as hears:
        assert hears.stdout is not None and hears.stdout.readline() == "ready\n"
        with start(one.a, "blast-sender") as sends:
            said = sends.communicate(timeout=120)[0]
        time.sleep(0.5)
        hears.terminate()
        heard = hears.communicate(timeout=30)[0]
    return {"sender": json.loads(said), "receiver": json.loads(heard)}


def udpcast(one: Wire, *, rate: int, size: int) -> float:
    """Goodput of udpcast in Mbit/s, 0 where the file did not come whole."""
    size = min(size, 100_000_000)
    one.mute(False)
    with tempfile.TemporaryDirectory() as folder:
        out, into = Path(folder, "out"), Path(folder, "in")
        out.write_bytes(os.urandom(size))
        hear = ["ip", "netns", "exec", one.b, "udp-receiver", "--interface", "b0", "--nosync", "--nokbd", "--file",
                str(into), "--start-timeout", "10", "--receive-timeout", "3"]  # fmt: skip
        send = ["ip", "netns", "exec", one.a, "udp-sender", "--interface", "a0", "--async", "--fec", "8x8/80",
                "--max-bitrate", f"{rate}m", "--nokbd", "--autostart", "1",
                "--min-wait", "0", "--max-wait", "1", "--file", str(out)]  # fmt: skip
        with subprocess.Popen(hear, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as hearing:
            time.sleep(0.5)
            began = time.monotonic()
            subprocess.run(send, capture_output=True, timeout=30, check=False)
            took = time.monotonic() - began
            hearing.wait(30)
        whole = into.exists() and into.read_bytes() == out.read_bytes()
    return size * 8 / took / 1e6 if whole else 0.0


def again(runs: int, size: int, loss: int, rate: int, mtu: int) -> int:
    """So many runs, and how many came whole; 1, where any did not."""
    whole = 0
    with wire(mtu) as one:
        one.lose(loss)
        for run in range(1, runs + 1):
            found = strand(one, rate=rate, mtu=mtu, size=size)
            out, into = found["sender"], found["receiver"]
            lost = out["bytes"] - into["bytes"]
            whole += not lost
            print(f"run {run}: {into['bytes'] * 8 / max(0.001, into['seconds']) / 1e6:.0f} Mbit/s, {lost} bytes lost, "
                  f"{first(into['repaired'])} packets repaired, {first(into['kernel_drops'])} dropped by the kernel, "
                  f"load {os.getloadavg()[0]:.1f}; {whole} of {run} whole", flush=True)  # fmt: skip
    print(f"{whole} of {runs} whole: {size} bytes each at {loss / 10:g} % of loss, paced at {rate} Mbit/s, MTU {mtu}")
    return int(whole < runs)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    ends = {
        "sender": sender, "receiver": receiver, "blast-sender": blast_sender, "blast-receiver": blast_receiver,
    }  # fmt: skip
    parser.add_argument("--end", choices=tuple(ends), help=argparse.SUPPRESS)
    parser.add_argument("--diode", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--mb", type=int, default=200, help="of each run (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3, help="of messages (default: %(default)s)")
    parser.add_argument(
        "--runs", type=int, default=0, help="instead: so many runs of one kind, and how many were whole"
    )
    parser.add_argument("--loss", type=float, default=5, help="with --runs: percent (default: %(default)s)")
    parser.add_argument("--rate", type=int, default=800, help="with --runs: Mbit/s (default: %(default)s)")
    parser.add_argument("--mtu", type=int, default=1500, help="with --runs (default: %(default)s)")
    args = parser.parse_args()
    if args.end:
        ends[args.end](json.loads(os.environ["STRAND_BENCH"]))
        return 0
    if os.geteuid():
        print("bench: namespaces take root", file=sys.stderr)
        return 2
    size = args.mb * 1_000_000
    if args.runs:
        return again(args.runs, size, round(args.loss * 10), args.rate, args.mtu)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {args.mb} MB a run\n")
    form = "{:<34} {:>7} {:>9} {:>9} {:>7} {:>13} {:>7} {:>6}"
    print(form.format("run", "Mbit/s", "a core *", "repaired", "lost", "CPU ms/MB **", "MB", "drops"))
    for mtu, rates in ((1500, (800, 2400, 3000)), (9000, (1500, 3000, 6000))):
        with wire(mtu) as one:
            for rate, loss in [(at, loss) for at in rates for loss in ((0, 10, 50) if at == rates[0] else (0,))]:
                one.lose(loss)
                found = strand(one, rate=rate, mtu=mtu, size=size)
                out, into = found["sender"], found["receiver"]
                core = into["bytes"] * 8e-6 / max(out["cpu"], into["cpu"])
                goodput = into["bytes"] * 8 / max(0.001, into["seconds"]) / 1e6
                lost = out["bytes"] - into["bytes"]
                print(form.format(
                    f"MTU {mtu}, paced at {rate}, {loss / 10:g} % loss", f"{goodput:.0f}", f"{core:.0f}",
                    first(into["repaired"]),
                    f"{lost >> 10} kB", f"{out['cpu'] * 1e9 / size:.2f}/{into['cpu'] * 1e9 / size:.2f}",
                    f"{out['memory_mb']}/{into['memory_mb']}", first(into["kernel_drops"]),
                ), flush=True)  # fmt: skip
            one.lose(0)
            found = blast(one, mtu=mtu, size=size)
            out, into = found["sender"], found["receiver"]
            goodput = into["bytes"] * 8 / max(0.001, into["seconds"]) / 1e6
            print(form.format(
                f"MTU {mtu}, plain UDP, unpaced", f"{goodput:.0f}",
                f"{into['bytes'] * 8e-6 / max(out['cpu'], into['cpu']):.0f}", "-",
                f"{(out['bytes'] - into['bytes']) >> 10} kB",
                f"{out['cpu'] * 1e9 / size:.2f}/{into['cpu'] * 1e9 / size:.2f}",
                f"{out['memory_mb']}/{into['memory_mb']}", "-",
            ), flush=True)  # fmt: skip
            if mtu == 1500:
                for bulk in (0, 100_000_000):
                    found = strand(one, rate=400, mtu=mtu, size=bulk, messages=True, seconds=args.seconds)
                    out, into = found["sender"], found["receiver"]
                    wire_each = (first(out["wire"]) + 28 * first(out["packets"])) / max(1, out["messages"])
                    print(
                        f"1,000 messages of 100 bytes a second{' beside bulk' if bulk else ''}: "
                        f"p50 {into['p50_ms']:.1f} ms, p99 {into['p99_ms']:.1f} ms, {into['messages']} of "
                        f"{out['messages']}" + ("" if bulk else f", {wire_each:.0f} bytes on the wire each"),
                        flush=True,
                    )  # fmt: skip
                for rate in (100, 400):
                    mbits = udpcast(one, rate=rate, size=size)
                    print(f"udpcast, async, 8 x 8 / 80, paced at {rate}: {mbits:.0f} Mbit/s (0: not whole)", flush=True)
    print("\n* goodput for each second of CPU of the end that needs more. ** of both ends' processes, "
          "system calls among it; the kernel's packet work elsewhere is not. "
          f"Load at the end {os.getloadavg()[0]:.1f}")  # fmt: skip
    return 0


def first(values: dict[str, int]) -> int:
    return next(iter(values.values()), 0)


if __name__ == "__main__":
    sys.exit(main())
