"""What package indexes have under this program's name is another project's: nobody is told to fetch it from there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
FETCHED = re.compile(
    r"(pip|pipx|uv|uvx)[^\n]{0,20} install[^\n]{0,20}['\" ]cofferdam|pip[^\n]{0,10}install '?cofferdam", re.I
)


def test_nobody_is_told_to_fetch_another_projects_package() -> None:
    texts = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("src/**/*.py"), *ROOT.glob("packaging/*")]
    told = [str(path) for path in texts if path.is_file() and FETCHED.search(path.read_text(errors="replace"))]
    assert len(texts) > 300 and not told


def test_it_would_be_found() -> None:
    assert FETCHED.search("hint=\"pip install 'cofferdam[relay]'\"")
    assert FETCHED.search("run pip install cofferdam to get it")
