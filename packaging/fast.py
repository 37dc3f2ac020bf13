"""`make fast`: compiles what compiled parts run through to machine code, into the virtual environment.

The compiler is mypyc, which takes typed Python as it is: the source stays the only one, and parts run from it wherever
this build is missing or made from other code (cofferdam.enforce.compiled decides). Does nothing when the build is there
and fits. Exit code 0 also where it cannot be built: it says why, and the parts run interpreted. With --must, as in CI,
that is a failure. With --behind it compiles in a process of its own, of low priority, and returns at once.

What is compiled follows from the code: the modules that the compiled parts of all brokers load (brokers.registry,
profiles with `compiled`), as far as they lie in the rooms below and define no records. They are compiled in groups, one
for each folder of a broker or protocol and one for what is common, so that groups are made side by side, and one whose
C did not change is not made again: its object is found by what it was made from.

One build is made at a time; who comes meanwhile waits, and then finds it made. A build that is in use is not touched:
each lies in a folder of its own, and a link says which one is the newest.
"""

from __future__ import annotations

import ast
import fcntl
import hashlib
import importlib.machinery
import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import msgspec

import cofferdam
from cofferdam.brokers.registry import BROKERS
from cofferdam.enforce.compiled import FOLDER, MANIFEST, NEWEST, Manifest, digest, fault, python_tag
from cofferdam.protocols.registry import PLACES

ROOMS = (
    "histogram.py", "audit/client.py", "brokers/*.py", "brokers/*/*.py", "crossing/*.py", "policy/*.py",
    "policy/points/*.py", "protocols/*/*.py",
)  # fmt: skip
"""What a transaction runs through, ..."""
INTERPRETED = (
    "brokers/registry.py",
    "brokers/kit/aio.py",
    "brokers/kit/asking.py",
    "crossing/loops.py",
    "policy/table.py",
)
"""... but for tables of the house, and what belongs to asyncio; and but for what _with_records finds."""
MORE = ("cofferdam.crossing.memory",)
"""Loaded by bench/one_process.py only."""
OF_A_KIND = {"brokers": ("kit",), "protocols": ()}
"""Rooms whose folders are groups of their own, but for these."""
OPTIMISE = "1"
"""Of the C compiler. 2 takes twice as long, and no difference could be measured (docs/adr/0020)."""
GENERATE = """
import json, sys
from mypyc.build import mypycify

asked = json.load(sys.stdin)
groups = [(files, name) for name, files in asked["groups"].items()]
made = mypycify(asked["arguments"], opt_level=asked["optimise"], debug_level="0", separate=groups)
extensions = [[one.name, one.sources, one.include_dirs, one.extra_compile_args] for one in made]
print("\\n" + json.dumps(extensions))
"""
START = '''"""Starts a part from the compiled build: `python -I FOLDER ...`. The rest comes from the source."""

import importlib
import importlib.machinery
import sys

SOURCE = {source!r}
MODULES = {modules!r}


class Rest:
    @staticmethod
    def find_spec(name, path=None, target=None):
        room, _, rest = name.partition(".")
        if room != "cofferdam" or not rest:
            return None
        return importlib.machinery.PathFinder.find_spec(name, ["/".join([SOURCE, *rest.split(".")[:-1]])])


sys.meta_path.append(Rest)

if sys.argv[1:] == ["--load"]:
    for each in MODULES:
        importlib.import_module(each)
elif sys.argv[1:2] == ["--run"]:  # a program of the benchmark, on this build
    import runpy

    del sys.argv[:2]
    runpy.run_path(sys.argv[0], run_name="__main__")
else:
    import gc

    gc.disable()  # half enables it where its part has use for it
    from cofferdam.brokers.half import main

    sys.exit(main())
'''


