"""The stand-alone verifier: shares no code with the product, finds the same damage."""

from __future__ import annotations

import ast
import importlib.util
import io
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cofferdam.audit.checkpoint import VerifierKey
from cofferdam.audit.files import DirFiles, LogReader
from cofferdam.audit.proof import check_proof, prove_consistency, prove_inclusion
from cofferdam.audit.verify import verify_log
from cofferdam.errors import AuditError
from tests.audit.conftest import Opener, write

TOOL = Path(__file__).parent.parent.parent / "tools/verify_audit.py"


def load() -> Any:
    spec = importlib.util.spec_from_file_location("verify_audit", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tool = load()


@pytest.fixture
def folder(small_home: Path, tmp_path: Path) -> Path:
    """A log with full tiles, partial ones, and entries that only the journal has; beside it how it went on, and its
    key."""
    for name in ("audit", "copy", "keys"):
        shutil.copytree(small_home / name, tmp_path / name)
    return tmp_path / "copy"


def run(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, list[str]]:
    code = tool.main([str(folder), "--key", str(tmp_path / "keys/audit.pub"), *more])
    return code, capsys.readouterr().out.splitlines()


def test_it_needs_only_python_and_cryptography() -> None:
    roots = set()
    for found in ast.walk(ast.parse(TOOL.read_text())):
        if isinstance(found, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in found.names}
        elif isinstance(found, ast.ImportFrom):
            roots.add((found.module or "").split(".")[0])
    assert roots - set(sys.stdlib_module_names) == {"cryptography"}


def test_a_good_log(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = run(folder, tmp_path, capsys)
    assert code == 0 and lines == [
        "good: all 601 entries of cofferdam/riverside (10 of them only in the journal: no checkpoint covers them yet)"
    ]


@pytest.mark.parametrize("by", [1, 300])
def test_a_log_that_grows_while_it_is_read(opener: Opener, monkeypatch: pytest.MonkeyPatch, by: int) -> None:
    """At whichever of the files that are read: entries come, a checkpoint covers them, what it makes needless goes.
    Neither verifier takes that for damage."""
    log = opener()
    for number in range(3):
        log.append([write(number)], maker="inner")
        log.publish()
    log.append([write()], maker="inner")
    left = [0]

    def grown(read: Callable[[Any, str], bytes | None]) -> Callable[[Any, str], bytes | None]:
        def reads(self: Any, path: str) -> bytes | None:
            left[0] -= 1
            if not left[0]:
                log.append([write(number) for number in range(by)], maker="inner")
                log.publish()
                log.append([write()], maker="inner")
            return read(self, path)

        return reads

    monkeypatch.setattr(DirFiles, "read", grown(DirFiles.read))
    monkeypatch.setattr(tool.Log, "read", grown(tool.Log.read))
    verifier, public = log.key.verifier, tool.Key(log.key.verifier.text)
    for at in range(1, 16):
        left[0] = at
        found = verify_log(DirFiles(log.folder), verifier)
        assert found.good and left[0] <= 0, (at, found.findings)
        left[0] = at
        other = tool.Log(str(log.folder), public, said := io.StringIO())
        other.check()
        assert not other.findings and left[0] <= 0, (at, said.getvalue())
    log.close()


def test_it_names_the_damaged_file(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in DirFiles(folder).paths():
        target = folder / path
        good = target.read_bytes()
        used = len(good.rstrip(b"\x00")) if path.startswith("journal/") else len(good)
        choose = random.Random(path)
        wrongs: list[bytes | None] = [good[: used // 2], good[:1], good[: used - 1]]
        if not path.startswith("journal/"):
            wrongs += [good + b"\x00", good + bytes(32)]
        for at in choose.sample(range(used), min(used, 5)):
            flipped = bytearray(good)
            flipped[at] ^= 1 << choose.randrange(8)
            wrongs += [bytes(flipped), good[:at] + good[at + 1 :]]
        if ".p/" not in path or path.endswith(("/79", "/2")):
            wrongs.append(None)
        for wrong in wrongs:
            if wrong is None:
                target.unlink()
            else:
                target.write_bytes(wrong)
            code, lines = run(folder, tmp_path, capsys)
            assert code == 1 and lines[-1].startswith("WRONG"), (path, lines)
            assert {line.split(":")[0] for line in lines[:-1]} <= {path, path.split("/")[0]}, (path, lines)
            target.write_bytes(good)
    assert run(folder, tmp_path, capsys)[0] == 0


def test_it_names_the_entry(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = folder / "tile/entries/001"
    bundle.write_bytes(bundle.read_bytes().replace(b'"w300"', b'"w30x"'))
    assert run(folder, tmp_path, capsys)[1][0].startswith("tile/entries/001: entry 301: ")


def test_a_kept_checkpoint(folder: Path, opener: Opener, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = str(tmp_path / "audit/checkpoint")  # of 601 entries; the copy has only 591 under its own
    assert run(tmp_path / "audit", tmp_path, capsys, "--checkpoint", str(folder / "checkpoint"))[0] == 0
    code, lines = run(folder, tmp_path, capsys, "--checkpoint", kept)
    assert code == 1 and "cut back" in lines[0]


def test_a_larger_log(opener: Opener, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three levels of tiles, and damage in each."""
    log = opener()
    for start in range(0, 66_000, 2000):
        log.append([write(start + n) for n in range(2000)], maker="inner")
    log.close()
    folder = tmp_path / "audit"
    assert run(folder, tmp_path, capsys)[0] == 0
    for path in ("tile/0/255", "tile/1/000", "tile/2/000.p/1", "tile/entries/200"):
        good = (folder / path).read_bytes()
        for at in (len(good) // 2,):
            wrong = bytearray(good)
            wrong[at] ^= 1
            (folder / path).write_bytes(wrong)
            code, lines = run(folder, tmp_path, capsys)
            assert code == 1 and {line.split(":")[0] for line in lines[:-1]} == {path}, lines
        with pytest.raises(AuditError, match="damaged"):
            opener(deep=10**9)
        (folder / path).write_bytes(good)
    opener().close()


def test_proofs_hold_and_stop_holding(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    public = tmp_path / "keys/audit.pub"
    key = VerifierKey.parse(public.read_text())
    reader = LogReader(folder, key)
    size = reader.checkpoint().size
    proofs = [prove_inclusion(reader, index) for index in (0, 1, 255, 256, 511, 512, size - 1)]
    proofs += [prove_consistency(reader, old) for old in (0, 1, 2, 101, 255, 256, 257, 512, size - 1, size)]  # type: ignore[misc]
    for proof in proofs:
        data = msgspec.json.encode(proof)
        path = tmp_path / "proof.json"
        path.write_bytes(data)
        checked = check_proof(data, key)
        assert checked.checkpoint.size == size
        assert tool.main(["--proof", str(path), "--key", str(public)]) == 0
        fields = msgspec.json.decode(data)
        for name in ("index", "size"):
            if name in fields and fields[name] != size:
                fields[name] += 1
        fields["entry" if "entry" in fields else "root"] = "AAAA" * 10 + "AAA="
        path.write_bytes(msgspec.json.encode(fields))
        with pytest.raises(AuditError):
            check_proof(path.read_bytes(), key)
        assert tool.main(["--proof", str(path), "--key", str(public)]) == 1
    with pytest.raises(AuditError, match="no entry 595"):
        prove_inclusion(reader, 595)
    capsys.readouterr()
