"""The operator's finer hands: what is severed stays so through reloads and restarts; what is granted ends by itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from cofferdam.errors import GateError
from cofferdam.evidence.checks.policies import expiry
from cofferdam.evidence.inputs import Inputs
from cofferdam.gate import hands, state
from cofferdam.gate.client import ask
from cofferdam.gate.hands import NS
from cofferdam.gate.state import Closure, Granted, Hands
from cofferdam.gate.watch.troubles import LOOK_SECONDS
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.table import _names
from tests.gate.conftest import Site
from tests.gate.plant import READ, Client, Device, Gate, cli, events, policy_text, running
from tests.ports import held_ports
from tests.waiting import eventually


class Two:
    """Two devices behind one gate, and a conduit to the second that needs a grant."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state, self.policy = folder, folder / "state", folder / "policy.yaml"
        self.devices = {"a": Device(), "b": Device()}
        self.ports = dict(zip("ab", held_ports(2), strict=True))
        text = policy_text({name: (device.port, self.ports[name]) for name, device in self.devices.items()})
        head, _, tail = text.rpartition("    broker: modbus")
        self.policy.write_text(f"{head}    grant: {{most: 4 h}}\n    broker: modbus{tail}")

    def works(self, name: str) -> bool:
        try:
            with Client(self.ports[name]) as client:
                return client.read()[0] == 3
        except OSError:
            return False


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Two, Gate]]:
    made = Two(tmp_path_factory.mktemp("hands"))
    with running(made.state, made.policy) as gate:
        yield made, gate
    for device in made.devices.values():
        device.close()


@pytest.mark.parametrize(
    ("what", "name"), [("principal", "erp"), ("asset", "a"), ("conduit", "a-road"), ("zone", "control")]
)
def test_each_kind_ends_its_sessions_and_stays_through_a_reload(two: tuple[Two, Gate], what: str, name: str) -> None:
    site, gate = two
    with Client(site.ports["a"]) as client:
        assert client.read()[0] == 3
        code, out, err = cli("sever", what.upper(), name, "--reason", "a test", "--state", site.state)
        assert (code, err) == (0, "") and "1 session ended" in out, out
        assert client.ended()
    assert not site.works("a")
    status = gate.status()
    assert [(one["kind"], one["name"], one["reason"]) for one in status["closures"]] == [(what, name, "a test")]
    assert f"the {what} {name} is severed" in status["verdict"]
    assert cli("reload", "--state", site.state)[0] == 0
    assert not site.works("a")
    assert cli("diff", "running", site.policy, "--state", site.state)[0] == 0, "what is held back is no other policy"
    assert cli("restore", what, name, "--reason", "it is over", "--state", site.state)[0] == 0
    assert cli("restore", what, name, "--state", site.state)[0] == 1
    assert site.works("a")
    last = events(site.state, "severed")[-1]
    assert (last["side"], last["what"], last["name"], last["reason"], last["sessions"]) == ("", what, name, "a test", 1)
    back = events(site.state, "restored")[-1]
    assert (back["name"], back["reason"]) == (name, "it is over")
    lines = cli("audit", "show", "--kind", "severed", "--kind", "restored", "--last", "2", "--state", site.state)[1]
    assert "1 session ended: a test" in lines and ": it is over" in lines, lines
    eventually(lambda: f'restored what="{what} {name}" by=' in gate.said())


def test_a_session_is_ended_by_its_name_and_its_client_may_come_again(two: tuple[Two, Gate]) -> None:
    site, gate = two

    def named() -> list[str]:
        return [one["session"] for one in gate.status()["sessions"] if one["asset"] == "a"]

    with Client(site.ports["a"]) as client, Client(site.ports["a"]) as other:
        client.read()
        other.read()
        eventually(lambda: len(named()) == 2)
        before = named()
        assert cli("sever", "session", before[0], "--state", site.state)[0] == 0
        eventually(lambda: named() == before[1:])
    assert site.works("a")
    code, _, err = cli("sever", "session", "nobody", "--state", site.state)
    assert code == 2 and "no session nobody is open" in err


def test_what_has_an_end_ends_by_itself(two: tuple[Two, Gate]) -> None:
    site, gate = two
    assert cli("sever", "asset", "a", "--for", "1s", "--state", site.state)[0] == 0
    eventually(lambda: not gate.status()["closures"])
    eventually(lambda: site.works("a"))
    assert events(site.state, "severed")[-1]["until_ns"] and events(site.state, "restored")[-1]["by"] == "its time"
    eventually(lambda: 'restored what="asset a" by="its time"' in gate.said())

    def severed() -> bool:
        """On a busy machine it may be over before it is looked at, and is severed anew."""
        assert cli("sever", "it", "--for", "2s", "--state", site.state)[0] == 0
        cuts = gate.status()["severed"]
        assert all(cut["until_ns"] for cut in cuts)
        return bool(cuts) and not site.works("a")

    eventually(severed)
    eventually(lambda: not gate.status()["severed"])
    eventually(lambda: site.works("a"))
    assert events(site.state, "restored")[-1]["side"] == "it" and events(site.state, "restored")[-1]["by"] == "its time"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("sever", "asset", "c"), "no asset c"),
        (("sever", "conduit", "a-rod"), "did you mean a-road"),
        (("sever", "asset"), "needs a name"),
        (("sever", "it", "x"), "takes no name"),
        (("sever", "asset", "a", "--for", "soon"), "no duration"),
        (("grant", "ask", "a-road", "--for", "1h", "--reason", "x"), "needs no grant"),
        (("grant", "ask", "b-road", "--for", "5h", "--reason", "x"), "240 min"),
        (("grant", "agree", "999"), "nobody has asked"),
    ],
)
def test_wrong_words_change_nothing(two: tuple[Two, Gate], words: tuple[str, ...], said: str) -> None:
    site, gate = two
    code, _, err = cli(*words, "--state", site.state)
    assert code == 2 and said in err, err
    assert not gate.status()["closures"] and not gate.status()["grants"]


