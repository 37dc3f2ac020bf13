"""`make fast`: compiles a copy of what a half loads to machine code, into the virtual environment.

The compiler is mypyc, which takes typed Python as it is: the source stays the only one, and the halves run from it
wherever this build is missing or made from other code (cofferdam.enforce.compiled decides). Does nothing when the
build is there and fits. Takes about a minute. Exit code 0 also where it cannot be built: it says why, and the halves
run interpreted. With --must, as in CI, that is a failure.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

import cofferdam
from cofferdam.enforce.compiled import FOLDER, MANIFEST, Manifest, digest, fault, python_tag

COMPILED = (
    "histogram.py", "audit/client.py", "brokers/*.py", "brokers/*/*.py", "crossing/*.py", "policy/*.py",
    "policy/points/*.py", "protocols/*/*.py",
)  # fmt: skip
"""What a transaction runs through, as far as a half loads it, ..."""
INTERPRETED = (
    "__init__.py", "brokers/registry.py", "brokers/*/broker.py", "brokers/kit/supervision.py", "brokers/kit/figures.py",
    "brokers/*/records.py", "policy/rows.py", "policy/table.py", "protocols/*/messages.py",
)  # fmt: skip
"""... but for definitions of records and messages, which are msgspec's business and cannot be compiled."""

SETUP = """
from setuptools import setup
from mypyc.build import mypycify

setup(name="cofferdam-fast", ext_modules=mypycify({arguments!r}, opt_level="2", debug_level="0"))
"""
START = '''"""Starts a half from the compiled build: `python -I FOLDER ...`."""

import sys

from cofferdam.brokers.half import main

sys.exit(main())
'''
LOADED = """
import sys
import cofferdam.brokers.half
import cofferdam.crossing.memory  # for bench/one_process.py
from cofferdam.brokers.registry import BROKERS, named
for broker in BROKERS.values():
    if any(profile.compiled for profile in broker.crew.parts.values()):
        for place in [*broker.make.values(), *broker.records.values()]:
            named(place)
print("\\n".join(m.__file__ for n, m in sys.modules.items() if n.split(".")[0] == "cofferdam" and m.__file__))
"""


def main() -> int:
    failed = 1 if "--must" in sys.argv[1:] else 0
    package = Path(cofferdam.__file__).parent
    target = Path(sys.prefix) / FOLDER
    why = fault(target, package)
    if not why:
        return 0
    print(f"compiling the halves ({why.split(';')[0]}); about a minute ...", flush=True)
    missing = _missing()
    if missing:
        print(f"not compiled: {missing}. The halves run interpreted, which is slower.", file=sys.stderr)
        return failed
    with tempfile.TemporaryDirectory(prefix="cofferdam-fast-") as scratch:
        work = Path(scratch)
        said = _build(package, work)
        if said:
            print(f"{said}\nnot compiled (above: why). The halves run interpreted, which is slower.", file=sys.stderr)
            return failed
        fresh = target.with_name(target.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(work, fresh, ignore=shutil.ignore_patterns("build", "*.c", "setup.py", ".mypy_cache"))
        fresh.chmod(0o755)  # the halves run as other users
    # A gate that starts meanwhile finds no build and runs interpreted; one that runs has loaded what it needs.
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    print(f"compiled: {target}")
    return 0


def _missing() -> str:
    if not shutil.which("gcc"):
        return "there is no gcc (Debian: apt-get install gcc libc6-dev python3-dev)"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "Python's headers are missing (Debian: apt-get install python3-dev)"
    try:
        import mypyc
        import setuptools
    except ImportError as error:
        return f"{error.name} is not installed (pip install mypy setuptools)"
    del mypyc, setuptools
    return ""


def _matches(name: Path, patterns: Sequence[str]) -> bool:
    return any(name.match(pattern) for pattern in patterns)


def _build(package: Path, work: Path) -> str:
    """Builds in `work`. Returns "" or the compiler's last words."""
    listed = subprocess.run([sys.executable, "-I", "-c", LOADED], capture_output=True, text=True, check=False)
    if listed.returncode:
        return listed.stderr
    files = sorted(Path(line).relative_to(package) for line in listed.stdout.splitlines())
    for name in files:
        copy = work / "cofferdam" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(package / name, copy)
    (work / "cofferdam" / "py.typed").touch()
    sources = [f"cofferdam/{name}" for name in files if _matches(name, COMPILED) and not _matches(name, INTERPRETED)]
    options = ["--config-file=", "--ignore-missing-imports"]
    (work / "setup.py").write_text(SETUP.format(arguments=[*options, *sources]))
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    if done.returncode:
        return "\n".join((done.stdout + done.stderr).splitlines()[-20:])
    (work / "__main__.py").write_text(START)
    # The digests are of the copies: what was edited while the compiler ran does not fit, and is found out.
    manifest = Manifest(python_tag(), {str(name): digest(work / "cofferdam" / name) for name in files})
    (work / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    # Bytecode is written now: a half may not write it, and should not spend its start on it.
    compiled = subprocess.run([sys.executable, "-I", str(work), "--help"], capture_output=True, text=True, check=False)
    return compiled.stderr if compiled.returncode else ""


if __name__ == "__main__":
    sys.exit(main())
