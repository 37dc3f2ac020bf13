"""What the patch relay costs in a gate as users start it (`make bench ARGS=--patch`), each beside its peer.

    upload    1 GB by HTTPS until people can sign it, beside clamd and SHA-256 alone: with the upload itself, and from
              its end; and the memory of the crew's parts
    pull      100 MB fetched from the gate by HTTPS, beside nginx: the first time (it is checked and copied) and again
    served    a Debian snapshot's packages, of sizes as Debian has them, by one connection of curl's, beside nginx
    polls     500 assets, and polls of hawkBit's kind, each on a connection of its own by TLS: the installer's share of
              a core if each of them polls every 30 s

Not here: what takes no gate (patch).
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import random
import shutil
import ssl
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

from patch import snapshot
from tests.brokers.patch.makers import HAS_CLAMD, clamd, listening, run
from tests.gate.patching import Works
from tests.gate.plant import Gate
from tests.ports import held_port
from tests.waiting import eventually

PRODUCTS = """      big: {origin: {pgp: vendor.asc}, most: 4 GB, scan: SCAN}
      host-packages: {origin: {apt: vendor.asc}, most: 4 GB, scan: none}"""
SOURCES = """    sources:
      debian: {apt: {at: "127.0.0.1:1", host: mirror.test, authority: gate.pem, path: /, suite: stable},
               every: 1 day}"""
RULES = """      - {source: debian, fetch: host-packages, packages: ['*']}
      - {who: stage, put: big}"""
SCAN_LIMITS = ("StreamMaxLength 4000M", "MaxFileSize 2000M", "MaxScanSize 4000M", "MaxScanTime 3600000")
KIB = 1024


class Served(Works):
    """Works with TLS at its doors, as users have it."""

    def __init__(self, folder: Path, **how: Any) -> None:
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
            "/CN=gate", "-keyout", folder / "gate.key", "-out", folder / "gate.pem")  # fmt: skip
        self.pem, self.private = folder / "gate.pem", folder / "gate.key"
        files = {"gate.pem": self.pem.read_bytes()}
        super().__init__(folder / "works", prepare=self._certified, gate=Gate, files=files, **how)

    def write_policy(self) -> None:
        super().write_policy()
        self.policy.write_text(self.policy.read_text().replace('", plain: true}', '"}'))

    def _certified(self, works: Works) -> None:
        for zone in ("office", "plant"):
            works.patch("certificate", zone, "--policy", str(works.policy), "--certificate", str(self.pem), "--key",
                        str(self.private))  # fmt: skip

    def parts(self) -> dict[str, int]:
        halves = [half for pair in self.gate.status()["pairs"] for half in pair["halves"]]
        return {str(half["name"]): int(half["pid"]) for half in halves}

    def signed(self, file: Path) -> Path:
        """Its vendor's signature, beside it."""
        made = file.with_name(f"{file.name}.asc")
        self.vendor._gpg("--yes", "--armor", "--output", str(made), "--detach-sign", str(file))
        return made


class Memory(threading.Thread):
    """The most that the crew's parts and jobs have held, in bytes: proportional set size, but for a file that one looks
    at, which is mapped."""

    def __init__(self, works: Served) -> None:
        super().__init__(daemon=True)
        self._gate, self._parts = works.gate.process.pid, set(works.parts().values())
        self.most, self._ends = 0, threading.Event()

    def run(self) -> None:
        while not self._ends.wait(0.2):
            self.most = max(self.most, sum(self._held(pid) for pid in self._parts | self._jobs()))

    def end(self) -> int:
        self._ends.set()
        self.join()
        return self.most

    def _jobs(self) -> set[int]:
        found = set()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if b"brokers.job" in (folder / "cmdline").read_bytes() and self._is_ours(int(folder.name)):
                    found.add(int(folder.name))
        return found

    def _is_ours(self, pid: int) -> bool:
        while pid > 1:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            if pid == self._gate:
                return True
        return False

    @staticmethod
    def _held(pid: int) -> int:
        held, looked_at = 0, False
        with contextlib.suppress(OSError):
            for row in Path(f"/proc/{pid}/smaps").read_text().splitlines():
                if row.startswith("Pss:"):
                    held += 0 if looked_at else KIB * int(row.split()[1])
                elif "-" in row.split(" ", 1)[0]:
                    looked_at = "/plain/" in row
        return held


def random_file(file: Path, size: int) -> Path:
    with file.open("wb") as out:
        for at in range(0, size, 1 << 20):
            out.write(os.urandom(min(1 << 20, size - at)))
    return file


