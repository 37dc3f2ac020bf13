"""Those who keep the log's heads, as the witness's part visits them: a witness by C2SP tlog-witness, a folder by SFTP.

Rules of order: the log's head is asked for; it must go on from the one that was given out before, and from what the
keeper has; only then is it given away; it counts as kept when the keeper has said so (a co-signature by its key; the
file under its name).

Not here: when (witness_part), what is told to people (gate.watch.witness).
"""

from __future__ import annotations

import abc
import asyncio
import base64
import http.client
import io
import ssl
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Final

from cofferdam.audit.checkpoint import Checkpoint, VerifierKey, open_checkpoint
from cofferdam.audit.cosignature import WitnessKey, cosigned
from cofferdam.errors import AuditError, CofferdamError
from cofferdam.evidence.heads import forked, older, went_on
from cofferdam.evidence.witness_records import Head
from cofferdam.policy.rows import Witness

VISIT_SECONDS: Final = 30.0
"""For one visit, from the dialling to the end."""
ANSWER_BYTES: Final = 64 << 10
NOTE_BYTES: Final = 16 << 10
TRIES: Final = 4
"""Heads of the log that are asked for in one visit: it goes on meanwhile, and a witness says where it stands."""
LAST: Final = "checkpoint"
"""The newest in a folder; the last of each day stands beside it under its date."""

Ask = Callable[[int], Coroutine[Any, Any, Head]]
"""The log's head, and how it goes on from so many entries."""


class Keeper(abc.ABC):
    """One keeper. `last`: what was given out last, in this life of the part. `give`: False for one who only looks
    whether the log goes on from what a folder has; a witness that signs can be asked by giving alone."""

    def __init__(self, to: Witness, log: VerifierKey, ask: Ask, *, give: bool = True) -> None:
        self.to, self.log = to, log
        self._ask, self._give = ask, give
        self.last: Checkpoint | None = None

    async def visit(self) -> tuple[int, bytes]:
        """Gives the head away. The size that is kept now, and the note as it is kept.

        Raises:
            AuditError: what the keeper has, or was given before, does not lead to this log; or another key answers.
            CofferdamError: it is not to be had.
        """
        try:
            async with asyncio.timeout(VISIT_SECONDS):
                return await self._visit()
        except TimeoutError:
            raise CofferdamError(f"it did not answer within {VISIT_SECONDS:.0f} s") from None
        except (OSError, EOFError) as error:
            raise CofferdamError(f"it cannot be reached: {getattr(error, 'strerror', '') or error}") from None

    @abc.abstractmethod
    async def _visit(self) -> tuple[int, bytes]: ...

    async def _head(self, old: int) -> tuple[Head, Checkpoint]:
        """The log's head and how it goes on from `old` entries, once it is sure to go on from what was given out."""
        for _ in range(TRIES):
            found = await self._asked(old)
            now = open_checkpoint(found.note, self.log)
            older(old, now.size)
            if self.last is None:
                return found, now
            given = found if old == self.last.size else await self._asked(self.last.size)
            if given.note == found.note:
                went_on(self.last, found.note, given.hashes, self.log)
                return found, now
        raise CofferdamError("the log grows while its head is looked at")

    async def _asked(self, old: int) -> Head:
        found = await self._ask(old)
        if found.why:
            raise CofferdamError(f"the log's head is not to be had: {found.why}")
        return found


class Cosigner(Keeper):
    """A witness by C2SP tlog-witness, "add-checkpoint". It signs only what goes on from what it has signed."""

    def __init__(self, to: Witness, log: VerifierKey, ask: Ask, *, give: bool = True) -> None:
        super().__init__(to, log, ask, give=give)
        self._key = WitnessKey.parse(to.key)
        self._has = 0
        """What it has signed last, as far as it has said."""

    async def _visit(self) -> tuple[int, bytes]:
        # What it said in an earlier visit binds nobody: one that was wrong then is asked again.
        self._has = self.last.size if self.last is not None else 0
        for _ in range(TRIES):
            head, now = await self._head(self._has)
            status, body = await self._post(head)
            if status == 200:
                note = cosigned(head.note, body, self._key)
                self.last, self._has = now, now.size
                return now.size, note
            if status == 409:
                said = body.decode("ascii", "replace").strip()
                if not said.isdigit() or len(said) > 18:
                    raise CofferdamError("it answers 409 and does not say what it has (text/x.tlog.size)")
                if int(said) == self._has:
                    raise forked(self._has)
                self._has = int(said)
                older(self._has, now.size)
            elif status == 422:
                raise forked(self._has)
            elif status == 403:
                raise AuditError("it knows another key for this log than the one that signs it")
            elif status == 404:
                raise CofferdamError(f"it does not know the log {self.log.name}: give it the key {self.log.text}")
            else:
                raise CofferdamError(f"it answers {status}")
        raise CofferdamError("what it says it has signed changes with each question")

    async def _post(self, head: Head) -> tuple[int, bytes]:
        hashes = "".join(f"{base64.b64encode(one).decode()}\n" for one in head.hashes)
        body = f"old {head.old}\n{hashes}\n".encode() + head.note
        to = self.to
        address = f"[{to.address}]" if ":" in to.address else to.address
        lines = (
            f"POST {to.path}/add-checkpoint HTTP/1.1", f"Host: {to.host or address}:{to.port}", "User-Agent: cofferdam",
            "Content-Type: text/plain; charset=utf-8", f"Content-Length: {len(body)}", "Connection: close", "", "",
        )  # fmt: skip
        secured = None
        if to.way == "https":
            # The answer is signed by the witness's own key, and what is sent is for everybody: TLS hides it on its
            # way, and nothing is believed because of it. So no list of authorities is needed.
            secured = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            secured.check_hostname = False
            secured.verify_mode = ssl.CERT_NONE
        reader, writer = await asyncio.open_connection(
            to.address, to.port, ssl=secured, server_hostname=(to.host or to.address) if secured is not None else None
        )
        try:
            writer.write("\r\n".join(lines).encode() + body)
            await writer.drain()
            data = b""
            while more := await reader.read(ANSWER_BYTES):
                data += more
                if len(data) > ANSWER_BYTES:
                    raise CofferdamError(f"it answers with more than {ANSWER_BYTES >> 10} KiB")
        finally:
            writer.close()
        return _answer(data)


