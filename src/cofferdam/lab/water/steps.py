"""The steps of the tour: one function for each promise, in the order of `STEPS`.

A step tries something through the actors, then asks the witnesses: the actor, the plant's own log, the gate's verbs.
Its first docstring line is its title. Tests may play any step alone on a `Cast`.

Not here: how steps are run and shown (lab.tour), what the actors can do (lab.actors, lab.intruder).
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import statistics
from pathlib import Path

import msgspec

from cofferdam.errors import CofferdamError
from cofferdam.lab.play import Finding, Step
from cofferdam.lab.scene import Answer, in_the_end
from cofferdam.lab.sockets import descends_from, everywhere, owners_of
from cofferdam.lab.water import events, registers
from cofferdam.lab.water.cast import Cast, start_actor

GONE_SECONDS = 20.0  # until a connection that was closed is nobody's, on a busy machine
MODBUS_PROBLEM = {1: "illegal function", 2: "illegal address", 3: "illegal value", 4: "device failure", 6: "busy",
                  10: "path unavailable", 11: "target did not respond"}  # fmt: skip


def say(experience: events.Experience) -> str:
    """An experience in words."""
    if experience.outcome == "exception":
        return f"exception {experience.exception:02d} ({MODBUS_PROBLEM.get(experience.exception, 'unknown')})"
    if experience.value is not None:
        return f"{experience.outcome}, {experience.value:g}"
    return f"{experience.outcome} {experience.detail}".strip()


def count(counts: dict[str, int]) -> str:
    """Counts of outcomes in words."""
    return ", ".join(f"{number} x {kind}" for kind, number in sorted(counts.items())) or "nothing"


def writes_of(seen: list[events.Event]) -> list[tuple[str, int, tuple[int, ...]]]:
    """The writes among what the plant saw."""
    return [(event.space, event.address, event.values) for event in seen if isinstance(event, events.Write)]


def summary_of(told: list[events.Event]) -> events.Summary:
    """The summary among what an actor said."""
    for event in told:
        if isinstance(event, events.Summary):
            return event
    raise CofferdamError("the actor gave no summary")


async def brokered_read(tour: Cast) -> list[Finding]:
    """A read is brokered: the ERP gets the plant's value, the plant meets nobody but the gate"""
    findings = []
    for point in ("flow_total", "tank_level"):
        mark = await tour.settle()
        got = await tour.read(tour.erp, point)
        seen = [event for event in await tour.plant_since(mark) if isinstance(event, events.Request)]
        field = registers.BY_NAME[point]
        mine = [event for event in seen if event.address == field.start and event.exception == 0]
        same = len(mine) == 1 and mine[0].values == got.values
        said = f"the plant answered {mine[0].values}" if mine else "the plant was not asked"
        findings.append(
            Finding(
                f"the ERP reads {point} at {tour.addresses.listen}:{tour.addresses.listen_port}",
                "the very cells that the plant answered with, asked for once",
                f"{say(got)}; cells {got.values}; {said}, asked {len(mine)} times",
                got.outcome == "ok" and same,
            )
        )
    findings.append(await only_the_gate(tour))
    return findings


async def only_the_gate(tour: Cast) -> Finding:
    """Who is connected to the plant, by the plant's own word and by the kernel's. A connection whose other end was
    closed just now is nobody's until the plant has read that."""
    return await in_the_end(lambda: _connected(tour), lambda finding: finding.ok, GONE_SECONDS)


async def _connected(tour: Cast) -> Finding:
    await tour.settle()
    a = tour.addresses
    opened = [e for e in tour.plant.seen if isinstance(e, events.Connection)]
    peers = {event.peer for event in opened}
    office = peers & {a.erp, a.operator, a.intruder}
    tried = "ask the plant who ever connected to it"
    expected = "the gate only, none of the office's addresses"
    seen = f"connections from {', '.join(sorted(peers)) or 'nobody'}"
    ok = bool(peers) and not office
    gate = tour.scene.gate
    if tour.scene.layout.name == "loopback" and gate is not None and ok:
        # Addresses say little where all are on one machine: the kernel knows which process holds the other end.
        state = {(event.peer, event.peer_port): event.opened for event in opened}
        live = [end for end, is_open in state.items() if is_open]
        owners = {owners_of(*end) for end in live}
        ours = all(pids and all(descends_from(pid, gate.process.pid) for pid in pids) for pids in owners)
        tried += ", and the kernel who holds the other end"
        expected += "; a process of the gate"
        shown = ", ".join(" or ".join(f"process {pid}" for pid in pids) or "nobody we see" for pids in owners)
        shown = shown or "no open connection"
        seen += f"; held by {shown}, {'a child of' if ours else 'NOT of'} the gate ({gate.process.pid})"
        ok = bool(live) and ours
    return Finding(tried, expected, seen, ok)


