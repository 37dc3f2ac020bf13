"""Secrets that systemd hands over: what lies there and is none of its is not believed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cofferdam.enforce import credentials
from cofferdam.errors import GateError

NAME = "cofferdam.jump.office-plant.keeper.store"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(credentials.DIRECTORY, str(tmp_path))
    made = tmp_path / NAME
    made.write_bytes(b"k" * 32)
    made.chmod(0o400)
    (tmp_path / "another.unit").write_bytes(b"of another's")
    return made


def piped(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o600)


def given_away(file: Path) -> None:
    if os.geteuid():
        pytest.skip("to give a file away takes root")
    os.chown(file, 4711, 4711)


def linked(file: Path) -> None:
    file.rename(file.with_name("elsewhere"))
    file.with_name("elsewhere").chmod(0o666)
    file.symlink_to("elsewhere")


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o440, 0o644])
def test_what_systemd_has_put_there_is_taken(file: Path, mode: int) -> None:
    file.chmod(mode)
    assert credentials.read() == {NAME: b"k" * 32}


@pytest.mark.parametrize(
    "change", [piped, given_away, linked, lambda file: file.chmod(0o602), lambda file: file.chmod(0o420)]
)
def test_what_somebody_else_has_put_there_is_not(file: Path, change: Callable[[Path], None]) -> None:
    change(file)
    with pytest.raises(GateError, match=NAME):
        credentials.read()
