"""`make bench`: Modbus reads and writes to one simulated device, directly, through HAProxy and through Cofferdam.

All paths run in the same session, interleaved in rounds of alternating order, so that what else happens on the machine
meets all of them. Figures are medians of the rounds, with their spread. How to read them: docs/performance.md.

Not here: how a path is started (paths.py), the load itself (load.c), ratios and goals (results.py).
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from netns import LOOPBACK, Namespaces, Place, remove_left_over
from paths import CONNECTIONS, OUTSTANDING, PATHS, Middle, ModbusProxy, haproxy_version
from processes import HERE, LOAD, BenchError, Process, SystemCalls, build_load, cpu_of, generated, held_port, name_of
from results import FIGURES, GOALS, Load, Results, Run, remarks, steps, table

RESULTS = HERE / "results"
OTHERS = ("policy.py", "audit.py", "modbus_codec.py")
"""Benchmarks of single parts; `--all` runs them afterwards."""


def main(arguments: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    for program in ("cost", "flood", "relay", "enip", "opcua", "mirror", "jump", "evidence", "diode", "patch"):
        if (word := f"--{program}") in words:
            rest = [each for each in words if each != word]
            os.execv(sys.executable, [sys.executable, str(HERE / f"{program}.py"), *rest])
    args = parse(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(143))
    try:
        return bench(args)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bench: stopped; all its processes have ended", file=sys.stderr)
        return 130


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/run.py", description=(__doc__ or "").split("\n\n")[0])
    usual = ",".join(name for name in PATHS if name != ModbusProxy.name or shutil.which(name))
    parser.add_argument(
        "--paths", default=usual, help=f"some of {','.join(PATHS)}; default: all, modbus-proxy where it is installed"
    )
    parser.add_argument(
        "--clients",
        default="1,32,128",
        help="loads, with commas between: 32 for as fast as it goes, 32@5000 for 5000 requests a second in all "
        "(default: %(default)s)",
    )
    parser.add_argument("--rounds", type=int, help="how often each path is measured (default: 5)")
    parser.add_argument("--seconds", type=float, help="time of one measurement (default: 3)")
    parser.add_argument("--warmup", type=float, help="time before it that does not count (default: 1)")
    parser.add_argument("--quick", action="store_true", help="2 rounds of 1 s: shows that it works, not more")
    parser.add_argument("--depth", type=int, default=1, help="requests under way for each client, 1 to 16")
    parser.add_argument("--writes", type=int, default=0, help="share of writes, in percent (default: %(default)s)")
    parser.add_argument("--namespaces", action="store_true", help="measure between network namespaces too (root)")
    parser.add_argument("--no-loopback", action="store_true", help="with --namespaces: only there")
    parser.add_argument("--strace", action="store_true", help="count system calls too, in runs of their own")
    parser.add_argument("--port", type=int, default=0, help="port where the middle listens (default: a free one)")
    parser.add_argument("--device-port", type=int, default=0, help="port of the simulated device (default: a free one)")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="where the figures go (default: bench/results/DATE.json)"
    )
    parser.add_argument("--all", action="store_true", help=f"then run {', '.join(OTHERS)} too")
    parser.add_argument("--cost", action="store_true", help="only cost.py: instructions of a read (valgrind)")
    parser.add_argument("--flood", action="store_true", help="only flood.py: what a flood does to others (root)")
    parser.add_argument("--relay", action="store_true", help="only relay.py: messages, beside PostgreSQL and JetStream")
    parser.add_argument("--opcua", action="store_true", help="only opcua.py: OPC UA through the gate, beside direct")
    parser.add_argument("--enip", action="store_true", help="only enip.py: EtherNet/IP through the gate, beside direct")
    parser.add_argument("--mirror", action="store_true", help="only mirror.py: history, beside PostgreSQL")
    parser.add_argument("--diode", action="store_true", help="only diode.py: a strand, beside udpcast (root)")
    parser.add_argument("--jump", action="store_true", help="only jump.py: ssh and scp, beside OpenSSH and ProxyJump")
    parser.add_argument("--evidence", action="store_true", help="only evidence.py: checks, packs, export to rsyslog")
    parser.add_argument("--patch", action="store_true", help="only patch.py: the patch relay, beside sftp and SHA-256")
    args = parser.parse_args(arguments)
    args.rounds = args.rounds or (2 if args.quick else 5)
    args.seconds = args.seconds or (1.0 if args.quick else 3.0)
    args.warmup = args.warmup if args.warmup is not None else (0.3 if args.quick else 1.0)
    try:
        args.loads = [parse_load(text) for text in args.clients.split(",")]
    except ValueError:
        parser.error(f"--clients {args.clients}: expected numbers such as 1,32,128 or 32@5000")
    args.chosen = []
    for name in args.paths.split(","):
        if name not in PATHS:
            parser.error(f"--paths: found {name}, expected some of {', '.join(PATHS)}")
        args.chosen.append(PATHS[name](args.port))
    if args.no_loopback and not args.namespaces:
        parser.error("--no-loopback leaves nothing to measure without --namespaces")
    if args.strace and not shutil.which("strace"):
        parser.error("--strace: strace is not installed (sudo apt-get install strace)")
    return args


def parse_load(text: str) -> Load:
    clients, _, rate = text.partition("@")
    load = Load(int(clients), float(rate or 0))
    if not 1 <= load.clients <= 4096 or load.rate < 0:
        raise ValueError(text)
    return load


def bench(args: argparse.Namespace) -> int:
    build_load()
    remove_left_over()
    for path in args.chosen:
        path.check()
    machine = describe_machine()
    runs: list[Run] = []
    calls: list[dict[str, Any]] = []
    places: list[str] = []
    if not args.no_loopback:
        places.append(LOOPBACK.name)
        measure_place(args, LOOPBACK, None, runs, calls)
    if args.namespaces:
        namespaces = Namespaces()
        with namespaces as place:
            places.append(place.name)
            measure_place(args, place, namespaces, runs, calls)
    machine["load_after"] = os.getloadavg()[0]
    results = Results(runs)
    return report(args, results, places, machine, calls)


def measure_place(
    args: argparse.Namespace, place: Place, namespaces: Namespaces | None, runs: list[Run], calls: list[dict[str, Any]]
) -> None:
    """All rounds in one place, with one device for all paths."""
    port = held_port(place.device_address, args.device_port) if not place.device else args.device_port
    listen = f"{place.device_address}:{port}"
    device = Process("device", [str(LOAD), "server", "--listen", listen], prefix=place.device, pipe=True)
    try:
        device_port = int(json.loads(device.first_line())["listening"])
        for number in range(args.rounds):
            here = [path for path in args.chosen if path.only in ("", place.name)]
            order = here if number % 2 == 0 else here[::-1]
            for path in order:
                with started(path, place, namespaces, device_port) as target:
                    for load in args.loads:
                        progress(f"{place.name}: round {number + 1} of {args.rounds}: {path.label}, {load.title}")
                        runs.append(measure(args, path, place, load, number, target, device))
        if args.strace:
            for path in (path for path in args.chosen if path.only in ("", place.name)):
                with started(path, place, namespaces, device_port) as target:
                    if path.pids():
                        calls.extend(count_calls(args, path, place, load, target) for load in args.loads)
    finally:
        progress("")
        device.stop()


@contextlib.contextmanager
def started(path: Middle, place: Place, namespaces: Namespaces | None, device_port: int) -> Any:
    """The path's address for clients, while it runs."""
    if namespaces:
        namespaces.route(path.forwards)
    try:
        yield path.start(place, device_port)
    finally:
        path.stop()
        if namespaces:
            namespaces.route(False)


