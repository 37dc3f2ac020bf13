"""Processes of a benchmark: started by id, watched, ended by id; their CPU time and system calls.

Every process that is started here ends with the benchmark, however that ends: by `stop`, or by the kernel when the
benchmark itself is killed (`load guard` asks for that).

Not here: what is started (paths.py) and what is measured (run.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).resolve().parent
LOAD = HERE / "bin" / "load"


class BenchError(Exception):
    """What went wrong, and in `hint` the way out."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def build_load() -> None:
    """Compiles the load generator when its source is newer than the program. Raises: BenchError."""
    build(LOAD, [HERE / f"{name}.c" for name in ("load", "device", "modbus", "enip", "opcua")], [HERE / "load.h"])


def build(program: Path, sources: Sequence[Path], headers: Sequence[Path] = ()) -> None:
    """Compiles `sources` into `program` when one of them is newer. Raises: BenchError."""
    newest = max(source.stat().st_mtime for source in (*sources, *headers))
    if program.exists() and program.stat().st_mtime >= newest:
        return
    hint = "sudo apt-get install gcc libc6-dev"
    compiler = shutil.which("gcc") or shutil.which("cc")
    if not compiler:
        raise BenchError(f"no C compiler: {program.name} cannot be built", hint)
    program.parent.mkdir(exist_ok=True)
    made = program.with_suffix(f".{os.getpid()}")
    command = [compiler, "-O2", "-Wall", "-Wextra", "-o", str(made), *map(str, sources)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"{program.name} does not compile:\n{done.stderr.strip()}", hint)
    made.replace(program)


_HELD: list[socket.socket] = []


def held_port(address: str, wanted: int = 0) -> int:
    """`wanted` if nobody listens there, or with 0 any free port; held for the programs of this run, until it ends, as
    the lab does it (cofferdam.lab.layout). Raises: BenchError."""
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        holder.bind((address, wanted))
    except OSError as error:
        holder.close()
        raise BenchError(
            f"can't listen on {address}:{wanted}: {error.strerror}",
            "end what uses that port (ss -ltnp shows it), or leave the option out to have a free one chosen",
        ) from None
    _HELD.append(holder)
    return int(holder.getsockname()[1])


