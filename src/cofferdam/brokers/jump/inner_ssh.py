"""The leg to an asset that speaks SSH: a client of ours, with a credential that no user sees.

The asset must show the host key that a person accepted; there is no way to ignore that. Nothing of the machine is read
(no configuration, no agent, no known hosts), no name is resolved.

Not here: the session around it (inner_session).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any, Final

import asyncssh
from asyncssh.public_key import decode_ssh_public_key

from cofferdam.brokers.jump.accounts import key_name
from cofferdam.brokers.jump.alone import CIPHERS, Frugal, unswallowed
from cofferdam.brokers.jump.inner_session import Live
from cofferdam.brokers.jump.records import Credential, Grant, Rotate
from cofferdam.brokers.kit import aio

SIGN_IN_SECONDS: Final = 30.0
KEEPALIVE_SECONDS: Final = 15
KINDS: Final = (
    "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "rsa-sha2-512", "rsa-sha2-256",
)  # fmt: skip
"""Of host keys."""


class NoLeg(Exception):
    """There is no leg, and why, for the person. `shown`: the fingerprint of a host key that was refused."""

    def __init__(self, reason: str, shown: str = "") -> None:
        super().__init__(reason)
        self.shown = shown


def unreachable(asset: str, error: OSError) -> NoLeg:
    """Why there is no connection, without the address, which the person need not know: Python's own words have it."""
    return NoLeg(f"{asset} cannot be reached: {os.strerror(error.errno) if error.errno else 'no connection'}")


class Connection(Frugal, asyncssh.SSHClientConnection):
    """Takes the host key that it was told, and no other."""

    shown = b""
    on_room: Callable[[], None] | None = None

    def pause_writing(self) -> None:
        """asyncssh would go on. An asset that does not read is sent no more, whatever windows it has given, and what
        it asks for would cost us memory as well: it is not read either."""
        self._wire_full = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._wire_full = False
        if self._transport is not None:
            self._transport.resume_reading()
        self.has_room()

    def has_room(self) -> None:
        if self.on_room is not None:
            self.on_room()

    def validate_server_host_key(self, key_data: bytes) -> asyncssh.SSHKey:
        self.shown = key_data
        return super().validate_server_host_key(key_data)


def _options(grant: Grant | Rotate, credential: Credential) -> asyncssh.SSHClientConnectionOptions:
    key = decode_ssh_public_key(grant.host_key)
    by_key = credential.kind in ("key", "certificate")
    keys: Any = [asyncssh.import_private_key(credential.secret)] if by_key else None
    if credential.certificate:
        keys = [(keys[0], asyncssh.import_certificate(credential.certificate))]
    # Its own kind first; the others as well, since an asset that has only them is to be refused by name, and alarmed.
    own = [name for name in (each.decode() for each in key.sig_algorithms) if name in KINDS] or [key.get_algorithm()]
    return asyncssh.SSHClientConnectionOptions(
        server_host_key_algs=[*own, *(kind for kind in KINDS if kind not in own)],
        config=None, known_hosts=([key], [], []), username=grant.login, agent_path=None, x509_trusted_certs=None,
        x509_trusted_cert_paths=[], gss_host=None, client_version="Cofferdam",
        client_keys=keys, password=None if by_key else credential.secret.decode(),
        preferred_auth="publickey" if by_key else "password,keyboard-interactive",
        compression_algs=None, encryption_algs=CIPHERS, keepalive_interval=KEEPALIVE_SECONDS, keepalive_count_max=3,
        login_timeout=SIGN_IN_SECONDS,
    )  # fmt: skip


async def connect(grant: Grant | Rotate, address: str, port: int, credential: Credential | None = None) -> Connection:
    """A connection that is signed in; `credential`: by another one. Raises: NoLeg."""
    loop = asyncio.get_running_loop()
    said = _options(grant, credential or grant.credential)
    said.waiter = loop.create_future()
    connection = Connection(loop, said, wait="auth")
    try:
        async with asyncio.timeout(SIGN_IN_SECONDS):
            await aio.dial(address, port, lambda: connection)
            await said.waiter
    except BaseException as error:
        connection.abort()
        if isinstance(error, asyncssh.HostKeyNotVerifiable) or (
            isinstance(error, asyncssh.KeyExchangeFailed) and "host key" in str(error)
        ):
            shown = key_name(connection.shown) or "a key of another kind"
            reason = f"{grant.asset} shows another host key than was accepted: nobody is let through"
            raise NoLeg(reason, shown) from None
        if isinstance(error, asyncssh.PermissionDenied):
            raise NoLeg(f"{grant.asset} does not take the gate's credential for {grant.login}") from None
        if isinstance(error, TimeoutError):
            raise NoLeg(f"{grant.asset} does not answer") from None
        if isinstance(error, OSError):
            raise unreachable(grant.asset, error) from None
        if isinstance(error, asyncssh.Error):
            raise NoLeg(f"{grant.asset} ended the connection: {error}") from None
        raise
    return connection


