"""A part that was taken over reports whatever it likes: it may lie, and ends itself by all else. The gate, the other
parts and whoever looks at the gate go on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import msgpack

from cofferdam.brokers.kit.figures import Distribution, counter, gauge, histogram
from cofferdam.brokers.kit.reports import PAGES, Pager
from cofferdam.brokers.kit.supervision import REPORT_BYTES, AssetStatus, CommandDone, FromPart, PartStatus
from cofferdam.errors import CrossingError
from cofferdam.gate.client import ask
from cofferdam.gate.crew.hearing import BYTES_AT_ONCE, Hearing, Incoming
from cofferdam.gate.state import load_severed
from tests.adversary.takeover import Taken, taken
from tests.examples import examples
from tests.gate.plant import Client, cli, events
from tests.waiting import eventually, kill


@pytest.fixture(scope="module")
def owned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Taken]:
    with taken(tmp_path_factory.mktemp("owned")) as scene:
        yield scene
        assert scene.gate.process.poll() is None


@pytest.fixture(scope="module")
def operator(owned: Taken) -> Iterator[Client]:
    """A session by the other road."""
    with Client(owned.other_port) as client:
        yield client


def scrape(scene: Taken) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{scene.management}/metrics") as answer:
        return str(answer.read().decode())


BREAKS = {
    "a bucket that there is not": "report(figures={'added': {'': Distribution({1 << 62: 1}, 1, 1)}})",
    "a figure of another": "report(figures={'queued': {'plc': 1}})",
    "more names of limits than there are": "report(limits={f'l{n}': 1 for n in range(100000)})",
    "a limit's name that a terminal obeys": "report(limits={'\\x1b[2J': 1})",
    "a label that a terminal obeys": "report(figures={'reads': {'\\x1b[2J': 1}})",
    "a record of a megabyte": "push(control, Failing('x' * 4096), PartStatus('c', 'outer', 'f' * 900000, ()))",
    "reports without end": "while True: report(faults={'value': 1})",
    "answers without end": "while True: push(control, CommandDone(0, b'{}'))",
    "last words without end": "while True: push(control, Failing('x' * 4000))",
    "an answer to no question": "push(control, CommandDone(77, b'{}'))",
    "what is no record": "os.write(control, b'\\x00\\x00\\x01\\xc0')",
    "figures without end": (
        "for n in range(4000): report(more=True, figures={'device': {'plc-road' if n % 2 else '': Distribution("
        "{b: 1 for b in range(1888)}, 1, 1)}, 'reads': {f'label{n}-{m}': 1 for m in range(900)}})"
    ),
}


def test_a_broken_record_takes_no_turn_from_a_paced_point(owned: Taken) -> None:
    """M14: after each of them the new pair refused paced points for a minute, so that one a minute kept all out."""
    policy = owned.site.policy.read_text()
    owned.site.policy.write_text(policy.replace("type: uint32}", "type: uint32, writes_per_minute: 3}"))
    assert cli("reload", "--state", owned.site.state)[0] == 0
    for number in range(2):
        before = owned.restarts()
        owned.inject("for n in range(9): os.write(crossing, b'\\x00\\x00\\x01\\xc1')")
        assert owned.ended(before)
        owned.gate.wait_ready()
        with Client(owned.port) as client:
            assert client.write(number)
    assert len(events(owned.site.state, "record-violation")) >= 2
    owned.site.policy.write_text(policy)
    assert cli("reload", "--state", owned.site.state)[0] == 0


@pytest.mark.parametrize("what", BREAKS)
def test_what_no_honest_part_says_ends_that_part_alone(owned: Taken, operator: Client, what: str) -> None:
    before = owned.restarts()
    owned.inject(BREAKS[what])
    assert owned.ended(before)
    assert owned.memory() < 100
    assert operator.read()[0] == 3


LIES = {
    "sums that no JSON holds": (
        "report(faults={'value': (1 << 63) - 1}, malformed=(1 << 63) - 1, figures={'reads': {'': (1 << 63) - 1, "
        "'plc-road': (1 << 63) - 1}, 'added': {'plc-road': Distribution({b: (1 << 63) - 1 for b in range(1888)}, "
        "(1 << 63) - 1, (1 << 63) - 1)}}); say('done')"
    ),
    "names of nobody": "report(open={'nobody': 9}, figures={'reads': {'nobody': 9}}); say('done')",
    "facts and sessions that a terminal obeys": (
        "outer.sessions = lambda: (SessionStatus('\\x1b]0;x\\x07', 'plc', '\\x1b[2J', 1, ('\\u202e',), 1, 1, 1, 1),);"
        "push(control, Ready(1, '', (('\\x1b[2J', True, 'a\\x07b'),))); report(open={'plc': 1}); say('done')"
    ),
}


@pytest.mark.parametrize("what", LIES)
def test_a_lie_is_shown_and_harms_nobody(owned: Taken, operator: Client, what: str) -> None:
    assert owned.inject(LIES[what]) == "done"
    for _ in range(2):
        status = owned.gate.status()
        assert '"nobody"' not in json.dumps(status)
        assert "cofferdam_build_info" in scrape(owned)
    code, out, err = cli("status", "--state", str(owned.site.state))
    assert code in (0, 1) and not err
    assert not [c for c in out if not c.isprintable() and c != "\n"]
    assert operator.read()[0] == 3


def test_a_side_is_severed_while_its_part_floods_and_lies(owned: Taken) -> None:
    """H3: it says that it has taken it and goes on serving; and another has the gate busy with what it says."""
    code = (
        "outer.set_severed = lambda sides: None\nsay('done')\nwhile True:\n    report(); outer._reactor.turn(0.001)\n"
    )
    with Client(owned.port) as client:
        assert client.read()[0] == 3
        owned.inject(code)
        done, out, _ = cli("sever", "it", "--state", str(owned.site.state))
        assert client.ended()
    assert done == 0, out
    assert load_severed(owned.site.state).sides == ("it",)
    assert cli("restore", "it", "--state", str(owned.site.state))[0] == 0
    owned.gate.wait_ready()


FLOOD = """
say('done')
n = 0
while True:
    n += 1
    report(faults={'value': n}, figures={'reads': {'plc-road': n, 'dcs-road': n},
           'added': {'plc-road': Distribution({b: n for b in range(1000)}, 1, 1)}})
    outer._reactor.turn(0.001)
    time.sleep(0.05)
