"""The demo's picture from what the processes say, and the verb's own commands."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from cofferdam.cli.main import main
from cofferdam.gate.state import Cut
from cofferdam.gate.watch import report
from cofferdam.gate.watch.drops import DroppedReport
from cofferdam.gate.watch.leaks import LeakProbeReport
from cofferdam.lab import demo, layout, play, plays
from cofferdam.lab.patch import gateway
from cofferdam.lab.water import events, picture, registers
from cofferdam.lab.water.play import Water
from cofferdam.policy.standing import Standing

PLANT = events.Plant(
    level=0.62, height=5.0, inflow=230.0, outflow=250.0, pressure=1.7, temperature=11.2, power=5.0, speed=0,
    set_speed=950, flow_total=123_456, tripped=True, low_alarm=True, high_alarm=False, discharge_open=True,
    clock=1_800_000_000.0,
)  # fmt: skip
SPREAD = report.Spread(10, 900.0, 2100.0, 3000.0, 4000.0)


def status() -> report.StatusReport:
    conduit = report.ConduitReport(
        name="erp-reads-flow", source="enterprise", target="control", broker="modbus", owner="o", severed=False,
        sessions=1, reads=77, writes=0, refused=3, failed=0, shared=0, added=SPREAD, waited=SPREAD, device=SPREAD,
        budget=2000, over_budget=True, recent=SPREAD, recent_over_budget=True,
        standing=Standing(True, 0, 0, "open", ""),
    )  # fmt: skip
    return report.StatusReport(
        version="0.1.0", site="riverside-water", pid=1, started_ns=0, now_ns=0,
        policy=report.PolicyReport("ab" * 32, "policy.yaml", 0), separation="processes", facts=(),
        severed=(Cut("it", 0, "someone"),), conduits=(conduit,), pairs=(), sessions=(), open={}, assets=(),
        audit=report.AuditReport(True, True, "", 4242, 4200, "key", 1, 0, 1.0, 2.0), limits={}, faults={"value": 3},
        malformed=5, unmatched=31, alarms=(), management="",
        leak_probe=LeakProbeReport(0, 0, False, "without namespaces there is no IT side to ask from"),
    )  # fmt: skip


def drawn(view: demo.View) -> str:
    console = Console(width=140, height=50, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    for page in view.pages(140, 50):
        console.print(page)
    console.file.close()
    return console.export_text()


def full_view() -> demo.View:
    view = demo.View("riverside-water", layout.Loopback(), (Water(),))
    view.note(PLANT)
    view.note(events.Write(6, "holding", 200, (950,), True))
    view.note(events.Experience("erp", "read tank_level", "ok", value=0.62, micros=1500))
    view.note(events.Experience("operator", "write pump_speed", "exception", exception=3, micros=900))
    view.note(events.Summary("intruder", "flood", {"exception 2": 991}))
    refused = {"kind": "refused", "source": "127.10.5.11", "fault": "value", "detail": "2400 is above the maximum"}
    view.note(demo.decode_entry(json.dumps({"event": refused}).encode()))
    return view


def test_an_empty_view_can_be_drawn() -> None:
    view = demo.View("riverside-water", layout.Loopback(), (Water(),))
    assert "starting" in drawn(view)
    assert "gate: -" in view.line()


def test_the_picture_shows_what_happened() -> None:
    view = full_view()
    # As it comes from the gate: through JSON.
    view.status = msgspec.json.decode(msgspec.json.encode(status()), type=report.StatusReport)
    text = drawn(view)
    for words in ("0.62 m", "TRIPPED", "LOW LEVEL", "1 reached it", "read tank_level 0.62: ok, 1.5 ms", "991",
                  "exception 03", "2400 is above the maximum", "erp-reads-flow", "77", "2.10 ms", "4242 entries",
                  "SEVERED: it", "31", "processes"):  # fmt: skip
        assert words in text, words
    assert "level 0.62 m" in view.line() and "4242" in view.line()


def everything() -> demo.View:
    view = demo.View("riverside-water", layout.Loopback(), plays.plays())
    one = status()
    view.status = msgspec.structs.replace(
        one, conduits=tuple(msgspec.structs.replace(one.conduits[0], name=f"conduit-{n}") for n in range(14))
    )
    refused = {"kind": "refused", "source": "127.10.5.11", "fault": "value", "detail": "2400 is above the maximum"}
    view.note(demo.decode_entry(json.dumps({"event": refused}).encode()))
    return view


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (200, 50), (200, 120)])
def test_all_of_it_can_be_seen_on_a_terminal_of_any_size(width: int, height: int) -> None:
    pages = everything().pages(width, height)
    console = Console(width=width, height=height, record=True, file=io.StringIO())
    for page in pages:
        console.print(page)
    text = console.export_text()
    lines = text.splitlines()
    assert len(lines) == len(pages) * height and max(map(len, lines)) <= width
    for words in ("filling line", "jump server", "firmware", "EtherNet/IP", "2400 is above the maximum", "limits hit"):
        assert words in text, words
    assert all(f"conduit-{n} " in text for n in range(14))
    assert "Layout(" not in text  # what the library draws where a room has nothing in it
    assert text.count("separation: processes") == len(pages) and text.count("q or Ctrl-C: end") == len(pages)
    assert (f"page 1 of {len(pages)}" in text) == (len(pages) > 1)
    assert len(pages) == 1 or height < 100


def test_the_one_whom_the_firewall_lets_in_is_seen_on_the_smallest_terminal() -> None:
    """Behind a firewall the intruder only knocks: refusals are seen of the insider, and dropped packets are counted."""
    addresses = msgspec.structs.replace(layout.SHIPPED, insider="127.10.5.66")
    water = picture.WaterPicture(addresses)
    water.note(events.Experience("insider", "writes: pump to top speed", "exception", exception=3, micros=900))
    water.note(events.Summary("insider", "flood", {"exception 3": 990}))
    view = full_view()
    view.pictures = [water]
    dropped = (DroppedReport("it", {"input": 36}, 0),)
    view.status = msgspec.structs.replace(status(), dropped=dropped)
    console = Console(width=80, height=24, record=True, file=io.StringIO())
    for page in view.pages(80, 24):
        console.print(page)
    text = console.export_text()
    assert "insider 127.10.5.66  991 exception 03" in text and "flood: 990 x exception 03" in text
    assert "dropped by the firewall: 36 packets" in text


def test_the_tank_is_drawn_as_full_as_it_is() -> None:
    def rows(level: float) -> int:
        view = full_view()
        view.note(msgspec.structs.replace(PLANT, level=level))
        return drawn(view).count("│" + "█" * 10)

    assert (rows(0.0), rows(2.5), rows(5.0)) == (0, 4, picture.TANK_ROWS)


def test_the_page_names_every_point_and_every_step() -> None:
    page = Path(__file__).parents[2].joinpath("docs", "demo.md").read_text(encoding="utf-8")
    missing = [field.name for field in registers.FIELDS if f"`{field.name}`" not in page]
    assert not missing
    tour = page.split("## The tour")[1].split("##")[0]
    played = [step for one in plays.plays() for step in (*one.steps, *one.closing)]
    left_out = not gateway.is_there()
    assert tour.count("\n| ") - 1 == len(played) + left_out  # one row for each, and the heading


def keyless(policy: str) -> str:
    """Without the keys that are made anew each time."""
    return re.sub(r"ssh-ed25519 \S+(?=\")|(?<=key: )[0-9a-f]{64}", "KEY", policy)


def test_policy_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "policy"]) == 0
    stage = plays.plays()
    shown = play.policy(stage, layout.shipped(plays.spots(stage)))[0]
    assert keyless(capsys.readouterr().out) == keyless(shown)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["erp", "--target", "nowhere"], "not ADDRESS:PORT"),
        (["plant", "--port", "70000"], "a port is"),
        (["plant", "--address", "192.0.2.1", "--port", "0"], "cannot listen"),
        (["demo", "--seconds", "-1"], "--seconds"),
        (["demo", "--play", "watter"], "did you mean water?"),
    ],
)
def test_bad_arguments_are_said(words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", *words]) == 2
    assert complaint in capsys.readouterr().err


def test_plant_and_erp_as_anyone_starts_them() -> None:
    lab = [sys.executable, "-m", "cofferdam.cli.main", "lab"]
    with subprocess.Popen([*lab, "plant", "--port", "0"], stdout=subprocess.PIPE) as plant:
        assert plant.stdout is not None
        first = events.parse(plant.stdout.readline())
        assert isinstance(first, events.Listening)
        target = f"{first.address}:{first.port}"
        with subprocess.Popen([*lab, "erp", "--target", target, "--pause", "0.05"], stdout=subprocess.PIPE) as erp:
            assert erp.stdout is not None
            got = events.parse(erp.stdout.readline())
            assert isinstance(got, events.Experience) and got.outcome == "ok"
            erp.terminate()
        plant.terminate()
        plant.stdout.read()
    assert plant.returncode == 0