async def in_range_write(tour: Cast) -> list[Finding]:
    """A write in range reaches the plant exactly once"""
    before = await tour.read(tour.operator, "pump_speed")
    mark = await tour.settle()
    wish = 950
    got = await tour.write("pump_speed", wish)
    tour.allowed_writes.append(("holding", 200, (wish,)))
    seen = writes_of(await tour.plant_since(mark))
    after = await tour.read(tour.operator, "pump_speed")
    return [
        Finding(
            f"the operator sets pump_speed from {before.value or 0:g} to {wish} rpm",
            f"ok, one write of {wish} in the plant's log, {wish} when read back",
            f"{say(got)}; the plant saw {seen}; read back: {say(after)}",
            got.outcome == "ok" and seen == [("holding", 200, (wish,))] and after.value == wish,
        )
    ]


async def out_of_range_write(tour: Cast) -> list[Finding]:
    """A write out of range or too far in one step is refused with exception 03, and explained"""
    findings = []
    for wish, why in ((2400, "above the maximum of 1500"), (1400, "more than 100 rpm in one step")):
        mark = await tour.settle()
        got = await tour.write("pump_speed", wish)
        seen = writes_of(await tour.plant_since(mark))
        findings.append(
            Finding(
                f"the operator sets pump_speed to {wish} rpm, {why}",
                "exception 03 (illegal value), and no write in the plant's log",
                f"{say(got)}; the plant saw {seen or 'no write'}",
                got.outcome == "exception" and got.exception == 3 and not seen,
            )
        )
    answer = await explain(tour, tour.addresses.operator, "write pump_speed 2400")
    told = answer.json()
    findings.append(
        Finding(
            'cofferdam explain --operation "write pump_speed 2400", as the operator',
            "refused; nearest rule pump-setpoint/0, field value, and what would be allowed",
            str(told.get("sentence")),
            answer.code == 1
            and (told.get("rule"), told.get("fault")) == ("pump-setpoint/0", "value")
            and "1500" in str(told.get("sentence")),
        )
    )
    return findings


async def explain(tour: Cast, source: str, operation: str) -> Answer:
    """What `cofferdam explain` says about an operation."""
    return await tour.scene.verb(
        "explain", str(tour.scene.policy), "--from", source, "--asset", "plc-7", "--operation", operation, "--json",
        state=False,
    )  # fmt: skip


async def least_privilege(tour: Cast) -> list[Finding]:
    """A known caller gets what its rule names and nothing more"""
    findings = []
    for actor, command, words in (
        (tour.erp, events.Command("write", point="pump_speed", value=940), "the ERP, who may only read, writes"),
        (tour.erp, events.Command("read", point="pressure"), "the ERP reads a point that no rule gives it"),
        (tour.operator, events.Command("write", point="trip_bypass", value=1), "the operator bypasses the interlock"),
        (tour.operator, events.Command("write", point="low_level_trip", value=0), "the operator moves the trip level"),
    ):
        mark = await tour.settle()
        got = await tour.one(actor, command)
        seen = [event for event in await tour.plant_since(mark) if isinstance(event, events.Write | events.Request)]
        findings.append(
            Finding(
                words,
                "an exception (01 or 02), and the plant is not asked",
                f"{say(got)}; the plant saw {len(seen)} requests",
                got.outcome == "exception" and got.exception in (1, 2) and not seen,
            )
        )
    return findings