class _Read:
    """An answer that has come whole, as the library reads answers."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_: Any) -> io.BytesIO:
        return io.BytesIO(self._data)


def _answer(data: bytes) -> tuple[int, bytes]:
    """Status and body of an answer of HTTP/1.1. Raises: CofferdamError."""
    try:
        response = http.client.HTTPResponse(_Read(data), method="POST")  # type: ignore[arg-type]
        response.begin()
        return response.status, response.read()
    except (http.client.HTTPException, ValueError) as error:
        raise CofferdamError(f"what it answers is no HTTP: {error!r}"[:200]) from None


class SftpFolder(Keeper):
    """A folder on another machine. It keeps what it is given: that nobody writes it anew there is the machine's to see
    to (snapshots, another owner)."""

    def __init__(self, to: Witness, log: VerifierKey, ask: Ask, secret: bytes, *, give: bool = True) -> None:
        super().__init__(to, log, ask, give=give)
        self._secret = secret

    async def _visit(self) -> tuple[int, bytes]:
        import asyncssh

        if not self._secret:
            raise CofferdamError("the gate has no key to sign in with", hint="`cofferdam evidence witness --key`")
        try:
            host, own = asyncssh.import_public_key(self.to.key), asyncssh.import_private_key(self._secret)
        except ValueError as error:  # KeyImportError is one
            raise CofferdamError(f"a key that is none: {error}") from None
        try:
            # asyncssh gives these out as untyped.
            async with asyncssh.connect(
                self.to.address, self.to.port, username=self.to.user, known_hosts=([host], [], []), config=None,
                client_keys=[own], agent_path=None, preferred_auth="publickey",
                x509_trusted_certs=None, x509_trusted_cert_paths=[], gss_host=None, client_version="Cofferdam",
                compression_algs=None,
            ) as connection, connection.start_sftp_client() as sftp:  # fmt: skip
                return await self._leave(sftp)
        except asyncssh.HostKeyNotVerifiable:
            raise AuditError("the machine shows another host key than the policy has") from None
        except asyncssh.PermissionDenied:
            raise CofferdamError(f"it does not let {self.to.user} in with the gate's key") from None
        except (asyncssh.Error, ValueError) as error:  # what is sent that is no SFTP is a ValueError of asyncssh's
            if isinstance(error, asyncssh.KeyExchangeFailed) and "host key" in str(error):
                raise AuditError("the machine shows another host key than the policy has") from None
            raise CofferdamError(f"SFTP: {error}"[:300]) from None

    async def _leave(self, sftp: Any) -> tuple[int, bytes]:
        import asyncssh

        folder = self.to.path.rstrip("/")
        # Without blocks: then each request is one, and asyncssh leaves no task behind when the connection breaks; what
        # nobody looks after would end the part.
        old = b""
        try:
            async with sftp.open(f"{folder}/{LAST}", "rb", block_size=0) as file:
                while len(old) < NOTE_BYTES and (piece := await file.read(NOTE_BYTES, len(old))):
                    old += piece
        except asyncssh.SFTPNoSuchFile:
            pass
        before = open_checkpoint(old, self.log) if old else self.last
        head, now = await self._head(before.size if before is not None else 0)
        if before is not None:
            went_on(before, head.note, head.hashes, self.log)
        if not self._give:
            if before is None:
                raise CofferdamError("no head is there yet")
            return before.size, old
        day = datetime.now(UTC).strftime("%Y-%m-%d")
        for name in (day, LAST):
            async with sftp.open(f"{folder}/{name}.new", "wb", block_size=0) as file:
                await file.write(head.note)
            await sftp.posix_rename(f"{folder}/{name}.new", f"{folder}/{name}")
        self.last = now
        return now.size, head.note


def keeper(to: Witness, log: VerifierKey, ask: Ask, secret: bytes, *, give: bool = True) -> Keeper:
    """The keeper of this row of the policy."""
    if to.way == "sftp":
        return SftpFolder(to, log, ask, secret, give=give)
    return Cosigner(to, log, ask, give=give)
