"""Every draft that an honest part makes passes its own strict type, whatever legal policy and traffic there is; one
that does not costs that draft and nobody else."""

from __future__ import annotations

import string
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.audit import drafts
from cofferdam.audit.client import AuditClient
from cofferdam.audit.entry import DRAFTS, Draft
from cofferdam.audit.events.access import Refused, RefusedMany, SessionClosed, WriteAllowed
from cofferdam.audit.events.log import NotRecorded
from cofferdam.audit.records import Hello
from cofferdam.brokers.kit.budget import LogBudget
from cofferdam.brokers.kit.refusals import WRITES, RefusalLog
from cofferdam.model import Assign, Deny, Fault, Item, Operation
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.table import CompiledPolicy
from cofferdam.values import Text
from tests.brokers.stage import WALL, AuditPipe, ManualReactor, Stage, adu, read

POINTS = 60
_LETTERS = string.ascii_lowercase
_strict = msgspec.msgpack.Decoder(Draft).decode


def many_rules(letters: int = 0) -> CompiledPolicy:
    """Adjacent points, one rule for each, in one conduit; `letters`: how long names are made."""
    fill = "x" * letters
    lines = [
        "site: test", "zones: {enterprise: {side: it}, control: {side: ot}}", "assets:",
        f"  plc{fill}: {{zone: control, address: 127.0.0.1, port: 5020, protocol: modbus, unit: 1,"
        ' listen: "127.0.0.1:502", points: {',
        *(f"    p{n}{fill}: {{at: holding {n}, type: uint16, max: 100}}," for n in range(POINTS)),
        "  }}",
        "principals:", *(f"  who{n}{fill}: {{zone: enterprise, addresses: [127.0.0.0/8]}}" for n in range(20)),
        "conduits:", f"  setpoints{fill}:",
        "    {from: enterprise, to: control, broker: modbus, owner: tests, reason: tests, allow: [",
        *(f"      {{who: who{n % 20}{fill}, asset: plc{fill}, write: [p{n}{fill}]}}," for n in range(POINTS)),
        "    ]}", "limits: {client_requests_burst: 4000}",
    ]  # fmt: skip
    return compile_policy(loads("\n".join(lines)), now_ns=WALL)


def write_many(transaction: int, values: list[int]) -> bytes:
    body = b"\x10\0\0" + len(values).to_bytes(2, "big") + bytes([2 * len(values)])
    return adu(transaction, body + b"".join(value.to_bytes(2, "big") for value in values))


@pytest.mark.parametrize("letters", [0, 52])
def test_a_refused_write_over_many_rules_is_one_entry(letters: int) -> None:
    """H1: the names of 60 rules do not fit in an entry."""
    stage = Stage(policy=many_rules(letters))
    client = stage.client()
    client.on_data(write_many(1, [0] * (POINTS - 1) + [101]))
    stage.cross()
    assert client.take()[0][7:9] == b"\x90\x03"
    [refused] = stage.of(Refused)
    assert refused.is_write and refused.fault == "value" and refused.values[-1] == 101
    assert stage.of(NotRecorded) == []


def test_an_allowed_write_over_many_rules_is_recorded_and_done() -> None:
    stage = Stage(policy=many_rules(52))
    client = stage.client()
    client.on_data(write_many(1, [1] * POINTS))
    stage.cross()
    device = stage.up()
    assert [frame[7] for frame in device.take()] == [16]
    assert len(stage.of(WriteAllowed)) == 1


def texts(kind: type[Any]) -> list[str]:
    return [field.name for field in msgspec.structs.fields(kind) if "str" in str(field.type)]


def audit() -> tuple[ManualReactor, AuditPipe, AuditClient]:
    reactor, pipe = ManualReactor(), AuditPipe()
    client = AuditClient(reactor, pipe, wait_seconds=1)
    client.on_record(Hello(True))
    return reactor, pipe, client


