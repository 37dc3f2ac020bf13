"""`make bench ARGS=--jump`: the jump server beside OpenSSH, direct and by ProxyJump, on the same machine in one run.

Start of ssh to its first output, echo of a key, scp both ways by AES-GCM and by the cipher that ssh takes by itself;
best of the rounds, and processor seconds of the gate's parts. Then many sessions at once with the parts' memory,
somebody's echo while others attack the door, and what a scan adds beside clamd alone. The gate is the real one, on
loopback: sessions are recorded, files hashed, all of it in the audit log. The peers do none of it. How to read it:
docs/jump.md, Figures.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import asyncssh
import jump_attack
from processes import cpu_of
from tests.brokers.jump.site import JumpSite, Sshd
from tests.brokers.patch.makers import clamd
from tests.gate.plant import Gate
from tests.verbs import cli
from tests.waiting import eventually

from cofferdam.brokers.kit import clamd as scanner

CIPHER = "aes128-gcm@openssh.com"
PARTS = ("outer", "inner", "archivist", "keeper")
GOALS = {
    "start, ms": 0.8, "echo, median ms": 2.5, "echo at 20 keys/s, median ms": 3.5, "scp up, MB/s": 1.0,
    "scp down, MB/s": 0.8, "scp up, ssh's cipher, MB/s": 0.8, "scp down, ssh's cipher, MB/s": 0.8,
}  # fmt: skip
"""Of ProxyJump's; of what has MB/s at least so much."""
MANY = 4
"""People who have the many sessions, each by connections of ten."""
SCANNED = """scanned-files:
    {{from: office, to: plant, broker: jump, owner: maintenance, reason: files that are scanned,
     listen: "127.0.0.1:{door}", clients: people, files: {{scan: true}},
     allow: [{{who: {{group: scanned}}, asset: station, as: {login}, do: up, paths: ["{files}/**"]}}]}}"""


ECHO_P99_MS = 15.0
"""The goal with 50 sessions."""
ATTACKED = 2.0
"""The goal for others' echo while somebody attacks: so many times its own p99 without."""


class Ways:
    """How to reach the station: each is a list of words for ssh and scp, and the place."""

    def __init__(self, site: JumpSite, jump: Sshd, control: Path) -> None:
        own = site.folder / "tech.pub"
        for sshd in (site.station, jump):
            sshd.authorize(own.read_text())
        keys = [f"[127.0.0.1]:{sshd.port} {' '.join(sshd.public_key.split()[:2])}\n" for sshd in (site.station, jump)]
        site.known_hosts.write_text(site.known_hosts.read_text() + "".join(keys))
        plain = site.options("tech")
        base = [*plain, "-o", f"Ciphers={CIPHER}"]
        config = site.folder / "proxy"
        key = f"IdentityFile {site.folder}/tech\n UserKnownHostsFile {site.known_hosts}\n LogLevel ERROR\n"
        config.write_text(
            f"Host jump jump-plain\n HostName 127.0.0.1\n Port {jump.port}\n {key}"
            f"Host far\n HostName 127.0.0.1\n Port {site.station.port}\n ProxyJump jump\n {key}"
            f"Host far-plain\n HostName 127.0.0.1\n Port {site.station.port}\n ProxyJump jump-plain\n {key}"
            f"Host jump far\n Ciphers {CIPHER}\n"
        )
        self.login = site.login
        # One sign-in for all of it, since a code counts once; the peers get the same.
        one = ["-o", "ControlMaster=auto", "-o", "ControlPersist=300", "-o"]
        self.ways = {
            "direct": ([*base, *one, f"ControlPath={control}1"], site.station.port, f"{site.login}@127.0.0.1"),
            "ProxyJump": (["-F", str(config), *one, f"ControlPath={control}2"], 0, f"{site.login}@far"),
            "gate": ([*base, *one, f"ControlPath={control}3"], site.door, "station@127.0.0.1"),
        }
        self.plain = {
            "direct": ([*plain, *one, f"ControlPath={control}4"], site.station.port, f"{site.login}@127.0.0.1"),
            "ProxyJump": (["-F", str(config), *one, f"ControlPath={control}5"], 0, f"{site.login}@far-plain"),
            "gate": ([*plain, *one, f"ControlPath={control}6"], site.door, "station@127.0.0.1"),
        }

    def ssh(self, way: str, *words: str, plain: bool = False) -> list[str]:
        options, port, place = (self.plain if plain else self.ways)[way]
        return ["ssh", *options, *(["-p", str(port)] if port else []), place, *words]

    def scp(self, way: str, source: str, target: str, *, plain: bool = False) -> list[str]:
        options, port, place = (self.plain if plain else self.ways)[way]
        ends = [end.replace("far:", f"{place}:") for end in (source, target)]
        return ["scp", "-q", *options, *(["-P", str(port)] if port else []), *ends]


