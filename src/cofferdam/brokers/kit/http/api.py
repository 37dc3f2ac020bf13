"""What the HTTP API of any broker begins with: who asks, on what path, with which words; and problems as answers.

Who asks is settled before anything of a body is read. Not here: what is answered (each broker's API), connections
(connection), keys (keys).
"""

from __future__ import annotations

import abc
import asyncio
import re
import time
from collections.abc import Callable
from urllib.parse import parse_qsl, unquote_to_bytes

from cofferdam.brokers.kit.http.connection import Request
from cofferdam.brokers.kit.http.keys import WRONG_SECONDS, Keyring, Known, Slowed, Why, hash_of
from cofferdam.brokers.kit.http.messages import Answer, Gone
from cofferdam.brokers.kit.http.problems import Problems, Refusal, refusal
from cofferdam.policy.messages.checked import Problem

KEY_NEEDED = "a key (Authorization: Bearer cdk_...) or a certificate of this side is needed"
_HALF = re.compile(rb"%(?![0-9A-Fa-f]{2})")
WORDS_MOST = 32
"""Words of a query."""

Note = Callable[[str, str, str, str, Problem, str], None]
"""(what, principal, source, verb, problem, key): a refusal, for the audit log."""


class Api(abc.ABC):
    """The application. An exception that leaves it is a bug, and ends the process."""

    problems: Problems

    def __init__(self, note: Note, wall: Callable[[], int] = time.time_ns) -> None:
        self.keys = Keyring(())
        self.slowed = Slowed()
        self.requests = 0
        self.refused = 0
        self._note = note
        self._wall = wall

    async def __call__(self, request: Request) -> Answer:
        self.requests += 1
        try:
            return await self.respond(request)
        except Refusal as error:
            self.refused += 1
            return self.problems.refused(error)

    @abc.abstractmethod
    async def respond(self, request: Request) -> Answer:
        """The answer. Raises: Refusal, BadRequest, Gone."""

    def known(self, request: Request) -> Known | Why:
        """Who asks, by the keys as they are now."""
        connection = request.connection
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        if text:
            if scheme.lower() != "bearer":
                return "unknown"
            if connection.shown[0] != text:
                connection.shown = (text, hash_of(text.strip()))
            return self.keys.by_hash(connection.shown[1], connection.principals, self._wall())
        if connection.certificate:
            return self.keys.by_certificate(connection.certificate, connection.principals)
        return "none"

    async def who(self, request: Request) -> Known:
        """Who asks. Raises: Refusal, Gone."""
        connection = request.connection
        found = self.known(request)
        if isinstance(found, Known):
            return found
        # Late, whatever is wrong, and not many at a time: see keys.
        if not self.slowed.begin(connection.source, found):
            connection.abort()
            raise Gone
        await asyncio.sleep(WRONG_SECONDS)
        self.slowed.end(connection.source)
        raise refusal("key", KEY_NEEDED)

    def tell(self, request: Request, known: Known, what: str, verb: str, problem: Problem, key: str = "") -> None:
        """A refusal, for the audit log."""
        self._note(what, known.principal, request.connection.source, verb, problem, key)


def method(request: Request, *methods: str) -> None:
    """Raises: Refusal, where the request has none of these."""
    if request.method not in methods and not (request.method == "HEAD" and "GET" in methods):
        allowed = ", ".join(methods)
        raise refusal("method", f"{allowed} is for this path", headers={"allow": allowed})


def path_of(request: Request) -> tuple[str, ...]:
    """The path's steps, each decoded once and strictly. Raises: Refusal."""
    steps = []
    for step in request.target.partition(b"?")[0][1:].split(b"/"):
        if _HALF.search(step):
            raise refusal("request", "a percent sign without two hexadecimal digits")
        try:
            text = unquote_to_bytes(step).decode()
        except UnicodeDecodeError:
            raise refusal("request", "a path that is not UTF-8") from None
        if not text.isprintable() or "/" in text or text in (".", ".."):
            raise refusal("request", "a path with a control character, a slash within a name, or dots")
        steps.append(text)
    return tuple(steps)


def no_query(request: Request) -> None:
    """Raises: Refusal, where there is something behind a question mark: it would be passed over in silence."""
    if b"?" in request.target:
        raise refusal("request", "no query is understood here")


def query_of(request: Request) -> dict[str, str]:
    """What stands behind the question mark, each once. Raises: Refusal."""
    text = request.target.partition(b"?")[2].decode("ascii")
    try:
        pairs = parse_qsl(
            text, keep_blank_values=True, strict_parsing=bool(text), errors="strict", max_num_fields=WORDS_MOST
        )
    except ValueError:
        raise refusal("request", "a query that is none") from None
    if len(dict(pairs)) != len(pairs):
        raise refusal("request", "a word twice in the query")
    return dict(pairs)
