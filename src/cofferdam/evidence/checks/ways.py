"""Checks of what goes over: the relay's numbers, the mirror's reader, secured OPC UA, the one-way channel, algorithms.

Not here: people's sessions (people, services).
"""

from __future__ import annotations

from cofferdam.brokers.registry import BROKERS
from cofferdam.brokers.relay.ledger import Logged, booked
from cofferdam.enforce.profile import Can
from cofferdam.evidence.checks.registry import Table
from cofferdam.evidence.checks.services import lately, verdict
from cofferdam.evidence.inputs import Gone, Inputs
from cofferdam.evidence.model import Finding, several

TABLE = Table()
WEAK = ("Basic128Rsa15", "Basic256")
"""Security policies of OPC UA that are broken, as whole words."""
UNSECURED = "none"


@TABLE.check("relay.exactly-once", "history")
def once(known: Inputs) -> Finding:
    """Each message was booked once: no number of a channel was given out twice, in the commits that the log has."""
    history = known.the_history()
    pushed = lately(history, "messages-pushed", "no message has been booked yet")
    shown = [one for kind in ("store-opened", "store-kept") for one in lately(history, kind)]
    every = sorted((*pushed, *shown), key=lambda one: one.index)
    counted, passed = booked(Logged(one.index, one.time_ns, one.event) for one in every)
    counts = {one.index for one in counted}
    ends: dict[tuple[str, str], int] = {}
    wrong, count = [], 0
    for one in pushed:
        event = one.event
        if event.get("again") or one.index not in counts:
            continue  # told once more after a crash, or of a message that a power cut took back
        key, first = (str(event["store"]), str(event["channel"])), int(event["first"])
        if first < ends.get(key, 0):
            wrong.append(f"entry {one.index}: {event['channel']} {first} was booked before")
        ends[key] = max(ends.get(key, 0), first + int(event["count"]))
        count += int(event["count"])
    facts = [f"{channel}: up to {end - 1}" for (_, channel), end in sorted(ends.items())]
    says = f"{several(count, 'messages')} of {several(len(ends), 'channels')}, each with a number of its own"
    if passed:
        says += f"; {several(len(passed), 'entries', 'entry')} passed over, which the store lacked when it was opened"
        facts += [str(one) for one in passed]
    return verdict("relay.exactly-once", wrong, "observed", says, facts, pushed)


@TABLE.check("mirror.read-only", "policy")
def read_only(known: Inputs) -> Finding:
    """The part that serves readers may change nothing: what the launcher gives it has no way to write."""
    policy = known.the_policy()
    if not any(one.broker == "mirror" for one in policy.conduits.values()):
        raise Gone("the policy has no mirror")
    crew = BROKERS["mirror"].crew
    readers = {name: one for name, one in crew.parts.items() if one.reads}
    wrong = [f"{name} may write files" for name, one in readers.items() if one.store or one.can & Can.STORE]
    wrong += [f"{name} has a pipe to {target}" for source, target in crew.pipes for name in readers if source == name]
    facts = [f"{name} sees the store of {', '.join(one.reads)} as a mount that it cannot write" for name, one in
             readers.items()]  # fmt: skip
    return verdict("mirror.read-only", wrong, "observed", "readers have no part that could change anything", facts, ())


@TABLE.check("opcua.secured", "policy")
def secured(known: Inputs) -> Finding:
    """Both legs are signed and encrypted, by the policy in force, and the server has to show who it is."""
    policy = known.the_policy()
    assets = [one for one in policy.assets.values() if one.security is not None]
    if not assets:
        raise Gone("the policy has no asset of OPC UA with `security`")
    wrong, facts = [], []
    for one in assets:
        said = one.security
        if said is None:
            continue
        legs = {"towards the asset": (said.asset,), "for clients": said.clients}
        for leg, modes in legs.items():
            wrong += [f"{one.name}: {mode or 'nothing'} {leg}" for mode in modes
                      if mode.split(" ")[0] in (*WEAK, UNSECURED, "") or mode.endswith(" sign")]  # fmt: skip
        facts.append(f"{one.name}: {said.asset} towards it, {', '.join(said.clients)} for clients")
    return verdict("opcua.secured", wrong, "observed", f"both legs of {len(assets)} assets are encrypted", facts, ())


@TABLE.check("crypto.used", "policy", "files")
def algorithms(known: Inputs) -> Finding:
    """Algorithms in use, as the policy and the code have them, and none is weak. (Not each minute in the gate: the
    jump server's list comes with a library that the gate does not load.)"""
    policy = known.the_policy()
    brokers = {one.broker for one in policy.conduits.values()}
    facts = ["the log: Ed25519 over SHA-256 (RFC 8032, RFC 6962)"]
    if "jump" in brokers:
        from cofferdam.brokers.jump.alone import CIPHERS

        facts.append(f"SSH: {', '.join(CIPHERS)}")
    if "relay" in brokers or "mirror" in brokers:
        facts.append("HTTPS and databases: TLS 1.2 or later")
    used = sorted({mode for one in policy.assets.values() if one.security is not None
                   for mode in (one.security.asset, *one.security.clients)})  # fmt: skip
    facts += [f"OPC UA: {mode}" for mode in used]
    facts += [f"witness {one.name}: {one.key.split(' ')[0] if one.way == 'sftp' else 'Ed25519'}"
              for one in policy.audit.witnesses]  # fmt: skip
    wrong = [f"OPC UA: {mode}" for mode in used if mode.split(" ")[0] in WEAK]
    wrong += [f"witness {one.name}: plain ssh-rsa" for one in policy.audit.witnesses if one.key.startswith("ssh-rsa ")]
    return verdict(
        "crypto.used",
        wrong,
        "observed",
        several(len(facts), "kinds of cryptography are in use", "kind of cryptography is in use"),
        facts,
        (),
    )
