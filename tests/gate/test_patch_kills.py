"""Parts of the patch relay are killed, at each step, while files come in, are examined, released and sent: nothing is
released without its two people, nothing is sent twice by itself, and what was acknowledged is there."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from cofferdam.cli.main import main
from cofferdam.errors import GateError
from tests.brokers.patch.web import serving
from tests.brokers.relay.certificates import make
from tests.gate.patching import Works
from tests.gate.plant import Gate
from tests.waiting import PATIENT, eventually, kill

PARTS = ("keeper", "installer", "intake", "fetcher", "examiner")
STEPS = ("put", "fetch", "examine", "request", "approve", "send")
WANTED = tuple((step, part) for step in STEPS for part in PARTS if part != "examiner" or step == "examine")
"""An examiner is there while a file is examined, the others all the time."""
EACH = -(-int(os.environ.get("COFFERDAM_SOAK_KILLS", "100")) // len(WANTED))
"""Kills of each part at each step: `make soak KILLS=2500` for a hundred."""
pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]  # it lasts as long as so many kills take


AUTHORITY = make("vendor authority", ca=True)
SOURCE = """    sources:
      vendor:
        https: {{at: '127.0.0.1:{port}', host: vendor.test, authority: ca.pem, path: /files/plc/, listing: directory}}
        every: 1 day"""
RULE = "      - {source: vendor, fetch: plc-firmware, files: 'fw-{version}.bin'}"


@pytest.fixture
def works(tmp_path: Path) -> Iterator[Works]:
    site = tmp_path / "site"
    (site / "plc").mkdir(parents=True)
    with serving(site, make("vendor.test", by=AUTHORITY)) as port:
        made = Works(
            tmp_path / "works", sources=SOURCE.format(port=port), rules=RULE, files={"ca.pem": AUTHORITY.pem}, gate=Gate
        )  # its examiners are programs, and found by that
        yield made
        made.close()


class Killer(threading.Thread):
    """Kills a part at each step, soon after it has begun, and after a while: the one that was killed least there. It
    ends once each part was killed so often at each step."""

    def __init__(self, works: Works, each: int) -> None:
        super().__init__(daemon=True)
        self.works, self.each = works, each
        self._step = ""
        self._begun = threading.Event()
        self.killed: Counter[tuple[str, str]] = Counter()
        self._dice = random.Random(1)

    @property
    def step(self) -> str:
        return self._step

    @step.setter
    def step(self, step: str) -> None:
        self._step = step
        self._begun.set()

    def _lacking(self, step: str) -> list[str]:
        """Parts that are still to be killed at a step, the least killed first."""
        left = [part for at, part in WANTED if at == step and self.killed[at, part] < self.each]
        return sorted(left, key=lambda part: (self.killed[step, part], self._dice.random()))

    def run(self) -> None:
        while any(self._lacking(step) for step in STEPS):
            if self._begun.wait(self._dice.random() * 2):
                self._begun.clear()
                time.sleep(self._dice.random() * 0.3)
            for name in self._lacking(step := self.step):
                pid = self._pid(name)
                if name == "examiner":  # it lives for a moment
                    for _ in range(50):
                        if pid := self._pid(name):
                            break
                        time.sleep(0.02)
                if pid and step == self.step:
                    if kill(pid):  # an examiner ends by itself
                        self.killed[step, name] += 1
                    break

    def _is_ours(self, folder: Path) -> bool:
        """Whether the process is a child of a child of this gate: other tests' gates have examiners too."""
        ours, at = self.works.gate.process.pid, int(folder.name)
        while at > 1:
            at = int((Path("/proc") / str(at) / "stat").read_text().rpartition(")")[2].split()[1])
            if at == ours:
                return True
        return False

    def _pid(self, name: str) -> int:
        if name == "examiner":  # a process for one file, which no status tells of
            for folder in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    words = (folder / "cmdline").read_bytes()
                    if b"brokers.job" in words and self._is_ours(folder):
                        return int(folder.name)
            return 0
        try:
            halves = [half for pair in self.works.gate.status()["pairs"] for half in pair["halves"]]
        except (OSError, AssertionError, KeyError, ValueError, GateError):
            return 0
        return next((int(half["pid"]) for half in halves if half["name"].endswith(name) and half["ready"]), 0)


def patient(works: Works, *words: str) -> str:
    """A verb, again until the parts that it asks are there; a refusal of what was done before is as good."""
    deadline = time.monotonic() + 4 * PATIENT
    while True:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = main(["patch", *words, "--state", str(works.state)])
        text = said.getvalue()
        if not code or any(word in text for word in ("already", "is released", "was asked for", "nothing to settle")):
            return text
        assert time.monotonic() < deadline, text + works.log()
        time.sleep(0.3)


