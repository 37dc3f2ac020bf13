"""Layouts: the policy carries their addresses, commands run where they should, nothing stays behind."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import pytest
import yaml

from cofferdam.enforce import kernel
from cofferdam.errors import CofferdamError
from cofferdam.lab import layout, play, plays, scene
from tests.waiting import eventually


def test_a_policy_carries_the_layouts_addresses() -> None:
    ends = (layout.GateEnd("it0", "10.1.0.1/16"), layout.GateEnd("ot0", "10.20.0.1/16"))
    addresses = msgspec.structs.replace(
        layout.SHIPPED, erp="10.1.0.20", operators="10.1.5.0/24", device="10.20.0.17", device_port=502,
        listen="100.64.7.17", listen_port=503, management_port=9999, ends=ends,
    )  # fmt: skip
    stage = plays.plays()
    addresses = msgspec.structs.replace(addresses, spots=layout.shipped(plays.spots(stage)).spots)
    policy = yaml.safe_load(play.policy(stage, addresses)[0])
    asset = policy["assets"]["plc-7"]
    assert (asset["address"], asset["port"], asset["listen"]) == ("10.20.0.17", 502, "100.64.7.17:503")
    assert policy["principals"]["erp"]["addresses"] == ["10.1.0.20"]
    assert policy["principals"]["operators"]["addresses"] == ["10.1.5.0/24"]
    assert policy["zones"]["enterprise"]["interface"] == "it0"
    assert policy["zones"]["control"]["interface"] == "ot0"
    assert policy["zones"]["control"]["addresses"] == ["10.20.0.1/16"]
    assert policy["gate"]["management"] == "127.0.0.1:9999"


def test_two_loopback_labs_do_not_share_a_port() -> None:
    with layout.Loopback() as one:
        place = (one.addresses.listen, one.addresses.listen_port)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(place)
        with socket.create_server(place), layout.Loopback() as two:  # its own gate may, and it stays held
            assert two.addresses.listen_port != one.addresses.listen_port
        assert one.run_in("plant", ["true"]) == ["true"]
        assert not one.separated


def test_an_address_that_is_not_ours_is_said() -> None:
    with pytest.raises(CofferdamError, match=r"192\.0\.2\.1"):
        layout.Port("192.0.2.1")


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="making network namespaces needs root")

SPOTS = (
    layout.Spot("a-server", "plant", 22), layout.Spot("a-client", "office"), layout.Spot("a-door", "gate-office", 8022),
    layout.Spot("an-asset", "overlay", 4840),
)  # fmt: skip


def test_a_plays_own_places() -> None:
    shipped = layout.shipped(SPOTS)
    assert shipped.at("a-server") == "127.20.1.10:15100" and shipped.at("a-client") == "127.10.2.11:0"
    with layout.Loopback(SPOTS) as lab:
        where = lab.addresses
        assert where.host("a-door") == where.gate_it and where.host("an-asset") == "127.64.9.13"
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind((where.host("a-server"), where.port("a-server")))


@pytest.mark.netns
@needs_root
def test_a_plays_own_places_are_hosts_of_their_side() -> None:
    with layout.Namespaces(SPOTS) as lab:
        where = lab.addresses
        assert where.at("a-server") == "10.20.1.10:22" and where.at("an-asset") == "100.64.9.13:4840"
        argv = lab.run_in("plant", ["ip", "-br", "addr"])
        assert where.host("a-server") in subprocess.run(argv, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(os.geteuid() == 0, reason="the refusal is for those without root")
def test_namespaces_without_root_are_refused() -> None:
    with pytest.raises(CofferdamError, match="root"):
        layout.Namespaces()


def namespaces() -> set[str]:
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return {line.split()[0] for line in listed.splitlines() if line}


def links() -> str:
    return subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout


@pytest.mark.netns
@needs_root
def test_namespace_hosts_see_their_own_side_only() -> None:
    with layout.Namespaces() as lab:
        names = {lab.office, lab.plant}
        assert names <= namespaces()
        assert lab.it_interface in links() and lab.ot_interface in links()

        def shown(host: layout.Host) -> str:
            argv = lab.run_in(host, ["ip", "-br", "addr"])
            return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

        assert lab.addresses.erp in shown("office") and lab.addresses.device not in shown("office")
        assert lab.addresses.device in shown("plant") and lab.addresses.erp not in shown("plant")
        # The office has no road to the device's real address: only the gate could give it one.
        route = subprocess.run(
            lab.run_in("office", ["ip", "route", "get", lab.addresses.device]), capture_output=True, check=False
        )
        assert route.returncode != 0
    assert not names & namespaces()
    eventually(lambda: lab.it_interface not in links())  # with its other end, as soon as the kernel has the time


@pytest.mark.netns
@needs_root
def test_what_a_killed_lab_left_is_cleaned() -> None:
    script = "from cofferdam.lab import layout; import os; layout.Namespaces().__enter__(); os.kill(os.getpid(), 9)"
    killed = subprocess.Popen([sys.executable, "-c", script])
    killed.wait()
    left = [name for name in namespaces() if name.startswith(f"{layout.PREFIX}{killed.pid}-")]
    assert len(left) == 2
    with layout.Namespaces() as living:  # entering cleans too, but never a lab that lives
        assert not set(left) & namespaces()
        assert layout.clean() == []
        assert {living.office, living.plant} <= namespaces()


@needs_root
def test_a_disk_that_a_killed_lab_left_goes_with_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.Popen(["true"])
    ended.wait()
    store = tmp_path / f"{scene.FOLDER}{ended.pid}-x" / "state" / "a%2Fb"
    store.mkdir(parents=True)
    kernel.mount("tmpfs", str(store), "tmpfs", 0, "size=64k")
    (store / "file").touch()
    try:
        assert scene.clean() == [store.parents[1]]
        assert not any(tmp_path.iterdir())
    finally:
        with contextlib.suppress(OSError):
            kernel.umount(str(store))


@pytest.mark.netns
@needs_root
def test_a_failed_set_up_leaves_nothing() -> None:
    before = namespaces()
    lab = layout.Namespaces()
    lab.addresses = msgspec.structs.replace(lab.addresses, device="not-an-address")
    with pytest.raises(CofferdamError, match="not-an-address"), lab:
        pass
    assert namespaces() == before