def client(
    args: argparse.Namespace, place: Place, load: Load, target: tuple[str, int], seconds: float, warmup: float
) -> dict[str, Any]:
    """One run of the load generator. Raises: BenchError when it could not run at all."""
    options = {"clients": load.clients, "depth": args.depth, "writes": args.writes, "rate": load.rate}
    words = [word for name, value in options.items() for word in (f"--{name}", f"{value:g}")]
    return generated(target, seconds, warmup, words, place.client)


def measure(
    args: argparse.Namespace,
    path: Middle,
    place: Place,
    load: Load,
    number: int,
    target: tuple[str, int],
    device: Process,
) -> Run:
    pids = path.pids()
    before, device_before = {pid: cpu_of(pid) for pid in pids}, cpu_of(device.pid)
    found = client(args, place, load, target, args.seconds, args.warmup)
    after, device_after = {pid: cpu_of(pid) for pid in pids}, cpu_of(device.pid)
    if path.pids() != pids:
        raise BenchError(f"a process of {path.label} ended during the measurement", "its log says why")
    count, latency = max(1, found["transactions_all"]), found["latency_us"]
    span = args.seconds + args.warmup
    user = sum(after[pid].user - before[pid].user for pid in pids)
    system = sum(after[pid].system - before[pid].system for pid in pids)
    by_process: dict[str, float] = {}
    for index, pid in enumerate(pids):
        by_process[f"{index} {name_of(pid)}"] = round(1e6 * (after[pid].total - before[pid].total) / count, 3)
    return Run(
        path=path.name,
        place=place.name,
        load=load,
        round=number,
        median=latency["median"],
        p90=latency["p90"],
        p99=latency["p99"],
        p99_9=latency["p99_9"],
        maximum=latency["max"],
        per_second=found["per_second"],
        errors=found["errors"],
        cpu=sum(by_process.values()),
        cpu_user_share=round(user / (user + system), 3) if user + system else 0.0,
        cpu_by_process=by_process,
        generator_busy=round(found["generator_cpu_seconds"] / span, 3),
        device_busy=round((device_after.total - device_before.total) / span, 3),
        raw=found,
    )


