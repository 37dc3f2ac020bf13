"""The compiled build of the halves: used only where it fits the source, and it does what the source does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import cofferdam
from cofferdam.brokers.kit.supervision import PartStatus
from cofferdam.enforce import compiled
from cofferdam.enforce.compiled import MANIFEST, SWITCH, Manifest, digest, fault, find, python_tag, remedy
from tests.brokers.harness import COMPILED, listen, running

ROOT = Path(__file__).parent.parent.parent
PACKAGE = Path(cofferdam.__file__).parent
FOLDER = (Path(sys.prefix) / compiled.FOLDER / compiled.NEWEST).resolve()
needs_build = pytest.mark.skipif(not COMPILED.is_compiled, reason=COMPILED.why)


def make_build(folder: Path, package: Path, **changes: object) -> None:
    """A build as far as its manifest goes."""
    files = {str(p.relative_to(package)): digest(p) for p in package.rglob("*.py")}
    manifest = Manifest(python_tag(), str(package), files)
    folder.mkdir(exist_ok=True)
    (folder / MANIFEST).write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, **changes)))


@pytest.fixture
def package(tmp_path: Path) -> Path:
    made = tmp_path / "package"
    (made / "crossing").mkdir(parents=True)
    (made / "model.py").write_text("A = 1\n")
    (made / "crossing" / "pipe.py").write_text("B = 2\n")
    return made


def test_a_build_of_this_source_is_used(tmp_path: Path, package: Path) -> None:
    make_build(tmp_path / "fast", package)
    assert fault(tmp_path / "fast", package) == ""


@pytest.mark.parametrize("name", ["model.py", "crossing/pipe.py"])
def test_one_changed_byte_of_the_source_puts_a_build_out_of_use(tmp_path: Path, package: Path, name: str) -> None:
    make_build(tmp_path / "fast", package)
    (package / name).write_text((package / name).read_text() + " ")
    assert fault(tmp_path / "fast", package).startswith(f"{name} has changed since")


def test_a_file_that_has_gone_puts_a_build_out_of_use(tmp_path: Path, package: Path) -> None:
    make_build(tmp_path / "fast", package)
    (package / "model.py").unlink()
    assert "model.py has changed" in fault(tmp_path / "fast", package)


def test_a_build_for_another_python_is_not_used(tmp_path: Path, package: Path) -> None:
    make_build(tmp_path / "fast", package, python="3.9.0 elsewhere")
    assert "for Python 3.9.0 elsewhere" in fault(tmp_path / "fast", package)


def test_a_build_of_another_place_is_not_used(tmp_path: Path, package: Path) -> None:
    """It would find there what was not compiled."""
    shutil.copytree(package, tmp_path / "elsewhere")
    make_build(tmp_path / "fast", tmp_path / "elsewhere")
    assert fault(tmp_path / "fast", tmp_path / "elsewhere") == ""
    assert f"is of {tmp_path / 'elsewhere'}" in fault(tmp_path / "fast", package)


@pytest.mark.parametrize("text", [b"", b"{}", b'{"python": 3, "files": {}}', b"\xff", b"[" * 9000])
def test_a_manifest_that_is_none_is_not_used(tmp_path: Path, package: Path, text: bytes) -> None:
    (tmp_path / "fast").mkdir()
    (tmp_path / "fast" / MANIFEST).write_bytes(text)
    assert "cannot be read" in fault(tmp_path / "fast", package)


def test_without_a_build_the_way_to_one_is_named(
    tmp_path: Path, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    assert fault(tmp_path / "nothing", package) == "no compiled build"
    build = find(tmp_path / "nothing")
    assert build.arguments == ("-m", "cofferdam.brokers.half") and not build.is_compiled
    assert build.why.endswith("; `make fast` makes one")
    assert "make fast" not in remedy(package) and "make deb" in remedy(package), "there is no Makefile around it"


def test_it_can_be_turned_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    make_build(tmp_path / "fast", PACKAGE)
    assert find(tmp_path / "fast").is_compiled
    monkeypatch.setenv(SWITCH, "0")
    assert not find(tmp_path / "fast").is_compiled
    assert SWITCH in find(tmp_path / "fast").why


@needs_build
def test_a_half_of_the_build_runs_compiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COFFERDAM_TEST_BUILD", "compiled")
    with listen() as device, running(device.getsockname()[1]) as pair:
        for half in pair.halves:
            assert half.process is not None
            maps = Path(f"/proc/{half.process.pid}/maps").read_text()
            assert "__mypyc" in maps and str(FOLDER) in maps
            assert isinstance(half.status(), PartStatus)


@needs_build
def test_the_playbooks_hold_for_the_compiled_code(tmp_path: Path) -> None:
    """The build holds only what halves load, so the tests get it laid over a copy of the package."""
    shutil.copytree(PACKAGE, tmp_path / "cofferdam", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "__main__.py"))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    check = (
        "import cofferdam.brokers.proxy.inner as i, cofferdam.policy.points.decide as d\nprint(i.__file__, d.__file__)"
    )
    said = subprocess.run([sys.executable, "-c", check], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert said.stdout.count(str(tmp_path)) == 2 and said.stdout.count(".so") == 2, said.stderr
    protocols = ("modbus_machine", "registry")
    suites = [
        "tests/brokers/test_playbooks.py",
        "tests/crossing",
        *(f"tests/protocols/test_{one}.py" for one in protocols),
    ]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *suites]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
