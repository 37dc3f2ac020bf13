"""Finds the compiled build of parts, if there is one that was made from the code that runs.

`make fast` compiles a copy of what compiled parts load to machine code (packaging/fast.py) and writes down what it was
made from. It is the same source, so it does the same; this module makes sure that it is: with one byte of difference
the parts run interpreted. Nothing compiled ever lies beside the source, where it could go stale unseen.

Not here: the compiling (packaging/fast.py), the starting of parts (launcher).
"""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import msgspec

import cofferdam

FOLDER = "lib/cofferdam-fast"
"""Of compiled builds, below sys.prefix: each lies in a folder of its own, so that what runs keeps what it runs from."""
NEWEST = "newest"
"""The link in FOLDER to the newest build. Python can run a build's folder itself: it holds a `__main__.py`."""
MANIFEST = "manifest.json"
SWITCH = "COFFERDAM_FAST"
"""Environment variable of `cofferdam up`; 0 has all parts run interpreted."""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a build was made from: the Python it is for, the folder of the package, where it finds what was not
    compiled, and each file that parts load, with its SHA-256."""

    python: str
    package: str
    files: dict[str, str]


@dataclass(frozen=True)
class Build:
    """How to start a part: the arguments after `python -I`, and what `status` says about it."""

    arguments: tuple[str, ...]
    is_compiled: bool
    why: str


def python_tag() -> str:
    """The Python that a build fits."""
    return f"{sys.version.split()[0]} {sysconfig.get_config_var('SOABI')}"


def digest(path: Path) -> str:
    """A file's SHA-256; "" when it is not there."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def find(folder: Path | None = None) -> Build:
    """The compiled build if it may be used, else the plain one and why. `folder`: of one build; the newest."""
    if os.environ.get(SWITCH, "1") == "0":
        return _plain(f"{SWITCH}=0 is set")
    folder = (Path(sys.prefix) / FOLDER / NEWEST if folder is None else folder).resolve()
    package = Path(cofferdam.__file__).parent
    why = fault(folder, package)
    if why:
        return _plain(f"{why}; {remedy(package)}")
    return Build((str(folder),), True, "the parts' own code runs as machine code")


def fault(folder: Path, package: Path) -> str:
    """Why the build in `folder` cannot stand for `package`, or ""."""
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except FileNotFoundError:
        return "no compiled build"
    except (OSError, msgspec.MsgspecError) as error:
        return f"the compiled build cannot be read ({error})"
    if manifest.python != python_tag():
        return f"the compiled build is for Python {manifest.python}"
    if manifest.package != str(package):
        return f"the compiled build is of {manifest.package}"
    changed = [name for name, was in manifest.files.items() if digest(package / name) != was]
    if changed:
        return f"{changed[0]} has changed since the compiled build was made"
    return ""


def remedy(package: Path) -> str:
    """Who makes a build for it: where there is no source around the package, nobody can compile it on the spot."""
    if (package.parent.parent / "packaging" / "fast.py").is_file():
        return "`make fast` makes one"
    return "a Debian package brings one (`make deb` where the source is)"


def _plain(why: str) -> Build:
    return Build(("-m", "cofferdam.brokers.half"), False, f"the parts run interpreted, and slower: {why}")
