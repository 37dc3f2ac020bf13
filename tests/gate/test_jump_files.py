"""Files by the jump server: scp and sftp of OpenSSH before it, a real sshd behind it, a real clamd beside it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.brokers.jump.site import THERE, JumpSite, ends, reads_until
from tests.brokers.patch.makers import EICAR, HAS_CLAMD, clamd
from tests.gate.plant import events, settle
from tests.waiting import PATIENT, eventually

pytestmark = pytest.mark.skipif(not THERE or not HAS_CLAMD, reason="there is no OpenSSH, or no clamd (Debian)")


class Works:
    """The site, and its scanner, which a test may take away."""

    def __init__(self, folder: Path) -> None:
        self.stack = contextlib.ExitStack()
        # clamd's socket has a path of at most 107 bytes.
        self.scanner = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="clamd-")))
        socket = self.stack.enter_context(clamd(self.scanner / "one"))
        rules = (
            '- {who: {group: vendors}, asset: station, as: LOGIN, do: down, paths: ["FILES/out/**"]}'
            '\n      - {who: {group: vendors}, asset: station, as: LOGIN, do: up, paths: ["FILES/in/*"]}'
        )
        self.site = JumpSite(
            folder, options=("--socket", f"clamd={socket}"), free="files: {scan: true, most: 3 MB}", rules=rules
        )


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Works]:
    made = Works(tmp_path_factory.mktemp("jump"))
    try:
        made.site.set_up()
        for name in ("in", "out", "other"):
            (made.site.files / name).mkdir()
        yield made
        assert made.site.gate.stop() == 0, made.site.gate.said()
        assert "Traceback" not in made.site.gate.said()
    finally:
        made.site.close()
        made.stack.close()


def scp(site: JumpSite, who: str, *words: str) -> subprocess.CompletedProcess[bytes]:
    options = site.options(who)
    return subprocess.run(
        ["scp", *options, "-P", str(site.door), *words], stdin=subprocess.DEVNULL, capture_output=True,
        env=site.environment(who), timeout=PATIENT, check=False,
    )  # fmt: skip


def kept(site: JumpSite) -> set[str]:
    """What lies in the quarantine."""
    return {path.name for folder in site.state.rglob("quarantine") for path in folder.iterdir()}


def test_a_file_goes_up_scanned_and_comes_down_hashed(works: Works) -> None:
    site = works.site
    settle(site.state)
    lying, known = kept(site), len(events(site.state, "asset-file-passed"))
    data = os.urandom(2_500_000)
    (site.folder / "big").write_bytes(data)
    (site.folder / "big").chmod(0o4755)
    done = scp(site, "tech", "-p", str(site.folder / "big"), f"station@127.0.0.1:{site.files}/big")
    assert done.returncode == 0, done.stderr
    there = site.files / "big"
    assert (there.read_bytes(), there.stat().st_mode & 0o7777) == (data, 0o644)
    assert int(there.stat().st_mtime) == int((site.folder / "big").stat().st_mtime)
    done = scp(site, "tech", f"station@127.0.0.1:{site.files}/big", str(site.folder / "back"))
    assert ((site.folder / "back").read_bytes(), done.returncode) == (data, 0)
    for data in (b"shorter", b"longer than before"):
        (site.folder / "big").write_bytes(data)
        assert scp(site, "tech", str(site.folder / "big"), f"station@127.0.0.1:{site.files}/big").returncode == 0
        assert there.read_bytes() == data
    passed = events(site.state, "asset-file-passed")[known:]
    up, down = (next(one for one in passed if one["way"] == way) for way in ("up", "down"))
    assert (up["size"], up["scan"], up["person"], up["sha256"]) == (2_500_000, "clean", "tech", down["sha256"])
    eventually(lambda: not [path for path in site.files.iterdir() if "cofferdam" in path.name])
    eventually(lambda: kept(site) <= lying)


def test_what_the_scanner_finds_stays_here(works: Works) -> None:
    """62443-3-3 SR 3.2 RE 1: malicious code is looked for on the way in and on the way out."""
    site = works.site
    settle(site.state)
    lying, known = kept(site), len(events(site.state, "asset-file-refused"))
    (site.folder / "bad").write_bytes(EICAR)
    done = scp(site, "tech", str(site.folder / "bad"), f"station@127.0.0.1:{site.files}/bad")
    assert (done.returncode, (site.files / "bad").exists()) == (1, False), done.stderr
    refused = [each for each in events(site.state, "asset-file-refused")[known:] if each["kept"]]
    assert "the scanner finds Test.Eicar" in refused[0]["reason"]
    (name,) = kept(site) - lying
    assert name == refused[0]["kept"]
    assert (next(site.state.rglob("quarantine")) / name).read_bytes()[-68:] == EICAR
    (site.files / "worse").write_bytes(EICAR)
    done = scp(site, "tech", f"station@127.0.0.1:{site.files}/worse", str(site.folder / "worse"))
    assert (done.returncode, (site.folder / "worse").exists()) == (1, False), done.stderr
    assert b"the scanner finds Test.Eicar" in done.stderr
    refused = [each for each in events(site.state, "asset-file-refused") if each["kept"]]
    assert (refused[-1]["way"], refused[-1]["size"]) == ("Open", 68)
    assert len(kept(site) - lying) == 2


def test_what_is_packed_is_looked_into_and_nothing_enormous_passes(works: Works) -> None:
    site = works.site
    with zipfile.ZipFile(site.folder / "packed.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("deep/inside", EICAR)
    far = f"station@127.0.0.1:{site.files}"
    done = scp(site, "tech", str(site.folder / "packed.zip"), f"{far}/packed.zip")
    assert (done.returncode, b"Test.Eicar" in done.stderr) == (1, True), done.stderr
    assert not (site.files / "packed.zip").exists()
    (site.folder / "broken.zip").write_bytes((site.folder / "packed.zip").read_bytes()[:-22])
    done = scp(site, "tech", str(site.folder / "broken.zip"), f"{far}/broken.zip")
    assert (done.returncode, b"damaged" in done.stderr) == (1, True), done.stderr
    assert not (site.files / "broken.zip").exists()
    with zipfile.ZipFile(site.folder / "good.zip", "w") as packed:
        packed.writestr("Übersicht.txt", "hello")
    (site.folder / "link").symlink_to("/etc")
    with tarfile.open(site.folder / "good.tgz", "w:gz") as tar:
        tar.add(site.folder / "link", "link")
        tar.add(site.folder / "good.zip", "good.zip")
    for name in ("good.zip", "good.tgz"):
        done = scp(site, "tech", str(site.folder / name), f"{far}/{name}")
        assert (done.returncode, (site.files / name).exists()) == (0, True), done.stderr
    for place in (site.folder / "zeros", site.files / "zeros-there"):
        with place.open("wb") as file:
            file.truncate(2 << 30)
    assert scp(site, "tech", str(site.folder / "zeros"), f"{far}/zeros").returncode == 1
    assert scp(site, "tech", f"{far}/zeros-there", str(site.folder / "zeros-got")).returncode == 1
    assert not (site.files / "zeros").exists()
    assert not (site.folder / "zeros-got").exists()
    quarantine = next(site.state.rglob("quarantine"))
    eventually(lambda: not [path for path in quarantine.iterdir() if path.name.startswith("new-")])


def test_what_becomes_of_a_file_after_its_scan_is_not_handed_out(works: Works) -> None:
    """It grows, and is another one, while somebody reads it: they get what was looked through."""
    site = works.site
    there = site.files / "grows"
    there.write_bytes(b"clean " * 1_000)

    async def read() -> bytes:
        connection = await site.client("station")
        client = await connection.start_sftp_client()
        async with client.open(str(there), "rb", block_size=0) as file:
            with there.open("r+b") as inside:
                inside.write(EICAR)
                inside.seek(0, os.SEEK_END)
                inside.write(EICAR)
            found: Any = await file.read(100_000, 0)
        connection.close()
        return bytes(found)

    assert asyncio.run(asyncio.wait_for(read(), PATIENT)) == b"clean " * 1_000


def test_rights_by_direction_and_path(works: Works) -> None:
    site = works.site
    site.ssh("vendor", "vendor", "list")
    (site.files / "out" / "log").write_text("a log")
    (site.files / "in" / "there").write_text("what is there")
    (site.files / "other" / "secret").write_text("a secret")
    (site.files / "out" / "link").symlink_to(site.files / "other" / "secret")
    (site.folder / "new").write_text("new")
    back = str(site.folder / "got")
    at = f"station@127.0.0.1:{site.files}"
    assert scp(site, "vendor", f"{at}/out/log", back).returncode == 0
    for source in ("out/link", "other/secret", "in/there", "out/../other/secret"):
        done = scp(site, "vendor", f"{at}/{source}", str(site.folder / "stolen"))
        assert (done.returncode, (site.folder / "stolen").exists()) == (1, False), (source, done.stderr)
    assert scp(site, "vendor", str(site.folder / "new"), f"{at}/in/new").returncode == 0
    for target in ("out/new", "in/sub/new", "other/new", "in/../new"):
        assert scp(site, "vendor", str(site.folder / "new"), f"{at}/{target}").returncode == 1, target
    assert sorted(path.name for path in site.files.rglob("new")) == ["new"]


def test_sftp_sees_no_more_than_it_may(works: Works) -> None:
    site = works.site
    (site.files / "out" / "log").write_text("a log")
    (site.files / "in" / "there").write_text("what is there")
    batch = site.folder / "batch"
    batch.write_text(
        f"ls -l {site.files}\nls {site.files}/other\n-rename {site.files}/in/there {site.files}/out/there\n"
        f"-rm {site.files}/out/log\n-ln -s /etc/passwd {site.files}/in/pw\n-chmod 4777 {site.files}/in/there\n"
        f"-mkdir {site.files}/x\nrm {site.files}/in/there\n"
    )
    command = ["sftp", "-o", "BatchMode=no", *site.options("vendor"), "-P", str(site.door), "-b", str(batch)]
    done = subprocess.run(
        [*command, "station@127.0.0.1"], stdin=subprocess.DEVNULL, capture_output=True,
        env=site.environment("vendor"), timeout=PATIENT, check=False,
    )  # fmt: skip
    said = done.stdout.decode() + done.stderr.decode()
    listed = said.split(f"ls {site.files}/other")[0]
    assert " in\n" in listed and " out\n" in listed and "other" not in listed.split("\n", 1)[1], said
    assert (site.files / "out" / "log").exists() and not (site.files / "x").exists()
    assert not (site.files / "in" / "pw").is_symlink()


def test_too_large_is_refused_and_nothing_stays(works: Works) -> None:
    site = works.site
    (site.folder / "huge").write_bytes(bytes(3_500_000))
    done = scp(site, "tech", str(site.folder / "huge"), f"station@127.0.0.1:{site.files}/huge")
    assert (done.returncode, (site.files / "huge").exists()) == (1, False)
    eventually(lambda: not [path for path in site.files.iterdir() if "cofferdam" in path.name])


@pytest.mark.skipif(not shutil.which("psftp"), reason="there is no psftp (Debian: putty-tools)")
def test_puttys_programs(works: Works) -> None:
    """pscp, psftp and plink, with a password and a code typed at their prompts, as PuTTY users do."""
    site = works.site
    (site.folder / "password").write_text("correct horse battery\n")
    site.jump("factor", "password", "tech", "--file", str(site.folder / "password"))
    key = site.known_hosts.read_text().split()[2]
    script = site.folder / "type"
    script.write_text(
        "import os, pty, sys\n"
        "answers = [b'correct horse battery\\n', sys.argv[1].encode() + b'\\n']\n"
        "seen = b''  # a prompt may come in two pieces\n"
        "def read(fd):\n"
        "    global seen\n"
        "    data = os.read(fd, 1024)\n"
        "    seen += data\n"
        "    if b'assword: ' in seen or b'ode: ' in seen:\n"
        "        seen = b''\n"
        "        if not answers:\n"
        "            sys.exit('asked once more')\n"
        "        os.write(fd, answers.pop(0))\n"
        "    return data\n"
        "sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[2:], read)))\n"
    )
    import base64
    import hashlib
    import sys

    name = base64.b64encode(hashlib.sha256(base64.b64decode(key)).digest()).decode().rstrip("=")
    (site.folder / "note").write_text("by PuTTY")
    batch = site.folder / "psftp-batch"
    batch.write_text(f"get {site.files}/note-sftp {site.folder}/back-again\n")
    who = ["-P", str(site.door), "-hostkey", f"SHA256:{name}", "-l", "tech%station", "-noagent"]

    def putty(*command: str) -> bytes:
        try:
            done = subprocess.run(
                [sys.executable, str(script), site.code("tech"), *command], stdin=subprocess.DEVNULL, timeout=PATIENT,
                capture_output=True, check=False, env={**os.environ, "HOME": str(site.folder)},
            )  # fmt: skip
        except subprocess.TimeoutExpired as late:
            raise AssertionError(late.output) from None
        return done.stdout

    for way in ("-sftp", "-scp"):  # -scp: the old protocol
        said = putty("pscp", way, *who, str(site.folder / "note"), f"127.0.0.1:{site.files}/note{way}")
        assert (site.files / f"note{way}").exists(), said
        assert (site.files / f"note{way}").read_text() == "by PuTTY"
    said = putty("psftp", *who, "-b", str(batch), "127.0.0.1")
    assert (site.folder / "back-again").exists(), said
    assert (site.folder / "back-again").read_text() == "by PuTTY"
    assert b"hello by plink" in putty("plink", "-no-antispoof", *who, "127.0.0.1", "echo hello by plink")


# --- scp as it was ---------------------------------------------------------------------------------------------------


def old_scp(site: JumpSite, *words: str, program: str = "scp") -> subprocess.CompletedProcess[bytes]:
    command = [program, "-O", *site.options("tech"), "-P", str(site.door), *words]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, env=site.environment("tech"), timeout=PATIENT,
        check=False,
    )  # fmt: skip


def test_scp_as_it_was(works: Works) -> None:
    """`scp -O` of OpenSSH: the same rules, paths, digests and entries as by SFTP."""
    site = works.site
    there, here = site.files / "old", site.folder / "old"
    far = f"station@127.0.0.1:{there}"
    there.mkdir()
    (here / "in" / "deep").mkdir(parents=True)
    big = os.urandom(2_900_000)
    for name, data in (("big", big), ("in/empty", b""), ("in/a b", b"x"), ("in/deep/中", b"y" * 70_000)):
        (here / name).write_bytes(data)
    (here / "big").chmod(0o4755)
    os.utime(here / "big", (1_600_000_000, 1_600_000_001))
    done = old_scp(site, "-p", str(here / "big"), far)
    assert done.returncode == 0, done.stderr
    found = (there / "big").stat()
    assert ((there / "big").read_bytes(), found.st_mode & 0o7777, int(found.st_mtime)) == (big, 0o644, 1_600_000_001)
    passed = events(site.state, "asset-file-passed")[-1]
    assert (passed["way"], passed["path"], passed["size"]) == ("up", str(there / "big"), len(big))
    assert passed["scan"] == "clean"
    assert passed["sha256"] == hashlib.sha256(big).hexdigest()
    assert old_scp(site, "-r", str(here / "in"), far).returncode == 0
    assert (there / "in" / "deep" / "中").read_bytes() == b"y" * 70_000
    (there / "in" / "away").symlink_to("/etc")
    back = site.folder / "old-back"
    back.mkdir()
    done = old_scp(site, "-rp", far, str(back))
    assert done.returncode == 0, done.stderr
    names = sorted(str(path.relative_to(back / "old")) for path in (back / "old").rglob("*") if path.is_file())
    assert names == ["big", "in/a b", "in/deep/中", "in/empty"]
    assert (back / "old" / "big").read_bytes() == big
    assert int((back / "old" / "big").stat().st_mtime) == 1_600_000_001
    (here / "bad").write_bytes(EICAR)
    for words, why in (
        ((str(here / "bad"), far), b"Eicar"),
        ((f"station@127.0.0.1:{there}/nothing", str(back)), b"no such file"),
        (("station@127.0.0.1:/etc/passwd", str(back)), b"outside of what the rule lets you"),
        ((str(here / "big"), "station@127.0.0.1:/etc/big"), b"outside of what the rule lets you"),
        ((far, str(back)), b"is no file"),
        ((str(here / "big"), f"{far}/nothing/"), b"is no folder"),
    ):
        done = old_scp(site, *words)
        assert done.returncode == 1, words
        assert why in done.stderr, done.stderr
    assert not Path("/etc/big").exists()


HOSTILE = {
    "a name with a slash": b"C0644 1 a/b\nx\0",
    "the folder above": b"C0644 1 ..\nx\0",
    "this folder": b"D0755 0 .\n",
    "no name": b"C0644 1 \nx\0",
    "NUL": b"C0644 1 a\0b\nx\0",
    "no UTF-8": b"C0644 1 \xff\nx\0",
    "a size that is none": b"C0644 -1 x\n",
    "a size beyond": b"C0644 9223372036854775808 x\n",
    "a size that lies": b"C0644 10 liar\nx\0",
    "less than was told, and an end": b"C0644 100000 liar\n" + b"x" * 50,
    "before 1970": b"T-1 0 0 0\nC0644 1 x\nx\0",
    "times that are none": b"T99999999999 0 0 0\n",
    "a mode that is none": b"C9999 1 x\nx\0",
    "a line without an end": b"C0644 1 " + b"x" * 10_000,
    "an end of nothing": b"E\n",
    "a file that could not be read": b"C0644 3 liar\nabc\1could not\n",
    "a device": b"B0644 1 x\n",
    "folders without end": b"".join(b"D0755 0 d\n" for _ in range(100)),
}


def test_hostile_scp(works: Works) -> None:
    """Each is told why, ends its own session alone, and leaves nothing behind."""
    site = works.site
    folder = site.files / "hostile"
    folder.mkdir()
    # One connection for all of them, since a code counts once.
    control = ("-o", f"ControlPath={site.folder}/c", "-o", "ControlMaster=auto", "-o", "ControlPersist=60")
    environment = site.environment("tech")

    def says(what: bytes) -> subprocess.CompletedProcess[bytes]:
        command = ["ssh", *site.options("tech"), *control, "-p", str(site.door), "station@127.0.0.1"]
        return subprocess.run(
            [*command, f"scp -r -t {folder}"], input=what, capture_output=True, env=environment, timeout=PATIENT,
            check=False,
        )  # fmt: skip

    try:
        assert says(b"C0644 1 good\nx\0").returncode == 0
        for name, what in HOSTILE.items():
            done = says(what)
            assert done.returncode == 1, name
            assert b"\1scp: " in done.stdout, (name, done.stdout)
            # What was begun is taken away after its sender has been told.
            eventually(lambda: [path.name for path in folder.iterdir() if path.is_file()] == ["good"])
        assert says(b"C0644 1 good\ny\0").returncode == 0
    finally:
        command = ["ssh", *site.options("tech"), *control, "-O", "exit", "-p", str(site.door), "station@127.0.0.1"]
        subprocess.run(command, check=False, capture_output=True)
    depth = len(list(folder.rglob("d")))
    assert depth == 64
    eventually(lambda: not [path for path in folder.rglob("*") if "cofferdam" in path.name])
    eventually(lambda: "broken_protocol" in {each["limit"] for each in events(site.state, "limit-hit")})


def test_without_the_scanner_nothing_passes(works: Works) -> None:
    site = works.site
    (site.folder / "small").write_text("small")
    place = works.scanner / "one" / "clamd.ctl"
    for answer in (None, b"nonsense\0", b"stream: OK", b"x" * 9_000):  # dead; then one that is none
        with _in_place_of(place), _says(place, answer):
            done = scp(site, "tech", str(site.folder / "small"), f"station@127.0.0.1:{site.files}/small")
        assert (done.returncode, (site.files / "small").exists()) == (1, False), answer
        assert "it was not scanned" in events(site.state, "asset-file-refused")[-1]["reason"], answer


def test_a_slow_scanner_keeps_its_own_session_waiting(works: Works) -> None:
    """Who waits is told so; others work; and who gives up has passed nothing."""
    site = works.site
    (site.folder / "slow").write_text("slow")
    place = works.scanner / "one" / "clamd.ctl"
    with _in_place_of(place), _says(place, b""):
        known = {one["number"] for one in site.sessions()}
        command = ["scp", *site.options("tech"), "-P", str(site.door), str(site.folder / "slow"),
                   f"station@127.0.0.1:{site.files}/slow"]  # fmt: skip
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=site.environment("tech"),
        )  # fmt: skip
        assert b"is looked through" in reads_until(process, b"is looked through")
        (number,) = {one["number"] for one in site.sessions()} - known
        assert site.ssh("tech", "station", "echo others").stdout == b"others\n"
        assert not (site.files / "slow").exists()
        site.jump("kill", str(number), "--bar", "none")
        ends(process)
        assert process.returncode != 0
    quarantine = next(site.state.rglob("quarantine"))
    eventually(lambda: not [path for path in quarantine.iterdir() if path.name.startswith("new-")])
    assert not [path for path in site.files.iterdir() if "slow" in path.name]


@contextlib.contextmanager
def _in_place_of(place: Path) -> Iterator[None]:
    """The scanner is not found where it was, until this is over."""
    away = place.rename(place.with_name("away"))
    try:
        yield
    finally:
        away.rename(place)


@contextlib.contextmanager
def _says(place: Path, answer: bytes | None) -> Iterator[None]:
    """Somebody else in the scanner's place, who says this to whatever they are asked; b"": nothing, and hangs on."""
    if answer is None:
        yield
        return
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place))
        place.chmod(0o666)
        server.listen()
        held: list[socket.socket] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = server.accept()
                    if not answer:
                        held.append(peer)
                        continue
                    with peer, contextlib.suppress(OSError):
                        peer.recv(100)
                        peer.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENT)
            for peer in held:
                peer.close()
    place.unlink()
