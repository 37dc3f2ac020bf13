"""What to do about an alarm, in one sentence, and which comes first. PURE.

Each is for the one who reads `status` at night; docs/operations.md has the whole table.
"""

from __future__ import annotations

from cofferdam.gate.state import Closure, Cut
from cofferdam.gate.watch.report import StatusReport

WAYS_OUT: dict[str, str] = {
    "severed": "restore it when it may work again: cofferdam restore SIDE",
    "severed-state-damaged": "restore it and ot when you know that they should be open: cofferdam restore it",
    "severed-not-durable": "make room on the disk of the state directory; it is tried again by itself",
    "auditor-down": "see its message; then: cofferdam audit verify",
    "log-unwritable": "make room on the disk of the audit log; it recovers by itself",
    "log-reserve": "make room on the disk of the audit log now",
    "zone-link": "look at the cable, the switch's port, and `ip link` of that interface",
    "zone-address": "give the zone `addresses:` in the policy, or the interface an address before the gate starts",
    "asset-silent": "cofferdam ping ASSET says which half; then look at the device, its cable and its address",
    "log-disk": "make room on the disk of the audit log",
    "log-upkeep": "see its message; it is tried again each minute",
    "log-keeps-less": "give the log more room (`audit: at_most`), or keep less",
    "anchor-not-durable": "make room on the disk of the state directory",
    "strangers": "cofferdam whois ADDRESS; if it may come in, give its principal that address and reload",
    "conduit-expires": "ask its owner; then a later `expires` in the policy, or no conduit, and reload",
    "clock-jumped": "look at the machine's clock (`timedatectl`); this stands for an hour",
    "leak-probe": "see its message; the gate itself goes on",
    "leak": "something answers past the gate: cofferdam prove; pull the cable it goes by",
    "tunnel-down": "see its message; `cofferdam overlay status`",
    "check": "cofferdam evidence list --status failed",
    "clock": "cofferdam evidence clocks shows what is due",
    "nightly-proof": "see its message, then by hand: cofferdam prove; cofferdam evidence selftest; evidence check",
    "export": "see why the collector does not take entries: cofferdam export status",
    "expired-state-damaged": "stop the gate, move expired.json away, start it",
    "expiry-not-durable": "make room on the disk of the state directory",
    "hands-state-damaged": "move hands.json away, sever again what should be, then cofferdam restore it, restore ot",
    "hands-not-durable": "make room on the disk of the state directory, and do it again",
    "trouble": "look at the device: cofferdam describe ASSET, cofferdam audit show --kind device-trouble",
    "connections-full": "see in `cofferdam status --all` who holds the places",
    "crew": "see the gate's messages (journalctl -u cofferdam); it is started again by itself",
}
"""By the beginning of an alarm's name; the order is that of what comes first."""
ELSE = "cofferdam audit show tells since when; docs/operations.md has every alarm"


def _key(name: str) -> str:
    """An alarm of a part is called PART/NAME. The longest beginning counts."""
    bare = name.rpartition("/")[2]
    return max((key for key in WAYS_OUT if bare == key or bare.startswith(f"{key}-")), key=len, default="")


def way_out(name: str) -> str:
    """What to do about the alarm of this name."""
    key = _key(name)
    if not key:
        return ELSE
    subject = name.rpartition("/")[2][len(key) + 1 :]
    return WAYS_OUT[key].replace("ASSET", subject or "ASSET")


def verdict(status: StatusReport) -> tuple[bool, str, str]:
    """Whether all is well; in one line what is wrong, or that nothing is; and what to do about the first of it."""
    order = list(WAYS_OUT)
    wrong: list[tuple[int, str, str]] = []
    severed: tuple[Cut | Closure, ...] = (*status.severed, *status.closures)
    for cut in severed:
        why = f" ({cut.reason})" if cut.reason else ""
        way = WAYS_OUT["severed"].replace("SIDE", cut.what)
        wrong.append((0, f"{cut.shown} is severed by {cut.by}{why}", way))
    for pair in status.pairs:
        if not pair.working:
            wrong.append((1, f"the crew {pair.name} does not work", WAYS_OUT["crew"]))
    for alarm in status.alarms:
        key = _key(alarm.name)
        wrong.append((2 + order.index(key) if key else len(order) + 2, alarm.detail, way_out(alarm.name)))
    if not wrong:
        crews, sessions = _count(len(status.pairs), "crew"), _count(sum(status.open.values()), "session")
        return True, f"ok: {crews}, {sessions}, no alarm; separation: {status.separation}", ""
    wrong.sort(key=lambda one: one[0])
    more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    return False, f"NOT OK{more}: {wrong[0][1]}", wrong[0][2]


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