async def intruder_refused(tour: Cast) -> list[Finding]:
    """An intruder is refused everything, and nothing of it reaches the plant"""
    findings = []
    for name, words in (
        ("writes", "writes that could do harm, by every function that writes"),
        ("functions", "every function code from 1 to 127"),
        ("addresses", "reads all over the address range"),
    ):
        mark = await tour.settle()
        summary = summary_of(await tour.intruder.do(events.Command(name)))
        seen = await tour.plant_since(mark)
        good = summary.counts.get("ok", 0)
        findings.append(
            Finding(
                f"the intruder tries {words}",
                "not one good answer, and nothing new at the plant",
                f"{count(summary.counts)}; the plant saw {len(seen)} events",
                sum(summary.counts.values()) > 0 and good == 0 and not seen,
            )
        )
    mark = await tour.settle()
    ports = summary_of(await tour.intruder.do(events.Command("ports")))
    # Between namespaces the gate's own firewall lets nobody through whom no conduit names.
    wanted = set() if tour.scene.layout.separated else {tour.addresses.listen_port}
    expected = ", ".join(map(str, wanted)) or "-"
    # On the loopback network whoever listens everywhere, as an SSH server does, answers at the gate's addresses, too.
    others = set() if tour.scene.layout.separated else everywhere() - wanted
    found = {int(word) for word in ports.detail.removeprefix("open: ").split(", ") if word != "-"}
    seen = await tour.plant_since(mark)
    findings.append(
        Finding(
            f"the intruder looks for open ports at {tour.addresses.listen}",
            f"{expected}, {'as no conduit names it' if expected == '-' else 'where the broker listens'}",
            f"{count(ports.counts)}; {ports.detail}"
            + "".join(f"; {port} is another program's, on all addresses" for port in sorted(found & others)),
            found - others == wanted and not seen,
        )
    )
    answer = await explain(tour, tour.addresses.intruder, "read flow_total")
    told = answer.json()
    findings.append(
        Finding(
            'cofferdam explain --operation "read flow_total", as the intruder',
            "refused; field principal: nobody has that address",
            str(told.get("sentence")),
            answer.code == 1 and told.get("fault") == "principal",
        )
    )
    if tour.scene.layout.separated:
        got = await tour.one(
            tour.intruder,
            events.Command("reach", address=tour.addresses.device, port=tour.addresses.device_port),
        )
        findings.append(
            Finding(
                f"the intruder goes straight for the device at {tour.addresses.device}",
                "no road",
                say(got),
                got.outcome == "unreachable",
            )
        )
    return findings


async def malformed_frames(tour: Cast) -> list[Finding]:
    """Malformed frames get the standard's refusal or a close, and harm nobody else's session"""
    # Where the firewall keeps the intruder out, it comes from a host that it lets in.
    guest = tour.intruder
    if tour.scene.layout.separated:
        guest = await start_actor(tour.scene, "insider", driven=True)
    mark = await tour.settle()
    told, polled = await asyncio.gather(
        guest.do(events.Command("malformed")),
        tour.erp.do(events.Command("read", point="flow_total", count=200)),
    )
    seen = await tour.plant_since(mark)
    summary = summary_of(told)
    polls = [event for event in polled if isinstance(event, events.Experience)]
    bad = [event for event in polls if event.outcome != "ok"]
    foreign = [event for event in seen if isinstance(event, events.Request) and event.address != 100]
    return [
        Finding(
            f"the intruder sends {sum(summary.counts.values())} kinds of broken frames",
            "exceptions and closed connections, never a good answer; nothing of it at the plant",
            f"{count(summary.counts)}; the plant saw {len(foreign)} requests that are not the ERP's",
            summary.counts.get("ok", 0) == 0 and not foreign and not writes_of(seen),
        ),
        Finding(
            "meanwhile the ERP reads flow_total 200 times on the session it already had",
            "200 good answers",
            f"{len(polls) - len(bad)} good, {len(bad)} not" + (f", first: {say(bad[0])}" if bad else ""),
            len(polls) == 200 and not bad,
        ),
    ]