def count_calls(
    args: argparse.Namespace, path: Middle, place: Place, load: Load, target: tuple[str, int]
) -> dict[str, Any]:
    """System calls of the middle for each transaction. strace slows everything, so nothing is timed here."""
    progress(f"{place.name}: system calls: {path.label}, {load.title}")
    with SystemCalls(path.pids()) as traced:
        found = client(args, place, load, target, 1.0, 0.0)
    each = {name: round(n / max(1, found["transactions_all"]), 2) for name, n in sorted(traced.counts.items())}
    kept = {name: value for name, value in each.items() if value >= 0.01}
    return {
        "path": path.name,
        "place": place.name,
        "load": load.key,
        "all": round(sum(each.values()), 2),
        "each": kept,
    }


def describe_machine() -> dict[str, Any]:
    """What the figures depend on. No names of hosts or folders."""
    model = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ""
    )
    memory = next((line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), "0")
    wake = subprocess.run([str(LOAD), "wake"], capture_output=True, text=True, check=True).stdout
    return {
        "kernel": platform.release(),
        "cpu": model or platform.machine(),
        "virtual_machine": any("hypervisor" in line.split() for line in _lines("/proc/cpuinfo") if "flags" in line),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": int(memory) // 1024,
        "python": platform.python_version(),
        "haproxy": haproxy_version(),
        "wake": json.loads(wake),
        "load_before": os.getloadavg()[0],
    }


def _lines(name: str) -> list[str]:
    try:
        return Path(name).read_text().splitlines()
    except OSError:
        return []


