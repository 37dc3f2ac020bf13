"""Who knocks at the jump server's door without meaning it, assets that are none, and what nobody honest asks of files:
others notice nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import asyncssh
import pytest

from tests.brokers.jump.site import ELSEWHERE, THERE, JumpSite, Sshd, stops
from tests.gate.plant import LOADED, QuickGate, events
from tests.ports import held_ports
from tests.waiting import PATIENT, eventually

pytestmark = pytest.mark.skipif(not THERE, reason="there is no OpenSSH (Debian: openssh-server, openssh-client)")

SFTP_MOST = 256
"""Open files of one session (brokers.jump.inner_files)."""


class Lighter(QuickGate):
    """Dozens of passwords are looked at here, by which nobody gets in; what one costs is access.passwords' matter."""

    loaded = f"""{LOADED}
import argon2
argon2.PasswordHasher.__init__.__defaults__ = (1, 8, *argon2.PasswordHasher.__init__.__defaults__[2:])
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JumpSite]:
    (port,) = held_ports(1)
    made = JumpSite(
        tmp_path_factory.mktemp("jump"),
        assets=f"loud: {{zone: plant, address: 127.0.0.1, port: {port}, protocol: ssh}}",
        rules="- {who: {group: staff}, asset: loud, as: LOGIN, do: shell}", free="certificates: 8 h",
        gate=Lighter,
    )  # fmt: skip
    made.ports |= {"loud": port}
    with made.running():
        yield made


@pytest.fixture
def bystander(site: JumpSite) -> Iterator[None]:
    """Somebody who is in, and whose keys are answered all the while."""
    process = site.begins("tech", "station", "cat")
    assert process.stdin is not None and process.stdout is not None
    over = threading.Event()
    echoes = 0

    def types() -> None:
        nonlocal echoes
        while not over.is_set():
            os.write(process.stdin.fileno(), b"x")  # type: ignore[union-attr]
            assert os.read(process.stdout.fileno(), 1) == b"x"  # type: ignore[union-attr]
            echoes += 1

    thread = threading.Thread(target=types)
    thread.start()
    try:
        yield
        before = echoes
        eventually(lambda: echoes > before)
    finally:
        over.set()
        thread.join(PATIENT)
        stops(process)


def knock(site: JumpSite) -> socket.socket:
    return socket.create_connection(("127.0.0.1", site.door), PATIENT)


def ended(sock: socket.socket) -> bytes:
    """All that is said before the gate closes."""
    said = b""
    with contextlib.suppress(ConnectionError):
        while piece := sock.recv(65_536):
            said += piece
    return said


def test_banners_that_are_none(site: JumpSite, bystander: None) -> None:
    for banner in (b"x" * 1_000_000, b"x\r\n" * 300_000, b"SSH-1.5-old\r\n", b"SSH-2.0-" + b"x" * 70_000 + b"\r\n",
                   b"GET / HTTP/1.0\r\n\r\n", b"\0" * 100_000):  # fmt: skip
        with knock(site) as sock:
            with contextlib.suppress(ConnectionError):
                sock.sendall(banner)
            try:
                assert len(ended(sock)) < 10_000, banner[:20]
            except TimeoutError:
                raise AssertionError(banner[:20]) from None


@pytest.mark.parametrize("count", [1_500, pytest.param(10_000, marks=pytest.mark.soak)])
def test_thousands_of_connections(site: JumpSite, bystander: None, count: int) -> None:
    """62443-3-3 SR 7.1: of one address so many at a time, and no more; and none of it stays."""
    for _ in range(count // 250):
        held: list[socket.socket] = []
        for _ in range(250):
            with contextlib.suppress(OSError):
                held.append(knock(site))
        for sock in held:
            sock.close()
    eventually(lambda: "unsigned_of_address" in {each["limit"] for each in events(site.state, "limit-hit")})
    eventually(lambda: site.ssh("tech", "station", "echo in").stdout == b"in\n")


@pytest.mark.soak
@pytest.mark.parametrize("way", ["nothing", "a letter a second", "a banner and nothing", "half a key exchange"])
def test_who_never_comes_to_an_end(site: JumpSite, bystander: None, way: str) -> None:
    """Closed when the time to sign in is over, which takes two minutes."""
    with knock(site) as sock:
        sock.settimeout(1)
        if way != "nothing":
            sock.sendall(b"S" if way == "a letter a second" else b"SSH-2.0-x\r\n")
        if way == "half a key exchange":
            sock.sendall(b"\0\0\x40\x0c\x0a\x14" + bytes(100))
        began = time.monotonic()
        while time.monotonic() - began < 150:
            try:
                if not sock.recv(65_536):
                    return
                if way == "a letter a second":
                    sock.sendall(b"x")
            except TimeoutError:
                if way == "a letter a second":
                    sock.sendall(b"x")
            except ConnectionError:
                return
    raise AssertionError("it is still open")


def test_more_of_sftp_than_there_is(site: JumpSite, bystander: None) -> None:
    """Files without end, reads of nothing and of all, handles that are closed or of another session."""
    (site.files / "there").write_bytes(b"0123456789")
    (site.folder / "tech-cert.pub").write_bytes(site.ssh("tech", "tech", "certificate").stdout)

    async def main() -> None:
        key = asyncssh.import_private_key((site.folder / "tech").read_bytes())
        certificate = asyncssh.import_certificate((site.folder / "tech-cert.pub").read_bytes())
        handlers = []
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(2):
                connection = await stack.enter_async_context(
                    asyncssh.connect(
                        "127.0.0.1", site.door, username="station", client_keys=[key, (key, certificate)],
                        known_hosts=None, config=None, agent_path=None,
                    )
                )  # fmt: skip
                client = await stack.enter_async_context(connection.start_sftp_client())
                handlers.append(client._handler)
            one, other = handlers
            path = str(site.files / "there").encode()
            opened = [await one.open(path, 1, asyncssh.SFTPAttrs()) for _ in range(SFTP_MOST)]
            with pytest.raises(asyncssh.SFTPFailure, match="more than 256 open files"):
                await one.open(path, 1, asyncssh.SFTPAttrs())
            with pytest.raises(asyncssh.SFTPEOFError):
                await one.read(opened[0], 0, 0)
            assert (await one.read(opened[0], 0, 0xFFFF_FFFF))[0] == b"0123456789"
            with pytest.raises(asyncssh.SFTPError):
                await one.read(opened[0], 1 << 63, 9)
            with pytest.raises(asyncssh.SFTPError):
                await other.read(opened[5], 0, 9)
            with pytest.raises(asyncssh.SFTPError):
                await one.write(opened[0], 0, b"x")
            await one.close(opened[0])
            for act in (one.read(opened[0], 0, 9), one.write(opened[0], 0, b"x"), one.close(opened[0])):
                with pytest.raises(asyncssh.SFTPError):
                    await act
            assert (await one.read(opened[1], 2, 3))[0] == b"234"

    asyncio.run(asyncio.wait_for(main(), PATIENT))
    assert (site.files / "there").read_bytes() == b"0123456789"


class Loud:
    """An asset that says this, and no more."""

    def __init__(self, port: int, says: bytes) -> None:
        self._sock = socket.create_server(("127.0.0.1", port))
        self._says = says
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._sock.accept()
                with client, contextlib.suppress(OSError):
                    client.sendall(self._says)
                    client.shutdown(socket.SHUT_WR)
                    while client.recv(65_536):
                        pass

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self._thread.join(PATIENT)


@pytest.mark.parametrize(
    "says",
    [b"", b"x" * 2_000_000, b"x\r\n" * 500_000, b"SSH-1.5-old\r\n", b"SSH-2.0-x\r\n\x7f\xff\xff\xff" + bytes(100)],
    ids=["nothing", "a banner of 2 MB", "lines without end", "SSH 1", "a packet of 2 GB"],
)
def test_assets_that_do_not_speak_ssh(site: JumpSite, bystander: None, says: bytes) -> None:
    """Each ends its own session, with a sentence."""
    site.jump("credential", "loud", site.login, "--new-key")
    site.jump("host-key", "loud", "--file", str(site.folder / "station.pub"), "--yes")
    loud = Loud(site.ports["loud"], says)
    try:
        done = site.ssh("tech", "loud", more=("-tt",))
    finally:
        loud.close()
    assert done.returncode == 1, done
    assert b"[gate] loud" in done.stderr + done.stdout


def test_an_asset_with_a_key_of_another_kind(site: JumpSite, bystander: None) -> None:
    """62443-3-3 SR 1.2: as if it were another asset."""
    real = asyncssh.generate_private_key("ssh-ed25519")
    (site.folder / "loud.pub").write_bytes(real.export_public_key())
    site.jump("credential", "loud", site.login, "--new-key")
    site.jump("host-key", "loud", "--file", str(site.folder / "loud.pub"), "--yes")
    sshd = Sshd(site.folder / "other", site.ports["loud"], kind="ecdsa")
    try:
        done = site.ssh("tech", "loud", more=("-tt",))
    finally:
        sshd.close()
    assert b"shows another host key than was accepted" in done.stderr + done.stdout
    eventually(lambda: [each["asset"] for each in events(site.state, "host-key-refused")] == ["loud"])


# --- last, since what fails here makes whoever comes from this address wait ---


async def signs_in(site: JumpSite, user: str, password: str = "", source: str = "127.0.0.1") -> str:
    """What becomes of a client of asyncssh that shows a password, and whose name is sent as it is."""

    class Typist(asyncssh.SSHClient):
        def connection_made(self, conn: Any) -> None:
            conn._username = user

        def kbdint_auth_requested(self) -> str:
            return ""

        def kbdint_challenge_received(self, name: str, instructions: str, lang: str, prompts: Any) -> list[str]:
            return [password] * len(prompts)

    try:
        connection, _ = await asyncssh.create_connection(
            Typist, "127.0.0.1", site.door, username="x", client_keys=[asyncssh.generate_private_key("ssh-ed25519")],
            known_hosts=None, config=None, agent_path=None, local_addr=(source, 0),
        )  # fmt: skip
    except (asyncssh.Error, OSError) as error:
        return type(error).__name__
    connection.abort()
    return "in"


NAMES = (
    "tech", "nobody", "x" * 1_000, "x" * 10_000, "%", "%%", "tech%", "%station",
    "tech%nothing", "tech%station%station", " tech", "tech;id", "../tech", "root", "tech\0", "\0", "tech%station\0",
    "tech\u202e", "\u200ftech", "tech\u00ad", "te\nch", "\x1b]52;c;AAAA\x07", "ｔｅｃｈ",
)  # fmt: skip


def test_names_that_nobody_has_are_refused_alike(site: JumpSite, bystander: None) -> None:
    """62443-3-3 SR 1.10: who is known and who is not is told to nobody."""

    async def main() -> dict[str, str]:
        return {name: await signs_in(site, name, "correct horse battery") for name in NAMES}

    found = asyncio.run(main())
    refused = {"PermissionDenied", "ConnectionLost", "ProtocolError", "DisconnectError"}
    # What is none is told to be none (RFC 4250, 4.2.2; RFC 4013), which says nothing of anybody.
    none = {name for name, what in found.items() if what == "IllegalUserName"}
    assert {what for name, what in found.items() if name not in none} <= refused
    assert none == {name for name in NAMES if len(name) > 1_000 or set(name) & set("\0\n\x1b\u200f\u202e")}
    asyncio.run(signs_in(site, "tech\0", source=ELSEWHERE))
    said = [ELSEWHERE, "broken_protocol", "Prohibited character: '\\x00'"]
    eventually(
        lambda: said in [[each["source"], each["limit"], each["detail"]] for each in events(site.state, "limit-hit")]
    )
    eventually(lambda: "nobody" in {each["user"] for each in events(site.state, "sign-in-refused")})