class SshLeg(asyncssh.SSHClientSession[bytes]):
    """A terminal or a program at the asset."""

    def __init__(self, live: Live, connection: Connection) -> None:
        self._live = live
        self._connection = connection
        connection.on_room = self._room
        self._chan: asyncssh.SSHClientChannel[bytes] | None = None
        self._full = False

    # --- what asyncssh calls ----------------------------------------------------------------------------------------

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self._chan = chan

    def data_received(self, data: bytes, datatype: Any) -> None:
        self._live.leg_says(data, datatype == asyncssh.EXTENDED_DATA_STDERR)

    def eof_received(self) -> bool:
        self._live.leg_eof()
        return True

    def exit_status_received(self, status: int) -> None:
        self._live.leg_exit(status)

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        known = signal if signal.isascii() and signal.isalnum() and len(signal) <= 32 else "TERM"
        self._live.leg_exit(1, known.upper())

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._room()

    def _room(self) -> None:
        if not self._full and not self._connection.full:
            self._live.leg_room()

    @unswallowed
    def connection_lost(self, exc: Exception | None) -> None:
        self._chan = None
        self._connection.close()
        self._live.leg_closed(f"the asset's end is gone: {exc}" if exc is not None else "")

    # --- what the session calls -------------------------------------------------------------------------------------

    def write(self, data: bytes) -> bool:
        if self._chan is not None and not self._chan.is_closing():
            self._chan.write(data)
        return not self._full and not self._connection.full

    def write_eof(self) -> None:
        if self._chan is not None and not self._chan.is_closing():
            self._chan.write_eof()

    def resize(self, columns: int, rows: int) -> None:
        if self._chan is not None and not self._chan.is_closing():
            self._chan.change_terminal_size(columns, rows)

    def signal(self, name: str) -> None:
        if self._chan is not None and not self._chan.is_closing():
            self._chan.send_signal(name)

    def hold(self, held: bool) -> None:
        if self._chan is not None:
            (self._chan.pause_reading if held else self._chan.resume_reading)()

    def close(self) -> None:
        self._connection.abort()


class FilesLeg:
    """A leg by which files go: nothing is typed there."""

    def __init__(self, close: Callable[[], None]) -> None:
        self._close = close

    def write(self, data: bytes) -> bool:
        return True

    def write_eof(self) -> None:
        """There is nothing that would end."""

    def resize(self, columns: int, rows: int) -> None:
        """There is no terminal."""

    def signal(self, name: str) -> None:
        """There is no program."""

    def hold(self, held: bool) -> None:
        """Each request has its own answer."""

    def close(self) -> None:
        self._close()


async def open_files(live: Live, connection: asyncssh.SSHClientConnection) -> asyncssh.SFTPClient:
    """Raises: NoLeg."""
    try:
        async with asyncio.timeout(SIGN_IN_SECONDS):
            return await connection.start_sftp_client(path_encoding=None)
    except (asyncssh.Error, OSError) as error:
        connection.abort()
        raise NoLeg(f"{live.grant.asset} has no SFTP: {error}") from None


async def open_session(live: Live, connection: Connection) -> SshLeg:
    """A terminal or a command. Raises: NoLeg."""
    grant, terminal = live.grant, live.grant.terminal
    leg = SshLeg(live, connection)
    more: dict[str, Any] = {}
    if terminal is not None:
        more = {
            "term_type": terminal.term or "dumb", "term_size": (terminal.columns, terminal.rows),
            "term_modes": {mode: value for mode, value in terminal.modes.items() if mode < 128},
        }  # fmt: skip
    try:
        async with asyncio.timeout(SIGN_IN_SECONDS):
            await connection.create_session(
                lambda: leg, grant.command if grant.what == "exec" else (),
                request_pty="force" if terminal is not None else False, encoding=None, window=1 << 20, **more,
            )  # fmt: skip
    except (asyncssh.Error, OSError) as error:
        connection.abort()
        raise NoLeg(f"{grant.asset} gives no session: {error}") from None
    return leg
