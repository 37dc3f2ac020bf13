"""The pack: everything that a report rests on in one zip file, which somebody who never saw the product can check.

    report.html report.csv results.json       the report, and every result behind it
    oscal/...                                 assessment results, and a catalogue of ids with our own words
    entries/N.json                            each entry that is referred to, with its proof of inclusion
    consistency/N.json                        that the log goes on from a head that a witness kept
    witnesses/NAME.note                       the newest head that a witness kept, with its co-signature
    proofs/HASH.json papers/HASH baselines/HASH.json    documents by their hash
    signers.json clocks.json checkpoint log.vkey README.txt
    manifest.json manifest.note               SHA-256 of all, and a signed note over the manifest's hash

All of it follows from the log under one checkpoint, and from documents by hash: the same log gives the same bytes.
Nothing is compressed, since compressors differ; times in the archive are fixed, names sorted.

Not here: checking a pack (tools/verify_evidence.py, which shares no code with this).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import itertools
import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from cofferdam import owned
from cofferdam.audit.checkpoint import SignerKey, open_checkpoint, sign_note
from cofferdam.audit.show import last_moment, moment
from cofferdam.audit.tree import consistency_proof, inclusion_proof
from cofferdam.errors import AuditError, CofferdamError
from cofferdam.evidence import gather, oscal, reports
from cofferdam.evidence.clocks import calendar, dues
from cofferdam.evidence.heads import older, went_on
from cofferdam.evidence.model import Framework
from cofferdam.evidence.standing import Standing
from cofferdam.evidence.witness import COLLECTOR
from cofferdam.evidence.workbench import Bench

FORMAT = "cofferdam-evidence-pack-v1"
MOST_ENTRIES = 50_000
"""Entries that one pack refers to: more than a year of every check, each of which is found again once a day or more
often. What somebody who owns the gate writes into a period beyond that costs the oldest entries of that period, and the
pack says which. The verifier takes 60,000 files."""
MOST_BYTES = 48 << 20
"""What those of the period take together in the log, and in the results once more: the verifier takes no file of more
than 128 MB."""
MOST_CITED = 100
"""Entries that the words of one result name: so many are in the pack. With signers, attestations and an entry for each
check they stay below what a pack refers to, whatever a gate writes."""
CITED_BYTES = 256 << 10
"""And what those of one that counts now take together in the log."""
MOST_HEADS = 2000
"""Heads kept by witnesses that one pack shows to be of its log; the oldest are left out."""
ATTEMPTS = 5
EPOCH = (1980, 1, 1, 0, 0, 0)
KINDS = (
    "attestation-made", "attestation-withdrawn", "signer-added", "signer-removed", "baseline-taken", "pack-made",
    "drill-done", "proof-done", "policy-loaded", "policy-refused", "severed", "restored", "clock-jump", "torn-tail",
    "export-stood", "gate-started", "gate-stopped", "alarm", "recording-marked", "entries-dropped", "night-done",
)  # fmt: skip
"""Kinds whose entries of the period are all in the pack, beside those of the results."""
CITED = re.compile(r"\bentry (\d{1,15})\b")
"""How words of a check name an entry of the log."""
PUBLIC = ("nist-800-53r5",)
"""Frameworks that have a public OSCAL catalogue: no catalogue of ours goes with them."""
README = """\
A pack of evidence, made by the gate of {site}.

report.html is for people. Everything it says comes from entries of the gate's audit log, which lie under entries/ each
with a proof that it stands in the log under the signed checkpoint. To check all of it without the product:

    python3 verify_evidence.py PACK.zip --key log.vkey

Take the key from the site by another way than this pack: a key that comes along proves nothing. verify_evidence.py is
in the folder tools of the project's source; it needs Python and the package `cryptography`.