class Process:
    """One program with all that it starts."""

    def __init__(self, name: str, command: Sequence[str], *, prefix: Sequence[str] = (), pipe: bool = False) -> None:
        """`prefix` goes before the command, as in `ip netns exec NAME`. Raises: BenchError."""
        self.name = name
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._family: dict[int, str] = {}
        try:
            self._popen = subprocess.Popen(
                [str(LOAD), "guard", *prefix, *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipe else self._errors,
                stderr=self._errors,
                start_new_session=True,  # Ctrl-C is ours alone: we end our processes in order
            )
        except OSError as error:
            self._errors.close()
            raise BenchError(f"can't start {name}: {error}") from None
        self.pid = self._popen.pid

    def first_line(self, seconds: float = 5.0) -> str:
        """The first line that the program prints. Raises: BenchError when it ends instead."""
        pipe = self._popen.stdout
        if pipe is None:
            raise BenchError(f"{self.name} was started without a pipe")
        os.set_blocking(pipe.fileno(), False)
        line, until = b"", time.monotonic() + seconds
        while not line.endswith(b"\n"):
            line += pipe.read() or b""
            if self._popen.poll() is not None or time.monotonic() > until:
                raise BenchError(f"{self.name} did not start: {self.said()}")
            time.sleep(0.005)
        return line.decode()

    def running(self) -> bool:
        return self._popen.poll() is None

    def said(self) -> str:
        """The last lines of what the program printed."""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return "\n".join(lines[-12:]) or f"it said nothing; exit status {self._popen.poll()}"

    def family(self) -> list[int]:
        """This process and all its living descendants; remembered for `stop`."""
        found = list(descendants(self.pid))
        for pid in found:
            self._family.setdefault(pid, _born(pid))
        return found

    def stop(self, seconds: float = 10.0) -> None:
        """Asks it to end, waits, then ends whatever of its family is left."""
        if self.running():
            self.family()
            self._popen.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(seconds)
        self._family.setdefault(self.pid, "")
        for pid, born in self._family.items():
            if pid == self.pid:
                if self.running():
                    self._popen.kill()
            elif born and _born(pid) == born:  # same process, not another one with a used number
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._popen.wait()
        if self._popen.stdout:
            self._popen.stdout.close()
        self._errors.close()


def descendants(pid: int) -> Iterator[int]:
    yield pid
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return
    for thread in threads:
        with contextlib.suppress(OSError):
            for child in (thread / "children").read_text().split():
                yield from descendants(int(child))


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third on; empty when the process has gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _born(pid: int) -> str:
    fields = _stat(pid)
    return fields[19] if fields else ""


def name_of(pid: int) -> str:
    """What a person would call the process: its part, else its script or module, else its program."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
    except OSError:
        return "gone"
    if "--part" in words[:-1]:
        return words[words.index("--part") + 1]
    if "-m" in words[:-1]:
        return words[words.index("-m") + 1]
    script = next((word for word in words if word.endswith(".py")), words[0] if words else "gone")
    return Path(script).name


@dataclass(frozen=True)
class Cpu:
    """CPU time of one process since it started, in seconds."""

    user: float
    system: float
    total: float


def cpu_of(pid: int) -> Cpu:
    """User and system time are counted in ticks of 10 ms; the total comes from the scheduler, in nanoseconds."""
    tick = os.sysconf("SC_CLK_TCK")
    fields = _stat(pid)
    if not fields:
        return Cpu(0, 0, 0)
    user, system, total = int(fields[11]) / tick, int(fields[12]) / tick, 0.0
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            total += int((thread / "schedstat").read_text().split()[0]) / 1e9
    except OSError:
        total = user + system
    return Cpu(user, system, total)


def generated(
    target: tuple[str, int], seconds: float, warmup: float, words: Sequence[str], prefix: Sequence[str] = ()
) -> dict[str, Any]:
    """One run of the load generator, with further options `words`. `prefix` goes before the command. Raises: BenchError
    when it could not run at all."""
    times = ["--seconds", f"{seconds:g}", "--warmup", f"{warmup:g}"]
    command = [*prefix, str(LOAD), "guard", str(LOAD), "client", "--connect", f"{target[0]}:{target[1]}", *times]
    running = subprocess.Popen(
        [*command, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        out, said = running.communicate(timeout=seconds + warmup + 30)
    except BaseException:
        running.kill()
        running.wait()
        raise
    if not out.strip():
        raise BenchError(f"the load generator failed: {said.strip()}")
    found: dict[str, Any] = json.loads(out)
    found["said"] = said.strip()
    return found


def timed_reads(target: tuple[str, int], seconds: float, words: Sequence[str], *pids: int) -> dict[str, float]:
    """What the load generator found, and the processor time of each read, of processes and all that they have begun.
    Raises: BenchError where an answer was wrong, or did not come."""
    before = {one: cpu_of(one).total for pid in pids for one in descendants(pid)}
    found = generated(target, seconds, 0.5, words)
    if found["errors"]:
        raise BenchError(f"{found['errors']} answers were wrong, missing or refused: {found['said']}")
    spent = sum(cpu_of(one).total - was for one, was in before.items())
    latency = found["latency_us"]
    return {
        "median_us": latency["median"], "p99_us": latency["p99"], "p99_9_us": latency["p99_9"],
        "per_second": found["per_second"], "cpu_us": spent * 1e6 / max(1, found["transactions_all"]),
    }  # fmt: skip


def haproxy(folder: Path, listen: str, server: str) -> list[str]:
    """The command of a HAProxy that passes bytes between two places, each as ADDRESS:PORT."""
    config = folder / "haproxy.cfg"
    config.write_text(
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n"
        f"listen bench\n bind {listen}\n server one {server}\n"
    )
    return ["haproxy", "-db", "-q", "-f", str(config)]


class SystemCalls:
    """Counts the system calls of processes with strace while the context lasts. Slows them a lot: never time them."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self._tracers: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = []
        self.counts: dict[str, int] = {}

    def __enter__(self) -> SystemCalls:
        for pid in self._pids:
            table = tempfile.NamedTemporaryFile()
            command = [str(LOAD), "guard", "strace", "-c", "-q", "-p", str(pid), "-o", table.name]
            tracer = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
            )
            self._tracers.append((tracer, table))
        until = time.monotonic() + 5
        for pid in self._pids:
            while "TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_text():
                if time.monotonic() > until:
                    self._detach()
                    raise BenchError("strace can't attach", "run as root, or leave --strace out")
                time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._detach()

    def _detach(self) -> None:
        for tracer, table in self._tracers:
            tracer.send_signal(signal.SIGINT)
            tracer.wait()
            for line in Path(table.name).read_text().splitlines():
                words = line.split()
                if len(words) >= 5 and words[3].isdigit() and words[-1] != "total":
                    self.counts[words[-1]] = self.counts.get(words[-1], 0) + int(words[3])
            table.close()
        self._tracers.clear()
