"""Gathers what checks look at, from a gate's state directory and from this machine. Blocking.

The order of trust: the log, by its public key; the proof's report, by the same key and by the hash that the log has;
the status and policy of the running gate, which the caller asks for; the machine.

Not here: asking the gate (the verb), the checks.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import hashlib
import itertools
import os
import shutil
import stat
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from cofferdam import __version__
from cofferdam.audit.checkpoint import VerifierKey
from cofferdam.audit.files import LogReader
from cofferdam.audit.keys import find_public, write_beside
from cofferdam.audit.show import verify_folder
from cofferdam.errors import CofferdamError, GateError
from cofferdam.evidence.history import History, read
from cofferdam.evidence.inputs import FUTURE_NS, Disk, Inputs, Proven, Recorded, Software, TimeDaemon, Verified
from cofferdam.evidence.recorded import recorded
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.lint import lint
from cofferdam.policy.load import load
from cofferdam.policy.problems import Problem
from cofferdam.policy.table import CompiledPolicy
from cofferdam.proof.run import check as check_report

FOLDER = "evidence"
PROOFS, PAPERS, BASELINES, CURSORS = "proofs", "papers", "baselines", "export"
EXPORT_USER = 65533
"""Whom an export's processes run as, where the watcher is root: nobody else's number, and below `nobody`."""
KEPT_PROOFS = 400
"""Reports that are kept; the oldest go first."""
RECORDINGS_SECONDS = 600.0
"""For recordings, among all that is looked at: half of what the nightly run may take, whatever an archivist keeps."""
DISTRIBUTION = "cofferdam-gate"
"""As it is installed: `cofferdam` is another project's."""
_STA_UNSYNC = 0x0040
_TIMEX_BYTES = 208


def folder(state: Path, name: str, *, make: bool = False) -> Path:
    """A folder of the evidence in the state directory, and nobody else's: the gate's user, which has no privilege, may
    make names there as well, and root follows none that it made.

    Raises: GateError.
    """
    for path in (state / FOLDER, state / FOLDER / name):
        if make:
            with contextlib.suppress(FileExistsError):
                path.mkdir(mode=0o700)
        try:
            found = path.lstat()
        except FileNotFoundError:
            continue
        allowed = (os.geteuid(), EXPORT_USER) if name == CURSORS else (os.geteuid(), 0)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in allowed or found.st_mode & 0o022:
            raise GateError(
                f"{path} is not a folder of this user's alone",
                hint="look at who made it, then remove it or give it back",
            )
    return state / FOLDER / name


def log_key(state: Path) -> VerifierKey:
    """Raises: AuditError."""
    return find_public(None, state / "keys" / "audit.pub")


def history(state: Path, size: int | None = None, until_ns: int | None = None) -> tuple[LogReader, History]:
    """Reads the log, whole or its first `size` entries, or as it was at a time. Raises: AuditError."""
    reader = LogReader(state / "audit", log_key(state))
    count = None if size is None else max(0, size - reader.first())
    return reader, read(itertools.islice(reader.entries(), count), until_ns)


def keep_report(state: Path, text: str, digest: str) -> Path:
    """Keeps a proof's report, as JSON with its note. Raises: OSError."""
    where = folder(state, PROOFS, make=True)
    path = where / f"{digest}.json"
    write_beside(path, text.encode())
    kept = sorted(where.glob("*.json"), key=lambda one: one.stat().st_mtime)
    for old in kept[:-KEPT_PROOFS]:
        old.unlink(missing_ok=True)
    return path


def proven(state: Path, found: History, policy: str, now_ns: int) -> Proven | None:
    """The report of the last whole proof that the log knows of; None where none is kept."""
    for one in reversed(found.of("proof-done")):
        path = folder(state, PROOFS) / f"{one.event.get('report')}.json"
        if path.exists():
            return admit(path, log_key(state), found.site, policy, now_ns)
    return None


def admit(path: Path, key: VerifierKey, site: str, policy: str, now_ns: int) -> Proven:
    """A report, and why it is not taken. Raises: CofferdamError, if the file holds none."""
    checked = check_report(path, key)
    report, why = checked.report, checked.why
    if not why and site and report.site != site:
        why = f"it is of the site {report.site}"
    if not why and policy and report.policy != policy:
        why = f"it is about another policy than the one in force ({report.policy[:12]})"
    if not why and report.finished_ns > now_ns + FUTURE_NS:
        why = "its time is still to come"
    return Proven(report, why)


def policy_of(path: Path, digest: str, now_ns: int) -> tuple[CompiledPolicy, tuple[Problem, ...]] | None:
    """The policy at `path` with its warnings, if it is the one with this hash."""
    try:
        loaded = load(path)
        policy = compile_policy(loaded, now_ns=now_ns)
    except (CofferdamError, OSError):
        return None
    if policy.hash != digest:
        return None
    return policy, lint(loaded, now_ns=now_ns)