def report(
    args: argparse.Namespace, results: Results, places: list[str], machine: dict[str, Any], calls: list[dict[str, Any]]
) -> int:
    wake = ", ".join(
        f"{name.removesuffix('_us').replace('_', ' ')} {us:.1f} µs" for name, us in machine["wake"].items()
    )
    print(
        f"{machine['cpu']}, {machine['cores']} cores{', virtual' if machine['virtual_machine'] else ''}, "
        f"kernel {machine['kernel']}, Python {machine['python']}, HAProxy {machine['haproxy']}"
    )
    print(f"waking a process: {wake}; load before {machine['load_before']:.2f}, after {machine['load_after']:.2f}")
    print(
        f"{args.rounds} rounds of {args.seconds:g} s, median of the rounds (lowest-highest); "
        f"{args.writes} % writes, {args.depth} under way for each client"
    )
    names = [(path.name, path.label) for path in args.chosen]
    judged: dict[str, list[dict[str, Any]]] = {}
    for place in places:
        print("\n".join(table(results, names, place, args.loads)))
        print("\n".join(steps(results, place, args.loads)))
        for line in remarks(results, place, args.loads, machine):
            print(f"  note: {line}")
        judged[place] = [goal.judge(results, place) for goal in GOALS]
    for call in calls:
        print(
            f"\nsystem calls per transaction, {call['path']} ({call['place']}, {call['load']} clients): {call['all']}"
        )
        print("  " + ", ".join(f"{name} {n}" for name, n in sorted(call["each"].items(), key=lambda item: -item[1])))
    for place in places:
        print(f"\ngoals ({place})")
        for goal in judged[place]:
            value = ""
            if "found" in goal:
                unit = " µs" if goal["unit"] == "us" else ""
                value = f"   {goal['found']:.2f}{unit} ({goal['low']:.2f}-{goal['high']:.2f})"
            print(f"  {goal['result']:14}{goal['goal']}{value}")
    write_json(args, results, places, machine, calls, judged)
    errors = sum(run.errors for run in results.runs)
    if errors:
        print(f"\n{errors} answers were wrong, missing or refused: these figures are not to be used", file=sys.stderr)
        for text in sorted({f"{run.path}: {run.raw['said']}" for run in results.runs if run.errors}):
            print(f"  {text}", file=sys.stderr)
        return 1
    return run_others() if args.all else 0


def write_json(
    args: argparse.Namespace,
    results: Results,
    places: list[str],
    machine: dict[str, Any],
    calls: list[dict[str, Any]],
    judged: dict[str, list[dict[str, Any]]],
) -> None:
    summary = []
    for place in places:
        for load in args.loads:
            for path in args.chosen:
                if not results.of(path.name, place, load):
                    continue
                entry: dict[str, Any] = {"place": place, "load": load.key, "path": path.name}
                for figure in FIGURES:
                    value = results.figure(path.name, place, load, figure)
                    ratio = results.against(path.name, "haproxy", place, load, figure)
                    entry[figure] = asdict(value) if value else None
                    entry[f"{figure}_to_haproxy"] = asdict(ratio) if ratio else None
                summary.append(entry)
    when = datetime.datetime.now(datetime.UTC)
    document = {
        "when": when.isoformat(timespec="seconds"),
        "machine": machine,
        "settings": {
            "rounds": args.rounds,
            "seconds": args.seconds,
            "warmup": args.warmup,
            "depth": args.depth,
            "write_percent": args.writes,
            "device_connections": CONNECTIONS,
            "device_outstanding": OUTSTANDING,
        },
        "summary": summary,
        "goals": judged,
        "system_calls": calls,
        "runs": [asdict(run) for run in results.runs],
    }
    target = args.json or RESULTS / f"{when:%Y-%m-%dT%H%M%SZ}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(document, indent=1) + "\n")
    print(f"\nfigures: {os.path.relpath(target)}")


def run_others() -> int:
    """The benchmarks of single parts, one after the other. The worst exit code counts."""
    worst = 0
    for name in OTHERS:
        print(f"\n== {name}", flush=True)
        worst = max(worst, subprocess.run([sys.executable, str(HERE / name)], check=False).returncode)
    return worst


def progress(text: str) -> None:
    """One line that is written over, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