"""
"""Reports as many and as long as a part may send without being ended for it."""


def sessions_end_at_once(scene: Taken, each: int, fill: Path | None = None) -> None:
    """Both outer halves are owned and report all that they may, with so many sessions each; the disk is full: the gate
    stays small, and a command severs the side for all of them."""
    ports = (scene.port, scene.other_port)
    with contextlib.ExitStack() as all_of_them:
        crowd = [
            all_of_them.enter_context(Client(port, source=f"127.0.0.{2 + n // 60}"))
            for port in ports for n in range(each)
        ]  # fmt: skip
        assert all(client.read()[0] == 3 for client in crowd)
        _flooded(scene, ports, crowd, fill)


def _flooded(scene: Taken, ports: tuple[int, int], crowd: list[Client], fill: Path | None) -> None:
    before = scene.restarts()
    for port in ports:
        assert scene.inject(FLOOD, port, "127.0.0.99") == "done"
    for _ in range(20):
        assert scene.memory() < 100
        scene.gate.status()
    assert scene.restarts() == before, "they were not ended for what they said"
    if fill is not None:
        with contextlib.suppress(OSError), fill.open("wb") as file:
            while True:
                file.write(bytes(65536))
                file.flush()
    assert ask(scene.site.state, "sever", side="it")["sessions"] >= len(crowd)
    assert all(client.ended() for client in crowd)
    assert load_severed(scene.site.state).sides == ("it",)


def test_a_side_is_severed_while_both_its_parts_flood(tmp_path: Path) -> None:
    with taken(tmp_path, "127.0.0.0/24") as scene:
        sessions_end_at_once(scene, 60)


@pytest.mark.soak
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
def test_512_sessions_are_severed_on_a_full_disk_while_both_parts_flood(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", tmp_path], check=True)
    try:
        with taken(tmp_path, "127.0.0.0/24") as scene:
            sessions_end_at_once(scene, 256, tmp_path / "fill")
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


def test_a_side_is_severed_while_the_gate_hangs(owned: Taken) -> None:
    """The launcher ends the side's parts by itself, and the gate takes it in when it can."""
    owned.gate.wait_ready()
    pid = owned.gate.pids()["gate"]
    with Client(owned.port) as client, Client(owned.other_port) as other:
        assert client.read()[0] == other.read()[0] == 3
        kill(pid, signal.SIGSTOP)
        try:
            owned.gate.process.send_signal(signal.SIGUSR1)
            assert client.ended() and other.ended()
            # An operator who has no patience: what was cut is on disk by then, whatever becomes of the command.
            command = [sys.executable, "-m", "cofferdam.cli.main", "sever", "ot", "--state", str(owned.site.state)]
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as impatient:
                eventually(lambda: "ot" in load_severed(owned.site.state).sides)
                assert impatient.poll() is None
                impatient.kill()
        finally:
            kill(pid, signal.SIGCONT)
    eventually(lambda: sorted(cut["side"] for cut in owned.gate.status()["severed"]) == ["it", "ot"])
    assert cli("restore", "ot", "--state", str(owned.site.state))[0] == 0
    assert any(event["by"].startswith("a signal") for event in events(owned.site.state, "severed"))
    owned.gate.wait_ready()
    with Client(owned.port) as client:
        assert client.ended()
    assert cli("restore", "it", "--state", str(owned.site.state))[0] == 0


