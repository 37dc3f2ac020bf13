"""An audit entry as one line for people.

Texts from the network may stand in entries, so control characters are shown as escapes: an entry cannot forge lines
or drive the terminal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cofferdam.audit.entry import Entry, format_time, parse_time

Event = dict[str, Any]

CLOCK_APART_NS = 2_000_000_000
"""From this difference on, a line says both times. An entry waits for its batch and the disk, seldom for a second."""


def line(entry: Entry) -> str:
    """INDEX TIME KIND what happened."""
    render = _RENDER.get(entry.kind, _other)
    text = f"{entry.index:>7} {entry.time[:19].replace('T', ' ')} {entry.kind:<15} {render(entry.event)}{_clock(entry)}"
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def _clock(entry: Entry) -> str:
    """What the maker's clock said, where it is not the log's own time: after a jump back that time stands still."""
    said = int(str(entry.event.get("wall_ns", 0)))
    if not said or entry.kind == "clock-jump" or abs(said - parse_time(entry.time)) < CLOCK_APART_NS:
        return ""
    return f" (by the clock {format_time(said)[:19].decode().replace('T', ' ')})"


def _who(event: Event) -> str:
    names = ", ".join(event.get("principals", ()))
    return f"{names} ({event.get('source', '?')})" if names else str(event.get("source", "?"))


def _seconds(nanoseconds: object) -> str:
    value = int(str(nanoseconds or 0))
    if value < 1_000_000:
        return f"{value / 1000:.0f} µs"
    return f"{value / 1e6:.1f} ms" if value < 1_000_000_000 else f"{value / 1e9:.1f} s"


def _cells(event: Event) -> str:
    parts = [
        f"{space} {start}" + (f"-{start + count - 1}" if count > 1 else "")
        for space, start, count in event.get("spans", ())
    ]
    return ", ".join(parts)


def _written(event: Event) -> str:
    points = event.get("points", ())
    if points:
        return ", ".join(f"{name} = {value}{' ' + unit if unit else ''}" for name, value, unit in points)
    parts = []
    for space, start, values in event.get("writes", ()):
        some = " ".join(map(str, values[:8])) + (" …" if len(values) > 8 else "")
        parts.append(f"{space} {start} = {some}")
    return ", ".join(parts) or f"function {event.get('function')}"


def _refused(event: Event) -> str:
    what = _cells(event)
    where = f" [{event['rule']}]" if event.get("rule") else ""
    return (
        f"{_who(event)} → {event.get('asset')}: function {event.get('function')}{' of ' + what if what else ''}:"
        f" {event.get('fault')}: {event.get('detail')}{where}"
    )


def _outcome(event: Event) -> str:
    code = f" {event['code']}" if event.get("code") else ""
    detail = f": {event['detail']}" if event.get("detail") else ""
    took = _seconds(event.get("device_ns"))
    return f"{event.get('asset')} {event.get('write')}: {event.get('outcome')}{code} in {took}{detail}"


def _reads(event: Event) -> str:
    span = int(str(event.get("to_ns", 0))) - int(str(event.get("from_ns", 0)))
    shared = f", {event['shared']} shared" if event.get("shared") else ""
    failed = f", {event['failed']} failed" if event.get("failed") else ""
    return (
        f"{_who(event)} → {event.get('asset')}: {event.get('reads')} reads, {event.get('cells')} cells"
        f"{shared}{failed}{' in ' + _seconds(span) if span >= 0 else ''} [{event.get('conduit')}]"
    )


def _closed(event: Event) -> str:
    return (
        f"{event.get('session')}: {event.get('reason')} ({event.get('requests')} requests,"
        f" {event.get('writes')} writes, {event.get('refused')} refused, {event.get('malformed')} malformed)"
    )


def _died(event: Event) -> str:
    status = event.get("status", 0)
    how = f"signal {-status}" if status < 0 else f"exit code {status}"
    return f"{event.get('half')} (pid {event.get('pid')}): {how}{', as asked' if event.get('expected') else ''}"


def _many(event: Event) -> str:
    faults = ", ".join(f"{count} {name}" for name, count in event.get("faults", ()))
    split = f" ({faults})" if faults else ""
    return f"{_who(event)} → {event.get('asset')}: {event.get('count')} more refusals{split}"


DROPPED = {
    "input": "coming in", "output": "going out", "forward": "to be forwarded",
    "openings": "connections asked for faster than one client may",
}  # fmt: skip
"""What a side's firewall drops, by the names of its counters."""


def _dropped(event: Event) -> str:
    span = int(str(event.get("to_ns", 0))) - int(str(event.get("from_ns", 0)))
    counts = ", ".join(f"{count:,} {DROPPED.get(hook, hook)}" for hook, count in event.get("packets", ()))
    return f"{event.get('side')}: {counts}, within {_seconds(span)}"


def _other(event: Event) -> str:
    hidden = ("kind", "wall_ns")
    said = {name: value for name, value in event.items() if name not in hidden and value not in ("", [])}
    return ", ".join(f"{name} {value}" for name, value in said.items())


_RENDER: dict[str, Callable[[Event], str]] = {
    "gate-started": lambda e: f"Cofferdam {e.get('version')}, separation: {e.get('separation') or 'unknown'}",
    "gate-stopped": lambda e: str(e.get("reason")),
    "policy-loaded": lambda e: f"{str(e.get('policy'))[:16]} from {', '.join(e.get('files', ())) or '?'}",
    "policy-refused": lambda e: f"{e.get('problem')} ({e.get('problems')} in all)",
    "severed": lambda e: f"{e.get('side')} cut off by {e.get('by') or '?'}, {e.get('sessions')} sessions ended",
    "restored": lambda e: f"{e.get('side')} works again, by {e.get('by') or '?'}",
    "half-started": lambda e: f"{e.get('half')} (pid {e.get('pid')})",
    "half-died": _died,
    "record-violation": lambda e: f"{e.get('half')}: {e.get('detail')}",
    "session-opened": lambda e: f"{e.get('session')}: {_who(e)} port {e.get('source_port')} → {e.get('asset')}",
    "session-closed": _closed,
    "write-allowed": lambda e: f"{_who(e)} → {e.get('asset')}: {_written(e)} [{e.get('rule')}] {e.get('write')}",
    "write-outcome": _outcome,
    "refused": _refused,
    "refused-many": _many,
    "malformed": lambda e: f"{e.get('source')} → {e.get('asset') or '?'}: {e.get('detail')} ({e.get('section')})",
    "limit-hit": lambda e: f"{e.get('source')}: {e.get('limit')}: {e.get('detail')} ({e.get('count')} times)",
    "reads-counted": _reads,
    "alarm": lambda e: f"{e.get('name')}{' is over' if e.get('cleared') else ''}: {e.get('detail')}",
    "clock-jump": lambda e: f"the clock jumped by {int(e.get('jump_ns', '0')) / 1e9:+.3f} s to {e.get('clock')}",
    "torn-tail": lambda e: (
        f"after a crash: {e.get('entries')} entries recovered from the journal, {e.get('cut_bytes')} bytes of an"
        " unfinished append cut off"
    ),
    "packets-dropped": _dropped,
    "leak-probe-set": lambda e: f"every {e['seconds']} s" if e.get("seconds") else "OFF by the policy",
    "log-opened": lambda e: f"with {e.get('size')} entries, key {e.get('key')}",
}
