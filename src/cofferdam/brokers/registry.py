"""Which brokers there are, by the word that stands in a conduit's `broker:`, and which kinds of crews. Every
protocol has a proxy; another broker adds a line.

A broker's declarations are loaded when they are asked for: the process of a part loads those of its own broker and of
no other.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar

from cofferdam.brokers.broker import Broker
from cofferdam.enforce.crews import AUDITOR, EXPORT, LEAKS, NAMES, NIGHTLY, WITNESS
from cofferdam.enforce.profile import Crew
from cofferdam.errors import GateError, extra
from cofferdam.protocols.dialects import DIALECTS

T = TypeVar("T")

_PROXY: Final = "cofferdam.brokers.proxy.broker:proxy"
_WHERE: Final = {
    "relay": "cofferdam.brokers.relay.broker:RELAY",
    "patch": "cofferdam.brokers.patch.broker:PATCH",
    "mirror": "cofferdam.brokers.mirror.broker:MIRROR",
    "jump": "cofferdam.brokers.jump.broker:JUMP",
    "diode": "cofferdam.brokers.diode.broker:DIODE",
}


def named(place: str) -> Any:
    """What "module:name" is."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


class _Loaded(Mapping[str, T]):
    """A mapping whose values are made when they are first asked for."""

    def __init__(self, make: Mapping[str, Callable[[], T]]) -> None:
        self._make = make
        self._made: dict[str, T] = {}

    def __getitem__(self, key: str) -> T:
        if key not in self._made:
            self._made[key] = self._make[key]()
        return self._made[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._make)

    def __len__(self) -> int:
        return len(self._make)


def _broker(place: str) -> Callable[[], Broker]:
    def load() -> Broker:
        found: Broker = named(place)
        return found

    return load


def _proxy(protocol: str) -> Callable[[], Broker]:
    def make() -> Broker:
        found: Broker = named(_PROXY)(protocol)
        return found

    return make


def _crew(word: str) -> Callable[[], Crew]:
    return lambda: BROKERS[word].crew


BROKERS: Final[Mapping[str, Broker]] = _Loaded(
    {word: _proxy(word) for word in DIALECTS} | {word: _broker(place) for word, place in _WHERE.items()}
)
_OF_THE_HOUSE: Final = {crew.kind: crew for crew in (NAMES, AUDITOR, LEAKS, WITNESS, EXPORT, NIGHTLY)}
CREWS: Final[Mapping[str, Crew]] = _Loaded(
    {word: _crew(word) for word in BROKERS} | {kind: lambda kind=kind: _OF_THE_HOUSE[kind] for kind in _OF_THE_HOUSE}
)
"""All that the launcher can be told to start, by kind. A broker's crews are of the kind of its word."""


def check_installed(words: Iterable[str]) -> None:
    """Raises: GateError, where parts of these brokers would find a library missing, and only then."""
    for word in sorted(set(words)):
        missing = [name for name in BROKERS[word].needs if importlib.util.find_spec(name) is None]
        if missing:
            raise GateError(
                f"the broker {word} needs what is not installed here: {', '.join(missing)}",
                hint=f"{extra(word)}; or leave out its conduits",
            )
