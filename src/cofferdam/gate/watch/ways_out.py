"""What to do about an alarm, in one sentence, and which comes first. PURE.

Each is for the one who reads `status` at night; docs/operations.md has the whole table.
"""

from __future__ import annotations

from cofferdam.audit.events.base import clip
from cofferdam.gate.crew.crew import HELD
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
    "fence-down": "what keeps exports to their collectors is gone and cannot be put back: see its message; "
    "`nft list ruleset` shows what is there",
    "fence-tried": "an export or the witness may be taken over: its collector out of the policy, reload, and look; or "
    "its way leads by a tunnel of this host's, which it cannot take",
    "fence-changed": "something empties this host's rules (`nft flush ruleset`): have it replace its own tables alone",
    "tunnel-down": "see its message; `cofferdam overlay status`",
    "check-clock.sound": "have a time daemon keep the clock (apt install chrony; in a virtual machine as well), then: "
    "cofferdam evidence run clock.sound",
    "check": "cofferdam evidence list --status failed",
    "clock": "cofferdam evidence clocks shows what is due",
    "nightly-proof": "see its message, then by hand: cofferdam prove; cofferdam evidence selftest; evidence run",
    "export": "see why the collector does not take entries: cofferdam export status",
    "expired-state-damaged": "stop the gate, move expired.json away, start it",
    "expiry-not-durable": "make room on the disk of the state directory",
    "hands-state-damaged": "move hands.json away, sever again what should be, then cofferdam restore it, restore ot",
    "hands-not-durable": "make room on the disk of the state directory, and do it again",
    "trouble": "look at the device: cofferdam describe ASSET, cofferdam audit show --kind device-trouble",
    "clients-turned-away": "have it keep its connections, or raise that limit in the policy (docs/devices.md)",
    "connections-full": "see in `cofferdam status --all` who holds the places",
    "seam-closed": "a part of the other broker may be taken over: cofferdam audit show --kind record-violation; "
    "it opens when the gate is started anew",
    "jump-host-key": "compare its key at the asset, and ask who changed it; then: "
    "cofferdam jump host-key ASSET --file KEY",
    "jump-recording": "make room on the disk of the archivist's store; it is tried again by itself",
    "jump-store": "make room on the disk of the keeper's store; people are let in again by themselves",
    "jump-stays": "look at what it names in the archivist's folder (STATE/stores/jump.../archivist), and whether that "
    "disk is mounted for writing",
    "jump-room": "a larger `room` in the policy's `record:`; what they have shown: cofferdam jump recording list",
    "jump-break-glass": "look into what was done; then somebody else: cofferdam jump break-glass review WORDS",
    "jump-rotation": "cofferdam jump assets says how far it came; then: cofferdam jump rotate",
    "jump-quarantine": "cofferdam jump quarantine list says whose they are",
    "jump-files": "cofferdam jump quarantine list; who may decides: release or reject",
    "jump-requests": "cofferdam jump requests; who may decides: approve or deny",
    "patch-sign": "its message says which command makes the key (docs/patch.md)",
    HELD: "mend what it names (docs/operations.md); it is started again by itself",
    "crew": "see the gate's messages (journalctl -u cofferdam); it is started again by itself",
}
"""By the beginning of an alarm's name; the order is that of what comes first."""
NOTICES = ("strangers", "conduit-expires", "check-clock.sound", "fence-changed", "jump-requests", "jump-files")
"""Worth a look, and nothing that is broken: `status` says them and exits with 0. Whoever may send a packet from the
office could hold up the first of them for ever, and the second is what the policy says. An exit code that a stranger or
the calendar decides says nothing of the gate. The third is true of the machine: the gate works without a time daemon,
and what its records are worth then is in the evidence, where the check reads "failed" until there is one. In the
case of the fourth what was wrong has been put right. In the last two people ask something of people."""
ELSE = "cofferdam audit show tells since when; docs/operations.md has every alarm"


def _key(name: str) -> str:
    """An alarm of a part is called PART/NAME. The longest beginning counts."""
    bare = name.rpartition("/")[2]
    return max((key for key in WAYS_OUT if bare == key or bare.startswith(f"{key}-")), key=len, default="")


def is_notice(name: str) -> bool:
    """Whether an alarm is worth a look, and says of nothing that it does not work."""
    return _key(name) in NOTICES


def way_out(name: str) -> str:
    """What to do about the alarm of this name."""
    key = _key(name)
    if not key:
        return ELSE
    subject = name.rpartition("/")[2][len(key) + 1 :]
    return WAYS_OUT[key].replace("ASSET", subject or "ASSET")


def verdict(status: StatusReport) -> tuple[bool, str, str]:
    """Whether all works; in one line what does not, or else what is worth a look; and what to do about the first of
    it."""
    order = list(WAYS_OUT)
    wrong: list[tuple[int, str, str]] = []
    notices: list[tuple[int, str, str]] = []
    severed: tuple[Cut | Closure, ...] = (*status.severed, *status.closures)
    for cut in severed:
        why = f" ({cut.reason})" if cut.reason else ""
        way = WAYS_OUT["severed"].replace("SIDE", cut.what)
        wrong.append((0, f"{cut.shown} is severed by {cut.by}{why}", way))
    held = {alarm.name for alarm in status.alarms}  # these say why
    for pair in status.pairs:
        if not pair.working and clip(f"{pair.name}/{HELD}", 128) not in held:
            wrong.append((1, f"the crew {pair.name} does not work", WAYS_OUT["crew"]))
    for alarm in status.alarms:
        key = _key(alarm.name)
        level = notices if key in NOTICES else wrong
        rank = 1 if key == HELD else 2 + order.index(key) if key else len(order) + 2
        level.append((rank, alarm.detail, alarm.way_out or way_out(alarm.name)))
    if not wrong:
        crews, sessions = _count(len(status.pairs), "crew"), _count(sum(status.open.values()), "session")
        well = f"ok: {crews}, {sessions}, no alarm; separation: {status.separation}"
        if not notices:
            return True, well, ""
        notices.sort(key=lambda one: one[0])
        more = f" (and {len(notices) - 1} more)" if len(notices) > 1 else ""
        return (
            True,
            f"{well.replace('no alarm', _count(len(notices), 'notice'))}. LOOK{more}: {notices[0][1]}",
            notices[0][2],
        )
    wrong.sort(key=lambda one: one[0])
    others = len(wrong) + len(notices) - 1
    more = f" (and {others} more)" if others else ""
    return False, f"NOT OK{more}: {wrong[0][1]}", wrong[0][2]


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
