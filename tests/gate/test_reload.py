"""A new policy while everything runs: good ones, bad ones, and ones that cannot be put in force."""

from __future__ import annotations

import errno
import signal
import socket
from pathlib import Path

import pytest

from tests.gate.conftest import Site
from tests.gate.plant import Client, Device, cli, events, policy_text
from tests.gate.test_gate import served
from tests.ports import held_port
from tests.waiting import eventually, kill


def test_sessions_that_are_still_allowed_stay(live: Site) -> None:
    before = live.up.status()
    with Client(live.port) as client:
        assert client.write(1)
        live.policy.write_text(live.text(allow="write: [level]"))
        code, out, err = cli("reload", "--state", live.state)
        assert code == 0, err
        assert "go on: modbus/enterprise-control" in out
        assert not client.write(2), "the new policy does not allow it"
        assert client.read()[0] == 3
        after = live.up.status()
        assert after["policy"]["hash"] != before["policy"]["hash"]
        assert [half["pid"] for half in after["pairs"][0]["halves"]] == [
            half["pid"] for half in before["pairs"][0]["halves"]
        ]
    live.up.stop()
    assert live.device.writes == [1]
    first, second = events(live.state, "policy-loaded")
    assert (first["policy"], second["previous"]) == (before["policy"]["hash"], before["policy"]["hash"])


def test_sessions_that_are_no_longer_allowed_end(live: Site) -> None:
    with Client(live.port) as client:
        client.read()
        live.policy.write_text(live.text().replace("addresses: [127.0.0.1]", "addresses: [127.0.0.9]"))
        assert cli("reload", "--state", live.state)[0] == 0
        assert client.ended()
    assert not served(live.port)
    live.up.stop()
    assert events(live.state, "session-closed")


def test_a_bad_policy_changes_nothing_and_says_why(live: Site) -> None:
    before = live.up.status()["policy"]
    bad = live.folder / "bad.yaml"
    bad.write_text(live.text().replace("zone: control", "zone: contrl"))
    with Client(live.port) as client:
        client.read()
        code, out, err = cli("reload", bad, "--state", live.state)
        assert (code, out) == (2, "")
        assert "bad.yaml:8:11:" in err and "contrl" in err and "did you mean control" in err
        assert "     8 |     zone: contrl" in err and "^^^^^^" in err, "as `check` shows it"
        assert client.write(5)
    assert live.up.status()["policy"] == before
    live.up.stop()
    (refused,) = events(live.state, "policy-refused")
    assert "contrl" in refused["problem"]


def test_a_missing_policy_file_changes_nothing(live: Site) -> None:
    code, _, err = cli("reload", live.folder / "none.yaml", "--state", live.state)
    assert code == 2 and "none.yaml" in err
    assert served(live.port)


def test_sighup_reads_the_policy_anew(live: Site) -> None:
    before = live.up.status()["policy"]["hash"]
    live.policy.write_text(live.text(allow="write: [level]"))
    live.up.process.send_signal(signal.SIGHUP)
    eventually(lambda: live.up.status()["policy"]["hash"] != before)
    live.policy.write_text("site: [")
    live.up.process.send_signal(signal.SIGHUP)
    eventually(lambda: "policy-refused" in live.up.said())
    assert served(live.port)


def test_a_new_device_gets_a_pair_of_its_own_and_leaves_with_its_listener(live: Site) -> None:
    other = Device()
    port = held_port()
    try:
        with Client(live.port) as client:
            client.read()
            two = {"plc": (live.device.port, live.port), "pump": (other.port, port)}
            live.policy.write_text(policy_text(two, management=live.management))
            code, out, _ = cli("reload", "--state", live.state)
            assert code == 0 and "are new: modbus/enterprise-control+2" in out
            with Client(port) as second:
                assert second.write(9)
            live.policy.write_text(live.text())
            code, out, _ = cli("reload", "--state", live.state)
            assert code == 0 and "ended: modbus/enterprise-control+2" in out
            assert client.write(3), "the first session never noticed"
        assert refused(port)
    finally:
        other.close()
    assert (live.device.writes, other.writes) == ([3], [9])


