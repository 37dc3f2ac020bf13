"""Root writes and reads in folders that the gate's user may write to: whoever took the gate over leads root nowhere."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cofferdam import owned
from cofferdam.audit.keys import find_public
from cofferdam.brokers.kit.http.vault import Vault
from cofferdam.cli.diode_pair import Keys
from cofferdam.errors import AuditError, GateError
from cofferdam.evidence.export.sending import Cursor
from cofferdam.gate import state
from cofferdam.gate.overlay import peers
from cofferdam.gate.secrets import load_secrets, read_secret, save_secret, secret_file, write_secret

GATE = 64000 if os.geteuid() == 0 else os.geteuid()
WAYS: dict[str, Callable[[Path, Path], None]] = {
    "save_secret": lambda state, path: save_secret(path, b"secret", GATE),
    "write_secret": lambda state, path: write_secret(state, path, b"secret"),
    "vault": lambda state, path: Vault(path, "relay").save(GATE),
    "diode": lambda state, path: Keys(state, "relay/a-b")._save("outer", {"a": 1}),
}
LOOKS: dict[str, Callable[[Path, Path], object]] = {
    "load_secrets": lambda state, path: load_secrets(state, "relay/a-b", "outer", ("relay",)),
    "read_secret": lambda state, path: read_secret(path),
    "vault": lambda state, path: Vault(path, "relay"),
}


@pytest.fixture
def handed(tmp_path: Path) -> Path:
    """A state directory as a gate has it that root started."""
    made = tmp_path / "state"
    made.mkdir()
    os.chown(made, os.geteuid(), GATE)
    return made


def planted(handed: Path, where: str, victim: Path) -> None:
    """A link at one step of the way to a secret, made by the gate's user."""
    at = handed / where
    at.parent.mkdir(parents=True, exist_ok=True)
    for folder in (at.parent, *at.parent.parents):
        if folder == handed:
            break
        os.chown(folder, GATE, GATE)
    at.symlink_to(victim)
    os.chown(at, GATE, GATE, follow_symlinks=False)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("where", ["secrets", "secrets/relay%2Fa-b", "secrets/relay%2Fa-b/outer"])
def test_no_link_on_the_way_to_a_secret_is_followed(handed: Path, tmp_path: Path, way: str, where: str) -> None:
    victim = tmp_path / "keys"
    victim.mkdir(mode=0o700)
    planted(handed, where, victim)
    with pytest.raises((GateError, OSError)):
        WAYS[way](handed, secret_file(handed, "relay/a-b", "outer", "relay"))
    assert list(victim.iterdir()) == []
    assert (victim.stat().st_uid, victim.stat().st_gid) == (os.geteuid(), os.getegid())


@pytest.mark.parametrize("way", LOOKS)
@pytest.mark.parametrize("where", ["secrets", "secrets/relay%2Fa-b", "secrets/relay%2Fa-b/outer"])
def test_no_link_on_the_way_is_read_through_either(handed: Path, tmp_path: Path, way: str, where: str) -> None:
    """Root's own file of that name, behind a folder that the gate has planted, is nobody's secret."""
    path = secret_file(handed, "relay/a-b", "outer", "relay")
    victim = tmp_path / "elsewhere"
    inner = victim.joinpath(*path.relative_to(handed / where).parts)
    inner.parent.mkdir(parents=True)
    inner.write_bytes(b"{}")
    inner.chmod(0o600)
    planted(handed, where, victim)
    with pytest.raises((GateError, OSError)):
        LOOKS[way](handed, path)
    (handed / where).unlink()
    with_it = handed / where
    victim.rename(with_it)
    assert LOOKS[way](handed, path)


def test_what_a_part_has_planted_is_not_waited_for_and_not_written_through(tmp_path: Path) -> None:
    """The log's public key, an export's cursor: root reads and writes beside their owners."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for kind in ("pipe", "link"):
        for name in ("audit.pub", "soc.json"):
            at = tmp_path / name
            at.unlink(missing_ok=True)
            os.mkfifo(at) if kind == "pipe" else at.symlink_to("/dev/zero")
        with pytest.raises(AuditError, match="cannot be read"):
            find_public(None, tmp_path / "audit.pub")
        assert Cursor(tmp_path, "soc", "log").next == 0
    (tmp_path / ".cursor.new").symlink_to(victim)
    owned.write(tmp_path, ["cursor"], b"{}", os.geteuid())
    assert (tmp_path / "cursor").read_bytes() == b"{}" and victim.read_text() == "precious"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["link", "second name", "pipe"])
def test_what_stands_where_the_new_file_is_to_be_is_not_written(
    handed: Path, tmp_path: Path, way: str, kind: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path = secret_file(handed, "relay/a-b", "outer", "strand" if way == "diode" else "relay")
    path.parent.mkdir(parents=True)
    for name in (f"{path.name}.new", path.name) if way == "write_secret" else (f"{path.name}.new",):
        at = path.with_name(name)
        if kind == "pipe":
            os.mkfifo(at)
        else:
            (at.symlink_to if kind == "link" else at.hardlink_to)(victim)
    if way == "write_secret":
        with pytest.raises(FileExistsError):
            WAYS[way](handed, path)
    else:
        WAYS[way](handed, path)
        assert path.is_file() and not path.is_symlink() and path.stat().st_uid == GATE
        assert path.stat().st_mode & 0o777 == 0o600
    assert victim.read_text() == "precious" and victim.stat().st_uid == os.geteuid()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_folder_of_somebody_else_is_not_handed_over(handed: Path) -> None:
    (handed / "secrets").mkdir()
    os.chown(handed / "secrets", 64001, 64001)
    with pytest.raises(GateError, match="belongs to somebody else"):
        save_secret(secret_file(handed, "a", "b", "c"), b"x", GATE)
    assert (handed / "secrets").stat().st_uid == 64001


READERS: dict[str, Callable[[Path], object]] = {
    "severed.json": state.load_severed,
    "hands.json": state.load_hands,
    "expired.json": state.load_expired,
    "failed-checks.json": state.load_failed,
    "peers.json": peers.load_peers,
    "night.json": state.load_night,
    "anchor.json": state.load_anchor,
    "wireguard.key": peers.private_key,
    "spare": state.keep_spare,
}


@pytest.mark.parametrize("kind", ["pipe", "link", "folder", "huge"])
@pytest.mark.parametrize("name", READERS)
def test_a_start_waits_for_nothing_that_was_planted(tmp_path: Path, name: str, kind: str) -> None:
    at = tmp_path / name
    if kind == "huge":
        at.touch()
        os.truncate(at, 1 << 40)
    elif kind == "link":
        at.symlink_to("/dev/zero")
    else:
        {"pipe": os.mkfifo, "folder": os.mkdir}[kind](at)
    if name in ("anchor.json", "wireguard.key"):
        with pytest.raises(GateError):
            READERS[name](tmp_path)
    else:
        said = READERS[name](tmp_path)
        assert name in ("spare", "night.json") or "cannot be understood" in repr(said)


def test_a_file_that_a_backup_has_linked_is_read(tmp_path: Path) -> None:
    state.save_anchor(tmp_path, 7, bytes(32))
    (tmp_path / "backup").hardlink_to(tmp_path / "anchor.json")
    assert state.load_anchor(tmp_path) == (7, bytes(32))
    with pytest.raises(FileNotFoundError):
        owned.read(tmp_path / "none")
