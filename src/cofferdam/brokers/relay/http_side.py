"""A side of the relay: answers HTTP for the principals of its zone, and asks the keeper.

It has no store, opens no connection and no file, and knows of the policy what concerns its own principals. What it
decides is a quick answer; the keeper decides again.

Not here: the API (http_api), connections (http_protocol).
"""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
import time
from collections.abc import Collection
from typing import Any, Final

from cofferdam.audit.events.base import clip
from cofferdam.audit.events.relay import KeysSet, MessageRefused
from cofferdam.brokers.broker import Asked, Part, Setting
from cofferdam.brokers.kit import aio
from cofferdam.brokers.kit.figures import Reported
from cofferdam.brokers.kit.tls import good_until, server_context
from cofferdam.brokers.relay.http_api import Api
from cofferdam.brokers.relay.http_asking import Keeper
from cofferdam.brokers.relay.http_keys import Given, Keyring, Secrets, read_secrets
from cofferdam.brokers.relay.http_protocol import Connection, Shared
from cofferdam.errors import CofferdamError, LocalProtocolError
from cofferdam.policy.messages.checked import Problem
from cofferdam.policy.messages.checking import Checks
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.relay_rows import Door, Relay, RelayRows, fingerprint

TELL_SECONDS: Final = 2.0
"""How often refusals are told to the audit log."""
SOON_NS: Final = 14 * 86_400 * 10**9
"""An alarm tells so long before a certificate's end."""
TOLD_MOST: Final = 64
"""Entries of one telling; what is more is one entry with their number."""

What = tuple[str, str, str, str, str]
"""(channel, principal, source, verb, fault) of refusals that are told together."""