# --- pages ---------------------------------------------------------------------------------------------------------

FIGURES = (counter("reads", "r", by="conduit"), gauge("queued", "q", by="asset"), histogram("added", "a", by="conduit"))
_names = st.text("abcdé-", min_size=1, max_size=63)


@given(st.lists(_names, unique=True, max_size=60), st.integers(0, 700), st.integers(0, 300))
def test_pages_fit_and_together_say_all(names: list[str], buckets: int, detail: int) -> None:
    report = PartStatus(
        "crew", "outer", "", (), open=dict.fromkeys(names, 1),
        assets=tuple(AssetStatus(name, "up", "é" * detail) for name in names),
        figures={
            "reads": dict.fromkeys(names, (1 << 53) - 1), "queued": dict.fromkeys(names, 3),
            "added": {name: Distribution({b: 1 << 50 for b in range(buckets)}, 1, 1) for name in names},
        },
    )  # fmt: skip
    pager, hearing = Pager(), Hearing(FIGURES)
    hearing.works_by(names, names)
    whole = None
    for _ in range(60):
        pages = pager.pages(report)
        assert len(pages) <= PAGES and [page.more for page in pages] == [True] * (len(pages) - 1) + [False]
        for page in pages:
            encoded = msgpack.encode(page)
            assert len(encoded) <= REPORT_BYTES
            whole = hearing.take(msgpack.decode(encoded, type=PartStatus))
    assert whole is not None and whole.open == report.open
    assert {asset.asset for asset in whole.assets} == set(names)
    for name, values in report.figures.items():
        assert whole.figures.get(name, {}) == values


def test_sessions_that_have_ended_are_told_as_none() -> None:
    pager = Pager()
    pager.pages(PartStatus("c", "outer", "", (), open={"plc": 3}))
    assert pager.pages(PartStatus("c", "outer", "", ()))[0].open == {"plc": 0}
    assert pager.pages(PartStatus("c", "outer", "", ()))[0].open == {}


@examples(10)
@given(st.lists(st.sampled_from([PartStatus("c", "o", "", ()), CommandDone(1, b"{}")]), min_size=1))
def test_nobody_says_more_than_a_part_may(said: list[FromPart]) -> None:
    """Whatever the records: by the time that they are twice what may come at once, it has ended."""
    codec, records = Incoming(Hearing(FIGURES)), [msgpack.encode(record) for record in said]
    with pytest.raises(CrossingError):
        for _ in range(2 * BYTES_AT_ONCE // 512 // len(records) + 1):
            for record in records:
                codec.decode(record)