def main() -> int:
    package, target = Path(cofferdam.__file__).parent, Path(sys.prefix) / FOLDER
    why = fault(target / NEWEST, package)
    if not why:
        return 0
    missing = _missing()
    if missing:
        print(f"not compiled: {missing}. The parts run interpreted, which is slower.", file=sys.stderr)
        return 1 if "--must" in sys.argv[1:] else 0
    target.mkdir(parents=True, exist_ok=True)
    target.chmod(0o755)  # the parts run as other users
    if "--behind" in sys.argv[1:]:
        return _behind(target)
    with _alone(target):
        why = fault(target / NEWEST, package)
        if not why:
            return 0
        print(f"compiling ({why.split(';')[0]}) ...", flush=True)
        began = time.monotonic()
        said = build(package, target)
        if said:
            print(f"{said}\nnot compiled (above: why). The parts run interpreted, which is slower.", file=sys.stderr)
            return 1 if "--must" in sys.argv[1:] else 0
        print(f"compiled in {time.monotonic() - began:.0f} s: {(target / NEWEST).resolve()}", flush=True)
    return 0


def _behind(target: Path) -> int:
    log = target / "log"
    with log.open("w") as said:
        subprocess.Popen(
            ["nice", "-n", "19", sys.executable, __file__], stdin=subprocess.DEVNULL, stdout=said,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    print(f"compiling goes on behind this, at low priority ({log}): what starts before it is done runs interpreted")
    return 0


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Waits for whoever compiles now."""
    with (target / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another compile is under way ({target}); waiting for it ...", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _missing() -> str:
    if not shutil.which("gcc"):
        return "there is no gcc (Debian: apt-get install gcc libc6-dev python3-dev)"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "Python's headers are missing (Debian: apt-get install python3-dev)"
    try:
        import mypyc
        import setuptools  # type: ignore[import-untyped,unused-ignore]
    except ImportError as error:
        return f"{error.name} is not installed (pip install mypy setuptools)"
    del mypyc, setuptools
    return ""


# --- what is compiled -------------------------------------------------------------------------------------------------


def _roots() -> set[str]:
    """The modules that compiled parts begin with."""
    found = {*MORE, *(place.partition(":")[0] for place in PLACES.values())}
    for broker in BROKERS.values():
        parts = {part for part, profile in broker.crew.parts.items() if profile.compiled}
        found |= {broker.crew.parts[part].program for part in parts}
        places = [broker.make[part] for part in parts]
        places += [place for pipe, place in broker.records.items() if parts & set(pipe)]
        found |= {place.partition(":")[0] for place in places}
    return found


def _file(package: Path, module: str) -> Path | None:
    """A module's file, relative to the package."""
    stem = Path(*module.split(".")[1:])
    for name in (stem.with_name(stem.name + ".py") if stem.name else None, stem / "__init__.py"):
        if name is not None and (package / name).is_file():
            return name
    return None


def _closure(package: Path) -> dict[Path, ast.Module]:
    """All files of the package that the roots import, at once or later, and those that these import."""
    found: dict[Path, ast.Module] = {}
    waiting = [*_roots()]
    while waiting:
        module = waiting.pop()
        name = _file(package, module)
        if name is None or name in found:
            continue
        found[name] = ast.parse((package / name).read_bytes())
        waiting.append(module.rpartition(".")[0])
        for node in ast.walk(found[name]):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names if alias.name.startswith("cofferdam")]
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cofferdam"):
                waiting += [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


def _known(files: dict[Path, ast.Module], package: Path) -> dict[Path, dict[str, tuple[Path, str]]]:
    """What each file's names stand for: (file, name in it), for classes of its own and for what it imports."""
    found: dict[Path, dict[str, tuple[Path, str]]] = {}
    for name, tree in files.items():
        names = found[name] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                names[node.name] = (name, node.name)
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cofferdam"):
                for alias in node.names:
                    module = _file(package, f"{node.module}.{alias.name}")
                    if module is not None:
                        names[alias.asname or alias.name] = (module, "")
                    elif (home := _file(package, str(node.module))) is not None:
                        names[alias.asname or alias.name] = (home, alias.name)
    return found


def _bases(files: dict[Path, ast.Module], package: Path) -> dict[tuple[Path, str], list[tuple[Path, str]]]:
    """Of each class, as (file, name), those that it derives from. Two classes of one name are two; a base that is from
    elsewhere, as "Struct" is, has no file: `Path()`."""
    known = _known(files, package)
    found: dict[tuple[Path, str], list[tuple[Path, str]]] = {}
    for name, tree in files.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.ClassDef):
                continue
            bases = found[name, node.name] = []
            for base in node.bases:
                first, _, rest = ast.unparse(base).partition("[")[0].partition(".")
                file, own = known[name].get(first, (Path(), ""))
                place = (file, own or rest) if file != Path() else (Path(), (rest or first).rpartition(".")[2])
                seen = {place}
                while place[0] in known and place not in found and place[1] in known[place[0]]:
                    place = known[place[0]][place[1]]  # it is only handed on there
                    if place in seen:
                        break
                    seen.add(place)
                bases.append(place)
    return found


