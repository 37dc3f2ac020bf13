"""What strangers wrote, shown to people."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from cofferdam.audit.lines import escaped


@given(st.text())
def test_nothing_drives_a_terminal(text: str) -> None:
    shown = escaped(text)
    assert shown.isprintable()
    assert shown == "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def test_nothing_is_imported_for_it() -> None:
    """A part under its filter, or without Python's folder, opens no file for a stranger's control characters."""
    script = (
        "import sys\nfrom cofferdam.audit.lines import escaped\nbefore = set(sys.modules)\n"
        "escaped('\\x1b\\n\\u202e\\U000e0001\\udc80')\nprint(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, check=True)
    assert done.stdout == b"[]\n"