@pytest.mark.parametrize("side", [("ot",), ("asset", "a")])
@pytest.mark.parametrize("reason", ["x" * 100_000, os.fsdecode("gestört".encode("latin-1"))])
def test_no_words_keep_somebody_from_severing(two: tuple[Two, Gate], side: tuple[str, ...], reason: str) -> None:
    """A long reason, and one from a terminal with other letters, had the command refused."""
    site, _ = two
    assert cli("sever", *side, "--reason", reason, "--state", site.state)[0] == 0
    assert cli("restore", *side, "--reason", reason, "--state", site.state)[0] == 0
    assert {one["reason"][:4] for one in events(site.state, "restored")[-1:]} == {reason[:4]}


def test_what_waits_for_a_grant_has_not_expired(two: tuple[Two, Gate]) -> None:
    """It is shut as the policy has it: no alarm, no failed check, and no expiry that was never written."""
    site, gate = two
    asked = gate.status()["now_ns"]
    eventually(lambda: gate.status()["now_ns"] > asked + 2 * LOOK_SECONDS * NS)
    status = gate.status()
    [road] = [one["standing"] for one in status["conduits"] if one["name"] == "b-road"]
    assert (road["open"], road["says"], road["expires"]) == (False, "shut: no grant stands", "")
    assert not [one for one in status["alarms"] if one["name"].startswith("conduit-expires")]
    held = compile_policy(loads(site.policy.read_text()), now_ns=status["now_ns"]).held(
        conduits={"b-road": "shut: no grant stands"}
    )
    assert not any("has expired" in fact for fact in expiry(Inputs(status["now_ns"], policy=held)).facts)


@pytest.mark.skipif(os.geteuid() != 0, reason="a second person needs another user")
def test_a_grant_needs_two_people_and_ends(two: tuple[Two, Gate]) -> None:
    site, _ = two
    assert not site.works("b"), "shut unless it is granted"
    wish = ("grant", "ask", "b-road", "--for", "2h", "--reason", "order 4711", "--json", "--state", site.state)
    code, out, err = cli(*wish)
    assert code == 0, err
    number = json.loads(out)["number"]
    code, _, err = cli("grant", "agree", str(number), "--state", site.state)
    assert code == 2 and "nobody agrees to their own wish" in err
    assert not site.works("b")
    assert as_another(site.state, number)["agreed_by"] == "daemon"
    assert site.works("b")
    assert "asked by" in cli("grant", "list", "--state", site.state)[1]
    assert cli("reload", "--state", site.state)[0] == 0 and site.works("b")
    assert cli("grant", "end", str(number), "--state", site.state)[0] == 0
    assert not site.works("b")
    kinds = [events(site.state, kind)[-1]["number"] for kind in ("grant-asked", "grant-agreed", "grant-ended")]
    assert kinds == [number] * 3


