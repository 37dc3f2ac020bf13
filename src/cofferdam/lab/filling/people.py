"""Who uses the filling line from the office: an MES, and an operator with a password. Both speak OPC UA with
certificates, by a client of others (asyncua), and have no idea that there is a gate.

Driven (commands on stdin) they do one thing at a time; left alone they read, watch, and now and then set the speed.
Not here: the line (plant), what should come of what they do (steps).
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cofferdam.errors import CofferdamError
from cofferdam.lab import events
from cofferdam.lab.filling.intruder import intrude
from cofferdam.lab.filling.plant import LINE

PATIENCE_SECONDS = 60.0


def make_keys(folder: Path, uri: str) -> None:
    """own.der and own.pem of an application, if there are none yet."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import NameOID

    if (folder / "own.der").exists():
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, uri)])
    now = datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=True, key_encipherment=True, data_encipherment=True,
        key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "own.pem").touch(mode=0o600)
    (folder / "own.pem").write_bytes(pem)
    (folder / "own.der").write_bytes(made.public_bytes(serialization.Encoding.DER))


class From(asyncio.SelectorEventLoop):
    """A loop whose connections come from one address."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self._source = source

    async def create_connection(self, *args: Any, **named: Any) -> Any:
        if self._source:
            named["local_addr"] = (self._source, 0)
        return await super().create_connection(*args, **named)


class Person:
    """An MES or an operator. `login`: user and password, or two empty words."""

    def __init__(self, who: str, url: str, keys: Path, server: Path, login: tuple[str, str], sink: events.Sink) -> None:
        self.who = who
        self._url = url
        self._keys = keys
        self._server = server
        self._login = login
        self._sink = sink
        self._client: Any = None
        logging.getLogger("asyncua").setLevel(logging.CRITICAL)

    async def connect(self) -> str:
        """A session, secured; an old one is left behind."""
        from asyncua import ua
        from asyncua.client.client import Client
        from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256

        await self.leave()
        client: Any = Client(self._url, timeout=PATIENCE_SECONDS)
        client.application_uri = f"urn:works:{self.who}"
        await client.set_security(
            SecurityPolicyBasic256Sha256, str(self._keys / "own.der"), str(self._keys / "own.pem"),
            server_certificate=str(self._server), mode=ua.MessageSecurityMode.SignAndEncrypt,
        )  # fmt: skip
        if self._login[0]:
            client.set_user(self._login[0])
            client.set_password(self._login[1])
        await client.connect()
        self._client = client
        return "connected"

    async def leave(self) -> None:
        """Ends the session, if there is one."""
        client, self._client = self._client, None
        if client is not None:
            try:
                await client.disconnect()
            except Exception:  # noqa: S110  the gate or the line has gone: there is nothing to leave
                pass

    async def _node(self, name: str) -> Any:
        from asyncua import ua as types

        ua: Any = types
        index = (await self._client.get_namespace_array()).index(LINE)
        return self._client.get_node(ua.NodeId(name, index))

    async def read(self, name: str) -> float:
        """A value."""
        return float(await (await self._node(name)).read_value())

    async def write(self, name: str, value: float) -> str:
        await (await self._node(name)).write_value(float(value))
        return f"{value:g}"

    async def call(self, name: str, value: float) -> str:
        from asyncua import ua as types

        ua: Any = types
        line, method = await self._node("Line"), await self._node(name)
        return str(await line.call_method(method.nodeid, ua.Variant(int(value), ua.VariantType.Int32)))

    async def browse(self) -> str:
        """What there is beneath Objects, and beneath the line."""
        found = []
        for node in await self._client.nodes.objects.get_children():
            name = (await node.read_browse_name()).Name
            if name != "Server":
                below = [(await one.read_browse_name()).Name for one in await node.get_children()]
                found.append(f"{name}: {' '.join(sorted(below))}")
        return "; ".join(found)

    async def watch(self, name: str, count: int) -> str:
        """So many changes of a value, as they come by themselves."""
        seen: list[float] = []
        enough = asyncio.Event()

        class Handler:
            def datachange_notification(self, _node: Any, value: float, _data: Any) -> None:
                seen.append(value)
                if len(seen) >= count:
                    enough.set()

        subscription = await self._client.create_subscription(100, Handler())
        await subscription.subscribe_data_change(await self._node(name), queuesize=20)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await enough.wait()
        await subscription.delete()
        return " ".join(f"{value:g}" for value in seen[:count])

    async def history(self, name: str, minutes: float) -> str:
        """How many recorded values there are of the last minutes, at most five."""
        end = datetime.now(UTC).replace(tzinfo=None)
        found = await (await self._node(name)).read_raw_history(end - timedelta(minutes=minutes), end, 5)
        return str(len(found))

    async def intrude(self, how: str) -> str:
        """What one without a right may try from the same address; what comes of it."""
        token = self._client.uaclient.session.authentication_token if self._client is not None else None
        return await intrude(how, self._url, (self._keys / "own.der").read_bytes(), self._server.read_bytes(), token)

    async def attempt(self, action: str, work: Callable[[], Awaitable[Any]]) -> None:
        """Does something, and says what came of it."""
        try:
            found = await work()
        except Exception as error:
            self._sink(events.Experience(self.who, action, "refused", detail=type(error).__name__))
            return
        value = found if isinstance(found, float) else None
        self._sink(events.Experience(self.who, action, "ok", value=value, detail=str(found)))

    async def drive(self, source: AsyncIterator[events.Command]) -> None:
        """Does what each command says, then says Done."""
        async for command in source:
            point, value = command.point, command.value
            works: dict[str, Callable[[], Awaitable[Any]]] = {
                "connect": self.connect,
                "read": functools.partial(self.read, point),
                "write": functools.partial(self.write, point, value),
                "call": functools.partial(self.call, point, value),
                "browse": self.browse,
                "watch": functools.partial(self.watch, point, command.count),
                "history": functools.partial(self.history, point, value),
                "intrude": functools.partial(self.intrude, point),
            }
            if command.do not in works:
                raise CofferdamError(f"{self.who} knows no command {command.do!r}", hint=", ".join(works))
            await self.attempt(f"{command.do} {point}".rstrip(), works[command.do])
            self._sink(events.Done(self.who, command.do))
        await self.leave()

    async def forever(self, pause: float) -> None:
        """Reads, and sets the speed now and then, also where it may not."""
        turn = 0
        while True:
            if self._client is None:
                await self.attempt("connect", self.connect)
            else:
                await self.attempt("read Line.Speed", lambda: self.read("Line.Speed"))
                if turn % 4 == 3:
                    speed = (320.0, 340.0, 2000.0)[turn // 4 % 3]
                    await self.attempt("write Line.Speed", functools.partial(self.write, "Line.Speed", speed))
            turn += 1
            await asyncio.sleep(pause)
