"""The SSH server that faces people: asyncssh, with all that decides taken out of it.

The part that runs it has no host key: each key exchange's hash goes to the keeper, and its signature comes back. What a
client shows as proof goes there as well. What would be a way round (forwarded ports, agents, X11, tunnels) is refused,
and told. What asyncssh does not document and we lean on is overridden here and nowhere else; tests hold it.

Not here: sessions and their data (outer_session), the part (outer_part).
"""

from __future__ import annotations

import asyncio
import functools
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import asyncssh
from asyncssh.channel import SSHServerChannel, SSHTCPChannel
from asyncssh.constants import (
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_OPEN,
    MSG_KEXINIT,
    MSG_USERAUTH_FAILURE,
    OPEN_ADMINISTRATIVELY_PROHIBITED,
    OPEN_RESOURCE_SHORTAGE,
    OPEN_UNKNOWN_CHANNEL_TYPE,
)
from asyncssh.misc import ChannelOpenError, ProtocolError
from asyncssh.packet import Boolean, NameList, SSHPacket
from asyncssh.public_key import SSHKeyPair

from cofferdam.brokers.jump.alone import CIPHERS, Frugal, unswallowed
from cofferdam.brokers.jump.records import Verdict
from cofferdam.brokers.kit.pace import Bucket, draw

LOGIN_SECONDS: Final = 120
"""From the connection to the second factor."""
TRIES_MOST: Final = 6
CHANNELS_MOST: Final = 10
"""Of one connection."""
KEEPALIVE_SECONDS: Final = 30
EXCHANGES_AT_ONCE: Final = 20
EXCHANGES_A_SECOND: Final = 1.0
"""Key exchanges of one connection: a client that asks for no end of them has others wait, and the keeper sign."""
FAREWELL_SECONDS: Final = 1.0
"""For what a client is told at the end; then it is cut off, whether it has read that or not."""
WIRE_BYTES: Final = 512 << 10
"""What one client has been sent and has not taken; beyond it nothing more is got for it, nor read from it."""
KEX: Final = (
    "mlkem768x25519-sha256", "curve25519-sha256", "curve25519-sha256@libssh.org", "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384", "ecdh-sha2-nistp521", "diffie-hellman-group16-sha512", "diffie-hellman-group14-sha256",
)  # fmt: skip
MACS: Final = (
    "hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512",
)  # fmt: skip
KEYS: Final = frozenset({
    b"ssh-ed25519", b"ecdsa-sha2-nistp256", b"ecdsa-sha2-nistp384", b"ecdsa-sha2-nistp521", b"rsa-sha2-256",
    b"rsa-sha2-512", b"sk-ssh-ed25519@openssh.com", b"sk-ecdsa-sha2-nistp256@openssh.com",
})  # fmt: skip
CERTIFICATES: Final = frozenset(
    key.removesuffix(b"@openssh.com") + b"-cert-v01@openssh.com" for key in (*KEYS, b"ssh-rsa")
)
BROKEN: Final = (
    ProtocolError, asyncssh.ProtocolNotSupported, asyncssh.MACError, asyncssh.CompressionError,
    asyncssh.IllegalUserName, asyncssh.KeyExchangeFailed, asyncssh.ServiceNotAvailable,
)  # fmt: skip
"""What an honest client of today does not end by. It is told of in the log."""
CERTIFICATE: Final = b"ssh-ed25519-cert-v01@openssh.com"
_ASSET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")
_SSH_PORT: Final = 22


class HostKeyInside(SSHKeyPair):
    """The public half of a host key, or a certificate over it. The private one is the keeper's."""

    def __init__(self, blob: bytes, shown_as: bytes = b"ssh-ed25519") -> None:
        algorithm = b"ssh-ed25519"
        super().__init__(shown_as, algorithm, (algorithm,), (shown_as,), blob, None)

    def sign(self, data: bytes) -> bytes:
        raise RuntimeError("the host key is not here")


def _unheard() -> bool:
    """Of a connection that has ended nothing more is read."""
    return False