@given(st.text(max_size=700), st.integers(-5, 1 << 70), st.text(_LETTERS, max_size=200))
def test_a_draft_that_does_not_fit_costs_that_draft(reason: str, count: int, session: str) -> None:
    reactor, pipe, client = audit()
    good = SessionClosed(session="good", reason="closed")
    client.note(good)
    client.note(SessionClosed(session=session, reason=reason, requests=count))
    client.note(good)
    reactor.settle()
    kept = [draft for draft in pipe.drafts if isinstance(draft, SessionClosed)]
    assert kept.count(good) >= 2
    fits = 0 <= count < 1 << 53
    whole = fits and len(reason) <= 512 and len(session) <= 128
    lost = [draft for draft in pipe.drafts if isinstance(draft, NotRecorded)]
    assert len(kept) == (3 if fits else 2)
    assert [entry.count for entry in lost] == ([] if whole else [0 if fits else 1])


def test_a_write_whose_entry_does_not_fit_is_not_recorded_and_says_why() -> None:
    reactor, pipe, client = audit()
    said: list[tuple[bool, str]] = []
    draft = WriteAllowed(
        session="s", write="w", principals=(), source="", asset="a", conduit="c", rule="r", function=1 << 40
    )
    client.record(draft, lambda ok, why: said.append((ok, why)))
    reactor.settle()
    [(ok, why)] = said
    assert not ok and "does not fit" in why and pipe.unanswered == []
    assert [entry.count for entry in pipe.drafts if isinstance(entry, NotRecorded)] == [1]


@given(st.data())
def test_what_is_cut_is_valid_and_says_the_same_otherwise(data: st.DataObject) -> None:
    """Of every kind of draft, with every text too long: cut, it passes, and no number has changed."""
    kind = data.draw(st.sampled_from([one for one in DRAFTS if one is not NotRecorded]))
    made: Any = data.draw(st.from_type(kind))
    for name in texts(kind):
        if isinstance(getattr(made, name), str):
            made = msgspec.structs.replace(made, **{name: getattr(made, name) + "é" * 6000})
    fit, encoded, why = drafts.fitting(made)
    if fit is None:
        assert why
        return
    assert _strict(encoded) == fit
    for field in msgspec.structs.fields(kind):
        if isinstance(getattr(made, field.name), int):
            assert getattr(fit, field.name) == getattr(made, field.name)
    _strict(msgspec.msgpack.encode(drafts.told(made, why or "x", kept=True)))


def test_the_outer_half_goes_on_for_everybody_else() -> None:
    stage = Stage(policy=many_rules(52))
    victim, other = stage.client(port=1), stage.client(port=2)
    for number in range(3):
        victim.on_data(write_many(number + 1, [0] * (POINTS - 1) + [101]))
    stage.cross()
    other.on_data(read(1, 0, 1))
    stage.cross()
    assert other.take() and not other.closed and not victim.closed


@pytest.mark.parametrize("at_once", [1, 20])
def test_a_refused_write_of_more_than_an_entry_holds_hides_nobody(at_once: int) -> None:
    """Twenty texts of 4 KiB, in one write or one after the other: the entry said that one was left out, and neither
    whose, nor where to, nor how many had been counted together with them."""
    reactor, pipe, client = audit()
    budget = LogBudget(client)
    texts = [Assign(Item("tag", f"t{number}" + "\x01" * 500), Text(("\x01" * 4096,))) for number in range(20)]
    log = RefusalLog(client, budget, "s", "10.0.0.9", False, "plc")
    log._used[1] = WRITES if at_once == 1 else 0  # counted, or by itself
    log._began = WALL
    for first in range(0, 20, at_once):
        write = Operation(function=1, sub=0, unit=1, is_write=True, writes=tuple(texts[first : first + at_once]))
        log.add(Deny("road", "", Fault.VALUE, ""), write, Deny("", "", Fault.VALUE, ""), WALL)
    budget.tell(WALL)
    reactor.settle()
    [told] = [one for one in pipe.drafts if isinstance(one, Refused | RefusedMany)]
    assert (told.source, told.asset, getattr(told, "count", 20)) == ("10.0.0.9", "plc", 20)
    assert len(told.items) == 16 and told.items[0].item.startswith("tag t0")
    [lost] = [one for one in pipe.drafts if isinstance(one, NotRecorded)]
    assert lost.count == 0 and "was cut" in lost.reason
