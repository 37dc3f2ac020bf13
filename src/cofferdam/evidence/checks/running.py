"""Checks that read what the running gate says of itself."""

from __future__ import annotations

from cofferdam.enforce.orders import BESIDES, FENCE
from cofferdam.enforce.plans.fence import SPACE
from cofferdam.evidence.checks.registry import Table
from cofferdam.evidence.inputs import Gone, Inputs, Unknown
from cofferdam.evidence.model import Finding, several, spoken

TABLE = Table()
CHANGED, DOWN, TRIED = "fence-changed", "fence-down", "fence-tried"
"""Alarms of the gate's: the fence was put back, or could not be."""
ROUNDS = 3
"""Intervals of the leak probe after which its last round is too old."""


@TABLE.check("leak.silent", "status")
def leak_silent(known: Inputs) -> Finding:
    """No device answers on the office side at its own address, by the last round of the leak probe."""
    status = known.the_status()
    probe = status["leak_probe"]
    leaks = [one for one in status["alarms"] if one["name"].startswith("leak-") and one["name"] != "leak-probe"]
    if leaks:
        facts = tuple(f"{one['name'].removeprefix('leak-')}: {one['detail']}"[:500] for one in leaks[:8])
        return Finding(
            "leak.silent",
            "failed",
            several(len(leaks), "devices answer on the office side", "device answers on the office side"),
            facts,
        )
    if not probe["works"]:
        raise Unknown(probe["detail"])
    if not probe["last_ns"]:
        raise Unknown("the leak probe's first round is still to come")
    ago = (known.now_ns - probe["last_ns"]) // 10**9
    if ago > ROUNDS * probe["seconds"] + 60:
        return Finding("leak.silent", "failed", f"the leak probe's last round is {spoken(ago)} ago", (probe["detail"],))
    return Finding("leak.silent", "tested", "no device answered on the office side", (probe["detail"],))


@TABLE.check("separation.in-force", "status")
def separation(known: Inputs) -> Finding:
    """Each part has its own network, user, view of files and filter."""
    status = known.the_status()
    facts = [one for one in status["facts"] if one["name"] not in BESIDES]
    lacking = [one for one in facts if not one["in_force"]]
    if status["separation"] != "namespaces":
        raise Unknown("the gate runs without namespaces: its parts share one network")
    if lacking:
        said = "1 fact of the separation is" if len(lacking) == 1 else f"{len(lacking)} facts of the separation are"
        return Finding("separation.in-force", "failed", f"{said} not in force", _facts(lacking))
    return Finding("separation.in-force", "observed", f"{len(facts)} facts of the separation are in force",
                   _facts(facts))  # fmt: skip


def _facts(facts: list[dict[str, object]]) -> tuple[str, ...]:
    return tuple(f"{one['name']}: {one['detail']}"[:500] for one in facts[:10])


@TABLE.check("firewall.drops", "status")
def firewall_drops(known: Inputs) -> Finding:
    """What no conduit allows is dropped and counted."""
    dropped = [one for one in known.the_status()["dropped"] if one["side"] != SPACE]
    if not dropped:
        raise Unknown("no side has a firewall of the gate's: there are no namespaces")
    facts = tuple(
        f"{one['side']}: " + ", ".join(f"{count:,} {hook}" for hook, count in one["packets"].items()) for one in dropped
    )
    return Finding("firewall.drops", "observed", "packets that no conduit allows are dropped and counted", facts)


@TABLE.check("log.fenced", "status")
def fenced(known: Inputs) -> Finding:
    """Exports and the witness reach what they are for."""
    status = known.the_status()
    fact = next((one for one in status["facts"] if one["name"] == FENCE), None)
    if fact is None:
        raise Gone("the policy has no export and no witness to be held")
    standing = {one["name"]: one["detail"] for one in status["alarms"]}
    if not fact["in_force"]:
        if status["separation"] != "namespaces" and DOWN not in standing:
            raise Unknown(fact["detail"])
        says = "nothing holds exports and witness to their collectors"
        return Finding("log.fenced", "failed", says, (fact["detail"],))
    if TRIED in standing:
        return Finding(
            "log.fenced", "failed", "an export or the witness tries to reach something else", (standing[TRIED],)
        )
    refused = [one for one in status["dropped"] if one["side"] == SPACE]
    facts = [f"{who}: {count:,} packets refused" for one in refused for who, count in one["packets"].items()]
    facts += [standing[CHANGED]] if CHANGED in standing else []
    return Finding("log.fenced", "observed", fact["detail"], tuple(facts[:8]))


