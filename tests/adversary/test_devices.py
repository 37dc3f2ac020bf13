"""The plant's side is watched as well: a device that breaks the protocol, answers late, sends what nobody asked for, or
says that it is another one, is an entry, a count of its asset, an alarm, and from a point on a closed connection."""

from __future__ import annotations

import itertools

from cofferdam.audit.events.access import DeviceTrouble, Malformed
from cofferdam.brokers.proxy.conduct import ALARM, MINUTE_NS, MOST
from tests.brokers.stage import Stage, Wire, adu, answer, read
from tests.brokers.test_adversary import compiled, connected

MINUTE = MINUTE_NS / 1e9


def figures(stage: Stage) -> dict[str, int]:
    found = stage.inner.figures()
    return {name: int(next(iter(found[name].values()))) for name in ("broken", "late", "unasked", "identities")}  # type: ignore[arg-type]


def ask(stage: Stage, client: Wire, device: Wire, number: int) -> bytes:
    """What reaches the device of a client's question."""
    client.on_data(read(number, 0, 1))
    stage.cross()
    [question] = device.take()
    return question


def counted(stage: Stage, kind: type[Malformed] | type[DeviceTrouble]) -> int:
    stage.inner._troubles.tell(0)
    return sum(one.count for one in stage.of(kind))


def test_every_answer_that_breaks_the_protocol_is_counted_and_told() -> None:
    stage = Stage()
    client = stage.client()
    device = connected(stage, client)
    for number in range(10, 10 + MOST):
        question = ask(stage, client, device, number)
        device.on_data(adu(int.from_bytes(question[:2], "big"), b"\x03\x04\0\0\0\0"))  # two registers for one
        stage.cross()
    assert figures(stage)["broken"] == MOST == counted(stage, Malformed)
    assert len(stage.of(Malformed)) == 2  # the first at once, the others together
    [alarm] = stage.inner.alarms().items()
    assert alarm[0] == "trouble-plc" and f"{MOST} answers that break the protocol" in alarm[1]
    before = device.closed
    question = ask(stage, client, device, 99)
    device.on_data(adu(int.from_bytes(question[:2], "big"), b"\x03\x04\0\0\0\0"))
    assert (before, device.closed) == (False, True)
    stage.reactor.advance(2 * MINUTE + 1)
    assert not stage.inner.alarms()


def test_a_device_that_floods_is_cut_off_for_longer_each_time() -> None:
    stage = Stage()
    client = stage.client()
    device = connected(stage, client)
    pauses = []
    for number in range(5):
        dials = len(stage.dials)
        device.on_data(b"".join(answer(read(7, 0, 1), 1) for _ in range(10_000)))
        assert device.closed
        waited = 0.0
        while len(stage.dials) == dials:
            client.on_data(read(100 + number, 0, 1))
            stage.cross()
            if len(stage.dials) == dials:
                client.take()
                stage.reactor.advance(0.05)
                waited += 0.05
        device = stage.up()
        device.on_data(answer(device.take()[0], 0))
        stage.cross()
        client.take()
        pauses.append(waited)
    assert pauses[0] == 0 and all(0 < one < other for one, other in itertools.pairwise(pauses[1:]))
    assert figures(stage)["unasked"] == 5 * (MOST + 1) == counted(stage, DeviceTrouble)
    assert "frames that nobody asked for" in stage.inner.alarms()["trouble-plc"]
    assert len(stage.of(DeviceTrouble)) < 10


def test_answers_that_come_late_are_told_and_raise_an_alarm() -> None:
    stage = Stage()
    client = stage.client()
    device = connected(stage, client)
    for number in range(ALARM + 1):
        question = ask(stage, client, device, 10 + number)
        stage.reactor.advance(1.1)
        device.on_data(answer(question, 5))
        device.on_data(answer(ask(stage, client, device, 100 + number), 5))
        stage.cross()
        assert not device.closed
    assert figures(stage)["late"] == ALARM + 1 == counted(stage, DeviceTrouble)
    assert {one.what for one in stage.of(DeviceTrouble)} == {"late"} and not figures(stage)["unasked"]
    assert "came too late" in stage.inner.alarms()["trouble-plc"]


def identified(number: bytes, vendor: bytes, revision: bytes) -> bytes:
    """Basic identification with three objects (6.21)."""
    objects = [(0, vendor), (1, b"P-1"), (2, revision)]
    body = b"".join(bytes([at, len(value)]) + value for at, value in objects)
    return adu(int.from_bytes(number[:2], "big"), b"\x2b\x0e\x01\x01\0\0\x03" + body)


def test_a_device_that_is_another_one_than_before_is_told() -> None:
    stage = Stage(policy=compiled(("read: all, write", "functions: '43/14', read: all, write")))
    client = stage.client()
    device = connected(stage, client)
    for number, (vendor, revision) in enumerate([(b"Acme", b"1.0"), (b"Acme", b"1.0"), (b"Acme\x1b", b"1.1")]):
        client.on_data(adu(20 + number, b"\x2b\x0e\x01\0"))
        stage.cross()
        [question] = device.take()
        device.on_data(identified(question, vendor, revision))
        stage.cross()
        [shown] = client.take()
        assert vendor.replace(b"\x1b", b"?") in shown and b"\x1b" not in shown, "L12"
        assert figures(stage)["identities"] == (number == 2)
    [told] = stage.of(DeviceTrouble)
    assert told.what == "identity" and "revision '1.0' is now '1.1'" in told.detail and "\x1b" not in told.detail
    assert "identity changed" in stage.inner.alarms()["trouble-plc"]


def test_a_device_that_is_known_to_answer_twice_is_left_alone() -> None:
    for quirk, closed in (("", True), ("quirks: answers_twice\n", False)):
        stage = Stage(asset_extra=quirk)
        client = stage.client()
        device = connected(stage, client)
        for number in range(MOST + 2):
            question = ask(stage, client, device, 10 + number)
            device.on_data(answer(question, 5) * 2)
            stage.cross()
            if device.closed:
                break
        assert device.closed is closed
        assert figures(stage)["unasked"] == (MOST + 1 if closed else 0)
        assert bool(stage.inner.alarms()) is closed
