"""A gate in namespaces that was installed as a package: files of its own that are changed by hand, and what its checks
find of them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cofferdam.gate.client import ask
from tests.gate.plant import Gate
from tests.prove.stage import Stage, staged
from tests.verbs import KERNEL, cli
from tests.waiting import alone, eventually, kill

pytestmark = [
    pytest.mark.netns,
    pytest.mark.heavy,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an environment in which the package was installed by pip, over what this one has of others."""
    folder = tmp_path_factory.mktemp("installed")
    for above in (folder, folder.parent, folder.parent.parent):
        above.chmod(0o755)  # its parts are users of their own
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    (site,) = (folder / "venv/lib").glob("python*/site-packages")
    pip = (sys.executable, "-m", "pip")
    for command in (
        (*pip, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", folder, source),
        (*pip, "--python", folder / "venv/bin/python", "install", "--no-deps", "--no-index", "--no-compile",
         "--find-links", folder, "cofferdam-gate"),
    ):  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    others = next(path for path in map(Path, sys.path) if path.name == "site-packages")
    (site / "others.pth").write_text(f"{others}\n")
    return folder / "venv/bin/python"


@pytest.fixture(scope="module")
def package(python: Path) -> Path:
    (found,) = python.parent.parent.glob("lib/python*/site-packages/cofferdam")
    return found


@pytest.fixture(scope="module")
def stage(python: Path) -> Iterator[Stage]:
    class Installed(Gate):
        program = (str(python), "-m", "cofferdam.cli.main")

    with staged(gate=Installed) as made:
        parts = (half["pid"] for pair in ask(made.state, "status")["pairs"] for half in pair["halves"])
        assert all(Path(f"/proc/{pid}/cmdline").read_text().startswith(str(python.parent)) for pid in parts)
        yield made


def verb(stage: Stage, python: Path, *words: str) -> tuple[int, Any]:
    """`cofferdam ... --json` as it is installed."""
    command: list[str | Path] = [python, "-m", "cofferdam.cli.main", *words, "--json", "--state", stage.state]
    with alone(KERNEL, among=True):  # should it be a proof
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def states(stage: Stage) -> dict[str, dict[str, Any]]:
    """As `cofferdam evidence list` has them."""
    code, out, err = cli("evidence", "list", "--json", "--state", stage.state)
    assert code == 0, err
    return {one["id"]: one for one in json.loads(out)}


def alarms(stage: Stage) -> set[str]:
    return {alarm["name"] for alarm in ask(stage.state, "status")["alarms"]}


def test_the_files_of_the_release(stage: Stage, python: Path, package: Path) -> None:
    """One that is changed, one that is gone and one that is nobody's are named; put back, it holds again."""
    check = "software.integrity"
    code, said = verb(stage, python, "evidence", "run", check)
    assert (code, [one["outcome"] for one in said["checks"]]) == (0, ["tested"]), said
    changed, gone, more = (
        package / "limits.py",
        package / "brokers/patch/advice/schema/csaf.json",
        package / "brokers/mine.py",
    )
    before = {path: path.read_bytes() for path in (changed, gone)}
    try:
        changed.write_bytes(before[changed] + b"\n")
        gone.unlink()
        more.write_text("")
        code, said = verb(stage, python, "evidence", "run", check)
        (one,) = said["checks"]
        assert (code, one["outcome"], one["says"]) == (1, "failed", "3 installed files are not those of the release")
        facts = " ".join(one["facts"])
        assert all(f"{path.name}: {why}" in facts for path, why in (
            (changed, "changed"), (gone, "missing"), (more, "of no release")
        ))  # fmt: skip
        eventually(lambda: f"check-{check}" in alarms(stage))
    finally:
        for path, data in before.items():
            path.write_bytes(data)
        more.unlink(missing_ok=True)
    code, said = verb(stage, python, "evidence", "run", check)
    assert (code, said["checks"][0]["outcome"]) == (0, "tested"), said
    eventually(lambda: f"check-{check}" not in alarms(stage))


def test_a_part_that_begins_without_one_of_its_walls(stage: Stage, package: Path) -> None:
    """Its code asks for Landlock by a number that no kernel knows, as one without it would answer."""
    path = package / "enforce/sandbox.py"
    before = path.read_text()
    after = before.replace(" = 444, ", " = 9999, ")
    assert after != before

    def says(text: str, wanted: str) -> None:
        path.write_text(text)
        kill(stage.gate.pid("inner"))
        eventually(lambda: outcome() == wanted)
        eventually(lambda: ("check-separation.in-force" in alarms(stage)) is (wanted == "failed"))

    def outcome() -> str:
        _, out, err = cli("evidence", "run", "separation.in-force", "--json", "--state", stage.state)
        assert out, err
        return str(json.loads(out)["checks"][0]["outcome"])

    assert outcome() == "observed"
    try:
        says(after, "failed")
    finally:
        says(before, "observed")


CABLE = """
import ctypes, os, select, socket
libc = ctypes.CDLL(None, use_errno=True)
socks = []
for space, name in ENDS:
    assert libc.setns(os.open(f"/run/netns/{space}", os.O_RDONLY), 0x40000000) == 0
    socks.append(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)))
    socks[-1].bind((name, 3))
print(flush=True)
while True:
    frame, (_, _, kind, *_) = socks[0].recvfrom(65536)
    if kind != socket.PACKET_OUTGOING:
        try:
            socks[1].send(frame)
        except OSError:
            pass
"""
"""A program of root's that hands each frame of one side's wire to the other's."""


@contextlib.contextmanager
def cable(stage: Stage) -> Iterator[None]:
    ends = [(stage.namespace("it"), stage.lab.it_interface), (stage.namespace("ot"), stage.lab.ot_interface)]
    command = [sys.executable, "-c", f"ENDS = {ends!r}\n{CABLE}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


def test_what_only_trying_finds(stage: Stage, python: Path, package: Path) -> None:
    """A cable past the gate, which no rule and no route shows: frames of the office arrive at the plant, with the rules
    and without. And the code of the filter itself is changed: a call that no part may make comes through."""
    path = package / "enforce/sandbox.py"
    before = path.read_text()
    assert '"exit_group",\n)' in before
    checks = {"proof.canaries": "frames arrived", "proof.sabotage": "frames arrived",
              "proof.probes": "userfaultfd is not refused"}  # fmt: skip
    try:
        path.write_text(before.replace('"exit_group",\n)', '"exit_group", "userfaultfd",\n)'))
        with cable(stage):
            code, _ = verb(stage, python, "prove", "--sabotage")
        assert code == 1
        now = states(stage)
        for check, words in checks.items():
            one = now[check]
            assert one["status"] == "failed" and any(words in fact for fact in one["facts"]), one
            assert f"check-{check}" in alarms(stage)
    finally:
        path.write_text(before)
    code, _ = verb(stage, python, "prove", "--sabotage")
    now = states(stage)
    assert (code, [now[check]["status"] for check in checks]) == (0, ["tested", "observed", "tested"])
    assert not {f"check-{check}" for check in checks} & alarms(stage)
