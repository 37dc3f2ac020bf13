"""What a broker declares, and what the process around a part and the part owe each other.

A broker is a crew (enforce.profile) and, for each of its pipes, the closed set of records that may go through it. Its
parts are named by module and class, so that a process loads the one that it runs and nothing of the others.

The main program (brokers.half) owns pipes, filter, reports and stopping; a part owns its work.

Not here: which brokers there are (registry), what a policy may say of one (policy.terms).
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from mypy_extensions import mypyc_attr

from cofferdam.audit.client import AuditClient
from cofferdam.brokers.kit.transport import Transport
from cofferdam.crossing.channel import Sender
from cofferdam.crossing.reactor import Reactor
from cofferdam.enforce.profile import Crew
from cofferdam.policy.table import CompiledPolicy


class Broker(msgspec.Struct, frozen=True):
    """One kind of broker.

    `make`: part -> "module:Class" of a `Part`. `records`: (from, to) -> "module:function", which is called with the
    part's policy and the broker's name and gives the pipe's `RecordCodec`. `answers`: parts that answer others: they
    take no more from a pipe while what they have to say to its other end finds no room.
    """

    name: str
    crew: Crew
    make: dict[str, str]
    records: dict[tuple[str, str], str]
    answers: frozenset[str] = frozenset()


@dataclass
class Setting:
    """What a part is given at birth. `policy` is its slice; `senders` are by the name of the part at the other end;
    `dial` is there for a part that may make connections; `store` and `reads` are folders; `secrets` are by name, for
    this part alone."""

    crew: str
    part: str
    broker: str
    boot: str
    again: bool
    """A crew of this name ran before and ended: what it did in the last minute is not known."""
    policy: CompiledPolicy
    severed: frozenset[str]
    assets: tuple[str, ...]
    zones: tuple[tuple[str, ...], str]
    """The zones that sessions come from, and the one that they go to."""
    reactor: Reactor
    audit: AuditClient
    senders: Mapping[str, Sender[Any]]
    dial: Callable[[str, int, Callable[[], None]], Transport]
    store: Path | None = None
    reads: Mapping[str, Path] = field(default_factory=dict)
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)


@mypyc_attr(allow_interpreted_subclasses=True)
class Part(abc.ABC):
    """What runs in a part's process. Everything is called from its loop; an exception ends the process."""

    @abc.abstractmethod
    def on_record(self, source: str, record: Any) -> None:
        """A record from another part, decoded: it is one of the pipe's set, and no more is known of it."""

    @abc.abstractmethod
    def take_policy(self, policy: CompiledPolicy, assets: tuple[str, ...]) -> int:
        """Works by this policy from now on. Returns how many sessions ended by it."""

    @abc.abstractmethod
    def set_severed(self, sides: Collection[str]) -> None:
        """Cuts these sides off, and no others."""

    def accept(self, transport: Transport, source: str, port: int, local: tuple[str, int]) -> None:
        """A client has connected (runtime "reactor", with Can.ACCEPT)."""
        transport.close()

    def end_sessions(self, sessions: Collection[str], reason: str) -> None:  # noqa: B027 - most have none
        """Ends these sessions, by id."""

    def tick(self) -> None:  # noqa: B027 - optional
        """Called twice a second."""

    def stop(self) -> None:  # noqa: B027 - optional
        """Takes no new work; what is under way goes on."""

    def halt(self) -> None:  # noqa: B027 - optional
        """The process ends now, for a violation or a bug: from here on nothing may be done any more."""

    @property
    def busy(self) -> int:
        """How much is under way."""
        return 0
