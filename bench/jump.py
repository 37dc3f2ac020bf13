"""`make bench ARGS=--jump`: the jump server beside OpenSSH, direct and by ProxyJump, on the same machine in one run.

Echo of a key, start of ssh to its first output, scp both ways; best of the rounds, and processor seconds of the gate's
parts. The gate is the real one, on loopback: sessions are recorded, files hashed, all of it in the audit log. The peers
do none of it. How to read it: docs/performance.md.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from processes import cpu_of
from tests.brokers.jump.site import JumpSite, Sshd

CIPHER = "aes128-gcm@openssh.com"


class Ways:
    """How to reach the station: each is a list of words for ssh and scp, and the place."""

    def __init__(self, site: JumpSite, jump: Sshd, control: Path) -> None:
        own = site.folder / "tech.pub"
        for sshd in (site.station, jump):
            sshd.authorize(own.read_text())
        keys = [f"[127.0.0.1]:{sshd.port} {' '.join(sshd.public_key.split()[:2])}\n" for sshd in (site.station, jump)]
        site.known_hosts.write_text(site.known_hosts.read_text() + "".join(keys))
        base = [*site.options("tech"), "-o", f"Ciphers={CIPHER}"]
        config = site.folder / "proxy"
        key = f"IdentityFile {site.folder}/tech\n UserKnownHostsFile {site.known_hosts}\n LogLevel ERROR\n"
        config.write_text(
            f"Host jump\n HostName 127.0.0.1\n Port {jump.port}\n Ciphers {CIPHER}\n {key}"
            f"Host far\n HostName 127.0.0.1\n Port {site.station.port}\n ProxyJump jump\n Ciphers {CIPHER}\n {key}"
        )
        self.login = site.login
        # One sign-in for all of it, since a code counts once; the peers get the same.
        one = ["-o", "ControlMaster=auto", "-o", "ControlPersist=300", "-o"]
        self.ways = {
            "direct": ([*base, *one, f"ControlPath={control}1"], site.station.port, f"{site.login}@127.0.0.1"),
            "ProxyJump": (["-F", str(config), *one, f"ControlPath={control}2"], 0, f"{site.login}@far"),
            "gate": ([*base, *one, f"ControlPath={control}3"], site.door, "station@127.0.0.1"),
        }

    def ssh(self, way: str, *words: str) -> list[str]:
        options, port, place = self.ways[way]
        return ["ssh", *options, *(["-p", str(port)] if port else []), place, *words]

    def scp(self, way: str, source: str, target: str) -> list[str]:
        options, port, place = self.ways[way]
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

    with tempfile.TemporaryDirectory(prefix="bj-") as folder:
        site = JumpSite(Path(folder))
        jump = Sshd(Path(folder) / "jump", held_port())
        try:
            site.set_up()
            yield site, Ways(site, jump, Path(folder) / "c")
        finally:
            jump.close()
            site.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench/jump.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--size", type=int, default=128, help="MiB of a file (default: %(default)s)")
    parser.add_argument("--keys", type=int, default=200, help="keys typed in a round (default: %(default)s)")
    args = parser.parse_args()
    with stage() as (site, ways):
        environment = site.environment("tech")
        big = site.folder / "big"
        big.write_bytes(os.urandom(args.size << 20))
        subprocess.run(ways.ssh("gate", "echo on"), check=True, env=environment, stdout=subprocess.DEVNULL)
        parts = {
            name: pid for name, pid in site.gate.pids().items() if name in ("outer", "inner", "archivist", "keeper")
        }
        rows: dict[str, dict[str, list[float]]] = {way: {} for way in ways.ways}
        for _ in range(args.rounds):
            for way, found in rows.items():
                found.setdefault("start, ms", []).append(timed(ways.ssh(way, "echo on"), environment) * 1e3)
                times = echo(ways.ssh(way, "cat"), environment, args.keys, 0)
                found.setdefault("echo, median ms", []).append(statistics.median(times))
                found.setdefault("echo, p99 ms", []).append(statistics.quantiles(times, n=100)[98])
                slow = echo(ways.ssh(way, "cat"), environment, args.keys // 8, 0.05)
                found.setdefault("echo at 20 keys/s, median ms", []).append(statistics.median(slow))
                before = {name: cpu_of(pid).total for name, pid in parts.items()}
                there = site.files / way
                up = timed(ways.scp(way, str(big), f"far:{there}"), environment)
                down = timed(ways.scp(way, f"far:{there}", str(site.folder / "back")), environment)
                found.setdefault("scp up, MB/s", []).append(-(args.size << 20) / 1e6 / up)
                found.setdefault("scp down, MB/s", []).append(-(args.size << 20) / 1e6 / down)
                if way == "gate":
                    for name, pid in parts.items():
                        found.setdefault(f"processor s, {name}", []).append(cpu_of(pid).total - before[name])
        names = list(rows["gate"])
        print(f"{'best of ' + str(args.rounds):34}" + "".join(f"{way:>12}" for way in rows))
        for name in names:
            cells = [abs(min(found[name])) if name in found else None for found in rows.values()]
            print(f"{name:34}" + "".join("            " if cell is None else f"{cell:12.2f}" for cell in cells))
    return 0


if __name__ == "__main__":
    sys.exit(main())
