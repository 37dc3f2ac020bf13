"""Telnet on the plant's leg: a real telnetd behind a gate that was started as a user starts it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.brokers.jump.site import TELNETD, THERE, JumpSite, Telnetd, ends, reads_until
from tests.gate.plant import events
from tests.ports import held_ports

pytestmark = [
    pytest.mark.skipif(not THERE, reason="there is no OpenSSH (Debian: openssh-server, openssh-client)"),
    pytest.mark.skipif(not TELNETD.exists(), reason="there is no telnetd (Debian: inetutils-telnetd)"),
    pytest.mark.skipif(os.geteuid() != 0, reason="telnetd gives its terminal away, which root alone may do"),
]
RULES = """
      - {who: {group: staff}, asset: old, as: operator, do: shell}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JumpSite]:
    folder: Path = tmp_path_factory.mktemp("telnet")
    (port,) = held_ports(1)
    old = Telnetd(folder / "old", port)
    made = JumpSite(
        folder,
        rules=RULES,
        assets=f"old: {{zone: plant, address: 127.0.0.1, port: {port}, protocol: telnet}}",
    )
    try:
        made.set_up()
        secret = folder / "secret"
        secret.write_text("geheim\n")
        made.jump("credential", "old", "operator", "--password", str(secret))
        yield made
        assert made.gate.stop() == 0, made.gate.said()
    finally:
        old.close()
        made.close()


def test_a_terminal_by_telnet(site: JumpSite) -> None:
    """The gate signs in, nobody is shown the password, sizes and binary bytes arrive, and it is recorded."""
    process = site.begins("tech", "old", more=("-tt",))
    assert process.stdin is not None
    reads_until(process, b"Last failed login: never")
    process.stdin.write(b"stty size; echo $TERM; printf 'a\\377b\\r\\n' | od -An -tx1; exit\n")
    process.stdin.flush()
    said = ends(process)
    assert b"61 ff 62 0d 0a" in said
    assert b"geheim" not in said
    assert b"Password" not in said
    assert process.returncode == 0
    newest = json.loads(site.jump("recording", "list", "--json"))[0]
    played = site.jump("recording", "play", newest["name"], "--speed", "0")
    assert "61 ff 62" in played
    assert "geheim" not in played
    assert "old                      telnet, UNENCRYPTED" in site.jump("assets")


def test_what_telnet_has_not(site: JumpSite) -> None:
    for more in (("echo a",), ("-s", "sftp")):
        assert b"no rule lets you have" in ends(site.start("tech", "old", *more))
    for kind in (("--new-key",), ("--key", str(site.folder / "tech"))):
        assert "telnet, which has no keys" in site.jump("credential", "old", "operator", *kind, code=2)
    assert "does not go without one" in site.jump("credential", "station", site.login, "--none", code=2)


def test_a_password_that_the_asset_does_not_take(site: JumpSite) -> None:
    """Nobody is left at a login prompt of the asset, where anything could be typed."""
    secret = site.folder / "secret"
    for wrong in ("other", "geheim"):
        secret.write_text(f"{wrong}\n")
        site.jump("credential", "old", "operator", "--password", str(secret))
        if wrong == "other":
            done = site.ssh("tech", "old", more=("-tt",))
            assert (done.returncode, b"does not take the gate's credential" in done.stderr + done.stdout) == (1, True)
            assert b"login:" not in done.stdout
    assert events(site.state, "access-ended")[-1]["received"] == 0
