"""Figures at the gate: held to what is declared, summed over lives, shown without code for the broker."""

from __future__ import annotations

import asyncio
import io
import os
from dataclasses import replace
from typing import Any

import pytest

from cofferdam.brokers.broker import Broker
from cofferdam.brokers.kit.figures import Distribution, Metric, Reported, counter, gauge, histogram
from cofferdam.brokers.kit.supervision import FromPart, PartStatus
from cofferdam.brokers.registry import BROKERS
from cofferdam.cli.status import render
from cofferdam.crossing.framing import pack
from cofferdam.crossing.loops import LoopReactor
from cofferdam.crossing.pipe import make_pipe
from cofferdam.crossing.records import RecordCodec
from cofferdam.enforce.orders import Child
from cofferdam.gate.crew.launcher import Born
from cofferdam.gate.crew.part import Part
from cofferdam.gate.watch.metrics import default_name, of_figure
from cofferdam.gate.watch.totals import LABELS, OTHERS, WORDS, Totals
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from tests.waiting import PATIENT

CODEC: RecordCodec[FromPart] = RecordCodec(FromPart)
MODBUS = BROKERS["modbus"]
TOY = replace(
    MODBUS,
    name="toy",
    alarms=frozenset(),
    figures={
        "outer": (
            counter("messages", "messages that were taken", by="channel"),
            counter("refused_messages", "messages that were refused", by="channel"),
            counter("quarantined_messages", "messages that wait for a person", by="channel"),
            gauge("oldest", "the oldest message that waits", by="channel", unit="time"),
            gauge("spool", "what waits on the disk", unit="bytes"),
            histogram("kept", "from coming to going", by="channel"),
        )
    },
)


ROAD = compile_policy(
    loads(
        "site: s\nzones: {it: {side: it}, ot: {side: ot}}\nprincipals: {p: {zone: it, addresses: [10.0.0.1]}}\n"
        "assets: {plc: {zone: ot, address: 10.1.0.1, protocol: modbus, unit: 1, listen: '10.0.0.2:502'}}\n"
        "conduits: {road: {from: it, to: ot, broker: modbus, owner: o, reason: r, "
        "allow: [{who: p, asset: plc, registers: [holding 1]}]}}\n"
    ),
    now_ns=0,
)


def status(part: str = "outer", figures: Reported | None = None, **more: Any) -> PartStatus:
    return PartStatus(crew="toy/it-ot", part=part, policy="", severed=(), figures=figures or {}, **more)


def heard_from(part: Any, record: PartStatus, broker: Broker = MODBUS) -> tuple[PartStatus | None, list[str]]:
    """What the gate keeps of a report that comes from a part, and what it says of the part."""

    async def play() -> tuple[PartStatus | None, list[str]]:
        reactor = LoopReactor(asyncio.get_running_loop())
        from_part, to_gate = make_pipe()
        from_gate, to_part = make_pipe()
        ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        said: list[str] = []

        def violated(_part: Part, detail: str) -> None:
            said.append(detail)
            ended.set_result(1)

        born = Born(Child(1, part, 1), from_part, to_part, ended)
        half = Part(reactor, f"toy/it-ot/{part}", born, violated, broker)
        half.works_by(ROAD)
        for packet in pack([CODEC.encode(record)]):
            os.write(to_gate, packet)
        await half.until(lambda: bool(said or half.status), PATIENT)
        half.forget()
        reactor.close()
        os.close(to_gate)
        os.close(from_gate)
        return half.status, said

    return asyncio.run(play())


def test_what_a_part_may_report_is_kept() -> None:
    record = status(figures={"reads": {"road": 3}, "added": {"road": Distribution({10: 3}, 30, 10)}})
    assert heard_from("outer", record) == (record, [])


@pytest.mark.parametrize(
    ("part", "figures"),
    [
        ("outer", {"invented": {"": 1}}),
        ("inner", {"reads": {"road": 1}}),  # for the outer half to say
        ("outer", {"reads": {"road": Distribution({}, 0, 0)}}),
        ("outer", {"added": {"road": Distribution({1 << 40: 1}, 0, 0)}}),
        ("outer", {"reads": {"road\x1b[2J": 1}}),
    ],
)
def test_a_report_beyond_what_is_declared_is_a_violation(part: str, figures: Reported) -> None:
    kept, said = heard_from(part, status(part, figures))
    assert kept is None and len(said) == 1 and "figure" in said[0]


def test_counters_go_on_over_lives_and_gauges_do_not() -> None:
    ended, lives = Totals(), Totals()
    then: Reported = {"messages": {"orders": 5}, "spool": {"": 7}, "kept": {"orders": Distribution({3: 2}, 6, 3)}}
    ended.add(TOY, "outer", status(figures=then), lives=False)
    lives.merge(ended)
    now: Reported = {"messages": {"orders": 1}, "spool": {"": 9}, "kept": {"orders": Distribution({3: 1}, 3, 3)}}
    lives.add(TOY, "outer", status(figures=now), lives=True)
    assert ended.counts("toy", "spool") == {}
    assert (lives.counts("toy", "messages"), lives.counts("toy", "spool")) == ({"orders": 6}, {"": 9})
    assert lives.durations("toy", "kept")["orders"].count == 3
    assert [label for label, _ in lives.all_durations("kept")] == ["orders"]


def test_a_part_that_names_other_labels_in_each_life_fills_no_memory() -> None:
    totals = Totals()
    for life in range(3):
        names = [f"{life}-{number}" for number in range(LABELS)]
        totals.add(TOY, "outer", status(figures={"messages": dict.fromkeys(names, 1)}), lives=False)
        totals.add(TOY, "outer", status(limits={name: 1 for name in names[:WORDS]}), lives=False)
    counted = totals.counts("toy", "messages")
    assert len(counted) == LABELS + 1 and counted[OTHERS] == 2 * LABELS
    assert len(totals.limits.values) == WORDS + 1