def as_another(folder: Path, number: int) -> dict[str, object]:
    """Agrees as another person: the login that the kernel knows is daemon's."""
    uid = pwd.getpwnam("daemon").pw_uid
    code = (
        "import json,sys,pathlib;from cofferdam.gate.client import ask\n"
        f"pathlib.Path('/proc/self/loginuid').write_text('{uid}')\n"
        "print(json.dumps(ask(pathlib.Path(sys.argv[1]), 'agree-grant', number=int(sys.argv[2]))))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder), str(number)], capture_output=True, text=True)
    if "loginuid" in done.stderr:
        pytest.skip("this kernel lets nobody have another login")
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_a_restart_keeps_what_was_severed_and_a_damaged_file_severs_all(site: Site) -> None:
    with running(site.state, site.policy) as gate:
        assert ask(site.state, "sever-part", kind="asset", name="plc", reason="r")["name"] == "plc"
        gate.stop()
    with running(site.state, site.policy) as gate:
        assert [one["name"] for one in gate.status()["closures"]] == ["plc"]
        with contextlib.suppress(OSError), Client(site.port) as client:  # shut out, or told that it may not
            assert client.read()[0] != READ
        with contextlib.suppress(OSError), Client(site.port) as client:
            assert not client.write(5)
        assert (site.device.connections, site.device.writes) == (0, []), "nothing reaches what is severed"
        gate.stop()
    (site.state / "hands.json").write_text("{")
    with running(site.state, site.policy) as gate:
        status = gate.status()
        assert {cut["side"] for cut in status["severed"]} == {"it", "ot"}, "nobody knows what was severed: all is"
        assert "hands-state-damaged" in [one["name"] for one in status["alarms"]]


def test_no_number_of_a_grant_is_one_again(tmp_path: Path) -> None:
    """Whoever asks could withdraw what a colleague had looked at, and ask for another conduit by its number."""
    older = Granted(1, "c", "ben", "why", 60, 1)
    state.save_hands(tmp_path, Hands((), (older, Granted(2, "c", "anna", "why", 60, 1)), 2))
    found = hands.OperatorsHands(tmp_path)

    async def record(*_: object) -> bool:
        return True

    grant = SimpleNamespace(most_seconds=3600, by=())
    gate = SimpleNamespace(
        base=SimpleNamespace(conduits={"other": SimpleNamespace(grant=grant)}), audit=SimpleNamespace(record=record),
        crews={}, alarm=lambda *_: None, note=lambda *_: None, hold=lambda: None,
    )  # fmt: skip

    async def again() -> int:
        assert await found.end(gate, 2, "anna")
        return (await found.ask(gate, "other", "anna", "why", 60)).number

    assert asyncio.run(again()) == 3


def test_who_sets_the_clock_ends_no_severing_and_prolongs_no_grant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Severed for two hours, a side worked again as soon as somebody had set the clock forward."""
    at = SimpleNamespace(clock=10**18, passed=5 * NS)
    monkeypatch.setattr(hands, "now_ns", lambda: at.clock)
    monkeypatch.setattr(hands, "passed_ns", lambda: at.passed)
    monkeypatch.setattr(hands, "LOOK_SECONDS", 0.001)
    end = at.clock + 7200 * NS
    granted = Granted(1, "b-road", "anna", "why", 7200, at.clock, "ben", end)
    state.save_hands(tmp_path, Hands((Closure("asset", "a", at.clock, "anna", "why", end),), (granted,), 1))
    found = hands.OperatorsHands(tmp_path)
    over: list[str] = []

    async def restore(side: str, by: str, now: int) -> bool:
        over.append(side)
        return True

    gate = SimpleNamespace(
        cuts=state.Severed((state.Cut("it", at.clock, "anna", "why", end),)), restore=restore, crews={},
        alarm=lambda *_: None, note=lambda *_: None, hold=lambda: None,
        log=SimpleNamespace(warning=lambda *_, **__: None),
    )  # fmt: skip

    async def look() -> tuple[int, int, bool]:
        """What stands: of things that are severed, of grants, and the side."""
        over.clear()
        stopped = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(found.watch(gate, stopped))
            for _ in range(30):  # turns of both, and no time: a machine may have none for us meanwhile
                await asyncio.sleep(0.001)
            stopped.set()
        return len(found.now.closures), len(found.now.grants), not over

    assert asyncio.run(look()) == (1, 1, True)
    at.clock += 8000 * NS
    assert asyncio.run(look()) == (1, 0, True), "the clock alone ends no severing"
    later = at.clock + 10 * NS  # severed once more, for a moment, by who may not restore
    found.now = Hands(state.with_closure(found.now.closures, Closure("asset", "a", at.clock, "carl", "", later)), (), 1)
    gate.cuts = state.with_cut(gate.cuts, state.Cut("it", at.clock, "carl", "", later))
    assert asyncio.run(look()) == (1, 0, True)
    at.clock, at.passed = at.clock + 20 * NS, at.passed + 20 * NS
    assert asyncio.run(look()) == (1, 0, True), "the second end does not make the first one come sooner"
    at.passed += 7200 * NS
    assert asyncio.run(look()) == (0, 0, False)
    found.now, at.clock = Hands((), (granted,), 1), granted.asked_ns
    assert asyncio.run(look()) == (0, 1, True)
    at.passed += 7200 * NS
    assert asyncio.run(look()) == (0, 0, True), "as much time has passed, whatever the clock says"
    state.save_hands(tmp_path, Hands((), (granted,), 1))
    found, at.clock = hands.OperatorsHands(tmp_path), 0  # begun anew, on a machine that has lost its clock
    assert asyncio.run(look()) == (0, 1, True)
    at.passed += 7200 * NS
    assert asyncio.run(look()) == (0, 0, True), "no grant is longer than it was asked for"


def test_the_state_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = Hands((Closure("zone", "z", 1, "me", "why", 2),), (Granted(1, "c", "me", "why", 60, 3, "you", 4),), 1)
    state.save_hands(tmp_path, made)
    assert state.load_hands(tmp_path) == (made, "")
    with pytest.raises(GateError):
        state.save_hands(tmp_path / "nowhere", made)


def test_a_row_of_another_broker_names_an_asset_wherever_it_does() -> None:
    assert _names({"a": [("x", frozenset({"plc"}))]}, frozenset({"plc"}))
    assert not _names({"a": [("x", 3)]}, frozenset({"plc"}))
