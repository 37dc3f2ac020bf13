"""A part that answers HTTP: its doors, TLS, keys and certificates, connections, and what is told of refusals.

A broker's part derives from `HttpPart`, gives it an API, and says what it works by. It has no store of its own, opens
no connection, and knows of the policy what concerns its own principals.

Not here: the API (each broker's), connections (connection).
"""

from __future__ import annotations

import abc
import asyncio
import datetime
import socket
import ssl
import time
from collections.abc import Collection, Iterable
from typing import Final

from cofferdam.audit.entry import Draft
from cofferdam.audit.events.base import clip
from cofferdam.audit.events.http import KeysSet, RequestRefused
from cofferdam.brokers.broker import Asked, Part, Setting
from cofferdam.brokers.kit import aio
from cofferdam.brokers.kit.figures import Reported
from cofferdam.brokers.kit.http.api import Api
from cofferdam.brokers.kit.http.connection import Connection, Limits, Shared
from cofferdam.brokers.kit.http.keys import Given, Keyring, Secrets, read_secrets
from cofferdam.brokers.kit.tls import good_until, server_context
from cofferdam.errors import CofferdamError, LocalProtocolError
from cofferdam.policy.messages.checked import Problem
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.doors import Door

TELL_SECONDS: Final = 2.0
"""How often refusals are told to the audit log."""
SOON_NS: Final = 14 * 86_400 * 10**9
"""An alarm tells so long before the end of a certificate, or of a principal's last key."""
ENDING_MOST: Final = 8
"""Principals that it names."""
TOLD_OF_ONE, TOLD_MOST = 16, 256
"""Entries of one telling: of one principal (or of one source, while nobody knows who it is), and of all. What is more
is one entry with their number, so that one who makes many kinds of refusal hides nobody else's."""

What = tuple[str, str, str, str, str]
"""(what, principal, source, verb, fault) of refusals that are told together."""


class RefusedKind:
    """Refusals of one kind: how often, and the first one's words for all of them."""

    __slots__ = ("count", "detail", "fault", "key", "place", "principal", "source", "verb", "what")

    def __init__(self, kind: What, detail: str, place: str, key: str) -> None:
        self.what, self.principal, self.source, self.verb, self.fault = kind
        self.count = 1
        self.detail, self.place, self.key = clip(detail), clip(place), clip(key)