def fetched(works: Works, version: str) -> None:
    """Looks at the vendor's server until the file has come: a look that was interrupted is made again."""
    deadline = time.monotonic() + 4 * PATIENT
    while not any(each["version"] == version for each in json.loads(patient(works, "list", "--json"))):
        assert time.monotonic() < deadline, version
        patient(works, "fetch", "vendor")


def test_whoever_is_killed_nothing_is_lost_released_or_sent_twice(works: Works) -> None:
    killer = Killer(works, EACH)
    killer.start()
    version, again = 0, Counter[tuple[str, str]]()
    contents: dict[str, bytes] = {}
    while killer.is_alive():
        version += 1
        # Every third is so large that its examiner is fed (feeding).
        name, data = f"{version}.0", f"firmware {version} ".encode() * (20_000 if version % 3 else 800_000)
        contents[name] = data
        if version % 2:
            killer.step = "put"
            file, signature = works.folder / "fw.bin", works.folder / "fw.bin.asc"
        else:
            killer.step = "fetch"
            file = works.folder.parent / "site" / "plc" / f"fw-{name}.bin"
            signature = file.with_name(f"{file.name}.asc")
        signature.write_bytes(works.vendor.sign(data))
        file.write_bytes(data)
        if version % 2:
            words = ("--product", "plc-firmware", "--version", name, "--signature", str(signature))
            patient(works, "put", str(file), *words)
        else:
            fetched(works, name)

        def row(wanted: str = name) -> dict[str, object]:
            found = json.loads(patient(works, "list", "--json"))
            return next(dict(each) for each in found if each["version"] == wanted)

        killer.step = "examine"
        deadline = time.monotonic() + 4 * PATIENT
        while (state := row()["state"]) != "passed":
            assert time.monotonic() < deadline, row()
            if state in ("failed", "not-scanned"):  # its examiner was killed
                patient(works, "examine", str(row()["number"]))
            time.sleep(0.3)
        number = str(row()["number"])
        killer.step = "request"
        patient(works, "request", number)
        killer.step = "approve"
        for who in ("alice", "bob"):
            patient(works, "approve", number, "--key", str(works.keys[who]), "--yes")
        killer.step = "send"
        deadline = time.monotonic() + 8 * PATIENT
        while True:
            plan = json.loads(patient(works, "plan", "--json"))["assets"]
            mine = {each["asset"]: each for each in plan if each["asset"].startswith("plc-")}
            if all(each["state"] == "done" and each["has"] == name for each in mine.values()):
                break
            for asset, each in mine.items():
                if each["state"] in ("failed", "unknown"):
                    patient(works, "result", asset, "plc-firmware", "again", "--detail", "looked at")
                    patient(works, "resume", "plc-firmware")
                    again[asset, name] += 1
            assert time.monotonic() < deadline, mine
            time.sleep(0.3)
    killer.join()
    works.gate.wait_ready()
    eventually(lambda: works.patch("verify"))
    works.patch("export", str(works.folder / "evidence.json"))
    log = json.loads((works.folder / "evidence.json").read_text())["log"]
    signed = Counter(each["number"] for each in log if each["kind"] == "release-signed")
    for each in log:
        if each["kind"] != "install-started":
            continue
        assert signed[each["number"]] >= 2, each
        assert each["sha256"] == hashlib.sha256(contents[each["version"]]).hexdigest()
    begun = Counter((each["asset"], each["version"]) for each in log if each["kind"] == "install-started")
    unbegun = Counter[tuple[str, str]]()
    last: dict[str, dict[str, str]] = {}
    for each in log:
        if each["kind"] in ("install-started", "install-ended"):
            before = last.get(each["asset"], {"kind": "nothing"})
            started = before["kind"] == "install-started"
            assert not (started and each["kind"] == "install-started"), f"a start without an end: {before}, {each}"
            # Where the installer was killed before the log had its start, the log has the end alone.
            if started and "not begun after all" in str(each.get("detail")):
                unbegun[each["asset"], each["version"]] += 1
            last[each["asset"]] = each
    assert all(each["kind"] == "install-ended" for each in last.values())
    for key, count in begun.items():
        assert count - unbegun[key] <= 1 + again[key], (key, count, unbegun[key], again[key])
    for name in contents:
        assert begun["plc-1", name] >= 1
        assert begun["plc-2", name] >= 1
    assert all(killer.killed[wanted] >= EACH for wanted in WANTED), killer.killed
    print(f"{sum(killer.killed.values())} kills, {version} releases, {sum(again.values())} asked", killer.killed)
