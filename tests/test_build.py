"""What packaging/fast.py does around the compiler; what is compiled is tested where it runs (tests/brokers)."""

from __future__ import annotations

import ast
import fcntl
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

import cofferdam
from cofferdam.enforce import compiled
from cofferdam.enforce.compiled import MANIFEST, Manifest
from cofferdam.protocols.registry import PROTOCOLS

pytestmark = pytest.mark.heavy

ROOT = Path(__file__).parent.parent
PACKAGE = Path(cofferdam.__file__).parent
NEWEST = (Path(sys.prefix) / compiled.FOLDER / compiled.NEWEST).resolve()


@pytest.fixture(scope="module")
def fast() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fast", ROOT / "packaging" / "fast.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_compiled_follows_from_what_brokers_declare(fast: ModuleType) -> None:
    files, groups = fast._groups(PACKAGE)
    assert {"common", "brokers_proxy", "protocols_modbus"} <= set(groups)
    assert "cofferdam/brokers/half.py" in groups["common"] and "cofferdam/crossing/pipe.py" in groups["common"]
    assert "cofferdam/brokers/proxy/inner.py" in groups["brokers_proxy"]
    assert "cofferdam/protocols/modbus/wire.py" in groups["protocols_modbus"]
    compiled_ones = {name for group in groups.values() for name in group}
    assert compiled_ones < {f"cofferdam/{name}" for name in files}, "a change in any of these is a change of the build"
    assert "cofferdam/brokers/proxy/records.py" not in compiled_ones, "records are msgspec's business"
    assert not [name for name in compiled_ones if "\nimport asyncio" in (PACKAGE.parent / name).read_text()]


def test_the_build_holds_all_that_is_loaded_by_name(fast: ModuleType) -> None:
    """Protocols are loaded when they are asked for, so that no import leads to them: a half would run them
    interpreted, and nobody would notice but by its figures."""
    _, groups = fast._groups(PACKAGE)
    compiled_ones = {name for group in groups.values() for name in group}
    for name, protocol in PROTOCOLS.items():
        assert type(protocol).__module__.replace(".", "/") + ".py" in compiled_ones, name
        for module in ("server", "client") if name != "modbus" else ("machine", "responses"):
            assert f"cofferdam/protocols/{name}/{module}.py" in compiled_ones
    for part in ("outer", "outer_door", "inner", "writes", "device"):
        assert f"cofferdam/brokers/proxy/{part}.py" in compiled_ones


def test_no_codec_stands_beside_its_types(fast: ModuleType) -> None:
    """A module with msgspec structures is interpreted: OPC UA's codec was so for long, and only its figures said it."""
    files = fast._closure(PACKAGE)
    sizes = {}
    for name in fast._with_records(files, PACKAGE):
        # trust: certificates, which are judged once a connection
        if len(name.parts) > 2 and name.parts[0] == "protocols" and name.name != "trust.py":
            code = [node for node in ast.walk(files[name]) if isinstance(node, ast.FunctionDef)]
            sizes[str(name)] = sum((one.end_lineno or 0) - one.lineno for one in code)
    assert "protocols/opcua/structures.py" in sizes
    assert {name: lines for name, lines in sizes.items() if lines > 20} == {}


def test_no_interpreted_class_derives_from_a_compiled_one(fast: ModuleType) -> None:
    """The compiler forbids it: the part would end as it makes the first of these."""
    files = fast._closure(PACKAGE)
    _, groups = fast._groups(PACKAGE)
    compiled_ones = {Path(name).relative_to("cofferdam") for group in groups.values() for name in group}
    open_to_all = {(Path("crossing/reactor.py"), "Reactor")}  # it says so itself (mypyc_attr)
    for (file, name), bases in fast._bases(files, PACKAGE).items():
        if file not in compiled_ones:
            assert not [one for one in bases if one[0] in compiled_ones and one not in open_to_all], (file, name)


def test_two_classes_of_one_name_are_two(fast: ModuleType, tmp_path: Path) -> None:
    texts = {
        "a.py": "class Door(msgspec.Struct): pass",
        "b.py": "class Door: pass",
        "brokers/c.py": "from cofferdam.b import Door\nclass Outer(Door): pass",
        "brokers/d.py": "from cofferdam import a as said\nclass Word(said.Door): pass",
        "e.py": "from cofferdam.a import Door as Handed",
        "brokers/f.py": "from cofferdam.e import Handed\nclass Other(Handed[int], tag=1): pass",
    }
    (tmp_path / "brokers").mkdir()
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    files = {Path(name): ast.parse(text) for name, text in texts.items()}
    assert fast._with_records(files, tmp_path) == {Path("a.py"), Path("brokers/d.py"), Path("brokers/f.py")}


