"""What a part says on standard error is marked with its name, cleaned, cut and bounded; its descriptor is a pipe."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.enforce.messages import BYTES_A_SECOND, BYTES_AT_ONCE, LINE_CHARACTERS, Speaker
from tests.adversary.takeover import Taken, taken
from tests.waiting import eventually


@pytest.fixture(scope="module")
def owned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Taken]:
    with taken(tmp_path_factory.mktemp("owned")) as scene:
        yield scene


def test_a_part_speaks_for_itself_and_for_nobody_else(owned: Taken) -> None:
    """M6: forged lines, escapes, and megabytes at once."""
    forged = "2026-11-26T00:00:00Z info    restored side=it by=root"
    before = len(owned.gate.said())
    code = (
        f"os.write(2, b'{forged}\\n\\x1b[2Jgone\\x07\\n')\n"
        "for n in range(2000): os.write(2, b'x' * 4000 + b'\\n')\n"
        "os.write(2, b'enough\\n'); say('done')"
    )
    assert owned.inject(code) == "done"
    eventually(lambda: "x" * 900 in owned.gate.said())
    assert owned.gate.status()["pairs"]
    said = owned.gate.said()[before:]
    assert len(said) < 2 * BYTES_AT_ONCE and "\x1b" not in said and "\x07" not in said
    [line] = [line for line in said.splitlines() if "restored side=it" in line]
    assert line == f"modbus/enterprise-control/outer: {forged}"


def test_a_part_has_no_terminal_and_no_file(owned: Taken) -> None:
    """M7: there is nothing to read there, and nothing to seek in."""
    code = (
        "import stat\n"
        "def tried(call):\n    try:\n        call(); return 'done'\n    except OSError as error:\n"
        "        return errno.errorcode[error.errno]\n"
        "say((stat.S_ISFIFO(os.fstat(2).st_mode), tried(lambda: os.read(2, 1)), tried(lambda: os.lseek(2, 0, 0))))"
    )
    assert owned.inject(code) in ("(True, 'EBADF', 'ESPIPE')", "(True, 'EBADF', 'EPERM')", "EPERM")


@given(st.lists(st.tuples(st.binary(max_size=6000), st.floats(0, 5)), max_size=30))
def test_lines_are_clean_short_and_no_more_than_allowed(said: list[tuple[bytes, float]]) -> None:
    now, total = 0.0, 0
    speaker = Speaker("modbus/a/outer", now)
    for piece, later in [*said, (b"", 0.0)]:
        now += later
        for line in speaker.take(piece, now):
            assert line.startswith("modbus/a/outer: ") and line.isprintable()
            assert len(line) <= LINE_CHARACTERS + 32
            total += 1
    assert total * 32 <= 2 * (BYTES_AT_ONCE + now * BYTES_A_SECOND)