class HttpPart(Part):
    """The part. A derived one makes its `api`, then calls `work_by`."""

    def __init__(self, setting: Setting, limits: Limits) -> None:
        super().__init__(setting)
        if setting.start is None:
            raise LocalProtocolError("a part that answers HTTP needs a loop with tasks")
        self.setting = setting
        self.loop = asyncio.get_event_loop()
        self.policy = setting.policy
        self.api = self.make_api()
        self.shared = Shared(self.api, limits, self.api.problems.kind, self.loop, setting.start)
        self.limit_hits = self.shared.hits
        self.secrets = read_secrets(setting.secrets, setting.broker)
        self.stopping = False
        self._start = setting.start
        self._doors: dict[str, Door] = {}
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._until: dict[str, int] = {}
        self._refused: dict[What, RefusedKind] = {}
        self._kinds_of: dict[tuple[str, str], int] = {}
        self._tell_at = 0.0
        self._severed = False
        self.work_by(setting.policy)
        self.set_severed(setting.severed)

    # --- what a broker's part says

    @abc.abstractmethod
    def make_api(self) -> Api:
        """The application, made once."""

    @abc.abstractmethod
    def doors(self, policy: CompiledPolicy) -> Iterable[Door]:
        """Where this part answers by a policy, from which it works from now on."""

    def told(self, found: RefusedKind) -> Draft:
        """What is told of refusals."""
        return RequestRefused(
            wall_ns=self.setting.wall(), broker=self.setting.broker, what=found.what, principal=found.principal,
            source=found.source, verb=found.verb, fault=found.fault, detail=found.detail, place=found.place,
            key=found.key, count=found.count,
        )  # fmt: skip

    # --- policy, secrets

    def work_by(self, policy: CompiledPolicy) -> None:
        """Works by this policy from now on."""
        self._doors = {door.at: door for door in self.doors(policy)}
        self.policy = policy
        self._sides = {policy.zones[door.zone].side for door in self._doors.values()}
        self._know()

    def _know(self) -> None:
        """Keys and certificates, by the secrets and the policy as they are now."""
        pins = [pin for door in self._doors.values() for pin in door.pins]
        self.api.keys = Keyring(self.secrets.keys, pins)
        self._end_unknown()
        self._contexts = {}
        self._until = {name: good_until(tls.certificate) for name, tls in self.secrets.tls.items()}
        for at, door in self._doors.items():
            tls = self.secrets.tls.get(door.tls)
            if tls is not None:
                self._contexts[at] = server_context(tls.certificate, tls.key, door.trusted)

    def _end_unknown(self) -> None:
        """What waits would be handed what comes, although its key has been revoked, or has expired meanwhile."""
        for connection in list(self.shared.open):
            request = connection.request
            if connection.waits and request is not None and isinstance(self.api.known(request), str):
                connection.abort()

    def take_policy(self, policy: CompiledPolicy, assets: tuple[str, ...]) -> int:
        self.work_by(policy)
        ended = 0
        for connection in list(self.shared.open):
            principals = policy.principals_of(connection.source)
            if principals != connection.principals:
                connection.abort()
                ended += 1
        return ended

    def set_severed(self, sides: Collection[str]) -> None:
        self._severed = bool(self._sides & set(sides))
        if self._severed:
            self.shared.end_all()

    def command(self, asked: Asked) -> None:
        if asked.verb != "secrets":
            super().command(asked)
            return
        before, given = self.secrets, asked.decode(Given)
        self.secrets = given.secrets
        try:
            self._know()
        except CofferdamError:
            self.secrets = before
            raise
        self.setting.audit.note(_changes(self.setting, before, given))
        asked.answer({"keys": len(self.secrets.keys)})

    # --- clients

    def accept_socket(self, sock: socket.socket, source: str, port: int, local: tuple[str, int]) -> None:
        at = f"[{local[0]}]:{local[1]}" if ":" in local[0] else f"{local[0]}:{local[1]}"
        door = self._doors.get(at)
        principals = self.policy.principals_of(source) if door is not None else ()
        context = self._contexts.get(at)
        if door is None or not principals or self._severed or self.stopping:
            sock.close()
            return
        if door.tls and context is None:
            self.shared.hit("no_certificate")
            sock.close()
            return
        if limit := self.shared.places.take(sock, source):
            self.shared.hit(limit)
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._start(self._serve(sock, Connection(self.shared, source, principals), context))

    async def _serve(self, sock: socket.socket, connection: Connection, context: ssl.SSLContext | None) -> None:
        try:
            await aio.serve(sock, lambda: connection, context)
        except OSError:
            # No TLS, an old one, a certificate that nobody trusts, or nothing for too long.
            self.shared.malformed += 1

    # --- what is told

    def note(self, what: str, principal: str, source: str, verb: str, problem: Problem, key: str) -> None:
        """A refusal: those of one kind are told together."""
        kind = (what[:128], principal, source, verb, problem.fault)
        if self._counted(kind):
            return
        whose = (principal, "" if principal else source)
        if len(self._refused) < TOLD_MOST and self._kinds_of.get(whose, 0) < TOLD_OF_ONE:
            self._kinds_of[whose] = self._kinds_of.get(whose, 0) + 1
            self._refused[kind] = RefusedKind(kind, problem.detail, problem.place, key)
            return
        rest: What = ("", *whose, "any", "many")
        if len(self._refused) >= 2 * TOLD_MOST:
            rest = ("", "", "", "any", "many")
        if not self._counted(rest):
            self._refused[rest] = RefusedKind(rest, "refusals of more kinds than are told apart", "", "")

    def _counted(self, kind: What) -> bool:
        found = self._refused.get(kind)
        if found is not None:
            found.count += 1
        return found is not None

    def _tell(self) -> None:
        for source, whys in self.api.slowed.told().items():
            for why, count in whys.items():
                found = RefusedKind(("", "", source, "key", "key"), f"no key that is known: {why}", "", "")
                found.count = count
                self._told(found)
        refused, self._refused, self._kinds_of = self._refused, {}, {}
        for found in refused.values():
            self._told(found)

    def _told(self, found: RefusedKind) -> None:
        self.faults[found.fault] = self.faults.get(found.fault, 0) + found.count
        self.setting.audit.note(self.told(found))

    def tick(self) -> None:
        self.shared.sweep()
        self._end_unknown()
        self.malformed = self.shared.malformed
        now = time.monotonic()
        if now >= self._tell_at:
            self._tell_at = now + TELL_SECONDS
            self._tell()

    def stop(self) -> None:
        self.stopping = True
        self.shared.end_all(but_busy=True)

    def end(self) -> None:
        self.shared.end_all()
        self._tell()

    def alarms(self) -> dict[str, str]:
        found: dict[str, str] = {}
        broker = self.setting.broker
        for at, door in self._doors.items():
            until = self._until.get(door.tls, 0)
            if door.tls and at not in self._contexts:
                words = f"nobody is let in at {at}: its certificate {door.tls} is not there"
                found[f"{broker}-{door.zone}-certificate"] = f"{words} (cofferdam {broker} certificate)"
            elif door.tls and until < self.setting.wall() + SOON_NS:
                found[f"{broker}-{door.zone}-certificate"] = f"the certificate {door.tls} is good until {_day(until)}"
        if ending := self._ending():
            found[f"{broker}-keys"] = f"{ending} (cofferdam {broker} key new)"
        return found

    def _ending(self) -> str:
        """Whose last key ends soon, or has ended: with it, nobody would let the principal in any more."""
        last: dict[str, int] = {}
        for key in self.secrets.keys:
            last[key.principal] = max(last.get(key.principal, 0), key.expires or 1 << 63)
        soon = self.setting.wall() + SOON_NS
        ending = sorted((until, who) for who, until in last.items() if until < soon)
        words = [f"{who} has no key beyond {_day(until)}" for until, who in ending[:ENDING_MOST]]
        more = len(ending) - len(words)
        return "; ".join(words) + (f"; and {more} more" if more else "")

    def figures(self) -> Reported:
        return {
            "http_connections": {"": len(self.shared.open)},
            "http_doors_shut": {
                "": sum(1 for at, door in self._doors.items() if door.tls and at not in self._contexts)
            },
            "http_requests": {"": self.api.requests},
            "http_refused": {"": self.api.refused},
        }


def _day(wall_ns: int) -> str:
    return f"{datetime.datetime.fromtimestamp(wall_ns // 10**9, datetime.UTC):%Y-%m-%d}"


def _changes(setting: Setting, before: Secrets, given: Given) -> KeysSet:
    """What is told of keys and certificates that a part was given."""
    old, new = ({key.id: key.principal for key in each.keys} for each in (before, given.secrets))
    tls = [name for name, found in given.secrets.tls.items() if before.tls.get(name) != found]
    return KeysSet(
        wall_ns=setting.wall(),
        side=f"{setting.crew}/{setting.part}"[:128],
        by=given.by or "?",
        keys=len(new),
        added=tuple(f"{name} {new[name]}"[:128] for name in new if name not in old)[:16],
        gone=tuple(f"{name} {old[name]}"[:128] for name in old if name not in new)[:16],
        certificates=tuple(tls)[:16],
    )
