"""The site's folders: what one part leaves in a shared one, the other reads."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cofferdam.enforce import sites
from cofferdam.errors import GateError


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="takes root, and setpriv (util-linux)")
@pytest.mark.parametrize("before", [None, 0o770], ids=["made", "there"])
def test_a_folder_gives_its_group_to_what_is_made_in_it(tmp_path: Path, before: int | None) -> None:
    """The launcher has no CAP_FSETID, without which the kernel takes the mark away at a chmod, and says nothing."""
    tmp_path.chmod(0o755)
    if before is not None:
        (tmp_path / "folders").mkdir()
        (tmp_path / "folders" / "one").mkdir()
        os.chown(tmp_path / "folders" / "one", 64_001, 64_001)
        (tmp_path / "folders" / "one").chmod(before)
    make = (
        "import pathlib as p, sys; from cofferdam.enforce import sites; sites.make(p.Path(sys.argv[1]), 'one', 64002)"
    )
    command = ["setpriv", "--bounding-set", "-fsetid", sys.executable, "-c", make, str(tmp_path / "folders")]
    subprocess.run(command, check=True)
    found = (tmp_path / "folders" / "one").stat()
    group = 64_002 if before is None else 64_001
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (64_002, group, 0o2770)
    assert sites.group(tmp_path / "folders" / "one") == group


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders to others")
@pytest.mark.parametrize("made", [True, False])
@pytest.mark.parametrize("led_by", ["a link", "another name of a file"])
def test_who_may_write_beside_a_folder_leads_nobody_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: bool, led_by: str
) -> None:
    """Where others may write to the directory of the site's folders, root gave theirs of a folder to what it led to."""
    folder, victim = tmp_path / "folders" / "one", tmp_path / "victim"
    folder.parent.mkdir()
    if not made:
        folder.mkdir()
        folder.chmod(0o777)
    if led_by == "a link":
        victim.mkdir()
    else:
        victim.touch()
    victim.chmod(0o700)
    real = Path.mkdir if made else Path.lstat

    def swapped(path: Path, *args: Any, **named: Any) -> Any:
        said = real(path, *args, **named)
        if path == folder and not (tmp_path / "folders" / "old").exists():
            folder.rename(tmp_path / "folders" / "old")
            if led_by == "a link":
                folder.symlink_to(victim)
            else:
                folder.hardlink_to(victim)
        return said

    monkeypatch.setattr(Path, real.__name__, swapped)
    with pytest.raises(GateError):
        sites.make(tmp_path / "folders", "one", 64_002)
    found = victim.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o700, 0, 0)
