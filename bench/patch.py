"""`make bench ARGS=--patch`: what the patch relay's own code costs, each beside its peer on the same machine.

    refresh   TUF metadata with 1,000 released files: by an installer that starts; by one that runs, of the same; and by
              one whose store was lost, which looks at the word of who brought each in and asked for it once more
    apt       a snapshot of 5,000 packages, proved as the examiner does
    push      100 MB by SFTP and read back twice, beside sftp's put and get of the same (OpenSSH)
    proof     a cabinet of 500 MB by its Authenticode signature, beside SHA-256 alone (osslsigncode, gcab)

Those that take a gate are in patch_gate: upload, pull, served, polls.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import io
import json
import os
import pwd
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from tests.brokers.patch.makers import Gpg

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))


def timed(work: Callable[[], Any], runs: int = 3) -> dict[str, float]:
    """Seconds by the clock and of processor time, with that of what it starts: the least of some runs."""

    def cpu() -> float:
        some = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(each.ru_utime + each.ru_stime for each in some)

    found = []
    for _ in range(runs):
        wall, before = time.perf_counter(), cpu()
        work()
        found.append((time.perf_counter() - wall, cpu() - before))
    return {"wall_s": round(min(each[0] for each in found), 4), "cpu_s": round(min(each[1] for each in found), 4)}


def refresh(folder: Path, count: int) -> dict[str, Any]:
    from tests.brokers.patch.makers import ssh_key
    from tests.brokers.patch.test_trust import PEOPLE, Site, believed
    from tuf.api.metadata import TargetFile

    site = Site(folder, {name: ssh_key(folder, name) for name in PEOPLE})
    draft = site.repository.draft(site.custom(1), 10, "ab" * 32)
    for number in range(2, count + 1):
        custom = site.custom(number)
        said = msgspec.json.decode(msgspec.json.encode(custom))
        draft.signed.targets[custom.path] = TargetFile(10, {"sha256": "ab" * 32}, custom.path, {"custom": said})
    site.sign(draft, "alice", "bob")
    site.repository.publish(draft)

    def starts() -> None:
        assert len(believed(site.trust())) == count

    def lost() -> None:
        shutil.rmtree(folder / "trusted", ignore_errors=True)
        starts()

    trust = site.trust()
    believed(trust)
    return {"goal_s": 0.2, "starts": timed(starts), "again": timed(trust.refresh), "store_lost": timed(lost)}


def snapshot(vendor: Gpg, file: Path, sizes: Sequence[int]) -> tuple[str, list[str]]:
    """A Debian repository with a package of each size, in one file: its version, and where its packages are."""
    packages, debs = [], []
    for number, size in enumerate(sizes):
        data = b"!<arch>\n" + os.urandom(size)
        path = f"pool/p{number}_1_amd64.deb"
        debs.append((path, data))
        packages.append(
            f"Package: p{number}\nVersion: 1\nArchitecture: amd64\nFilename: {path}\nSize: {len(data)}\n"
            f"SHA256: {hashlib.sha256(data).hexdigest()}\nDescription: {'x' * 300}\n"
        )
    index = "\n".join(packages).encode()
    now = datetime.now(UTC).replace(microsecond=0)
    release = (
        f"Origin: Bench\nSuite: stable\nCodename: stable\nDate: {now:%a, %d %b %Y %H:%M:%S} UTC\n"
        f"Valid-Until: {now + timedelta(days=7):%a, %d %b %Y %H:%M:%S} UTC\nArchitectures: amd64\nComponents: main\n"
        f"SHA256:\n {hashlib.sha256(index).hexdigest()} {len(index)} main/binary-amd64/Packages\n"
    )
    signed = vendor._gpg("--clearsign", data=release.encode())
    with tarfile.open(file, "w") as archive:
        for name, data in [
            ("dists/stable/InRelease", signed),
            ("dists/stable/main/binary-amd64/Packages", index),
            *debs,
        ]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return f"{now:%Y%m%dT%H%M%SZ}", [path for path, _ in debs]


def apt(folder: Path, count: int) -> dict[str, Any]:
    from tests.brokers.patch.makers import Gpg

    from cofferdam.brokers.patch import apt_bundle

    vendor, file = Gpg(folder / "gpg"), folder / "snapshot"
    version, _ = snapshot(vendor, file, [20_000] * count)
    keys = [vendor.public()]
    vendor.close()

    def prove() -> None:
        found = apt_bundle.prove(file, version, keys, ["*"])
        assert found.facts["packages"] == str(count)

    return {"goal_s": 60, "bytes": file.stat().st_size, **timed(prove, 2)}


def push(folder: Path, size: int) -> dict[str, Any]:
    from tests.brokers.patch.makers import Sshd, listening, ssh_key, untold

    from cofferdam.brokers.patch import sftp
    from cofferdam.policy.terms.patch_rows import Sftp, Way

    sftp.prepare()
    user = pwd.getpwuid(os.getuid()).pw_name
    key = ssh_key(folder, "machine")
    sshd = Sshd(folder / "plc", key.with_suffix(".pub"))
    listening(sshd.port)
    file = folder / "fw.bin"
    file.write_bytes(os.urandom(size))
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    said = Sftp(port=sshd.port, user=user, host_key=sshd.host_key, path=f"{sshd.files}/{{file}}", secret="x")
    way, secret = (
        Way(asset="a", address="127.0.0.1", sftp=said),
        "openssh-key " + base64.b64encode(key.read_bytes()).decode(),
    )
    known = folder / "known"
    known.write_text(f"[127.0.0.1]:{sshd.port} {sshd.host_key}\n")

    def ours() -> None:
        found = asyncio.run(sftp.push(way, secret, file, "fw.bin", size, sha256, untold))
        assert found.state == "sent", found

    def theirs() -> None:
        back = f"get {sshd.files}/peer.bin /dev/null\n"
        script = f"put {file} {sshd.files}/peer.bin\n{back}{back}"
        subprocess.run(
            ["sftp", "-q", "-b", "-", "-P", str(sshd.port), "-i", str(key), "-o", f"UserKnownHostsFile={known}",
             f"{user}@127.0.0.1"],
            input=script.encode(), check=True, capture_output=True, timeout=300,
        )  # fmt: skip

    try:
        mine, peer = timed(ours), timed(theirs)
    finally:
        sshd.stop()
    ratio, cpu = round(peer["wall_s"] / mine["wall_s"], 2), round(peer["cpu_s"] / mine["cpu_s"], 2)
    return {"goal": 0.8, "ratio": ratio, "cpu_ratio": cpu, "ours": mine, "sftp": peer}


def proof(folder: Path, size: int) -> dict[str, Any]:
    from tests.brokers.patch.makers import HAS_PUBLISHERS, Publisher

    from cofferdam.brokers.patch.origin import Pins, prove

    if not HAS_PUBLISHERS:
        return {"left_out": "osslsigncode, wixl and gcab are not all installed"}
    publisher = Publisher(folder / "pki")
    (folder / "payload").write_bytes(os.urandom(size))
    subprocess.run(["gcab", "-c", "a.cab", "payload"], cwd=folder, check=True, capture_output=True)
    signed = publisher.sign(folder / "a.cab", folder / "signed.cab")
    pins = Pins([publisher.ca.read_bytes()])

    def alone() -> None:
        with signed.open("rb") as opened:
            hashlib.file_digest(opened, "sha256")

    mine, peer = timed(lambda: prove("authenticode", signed, b"", pins)), timed(alone)
    return {"ratio": round(mine["cpu_s"] / peer["cpu_s"], 2), "ours": mine, "sha256": peer}


def main() -> int:
    from patch_gate import polls, pull, served, upload

    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="*", default=[])
    args = parser.parse_args()
    found: dict[str, Any] = {"load": os.getloadavg()[0]}
    works: tuple[tuple[str, Callable[[Path, int], dict[str, Any]], int], ...] = (
        ("refresh", refresh, 1000), ("apt", apt, 5000), ("push", push, 100_000_000), ("proof", proof, 500_000_000),
        ("upload", upload, 1_000_000_000), ("pull", pull, 100_000_000), ("served", served, 1000), ("polls", polls, 500),
    )  # fmt: skip
    for name, work, size in works:
        if args.only and name not in args.only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            found[name] = work(Path(folder), size // 50 if args.quick else size)
            print(name, json.dumps(found[name]), flush=True)
    out = HERE / "results"
    out.mkdir(exist_ok=True)
    (out / f"patch-{datetime.now(UTC):%Y%m%dT%H%M%S}.json").write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
