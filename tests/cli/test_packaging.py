"""What packages are made of: the locked run-time dependencies and no more, a man page of every verb, scripts.

The package itself is built by `make deb`, which takes minutes and the network.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cofferdam.cli.main import VERBS, main

ROOT = Path(__file__).parent.parent.parent
DEB = ROOT / "packaging" / "deb"


def printed(script: str, *arguments: str) -> str:
    command = [sys.executable, str(ROOT / "packaging" / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_runtime_lock_has_what_a_gate_needs_and_nothing_of_tests() -> None:
    names = set(re.findall(r"^([a-z0-9._-]+)(?:\[[a-z,]+\])?==", printed("runtime_lock.py", "relay", "jump"), re.M))
    assert {"msgspec", "pydantic-core", "cffi", "lxml", "asyncssh", "argon2-cffi-bindings"} <= names
    assert not names & {"pytest", "mypy", "pymodbus", "duckdb", "tuf", "hypothesis"}
    for entry in printed("runtime_lock.py").split("\n")[:1]:
        assert entry.endswith("\\"), "with its hashes"


def test_the_man_page_has_every_verb() -> None:
    page = printed("man.py")
    assert all(f".B {verb}\n" in page for verb in VERBS)


@pytest.mark.parametrize("script", ["build.sh", "postinst", "prerm", "postrm"])
def test_scripts_of_the_package_parse(script: str) -> None:
    assert subprocess.run(["bash", "-n", str(DEB / script)], check=False).returncode == 0
    assert (DEB / script).stat().st_mode & 0o111


def test_an_error_is_json_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--json", "--state", str(tmp_path)]) == 2
    told = capsys.readouterr()
    assert "no gate runs" in json.loads(told.out)["error"] and "no gate runs" in told.err
