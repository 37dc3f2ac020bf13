"""`make vm`: python -m tests.vm [--group NAME] [--list] [--rebuild] [--keep]

Builds a Debian 12 (kept in build/vm), boots it in QEMU and runs the checks, a fresh machine for each group. Exit
codes: 0 all passed, 1 something failed, 2 it cannot run here.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.vm import package, roads, suite, units
from tests.vm.checks import Checks, Group, tarball
from tests.vm.image import KIND, ROOT, ImageError, ready
from tests.vm.machine import Machine, MachineError, emulator

CACHE = ROOT / "build" / "vm"
GROUPS: dict[str, Group] = {
    "closed": units.closed,
    "booted": units.booted,
    "supervised": units.supervised,
    "stopped": units.stopped,
    "power": units.power,
    "interfaces": roads.interfaces,
    "shared": roads.shared,
    "peers": roads.peers,
    "proof": roads.proof,
    "package": package.package,
    **dict.fromkeys(suite.FOLDERS, suite.tests),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.vm", description="Checks on a booted Debian 12 in QEMU.")
    parser.add_argument(
        "--group", action="append", metavar="NAME", help="only this one, or tests/FILE; may be repeated"
    )
    parser.add_argument("--list", action="store_true", help="the groups there are")
    parser.add_argument("--rebuild", action="store_true", help="make the machine's disk anew")
    parser.add_argument("--keep", action="store_true", help="keep the folder with consoles and disks")
    args = parser.parse_args()
    if args.list:
        for name, group in GROUPS.items():
            print(f"{name:<12} {(group.__doc__ or '').splitlines()[0]}")
        return 0
    wanted = args.group or list(GROUPS)
    for name in wanted:
        if name.startswith("tests/") and (ROOT / name.partition("::")[0]).exists():
            GROUPS.setdefault(name, suite.tests)
    unknown = sorted(set(wanted) - set(GROUPS))
    if unknown:
        print(f"no such group: {', '.join(unknown)}; there are {', '.join(GROUPS)}", file=sys.stderr)
        return 2
    checks = Checks()
    folder = Path(tempfile.mkdtemp(prefix="cofferdam-vm-"))
    try:
        emulator(KIND.machine)
        image = ready(CACHE, KIND, anew=args.rebuild)
        source = tarball(folder)
        for number, name in enumerate(wanted):  # short names: a socket's path has at most 108 bytes
            _run(name, Machine(image, _fresh(folder / str(number)), source), checks)
    except (ImageError, MachineError) as error:
        print(f"cannot run here: {error}", file=sys.stderr)
        return 2
    finally:
        if args.keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{len(checks.passed)} passed, {len(checks.failed)} failed")
    return 1 if checks.failed else 0


def _fresh(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _run(name: str, made: Machine, checks: Checks) -> None:
    """One group. What goes wrong on the way is a failure of it, and the next group runs."""
    started = time.monotonic()
    checks.group = name
    with made as machine:
        print(f"--- {name}: {'KVM' if machine.kvm else 'without KVM, so slowly'}", flush=True)
        try:
            GROUPS[name](machine, checks)
        except Exception as error:
            checks.check("runs to its end", False, f"{type(error).__name__}: {error}")
    checks.note(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    raise SystemExit(main())