@TABLE.check("policy.in-force", "status", "policy")
def policy_in_force(known: Inputs) -> Finding:
    """The policy in force is the one on record, in every part."""
    status = known.the_status()
    digest = status["policy"]["hash"]
    other = [
        half["name"]
        for pair in status["pairs"]
        for half in pair["halves"]
        if half["ready"] and half["policy"] and half["policy"] != digest
    ]
    if other:
        return Finding(
            "policy.in-force",
            "failed",
            several(len(other), "parts work by another policy", "part works by another policy"),
            tuple(other[:8]),
        )
    facts = [f"hash {digest}", f"file {status['policy']['path']}"]
    if known.history is not None:
        loaded = known.history.last("policy-loaded")
        if loaded is None or loaded.event.get("policy") != digest:
            return Finding("policy.in-force", "failed", "the log's last policy is another one", tuple(facts))
        facts.append(f"loaded by entry {loaded.index}")
    parts = sum(len(pair["halves"]) for pair in status["pairs"])
    return Finding(
        "policy.in-force",
        "observed",
        several(parts, "parts work by the policy on record", "part works by the policy on record"),
        tuple(facts),
    )


@TABLE.check("broker.latency-budget", "status")
def latency(known: Inputs) -> Finding:
    """The latency that is added stays within each conduit's budget."""
    conduits = [one for one in known.the_status()["conduits"] if one["budget"]]
    if not conduits:
        raise Gone("no conduit has a latency budget")
    over = [one for one in conduits if one["recent_over_budget"]]
    if not over and not any(one["added"]["count"] or one["packets"]["count"] for one in conduits):
        raise Unknown("nothing has gone by a conduit with a budget since the gate started")
    shown = over or conduits
    facts = tuple(
        f"{one['name']}: p99 {one['recent']['p99']:,.0f} µs of {one['recent']['count']:,} requests, "
        f"budget {one['budget']:,} µs" for one in shown[:10]
    )  # fmt: skip
    if over:
        return Finding(
            "broker.latency-budget",
            "failed",
            several(len(over), "conduits are over their budget", "conduit is over its budget"),
            facts,
        )
    return Finding(
        "broker.latency-budget",
        "observed",
        several(len(conduits), "conduits are within their budget", "conduit is within its budget"),
        facts,
    )


@TABLE.check("log.writable", "status")
def log_writable(known: Inputs) -> Finding:
    """Entries are durable before a write is sent."""
    audit = known.the_status()["audit"]
    facts = (f"{audit['size']:,} entries, {audit['signed']:,} under a signed checkpoint",
             f"the longest wait for the disk: {audit['commit_max'] / 1000:.1f} ms")  # fmt: skip
    if not (audit["running"] and audit["writable"]):
        return Finding("log.writable", "failed", f"the log takes no entries: {audit['reason']}"[:500], facts)
    if audit["reason"]:
        return Finding("log.writable", "failed", str(audit["reason"])[:500], facts)
    return Finding("log.writable", "observed", "the log takes entries, each is on disk before its write is sent", facts)


@TABLE.check("monitor.denials", "status")
def denials(known: Inputs) -> Finding:
    """What is refused at the boundary is seen and counted."""
    status = known.the_status()
    refused = sum(one["refused"] for one in status["conduits"]) + status["unmatched"]
    dropped = sum(sum(one["packets"].values()) for one in status["dropped"])
    limits = ", ".join(f"{count:,} {name}" for name, count in sorted(status["limits"].items()) if count)
    facts = (f"{refused:,} requests refused by policy", f"{status['malformed']:,} broken messages",
             f"{dropped:,} packets dropped", f"limits: {limits or 'none hit'}")  # fmt: skip
    return Finding("monitor.denials", "observed", "what is refused is counted, and recorded in the log", facts)


@TABLE.check("config.readable", "status")
def readable(known: Inputs) -> Finding:
    """Settings in force can be read by a program."""
    status = known.the_status()
    facts = (f"status of version {status['version']}, {len(status)} members", f"policy {status['policy']['hash'][:16]}")
    return Finding("config.readable", "observed", "the settings in force were read as JSON", facts)


@TABLE.check("inventory.assets", "status", "policy")
def assets(known: Inputs) -> Finding:
    """The devices behind the gate are listed."""
    policy, status = known.the_policy(), known.the_status()
    if not policy.assets:
        raise Gone("the policy names no asset")
    states = {one["name"]: one["state"] for one in status["assets"]}
    facts = tuple(
        f"{asset.name}: {asset.address}:{asset.port} {asset.protocol}, {states.get(asset.name, 'not asked yet')}"
        for asset in list(policy.assets.values())[:10]
    )
    return Finding(
        "inventory.assets", "observed", f"{several(len(policy.assets), 'devices')}, with address and protocol", facts
    )
