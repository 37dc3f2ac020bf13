"""A folder for tests in which other users have a part.

pytest's own folders are for whoever runs the tests, and each session that begins shuts the one above them anew: who
opens that for a test finds it shut again as soon as somebody else starts one.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def others_get_into() -> Iterator[Path]:
    """A folder of its own that all users of the machine may enter, for as long as it lasts."""
    with tempfile.TemporaryDirectory(prefix="cofferdam-test-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