def _with_records(files: dict[Path, ast.Module], package: Path) -> set[Path]:
    """Files that define records or messages: these are msgspec's business, and cannot be compiled."""
    bases = _bases(files, package)
    records, size = {(Path(), "Struct")}, 0
    while size != len(records):
        size = len(records)
        records |= {one for one, of in bases.items() if records & set(of)}
    return {file for file, _ in records if file != Path()}


def _is_one(name: Path, patterns: Sequence[str]) -> bool:
    return any(name.match(pattern) for pattern in patterns)


def _groups(package: Path) -> tuple[list[Path], dict[str, list[str]]]:
    """The files that matter, and those to compile, by group."""
    files = _closure(package)
    records = _with_records(files, package)
    groups: dict[str, list[str]] = {}
    for name in sorted(files):
        if name.name == "__init__.py" or name in records or _is_one(name, INTERPRETED) or not _is_one(name, ROOMS):
            continue
        room, kind = name.parts[0], name.parts[1] if len(name.parts) > 2 else ""
        own = room in OF_A_KIND and kind and kind not in OF_A_KIND[room]
        groups.setdefault(f"{room}_{kind}" if own else "common", []).append(f"cofferdam/{name}")
    return sorted(files), groups


# --- compiling --------------------------------------------------------------------------------------------------------


