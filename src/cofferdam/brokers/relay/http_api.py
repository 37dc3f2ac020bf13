"""The HTTP API of a side: who asks, whether it may, what it asks of the keeper, and the answer.

    PUT  /v1/channels/NAME/messages/ID      one message
    POST /v1/channels/NAME/messages         many (NDJSON), or CloudEvents 1.0
    POST /v1/channels/NAME/lease            messages to work on
    POST /v1/channels/NAME/settle           done with them, or not
    GET  /v1/channels/NAME/messages         reading without leasing, where the policy lets one browse
    GET  /v1, /v1/channels/NAME, /v1/channels/NAME/schema, /v1/openapi.json
    GET  /health                            for whoever watches ports; says nothing

Who asks is settled before anything of a body is read, what it may before anything of it is understood. Whether a
channel exists is told to those only who may do something with it.

Not here: bytes of HTTP and keys (kit.http), what is done with a message (the keeper).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import Any, Final, TypeVar

from cofferdam.brokers.kit.http import api
from cofferdam.brokers.kit.http.api import KEY_NEEDED, Note, method, no_query, path_of, query_of
from cofferdam.brokers.kit.http.connection import Request
from cofferdam.brokers.kit.http.keys import Known
from cofferdam.brokers.kit.http.messages import Answer
from cofferdam.brokers.kit.http.problems import Refusal, answer, lines, problem, refusal
from cofferdam.brokers.relay.http_answers import PROBLEMS, handed, result, shown
from cofferdam.brokers.relay.http_asking import A, Keeper
from cofferdam.brokers.relay.http_messages import (
    CLOUD_EVENT,
    CLOUD_EVENTS,
    JSON,
    MOST_LINES,
    NDJSON,
    XML,
    BrowseSaid,
    LeaseSaid,
    Outcome,
    SettleSaid,
    binary_event,
    event_outcome,
    event_values,
    line_outcomes,
    media_type,
    said,
    single,
    verdicts,
)
from cofferdam.brokers.relay.records import Answered, Browse, Handed, Pull, Push, Result, Settle, ToKeeper
from cofferdam.policy.messages.checked import Problem
from cofferdam.policy.messages.checking import Checks
from cofferdam.policy.terms.relay_rows import LARGEST_MESSAGE, VERBS, Channel, Relay, Verb

R = TypeVar("R")
TURN_SECONDS: Final = 0.005
"""How long the messages of one request are read in one go."""
LARGE_BYTES: Final = 1 << 20
"""A body above this is read in one go for longer than others should wait (20 MB: seconds). One is read at a time, and
the next one only after a pause as long as that took: half of the side's time is everybody else's."""
ENDPOINT_BODY: Final = 1 << 20
"""Of what a lease or a settling says."""
ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~:@+=,;!$()*&'-]{0,199}\Z")
_OPENAPI: Final = files("cofferdam.brokers.relay").joinpath("openapi.json").read_bytes()


class Api(api.Api):
    """The application of a side."""

    problems = PROBLEMS

    def __init__(self, keeper: Keeper, note: Note, wall: Callable[[], int] = time.time_ns) -> None:
        super().__init__(note, wall)
        self.keeper = keeper
        self.relay = Relay(())
        self.checks = Checks(self.relay)
        self._one_large = asyncio.Lock()
        self._rest_until = 0.0

    async def respond(self, request: Request) -> Answer:
        request.rows = self.relay
        path = path_of(request)
        if request.method not in ("GET", "HEAD"):
            no_query(request)
        if path == ("health",):
            return Answer(204)
        known = await self.who(request)
        match path:
            case ("v1",) | ("v1", "channels"):
                method(request, "GET")
                return answer(self._overview(known))
            case ("v1", "openapi.json"):
                method(request, "GET")
                return Answer(200, _OPENAPI)
            case ("v1", "channels", name, *rest):
                return await self._channel(request, known, name, tuple(rest))
        raise refusal("not-found", "no such path")

    async def _channel(self, request: Request, known: Known, name: str, rest: tuple[str, ...]) -> Answer:
        if not any(self._right(known, verb, name) for verb in VERBS):
            raise self._unknown(request, known, name, "any")
        channel = self.relay.channels[name]
        match rest:
            case ():
                method(request, "GET")
                return answer(self._about(known, channel))
            case ("schema",):
                method(request, "GET")
                return self._schema(request, known, channel)
            case ("messages", key):
                method(request, "PUT")
                self._allow(request, known, "push", name)
                return await self._put(request, known, channel, key)
            case ("messages",):
                method(request, "POST", "GET")
                if request.method == "POST":
                    self._allow(request, known, "push", name)
                    return await self._post(request, known, channel)
                self._allow(request, known, "browse", name)
                return await self._browse(request, known, channel)
            case ("lease",):
                method(request, "POST")
                self._allow(request, known, "pull", name)
                return await self._lease(request, known, channel)
            case ("settle",):
                method(request, "POST")
                self._allow(request, known, "pull", name)
                return await self._settle(request, known, channel)
        raise refusal("not-found", "no such path")

    # --- who, and whether it may

    def _right(self, known: Known, verb: Verb, channel: str) -> bool:
        right = self.relay.right(known.principal, verb, channel)
        return right is not None and right.via == "http" and known.may(verb, channel)

    def _allow(self, request: Request, known: Known, verb: Verb, channel: str) -> None:
        if not self._right(known, verb, channel):
            raise self._unknown(request, known, channel, verb)

    def _unknown(self, request: Request, known: Known, channel: str, verb: str) -> Refusal:
        self.tell(request, known, channel, verb, Problem("policy", "no rule allows it"))
        return refusal("not-found", "no channel of this name, or not for this")

    # --- what there is

    def _verbs(self, known: Known, channel: str) -> list[str]:
        return [verb for verb in VERBS if self._right(known, verb, channel)]

    def _overview(self, known: Known) -> dict[str, Any]:
        channels = {name: verbs for name in self.relay.channels if (verbs := self._verbs(known, name))}
        return {"principal": known.principal, "key": known.key, "channels": channels}

    def _about(self, known: Known, channel: Channel) -> dict[str, Any]:
        verbs = self._verbs(known, channel.name)
        found: dict[str, Any] = {
            "channel": channel.name, "may": verbs, "form": channel.form, "keep_seconds": channel.keep,
            "most_bytes": channel.most,
        }  # fmt: skip
        if "push" in verbs:
            found |= {
                "schema": channel.schema, "fields": channel.fields, "others": channel.others, "stamp": channel.stamp,
                "limits": channel.limits,
            }  # fmt: skip
        if "pull" in verbs:
            found |= {"parallel": channel.order, "tries": channel.tries, "lease_seconds": channel.lease}
        return found

    def _schema(self, request: Request, known: Known, channel: Channel) -> Answer:
        self._allow(request, known, "push", channel.name)
        if not channel.schema:
            raise refusal("not-found", "the channel has no schema: any value passes")
        data = self.relay.schemas[self.relay.conduit_of[channel.name]][channel.schema]
        kind = "application/schema+json" if channel.form == "json" else "application/xml"
        return Answer(200, data, kind)

    # --- push

    async def _put(self, request: Request, known: Known, channel: Channel, key: str) -> Answer:
        if not ID.match(key):
            raise refusal(
                "request", "an id has 1 to 200 letters, digits and ._~:@+=,;!$()*&'- and begins with a letter or digit"
            )
        wanted = XML if channel.form == "xml" else (JSON,)
        if media_type(request.headers.get("content-type", "")) not in wanted:
            raise refusal("media", f"a message has the content type {wanted[0]}")
        body = await self._body(request, known, "push", channel, channel.most)
        outcome = await self._in_its_time(request, len(body), lambda: single(self.checks, channel.name, key, body))
        return await self._one(request, known, channel, outcome, body)

    async def _post(self, request: Request, known: Known, channel: Channel) -> Answer:
        kind = media_type(request.headers.get("content-type", ""))
        if kind == NDJSON:
            most = min(LARGEST_MESSAGE, MOST_LINES * (channel.most + 1_024))
            body = await self._body(request, known, "push", channel, most)
            outcomes = await _in_turns(line_outcomes(self.checks, channel.name, body))
            return lines(await self._push(request, known, channel, outcomes, body))
        if kind == CLOUD_EVENTS:
            most = min(LARGEST_MESSAGE, MOST_LINES * (channel.most + 4_096))
            body = await self._body(request, known, "push", channel, most)
            events = await self._in_its_time(request, len(body), lambda: event_values(self.checks, channel.name, body))
            outcomes = await _in_turns(events)
            return answer(await self._push(request, known, channel, outcomes, body))
        body = await self._body(request, known, "push", channel, channel.most + 4_096)
        if kind == CLOUD_EVENT:
            outcome = await self._in_its_time(
                request, len(body), lambda: event_outcome(self.checks, channel.name, body)
            )
        elif "ce-specversion" in request.headers and kind in (XML if channel.form == "xml" else (JSON,)):
            outcome = await self._in_its_time(
                request, len(body), lambda: binary_event(self.checks, channel.name, request.headers, body)
            )
        else:
            raise refusal("media", f"many messages have the content type {NDJSON}, one is PUT to .../messages/ID")
        return await self._one(request, known, channel, outcome, body)

    async def _one(self, request: Request, known: Known, channel: Channel, outcome: Outcome, body: bytes) -> Answer:
        (found,) = await self._push(request, known, channel, [outcome], body)
        status = found.pop("status") if found["status"] < 300 else found["status"]
        if status >= 300:
            headers = {"retry-after": str(found["retry_after"])} if found.get("retry_after") else {}
            return problem(found, headers)
        return answer({"channel": channel.name, **found}, status, {"etag": f'"{found.get("sha256", "")}"'})

    async def _push(
        self, request: Request, known: Known, channel: Channel, outcomes: list[Outcome], body: bytes
    ) -> list[dict[str, Any]]:
        """What became of each message, in order."""
        name, who = channel.name, known.principal
        items = [outcome.item for outcome in outcomes if outcome.item is not None]
        for outcome in outcomes if len(items) < len(outcomes) else ():
            if outcome.item is None and outcome.problem is not None:
                self.tell(request, known, name, "push", outcome.problem, outcome.key)
        results: list[Result] = []
        for parcel in _parcels(items):

            def push(number: int, parcel: Any = parcel) -> ToKeeper:
                return Push(number, who, name, parcel)

            answered = await self._ask(request, Answered, push)
            results += answered.results
        left = iter(results)
        found = []
        for outcome in outcomes:
            if outcome.item is None:
                problem = outcome.problem or Problem("request", "nothing to push")
                found.append({"id": outcome.key, **shown(problem)})
                continue
            one = next(left)
            problem_found = outcome.problem
            if problem_found is None and one.problem is not None and one.problem.place and channel.form == "json":
                problem_found = outcome.located(one.problem, body)
            found.append(result(one, outcome.key, problem_found))
        return found

    # --- pull

    async def _lease(self, request: Request, known: Known, channel: Channel) -> Answer:
        wanted = said(LeaseSaid, await self._body(request, known, "pull", channel, ENDPOINT_BODY))
        seconds = min(wanted.seconds or channel.lease, channel.lease)
        connection = request.connection

        def pull(number: int) -> ToKeeper:
            return Pull(number, known.principal, channel.name, wanted.max, seconds, int(wanted.wait * 1000))

        def gone(give_up: Callable[[], None]) -> None:
            connection.gone = give_up

        found = await self._ask(request, Handed, pull, gone)
        connection.gone = None
        return handed(found, channel)

    async def _settle(self, request: Request, known: Known, channel: Channel) -> Answer:
        wanted = said(SettleSaid, await self._body(request, known, "pull", channel, ENDPOINT_BODY))
        given = verdicts(wanted)
        if not given:
            raise refusal("request", "done, failed or extend: at least one message")
        lease = int(wanted.lease)

        def settle(number: int) -> ToKeeper:
            return Settle(number, known.principal, channel.name, lease, given)

        found = await self._ask(request, Answered, settle)
        told = []
        for verdict, one in zip(given, found.results, strict=True):
            if one.state == "stored":
                told.append({"number": verdict.number, "status": 200})
            else:
                problem = one.problem or Problem("lease", "refused")
                told.append({"number": verdict.number, **shown(problem)})
        return answer({"results": told})

    async def _browse(self, request: Request, known: Known, channel: Channel) -> Answer:
        wanted = said(BrowseSaid, query_of(request))

        def browse(number: int) -> ToKeeper:
            return Browse(number, known.principal, channel.name, wanted.after, wanted.max)

        return handed(await self._ask(request, Handed, browse), channel)

    async def _ask(
        self,
        request: Request,
        kind: type[A],
        make: Callable[[int], ToKeeper],
        gone: Callable[[Callable[[], None]], None] | None = None,
    ) -> A:
        """Asks the keeper, if that may still be asked."""
        self._unchanged(request)
        return await self.keeper.ask(kind, make, gone)

    def _unchanged(self, request: Request) -> None:
        """To be called after each wait. What a client may, and what was checked, was found by the rows of then; the
        keeper ends a side that asks by other rows than it says it works by. Raises: Refusal."""
        if request.rows is not self.relay:
            raise refusal("busy", "the policy has just changed; do what is left again, under the same ids", retry=1)

    async def _in_its_time(self, request: Request, size: int, read: Callable[[], R]) -> R:
        """Reads a body of so many bytes. Raises: Refusal, where the policy has changed while it waited."""
        if size <= LARGE_BYTES:
            return read()
        async with self._one_large:
            await asyncio.sleep(max(0.0, self._rest_until - time.monotonic()))
            self._unchanged(request)
            began = time.monotonic()
            try:
                return read()
            finally:
                ended = time.monotonic()
                self._rest_until = ended + (ended - began)

    async def _body(self, request: Request, known: Known, verb: Verb, channel: Channel, most: int) -> bytes:
        """The body, whole. Raises: Refusal where it is larger, and where the client may no longer do what it was
        allowed when its body began: keys and the policy change meanwhile, and a body may take its time."""
        body = await request.body(most, known.principal)
        if body is None:
            raise refusal("size", f"a body of more than {most} bytes")
        if self.known(request) != known:
            raise refusal("key", KEY_NEEDED)
        self._allow(request, known, verb, channel.name)
        request.rows = self.relay  # it has been looked at by these
        return body


async def _in_turns(outcomes: Iterator[list[Outcome]]) -> list[Outcome]:
    """All of them; others are served in between, however many there are."""
    found: list[Outcome] = []
    loop = asyncio.get_running_loop()
    began = loop.time()
    for some in outcomes:
        found += some
        if loop.time() - began > TURN_SECONDS:
            await asyncio.sleep(0)
            began = loop.time()
    return found


def _parcels(items: list[Any]) -> list[tuple[Any, ...]]:
    """The items in order, as they fit into records."""
    if items and sum([len(item.body) for item in items]) + 512 * len(items) <= LARGEST_MESSAGE:
        return [tuple(items)]
    found: list[tuple[Any, ...]] = []
    parcel: list[Any] = []
    size = 0
    for item in items:
        if parcel and size + len(item.body) > LARGEST_MESSAGE:
            found.append(tuple(parcel))
            parcel, size = [], 0
        parcel.append(item)
        size += len(item.body) + 512
    return [*found, tuple(parcel)] if parcel else found
