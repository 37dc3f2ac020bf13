"""An ICMP echo as a health check: what counts as its answer, what an asset that gives none is told as, and whom the
kernel lets ask."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from cofferdam.brokers.patch import echo, health
from cofferdam.enforce import kernel
from cofferdam.enforce.isolation import PlainIsolation
from cofferdam.enforce.netns import set_switches, unset_switches
from cofferdam.enforce.plans.network import network_plan
from cofferdam.errors import GateError
from cofferdam.policy.terms.patch_rows import Health, PatchRows, Way
from tests.brokers.patch.test_ring_words import POLICY
from tests.brokers.patch.test_source_words import compiled
from tests.enforce.site import at, ip

RANGE = Path("/proc/sys") / kernel.PINGING
IGNORES = Path("/proc/sys/net/ipv4/icmp_echo_ignore_all")
PINGED = POLICY.replace("health: {point: pressure}", "health: {ping: true}")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


@pytest.fixture
def allowed() -> Iterator[None]:
    """In the namespace of the tests, their group may ask; and after it nobody, as before."""
    before = RANGE.read_text()
    RANGE.write_text("0 0")
    yield
    RANGE.write_text(before)
    IGNORES.write_text("0")


@pytest.fixture
def own() -> Iterator[None]:
    """A namespace of the test's own, in which no switch is set."""
    name = f"cdt{os.getpid()}-echo"
    ip("netns", "add", name)
    try:
        with at(name):
            yield
    finally:
        ip("netns", "del", name)


def check(address: str = "127.0.0.1") -> str:
    return asyncio.run(health.check(Health(ping=True, within=0), Way(asset="a", address=address), "", "1", {}))


@pytest.mark.netns
@as_root
@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_an_asset_that_answers_is_well(address: str) -> None:
    assert check(address) == ""


@pytest.mark.netns
@as_root
@pytest.mark.usefixtures("allowed")
def test_an_asset_that_does_not_answer_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "TRY_SECONDS", 0.1)
    IGNORES.write_text("1")
    assert check() == "the asset does not answer"
    assert "the asset: " in check("192.0.2.1")  # no way leads there


@pytest.mark.parametrize(
    ("kind", "code", "identifier", "number", "payload", "answers"),
    [
        (0, 0, 7, 9, b"text", True),
        (8, 0, 7, 9, b"text", False),
        (0, 1, 7, 9, b"text", False),
        (0, 0, 8, 9, b"text", False),
        (0, 0, 7, 8, b"text", False),
        (0, 0, 7, 9, b"tex", False),
        (0, 0, 7, 9, b"texts", False),
    ],
)
def test_an_answer_has_identifier_number_and_content_of_the_question(
    kind: int, code: int, identifier: int, number: int, payload: bytes, answers: bool
) -> None:
    data = struct.pack(">BBHHH", kind, code, 0xBEEF, identifier, number) + payload
    assert echo.is_answer(data, 0, 7, 9, b"text") is answers
    assert not echo.is_answer(data[:7], 0, 7, 9, b"text")


def test_the_installer_alone_may_ask_and_that_asset_alone(tmp_path: Path) -> None:
    policy = compiled(tmp_path, PINGED)
    terms = policy.conduits["firmware"].terms
    assert isinstance(terms, PatchRows)
    assert terms.installs[0].health == Health(ping=True)
    it, ot = network_plan(policy).sides
    assert not it.pings
    assert [(ping.conduit, ping.zone, ping.addresses, ping.part) for ping in ot.pings] == [
        ("firmware", "plant", ("10.0.0.1",), "installer")
    ]
    it, ot = network_plan(compiled(tmp_path, POLICY)).sides
    assert not it.pings and not ot.pings


@pytest.mark.netns
@as_root
def test_a_gate_does_not_start_where_the_kernel_gives_no_such_socket(tmp_path: Path) -> None:
    """Not when the asset has its new file already."""
    plan = network_plan(compiled(tmp_path, PINGED))
    with pytest.raises(GateError, match="gives the group 0") as refused:
        PlainIsolation().prepare(plan)
    assert "ping_group_range='0 0'" in refused.value.hint
    PlainIsolation().prepare(network_plan(compiled(tmp_path, POLICY)))


@pytest.mark.netns
@as_root
@pytest.mark.usefixtures("allowed")
def test_a_gate_starts_where_the_kernel_gives_one(tmp_path: Path) -> None:
    PlainIsolation().prepare(network_plan(compiled(tmp_path, PINGED)))


@pytest.mark.netns
@as_root
@pytest.mark.usefixtures("own")
def test_a_namespace_lets_its_parts_ask_and_nobody_else() -> None:
    groups = [64007, 64005]

    def told() -> list[str]:
        return [one for one in unset_switches(ipv6=True, pinging=groups) if kernel.PINGING in one]

    assert told() == [f"{kernel.PINGING} is 1\t0, not 64005\t64007"]
    set_switches(True, groups)
    assert told() == [] and RANGE.read_text().split() == ["64005", "64007"]
    assert kernel.may_not_ping([64004, 64006]) == [64004]
    assert "the kernel gives us no ICMP socket" in check()  # the tests' group is none of them
    set_switches(True)
    assert RANGE.read_text().split() == ["1", "0"]
