"""What is done with the site's NATS: each message of a channel is published to a JetStream stream, in order.

A message's id there is CHANNEL/NUMBER, so that the hub drops what comes twice within its window, and consumers can drop
it for ever. JetStream acknowledges before its disk has a message unless it is told otherwise (`sync_interval: always`),
so an acknowledgement is not believed to last: at each new connection the stream is asked for its last message of the
channel, and all that the keeper still has after it is published again. The keeper keeps messages for `keep`, whatever
has been published.

The hub is not believed either: one that says what is no NATS, or more than it may, or does not offer TLS where the
policy asks for it, is an alarm and a new attempt, and costs nobody else. (The library would go on without TLS, password
and all, and raises whatever its decoding of strange words happens to raise.)

Of a channel in strict order one message is under way at a time; else as many as the channel lets.

Not here: which streams there are (nats), what ways have in common (ways).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import Awaitable, Sequence
from typing import Any, Final, TypeVar

import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import APIError, NotFoundError
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

from cofferdam.audit.events.base import clip
from cofferdam.brokers.kit.http.problems import Refusal
from cofferdam.brokers.relay.records import Answered, Browse, Handed, Message, Pull, Settle, Verdict
from cofferdam.brokers.relay.ways import LAST_SECONDS, LEASE_SECONDS, Stopped, Trouble, Way, Work
from cofferdam.errors import CofferdamError, GateError
from cofferdam.policy.terms.relay_rows import LARGEST_MESSAGE, PARALLEL_MOST, Nats

BATCH: Final = 100
CONNECT_SECONDS: Final = 10
ANSWER_SECONDS: Final = 10.0
LOOK_MS: Final = 1_000
"""How long a pull waits. Then it is looked for what cannot be pulled: in a strict channel, what comes behind a message
that an earlier life of this part has leased."""
AGAIN_SECONDS: Final = 60
"""When a message comes again that the hub does not take."""
CLOSE_SECONDS: Final = 2.0
"""For a hub that does not read to take what is left, before its connection is let go of."""
LINE_BYTES: Final = 256 << 10
"""Of a line that the hub says."""
SAID_BYTES: Final = 2 * LARGEST_MESSAGE
"""Of what follows a line: the last message of a channel comes back as base64."""
_ID: Final = re.compile(r"(.+)/([1-9][0-9]{0,13})\Z")

_TOO_LARGE: Final = "larger than the hub takes"

T = TypeVar("T")


class _Parser(Parser):
    """The library's, which would keep whatever a hub sends until a line is whole, or as many bytes as it announced."""

    async def parse(self, data: bytes = b"") -> None:
        most = LINE_BYTES if self.state == AWAITING_CONTROL_LINE else SAID_BYTES
        if len(self.buf) + len(data) > most + LINE_BYTES or self.needed > SAID_BYTES:
            raise nats.errors.ProtocolError
        await super().parse(data)


class _Client(Client):
    """The library's, which goes on without TLS, and shows its password, if the hub does not ask for TLS."""

    def __init__(self, *, plain: bool) -> None:
        super().__init__()
        self._plain = plain
        self._ps = _Parser(self)

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if initial_connection and not self._plain and not info.get("tls_required"):
            raise nats.errors.Error("it does not ask for TLS, and without TLS it is told nothing")
        await super()._process_info(info, initial_connection)


