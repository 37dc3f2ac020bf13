"""What a process of the gate sees of the file system: a small tree of its own, read-only but for what it must write.

It holds the Python that runs us, our own code and the C library, and nothing else: no /proc, no /dev, no /etc, no
home, no socket of anyone. Built in the child, in a mount namespace of its own, before it gives up its privilege.

Not here: which process gets what besides (namespaces).
"""

from __future__ import annotations

import errno
import os
import site
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cofferdam
from cofferdam.enforce import compiled, kernel

_TREE = "mode=0755,size=1m,nr_inodes=4k"
_LOADERS = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1")
"""The program that the kernel starts to load a program's libraries, by processor."""
_LIBRARY_LINKS = ("/lib", "/lib64", "/lib32", "/libx32")


@dataclass(frozen=True)
class Python:
    """Where this interpreter, its packages and its libraries lie: files and folders to show, links to repeat."""

    shown: tuple[Path, ...]
    links: tuple[tuple[Path, str], ...]


def find_python() -> Python:
    """The interpreter that runs the caller, with everything that it loads from."""
    shown: list[Path] = []
    links: list[tuple[Path, str]] = []

    def show(path: Path) -> None:
        if path.exists() and not any(path == other or path.is_relative_to(other) for other in shown):
            shown[:] = [other for other in shown if not other.is_relative_to(path)]
            shown.append(path)

    if sys.prefix != sys.base_prefix:
        show(Path(sys.prefix))
    for name in ("stdlib", "platstdlib"):
        show(Path(sysconfig.get_path(name)))
    # A file of paths in one folder of packages may name another.
    packages = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    for folder in (*site.getsitepackages(), *packages):
        show(Path(folder))
    show(Path(cofferdam.__file__).parent)
    show(Path(sys.prefix) / compiled.FOLDER)

    def follow(path: Path) -> None:
        """The chain of links from a name to the file itself."""
        while path.is_symlink():
            target = str(path.readlink())
            links.append((path, target))
            path = Path(os.path.normpath(path.parent / target))
            if any(path.is_relative_to(name) for name in _LIBRARY_LINKS):
                path = path.parent.resolve() / path.name  # those are links themselves, and repeated as such
        show(path)

    follow(Path(sys.executable))
    for loader in map(Path, _LOADERS):
        if loader.exists():
            follow(loader.parent.resolve() / loader.name)
    for libraries in _folders_of_libraries():
        show(libraries)
    for name in _LIBRARY_LINKS:
        path = Path(name)
        if path.is_symlink():
            links.append((path, str(path.readlink())))
        elif path.is_dir():
            show(path)
    show(Path("/etc/ld.so.cache"))
    return Python(tuple(shown), tuple((path, to) for path, to in links if not _inside(path, shown)))


def _inside(path: Path, folders: Iterable[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _folders_of_libraries() -> set[Path]:
    """Where the shared libraries in this process's memory lie."""
    found = set()
    for line in Path("/proc/self/maps").read_text().splitlines():  # several of each library
        words = line.split(maxsplit=5)
        if len(words) == 6 and ".so" in words[5] and words[5].startswith("/"):
            found.add(words[5])
    return {Path(library).parent for library in found}


def enter(at: Path, python: Python, reads: Iterable[Path] = (), writes: Iterable[Path] = ()) -> None:
    """Makes the calling process's root a tree with these paths at their own names. `at` is an empty folder.

    The process needs a mount namespace of its own, and keeps nothing of the old tree.

    Raises:
        OSError: it cannot be built; the process must end.
    """
    kernel.mount("", "/", "none", kernel.MS_REC | kernel.MS_PRIVATE)
    hard = kernel.MS_NOSUID | kernel.MS_NODEV
    kernel.mount("tmpfs", str(at), "tmpfs", hard, _TREE)
    made: list[Path] = []
    for path in (*python.shown, *reads):
        _bind(at, path, hard | kernel.MS_RDONLY, made)
    for path in writes:
        _bind(at, path, hard | kernel.MS_NOEXEC, made)
    for here in made:
        kernel.mount("", str(here), flags=kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | hard)
    for path, target in python.links:
        here = at / path.relative_to("/")
        here.parent.mkdir(parents=True, exist_ok=True)
        if not here.is_symlink() and not here.exists():
            here.symlink_to(target)
    kernel.mount("", str(at), "none", kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | hard)
    os.chdir(at)
    kernel.pivot_root(".", ".")
    kernel.umount(".")
    os.chdir("/")


def _bind(at: Path, path: Path, flags: int, made: list[Path]) -> None:
    """Shows a path. Where it lies on a file system of its own below a folder that is shown already, that has only the
    empty place for it: a small tree is put there for what is shown of it (`made`)."""
    here = at / path.relative_to("/")
    folder = here if path.is_dir() else here.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        top = next(one for one in folder.parents if one.is_dir())
        kernel.mount("tmpfs", str(top), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, _TREE)
        made.append(top)
        folder.mkdir(parents=True, exist_ok=True)
    if folder is not here:
        here.touch(exist_ok=True)
    kernel.mount(str(path), str(here), flags=kernel.MS_BIND)
    kernel.mount("", str(here), flags=kernel.MS_REMOUNT | kernel.MS_BIND | flags)
