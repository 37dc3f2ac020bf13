"""By what the gate signs in at assets, with a real sshd that takes passwords: certificates for one session, and
passwords that are changed there and tried before the old one is forgotten."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cofferdam.gate.client import ask
from tests.brokers.jump.site import SSHD, THERE, JumpSite, Sshd
from tests.gate.plant import events
from tests.waiting import PATIENT, eventually

pytestmark = [
    pytest.mark.skipif(not THERE, reason="there is no OpenSSH (Debian: openssh-server, openssh-client)"),
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("unshare"), reason="an asset with users of its own takes root and unshare"
    ),
]
RULE = """
      - {who: {group: staff}, asset: second, as: rotor, do: [shell, exec], commands: [id -un]}
"""
OWN_USERS = """
mount --bind "$1/etc" /etc && exec "$2" -D -e -f "$1/config"
"""
FIRST = "first-Pass-1"


class Passwords(Sshd):
    """An asset with users and passwords of its own: its /etc is a copy that nobody else sees. `passwd` there is the
    real one."""

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(folder, port)
        self.process.kill()
        self.process.wait(PATIENT)
        shutil.copytree("/etc", folder / "etc", symlinks=True, ignore_dangling_symlinks=True)
        config = folder / "config"
        config.write_text(config.read_text().replace("PasswordAuthentication no", "PasswordAuthentication yes"))
        self.inside("useradd -M -d / -s /bin/sh rotor")
        self.set_password(FIRST)
        (folder / "log").write_text("")
        command = ["unshare", "-m", "sh", "-c", OWN_USERS, "sh", str(folder), SSHD]
        with (folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)
        eventually(lambda: "listening" in (folder / "log").read_text())

    def inside(self, script: str, said: str = "") -> None:
        """Runs something where its users are."""
        bind = 'mount --bind "$1/etc" /etc && '
        command = ["unshare", "-m", "sh", "-c", bind + script, "sh", str(self.folder)]
        subprocess.run(command, check=True, input=said.encode(), capture_output=True)

    def set_password(self, password: str) -> None:
        self.inside("chpasswd", f"rotor:{password}\n")

    @property
    def hashed(self) -> str:
        lines = (self.folder / "etc" / "shadow").read_text().splitlines()
        return next(line for line in lines if line.startswith("rotor:"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JumpSite]:
    made = JumpSite(tmp_path_factory.mktemp("jump"), free="rotate: {command: passwd}", rules=RULE)
    second = None
    try:
        second = Passwords(made.folder / "second", made.ports["second"])
        made.set_up()
        (made.folder / "second.pub").write_text(second.public_key)
        made.jump("host-key", "second", "--file", str(made.folder / "second.pub"), "--yes")
        made.second = second  # type: ignore[attr-defined]
        yield made
        assert made.gate.stop() == 0, made.gate.said()
        assert "Traceback" not in made.gate.said()
    finally:
        made.close()
        if second is not None:
            second.close()


@pytest.fixture
def second(site: JumpSite) -> Passwords:
    """The asset, and the gate knows its password."""
    found: Passwords = site.second  # type: ignore[attr-defined]
    found.set_password(FIRST)
    knows(site, FIRST)
    return found


def knows(site: JumpSite, password: str) -> None:
    (site.folder / "secret").write_text(password + "\n")
    site.jump("credential", "second", "rotor", "--password", str(site.folder / "secret"))


def gets_in(site: JumpSite) -> bool:
    return site.ssh("tech", "second", "id -un").stdout == b"rotor\n"


def test_a_password_is_changed_and_tried(site: JumpSite, second: Passwords) -> None:
    """62443-3-3 SR 1.5: secrets of assets are refreshed, and nobody sees them."""
    assert gets_in(site)
    before = second.hashed
    assert "is a new one, which let us in" in site.jump("rotate", "second", "rotor")
    assert second.hashed != before
    assert gets_in(site)
    assert "rotor: password by rotation" in site.jump("assets")
    said = [each["detail"] for each in events(site.state, "access-set") if each["name"] == "rotor@second"]
    assert said[-2:] == ["is changed by passwd", "changed: the new password let us in"]
    assert "is a new one" in site.jump("rotate", "second", "rotor")  # from one that nobody knows
    assert gets_in(site)


def test_what_the_asset_does_not_change_stays(site: JumpSite, second: Passwords) -> None:
    """The old one is kept, there is an alarm with the asset's own words, and no word of either password in it."""
    before = second.hashed
    script = second.folder / "etc" / "cofferdam-test-passwd"
    script.write_text('#!/bin/sh\nread -r old; read -r new; echo "$old and $new are refused" >&2; exit 9\n')
    script.chmod(0o755)
    site.write_policy(free="rotate: {command: /etc/cofferdam-test-passwd, says: ['{old}', '{new}']}")
    ask(site.state, "reload")
    said = site.jump("rotate", "second", "rotor", code=1)
    assert "not changed: the command ended with 9: *** and *** are refused" in said
    assert second.hashed == before
    assert gets_in(site)
    eventually(lambda: "jump-rotation-second-rotor" in str(site.gate.status()["alarms"]))
    # One that says that all is well, and has done nothing, is not believed either.
    script.write_text("#!/bin/sh\nexit 0\n")
    assert "the new password does not work, the old one does" in site.jump("rotate", "second", "rotor", code=1)
    site.write_policy(free="rotate: {command: passwd}")
    ask(site.state, "reload")
    assert "is a new one" in site.jump("rotate", "second", "rotor")
    eventually(lambda: "jump-rotation-second-rotor" not in str(site.gate.status()["alarms"]))