class Publisher(Work):
    """Publishes one channel."""

    foreign = (nats.errors.Error, OSError)

    def __init__(self, owner: Way[Any, Any], hub: Nats, channel: str, who: str) -> None:
        super().__init__(owner, hub.zone)
        self.hub = hub
        self.channel = channel
        self.who = who
        self.subject = hub.subject.replace("{channel}", channel)
        self._task: asyncio.Task[Any] | None = None
        self._published = 0
        """Up to here the stream has everything, but for what was too large for the hub."""
        self._unsure = -1
        """Up to here an earlier life of this part may have passed over what was too large; -1: not known yet."""
        self._passed: set[int] = set()
        """What this one has passed over, and not yet been handed."""

    @property
    def name(self) -> str:
        return f"nats-{self.channel}"

    def stop(self, *, now: bool = False) -> None:
        super().stop(now=now)
        if now and self._task is not None:
            self._task.cancel()

    async def session(self) -> None:
        self._task = asyncio.current_task()
        client = await self._of_hub(self._connect())
        try:
            stream = client.jetstream(timeout=ANSWER_SECONDS)
            self._published = await self._of_hub(self._last(stream))
            self._unsure = self._published if self._unsure < 0 else self._unsure
            await self._catch_up(stream)
            self.trouble = ""
            await self._go_on(client, stream)
        finally:
            await _let_go(client)

    async def _of_hub(self, answer: Awaitable[T]) -> T:
        """What the hub answers. Raises: Trouble, too, for all that the library makes of an answer that is none."""
        try:
            return await answer
        except (Stopped, CofferdamError, *self.foreign):
            raise
        except Exception as error:
            raise Trouble(f"the hub says what is no NATS ({type(error).__name__}: {self.words(error)})") from None

    async def _connect(self) -> Client:
        hub = self.hub
        options: dict[str, Any] = {}
        if hub.user:
            password = self.owner.password(hub.password)
            if not password:
                raise Trouble(f"there is no password: `cofferdam relay password {hub.password}` brings it in")
            options |= {"user": hub.user, "password": password}
        if not hub.plain:
            options |= {"tls": _context(hub), "tls_hostname": hub.name or None}
        said: list[str] = []
        for address, port in hub.servers:
            self.check()
            shown = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
            client = _Client(plain=hub.plain)
            connected = False
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await self._of_hub(
                        client.connect(
                            f"{'nats' if hub.plain else 'tls'}://{shown}", name="cofferdam", allow_reconnect=False,
                            connect_timeout=CONNECT_SECONDS, ping_interval=15, max_outstanding_pings=2,
                            error_cb=_quiet, **options,
                        )
                    )  # fmt: skip
                    connected = True
                    return client
            except (Trouble, *self.foreign) as error:
                said.append(clip(f"{shown}: {self.words(error)}", 200))
            finally:
                if not connected:  # the library leaves a connection open of which nothing came
                    await _let_go(client)
        raise Trouble("; ".join(said))

    async def _last(self, stream: JetStreamContext) -> int:
        """The number of the last message of this channel that the stream has; 0: it has none."""
        try:
            config = (await stream.stream_info(self.hub.stream)).config
        except NotFoundError:
            raise Trouble(f"there is no stream {self.hub.stream}; it is to take {self.subject}") from None
        if config.retention not in (None, "limits"):
            raise Trouble(f"the stream {self.hub.stream} forgets what was fetched ({config.retention}): it must not")
        if not any(_covers(subject, self.subject) for subject in config.subjects or ()):
            raise Trouble(f"the stream {self.hub.stream} does not take {self.subject}")
        try:
            last = await stream.get_last_msg(self.hub.stream, self.subject)
        except NotFoundError:
            return 0
        found = _ID.match((last.headers or {}).get("Nats-Msg-Id", ""))
        if found is None or found[1] != self.channel:
            raise Trouble(f"somebody else publishes to {self.subject}: the last message there is not the relay's")
        return int(found[2])

    async def _catch_up(self, stream: JetStreamContext) -> None:
        first = True
        while True:
            after = self._published
            handed = await self.ask(Handed, lambda number: Browse(number, self.who, self.channel, after, BATCH))  # noqa: B023
            if first and after > handed.upto:
                raise Trouble(
                    f"the stream has message {after} of {self.channel}, and the relay's last one is {handed.upto}: was "
                    "its store put back or replaced? Nothing is published until that is settled"
                )
            first = False
            if not handed.messages:
                return
            self._passed.update(await self._publish(stream, handed.messages))
            self._published = handed.messages[-1].number
            if len(self._passed) > PARALLEL_MOST:
                self._unsure, self._passed = self._published, set()

    async def _go_on(self, client: Client, stream: JetStreamContext) -> None:
        while True:
            try:
                handed = await self.ask(Handed, self._pull, waits=True)
            except Refusal as refused:
                await self.sleep(min(max(1, refused.retry), LAST_SECONDS))
                continue
            if not handed.messages:
                await self._of_hub(client.flush(timeout=int(ANSWER_SECONDS)))  # is it still there?
                if handed.upto != self._published:
                    await self._catch_up(stream)
                continue
            # What comes a second time was not settled the first time: it is published again, and known there. So is
            # what was passed over when it was caught up: by now the hub may take it.
            fresh = [
                message
                for message in handed.messages
                if message.number > self._published
                or message.number <= self._unsure
                or message.number in self._passed
                or message.count > 1
            ]
            failed = await self._publish(stream, fresh)
            self._passed.difference_update(message.number for message in fresh)
            self._published = max(self._published, *(message.number for message in handed.messages))
            verdicts = tuple(
                Verdict(message.number, "failed", failed[message.number], AGAIN_SECONDS)
                if message.number in failed
                else Verdict(message.number, "done")
                for message in handed.messages
            )
            with_lease = handed.lease
            try:
                await self.ask(
                    Answered,
                    lambda number: Settle(number, self.who, self.channel, with_lease, verdicts),  # noqa: B023
                )
            except Refusal:
                continue  # it comes again, and is known

    def _pull(self, number: int) -> Pull:
        return Pull(number, self.who, self.channel, BATCH, LEASE_SECONDS, LOOK_MS)

    async def _publish(self, stream: JetStreamContext, messages: Sequence[Message]) -> dict[int, str]:
        """Publishes these; which of them the hub will never take, and why."""
        if self.owner.relay.channels[self.channel].order == 1:
            said = [await self._one(stream, message) for message in messages]
        else:
            found = await asyncio.gather(*(self._one(stream, each) for each in messages), return_exceptions=True)
            wrong = next((each for each in found if isinstance(each, BaseException)), None)
            if wrong is not None:
                raise wrong
            said = [each for each in found if isinstance(each, str)]
        return {message.number: why for message, why in zip(messages, said, strict=True) if why}

    async def _one(self, stream: JetStreamContext, message: Message) -> str:
        headers = {
            "Nats-Msg-Id": f"{self.channel}/{message.number}",
            "Nats-Expected-Stream": self.hub.stream,
            "Cofferdam-Sha256": message.sha256.hex(),
        }
        try:
            found = await self._of_hub(
                stream.publish(self.subject, message.body, timeout=ANSWER_SECONDS, headers=headers)
            )
        except nats.errors.MaxPayloadError:
            return _TOO_LARGE
        except APIError as error:
            raise Trouble(clip(f"the stream {self.hub.stream} does not take it: {error.description}")) from None
        if found.stream != self.hub.stream:  # whoever may listen there may answer, too
            raise Trouble(clip(f"{found.stream!r} has acknowledged what was for the stream {self.hub.stream}"))
        if not found.duplicate:
            self.owner.counts["nats_published"] += 1
        return ""

    def words(self, error: Exception) -> str:
        return super().words(error) if str(error) else type(error).__name__


async def _let_go(client: Client) -> None:
    """It is done with, whatever it still says, and whether or not it takes what was for it."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(CLOSE_SECONDS):
            await client.close()
    for name in ("_io_writer", "_bare_io_writer"):
        writer = getattr(client._transport, name, None)
        if writer is not None:
            writer.transport.abort()


def _covers(pattern: str, subject: str) -> bool:
    """Whether a stream's subject, which may have wildcards, takes this one."""
    wanted, given = pattern.split("."), subject.split(".")
    for at, word in enumerate(wanted):
        if word == ">":
            return len(given) > at
        if at >= len(given) or word not in ("*", given[at]):
            return False
    return len(wanted) == len(given)


def _context(hub: Nats) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cadata=hub.authority.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise GateError(f"the authority of the hub in {hub.zone} is not PEM: {error}") from None
    return context


async def _quiet(error: Exception) -> None:
    """Whatever is wrong with a connection ends what waits for it, which says it."""