def inputs(
    state: Path, status: Mapping[str, Any] | None, policy_path: Path | None, found: History, *, verify: bool = True,
    seconds: float = RECORDINGS_SECONDS,
) -> Inputs:  # fmt: skip
    """Everything that can be had. `policy_path`: where the policy in force lies, as far as that is known; `seconds`:
    how long recordings are read."""
    now = time.time_ns()
    digest = status["policy"]["hash"] if status is not None else ""
    known = Inputs(now, status=status, history=found)
    if policy_path is not None and digest and (both := policy_of(policy_path, digest, now)) is not None:
        known = replace(known, policy=both[0], warnings=both[1])
    with contextlib.suppress(CofferdamError):
        known = replace(known, proven=proven(state, found, digest, now))
    if verify:
        known = replace(known, verified=_verified(state), recorded=_recorded(state, found, now, seconds))
    disk = _disk(state / "audit", found)
    software = installed()
    return replace(known, disk=disk, time_daemon=_clock(), software=software, components=len(components()))


def _verified(state: Path) -> Verified:
    done = verify_folder(state / "audit", log_key(state), None, None)
    return Verified(done.report.total, tuple(map(str, done.findings)))


def _recorded(state: Path, found: History, now_ns: int, seconds: float) -> Recorded | None:
    """None where they cannot be read: they are another user's, and root's."""
    try:
        return recorded(state, LogReader(state / "audit", log_key(state)), found.first_ns, now_ns, seconds)
    except (CofferdamError, OSError):
        return None


def _disk(where: Path, found: History) -> Disk | None:
    try:
        usage = shutil.disk_usage(where)
        size = sum(one.stat().st_size for one in where.rglob("*") if one.is_file())
    except OSError:
        return None
    days = (found.last_ns - found.first_ns) / (86_400 * 10**9)
    return Disk(usage.free, usage.total, int(size / days) if days >= 1 else 0)


def _clock() -> TimeDaemon | None:
    """adjtimex(2), read only."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
        if libc.adjtimex(buffer) < 0:
            return None
    except (OSError, AttributeError):
        return None
    # struct timex, 64 bits: modes (4, padded to 8), offset, freq, maxerror, esterror (8 each), status (4).
    maxerror = int.from_bytes(buffer.raw[24:32], sys.byteorder, signed=True)
    status = int.from_bytes(buffer.raw[40:44], sys.byteorder, signed=True)
    return TimeDaemon(not status & _STA_UNSYNC, maxerror / 1e6)


# --- the gate's own files ---------------------------------------------------------------------------------------


def installed() -> Software | None:
    """The files of the installed package against the hashes of its record; None where it was not installed as one."""
    try:
        here = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return None
    wrong, count = [], 0
    recorded = set()
    for one in here.files or ():
        path = Path(str(one.locate()))
        recorded.add(path.resolve())
        if one.hash is None or path.suffix == ".pyc":
            continue
        count += 1
        try:
            data = path.read_bytes()
        except OSError:
            wrong.append(f"{one}: missing")
            continue
        if _record_hash(one.hash.mode, data) != one.hash.value:
            wrong.append(f"{one}: changed")
    package = Path(str(sys.modules["cofferdam"].__file__)).parent
    if package.resolve() / "__init__.py" not in recorded:
        return None  # an editable install: the files that run are not those of the record
    for path in package.rglob("*"):
        if path.is_file() and path.suffix != ".pyc" and path.resolve() not in recorded:
            wrong.append(f"{path}: of no release")
    return Software(count, tuple(wrong[:100]), here.version)


def _record_hash(mode: str, data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.new(mode, data).digest()).decode().rstrip("=")


def components() -> list[dict[str, str]]:
    """Name and version of everything installed beside the gate, sorted."""
    found = {(one.metadata["Name"] or "", one.version) for one in metadata.distributions()}
    return [{"name": name, "version": version} for name, version in sorted(found) if name]


def bill_of_materials(site: str) -> dict[str, Any]:
    """CycloneDX 1.6 of the gate."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {"type": "application", "name": "cofferdam", "version": __version__, "group": site}
        },
        "components": [
            {
                "type": "library", "name": one["name"], "version": one["version"],
                "purl": f"pkg:pypi/{one['name'].lower()}@{one['version']}",
                "bom-ref": f"pkg:pypi/{one['name'].lower()}@{one['version']}",
            }
            for one in components()
        ],
    }  # fmt: skip


def policy_file(state: Path, status: Mapping[str, Any]) -> Path | None:
    """Where the policy in force lies, or None where nobody can say."""
    from cofferdam.proof.run import policy_path

    with contextlib.suppress(CofferdamError, OSError, KeyError):
        return policy_path(state, status)
    return None
