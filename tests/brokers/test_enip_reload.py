"""EtherNet/IP under a policy that changes while connections to the asset are up: what is sent is what it says now."""

from __future__ import annotations

from typing import Any

import pytest

from cofferdam.brokers.proxy import records
from cofferdam.errors import CrossingError
from cofferdam.model import Fault, Item
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.protocols.enip import messages as m
from cofferdam.values import UInt8
from tests.brokers.stage import Stage
from tests.brokers.test_enip_forged import POLICY, EnipStage
from tests.policy.plant import NOW
from tests.protocols import enip as e
from tests.protocols.enip import rr, tag

DRIVE = Item("io", "drive")


def again(stage: Stage, *changes: tuple[str, str]) -> None:
    text = POLICY
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    policy = compile_policy(loads(text), now_ns=NOW)
    stage.inner.take_policy(policy, tuple(policy.assets))


def ask(stage: EnipStage, number: int, request: Any) -> Any:
    stage.inner.take(records.Request(1, number, request))
    stage.turn()
    return stage.to_outer.take()


def opened() -> EnipStage:
    """A client's session, with a connection to the device."""
    stage = EnipStage()
    stage.inner.take(records.Opened(1, "s", "127.0.0.1", "packer"))
    [answer] = ask(stage, 2, m.ReadTag(Item("tag", "level")))
    assert isinstance(answer, records.Reply) and len(stage.plant) == 1
    return stage


def test_an_attribute_that_a_new_policy_names_has_its_type_on_connections_that_are_up() -> None:
    stage = opened()
    again(
        stage,
        ("      serial: {", "      x: {at: cip 9/1/1, type: usint}\n      serial: {"),
        ("read: [pump, level, counts, serial]", "read: [pump, level, counts, serial, x]"),
    )  # fmt: skip
    stage.plant[0].machine.take_asset(stage.inner._served["packer"].asset)
    stage.plant[0]._answer = lambda request: m.Held(0, 0, UInt8((7,)))  # type: ignore[method-assign]
    [answer] = ask(stage, 3, m.GetAttribute(Item("cip", "9/1/1")))
    assert isinstance(answer, records.Reply) and answer.message == m.Held(0, 0, UInt8((7,)))
    assert len(stage.plant) == 1, "on the same connection"
    stage.inner.end()


def test_an_opening_names_the_assemblies_of_the_policy_in_force() -> None:
    stage = opened()
    again(stage, ("outputs 150 of 4 bytes", "outputs 160 of 4 bytes"))
    stage.plant[0].machine.take_asset(stage.inner._served["packer"].asset)
    [answer] = ask(stage, 3, m.OpenIo(DRIVE, 10_000, 10_000, 0, 1))
    assert isinstance(answer, records.Watched)
    assert stage.plant[0].asked[-1] == m.OpenIo(DRIVE, 10_000, 10_000, 0, 1), "the device knows these assemblies"
    stage.inner.end()


@pytest.mark.parametrize(
    ("form", "other"),
    [
        ("outputs 150 of 4 bytes", "outputs 160 of 4 bytes"),
        ("outputs 150 of 4 bytes", "outputs 150 of 8 bytes"),
        ('config 151"', 'config 151", config: "01 00"'),
        ('config 151"', 'config 151", multicast: derived'),
    ],
)
def test_an_open_stream_ends_when_the_policy_says_another_form(form: str, other: str) -> None:
    stage = opened()
    [answer] = ask(stage, 3, m.OpenIo(DRIVE, 10_000, 10_000, 0, 1))
    again(stage, ("min: 0, max: 99}", "min: 0, max: 98}"))
    assert not [one for one in stage.to_outer.take() if isinstance(one, records.Unwatched)], "its form is as it was"
    again(stage, (form, other))
    [over] = [one for one in stage.to_outer.take() if isinstance(one, records.Unwatched)]
    assert over.handle == answer.handle and over.fault is Fault.ASSET and "form of io drive" in over.detail
    stage.inner.take(records.Frame(answer.handle, m.IoData(True, True, b"\7\0\0\0")))
    stage.turn()
    assert stage.out == []
    stage.inner.end()


def test_a_request_that_cannot_cross_ends_its_own_session_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a machine makes of a client's bytes: the inner half would stop, with everybody's sessions."""
    stage = EnipStage()
    bad, good = stage.client("127.0.0.1"), stage.client("127.0.0.1", 40001)
    for client in (bad, good):
        client.arrive(e.REGISTER)

    def check(message: Any) -> None:
        if message == m.ReadTag(Item("tag", "pump.speed")):
            raise CrossingError("what no crossing carries")

    monkeypatch.setattr(stage.outer.protocol, "check", check)
    bad.arrive(rr(tag("pump.speed"), e.SESSION))
    good.arrive(rr(tag("level"), e.SESSION))
    sent = [one.message for one in stage.to_inner.take() if isinstance(one, records.Request)]
    assert sent == [m.ReadTag(Item("tag", "level"))]
    assert bad.closed and not good.closed
    stage.inner.end()


def closed(stage: EnipStage) -> bool:
    """Whether the connection to the device is."""
    return stage.plant[0].link.closed


def test_requests_without_an_answer_end_no_stream() -> None:
    """The drive ran on by its own packets, and an attribute that it would not tell three times stopped it."""
    stage = opened()
    [answer] = ask(stage, 3, m.OpenIo(DRIVE, 10_000, 10_000, 0, 1))
    stage.plant[0].link.on_data = lambda _: None
    for number in range(5):
        stage.inner.take(records.Request(1, 100 + number, m.ReadTag(Item("tag", "level"))))
        stage.reactor.advance(1.1)
    told = stage.to_outer.take()
    assert sum(isinstance(one, records.Failed) for one in told) == 5
    assert not [one for one in told if isinstance(one, records.Unwatched)] and not closed(stage)
    stage.reactor.advance(10)  # nor does the device say anything in it: that ends it, and with it the connection
    stage.inner.take(records.Request(1, 200, m.ReadTag(Item("tag", "level"))))
    stage.reactor.advance(1.1)
    [over] = [one for one in stage.to_outer.take() if isinstance(one, records.Unwatched)]
    assert over.handle == answer.handle and "nothing in time" in over.detail and closed(stage)
    stage.inner.end()


def test_two_that_ask_for_outputs_at_once_do_not_both_have_them() -> None:
    stage = opened()
    stage.inner.take(records.Opened(2, "t", "127.0.0.1", "packer"))
    opening = m.OpenIo(DRIVE, 10_000, 10_000, 0, 1)
    stage.inner.take(records.Request(1, 3, opening))
    stage.inner.take(records.Request(2, 4, opening))
    stage.turn()
    told = stage.to_outer.take()
    [mine] = [one for one in told if isinstance(one, records.Watched)]
    [theirs] = [one for one in told if isinstance(one, records.Reply)]
    assert theirs.message == m.CipError(1, (0x0106,)) and (mine.id, theirs.id) == (3, 4)
    # And one that comes later is not asked of the device at all.
    asked = len(stage.plant[0].asked)
    stage.inner.take(records.Request(2, 5, opening))
    stage.turn()
    [denied] = [one for one in stage.to_outer.take() if isinstance(one, records.Denied)]
    assert denied.fault is Fault.TAKEN and "127.0.0.1" in denied.detail and len(stage.plant[0].asked) == asked
    stage.inner.end()
