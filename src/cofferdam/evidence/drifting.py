"""How the machine is configured now, against the baseline that a person approved by signature: what differs, and since
when.

A baseline that is not the last one on record is kept and recorded at each comparison, so that a difference has a time:
that of the first baseline since the approval from which on each has it.

Not here: the document and its differences (baseline), the signature (attest), the verbs.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cofferdam.errors import CofferdamError
from cofferdam.evidence import attest, baseline, gather
from cofferdam.evidence.history import Happening, History
from cofferdam.evidence.inputs import Drift, Software
from cofferdam.proof import reading

KEPT = 60
"""Baselines that are looked through for when a difference began."""
EPHEMERAL = 32768
"""UDP sockets from this port on are of questions that somebody asks, and come and go."""


def code_digest() -> str:
    """SHA-256 over all files of the running package, by name."""
    package = Path(str(sys.modules["cofferdam"].__file__)).parent
    found = hashlib.sha256()
    for path in sorted(one for one in package.rglob("*") if one.is_file() and one.suffix != ".pyc"):
        found.update(f"{path.relative_to(package)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()


def machine(pids: Mapping[str, int]) -> dict[str, Any]:
    """The host's network as the kernel has it (interfaces, addresses, routes, open ports, switches), and the users of
    these processes. Empty where nobody may look."""
    try:
        found = reading.network()
    except OSError:
        return {}
    listening = {
        f"{one['protocol']} {one['address']}:{one['port']}"
        for one in found["sockets"]
        if one["listening"]
        and not _loopback(one["address"])
        and not (one["protocol"].startswith("udp") and one["port"] >= EPHEMERAL)
    }
    users: dict[str, str] = {}
    for name, pid in pids.items():
        try:
            said = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        users[name] = re.findall(r"^Uid:\t(\d+)", said, re.MULTILINE)[0]
    return {
        "interfaces": {one["name"]: one["kind"] or "device" for one in found["links"]},
        "addresses": sorted(one for one in found["addresses"] if " fe80:" not in one),
        "routes": sorted(found["routes"]),
        "ports": sorted(listening),
        "switches": {name: value for name, value in found["switches"].items() if value not in ("0", "")},
        "users": users,
    }


def _loopback(address: str) -> bool:
    """What listens there is open to nobody else, and programs of the machine come and go."""
    return address.startswith("127.") or address in ("::1", "::ffff:127.0.0.1")


def now(status: Mapping[str, Any], found: History, software: Software | None) -> dict[str, Any]:
    """The configuration as one document: what changes by itself is not in it."""
    halves = [half for pair in status["pairs"] for half in pair["halves"] if half["ready"]]
    # Without namespaces a part has another user at each birth.
    pids = {half["name"]: half["pid"] for half in halves} if status["separation"] == "namespaces" else {}
    return {
        "format": baseline.FORMAT,
        "site": status["site"],
        "policy": status["policy"]["hash"],
        "separation": status["separation"],
        "facts": sorted(one["name"] for one in status["facts"] if one["in_force"]),
        "version": status["version"],
        "python": platform.python_version(),
        "kernel": platform.release(),
        "host": platform.node(),
        "components": {one["name"]: one["version"] for one in gather.components()},
        "code": code_digest(),
        "files": {"count": software.files, "wrong": list(software.wrong)} if software is not None else {},
        "machine": machine(pids),
        "pairs": {
            pair["name"]: {"broker": pair["broker"], "listens": sorted(pair["listens"])} for pair in status["pairs"]
        },
        "management": status["management"],
        "leak_probe_seconds": status["leak_probe"]["seconds"],
        "signers": sorted(f"{one.person}: {one.key}" for one in found.signers if one.removed < 0),
    }


def drift(state: Path, status: Mapping[str, Any], found: History, software: Software | None) -> Drift:
    """The comparison, as things are now."""
    document = now(status, found, software)
    digest = baseline.digest(document)
    approvals = attest.approvals(found)
    approved = next((one for one in reversed(approvals) if not one.trouble), None)
    if approved is None:
        return Drift(digest, "", "", (), approvals[-1].trouble if approvals else "")
    before = kept(state, approved.baseline)
    if before is None:
        gone = baseline.Difference("the approved baseline", approved.baseline, "its document is gone or was changed")
        return Drift(digest, approved.baseline, approved.person, (gone,))
    differences = baseline.differences(before, document)
    if differences:
        times = _since(state, found, approved.entry, before)
        differences = tuple(one._replace(since=times.get((one.what, one.before, one.now), "")) for one in differences)
    return Drift(digest, approved.baseline, approved.person, differences)


def kept(state: Path, digest: str) -> dict[str, Any] | None:
    """A baseline that was kept, if it is the one with this hash."""
    try:
        document = json.loads((gather.folder(state, gather.BASELINES) / f"{digest}.json").read_bytes())
    except (OSError, ValueError, CofferdamError):
        return None
    return document if isinstance(document, dict) and baseline.digest(document) == digest else None


def _since(state: Path, found: History, approved: int, before: dict[str, Any]) -> dict[tuple[str, str, str], str]:
    """For each difference that the last baseline on record had: when the first of those was taken that have it without
    a break."""
    taken: list[Happening] = [one for one in found.of("baseline-taken") if one.index > approved][-KEPT:]
    times: dict[tuple[str, str, str], str] = {}
    for one in taken:
        document = kept(state, str(one.event.get("baseline")))
        if document is None:
            continue
        at = datetime.fromtimestamp(one.at_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        there = {(each.what, each.before, each.now) for each in baseline.differences(before, document)}
        times = {each: times.get(each, at) for each in there}
    return times