def echo(argv: list[str], environment: dict[str, str], keys: int, pause: float) -> list[float]:
    """Milliseconds from a letter to its echo, by `cat` at the station."""
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, bufsize=0) as process:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("no pipes")
        found = []
        for number in range(keys + 5):
            began = time.perf_counter()
            process.stdin.write(b"x")
            if process.stdout.read(1) != b"x":
                raise RuntimeError("no echo")
            if number >= 5:
                found.append((time.perf_counter() - began) * 1e3)
            time.sleep(pause)
        process.stdin.close()
        process.wait(30)
    return found


def timed(argv: list[str], environment: dict[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(argv, check=True, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


@contextlib.contextmanager
def stage() -> Iterator[tuple[JumpSite, Ways]]:
    from tests.ports import held_port

    with tempfile.TemporaryDirectory(prefix="bj-") as folder, contextlib.ExitStack() as held:
        options: tuple[str, ...] = ()
        if shutil.which("clamd"):
            limits = ("StreamMaxLength 1000M", "MaxFileSize 1000M", "MaxScanSize 1000M")
            options = ("--socket", f"clamd={held.enter_context(clamd(Path(folder) / 's', *limits))}")
        site = JumpSite(Path(folder), options, gate=Gate)
        site.write_policy(conduits=SCANNED.format(door=site.door, login=site.login, files=site.files))
        site.policy.write_text(site.policy.read_text().replace("sessions: 20", "sessions: 64"))
        jump = Sshd(Path(folder) / "jump", held_port())
        try:
            site.gate.wait_ready()
            code, _, complained = cli("reload", "--state", site.state)
            if code:
                raise RuntimeError(complained)
            site.set_up()
            yield site, Ways(site, jump, Path(folder) / "c")
        finally:
            jump.close()
            site.close()


def quantiles(times: list[float]) -> str:
    cut = statistics.quantiles(times, n=1000)
    return f"median {statistics.median(times):.2f}, p99 {cut[989]:.2f}, p99.9 {cut[998]:.2f} ms"


async def many(site: JumpSite, sessions: int, rate: float, seconds: float) -> tuple[list[float], dict[str, float]]:
    """Milliseconds of echoes at terminals of `cat`, each at so many keys a second; MiB that each part has by then."""
    connections = []
    for number in range((sessions + 9) // 10):
        name = f"many{number % MANY}"
        code = await asyncio.to_thread(site.code, name)

        class Typist(asyncssh.SSHClient):
            def kbdint_auth_requested(self) -> str:
                return ""

            def kbdint_challenge_received(self, *_: object, code: str = code) -> list[str]:
                return [code]

        connection, _ = await asyncssh.create_connection(
            Typist, "127.0.0.1", site.door, username="station", client_keys=[str(site.folder / name)],
            known_hosts=None, config=None, agent_path=None,
        )  # fmt: skip
        connections.append(connection)
    found: list[float] = []

    async def ready(process: asyncssh.SSHClientProcess[bytes]) -> None:
        process.stdin.write(b"x")
        await process.stdout.readexactly(1)

    async def types(process: asyncssh.SSHClientProcess[bytes], wait: float) -> None:
        await asyncio.sleep(wait)
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            began = time.perf_counter()
            await ready(process)
            found.append((time.perf_counter() - began) * 1e3)
            await asyncio.sleep(max(0.0, 1 / rate - (time.perf_counter() - began)))

    working = []
    for number in range(sessions):  # one after the other: sshd drops some of those that come at once
        working.append(await connections[number // 10].create_process("cat", term_type="xterm", encoding=None))
        await ready(working[-1])
    await asyncio.gather(*(types(each, number / sessions / rate) for number, each in enumerate(working)))
    memory = {name: resident(pid) for name, pid in site.gate.pids().items() if name in PARTS}
    for each in connections:
        each.abort()
    await asyncio.to_thread(eventually, lambda: not site.sessions())
    return found, memory


def attacked(site: JumpSite, ways: Ways, keys: int, rounds: int) -> Iterator[str]:
    """A line for each attack: the p99 of somebody's echo at 20 keys a second without it and with it, in turns, best of
    the rounds; how often, and what the outer part and the keeper had to do for it."""
    program = Path(__file__).with_name("jump_attack.py")
    for kind in jump_attack.KINDS:
        found: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
        times, spent, lasted = 0, 0.0, 0.0
        for _ in range(rounds):
            for attack in (False, True):
                if not attack:
                    found[attack].append(_echoed(site, ways, keys))
                    continue
                command = [sys.executable, str(program), kind, str(site.door)]
                with subprocess.Popen(command, stdout=subprocess.PIPE) as attacker:
                    if attacker.stdout is None or attacker.stdout.readline() != b"ready\n":
                        raise RuntimeError("nobody attacks")
                    pids = site.gate.pids()
                    began, before = time.perf_counter(), cpu_of(pids["outer"]).total + cpu_of(pids["keeper"]).total
                    found[attack].append(_echoed(site, ways, keys))
                    spent += cpu_of(pids["outer"]).total + cpu_of(pids["keeper"]).total - before
                    lasted += time.perf_counter() - began
                    attacker.terminate()
                    times += int(attacker.stdout.read())
        calm, storm = min(p99 for _, p99 in found[False]), min(p99 for _, p99 in found[True])
        medians = [min(median for median, _ in found[each]) for each in (False, True)]
        missed = ", missed" if storm > ATTACKED * calm else ""
        yield (
            f"{kind:12} p99 {calm:.2f} ms, attacked {storm:.2f}: {storm / calm:.2f} times (goal {ATTACKED:g}{missed}); "
            f"median {medians[0]:.2f}, {medians[1]:.2f}; {times / lasted:.0f} a second, outer and keeper "
            f"{spent / lasted:.2f} of a core; load {os.getloadavg()[0]:.1f}"
        )


def _echoed(site: JumpSite, ways: Ways, keys: int) -> tuple[float, float]:
    """Median and p99, ms."""
    times = echo(ways.ssh("gate", "cat"), site.environment("tech"), keys, 0.05)
    return statistics.median(times), statistics.quantiles(times, n=100)[98]


def resident(pid: int) -> float:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def scanned(site: JumpSite, big: Path) -> str:
    """One file up, with its scan and without, and by clamd alone."""
    times = []
    for name in ("tech", "scanned"):
        command = ["scp", "-q", *site.options(name), "-o", f"Ciphers={CIPHER}", "-P", str(site.door), str(big)]
        for _ in range(2):  # the first one is warm-up
            last = timed([*command, f"station@127.0.0.1:{site.files}/{name}"], site.environment(name))
        times.append(last)
    (socket,) = big.parent.glob("s/*.ctl")
    began = time.perf_counter()
    verdict = scanner.scan(str(socket), big)
    alone = time.perf_counter() - began
    return (f"{times[0]:.2f} s without a scan, {times[1]:.2f} with it; clamd alone {alone:.2f} ({verdict.verdict}): "
            f"{(times[1] - times[0]) / alone:.2f} times its own time is added")  # fmt: skip


def show(rows: dict[str, dict[str, list[float]]], rounds: int) -> None:
    print(f"{'best of ' + str(rounds):34}" + "".join(f"{way:>12}" for way in rows) + "  gate/ProxyJump   goal")
    for name in rows["gate"]:
        best = [abs(min(found[name])) if name in found else None for found in rows.values()]
        line = f"{name:34}" + "".join("            " if cell is None else f"{cell:12.2f}" for cell in best)
        if best[1] and best[2]:
            goal = f"{GOALS[name]:7.1f}" if name in GOALS else ""
            line += f"{best[2] / best[1]:16.2f}{goal}"
        print(line)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench/jump.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--size", type=int, default=128, help="MiB of a file (default: %(default)s)")
    parser.add_argument("--keys", type=int, default=1000, help="keys typed in a round (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=20, help="with many sessions (default: %(default)s)")
    parser.add_argument(
        "--only", choices=("peers", "sessions", "attack", "scan"), action="append", help="these parts alone"
    )
    args = parser.parse_args()
    wanted = set(args.only or ("peers", "sessions", "attack", "scan"))
    with stage() as (site, ways):
        big = site.folder / "big"
        big.write_bytes(os.urandom(args.size << 20))
        for way in ways.ways:
            for plain in (False, True):
                first = site.environment("tech")
                subprocess.run(ways.ssh(way, "echo on", plain=plain), check=True, env=first, stdout=subprocess.DEVNULL)
        if "peers" in wanted:
            show(side_by_side(site, ways, big, args), args.rounds)
        if "sessions" in wanted:
            for number in range(MANY):
                site.person(f"many{number}", "staff")
            for sessions, rate in ((50, 4.0), (200, 1.0)):
                show_many(site, sessions, rate, args)
        if "attack" in wanted:
            for line in attacked(site, ways, max(100, args.keys // 5), args.rounds):
                print(line, flush=True)
        if "scan" in wanted:
            site.person("scanned", "scanned")
            print(f"a file of {args.size} MiB: {scanned(site, big)}" if shutil.which("clamd") else "no clamd: no scan")
        print(f"load average of the machine at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    return 0


def show_many(site: JumpSite, sessions: int, rate: float, args: argparse.Namespace) -> None:
    """Best of the rounds by its p99, and each round's p99: on a busy machine they differ."""
    rounds = [asyncio.run(many(site, sessions, rate, args.seconds)) for _ in range(args.rounds)]
    p99s = [statistics.quantiles(times, n=100)[98] for times, _ in rounds]
    times, memory = rounds[p99s.index(min(p99s))]
    said = ", ".join(f"{name} {size:.0f}" for name, size in memory.items())
    goal = f" (goal {ECHO_P99_MS:g}{', missed' if min(p99s) > ECHO_P99_MS else ''})" if sessions == 50 else ""
    each = ", ".join(f"{p99:.2f}" for p99 in p99s)
    print(f"{sessions} sessions at {rate:g} keys/s each: {quantiles(times)}{goal}; p99 of each round {each}; "
          f"MiB: {said}; load {os.getloadavg()[0]:.1f}", flush=True)  # fmt: skip


def side_by_side(
    site: JumpSite, ways: Ways, big: Path, args: argparse.Namespace
) -> dict[str, dict[str, list[float]]]:  # fmt: skip
    """What was found of each way, in turns."""
    environment = site.environment("tech")
    parts = {name: pid for name, pid in site.gate.pids().items() if name in PARTS}
    rows: dict[str, dict[str, list[float]]] = {way: {} for way in ways.ways}
    for _ in range(args.rounds):
        for way, found in rows.items():
            fresh = site.environment("tech")  # a connection of its own, signed in by key and code
            alone = ["ssh", "-S", "none", *ways.ssh(way, "echo on")[1:]]
            found.setdefault("start, ms", []).append(timed(alone, fresh) * 1e3)
            times = echo(ways.ssh(way, "cat"), environment, args.keys, 0)
            found.setdefault("echo, median ms", []).append(statistics.median(times))
            cut = statistics.quantiles(times, n=1000)
            found.setdefault("echo, p99 ms", []).append(cut[989])
            found.setdefault("echo, p99.9 ms", []).append(cut[998])
            slow = echo(ways.ssh(way, "cat"), environment, max(50, args.keys // 20), 0.05)
            found.setdefault("echo at 20 keys/s, median ms", []).append(statistics.median(slow))
            before = {name: cpu_of(pid).total for name, pid in parts.items()}
            there = site.files / way
            up = timed(ways.scp(way, str(big), f"far:{there}"), environment)
            down = timed(ways.scp(way, f"far:{there}", str(site.folder / "back")), environment)
            found.setdefault("scp up, MB/s", []).append(-(args.size << 20) / 1e6 / up)
            found.setdefault("scp down, MB/s", []).append(-(args.size << 20) / 1e6 / down)
            up = timed(ways.scp(way, str(big), f"far:{there}", plain=True), environment)
            down = timed(ways.scp(way, f"far:{there}", str(site.folder / "back"), plain=True), environment)
            found.setdefault("scp up, ssh's cipher, MB/s", []).append(-(args.size << 20) / 1e6 / up)
            found.setdefault("scp down, ssh's cipher, MB/s", []).append(-(args.size << 20) / 1e6 / down)
            if way == "gate":
                for name, pid in parts.items():
                    found.setdefault(f"processor s, {name}", []).append(cpu_of(pid).total - before[name])
    return rows


if __name__ == "__main__":
    sys.exit(main())