class Hooks(Protocol):
    """What a connection needs of the part. `certificates`: whether people have any."""

    certificates: bool

    @property
    def ports(self) -> bool:
        """Whether other brokers serve anything that people reach by a port."""

    async def forwarded(self, connection: GateConnection, asset: str, port: int) -> asyncssh.SSHTCPSession[bytes]:
        """A channel to an asset of another broker. Raises: ChannelOpenError."""

    def in_turn(self, act: Callable[[], None]) -> bool:
        """Does something for a stranger, now or when others had their turn. Whether it is done."""

    def exchange(self, connection: GateConnection, digest: bytes) -> None:
        """A hash is to be signed; `signed` is called with the signature."""

    async def proof(
        self, connection: GateConnection, user: str, algorithm: str, key: bytes, signature: bytes
    ) -> Verdict: ...

    async def answers(self, connection: GateConnection, user: str, answers: tuple[str, ...]) -> Verdict: ...

    def session(self, connection: GateConnection) -> asyncssh.SSHServerSession[bytes]:
        """A new channel of somebody who is signed in."""

    def nested(self, connection: GateConnection, asset: str) -> asyncssh.SSHTCPSession[bytes]:
        """A channel by which a connection to this asset comes (`ssh -J`)."""

    def farewell(self, connection: GateConnection, reason: str) -> None:
        """The connection is about to end: its sessions are told why."""

    def tunnel(self, connection: GateConnection, what: str, target: str) -> None:
        """Something that is refused was asked for."""

    def failed(self, connection: GateConnection, why: str) -> None:
        """A client broke the protocol."""

    def lost(self, connection: GateConnection) -> None:
        """The connection has ended."""

    def room(self, connection: GateConnection) -> None:
        """The client keeps up again."""

    def crowded(self) -> bool:
        """Whether there are as many connections, nested ones with them, as there may be."""


def options(blob: bytes, certificate: bytes = b"") -> asyncssh.SSHServerConnectionOptions:
    """What holds for all connections. No file is read for it, no name resolved."""
    certified = [HostKeyInside(certificate, CERTIFICATE)] if certificate else []
    return asyncssh.SSHServerConnectionOptions(
        server_host_keys=[*certified, HostKeyInside(blob)], gss_host=None, x509_trusted_certs=None,
        x509_trusted_cert_paths=[],
        host_based_auth=False, password_auth=False, kbdint_auth=True, public_key_auth=True, line_editor=False,
        encoding=None, compression_algs=None, kex_algs=KEX, encryption_algs=CIPHERS, mac_algs=MACS,
        login_timeout=LOGIN_SECONDS, keepalive_interval=KEEPALIVE_SECONDS, keepalive_count_max=4,
        x11_forwarding=False, agent_forwarding=False, rdns_lookup=False, allow_scp=False, server_version="Cofferdam",
        tcp_keepalive=False,
    )  # fmt: skip


class _Owner(asyncssh.SSHServer):
    """What asyncssh calls back."""

    def __init__(self, connection: GateConnection) -> None:
        self._connection = connection

    @unswallowed
    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.ended(exc)

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def kbdint_auth_supported(self) -> bool:
        return self._connection.prompts

    def session_requested(self) -> asyncssh.SSHServerSession[bytes]:
        return self._connection.hooks.session(self._connection)

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> Any:
        return self._connection.forward(dest_host, dest_port)


