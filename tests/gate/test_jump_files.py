"""Files by the jump server: scp and sftp of OpenSSH before it, a real sshd behind it, a real clamd beside it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.brokers.jump.site import THERE, JumpSite
from tests.brokers.patch.makers import EICAR, HAS_CLAMD, clamd
from tests.gate.plant import events
from tests.waiting import PATIENT

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


def test_a_file_goes_up_scanned_and_comes_down_hashed(works: Works) -> None:
    site = works.site
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
    up, down = (next(e for e in events(site.state, "asset-file-passed") if e["way"] == way) for way in ("up", "down"))
    assert (up["size"], up["scan"], up["person"], up["sha256"]) == (2_500_000, "clean", "tech", down["sha256"])
    assert not [path for path in site.files.iterdir() if "cofferdam" in path.name]
    assert not list((next(site.state.rglob("quarantine"))).iterdir())


def test_what_the_scanner_finds_stays_here(works: Works) -> None:
    site = works.site
    (site.folder / "bad").write_bytes(b"x" * 1000 + EICAR)
    done = scp(site, "tech", str(site.folder / "bad"), f"station@127.0.0.1:{site.files}/bad")
    assert (done.returncode, (site.files / "bad").exists()) == (1, False), done.stderr
    refused = [each for each in events(site.state, "asset-file-refused") if each["kept"]]
    assert "the scanner finds Test.Eicar" in refused[0]["reason"]
    (kept,) = next(site.state.rglob("quarantine")).iterdir()
    assert (kept.name, kept.read_bytes()[-68:]) == (refused[0]["kept"], EICAR)
    (site.files / "worse").write_bytes(EICAR)
    done = scp(site, "tech", f"station@127.0.0.1:{site.files}/worse", str(site.folder / "worse"))
    assert (done.returncode, (site.folder / "worse").exists()) == (1, False), done.stderr
    assert b"the scanner finds Test.Eicar" in done.stderr
    refused = [each for each in events(site.state, "asset-file-refused") if each["kept"]]
    assert (refused[-1]["way"], refused[-1]["size"]) == ("Open", 68)
    assert len(list(next(site.state.rglob("quarantine")).iterdir())) == 2


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
    assert not [path for path in site.files.iterdir() if "cofferdam" in path.name]


@pytest.mark.skipif(not shutil.which("psftp"), reason="there is no psftp (Debian: putty-tools)")
def test_puttys_pscp(works: Works) -> None:
    """A password and a code typed at prompts, as PuTTY users do."""
    site = works.site
    (site.folder / "password").write_text("correct horse battery\n")
    site.jump("factor", "password", "tech", "--file", str(site.folder / "password"))
    key = site.known_hosts.read_text().split()[2]
    script = site.folder / "type"
    script.write_text(
        "import os, pty, sys\n"
        "answers = [b'correct horse battery\\n', sys.argv[1].encode() + b'\\n']\n"
        "def read(fd):\n"
        "    data = os.read(fd, 1024)\n"
        "    if answers and (b'assword: ' in data or b'ode: ' in data):\n"
        "        os.write(fd, answers.pop(0))\n"
        "    return data\n"
        "sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[2:], read)))\n"
    )
    import base64
    import hashlib
    import sys

    name = base64.b64encode(hashlib.sha256(base64.b64decode(key)).digest()).decode().rstrip("=")
    (site.folder / "note").write_text("by PuTTY")
    command = ["pscp", "-P", str(site.door), "-hostkey", f"SHA256:{name}", "-l", "tech%station", "-noagent",
               str(site.folder / "note"), f"127.0.0.1:{site.files}/note"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(script), site.code("tech"), *command], stdin=subprocess.DEVNULL, capture_output=True,
        timeout=PATIENT, check=False, env={**os.environ, "HOME": str(site.folder)},
    )  # fmt: skip
    assert (site.files / "note").exists(), done.stdout
    assert (site.files / "note").read_text() == "by PuTTY"


def test_without_the_scanner_nothing_passes(works: Works) -> None:
    site = works.site
    (site.folder / "small").write_text("small")
    (works.scanner / "one" / "clamd.ctl").unlink()
    done = scp(site, "tech", str(site.folder / "small"), f"station@127.0.0.1:{site.files}/small")
    assert (done.returncode, (site.files / "small").exists()) == (1, False)
    assert "it was not scanned" in events(site.state, "asset-file-refused")[-1]["reason"]
