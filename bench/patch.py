"""`make bench ARGS=--patch`: what the patch relay's own code costs, each beside its peer on the same machine.

    refresh   TUF metadata with 1,000 released files, believed anew by an installer that starts
    apt       a snapshot of 5,000 packages, proved as the examiner does
    push      100 MB by SFTP and read back twice, beside sftp's put and get of the same (OpenSSH)
    proof     a cabinet of 500 MB by its Authenticode signature, beside SHA-256 alone (osslsigncode, gcab)
    polls     a gate with 500 assets, and polls of hawkBit's kind, each on a connection of its own by TLS: the
              installer's share of a core if each of them polls every 30 s

Not here: clamd, trees that are served beside nginx.
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
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

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

    def cold() -> None:
        shutil.rmtree(folder / "trusted", ignore_errors=True)
        assert len(believed(site.trust())) == count

    trust = site.trust()
    believed(trust)
    return {"goal_s": 0.2, "cold": timed(cold), "again": timed(trust.refresh)}


def apt(folder: Path, count: int) -> dict[str, Any]:
    from tests.brokers.patch.makers import Gpg

    from cofferdam.brokers.patch import apt_bundle

    vendor = Gpg(folder / "gpg")
    packages, debs = [], []
    for number in range(count):
        data = b"!<arch>\n" + os.urandom(20_000)
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
    file = folder / "snapshot"
    with tarfile.open(file, "w") as archive:
        for name, data in [
            ("dists/stable/InRelease", signed),
            ("dists/stable/main/binary-amd64/Packages", index),
            *debs,
        ]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    version = f"{now:%Y%m%dT%H%M%SZ}"
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


def polls(folder: Path, count: int) -> dict[str, Any]:
    import ssl
    from http.client import HTTPSConnection

    from tests.gate.patching import Works

    class Many(Works):
        def write_policy(self) -> None:
            super().write_policy()
            names = [f"box-{number}" for number in range(count)]
            text = self.policy.read_text().replace('", plain: true}\n    products', '"}\n    products', 1)
            who, way = (
                "  {}: {{zone: plant, addresses: [127.0.0.1]}}\n",
                "      {0}: {{address: 127.0.0.1, pull: {0}}}\n",
            )
            for before, each in (("  panel: {zone", who), ("      panel: {address", way)):
                text = text.replace(before, "".join(each.format(name) for name in names) + before, 1)
            rule = f"      - {{asset: [{', '.join(names)}], install: plc-firmware, ring: line}}\n"
            self.policy.write_text(text.replace("gate: {", f"{rule}gate: {{", 1))

    def certified(works: Works) -> None:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
             "/CN=gate", "-keyout", folder / "gate.key", "-out", folder / "gate.pem"],
            check=True, capture_output=True,
        )  # fmt: skip
        works.patch("certificate", "plant", "--policy", str(works.policy), "--certificate", str(folder / "gate.pem"),
                    "--key", str(folder / "gate.key"))  # fmt: skip

    works = Many(folder / "works", prepare=certified)
    try:
        key = works.told("key", "new", "box-0", "--policy", str(works.policy))["key"]
        works.release("fw.bin", b"firmware", "1.0")
        halves = [half for pair in works.gate.status()["pairs"] for half in pair["halves"]]
        pid = next(int(half["pid"]) for half in halves if half["name"].endswith("installer"))
        context = ssl.create_default_context(cafile=str(folder / "gate.pem"))
        context.check_hostname = False

        def cpu() -> float:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

        def poll() -> float:
            begun = time.perf_counter()
            there = HTTPSConnection("127.0.0.1", works.plant, timeout=20, context=context)
            there.request("GET", "/DEFAULT/controller/v1/box-0", headers={"Authorization": f"GatewayToken {key}"})
            answer = there.getresponse()
            said = answer.read()
            there.close()
            assert answer.status == 200 and b"polling" in said, (answer.status, said)
            return time.perf_counter() - begun

        for _ in range(50):
            poll()
        before, begun = cpu(), time.monotonic()
        took = sorted(poll() for _ in range(1500))
        spent, lasted, rests = cpu() - before, time.monotonic() - begun, cpu()
        time.sleep(10)
        idle = (cpu() - rests) / 10
        each = (spent - idle * lasted) / len(took)
        share, p50, p99 = idle + each * count / 30, took[len(took) // 2], took[int(len(took) * 0.99)]
        return {
            "goal": 0.05, "share": round(share, 4), "idle": round(idle, 4), "poll_ms": round(1000 * each, 3),
            "goal_p99_ms": 20, "p50_ms": round(1000 * p50, 2), "p99_ms": round(1000 * p99, 2),
        }  # fmt: skip
    finally:
        works.close()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="*", default=[])
    args = parser.parse_args()
    found: dict[str, Any] = {"load": os.getloadavg()[0]}
    works: tuple[tuple[str, Callable[[Path, int], dict[str, Any]], int], ...] = (
        ("refresh", refresh, 1000), ("apt", apt, 5000), ("push", push, 100_000_000), ("proof", proof, 500_000_000),
        ("polls", polls, 500),
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