def curl(*words: str | Path) -> None:
    subprocess.run(["curl", "-s", "-S", "-f", "-k", *map(str, words)], check=True, capture_output=True, timeout=3600)


def seconds(work: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def upload(folder: Path, size: int) -> dict[str, Any]:
    from cofferdam.brokers.kit import clamd as scanner

    if not HAS_CLAMD:
        return {"left_out": "clamd is not installed"}
    with clamd(folder / "clamd", *SCAN_LIMITS) as socket:
        works = Served(folder, products=PRODUCTS.replace("SCAN", "clamd"), rules=RULES.partition("\n")[2], clamd=socket)
        file = random_file(folder / "fw.bin", size)
        signature = works.signed(file)
        key = works.told("key", "new", "stage", "--policy", str(works.policy))["key"]
        number, came = 0, 0.0

        def ours() -> None:
            nonlocal number, came
            number += 1
            at = f"https://127.0.0.1:{works.office}/v1/products/big/{number}.0/fw.bin"
            for sent, where in ((signature, f"{at}.asc"), (file, at)):
                curl("-H", f"Authorization: Bearer {key}", "-T", sent, where)
            came = time.perf_counter()
            while (found := works.told("show", str(number)))["state"] in ("examining", "waiting"):
                time.sleep(0.1)
            assert found["state"] == "passed", found
            works.patch("request", str(number))

        def look() -> None:
            with file.open("rb") as opened:
                said = scanner._stream(str(socket), iter(lambda: opened.read(scanner.CHUNK), b""))
            assert said == "stream: OK", said

        def hashed() -> None:
            with file.open("rb") as opened:
                hashlib.file_digest(opened, "sha256")

        try:
            took, since, peer, memory = [], [], [], 0
            for _ in range(2):
                peer.append(seconds(look) + seconds(hashed))
                watch = Memory(works)
                watch.start()
                took.append(seconds(ours))
                since.append(time.perf_counter() - came)
                memory = max(memory, watch.end())
                works.patch("reject", str(number))
            alone = min(peer)
            return {
                "goal": 1.3, "ratio": round(min(took) / alone, 2), "ratio_from_its_end": round(min(since) / alone, 2),
                "ours_s": round(min(took), 2), "from_its_end_s": round(min(since), 2), "alone_s": round(alone, 2),
                "goal_mb": 200, "memory_mb": round(memory / 1e6),
            }  # fmt: skip
        finally:
            works.close()


@contextlib.contextmanager
def nginx(folder: Path, pem: Path, key: Path, files: Path) -> Iterator[int]:
    """One worker over a folder, by TLS; its port."""
    port, own = held_port(), folder / "nginx"
    own.mkdir()
    temporary = "".join(f"{name}_temp_path {own};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (own / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; pid {own}/pid; {'user root;' if os.geteuid() == 0 else ''}"
        f"events {{}} http {{ access_log off; sendfile on; {temporary} server {{ listen 127.0.0.1:{port} ssl;"
        f" keepalive_requests 1000000; ssl_certificate {pem}; ssl_certificate_key {key}; root {files}; }} }}"
    )
    process = subprocess.Popen(["nginx", "-e", str(own / "log"), "-p", str(own), "-c", str(own / "nginx.conf")])
    try:
        listening(port)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def pull(folder: Path, size: int) -> dict[str, Any]:
    if shutil.which("nginx") is None:
        return {"left_out": "nginx is not installed"}
    works = Served(
        folder, products=PRODUCTS.replace("SCAN", "none").partition("\n")[0], rules=RULES.partition("\n")[2],
        panel="plc-firmware, big",
    )  # fmt: skip
    files = folder / "files"
    files.mkdir()
    file = random_file(files / "fw.bin", size)
    try:
        key = works.told("key", "new", "panel", "--policy", str(works.policy))["key"]
        found = works.told("put", str(file), "--product", "big", "--version", "1.0", "--signature",
                           str(works.signed(file)))  # fmt: skip
        number = int(found["number"])
        assert works.examined(number)["state"] == "passed"
        works.patch("request", str(number))
        for who in ("alice", "bob"):
            works.approve(number, who)
        words = ("-o", folder / "got", "-H", f"Authorization: Bearer {key}")

        def state() -> str:
            rows = works.told("plan")["assets"]
            return str(next(row for row in rows if (row["asset"], row["product"]) == ("panel", "big"))["state"])

        def ours() -> None:
            curl(*words, f"https://127.0.0.1:{works.plant}/v1/files/big/1.0/fw.bin")

        eventually(lambda: works.told("plan")["releases"])
        with nginx(folder, works.pem, works.private, files) as port:
            first, mine, peer = seconds(ours), [], []
            for _ in range(3):
                peer.append(seconds(lambda: curl(*words, f"https://127.0.0.1:{port}/fw.bin")))
                eventually(lambda: state() == "sent")
                works.patch("result", "panel", "big", "again")
                mine.append(seconds(ours))
        assert hashlib.sha256((folder / "got").read_bytes()).hexdigest() == found["sha256"]
        theirs = min(peer)
        return {
            "goal": 0.8, "ratio_first": round(theirs / first, 2), "ratio": round(theirs / min(mine), 2),
            "first_s": round(first, 3), "ours_s": round(min(mine), 3), "nginx_s": round(theirs, 3),
        }  # fmt: skip
    finally:
        works.close()


def served(folder: Path, count: int) -> dict[str, Any]:
    if shutil.which("nginx") is None:
        return {"left_out": "nginx is not installed"}
    dice = random.Random(1)
    sizes = [min(50_000_000, int(dice.lognormvariate(math.log(70_000), 1.6))) for _ in range(count)]
    works = Served(
        folder, products=PRODUCTS.replace("SCAN", "none").partition("\n")[2], rules=RULES.partition("\n")[0],
        sources=SOURCES, panel="plc-firmware, host-packages",
    )  # fmt: skip
    try:
        version, paths = snapshot(works.vendor, folder / "all.tar", sizes)
        key = works.told("key", "new", "panel", "--policy", str(works.policy))["key"]
        words = ("put", str(folder / "all.tar"), "--product", "host-packages", "--version", version)
        number = int(works.told(*words)["number"])
        found = works.examined(number)
        assert found["state"] == "passed", found
        works.patch("request", str(number))
        for who in ("alice", "bob"):
            works.approve(number, who)
        eventually(lambda: works.told("plan")["releases"])
        (folder / "files").mkdir()
        with tarfile.open(folder / "all.tar") as archive:
            archive.extractall(folder / "files", filter="data")

        def config(name: str, base: str) -> Path:
            lines = [f'url = "{base}/{path}"\noutput = "/dev/null"\n' for path in paths]
            made = folder / name
            made.write_text("".join(lines))
            return made

        ours = config("ours", f"https://127.0.0.1:{works.plant}/v1/apt/host-packages")
        curl("-u", f"panel:{key}", "-o", "/dev/null",
             f"https://127.0.0.1:{works.plant}/v1/apt/host-packages/dists/stable/InRelease")  # fmt: skip
        with nginx(folder, works.pem, works.private, folder / "files") as port:
            theirs = config("theirs", f"https://127.0.0.1:{port}")
            mine, peer = [], []
            for _ in range(3):
                peer.append(seconds(lambda: curl("-K", theirs)))
                mine.append(seconds(lambda: curl("-u", f"panel:{key}", "-K", ours)))
        return {
            "goal": 0.8, "ratio": round(min(peer) / min(mine), 2), "ours_s": round(min(mine), 3),
            "nginx_s": round(min(peer), 3), "packages": count, "bytes": sum(sizes),
        }  # fmt: skip
    finally:
        works.close()


class Many(Served):
    """A gate with many assets that poll."""

    count = 0

    def write_policy(self) -> None:
        super().write_policy()
        names = [f"box-{number}" for number in range(self.count)]
        text = self.policy.read_text()
        who = "  {}: {{zone: plant, addresses: [127.0.0.1]}}\n"
        way = "      {0}: {{address: 127.0.0.1, pull: {0}}}\n"
        for before, each in (("  panel: {zone", who), ("      panel: {address", way)):
            text = text.replace(before, "".join(each.format(name) for name in names) + before, 1)
        rule = f"      - {{asset: [{', '.join(names)}], install: plc-firmware, ring: line}}\n"
        self.policy.write_text(text.replace("gate: {", f"{rule}gate: {{", 1))


def polls(folder: Path, count: int) -> dict[str, Any]:
    Many.count = count
    works = Many(folder)
    try:
        key = works.told("key", "new", "box-0", "--policy", str(works.policy))["key"]
        works.release("fw.bin", b"firmware", "1.0")
        pid = next(pid for name, pid in works.parts().items() if name.endswith("installer"))
        context = ssl.create_default_context(cafile=str(works.pem))
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