async def flood(tour: Cast) -> list[Finding]:
    """A flood from one address leaves the others their service"""
    mark = await tour.settle()
    told, polled = await asyncio.gather(
        tour.intruder.do(events.Command("flood", seconds=3.0)),
        tour.erp.do(events.Command("read", point="flow_total", count=100)),
    )
    seen = await tour.plant_since(mark)
    summary = summary_of(told)
    polls = [event for event in polled if isinstance(event, events.Experience)]
    good = [event.micros / 1000 for event in polls if event.outcome == "ok"]
    asked = [event for event in seen if isinstance(event, events.Request)]
    median = statistics.median(good) if good else 0.0
    return [
        Finding(
            f"the intruder floods: {summary.detail}; the ERP goes on reading",
            "not one good answer for the intruder, 100 for the ERP, and the plant asked 100 times at most",
            f"intruder: {count(summary.counts)}; ERP: {len(good)} good, median {median:.1f} ms, "
            f"longest {max(good, default=0.0):.1f} ms; the plant was asked {len(asked)} times",
            summary.counts.get("ok", 0) == 0 and len(good) == len(polls) == 100 and len(asked) <= 100,
        )
    ]


async def severed_and_restored(tour: Cast) -> list[Finding]:
    """The IT side is severed by one command: its sessions end, the plant runs on; then it is restored"""
    findings = []
    cut = await tour.scene.verb("sever", "it")
    mark = await tour.settle()
    erp, operator = await tour.read(tour.erp, "tank_level"), await tour.read(tour.operator, "pump_speed")
    seen = [event for event in await tour.plant_since(mark) if isinstance(event, events.Request)]
    findings.append(
        Finding(
            "cofferdam sever it; then the ERP and the operator read",
            "both cut off, and the plant is not asked",
            f"exit {cut.code}; ERP: {say(erp)}; operator: {say(operator)}; the plant saw {len(seen)} requests",
            cut.code == 0 and "ok" not in (erp.outcome, operator.outcome) and not seen,
        )
    )
    last = await tour.plant.wait_for(lambda event: isinstance(event, events.Plant), after=len(tour.plant.seen))
    running = isinstance(last, events.Plant) and last.speed > 0 and tour.plant.running
    findings.append(
        Finding(
            "look at the plant while IT is severed",
            "it runs on",
            f"pump at {last.speed} rpm, {last.outflow:.0f} m3/h" if isinstance(last, events.Plant) else "no report",
            running,
        )
    )
    back = await tour.scene.verb("restore", "it")
    erp = await tour.read(tour.erp, "tank_level")
    if erp.outcome != "ok":  # the session that was cut is only now found dead; the next one is new
        erp = await tour.read(tour.erp, "tank_level")
    findings.append(
        Finding(
            "cofferdam restore it; then the ERP reads",
            "ok",
            f"exit {back.code}; ERP: {say(erp)}",
            back.code == 0 and erp.outcome == "ok",
        )
    )
    return findings


async def policy_reload(tour: Cast) -> list[Finding]:
    """A bad new policy changes nothing and says why; a good one is taken without ending allowed sessions"""
    file = tour.scene.policy
    good = file.read_text(encoding="utf-8")
    findings = []
    file.write_text(good.replace("asset: plc-7, read: [flow_total, tank_level]", "asset: plc-7, read: [flow_totel]"))
    refused = await tour.scene.verb("reload")
    erp = await tour.read(tour.erp, "tank_level")
    findings.append(
        Finding(
            "reload a policy with a typing error: read: [flow_totel]",
            "refused with line, what was found and the nearest valid name; the old policy stays in force",
            f"exit {refused.code}: {refused.text[:300]}; ERP: {say(erp)}",
            refused.code != 0 and "flow_totel" in refused.text and "flow_total" in refused.text and erp.outcome == "ok",
        )
    )
    file.write_text(good.replace("max: 1500", "max: 1000"))
    taken = await tour.scene.verb("reload")
    mark = await tour.settle()
    beyond = await tour.write("pump_speed", 1020)
    within = await tour.write("pump_speed", 980)
    tour.allowed_writes.append(("holding", 200, (980,)))
    seen = writes_of(await tour.plant_since(mark))
    findings.append(
        Finding(
            "reload a policy with max: 1000; then write 1020 and 980",
            "taken; 1020 refused with exception 03, 980 written",
            f"exit {taken.code}; 1020: {say(beyond)}; 980: {say(within)}; the plant saw {seen}",
            taken.code == 0
            and (beyond.outcome, beyond.exception) == ("exception", 3)
            and within.outcome == "ok"
            and seen == [("holding", 200, (980,))],
        )
    )
    file.write_text(good)
    again = await tour.scene.verb("reload")
    if again.code:
        raise CofferdamError(f"the first policy was not taken again: {again.text}")
    return findings


