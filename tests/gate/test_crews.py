"""Crews of more than two parts under a real gate: a proxy and a relay, which live and die each as a whole."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cofferdam.enforce.doors import login_of
from cofferdam.errors import GateError
from cofferdam.gate.client import ask
from cofferdam.gate.commands import _user
from cofferdam.gate.secrets import load_secrets, secret_file
from tests.gate.plant import Client, Device, Gate, events, policy_text, refuses, running
from tests.ports import held_ports
from tests.waiting import eventually, kill

RELAY = """
  orders-to-mes:
    from: enterprise
    to: control
    broker: relay
    owner: planning
    reason: production orders
    listen:
      enterprise: {{at: "127.0.0.1:{outer}", plain: true}}
      control: {{at: "127.0.0.1:{inner}", plain: true}}
    channels:
      orders: {{schema: order.json}}
    allow:
      - {{who: erp, push: orders}}
      - {{who: mes, pull: orders}}
"""


class Works:
    """A gate with a proxy and a relay."""

    def __init__(self, folder: Path) -> None:
        self.device = Device()
        self.port, self.outer, self.inner = held_ports(3)
        self.state, self.policy = folder / "state", folder / "policy.yaml"
        text = policy_text({"plc": (self.device.port, self.port)})
        text = text.replace("conduits:\n", "  mes: {zone: control, addresses: [127.0.0.1]}\nconduits:\n")
        self.policy.write_text(text + RELAY.format(outer=self.outer, inner=self.inner))
        (folder / "order.json").write_text('{"type": "object"}')
        self.gate: Gate | None = None

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = ask(self.state, "status")
        return found

    def crew(self, broker: str) -> dict[str, Any]:
        (found,) = [crew for crew in self.status()["pairs"] if crew["broker"] == broker]
        return dict(found)

    def pids(self, broker: str) -> dict[str, int]:
        return {part["role"]: part["pid"] for part in self.crew(broker)["halves"]}

    def ask(self, part: str, verb: str, *, broker: str = "relay", crew: str = "", **arguments: Any) -> Any:
        return ask(self.state, "ask-part", broker=broker, part=part, verb=verb, crew=crew, arguments=arguments)


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Works]:
    made = Works(tmp_path_factory.mktemp("works"))
    with running(made.state, made.policy) as gate:
        made.gate = gate
        yield made
    made.device.close()


def test_a_crew_of_three_is_up(works: Works) -> None:
    crew = works.crew("relay")
    assert crew["working"] and {half["role"] for half in crew["halves"]} == {"outer", "keeper", "inner"}
    assert all(half["ready"] for half in crew["halves"])
    assert set(crew["listens"]) == {f"127.0.0.1:{works.outer}", f"127.0.0.1:{works.inner}"}


@pytest.mark.parametrize("victim", ["outer", "keeper", "inner"])
def test_a_crew_ends_as_a_whole_and_is_born_again_and_others_do_not_notice(works: Works, victim: str) -> None:
    before, others = works.pids("relay"), works.pids("modbus")
    restarts = works.crew("relay")["restarts"]
    with Client(works.port) as client:
        client.read()
        kill(before[victim])
        eventually(lambda: works.crew("relay")["restarts"] == restarts + 1 and works.crew("relay")["working"])
        client.read()
    after = works.pids("relay")
    assert after.keys() == before.keys() and not set(after.values()) & set(before.values())
    assert works.pids("modbus") == others
    name = f"{works.crew('relay')['name']}/{victim}"
    ends = [end for end in events(works.state, "half-died") if end["pid"] in before.values()]
    assert {end["half"].split("/")[-1] for end in ends} == {"outer", "keeper", "inner"}
    assert [end["reason"] for end in ends if end["half"] == name] == ["killed"]


def test_a_part_that_hangs_is_ended_with_its_crew(works: Works) -> None:
    before = works.pids("relay")
    kill(before["keeper"], signal.SIGSTOP)
    eventually(lambda: not set(works.pids("relay").values()) & set(before.values()) and works.crew("relay")["working"])


# --- an operator's questions ------------------------------------------------------------------------------------


def test_a_part_answers_an_operator(works: Works) -> None:
    (said,) = works.ask("keeper", "list", channel="orders")
    assert said["crew"] == works.crew("relay")["name"] and "result" in said
    (named,) = works.ask("keeper", "list", crew=said["crew"], channel="orders")
    assert named == said


@pytest.mark.parametrize(
    ("part", "verb", "more", "words"),
    [
        ("keeper", "sing", {}, "no 'sing'"),
        ("keeper", "list", {"channel": 7}, "Expected `str`"),
        ("keeper", "list", {"channel": "orders", "nobody": 1}, "nobody"),
        ("keeper", "list", {"channel": "x" * 60_000}, "there is no channel"),
        ("outer", "sing", {}, "there is no 'sing' here"),
        ("cellar", "list", {}, "cellar does not run"),
        ("keeper", "list", {"crew": "relay/elsewhere"}, "no crew 'relay/elsewhere' of the broker relay"),
        ("keeper", "list", {"broker": "postbox"}, "no crew of the broker postbox"),
        ("outer", "list", {"broker": "modbus"}, "there is no 'list' here"),
    ],
)
def test_what_it_can_not_do_is_an_answer_and_no_end(
    works: Works, part: str, verb: str, more: dict[str, Any], words: str
) -> None:
    before = works.pids("relay"), works.pids("modbus")
    with pytest.raises(GateError, match=words):
        works.ask(part, verb, **more)
    assert (works.pids("relay"), works.pids("modbus")) == before


def test_who_asks_is_what_the_kernel_says(works: Works) -> None:
    """An act of an operator names them in the log; what the question itself says of that counts for nothing."""
    works.ask("keeper", "pause", channel="orders", by="somebody else")
    works.ask("keeper", "resume", channel="orders")
    login = login_of(os.getpid())
    assert {entry["by"] for entry in events(works.state, "channel-set")} == {
        _user(os.geteuid() if login < 0 else login)
    }


# --- secrets ----------------------------------------------------------------------------------------------------


def test_secrets_of_a_part_are_read_whole_and_only_if_nobody_else_can(tmp_path: Path) -> None:
    path = secret_file(tmp_path, "relay/it-ot", "outer", "key")
    path.parent.mkdir(parents=True)
    assert load_secrets(tmp_path, "relay/it-ot", "outer", ("key", "other")) == ()
    path.write_bytes(b"swordfish")
    path.chmod(0o600)
    (found,) = load_secrets(tmp_path, "relay/it-ot", "outer", ("key", "other"))
    assert (found.name, found.value) == ("key", b"swordfish")
    assert "swordfish" not in repr(found) and "<secret>" in repr(found)
    assert load_secrets(tmp_path, "relay/it-ot", "inner", ("key",)) == ()
    if not os.geteuid():  # root asks for what is the gate's user's, and only in that user's folder
        os.chown(path, 64000, 64000)
        with pytest.raises(GateError, match="can be read by others"):
            load_secrets(tmp_path, "relay/it-ot", "outer", ("key",))
        os.chown(path.parent, 64000, 64000)
        assert load_secrets(tmp_path, "relay/it-ot", "outer", ("key",)) == (found,)
        for one in (path, path.parent):
            os.chown(one, 0, 0)
    for mode in (0o640, 0o604, 0o620):
        path.chmod(mode)
        with pytest.raises(GateError, match="can be read by others"):
            load_secrets(tmp_path, "relay/it-ot", "outer", ("key",))
    path.chmod(0o600)
    path.write_bytes(bytes(1 << 20) + b"x")
    with pytest.raises(GateError, match="more than"):
        load_secrets(tmp_path, "relay/it-ot", "outer", ("key",))
    path.unlink()
    path.symlink_to("/etc/passwd")
    with pytest.raises(GateError, match="cannot be read"):
        load_secrets(tmp_path, "relay/it-ot", "outer", ("key",))
    path.unlink()
    os.mkfifo(path, 0o600)
    with pytest.raises(GateError, match="no file"):
        load_secrets(tmp_path, "relay/it-ot", "outer", ("key",))


def test_a_secret_that_others_can_read_keeps_the_crew_from_starting(tmp_path: Path) -> None:
    made = Works(tmp_path)
    with running(made.state, made.policy) as gate:
        name = made.crew("relay")["name"]
        path = secret_file(made.state, name, "outer", "relay")
        assert gate.stop() == 0
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\x80")
    path.chmod(0o644)
    code, err = refuses(made.state, made.policy)
    assert code == 2 and "can be read by others" in err and f"chmod 600 {path}" in err
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    made.device.close()