def test_an_asset_behind_a_known_device_starts_its_pair_anew(live: Site) -> None:
    port = held_port()
    two = {"plc": (live.device.port, live.port), "same-device": (live.device.port, port)}
    live.policy.write_text(policy_text(two, management=live.management))
    code, out, _ = cli("reload", "--state", live.state)
    assert code == 0 and "were started anew: modbus/enterprise-control" in out
    assert served(live.port) and served(port)
    assert len(live.up.status()["pairs"]) == 1
    # One of them goes: the pair stays, the listener is closed for good.
    live.policy.write_text(policy_text({"same-device": two["same-device"]}, management=live.management))
    code, out, _ = cli("reload", "--state", live.state)
    assert code == 0 and "go on: modbus/enterprise-control" in out
    assert refused(live.port) and served(port)
    live.up.stop()
    assert [event["expected"] for event in events(live.state, "half-died")] == [True] * 4


def refused(port: int) -> bool:
    """Nobody listens there (any more)."""

    def closed() -> bool:
        with socket.socket() as asker:
            return asker.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED

    eventually(closed)
    return True


def test_an_address_that_can_not_be_had_changes_nothing(live: Site) -> None:
    other = Device()
    free = held_port()
    before = live.up.status()["policy"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        three = {"plc": (live.device.port, live.port), "a": (other.port, free), "b": (other.port, port)}
        live.policy.write_text(policy_text(three, management=live.management))
        code, _, err = cli("reload", "--state", live.state)
    other.close()
    assert code == 2
    assert f"asset b: cannot listen on 127.0.0.1:{port}: the address is in use" in err and "ss -ltnp" in err
    assert refused(free), "what was opened on the way must be closed"
    assert served(live.port)
    assert live.up.status()["policy"] == before


def test_a_management_address_in_use_changes_nothing(live: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        live.policy.write_text(policy_text({"plc": (live.device.port, live.port)}, management=port))
        code, _, err = cli("reload", "--state", live.state)
    assert code == 2 and f"management address: cannot listen on 127.0.0.1:{port}" in err
    free = held_port()
    live.policy.write_text(policy_text({"plc": (live.device.port, live.port)}, management=free))
    assert cli("reload", "--state", live.state)[0] == 0
    assert refused(live.management)
    assert live.up.status()["management"] == f"127.0.0.1:{free}"


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [("site: riverside", "site: hillside", "hillside"), ("gate:", "gate:\n  require: namespaces", "namespaces")],
)
def test_what_a_running_gate_can_not_become(live: Site, old: str, new: str, word: str) -> None:
    live.policy.write_text(live.text().replace(old, new))
    code, _, err = cli("reload", "--state", live.state)
    assert code == 2 and word in err
    assert served(live.port)


def test_reload_and_deaths_do_not_get_in_each_others_way(live: Site) -> None:
    """Policies change while halves are being killed: in the end the last one is in force everywhere."""
    texts = [live.text(), live.text(allow="write: [level]")]
    for turn in range(10):
        live.policy.write_text(texts[turn % 2])
        victim = live.up.pids().get(("outer", "inner")[turn % 2])
        if victim is not None:
            kill(victim)
        code, _, err = cli("reload", "--state", live.state)
        assert code == 0, err
    live.up.wait_ready()
    status = live.up.status()
    wanted = status["policy"]["hash"]
    assert {half["policy"] for pair in status["pairs"] for half in pair["halves"]} == {wanted}


def test_the_policy_file_may_be_another_one_from_then_on(live: Site, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(live.text(allow="write: [level]"))
    assert cli("reload", other, "--state", live.state)[0] == 0
    assert live.up.status()["policy"]["path"] == str(other)