def test_refusals_are_told_by_the_part_that_faces_clients() -> None:
    """The inner half decides again, and its refusals come back through the outer one: they are not counted twice."""
    totals = Totals()
    for part in ("outer", "inner"):
        totals.add(MODBUS, part, status(part, faults={"who": 2}, malformed=1, limits={"x": 1}), lives=True)
    assert (totals.faults.values, totals.malformed, totals.limits.values) == ({"who": 2}, 1, {"x": 2})


def test_a_figure_has_a_name_as_prometheus_gives_them() -> None:
    names = [default_name("toy", figure) for figure in TOY.figures["outer"]]
    assert names[0] == "cofferdam_toy_messages_total"
    assert names[3:] == ["cofferdam_toy_oldest_seconds", "cofferdam_toy_spool_bytes", "cofferdam_toy_kept_seconds"]
    named = counter("reads", "reads", by="conduit", metric=Metric("x_total", {"kind": "read"}, "requests"))
    assert of_figure(TOY, named) == ("x_total", ("counter", "requests", ("conduit", "kind")))


def test_every_metric_is_one_kind_with_one_set_of_labels() -> None:
    found: dict[str, object] = {}
    for broker in BROKERS.values():
        names: dict[str, object] = {}
        for figure in (figure for figures in broker.figures.values() for figure in figures):
            assert names.setdefault(figure.name, figure) == figure, "two parts mean different things by one name"
            name, described = of_figure(broker, figure)
            assert found.setdefault(name, described) == described
            assert figure.meaning and not figure.meaning.endswith("."), figure


def test_a_broker_that_this_code_never_heard_of_is_shown_at_80_columns() -> None:
    from rich.console import Console

    spread = {"count": 3, "median": 1500.0, "p99": 2500.0, "p999": 2500.0, "max": 2500.0}
    channels = ["orders", "a-channel-with-a-long-name"]
    values: dict[str, dict[str, Any]] = {
        "messages": dict.fromkeys(channels, 1_234_567),
        "refused_messages": {"orders": 1},
        "quarantined_messages": {},
        "oldest": {"orders": 10**18 - 300 * 10**9},
        "spool": {"": 5 << 20},
        "kept": {"orders": spread},
    }
    figures = [
        {"broker": "toy", "name": f.name, "kind": f.kind, "unit": f.unit, "by": f.by, "meaning": f.meaning,
         "values": values[f.name]}
        for f in TOY.figures["outer"]
    ]  # fmt: skip
    shown: dict[str, Any] = {
        "site": "works", "now_ns": 10**18, "started_ns": 10**18, "severed": [], "alarms": [], "conduits": [],
        "policy": {"hash": "ab" * 32, "loaded_ns": 10**18, "path": "p.yaml"}, "recent_seconds": 300, "pairs": [],
        "assets": [], "sessions": [], "unmatched": 0, "limits": {}, "malformed": 0, "dropped": [], "management": "",
        "facts": [], "separation": "processes", "figures": figures, "strangers": [], "wires": [],
        "closures": [], "grants": [],
        "ok": True, "verdict": "ok", "way_out": "",
        "audit": {"writable": True, "size": 1, "signed": 1, "commit_mean": 1, "commit_max": 1},
    }  # fmt: skip
    console = Console(width=80, record=True, markup=False, file=io.StringIO())
    console.print(render(shown))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    for expected in ("toy: spool 5.0 MiB", "toy by channel", "a-channel-with-a-long-name", "1,234,567", "5 min ago"):
        assert expected in text, expected
    assert "quarantined messages" in text and "Durations of toy" in text and "1.5" in text


@pytest.mark.parametrize("width", [80, 200])
def test_no_number_of_a_wide_table_is_broken(width: int) -> None:
    from rich.console import Console, Group

    from cofferdam.cli.status import _latency

    spread = {"count": 1_234_567, "median": 1_111_111.0, "p99": 2_222_222.0, "p999": 3_333_333.0, "max": 4_444_444.0}
    conduits = [
        {"name": name, "broker": "modbus", "budget": 5_000_000, "recent": spread, "added": spread, "waited": spread,
         "packets": {"count": 0}, "device": spread, "recent_over_budget": True, "over_budget": True}
        for name in ("mes-reads-the-filling-line", "scada")
    ]  # fmt: skip
    status = {"figures": [{"broker": "modbus", "name": "added"}], "conduits": conduits, "recent_seconds": 300,
              "now_ns": 10**12, "started_ns": 0}  # fmt: skip
    console = Console(width=width, record=True, markup=False, file=io.StringIO())
    console.print(Group(*_latency(status, width)))
    text = console.export_text()
    words = ("1,234,567", "1,111,111", "2,222,222", "3,333,333", "4,444,444", "5,000,000 OVER", "5 min", "16 min")
    assert all(text.count(word) >= 4 for word in words[:-2]) and all(text.count(word) == 2 for word in words[-2:]), text
    assert text.count("mes-reads-the-filling-line") == 2 and max(map(len, text.splitlines())) <= width


def test_an_alarm_of_a_part_that_raises_none_ends_it() -> None:
    record = status("inner", alarms={"everything": "is on fire"})
    kept, said = heard_from("inner", record, replace(MODBUS, alarms=frozenset()))
    assert kept is None and "raises an alarm" in said[0]
    assert heard_from("outer", record, replace(MODBUS, alarms=frozenset({"outer"}))) == (record, [])