Statuses: proved, tested, observed, attested, stale, not covered, failed. Whether a standard's requirements are met is
for an assessor to say.
"""


class Pack(NamedTuple):
    """A pack's bytes. `signed`: with the log's key; `missing`: documents that the log names and nobody kept;
    `left_out`: how many of the oldest entries of the period, those below `below`; `uncited`: how many that the report
    names in its words, and that are too many or too large."""

    data: bytes
    digest: str
    size: int
    entries: int
    signed: bool
    missing: tuple[str, ...]
    left_out: int = 0
    below: int = 0
    uncited: int = 0


def make(state: Path, framework_of: Any, **period: Any) -> Pack:
    """As `make_once`. While a gate writes, files of the log change under the reading, and it is done again."""
    for _ in range(ATTEMPTS - 1):
        with contextlib.suppress(AuditError):
            return make_once(state, framework_of, **period)
    return make_once(state, framework_of, **period)


def make_once(
    state: Path, framework_of: Any, *, since: str | None = None, until: str | None = None, level: int = 0,
    kept: Sequence[bytes] = (),
) -> Pack:  # fmt: skip
    """A pack over the log as the last checkpoint has it. `framework_of(bench)` gives the framework; `since`, `until`:
    times as a user says them; `kept`: checkpoints that somebody else has, from which the pack is to show that the log
    goes on.

    Raises:
        CofferdamError: no log, no checkpoint yet, or no entry of that period.
        AuditError: a kept checkpoint is not of this log.
    """
    bench = Bench.under_checkpoint(state)
    note = bench.reader.checkpoint_note()
    size = bench.reader.checkpoint().size
    if not size:
        raise CofferdamError("the log has no signed checkpoint yet", hint="a moment later it has")
    framework: Framework = framework_of(bench)
    from_ns = moment(since) if since else bench.history.first_ns
    to_ns = min(last_moment(until), bench.history.last_ns) if until else bench.history.last_ns
    if to_ns < max(from_ns, bench.history.first_ns):
        raise CofferdamError(
            f"the log has no entry from {reports.when(from_ns)} to {reports.when(to_ns)}",
            hint=f"it has entries from {reports.when(bench.history.first_ns)} to {reports.when(bench.history.last_ns)}",
        )
    now = bench.at(to_ns)
    clocks = dues(bench.catalogue, bench.then(to_ns), to_ns)
    earlier = bench.at(from_ns) if since else None
    made = reports.make(
        bench.catalogue, framework, now, version=_version(bench), level=level, clocks=clocks, earlier=earlier
    )
    chosen = set(_needed(bench, now, from_ns, to_ns))
    named = [list(_cited(bench, (one.says, *one.facts))) for one in now.checks.values() if one.index >= 0]
    chosen |= _shown(bench, named, size)
    period = sorted(set(_of_the_period(bench, from_ns, to_ns)) - chosen)
    left = period[: max(0, len(chosen) + len(period) - MOST_ENTRIES)]
    left += _too_large(bench, period[len(left) :], size)
    chosen |= set(period[len(left) :])
    below = left[-1] + 1 if left else 0
    uncited = len({index for each in named for index in each} - chosen)
    files: dict[str, bytes] = {
        "README.txt": README.format(site=bench.history.site).encode(),
        "report.html": reports.as_html(made).encode(),
        "report.csv": reports.as_csv(made).encode(),
        "results.json": _json(_results(bench, made, now, chosen, from_ns, to_ns)),
        "oscal/assessment-results.json": _json(oscal.assessment_results(made)),
        "clocks.json": _json(msgspec.to_builtins(clocks)),
        "clocks.ics": calendar(clocks, bench.history.site).encode(),
        "signers.json": _json(msgspec.to_builtins(bench.history.signers)),
        "checkpoint": note,
        "log.vkey": f"{bench.reader.key.text}\n".encode(),
    }
    if framework.id not in PUBLIC:
        files["oscal/catalog.json"] = _json(oscal.catalog(framework, reports.when(to_ns)))
    files |= dict(_proven(bench, chosen, size))
    files |= dict(_consistency(bench, size))
    files |= dict(_going_on(bench, note, kept))
    documents, missing = _documents(bench, chosen)
    for name, (head, note) in _witnessed(bench, chosen).items():
        if head == size or f"consistency/{head}.json" in files:
            files[name] = note
        else:
            missing.append(name)  # the entries around it have gone from the log
    files |= documents
    manifest = _json(
        {
            "format": FORMAT, "site": bench.history.site, "framework": framework.id, "entries": size,
            "from": reports.when(from_ns), "to": reports.when(to_ns), "level": level, "missing": missing,
            **({"left_out": {"entries": len(left), "below": below}} if left else {}),
            **({"not_cited": uncited} if uncited else {}),
            "files": {name: {"sha256": _hash(data), "bytes": len(data)} for name, data in sorted(files.items())},
        }
    )  # fmt: skip
    files["manifest.json"] = manifest
    signer = _signer(state)
    if signer is not None:
        text = f"cofferdam evidence pack of {bench.history.site}\n{_hash(manifest)}\n{framework.id}\n{size} entries\n"
        files["manifest.note"] = sign_note(text, signer)
    data = _zip(files)
    return Pack(data, _hash(data), size, len(chosen), signer is not None, tuple(missing), len(left), below, uncited)


def _version(bench: Bench) -> str:
    started = bench.history.last("gate-started")
    return str(started.event.get("version", "?")) if started is not None else "?"


def _needed(bench: Bench, now: Standing, from_ns: int, to_ns: int) -> Iterator[int]:
    """The indexes of what the present state rests on. Each kind of it has its bound (history)."""
    for state in now.checks.values():
        if state.index >= 0:
            yield state.index
    yield from bench.backing.entries
    # Who might sign is needed from the beginning.
    for one in bench.history.signers:
        yield one.added
        if one.removed >= 0:
            yield one.removed
    for made in bench.attestations:
        if made.time_ns <= to_ns:
            yield made.index
            if made.withdrawn >= 0:
                yield made.withdrawn
    for kind in ("policy-loaded", "gate-started"):  # by which policy and version the first of the period were found
        yield from [one.index for one in bench.history.of(kind) if one.time_ns <= from_ns][-1:]
        yield from [one.index for one in bench.history.of(kind) if one.time_ns <= to_ns][-1:]


def _of_the_period(bench: Bench, from_ns: int, to_ns: int) -> Iterator[int]:
    """And of all that happened then."""
    for results in bench.history.results.values():
        for result in results:
            if from_ns <= result.time_ns <= to_ns:
                yield result.index
                if result.outcome == "failed":
                    yield from itertools.islice(_cited(bench, (result.says, *result.facts)), MOST_CITED)
    for kind in KINDS:
        yield from (one.index for one in bench.history.of(kind) if from_ns <= one.time_ns <= to_ns)


def _too_large(bench: Bench, period: Sequence[int], size: int) -> list[int]:
    """The oldest of the period, without which the others take no more than MOST_BYTES."""
    lengths = [len(entry) for _, entry in bench.reader.some(period, size)]
    room = MOST_BYTES - sum(lengths)
    count = 0
    while room < 0:
        room += lengths[count]
        count += 1
    return list(period[:count])


def _cited(bench: Bench, words: Iterable[str]) -> Iterator[int]:
    """Entries that a report names in its words, as far as the log has them: whoever reads of one wants to see it."""
    named = (int(number) for text in words for number in CITED.findall(text))
    yield from (number for number in named if bench.history.first <= number < bench.history.size)


def _shown(bench: Bench, named: Sequence[Sequence[int]], size: int) -> set[int]:
    """Of the entries that each result names the first, as many as it may."""
    named = [each[:MOST_CITED] for each in named]
    length = {index: len(entry) for index, entry in bench.reader.some({one for each in named for one in each}, size)}
    shown = set()
    for each in named:
        room = CITED_BYTES
        for index in each:
            room -= length[index]
            if room < 0:
                break
            shown.add(index)
    return shown


def _results(
    bench: Bench, made: reports.Report, now: Standing, chosen: set[int], from_ns: int, to_ns: int
) -> dict[str, Any]:
    return {
        "format": "cofferdam-evidence-results-v1",
        "report": reports.as_json(made),
        "checks": {
            name: {"best": check.best, "valid": check.valid, "says": check.says}
            for name, check in bench.catalogue.checks.items()
        },
        "now": {name: msgspec.to_builtins(state) for name, state in now.checks.items()},
        "history": [
            msgspec.to_builtins(one)
            for results in bench.history.results.values()
            for one in results
            if from_ns <= one.time_ns <= to_ns and one.index in chosen
        ],
        "attestations": [msgspec.to_builtins(one) for one in bench.attestations if one.time_ns <= to_ns],
        "policies": [
            {"index": one.index, "time": reports.when(one.time_ns), "policy": one.event.get("policy"),
             "previous": one.event.get("previous", "")}
            for one in bench.history.of("policy-loaded") if one.time_ns <= to_ns
        ],
    }  # fmt: skip


def _proven(bench: Bench, chosen: set[int], size: int) -> Iterator[tuple[str, bytes]]:
    hashes = bench.reader.hashes(size)
    for index, entry in bench.reader.some(chosen, size):
        path = [base64.b64encode(one).decode() for one in inclusion_proof(index, size, hashes)]
        yield f"entries/{index}.json", _json({"index": index, "entry": entry.decode(), "hashes": path})


def _consistency(bench: Bench, size: int) -> Iterator[tuple[str, bytes]]:
    """For each head that a witness has on record: that this log begins with it."""
    kept = {
        int(one.event.get("next", 0)) for one in bench.history.of("export-stood")
        if str(one.event.get("collector", "")).startswith(COLLECTOR) and one.event.get("working")
    }  # fmt: skip
    hashes = bench.reader.hashes(size)
    for old in sorted(one for one in kept if 0 < one < size)[-MOST_HEADS:]:
        with contextlib.suppress(AuditError):  # the entries around it have gone from the log
            path = [base64.b64encode(one).decode() for one in consistency_proof(old, size, hashes)]
            yield f"consistency/{old}.json", _json({"size": old, "hashes": path})


def _going_on(bench: Bench, note: bytes, kept: Sequence[bytes]) -> Iterator[tuple[str, bytes]]:
    """For each checkpoint that somebody has kept: that this log begins with it. Raises: AuditError, if it does not."""
    now = open_checkpoint(note, bench.reader.key)
    for text in kept:
        before = open_checkpoint(text, bench.reader.key)
        older(before.size, now.size)
        proof: Sequence[bytes] = ()
        if 0 < before.size < now.size:
            proof = consistency_proof(before.size, now.size, bench.reader.hashes(now.size))
            path = [base64.b64encode(one).decode() for one in proof]
            yield f"consistency/{before.size}.json", _json({"size": before.size, "hashes": path})
        went_on(before, note, proof, bench.reader.key)


def _witnessed(bench: Bench, chosen: set[int]) -> dict[str, tuple[int, bytes]]:
    """The newest head that each witness of the policy kept, as the log has it on record: its size, and the note."""
    found: dict[str, tuple[int, bytes]] = {}
    for one in bench.history.of("export-stood"):
        name, note = str(one.event.get("collector", "")), str(one.event.get("note", ""))
        if one.index in chosen and note and name.startswith(COLLECTOR):
            found[f"witnesses/{name.removeprefix(COLLECTOR)}.note"] = (int(one.event.get("next", 0)), note.encode())
    return found


def _documents(bench: Bench, chosen: set[int]) -> tuple[dict[str, bytes], list[str]]:
    """Reports of proofs, papers, approved baselines: by the hashes that the chosen entries name."""
    wanted = [
        (gather.PROOFS, str(one.event.get("report")), ".json") for one in bench.history.of("proof-done")
        if one.index in chosen
    ]  # fmt: skip
    wanted += [(gather.PAPERS, one.paper, "") for one in bench.attestations if one.index in chosen and one.paper]
    wanted += [
        (gather.BASELINES, str(one.event.get("baseline")), ".json") for one in bench.history.of("baseline-taken")
        if one.index in chosen
    ]  # fmt: skip
    found: dict[str, bytes] = {}
    missing: list[str] = []
    for kind, digest, end in sorted(set(wanted)):
        name = f"{kind}/{digest}{end}"
        try:
            data = (gather.folder(bench.state, kind) / f"{digest}{end}").read_bytes()
        except OSError:
            data = b""
        if data and (kind == gather.PROOFS or _hash(data) == digest):
            found[name] = data
        else:
            missing.append(name)
    return found, missing


def _signer(state: Path) -> SignerKey | None:
    """The log's key, which root may read; None for others."""
    try:
        return SignerKey.parse(owned.read(state / "keys" / "audit.key").decode())
    except OSError:
        return None


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False).encode() + b"\n"


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _zip(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, EPOCH)
            info.external_attr = 0o100644 << 16
            info.create_system = 3
            archive.writestr(info, files[name])
    return out.getvalue()