def test_where_it_is_not_known_which_one_holds_both_are_kept(site: JumpSite, second: Passwords) -> None:
    """What is asked for next looks first, and does nothing else."""
    script = second.folder / "etc" / "cofferdam-test-passwd"
    script.write_text('#!/bin/sh\nread -r new; printf %s "$new" >/etc/cofferdam-test-new\n')
    script.chmod(0o755)
    kept = second.folder / "etc" / "cofferdam-test-new"
    kept.write_text("")
    kept.chmod(0o666)
    site.write_policy(free="rotate: {command: /etc/cofferdam-test-passwd, says: '{new}'}")
    ask(site.state, "reload")
    second.set_password(FIRST)
    knows(site, "another-Pass-3")
    said = site.jump("rotate", "second", "rotor", code=1)
    assert "neither the old nor the new one lets us in" in said
    second.set_password("another-Pass-3")
    assert "the old one does" in site.jump("rotate", "second", "rotor", code=1)
    assert kept.read_text() == ""  # it only looked
    assert gets_in(site)
    site.write_policy(free="rotate: {command: passwd}")
    ask(site.state, "reload")


def test_what_is_not_changed_at_all(site: JumpSite) -> None:
    for words, why in (
        (("second", "nobody"), "no conduit says how"),
        (("station", site.login), "the gate has no password of"),
        (("nothing", "rotor"), "no conduit says how"),
    ):
        assert why in site.jump("rotate", *words, code=2)


def test_a_certificate_for_each_session(site: JumpSite, second: Passwords) -> None:
    """The asset trusts one line; its own log says whose session it was."""
    printed = site.jump("credential", "station", site.login, "--certificate")
    before = site.station.authorized.read_text()
    try:
        line = printed.split(": ", 1)[1].strip()
        assert line.startswith(f'cert-authority,principals="{site.login}" ssh-ed25519 ')
        site.station.authorized.write_text("")
        assert b"does not take the gate's credential" in site.ssh("tech", "station", "echo in").stderr
        site.station.authorized.write_text(line.replace(site.login, "nobody") + "\n")
        assert b"does not take the gate's credential" in site.ssh("tech", "station", "echo in").stderr
        site.station.authorized.write_text(line + "\n")
        assert site.ssh("tech", "station", "echo in").stdout == b"in\n"
        session = events(site.state, "access-opened")[-1]["session"]
        assert f"ID {session} tech (serial 0) CA ED25519" in (site.station.folder / "log").read_text()
    finally:
        site.station.authorized.write_text(before)
        made = site.jump("credential", "station", site.login, "--new-key")
        site.station.authorize(made.split(": ", 1)[1].strip())
    assert site.ssh("tech", "station", "echo in").stdout == b"in\n"
