"""What people of the jump server bring in lots: rsync and Ansible, which speak by stdin, and what a day may have."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cofferdam.errors import GateError
from tests.brokers.jump.site import THERE, JumpSite
from tests.gate.plant import events
from tests.waiting import PATIENT, eventually, kill

pytestmark = pytest.mark.skipif(not THERE, reason="there is no OpenSSH (Debian: openssh-server, openssh-client)")

RSYNC = shutil.which("rsync")
ANSIBLE = Path(sys.executable).with_name("ansible")
PYTHON = "/usr/bin/python3"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JumpSite]:
    rules = (
        "- {who: {group: copiers}, asset: station, as: LOGIN, do: exec, opaque: rsync}"
        "\n      - {who: {group: robots}, asset: station, as: LOGIN, do: [exec, up], opaque: /bin/sh,"
        ' paths: ["FILES/robot/**"]}'
    )
    made = JumpSite(tmp_path_factory.mktemp("jump"), free="certificates: 8 h\n    files: {day: 3 MB}", rules=rules)
    with made.running():
        yield made


def exported(site: JumpSite, name: str, how: str) -> bytes:
    out = site.folder / "exported"
    out.unlink(missing_ok=True)
    site.jump("recording", "export", name, how, "--output", str(out))
    return out.read_bytes()


def recordings(site: JumpSite, who: str) -> list[str]:
    """The newest first, once they are whole: a client may have gone before its own is."""
    found: list[dict[str, Any]] = []

    def whole() -> bool:
        rows = json.loads(site.jump("recording", "list", "--json"))
        found[:] = [one for one in rows if one["title"].startswith(f"{who} ")]
        return not any(one["live"] for one in found)

    eventually(whole)
    return [one["name"] for one in found]


@pytest.mark.skipif(RSYNC is None, reason="there is no rsync (Debian)")
def test_rsync_by_its_rule_and_recorded_whole(site: JumpSite) -> None:
    site.person("copier", "copiers")
    data = os.urandom(700_000) + "grüße".encode()
    here, there = site.folder / "here", site.files / "there"
    here.mkdir()
    (here / "recipe").write_bytes(data)

    def rsync(who: str, *words: str) -> subprocess.CompletedProcess[bytes]:
        shell = " ".join(["ssh", *site.options(who), "-p", str(site.door)])
        return subprocess.run(
            [str(RSYNC), "-a", "-e", shell, *words], capture_output=True, env=site.environment(who), timeout=PATIENT,
            check=False,
        )  # fmt: skip

    done = rsync("copier", f"{here}/", f"station@127.0.0.1:{there}/")
    assert (done.returncode, (there / "recipe").read_bytes() == data) == (0, True), done.stderr
    done = rsync("copier", f"station@127.0.0.1:{there}/", f"{site.folder}/back/")
    assert ((site.folder / "back" / "recipe").read_bytes() == data, done.returncode) == (True, 0), done.stderr
    down, up = recordings(site, "copier")[:2]
    for name, way in ((up, "--typed"), (down, "--raw")):
        assert _pieces(data, whole := exported(site, name, way)), way
        assert len(whole) > len(data)
    opened = events(site.state, "access-opened")[-1]
    assert (opened["person"], opened["recorded"], opened["command"][:15]) == ("copier", True, "rsync --server ")
    assert "no findings" in site.jump("recording", "verify")
    for who, command in (
        ("tech", "rsync --server . /tmp"),
        ("copier", "rsync -e id localhost:/ ."),
        ("copier", "rsync --server . /tmp; id"),
        ("copier", "rsync --server . $(id)"),
        ("copier", "/tmp/rsync --server . /tmp"),
        ("copier", "id"),
    ):
        done = site.ssh(who, "station", command)
        assert (done.returncode, b"no rule lets you have that command" in done.stderr) == (1, True), command


def _pieces(data: bytes, recorded: bytes) -> bool:
    """rsync puts a word of its own before each of its pieces."""
    return all(data[at : at + 1_000] in recorded for at in range(1_000, 600_000, 100_000))


def test_how_a_program_ended_is_told_after_its_last_word(site: JumpSite) -> None:
    """An OpenSSH that shares its connection, as Ansible has it, closes the channel when neither side has more to say,
    and waits: its own server then still tells how the program ended."""
    site.person("ender", "robots")
    shared = ("-o", "ControlMaster=auto", "-o", f"ControlPath={site.folder}/shared", "-o", "ControlPersist=1")
    done = site.ssh("ender", "station", "/bin/sh -c 'echo out; exec >&- 2>&-; sleep 1; exit 3'", more=shared)
    assert (done.returncode, done.stdout) == (3, b"out\n"), done.stderr
    eventually(lambda: "it ended with 3" in {each["reason"] for each in events(site.state, "access-ended")})


@pytest.mark.skipif(not ANSIBLE.exists() or not Path(PYTHON).exists(), reason="there is no Ansible, or no Python there")
def test_ansibles_own_modules(site: JumpSite) -> None:
    """An inventory with ProxyJump, and a certificate in place of codes: modules go as files, or by stdin."""
    site.person("robot", "robots")
    (site.folder / "robot-cert.pub").write_bytes(site.ssh("robot", "robot", "certificate").stdout)
    authority = site.jump("known-hosts").splitlines()[0]
    (site.folder / "trusted").write_text(authority + "\n")
    (site.folder / "config").write_text(
        f"Host gate\n HostName 127.0.0.1\n Port {site.door}\n User robot\n"
        f"Host station\n ProxyJump gate\n User {site.login}\n"
        f"Host *\n IdentityFile {site.folder}/robot\n IdentitiesOnly yes\n"
        f" UserKnownHostsFile {site.folder}/trusted\n StrictHostKeyChecking yes\n LogLevel ERROR\n"
    )
    (site.folder / "inventory").write_text(
        f"station ansible_ssh_common_args='-F {site.folder}/config' ansible_python_interpreter={PYTHON}\n"
    )
    robot = site.files / "robot"
    robot.mkdir()
    (site.folder / "recipe").write_text("42 bottles\n")

    def ansible(module: str, *words: str, pipelining: bool = False) -> str:
        (site.folder / "ansible.cfg").write_text(
            f"[defaults]\nhome = {site.folder}/ansible\nremote_tmp = {robot}/tmp\nnocolor = true\n"
            f"timeout = {PATIENT:.0f}\n"
            f"[ssh_connection]\npipelining = {pipelining}\ncontrol_path_dir = {site.folder}/c\n"
            "ssh_args = -o ControlMaster=auto -o ControlPersist=5s\n"
        )
        own = {"ANSIBLE_CONFIG": str(site.folder / "ansible.cfg")}
        done = subprocess.run(
            [str(ANSIBLE), "-i", str(site.folder / "inventory"), "station", "-m", module, *words],
            capture_output=True, env=os.environ | own, timeout=PATIENT, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return (done.stdout + done.stderr).decode()

    assert '"ping": "pong"' in ansible("ping", pipelining=True)
    said = ansible("copy", "-a", f"src={site.folder}/recipe dest={robot}/recipe mode=0640")
    assert ("CHANGED" in said, (robot / "recipe").read_text()) == (True, "42 bottles\n"), said
    assert (robot / "recipe").stat().st_mode & 0o777 == 0o640
    typed = b"".join(exported(site, name, "--typed") for name in recordings(site, "robot"))
    assert b"_ANSIBALLZ_WRAPPER = True" in typed
    up = [each["path"] for each in events(site.state, "asset-file-passed") if each["way"] == "up"]
    assert any(path.endswith("AnsiballZ_copy.py") for path in up), up
    assert b"no rule lets you" in site.ssh("tech", "station", "/bin/sh -c 'echo a && id'").stderr


def test_a_day_of_one_person(site: JumpSite) -> None:
    """62443-3-3 SR 7.1: all sessions together, also after the parts that counted have died."""
    site.person("carrier", "staff")
    (site.folder / "load").write_bytes(bytes(1_700_000))

    def carries(name: str) -> subprocess.CompletedProcess[bytes]:
        command = ["scp", *site.options("carrier"), "-P", str(site.door), str(site.folder / "load")]
        return subprocess.run(
            [*command, f"station@127.0.0.1:{site.files}/{name}"], stdin=subprocess.DEVNULL, capture_output=True,
            env=site.environment("carrier"), timeout=PATIENT, check=False,
        )  # fmt: skip

    assert carries("one").returncode == 0
    eventually(lambda: "carrier" in {each["person"] for each in events(site.state, "access-ended")})
    before = site.gate.pids()
    kill(before["inner"])
    eventually(lambda: site.gate.pids().get("keeper", before["keeper"]) != before["keeper"] and works_again(site))
    assert carries("two").returncode == 1
    assert (site.files / "one").exists() and not (site.files / "two").exists()
    assert "more than 3000000 bytes in one day" in events(site.state, "asset-file-refused")[-1]["reason"]


def works_again(site: JumpSite) -> bool:
    try:
        return bool(site.ask("people"))
    except (AssertionError, GateError):
        return False