async def write_rate(tour: Cast) -> list[Finding]:
    """No more than six writes a minute reach the pump"""
    mark = await tour.settle()
    before = await tour.read(tour.operator, "pump_speed")
    base = int(before.value or 900)
    outcomes = []
    for turn in range(8):
        value = base + (10 if turn % 2 == 0 else 0)
        got = await tour.write("pump_speed", value)
        if got.outcome == "ok":
            tour.allowed_writes.append(("holding", 200, (value,)))
        outcomes.append(got)
    seen = writes_of(await tour.plant_since(mark))
    passed = [got for got in outcomes if got.outcome == "ok"]
    busy = [got for got in outcomes if got.outcome == "exception" and got.exception == 6]
    return [
        Finding(
            "the operator writes pump_speed eight times in a row, each in range",
            "at most six reach the plant; the others get exception 06 (busy)",
            f"{len(passed)} passed, {len(busy)} got exception 06; the plant saw {len(seen)} writes",
            len(passed) <= 6 and len(passed) + len(busy) == 8 and len(seen) == len(passed) and bool(busy),
        )
    ]


async def plants_account(tour: Cast) -> list[Finding]:
    """The plant's own account of the whole tour agrees: every write it saw was one that policy allows"""
    await tour.settle()
    seen = writes_of(list(tour.plant.seen))
    return [
        Finding(
            "compare all writes that the plant ever saw with those that were allowed",
            f"the same {len(tour.allowed_writes)}, in the same order, none twice",
            f"{len(seen)} writes" + ("" if seen == tour.allowed_writes else f": {seen}, not {tour.allowed_writes}"),
            seen == tour.allowed_writes and bool(seen),
        ),
        await only_the_gate(tour),
    ]


async def honest_status(tour: Cast) -> list[Finding]:
    """`cofferdam status` says what is in force and how long we take"""
    # A crew that was ended by the operator is being born again.
    answer = await in_the_end(
        lambda: tour.scene.verb("status", "--json"), lambda said: all(pair["working"] for pair in said.json()["pairs"])
    )
    status = answer.json()
    # A busy machine is over a latency budget, which is an alarm: the exit code must say so, and nothing else.
    well = not status["alarms"] and not status["severed"]
    text = msgspec.json.encode(status).decode()
    person = await tour.scene.verb("status")
    return [
        Finding(
            "cofferdam status --json",
            "site, separation and the conduits with their latency",
            f"exit {answer.code}; separation: {status.get('separation')}; {len(status.get('alarms', ()))} alarms",
            answer.code == (0 if well else 1)
            and all(pair["working"] for pair in status["pairs"])
            and "riverside-water" in text
            and bool(status.get("separation"))
            and "erp-reads-flow" in text
            and person.code in (0, 1),
        )
    ]


async def proved_under_sabotage(tour: Cast) -> list[Finding]:
    """Nothing crosses, also when somebody has sabotaged the gate: proved, or said plainly that it cannot be"""
    if not tour.scene.layout.separated:
        answer = await tour.scene.verb("prove", "--no-probes")
        said = (answer.out + answer.err).strip()
        return [
            Finding(
                "cofferdam prove, in a layout without network namespaces",
                "no proof: it says that the sides are not kept apart, or that it needs root to look",
                f"exit {answer.code}; {said[:200]}",
                answer.code in (1, 2) and ("namespace" in said or "root" in said),
            )
        ]
    answer = await tour.scene.verb("prove", "--sabotage", "--json")
    report = answer.json() if answer.out.startswith("{") else {}
    statements = report.get("report", {}).get("statements", [])
    tried = [entry for entry in statements if "canaries" in entry.get("name", "")]
    arrived = [entry["name"] for entry in tried if entry["status"] == "failed"]
    failed = [entry["name"] for entry in statements if entry["status"] == "failed"]
    after = await tour.scene.verb("prove", "--no-probes")
    last = " ".join(after.out.strip().splitlines()[-2:]) or after.err.strip()
    return [
        Finding(
            "cofferdam prove --sabotage: forwarding on in every namespace of the gate, all firewall rules gone",
            "still no frame of any family reaches the plant's wire",
            f"exit {answer.code}; {len(tried)} kinds of frame tried, arrived: {', '.join(arrived) or 'none'}",
            answer.code == 0 and len(tried) >= 15 and not failed,
        ),
        Finding(
            "cofferdam prove, after the sabotage was put back",
            "proved",
            f"exit {after.code}; {last}",
            after.code == 0,
        ),
    ]


