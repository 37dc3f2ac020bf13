"""The severed sides on disk, and the messages on stderr."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cofferdam import owned
from cofferdam.errors import GateError
from cofferdam.gate.log import Log
from cofferdam.gate.state import (
    Closure,
    Cut,
    Hands,
    Severed,
    keep_spare,
    load_hands,
    load_severed,
    save_anchor,
    save_hands,
    save_severed,
    with_closure,
    with_cut,
)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of a quarter of a MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("needs root to mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path, name: str) -> None:
    """Not a page is left."""
    with (folder / name).open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass


def test_sides_are_severed_and_restored_on_a_full_disk(small: Path) -> None:
    """One change after the other, whoever takes what each of them leaves free; then the reason is the right one, and
    what was there is there still."""
    keep_spare(small)
    fill(small, "ballast")
    one, both = Severed((Cut("it", 1, "a"),)), Severed((Cut("it", 1, "a"), Cut("ot", 2, "b")))
    for turn, cuts in enumerate((one, both, one, Severed(()), one, both) * 3):
        save_severed(small, cuts)
        assert load_severed(small) == cuts
        fill(small, f"more-{turn}")
    for name in owned.SPARES:
        (small / name).unlink(missing_ok=True)
    fill(small, "all")
    with pytest.raises(GateError, match="No space left") as caught:
        save_severed(small, one)
    assert "make room" in caught.value.hint
    assert load_severed(small) == both


def test_what_needs_more_than_the_reserve_leaves_it_to_the_sides(small: Path) -> None:
    """What does not fit into the reserve anyway took all of it, and nothing could be severed any more."""
    keep_spare(small)
    fill(small, "ballast")
    many = tuple(Closure("asset", f"plc-{n}", 1, "root", "r" * 512) for n in range(1000))
    with pytest.raises(GateError, match="No space left"):
        save_hands(small, Hands(many))
    save_severed(small, Severed((Cut("it", 1, "a"),)))
    assert load_severed(small).sides == ("it",) and load_hands(small) == (Hands(), "")


@pytest.mark.parametrize("pages", range(1, 6))
def test_what_fits_in_part_is_not_taken_for_written(small: Path, pages: int) -> None:
    """A disk with some room left takes as much as it can, without an error: the rest was zeros."""
    keep_spare(small)
    save_hands(small, Hands())
    (small / "room").write_bytes(bytes(4096 * pages))
    fill(small, "ballast")
    (small / "room").unlink()
    many = tuple(Closure("asset", f"plc-{n}", 1, "root", "r" * 100) for n in range(200))
    save_hands(small, Hands(many))
    assert load_hands(small) == (Hands(many), "")


def test_what_is_saved_often_leaves_the_reserve_alone(small: Path) -> None:
    keep_spare(small)
    fill(small, "ballast")
    with pytest.raises(GateError, match="No space left"):
        save_anchor(small, 7, bytes(32))
    assert all((small / name).exists() for name in owned.SPARES)
    many = tuple(Closure("asset", f"a{n}", n, "x" * 100, "y" * 400) for n in range(60))  # more than a spare holds
    save_hands(small, Hands(many))
    assert load_hands(small)[0].closures == many


def test_severed_sides_come_back_as_written(tmp_path: Path) -> None:
    assert load_severed(tmp_path) == Severed(())
    cuts = Severed((Cut("ot", 5, "root", "maintenance"),))
    save_severed(tmp_path, cuts)
    assert load_severed(tmp_path) == cuts
    assert load_severed(tmp_path).sides == ("ot",)
    assert (tmp_path / "severed.json").stat().st_mode & 0o777 == 0o600
    save_severed(tmp_path, Severed(()))
    assert load_severed(tmp_path).sides == ()


def test_of_two_that_sever_a_side_the_later_end_counts() -> None:
    found = Severed(())
    for until, stands, over in ((50, 50, ("it",)), (40, 50, ("it",)), (70, 70, ()), (0, 0, ()), (90, 0, ())):
        found = with_cut(found, Cut("it", 5, "root", "", until))
        assert [cut.until_ns for cut in found.cuts] == [stands] and found.over(60) == over
    assert with_cut(found, Cut("ot", 5, "root")).sides == ("it", "ot")


def test_of_two_that_sever_the_same_the_later_end_counts() -> None:
    found: tuple[Closure, ...] = (Closure("asset", "other", 5, "root"),)
    for until, stands in ((50, 50), (40, 50), (70, 70), (0, 0), (90, 0)):
        found = with_closure(found, Closure("asset", "plc", 5, f"by {until}", "", until))
        assert [one.until_ns for one in found] == [0, stands] and found[1].by == "by 50"
    over = with_closure((Closure("asset", "plc", 5, "root", "", 50),), Closure("asset", "plc", 60, "anna", "", 90))
    assert [(one.by, one.until_ns) for one in over] == [("anna", 90)], "what is over is no more"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"format": 2, "severed": []}',
     b'{"format": 1, "severed": [{"side": "xx", "since_ns": 1, "by": "a"}]}',
     b'{"format": 1, "severed": [], "more": 1}', b"[" * 100_000, b'"\xff"'],
)  # fmt: skip
def test_a_damaged_file_severs_both_sides(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "severed.json").write_bytes(content)
    found = load_severed(tmp_path)
    assert found.sides == ("it", "ot")
    assert "severed.json" in found.damage


def test_a_file_that_can_not_be_read_severs_both_sides(tmp_path: Path) -> None:
    (tmp_path / "severed.json").mkdir()
    assert load_severed(tmp_path).sides == ("it", "ot")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    save_severed(tmp_path, Severed((Cut("it", 1, "a"),)))
    (tmp_path / "severed.json.new").mkdir()  # in the place of the fresh file: it is gone round
    save_severed(tmp_path, Severed((Cut("ot", 2, "b"),)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # no file may grow
    try:
        with pytest.raises(GateError, match=r"severed\.json") as caught:
            save_severed(tmp_path, Severed(()))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.hint
    assert load_severed(tmp_path).sides == ("ot",)
    assert not [one.name for one in tmp_path.iterdir() if one.is_file() and one.name.endswith(".new")]


def lines(form: str, *, journal: bool = False) -> tuple[Log, io.StringIO]:
    stream = io.StringIO()
    return Log(form, stream, journal=journal), stream


def test_text_lines_quote_what_could_be_mistaken() -> None:
    log, stream = lines("text")
    log.error("half-ended", half="a/b", reason='line one\nlevel=error "x"', empty="", status=-9)
    line = stream.getvalue()
    assert line.count("\n") == 1
    assert 'half=a/b reason="line one\\nlevel=error \\"x\\"" status=-9' in line
    assert " error   half-ended " in line


def test_json_lines() -> None:
    log, stream = lines("json")
    log.info("gate-ready", pairs=2, site="über")
    said = json.loads(stream.getvalue())
    assert said["level"] == "info" and said["event"] == "gate-ready" and said["pairs"] == 2 and said["site"] == "über"


def test_the_journal_gets_priorities_and_no_second_time() -> None:
    log, stream = lines("text", journal=True)
    log.warning("pair-pauses", seconds=0.2)
    assert stream.getvalue() == "<4>warning pair-pauses seconds=0.2\n"


@pytest.mark.parametrize("form", ["text", "json"])
def test_secrets_are_not_printed(form: str) -> None:
    log, stream = lines(form)
    log.info("x", password="hunter2", private_key="k-1-2", api_token="t-3", psk=7, seconds=1)
    assert stream.getvalue().count("<secret>") == 4
    assert not [word for word in ("hunter2", "k-1-2", "t-3") if word in stream.getvalue()]


def test_a_reader_that_has_gone_harms_nobody() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    stream = os.fdopen(write_end, "w")
    Log("text", stream, journal=False).info("x")
    try:
        stream.close()
    except BrokenPipeError:
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands files over")
def test_what_root_keeps_ready_is_the_gates(tmp_path: Path) -> None:
    """A command of root's that severs for a gate that hangs makes the reserve anew: the gate is to use it."""
    os.chown(tmp_path, 0, 64_000)
    tmp_path.chmod(0o1770)
    save_severed(tmp_path, Severed((Cut("it", 1, "a"),)))
    assert {(tmp_path / name).stat().st_uid for name in (*owned.SPARES, "severed.json")} == {64_000}