class Side(Part):
    """The part."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._setting = setting
        self._loop = asyncio.get_event_loop()
        self._keeper = Keeper(setting.senders["keeper"], self._loop)
        if setting.start is None:
            raise LocalProtocolError("a side of the relay needs a loop with tasks")
        self._start = setting.start
        self._api = Api(self._keeper, self._note, setting.wall)
        self._shared = Shared(self._api, self._loop, setting.start)
        self.limit_hits = self._shared.hits
        self._secrets = read_secrets(setting.secrets)
        self._doors: dict[str, Door] = {}
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._refused: dict[What, tuple[int, str, str, str]] = {}
        self._tell_at = 0.0
        self._stopping = False
        self.policy = setting.policy
        self._severed = False
        self._work_by(setting.policy)
        self.set_severed(setting.severed)

    # --- policy, secrets ----------------------------------------------------------------------------------------

    def _work_by(self, policy: CompiledPolicy) -> None:
        rows = {
            name: conduit.terms for name, conduit in policy.conduits.items() if isinstance(conduit.terms, RelayRows)
        }
        relay = Relay(rows.items())
        checks = Checks(relay)
        self.policy = policy
        self._doors = {door.at: door for each in rows.values() for door in each.doors}
        self._sides = {policy.zones[door.zone].side for door in self._doors.values()}
        self._api.relay, self._api.checks = relay, checks
        self._know()
        self._keeper.works(fingerprint(rows))

    def _know(self) -> None:
        """Keys and certificates, by the secrets and the policy as they are now."""
        pins = [pin for door in self._doors.values() for pin in door.pins]
        self._api.keys = Keyring(self._secrets.keys, pins)
        for connection in list(self._shared.open):
            # A pull that waits would be handed what comes, although its key has been revoked.
            request = connection.request
            if connection.gone is not None and request is not None and isinstance(self._api.known(request), str):
                connection.abort()
        self._contexts = {}
        self._until = {name: good_until(tls.certificate) for name, tls in self._secrets.tls.items()}
        for at, door in self._doors.items():
            tls = self._secrets.tls.get(door.tls)
            if tls is not None:
                self._contexts[at] = server_context(tls.certificate, tls.key, door.trusted)

    def take_policy(self, policy: CompiledPolicy, assets: tuple[str, ...]) -> int:
        self._work_by(policy)
        ended = 0
        for connection in list(self._shared.open):
            principals = policy.principals_of(connection.source)
            if principals != connection.principals:
                connection.abort()
                ended += 1
        return ended

    def set_severed(self, sides: Collection[str]) -> None:
        self._severed = bool(self._sides & set(sides))
        if self._severed:
            self._shared.end_all()

    def command(self, asked: Asked) -> None:
        if asked.verb != "secrets":
            super().command(asked)
            return
        before, given = self._secrets, asked.decode(Given)
        self._secrets = given.secrets
        try:
            self._know()
        except CofferdamError:
            self._secrets = before
            raise
        self._setting.audit.note(_changes(self._setting, before, given))
        asked.answer({"keys": len(self._secrets.keys)})

    # --- clients ------------------------------------------------------------------------------------------------

    def accept_socket(self, sock: socket.socket, source: str, port: int, local: tuple[str, int]) -> None:
        at = f"[{local[0]}]:{local[1]}" if ":" in local[0] else f"{local[0]}:{local[1]}"
        door = self._doors.get(at)
        principals = self.policy.principals_of(source) if door is not None else ()
        context = self._contexts.get(at)
        if door is None or not principals or self._severed or self._stopping:
            sock.close()
            return
        if door.tls and context is None:
            self._shared.hit("no_certificate")
            sock.close()
            return
        if limit := self._shared.places.take(sock, source):
            self._shared.hit(limit)
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._start(self._serve(sock, Connection(self._shared, source, principals), context))

    async def _serve(self, sock: socket.socket, connection: Connection, context: ssl.SSLContext | None) -> None:
        try:
            await aio.serve(sock, lambda: connection, context)
        except OSError:
            # No TLS, an old one, a certificate that nobody trusts, or nothing for too long.
            self._shared.malformed += 1

    # --- the keeper ---------------------------------------------------------------------------------------------

    def on_record(self, source: str, record: Any) -> None:
        self._keeper.on_record(record)

    # --- what is told -------------------------------------------------------------------------------------------

    def _note(self, channel: str, principal: str, source: str, verb: str, problem: Problem, key: str) -> None:
        """Refusals of one kind are told together, the first one's words for all of them."""
        what = (channel[:128], principal, source, verb, problem.fault)
        count, detail, place, first = self._refused.get(what, (0, problem.detail, problem.place, key))
        if count or len(self._refused) < TOLD_MOST:
            self._refused[what] = (count + 1, detail, place, first)
        else:
            rest = ("", "", "", "any", "many")
            count = self._refused.get(rest, (0,))[0]
            self._refused[rest] = (count + 1, "refusals of more kinds than are told apart", "", "")

    def _tell(self) -> None:
        for source, whys in self._api.slowed.told().items():
            for why, count in whys.items():
                self._refused["", "", source, "key", "key"] = (count, f"no key that is known: {why}", "", "")
                self._flush()
        self._flush()

    def _flush(self) -> None:
        refused, self._refused = self._refused, {}
        for (channel, principal, source, verb, fault), (count, detail, place, key) in refused.items():
            self.faults[fault] = self.faults.get(fault, 0) + count
            self._setting.audit.note(
                MessageRefused(
                    wall_ns=self._setting.wall(), channel=channel, principal=principal, source=source, verb=verb,
                    fault=fault, detail=clip(detail), place=clip(place), key=clip(key), count=count,
                )
            )  # fmt: skip

    def tick(self) -> None:
        self._shared.sweep()
        self.malformed = self._shared.malformed
        now = time.monotonic()
        if now >= self._tell_at:
            self._tell_at = now + TELL_SECONDS
            self._tell()

    def stop(self) -> None:
        self._stopping = True
        self._shared.end_all(but_busy=True)

    def end(self) -> None:
        self._shared.end_all()
        self._tell()

    @property
    def busy(self) -> int:
        return self._keeper.waiting

    def alarms(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for at, door in self._doors.items():
            until = self._until.get(door.tls, 0)
            if door.tls and at not in self._contexts:
                words = f"nobody is let in at {at}: its certificate {door.tls} is not there"
                found[f"relay-{door.zone}-certificate"] = f"{words} (cofferdam relay certificate)"
            elif door.tls and until < self._setting.wall() + SOON_NS:
                day = datetime.datetime.fromtimestamp(until // 10**9, datetime.UTC)
                found[f"relay-{door.zone}-certificate"] = f"the certificate {door.tls} is good until {day:%Y-%m-%d}"
        return found

    def figures(self) -> Reported:
        return {
            "http_connections": {"": len(self._shared.open)},
            "http_doors_shut": {
                "": sum(1 for at, door in self._doors.items() if door.tls and at not in self._contexts)
            },
            "http_requests": {"": self._api.requests},
            "http_refused": {"": self._api.refused},
        }


def _changes(setting: Setting, before: Secrets, given: Given) -> KeysSet:
    """What is told of keys and certificates that a side was given."""
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
