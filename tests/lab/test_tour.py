"""The whole demo from the command line: the tour keeps every promise, and nothing is left behind however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cofferdam.lab import plays
from tests.waiting import PATIENT, alone, eventually

DEMO = [sys.executable, "-m", "cofferdam.cli.main", "lab", "demo", "--no-namespaces"]


OLDEST = ["--play", "water", "--play", "orders"]
"""The other plays have tests of their own; all of them together are a soak."""


def descendants(root: int) -> set[tuple[int, str]]:
    """The children of a process, and theirs: the number of each, and when it began, since numbers are given again."""
    parents: dict[int, list[tuple[int, str]]] = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit():
                said = (entry / "stat").read_text().rpartition(")")[2].split()
                parents.setdefault(int(said[1]), []).append((int(entry.name), said[19]))
        except OSError:
            continue  # ended meanwhile
    found: set[tuple[int, str]] = set()
    waiting = [root]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found.update(children)
        waiting += [pid for pid, _ in children]
    return found


def started(pid: int) -> str:
    """When a process began; "" where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


@pytest.mark.heavy
def test_the_tour_keeps_every_promise() -> None:
    keeps_every_promise(("water", "orders"), 4 * PATIENT)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_the_tour_of_all_plays_keeps_every_promise() -> None:
    with alone("swupdate"):
        keeps_every_promise((), 30 * PATIENT)


def keeps_every_promise(names: tuple[str, ...], seconds: float) -> None:
    words = [word for name in names for word in ("--play", name)]
    command = [*DEMO, "--tour", "--json", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    stage = [one for one in plays.plays(names) if not one.missing()]
    played = [step for one in stage for step in one.steps] + [step for one in stage for step in one.closing]
    failed = [finding for result in results for finding in result["findings"] if not finding["ok"]]
    assert not failed
    assert [result["step"] for result in results] == [step.__name__ for step in played], done.stderr
    assert all(result["findings"] for result in results)
    assert done.returncode == 0, done.stderr


def last(lines: list[str]) -> str:
    """What the demo said last of the plant; after it comes what to try next."""
    return next((line for line in reversed(lines) if line.startswith("level")), "")


def test_the_demo_runs_unattended(tmp_path: Path) -> None:
    lines: list[str] = []
    seconds = 15
    # A busy machine needs longer until everybody has had a turn, and the intruder's refusals are explained.
    while not ("verified at" in last(lines) and "127.66.6.6" in "\n".join(lines)) and seconds < 1000:
        done = subprocess.run(
            [*DEMO, "--play", "water", "--seconds", str(seconds), "--state", str(tmp_path / str(seconds))],
            capture_output=True, text=True, timeout=3 * PATIENT, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert (tmp_path / str(seconds) / "state" / "audit").is_dir()
        lines, seconds = done.stdout.splitlines(), 3 * seconds
    assert "level" in last(lines) and "erp: " in last(lines) and "verified at" in last(lines), lines
    assert "127.66.6.6" in "\n".join(lines)


@pytest.mark.parametrize(("number", "code", "words"), [(signal.SIGINT, 130, OLDEST), (signal.SIGTERM, 143, OLDEST[:2])])
def test_stopping_it_leaves_nothing_behind(number: signal.Signals, code: int, words: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are too deep for a socket's path
        leaves_nothing_behind(number, code, words, Path(folder))


def leaves_nothing_behind(number: signal.Signals, code: int, words: list[str], tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*DEMO, *words, "--seconds", "600"], stdout=subprocess.PIPE, text=True, env=environment
    ) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if line.startswith("level"):
                break
        eventually(lambda: len(descendants(demo.pid)) >= 8)  # plant, three actors, the gate's own, the log's reader
        children = descendants(demo.pid)
        assert list(tmp_path.iterdir())
        demo.send_signal(number)
        demo.stdout.read()
    assert demo.returncode == code
    eventually(lambda: not [pid for pid, began in children if started(pid) == began])
    assert not list(tmp_path.iterdir())