def test_what_is_caught_has_a_name_for_each_type(fast: ModuleType) -> None:
    """Compiled code gives a name one type: a second one of another type would be an error of its own."""
    wrong = []
    for name in sorted(file for files in fast._groups(PACKAGE)[1].values() for file in files):
        for work in ast.walk(ast.parse((PACKAGE.parent / name).read_text())):
            if isinstance(work, ast.FunctionDef):
                types: dict[str, set[str]] = {}
                for found in ast.walk(work):
                    if isinstance(found, ast.ExceptHandler) and found.name and found.type:
                        types.setdefault(found.name, set()).add(ast.unparse(found.type))
                wrong += [f"{name}: {work.name}: {word}" for word, kinds in types.items() if len(kinds) > 1]
    assert not wrong


def test_no_class_has_a_type_that_is_put_together_in_its_body(fast: ModuleType) -> None:
    """`notice_type = A | B` in a class is a name for a type to the compiler: there would be no such attribute."""
    wrong = []
    for name in sorted(file for files in fast._groups(PACKAGE)[1].values() for file in files):
        for kind in ast.walk(ast.parse((PACKAGE.parent / name).read_text())):
            if isinstance(kind, ast.ClassDef):
                values = [(one.lineno, one.value) for one in kind.body if isinstance(one, ast.Assign)]
                wrong += [f"{name}:{line}" for line, value in values
                          if isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitOr)
                          and any(isinstance(side, ast.Name | ast.Attribute) and _is_kind(side) for side in
                                  (value.left, value.right))]  # fmt: skip
    assert not wrong


def _is_kind(name: ast.Name | ast.Attribute) -> bool:
    """Whether it is called as classes are."""
    word = name.id if isinstance(name, ast.Name) else name.attr
    return word[0].isupper() and not word.isupper()


def test_records_are_found_by_what_they_derive_from(fast: ModuleType, tmp_path: Path) -> None:
    texts = {
        "a.py": "class A(msgspec.Struct, frozen=True): pass",
        "b.py": "class B(A): pass",
        "c.py": "class C: pass",
        "d.py": "class D(B, tag=1): pass\nclass E(C): pass",
    }
    texts["b.py"] = "from cofferdam.a import A\n" + texts["b.py"]
    texts["d.py"] = "from cofferdam.b import B\nfrom cofferdam.c import C\n" + texts["d.py"]
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    files = {Path(name): ast.parse(text) for name, text in texts.items()}
    assert fast._with_records(files, tmp_path) == {Path("a.py"), Path("b.py"), Path("d.py")}


def test_an_object_is_known_by_all_that_it_is_made_from(fast: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "one.c").write_text('#include "one.h"\n#include <Python.h>\nint a;\n')
    (tmp_path / "build" / "one.h").write_text('#include "deeper.h"\n')
    (tmp_path / "build" / "deeper.h").write_text("int b;\n")

    def known(how: str = "gcc -O1") -> str:
        found: str = fast._known_by(tmp_path, "build/one.c", ["build", "/usr/include"], how)
        return found

    first = known()
    assert known() == first != known("gcc -O2")
    for name in ("one.c", "one.h", "deeper.h"):
        path = tmp_path / "build" / name
        text = path.read_text()
        path.write_text(text + "\n")
        assert known() != first, name
        path.write_text(text)
    assert known() == first


def test_who_comes_while_one_compiles_waits_for_it(tmp_path: Path) -> None:
    code = "import fast, sys, pathlib\nwith fast._alone(pathlib.Path(sys.argv[1])): print('mine', flush=True)"
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [sys.executable, "-c", code, str(tmp_path)]
        with subprocess.Popen(command, cwd=ROOT / "packaging", stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None
            assert "waiting for it" in other.stdout.readline()
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert other.stdout.readline() == "mine\n"
    assert other.returncode == 0


@pytest.mark.skipif(not NEWEST.is_dir(), reason="there is no compiled build")
def test_nothing_lies_in_a_build_that_its_manifest_does_not_name() -> None:
    """Else a part could run what is no longer the source, and nobody would notice."""
    manifest = msgspec.json.decode((NEWEST / MANIFEST).read_bytes(), type=Manifest)
    for path in (NEWEST / "cofferdam").rglob("*"):
        if path.suffix in (".py", ".so"):
            name = path.relative_to(NEWEST / "cofferdam")
            assert str(name.with_name(name.name.split(".")[0] + ".py")) in manifest.files, name