def build(package: Path, target: Path) -> str:
    """Adds a build to those in `target` and makes it the newest. Returns "" or the compiler's last words."""
    files, groups = _groups(package)
    with tempfile.TemporaryDirectory(prefix="cofferdam-fast-") as scratch:
        work, fresh = Path(scratch), Path(tempfile.mkdtemp(prefix="build-", dir=target))
        try:
            for name in files:
                (work / "cofferdam" / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(package / name, work / "cofferdam" / name)
            (work / "cofferdam" / "py.typed").touch()
            kept = _compile(work, fresh, groups, target / "objects")
            compiled = [name for group in groups.values() for name in group]
            for file in [*compiled, *(f"cofferdam/{name}" for name in files if name.name == "__init__.py")]:
                (fresh / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(work / file, fresh / file)
            modules = [name.removesuffix(".py").replace("/", ".") for name in compiled]
            (fresh / "__main__.py").write_text(START.format(source=str(package), modules=modules))
            # Bytecode is written now: a part may not write it, and should not spend its start on it.
            _run([sys.executable, "-I", str(fresh), "--load"], work)
            # The digests are of the copies: what was edited while the compiler ran does not fit, and is found out.
            digests = {str(name): digest(work / "cofferdam" / name) for name in files}
            manifest = Manifest(python_tag(), str(package), digests)
            (fresh / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
            fresh.chmod(0o755)
        except _Refused as refused:
            shutil.rmtree(fresh)
            return str(refused)
    link = target / f"{NEWEST}.new"
    link.unlink(missing_ok=True)
    link.symlink_to(fresh.name)
    before = (target / NEWEST).resolve()
    link.replace(target / NEWEST)
    # What runs from the build before this one may go on; what is older still is removed.
    kept_here = {fresh.name, before.name, NEWEST, "objects", "lock", "log"}
    for old in target.iterdir():
        if old.name not in kept_here:
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    for known in (target / "objects").iterdir():
        if known.name not in kept:
            known.unlink()
    return ""


class _Refused(Exception):
    """By the compiler: its last words."""


def _run(command: list[str], work: Path, given: str = "") -> str:
    done = subprocess.run(command, cwd=work, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise _Refused("\n".join((done.stdout + done.stderr).splitlines()[-20:]))
    return done.stdout


def _compile(work: Path, fresh: Path, groups: dict[str, list[str]], objects: Path) -> set[str]:
    """Compiles the copies in `work` and links them in `fresh`. Returns the names of the objects that went into it."""
    objects.mkdir(exist_ok=True)
    sources = [name for group in groups.values() for name in group]
    asked = {
        "arguments": ["--config-file=", "--ignore-missing-imports", *sources], "groups": groups, "optimise": OPTIMISE,
    }  # fmt: skip
    said = _run([sys.executable, "-c", GENERATE], work, json.dumps(asked))
    extensions: list[tuple[str, list[str], list[str], list[str]]] = json.loads(said.splitlines()[-1])
    compiler, linker = (shlex.split(str(sysconfig.get_config_var(name))) for name in ("CC", "LDSHARED"))
    version = _run([*compiler, "--version"], work) + python_tag()
    python = Path(sysconfig.get_path("include"))

    jobs: dict[Path, list[str]] = {}
    made: dict[str, list[Path]] = {}
    for name, files, folders, more in extensions:
        for file in files:
            flags = ["-DNDEBUG", "-fwrapv", "-fPIC", *more]
            folders = [*map(str, folders), str(python)]
            known = _known_by(work, file, folders, f"{version} {flags}")
            jobs[objects / f"{known}.o"] = [*compiler, *flags, *(f"-I{folder}" for folder in folders), "-c", file]
            made.setdefault(name, []).append(objects / f"{known}.o")

    def compile_one(out: Path) -> None:
        if not out.exists():
            part = out.with_suffix(".part")
            _run([*jobs[out], "-o", str(part)], work)
            part.replace(out)

    def link_one(name: str) -> None:
        out = fresh / (name.replace(".", "/") + importlib.machinery.EXTENSION_SUFFIXES[0])
        out.parent.mkdir(parents=True, exist_ok=True)
        _run([*linker, *map(str, made[name]), "-o", str(out)], work)

    def largest_first(out: Path) -> int:
        return -(work / jobs[out][-1]).stat().st_size

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(compile_one, sorted(jobs, key=largest_first)))
        list(pool.map(link_one, made))
    return {out.name for out in jobs}


def _known_by(work: Path, file: str, folders: list[str], how: str) -> str:
    """What an object is made from, as one number: the compiler and its flags, and the text of the file and of all that
    it includes from `work`; the rest of what it includes belongs to the compilers, whose versions are in `how`."""
    import mypy.version

    seen, waiting = {file: ""}, [file]
    while waiting:
        text = (work / waiting[-1]).read_text()
        seen[waiting.pop()] = text
        for line in text.splitlines():
            if line.startswith("#include"):
                wanted = line.split(None, 1)[1].strip('<>"')
                for folder in [str(Path(file).parent), *folders]:
                    found = str(Path(folder) / wanted)
                    if not Path(found).is_absolute() and (work / found).is_file() and found not in seen:
                        seen[found] = ""
                        waiting.append(found)
    whole = json.dumps([how, mypy.version.__version__, sorted(seen.items())])
    return hashlib.sha256(whole.encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
