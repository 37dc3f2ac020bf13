"""What the process of a part owes to all brokers alike."""

from __future__ import annotations

import functools
import json
import subprocess
import sys

import pytest

from cofferdam.brokers.registry import BROKERS, CREWS, named
from cofferdam.protocols.dialects import DIALECTS

LOADED = """
import json, os, sys
from cofferdam.brokers import half
from cofferdam.brokers.registry import BROKERS, named
for word, part in json.loads(sys.argv[1]):
    if os.fork() == 0:
        broker = BROKERS[word]
        named(broker.make[part])
        for ends, place in broker.records.items():
            if part in ends:
                named(place)
        for module in broker.crew.parts[part].preload:
            __import__(module)
        print(json.dumps([word, part, sorted(sys.modules)]), flush=True)
        os._exit(0)
    os.wait()  # one that could not be loaded is missing, and has said why
"""
"""What each part loads, of a process each that has loaded what all do."""
PARTS = [(word, part) for word, broker in BROKERS.items() for part in broker.make]


@functools.cache
def all_loaded() -> dict[tuple[str, str], set[str]]:
    command = [sys.executable, "-I", "-c", LOADED, json.dumps(PARTS)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {(word, part): set(modules) for word, part, modules in map(json.loads, said.splitlines())}


def loaded(word: str, part: str) -> set[str]:
    """The modules in a process that runs this part."""
    return all_loaded()[word, part]


def room(module: str) -> str:
    return ".".join(module.split(".")[:3])


@pytest.mark.parametrize(("word", "part"), PARTS)
def test_a_part_loads_nothing_of_another_broker(word: str, part: str) -> None:
    own = {room(place.split(":")[0]) for place in [*BROKERS[word].make.values(), *BROKERS[word].records.values()]}
    rooms = {room(name) for name in loaded(word, part) if name.startswith("cofferdam.brokers.")}
    common = {
        "cofferdam.brokers.kit",
        "cofferdam.brokers.broker",
        "cofferdam.brokers.half",
        "cofferdam.brokers.registry",
    }
    assert rooms - common == own


@pytest.mark.parametrize(("word", "part"), [case for case in PARTS if BROKERS[case[0]].crew.parts[case[1]].compiled])
def test_a_part_of_control_traffic_loads_no_asyncio_no_tls_and_no_library_but_msgspec(word: str, part: str) -> None:
    modules = loaded(word, part)
    secured = DIALECTS[word].security  # its channels are secured by the protocol itself
    assert not modules & {"asyncio", "ssl", "logging", "pydantic", "yaml", "" if secured else "cryptography"}
    assert "msgspec" in modules


@pytest.mark.parametrize("word", BROKERS)
def test_what_a_broker_declares_is_there_and_fits_together(word: str) -> None:
    broker = BROKERS[word]
    assert broker.name == word and broker.crew.kind == word
    assert CREWS[word] is broker.crew
    assert broker.make.keys() == broker.crew.parts.keys()
    assert broker.records.keys() == {*broker.crew.pipes, *broker.crew.rides}
    assert broker.answers <= broker.crew.parts.keys()
    for place in [*broker.make.values(), *broker.records.values()]:
        assert callable(named(place))


def test_what_brokers_declare_takes_no_library_to_read() -> None:
    """The launcher, which may hold privilege, and parts without a network read the declarations too."""
    code = "import sys; from cofferdam.brokers.registry import BROKERS; dict(BROKERS); print(*sys.modules)"
    said = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"asyncio", "ssl", "cryptography", "pydantic", "yaml", "asyncssh", "lxml"} & set(said.split())