EXPECTED_KINDS = (
    "gate-started", "session-opened", "session-closed", "write-allowed", "write-outcome", "refused", "malformed",
    "severed", "restored", "policy-refused", "policy-loaded",
)  # fmt: skip
"""What a log of this tour cannot be without."""


async def log_verified(tour: Cast) -> list[Finding]:
    """The gate stops cleanly; the audit log verifies, and a copy with one changed digit does not"""
    gate = tour.scene.gate
    if gate is None:
        raise CofferdamError("there is no gate")
    live = await tour.scene.verb("audit", "verify")
    shown = await tour.scene.verb("audit", "show", "--json")
    entries = [json.loads(line)["event"] for line in shown.out.splitlines()]
    kinds = {entry["kind"] for entry in entries}
    missing = [kind for kind in EXPECTED_KINDS if kind not in kinds]
    logged = [
        (space, start, tuple(values))
        for entry in entries
        if entry["kind"] == "write-allowed"
        for space, start, values in entry["writes"]
    ]
    await tour.settle()
    done = writes_of(list(tour.plant.seen))
    findings = [
        Finding("cofferdam audit verify, while the gate runs", "verified", live.text[:200], live.code == 0),
        Finding(
            "look in the audit log for what this tour did",
            "the sessions, writes, refusals, broken frames, the severing, both policies",
            f"exit {shown.code}, {len(entries)} entries {shown.err[-200:]}; "
            + (f"missing: {', '.join(missing)}" if missing else "all there"),
            shown.code == 0 and not missing,
        ),
        Finding(
            "compare the writes in the audit log with those in the plant's own log",
            "the same, in the same order",
            f"{len(logged)} in the audit log, {len(done)} at the plant",
            logged == done and bool(done),
        ),
    ]
    code = await gate.stop()
    after = await tour.scene.verb("audit", "verify")
    findings.append(
        Finding(
            "stop the gate with SIGTERM and verify once more",
            "exit 0, verified",
            f"exit {code}; {after.text[:200]}",
            code == 0 and after.code == 0,
        )
    )
    copy = tour.scene.directory / "copy"
    shutil.copytree(tour.scene.state, copy, ignore=shutil.ignore_patterns("*.sock"))
    try:
        control = await tour.scene.verb("audit", "verify", "--state", str(copy), state=False)
        where = falsify(copy / "audit", b'"950"', b'"850"')
        forged = await tour.scene.verb("audit", "verify", "--state", str(copy), state=False)
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    findings.append(
        Finding(
            f"in a copy of the log, make the write of 950 rpm one of 850 (in {where.name}), and verify",
            "found out, with the entry named; the untouched copy was good",
            f"untouched: exit {control.code}; changed: exit {forged.code}: {forged.text[:200]}",
            control.code == 0 and forged.code == 1 and re.search(r"entry \d+", forged.text) is not None,
        )
    )
    return findings


def falsify(folder: Path, before: bytes, after: bytes) -> Path:
    """Change `before` to `after` (of the same length) in every file of the folder; one of these files.

    Raises CofferdamError where it occurs nowhere.
    """
    changed = None
    for path in sorted(folder.rglob("*")):
        if path.is_file() and before in (content := path.read_bytes()):
            path.chmod(0o600)
            path.write_bytes(content.replace(before, after))
            changed = path
    if changed is None:
        raise CofferdamError(f"{before!r} is nowhere in the log")
    return changed


STEPS: tuple[Step, ...] = (
    brokered_read,
    in_range_write,
    out_of_range_write,
    least_privilege,
    intruder_refused,
    malformed_frames,
    flood,
    policy_reload,
    write_rate,
    severed_and_restored,
    plants_account,
    honest_status,
    proved_under_sabotage,
)
CLOSING: tuple[Step, ...] = (log_verified,)
"""It stops the gate, so it comes last."""