class GateConnection(Frugal, asyncssh.SSHServerConnection):
    """One client's connection. `parent`: the one within which it comes."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, said: asyncssh.SSHServerConnectionOptions, hooks: Hooks, number: int,
        source: str, port: int, notice: str = "", parent: GateConnection | None = None, asset: str = "",
    ) -> None:  # fmt: skip
        super().__init__(loop, said)
        self.hooks = hooks
        self.number = number
        self.source, self.port = source, port
        self.parent, self.nested_asset = parent, asset
        self.person = self.wants = ""
        self.known_as = ""
        self.greeting = ""
        self._notice = notice
        self._verdict = Verdict(number, "no")
        self._exchange: tuple[Any, bytes, bytes] | None = None
        self._was_lost = self._leaving = False
        self._tries = self._queued = 0
        self._pace: dict[str, Bucket] = {}
        self._protocol_factory = lambda: _Owner(self)

    @property
    def prompts(self) -> bool:
        """Whether a person is asked for a code: not within a connection whose person was asked."""
        return self.parent is None

    @property
    def channels(self) -> int:
        return len(self._channels)

    # --- a client that does not read --------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        return super().full or (self.parent is not None and self.parent.full)

    @property
    def waiting(self) -> int:
        """Bytes that were sent and that the client has not taken."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def connection_made(self, transport: Any) -> None:
        transport.set_write_buffer_limits(WIRE_BYTES, WIRE_BYTES // 2)
        super().connection_made(transport)

    def pause_writing(self) -> None:
        """asyncssh would go on. What it asks for would cost us memory as well: it is not read either."""
        self._wire_full = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._wire_full = False
        if self._transport is not None:
            self._transport.resume_reading()
        self.has_room()

    def has_room(self) -> None:
        self.hooks.room(self)

    def stall(self) -> None:
        self.drop("too much waits for a key exchange")

    # --- the host key is not here -----------------------------------------------------------------------------------

    async def _process_kexinit(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        await super()._process_kexinit(pkttype, pktid, packet)
        kex: Any = self._kex
        if kex is not None:
            kex._perform_reply = self._reply

    def _reply(self, key: Any, key_data: bytes) -> None:
        """A key exchange has all but its signature."""
        kex: Any = self._kex
        if self._exchange is not None or kex is None:
            raise ProtocolError("a second key exchange within one")
        now = int(self._loop.time() * 1e9)
        if not draw(self._pace, "", now, EXCHANGES_A_SECOND / 1e9, EXCHANGES_AT_ONCE):
            raise ProtocolError("key exchanges without end")
        shared = kex._compute_server_shared()
        digest = kex._compute_hash(key_data, shared)
        self._exchange, self._digest = (kex, shared, key_data), digest
        self.hooks.exchange(self, digest)

    @property
    def unsigned(self) -> bytes:
        """The hash of a key exchange that waits for its signature; b"" for none."""
        return self._digest if self._exchange is not None else b""

    def signed(self, signature: bytes) -> None:
        """The keeper has signed the hash."""
        exchange, self._exchange = self._exchange, None
        if exchange is None or self._was_lost or self._transport is None:
            return
        kex, shared, key_data = exchange
        kex._send_reply(key_data, signature)
        self.send_newkeys(shared, self._digest)

    # --- who it is --------------------------------------------------------------------------------------------------

    async def reload_config(self) -> None:
        """There is none; asyncssh would start a thread for it. The notice comes first of all."""
        if self._notice and self.parent is None:
            self.send_auth_banner(self._notice.strip() + "\n")
            self._notice = ""

    async def validate_public_key(self, username: str, key_data: bytes, msg: bytes, signature: bytes) -> bool:
        half = self._verdict.state == "code"
        if half and key_data[4 : 4 + int.from_bytes(key_data[:4], "big")] not in CERTIFICATES:
            return False  # a second key is no second factor
        if not msg:
            # Whether somebody has this key is told to nobody who has not signed by it.
            name = key_data[4 : 4 + int.from_bytes(key_data[:4], "big")]
            return name in KEYS or name in CERTIFICATES or name == b"ssh-rsa"
        packet = SSHPacket(msg)
        packet.get_byte()
        for _ in range(3):
            packet.get_string()
        packet.get_boolean()
        algorithm = packet.get_string()
        if (
            not (algorithm in KEYS or algorithm in CERTIFICATES)
            or len(key_data) > 16_384
            or len(signature) > 16_384
            or len(username) > 256
        ):
            return self._nonsense()
        self._verdict = await self.hooks.proof(self, username, algorithm.decode(), key_data, signature)
        return self._verdict.state != "no"

    async def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Any:
        code = ("Code: ", False)
        return "", "", "", [code] if self._verdict.state == "code" else [("Password: ", False), code]

    async def validate_kbdint_response(self, username: str, responses: Sequence[str]) -> bool:
        said = tuple(responses)
        if len(said) > 2 or any(len(one) > 1024 for one in said) or len(username) > 256:
            return self._nonsense()
        self._verdict = await self.hooks.answers(self, username, said)
        return self._verdict.state == "in"

    def _nonsense(self) -> bool:
        """What is not even asked about counts as a try."""
        self._tries += 1
        if self._tries >= TRIES_MOST:
            self.drop("too many tries")
        return False

    async def send_userauth_success(self) -> None:
        """One factor is half of it."""
        verdict = self._verdict
        if verdict.state == "in":
            self.person, self.wants, self.greeting = verdict.person, verdict.asset, verdict.text
            await super().send_userauth_success()
        elif verdict.state == "code":
            self._auth = None
            # A client that has a certificate beside its key shows it now.
            more = [b"publickey"] if self.hooks.certificates else []
            self.send_packet(MSG_USERAUTH_FAILURE, NameList([*more, b"keyboard-interactive"]), Boolean(True))
        else:
            self.send_userauth_failure(False)

    # --- what is no session -----------------------------------------------------------------------------------------

    def forward(self, host: str, port: int) -> Any:
        """A channel to somewhere: to an asset's own name it ends here, as a connection of its own."""
        if port == _SSH_PORT and self.parent is None and _ASSET.match(host) and self.channels < CHANNELS_MOST:
            if self.hooks.crowded():
                raise ChannelOpenError(OPEN_RESOURCE_SHORTAGE, "too many connections")
            return self.create_tcp_channel(None), self.hooks.nested(self, host)
        if self._may_ask(host):
            return self.create_tcp_channel(None), self._port(host, port)
        self.hooks.tunnel(self, "direct-tcpip", f"{host[:200]}:{port}")
        raise ChannelOpenError(OPEN_ADMINISTRATIVELY_PROHIBITED, "ports are not forwarded")

    def _may_ask(self, host: str) -> bool:
        """Whether the keeper may be asked for a port: not by one who came to another asset, nor from within another
        connection. It takes that for a lie of ours."""
        mine = self.parent is None and self.wants in ("", host)
        return mine and bool(_ASSET.match(host)) and self.hooks.ports and self.channels < CHANNELS_MOST

    async def _port(self, host: str, port: int) -> Any:
        """A channel to an asset that another broker serves, if the keeper lets this person have it."""
        try:
            return await self.hooks.forwarded(self, host, port)
        except ChannelOpenError:
            self.hooks.tunnel(self, "direct-tcpip", f"{host[:200]}:{port}")
            raise

    def _process_channel_open(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        kind = SSHPacket(packet.get_remaining_payload()).get_string()
        if kind not in (b"session", b"direct-tcpip"):
            self.hooks.tunnel(self, kind[:64].decode("ascii", "replace"), "")
            packet.get_string()
            number = packet.get_uint32()
            reason = "nothing but sessions"
            self.send_channel_open_failure(number, OPEN_UNKNOWN_CHANNEL_TYPE, reason, "")
            return
        super()._process_channel_open(pkttype, pktid, packet)

    def _process_session_open(self, packet: SSHPacket) -> Any:
        if self.channels >= CHANNELS_MOST:
            raise ChannelOpenError(OPEN_RESOURCE_SHORTAGE, f"more than {CHANNELS_MOST} channels")
        return super()._process_session_open(packet)

    def create_server_channel(self, *args: Any, **kwargs: Any) -> SSHServerChannel[Any]:
        chan = super().create_server_channel(*args, **kwargs)
        chan.__class__ = Channel
        return chan

    def _refuse_global(self, what: str, packet: SSHPacket, target: str) -> None:
        self.hooks.tunnel(self, what, target)
        self._report_global_response(False)

    def _process_tcpip_forward_global_request(self, packet: SSHPacket) -> None:
        host, port = packet.get_string(), packet.get_uint32()
        packet.check_end()
        self._refuse_global("tcpip-forward", packet, f"{host[:200].decode('utf-8', 'replace')}:{port}")

    def _process_streamlocal_forward_at_openssh_dot_com_global_request(self, packet: SSHPacket) -> None:
        path = packet.get_string()
        packet.check_end()
        self._refuse_global("streamlocal-forward", packet, path[:200].decode("utf-8", "replace"))

    async def create_agent_listener(self) -> bool:
        self.hooks.tunnel(self, "agent", "")
        return False

    async def attach_x11_listener(self, *args: Any, **kwargs: Any) -> str | None:
        self.hooks.tunnel(self, "x11", "")
        return None

    # asyncssh finds what takes a packet in a table of functions, not by a method's name.
    _packet_handlers = {
        **asyncssh.SSHServerConnection._packet_handlers,
        MSG_KEXINIT: _process_kexinit,
        MSG_CHANNEL_OPEN: _process_channel_open,
    }

    # --- its end ----------------------------------------------------------------------------------------------------

    def internal_error(self, exc_info: Any = None, error_logger: Any = None) -> None:
        """asyncssh or we stumbled over what a client sent: it is that client's end, and nobody else's."""
        found = (exc_info or sys.exc_info())[1]
        self.hooks.failed(self, f"{type(found).__name__}: {found}")
        if self._transport is not None:
            self._send_disconnect(asyncssh.DISC_PROTOCOL_ERROR, "what was sent makes no sense here", "")
        super().internal_error(exc_info, error_logger)

    def data_received(self, data: bytes, datatype: Any = None) -> None:
        if self._was_lost:
            return
        if (self.person or self.parent is not None) and not self._queued:
            super().data_received(data, datatype)
            return
        self._queued += 1
        if not self.hooks.in_turn(functools.partial(self._take, data)) and self._transport is not None:
            self._transport.pause_reading()  # no more of it waits in memory

    def _take(self, data: bytes) -> None:
        """A stranger's data, when it is its turn."""
        self._queued -= 1
        if self._was_lost or self._transport is None:
            return
        super().data_received(data)
        if self._transport is not None and not self._queued and not self._wire_full:
            self._transport.resume_reading()

    def _cleanup(self, exc: Exception | None) -> None:
        """Nothing is left for the collector, which would have everybody wait for what a flood of strangers leaves: all
        that is held here and holds us goes."""
        super()._cleanup(exc)
        unheard: Any = _unheard
        self._kex, self._recv_handler, self._protocol_factory = None, unheard, unheard

    def ended(self, exc: Exception | None) -> None:
        """Called once, by asyncssh."""
        self._was_lost = True
        self._exchange = None
        if isinstance(exc, BROKEN):
            self.hooks.failed(self, str(exc))
        self.hooks.lost(self)

    def drop(self, reason: str) -> None:
        """Ends it. Its sessions are told why, in their own stream: of a closed channel and a disconnection after it, an
        ssh tells the person only what it happens to read first."""
        if self._transport is None or self._leaving:
            return
        self._leaving = True
        self.hooks.farewell(self, reason)
        self.disconnect(asyncssh.DISC_BY_APPLICATION, reason)

    def _force_close(self, exc: Exception | None) -> None:
        """Nothing more is read or sent; what was said before still goes out. asyncssh would throw that away."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()
            self._loop.call_later(FAREWELL_SECONDS, transport.abort)
            self._loop.call_soon(self._cleanup, exc)


class Channel(SSHServerChannel[Any]):
    """A session's channel: its environment is not the client's to say, and what comes before the asset has let us in
    waits (asyncssh would deliver it as soon as a program was asked for)."""

    held = False
    _left = False
    """Whether the client has closed it, and waits for how the program ends."""

    def resume_reading(self) -> None:
        if not self.held:
            super().resume_reading()

    def hold(self, held: bool) -> None:
        """Delivers nothing from now on, or goes on."""
        self.held = held
        if held:
            self.pause_reading()
        else:
            self.resume_reading()

    def cut(self) -> None:
        """Ends it, if it has not ended by itself: a client that gives no window cannot put that off."""
        if self._send_state == "close_pending":
            self._close_send()

    def _process_close(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        """The client is done: what it sent and nobody has taken is not waited for.

        But an OpenSSH that shares its connection (ControlMaster, as Ansible has it) closes as soon as neither side has
        more to say, and waits for how the program ended: its own server tells it that before it closes as well. The
        program may take its time over that, and our recording too."""
        if self._left:
            raise ProtocolError("a channel closed twice")
        if self._send_state == "eof" and self._recv_state in ("eof_pending", "eof"):
            packet.check_end()
            self._left = True
            return
        super()._process_close(pkttype, pktid, packet)
        self._discard_recv()

    def _close_send(self) -> None:
        super()._close_send()
        if self._left:
            self._recv_state = "close_pending"

    _packet_handlers = {**SSHServerChannel._packet_handlers, MSG_CHANNEL_CLOSE: _process_close}

    def _process_env_request(self, packet: SSHPacket) -> bool:
        packet.get_string()
        packet.get_string()
        packet.check_end()
        return False


class ChannelTransport(asyncio.Transport):
    """A connection within a channel of another: what is written goes into the channel."""

    def __init__(self, chan: SSHTCPChannel[bytes], source: tuple[str, int]) -> None:
        super().__init__({"peername": source, "sockname": ("", 0)})
        self._chan = chan
        self._closing = False

    def write(self, data: Any) -> None:
        if not self._closing:
            self._chan.write(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self._closing

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._chan.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._chan.get_write_buffer_size()

    def pause_reading(self) -> None:
        self._chan.pause_reading()

    def resume_reading(self) -> None:
        self._chan.resume_reading()

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._chan.close()

    def abort(self) -> None:
        """asyncssh's own would do nothing after a close that waits for a window."""
        self._closing = True
        self._chan.abort()
        if self._chan._send_state == "close_pending":
            self._chan._close_send()
