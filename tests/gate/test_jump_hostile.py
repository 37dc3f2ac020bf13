"""The jump server between assets and clients that were written for the purpose: what one of them does is its own
session's end, and nobody else's."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tests.brokers.jump.hostile_asset import ANSWERS, FLOOD, STRING, UINT32, Asset
from tests.brokers.jump.site import ELSEWHERE, FARTHER, FARTHEST, THERE, JumpSite, ends, stops
from tests.gate.plant import events
from tests.ports import held_ports
from tests.verbs import cli
from tests.waiting import PATIENT, eventually

pytestmark = pytest.mark.skipif(not THERE, reason="there is no OpenSSH (Debian: openssh-server, openssh-client)")
RULES = """
      - {who: {group: staff}, asset: second, as: LOGIN, do: [shell, exec, up, down], commands: ["echo *"],
          paths: ["/**"]}
      - {who: {group: movers}, asset: station, as: LOGIN, do: up, paths: ["FILES/drop/**", "FILES/share/**"]}
      - {who: {group: movers}, asset: station, as: LOGIN, do: down, paths: ["FILES/share/**"]}
"""


class Hostile(JumpSite):
    asset: Asset


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hostile]:
    made = Hostile(tmp_path_factory.mktemp("jump"), rules=RULES)
    try:
        made.set_up()
        made.asset = Asset(made.ports["second"])
        made.jump("credential", "second", made.login, "--new-key")
        (made.folder / "second.pub").write_bytes(made.asset.key.export_public_key())
        made.jump("host-key", "second", "--file", str(made.folder / "second.pub"), "--yes")
        yield made
        assert made.gate.stop() == 0, made.gate.said()
        assert "Traceback" not in made.gate.said()
    finally:
        made.close()
        if hasattr(made, "asset"):
            made.asset.close()


@pytest.fixture
def bystander(site: Hostile) -> Iterator[subprocess.Popen[bytes]]:
    """Somebody at another asset, who notices nothing."""
    process = site.start("tech", "station", "cat")
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        eventually(lambda: any(one["asset"] == "station" for one in site.sessions()))
        yield process
        process.stdin.write(b"still here\n")
        process.stdin.flush()
        assert process.stdout.read(11) == b"still here\n"
    finally:
        stops(process)


def sftp(site: JumpSite, who: str, user: str, *lines: str) -> str:
    batch = site.folder / "batch"
    batch.write_text("\n".join(lines) + "\n")
    command = ["sftp", "-o", "BatchMode=no", *site.options(who), "-P", str(site.door), "-b", str(batch)]
    done = subprocess.run(
        [*command, f"{user}@127.0.0.1"], stdin=subprocess.DEVNULL, capture_output=True, env=site.environment(who),
        timeout=PATIENT, check=False,
    )  # fmt: skip
    return (done.stdout + done.stderr).decode(errors="replace")


def test_a_long_farewell_of_an_asset(site: Hostile, bystander: object) -> None:
    before = len(events(site.state, "access-ended"))
    done = site.ssh("tech", "second", "echo disconnect")
    assert (done.returncode, b"the asset's end is gone" in done.stderr) == (255, True), done.stderr
    eventually(lambda: len(events(site.state, "access-ended")) > before)
    assert len(events(site.state, "access-ended")[-1]["reason"]) <= 512


def test_an_end_without_a_status_is_no_success(site: Hostile) -> None:
    assert site.ssh("tech", "second", "echo gone").returncode == 255


@pytest.mark.parametrize(
    ("what", "code", "said"),
    [
        ("no-end-of-data", 0, b"said\n"), ("late-status", 255, b""), ("unasked", 255, b""),
        ("nobody's-channel", 255, b""),
    ],
)  # fmt: skip
def test_how_no_honest_asset_ends(site: Hostile, bystander: object, what: str, code: int, said: bytes) -> None:
    """An end without an end of data is one; what has no place in the channel is the session's end."""
    done = site.ssh("tech", "second", f"echo {what}")
    assert (done.returncode, done.stdout) == (code, said), done.stderr
    eventually(lambda: [one["asset"] for one in site.sessions()] == ["station"])


def test_names_that_no_file_has(site: Hostile) -> None:
    """An asset's list leads nobody's client out of its own folder."""
    site.asset.files = True
    said = sftp(site, "tech", "second", "ls -1a /evil", f"lcd {site.folder}", "get /evil/*")
    site.asset.files = False
    shown = [line for line in said.splitlines() if line.startswith(("/evil", "good"))]
    assert [line.strip() for line in shown] == ["/evil/good"], said
    assert not (site.folder / "passwd").exists()


@pytest.mark.parametrize(("folder", "says"), [("long", ""), ("endless", "Failure")])
def test_folders_that_no_honest_asset_has(site: Hostile, bystander: object, folder: str, says: str) -> None:
    site.asset.files = True
    said = sftp(site, "tech", "second", f"ls /{folder}")
    site.asset.files = False
    assert says in said
    assert "nnnn" not in said


def test_a_program_that_says_no_more_is_killed_all_the_same(site: Hostile, bystander: object) -> None:
    process = site.start("tech", "second", "echo silent")
    eventually(lambda: any(one["asset"] == "second" for one in site.sessions()))
    (number,) = [one["number"] for one in site.sessions() if one["asset"] == "second"]
    site.jump("kill", str(number), "--bar", "none")
    ends(process)
    assert process.returncode == 1


def resident(pid: int) -> int:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("nested", [False, True], ids=["plain", "nested"])
def test_a_client_with_a_large_window_that_does_not_read(site: Hostile, bystander: object, nested: bool) -> None:
    """A window is what a client says. What it takes from its socket is what counts."""

    async def attack() -> None:
        outside = await site.client("tech" if nested else "second")
        connection = outside
        if nested:
            connection = await outside.connect_ssh(
                "second", 22, username="tech", client_keys=[str(site.folder / "tech")], known_hosts=None, config=None,
                agent_path=None,
            )  # fmt: skip
        transport: Any = outside._transport
        await _floods(site, connection, transport.pause_reading)
        transport.abort()

    asyncio.run(asyncio.wait_for(attack(), PATIENT))
    eventually(lambda: [one["asset"] for one in site.sessions()] == ["station"])


async def _floods(site: Hostile, connection: Any, then: Callable[[], None]) -> None:
    """The asset says much to a client with the largest window, who does something then: the part keeps little of it,
    and the asset comes to a halt before its end."""
    site.asset.sent = 0
    before = resident(site.gate.pids()["outer"])
    await connection.create_session(asyncssh.SSHClientSession[bytes], "echo flood", encoding=None, window=(1 << 32) - 1)
    then()
    unchanged, last = 0, -1
    while unchanged < 30:
        await asyncio.sleep(0.1)
        unchanged, last = (unchanged + 1, last) if site.asset.sent == last > 0 else (0, site.asset.sent)
    assert last < FLOOD
    assert resident(site.gate.pids()["outer"]) - before < 40_000_000


async def _ignored(*_: Any) -> None:
    """A packet, and what is not done about it."""


def test_a_client_that_begins_a_key_exchange_and_does_not_go_on(site: Hostile, bystander: object) -> None:
    """Until it ends nothing is sent; what was to be sent lay in memory, as much as the window said."""

    async def attack() -> None:
        connection: Any = await site.client("second")
        connection._packet_handlers = {**connection._packet_handlers, 20: _ignored}

        def begin() -> None:
            connection._kexinit_sent = True
            connection._send_kexinit()

        await _floods(site, connection, begin)
        connection.abort()

    asyncio.run(asyncio.wait_for(attack(), PATIENT))
    eventually(lambda: [one["asset"] for one in site.sessions()] == ["station"])


def test_a_client_that_asks_without_end_within_a_key_exchange(site: Hostile, bystander: object) -> None:
    """What it would have been answered lay in memory."""

    async def attack() -> None:
        connection: Any = await site.client("second")
        connection._packet_handlers = {**connection._packet_handlers, 20: _ignored}
        connection._kexinit_sent = True
        connection._send_kexinit()
        connection._kex_complete = True  # it goes on as if nothing were
        while not connection.is_closed():
            for _ in range(100):
                raw(connection, 80, STRING(b"x@example.org"), b"\1")
            await asyncio.sleep(0)
        await connection.wait_closed()

    before = resident(site.gate.pids()["outer"])
    asyncio.run(asyncio.wait_for(attack(), PATIENT))
    assert resident(site.gate.pids()["outer"]) - before < 40_000_000


def test_a_client_that_gives_no_window(site: Hostile, bystander: object) -> None:
    """Nothing of its program is shown, little is asked of the asset, and it is killed all the same."""
    site.asset.sent = 0

    async def attack() -> None:
        connection = await site.client("second")
        chan, _ = await connection.create_session(
            asyncssh.SSHClientSession[bytes], "echo flood", encoding=None, window=0
        )
        found: list[Any] = []
        while not found:
            found = [one for one in await asyncio.to_thread(site.sessions) if one["asset"] == "second"]
        await asyncio.to_thread(site.jump, "kill", str(found[0]["number"]), "--bar", "none")
        while not chan.is_closing():  # noqa: ASYNC110 - asyncssh has no event for it
            await asyncio.sleep(0.05)
        connection.abort()

    asyncio.run(asyncio.wait_for(attack(), PATIENT))
    assert site.asset.sent < FLOOD
    eventually(lambda: [one["asset"] for one in site.sessions()] == ["station"])


def test_a_client_that_keeps_to_no_window(site: Hostile, bystander: object) -> None:
    """It says more than it was given room for, to a program that reads nothing: its connection ends."""

    async def attack() -> int:
        connection: Any = await site.client("second", FARTHER)
        chan: Any = await connection.create_session(asyncssh.SSHClientSession, "echo deaf", encoding=None)
        channel: Any = chan[0]
        sent = 0
        while not connection.is_closed() and sent < FLOOD:
            raw(connection, 94, UINT32(channel._send_chan), STRING(bytes(32_000)))
            sent += 32_000
            await asyncio.sleep(0)
        await connection.wait_closed()
        return sent

    before = resident(site.gate.pids()["outer"])
    assert asyncio.run(asyncio.wait_for(attack(), PATIENT)) < FLOOD
    assert resident(site.gate.pids()["outer"]) - before < 40_000_000
    hits = [("broken_protocol", "Window exceeded")]
    eventually(
        lambda: [(e["limit"], e["detail"]) for e in events(site.state, "limit-hit") if e["source"] == FARTHER] == hits
    )


def test_many_files_that_are_written_at_once(site: Hostile, bystander: object) -> None:
    async def attack() -> list[str]:
        connection = await site.client("station")
        refused = []
        client = await connection.start_sftp_client()
        for number in range(40):
            try:
                await client.open(f"{site.files}/many-{number}", "wb")
            except asyncssh.SFTPError as error:
                refused.append(str(error))
        connection.abort()
        return refused

    refused = asyncio.run(attack())
    assert len(refused) == 8
    assert "more than 32 files are written" in refused[0]
    # What was not finished is taken away at the asset, too.
    eventually(lambda: not [path for path in site.files.iterdir() if "many" in path.name])


def test_a_move_opens_nothing(site: Hostile) -> None:
    """What may be written and not read is not moved to where it may be read."""
    site.person("mover", "movers")
    for name in ("drop", "share"):
        shutil.rmtree(site.files / name, ignore_errors=True)  # what others have put there
    for name in ("drop", "share", "drop/folder"):
        (site.files / name).mkdir()
    for name in ("drop/secret", "drop/folder/secret", "share/known"):
        (site.files / name).write_text("secret")
    at = site.files
    said = sftp(
        site, "mover", "station", f"-rename {at}/drop/secret {at}/share/secret",
        f"-rename {at}/drop/folder {at}/share/folder", f"-rename {at}/share/known {at}/drop/known",
        f"-rename {at}/drop/secret {at}/drop/other", f"-rename {at}/drop/folder {at}/drop/second",
    )  # fmt: skip
    assert sorted(path.name for path in (at / "share").iterdir()) == []
    assert sorted(path.name for path in (at / "drop").iterdir()) == ["known", "other", "second"], said


def test_a_name_with_a_backslash_leads_nowhere(site: Hostile) -> None:
    """Windows has it between folders: what is written beside the way would be anywhere."""
    site.person("windows", "movers")
    (site.files / "drop").mkdir(exist_ok=True)
    (site.folder / "tool").write_text("x")
    at = f"{site.files}/drop"
    said = sftp(
        site, "windows", "station", rf'-put {site.folder}/tool "{at}/a\\..\\..\\tool"',
        f"put {site.folder}/tool {at}/tool",
        rf'-rename {at}/tool "{at}/..\\tool"', rf'-mkdir "{at}/..\\folder"', rf'-rm "{at}/..\\station"',
    )  # fmt: skip
    assert said.count("a name with a backslash") >= 4 or said.lower().count("denied") >= 4, said
    assert not [path for path in site.files.rglob("*") if "\\" in path.name]


def test_what_was_handed_out_is_told_in_whatever_order(site: Hostile) -> None:
    (site.files / "sparse").write_bytes(bytes(100_000))

    async def attack() -> None:
        connection = await site.client("station")
        client = await connection.start_sftp_client()
        file = await client.open(f"{site.files}/sparse", "rb", block_size=0)
        assert len(await file.read(40_000, 60_000)) == 40_000
        assert len(await file.read(40_000, 60_000)) == 40_000
        await file.close()
        connection.close()

    asyncio.run(attack())

    def found() -> list[dict[str, Any]]:
        return [each for each in events(site.state, "asset-file-passed") if each["path"].endswith("/sparse")]

    eventually(lambda: any(each["way"] == "down" for each in found()))
    opened, told = found()
    assert (opened["way"], opened["size"]) == ("open", 100_000)
    assert (told["way"], told["size"], told["sha256"]) == ("down", 80_000, "")


def test_links_in_the_place_of_folders(site: Hostile) -> None:
    """A folder that becomes a link between opening and closing: what was written does not go to where that leads."""
    for name in ("race", "elsewhere"):
        (site.files / name).mkdir()
    outside = site.folder / "outside"
    outside.mkdir()

    async def attack() -> str:
        connection = await site.client("station")
        client = await connection.start_sftp_client()
        file = await client.open(f"{site.files}/race/new", "wb")
        await file.write(b"x")
        (site.files / "race").rename(site.files / "was")
        (site.files / "race").symlink_to(outside)
        try:
            await file.close()
        except asyncssh.SFTPError as error:
            return str(error)
        finally:
            connection.close()
        return ""

    assert asyncio.run(attack())
    assert not (outside / "new").exists()


def test_odd_names(site: Hostile) -> None:
    async def attack() -> None:
        connection = await site.client("station")
        client = await connection.start_sftp_client()
        for name in ("a\nb", "中" * 80, "x" * 250, "-rf", "\u202egpj.exe"):
            async with client.open(f"{site.files}/{name}", "wb") as file:
                await file.write(b"x")
            assert (site.files / name).read_bytes() == b"x"
        for name in ("..", ".", "../x", "y" * 256):
            with pytest.raises(asyncssh.SFTPError):
                await client.open(f"{site.files}/{name}", "wb")
        connection.close()

    asyncio.run(attack())
    wanted = {"/a\nb", "/\u202egpj.exe"}
    eventually(
        lambda: wanted <= {"/" + each["path"].rpartition("/")[2] for each in events(site.state, "asset-file-passed")}
    )
    _, out, _ = cli("audit", "show", "--kind", "asset-file-passed", "--state", site.state)
    assert "\\u202egpj.exe" in out and "\u202e" not in out


@pytest.mark.parametrize(
    ("way", "what"),
    [
        (("-L", "{port}:127.0.0.1:1"), "direct-tcpip"),
        (("-D", "{port}"), "direct-tcpip"),
        (("-A",), "agent"),
        (("-X",), "x11"),
        (("-w", "any:any"), "tun@openssh.com"),
    ],
    ids=["L", "D", "agent", "X11", "tun"],
)
def test_no_hidden_tunnel(site: Hostile, way: tuple[str, ...], what: str) -> None:
    """CIP-005-7 R2.1: OpenSSH's own ways round, each refused and recorded; the session beside them goes on."""
    (port,) = held_ports(1)
    before = len(events(site.state, "tunnel-refused"))
    environment = site.environment("tech")
    agent = None
    if what == "agent":
        agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(site.folder / "agent")], stdout=subprocess.DEVNULL)
        eventually(lambda: (site.folder / "agent").exists())
        environment["SSH_AUTH_SOCK"] = str(site.folder / "agent")
    if what == "x11":
        environment["DISPLAY"] = "127.0.0.1:9"
    words = [word.format(port=port) for word in way]
    command = ["ssh", *site.options("tech"), *words, "-p", str(site.door), "station@127.0.0.1", "cat"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    )
    try:
        eventually(lambda: bool(site.sessions()))
        if what == "direct-tcpip":
            eventually(lambda: _knocks(port, socks=way[0] == "-D"))
        eventually(lambda: len(events(site.state, "tunnel-refused")) > before)
        assert what in {each["what"] for each in events(site.state, "tunnel-refused")[before:]}
    finally:
        stops(process)
        if agent is not None:
            agent.terminate()
            agent.wait(PATIENT)
    eventually(lambda: not site.sessions())


def _knocks(port: int, *, socks: bool) -> bool:
    """Asks for a way through: nothing comes back but the end."""
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), PATIENT) as sock:
        if socks:
            sock.sendall(b"\x05\x01\x00")
            assert sock.recv(2) == b"\x05\x00"
            sock.sendall(b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x01")
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(10)[:2] in (b"", b"\x05\x01", b"\x05\x02", b"\x05\x05")
        return True
    return False


def test_whoever_looks_at_a_recording_is_in_the_log(site: Hostile) -> None:
    """From wherever in it they begin to look."""
    from cofferdam.gate.client import ask

    site.ssh("tech", "station", "echo shown")
    before = len(events(site.state, "recording-used"))
    newest = site.newest()["name"]
    arguments = {"name": newest, "offset": 1}
    for _ in range(2):
        ask(
            site.state, "ask-part", broker="jump", part="archivist", verb="recording-read", arguments=arguments, crew=""
        )
    eventually(lambda: len(events(site.state, "recording-used")) == before + 1)


def test_more_than_anybody_needs(site: Hostile, bystander: object) -> None:
    """Terminals of any size, storms of sizes, environments, channels by the hundred: clamped or refused, and over."""

    async def main() -> tuple[int, int]:
        connection = await site.client("second")
        try:
            process = await connection.create_process(
                "echo silent", term_type="x" * 5_000, term_size=(65_535, 65_535), env={"LD_PRELOAD": "/tmp/evil.so"},
                encoding=None,
            )  # fmt: skip
            for size in range(2_000):
                process.change_terminal_size(size, 65_535 - size)
            process.send_signal("NOSUCH")
            process.send_break(1_000)
            assert b"Traceback" not in await process.stdout.read()  # the asset says no more, and stays
            asked = [connection.create_session(asyncssh.SSHClientSession, "echo silent") for _ in range(1_000)]
            found = await asyncio.gather(*asked, return_exceptions=True)
            refused = sum(isinstance(one, asyncssh.ChannelOpenError) for one in found)
            return len(found) - refused, refused
        finally:
            connection.abort()
            await connection.wait_closed()

    before = resident(site.gate.pids()["outer"])
    opened, refused = asyncio.run(asyncio.wait_for(main(), PATIENT))
    assert opened == 9
    assert refused == 991
    assert resident(site.gate.pids()["outer"]) - before < 40_000_000
    eventually(lambda: not [one for one in site.sessions() if one["asset"] == "second"])


# --- clients that break SSH after they have signed in ---------------------------------------------------------------

ONE = UINT32(1 << 20) + UINT32(32_768)
"""A window, and the largest packet."""


def raw(connection: Any, kind: int, *body: bytes) -> Any:
    """A packet that no honest client sends."""
    asyncssh.SSHClientConnection.send_packet(connection, kind, *body)
    return connection


def opened(kind: bytes) -> Any:
    return lambda c: raw(c, 90, STRING(kind), UINT32(77), ONE)


def asked(*kinds: bytes, body: bytes = b"") -> Any:
    """Requests on channel 0, which is open at the gate."""

    def send(connection: Any) -> None:
        for kind in kinds:
            raw(connection, 98, UINT32(0), STRING(kind), b"\0", body)

    return send


BROKEN: dict[str, tuple[Any, bool | None]] = {
    # (what is sent, whether the connection goes on; None: the answer ends the client of this test)
    "a message that nobody knows": (lambda c: raw(c, 200), True),
    "a request that nobody knows": (lambda c: raw(c, 80, STRING(b"x@example.org"), b"\0"), True),
    "a channel that nobody knows": (opened(b"x@example.org"), None),
    "a session's channel without its end": (lambda c: raw(c, 90, STRING(b"session"), UINT32(1)), False),
    "requests that nobody knows": (asked(b"x@example.org", b"xon-xoff", b"exit-status", b"auth-agent"), True),
    "an environment": (asked(b"env", body=STRING(b"LD_PRELOAD") + STRING(b"/tmp/x.so")), True),
    "a subsystem that nobody knows": (asked(b"subsystem", body=STRING(b"netconf")), True),
    "a terminal within a session": (asked(b"pty-req", body=b"\0" * 10), False),
    "two programs in one session": (asked(b"shell", b"shell"), True),
    "data of a channel that is none": (lambda c: raw(c, 94, UINT32(4_000), STRING(b"x")), False),
    "data that nobody wants": (lambda c: [raw(c, 94, UINT32(0), STRING(bytes(32_000))) for _ in range(200)], True),
    "data after the end": (lambda c: (raw(c, 96, UINT32(0)), raw(c, 94, UINT32(0), STRING(b"x"))), False),
    "two ends": (lambda c: (raw(c, 97, UINT32(0)), raw(c, 97, UINT32(0))), False),
    "a window beyond all": (lambda c: [raw(c, 93, UINT32(0), UINT32((1 << 32) - 1)) for _ in range(3)], True),
    "a second sign-in": (
        lambda c: raw(c, 50, STRING(b"lead"), STRING(b"ssh-connection"), STRING(b"none")), False,
    ),
    "another service": (lambda c: raw(c, 5, STRING(b"ssh-userauth")), False),
    "keys that were not exchanged": (lambda c: raw(c, 21), False),
    "half a key exchange": (lambda c: raw(c, 30, STRING(bytes(32))), False),
    "a key exchange that is none": (lambda c: raw(c, 20, b"\0" * 30), False),
    "an open that was never asked for": (lambda c: raw(c, 91, UINT32(9), UINT32(9), ONE), False),
    "bytes that decipher to nothing": (lambda c: c._transport.write(bytes(100)), False),
    "a disconnection with 20 kB": (lambda c: raw(c, 1, UINT32(2), STRING(b"x" * 20_000), STRING(b"")), False),
}  # fmt: skip


def test_clients_that_break_ssh(site: Hostile, bystander: object) -> None:
    """Each is answered as the standard has it, or its connection ends, and nobody else's."""

    async def one(what: str) -> bool:
        connection = await site.client("tech")  # at the menu: channel 0 is its prompt
        await connection.create_session(asyncssh.SSHClientSession, encoding=None)
        act, _ = BROKEN[what]
        act(connection)
        try:
            async with asyncio.timeout(PATIENT):
                done = await connection.run("list", check=False)
                return "station" in str(done.stdout)
        except (asyncssh.Error, OSError, ValueError):
            return False
        finally:
            connection.abort()

    async def main() -> dict[str, bool]:
        return {what: await one(what) for what in BROKEN}

    found = asyncio.run(main())
    assert found == {what: bool(goes_on) for what, (_, goes_on) in BROKEN.items()}
    eventually(lambda: "x@example.org" in {each["what"] for each in events(site.state, "tunnel-refused")})


def test_key_exchanges_without_end(site: Hostile, bystander: object) -> None:
    """Some are had at once, as of a client that is set to have new keys often; then it is the connection's end."""

    async def main() -> int:
        connection: Any = await site.client("tech", ELSEWHERE)
        count = 0
        try:
            while count < 200:
                connection._kexinit_sent = True
                connection._send_kexinit()
                count += 1
                await connection.run("help", check=False)  # by the new keys
        except (asyncssh.Error, OSError):
            pass
        finally:
            connection.abort()
            await connection.wait_closed()
        return count

    def why() -> list[str]:
        """Of one address in ten seconds the first says how it breaks the protocol: nobody else comes from this one."""
        hits = [each for each in events(site.state, "limit-hit") if each["limit"] == "broken_protocol"]
        return [each["detail"] for each in hits if each["source"] == ELSEWHERE]

    assert 10 < asyncio.run(asyncio.wait_for(main(), PATIENT)) < 200
    eventually(why)
    assert why() == ["key exchanges without end"]


def kexinit(*algorithms: bytes) -> bytes:
    """A client's first packet, unencrypted; with these key exchanges."""
    lists = (b",".join(algorithms), b"ssh-ed25519", *[b"aes128-ctr"] * 2, *[b"hmac-sha2-256"] * 2, *[b"none"] * 2)
    return plain(20, bytes(16), *(STRING(names) for names in (*lists, b"", b"")), bytes(5))


def plain(kind: int, *body: bytes) -> bytes:
    payload = bytes((kind,)) + b"".join(body)
    pad = 8 - (len(payload) + 5) % 8
    pad += 8 if pad < 4 else 0
    return UINT32(len(payload) + pad + 1) + bytes((pad,)) + payload + bytes(pad)


STRICT = kexinit(b"curve25519-sha256", b"kex-strict-c-v00@openssh.com")
BEFORE: dict[str, bytes] = {
    "strict: something beside the key exchange": STRICT + plain(2, STRING(b"")),
    "strict: something before it": plain(2, STRING(b"")) + STRICT,
    "no algorithm in common": kexinit(b"diffie-hellman-group1-sha1"),
    "half a key exchange": STRICT + plain(30, STRING(bytes(7))),
    "a packet of 2 GB": b"\x7f\xff\xff\xff" + bytes(16),
    "an empty packet": bytes(16),
    "keys that were not exchanged": b"\0\0\0\x0c\x0a\x15" + bytes(10),
    "a sign-in before keys": b"\0\0\0\x0c\x0a\x32" + bytes(10),
    "a channel before keys": b"\0\0\0\x0c\x0a\x5a" + bytes(10),
    "extensions before keys": b"\0\0\0\x0c\x0a\x07" + bytes(10),
    "a message that nobody knows before keys": b"\0\0\0\x0c\x0a\xc8" + bytes(10),
    "a key exchange with endless lists": b"\0\0\x40\x0c\x0a\x14" + bytes(16) + b"\xff\xff\xff\xff" * 4_095,
}


def test_strangers_who_break_ssh_before_there_are_keys(site: Hostile, bystander: object) -> None:
    for name, data in BEFORE.items():
        with socket.create_connection(("127.0.0.1", site.door), PATIENT) as sock:
            sock.settimeout(PATIENT)
            sock.sendall(b"SSH-2.0-x\r\n" + data)
            said = b""
            with contextlib.suppress(ConnectionResetError):
                while piece := sock.recv(65_536):
                    said += piece
            banner, _, rest = said.partition(b"\r\n")
            kinds = []
            while len(rest) > 5:
                kinds.append((rest[5], int.from_bytes(rest[6:10], "big")))
                rest = rest[4 + int.from_bytes(rest[:4], "big") :]
            assert banner.startswith(b"SSH-2.0-Cofferdam"), name
            # RFC 4253, 11.1: a protocol error, or a failed exchange.
            assert kinds[-1] in ((1, 2), (1, 3)), (name, kinds)


# --- clients that break SFTP ---


def _sftp(*packets: bytes) -> bytes:
    return b"".join(STRING(one) for one in packets)


INIT = b"\1" + UINT32(3)
STAT = b"\x07" + UINT32(1) + STRING(b"/srv")
SFTP: dict[str, bytes] = {
    "a request before the first packet": _sftp(STAT),
    "version 2": _sftp(b"\1" + UINT32(2)),
    "two beginnings": _sftp(INIT, INIT),
    "a packet of no length": _sftp(INIT, b""),
    "a packet of 4 GB": _sftp(INIT) + b"\xff\xff\xff\xff",
    "spare bytes": _sftp(INIT, STAT + b"\0"),
    "half a packet, and an end": _sftp(INIT) + _sftp(STAT)[:9],
    "a path of 4 GB": _sftp(INIT, b"\x07" + UINT32(1) + b"\xff\xff\xff\xff"),
    "attributes without end": _sftp(
        INIT, b"\x09" + UINT32(1) + STRING(b"/srv") + UINT32(1 << 31) + b"\xff\xff\xff\xff"
    ),
    "no SFTP at all": b"GET / HTTP/1.0\r\n\r\n",
}


def test_clients_that_break_sftp(site: Hostile, bystander: object) -> None:
    """Each is its own session's end, by whatever it has begun with, and told of in the log."""

    async def one(what: bytes) -> bytes:
        connection = await site.client("station", FARTHEST)
        try:
            async with asyncio.timeout(PATIENT):
                process = await connection.create_process(subsystem="sftp", encoding=None)
                process.stdin.write(what)
                process.stdin.write_eof()
                await process.stdout.read()
                return bytes(await process.stderr.read())
        finally:
            connection.abort()

    async def main() -> dict[str, bytes]:
        return {name: await one(what) for name, what in SFTP.items()}

    for name, said in asyncio.run(main()).items():
        assert b"that is no SFTP" in said or name.startswith("half"), (name, said)
    eventually(lambda: [one["asset"] for one in site.sessions()] == ["station"])
    eventually(lambda: FARTHEST in {each["source"] for each in events(site.state, "limit-hit")})


# --- assets that break SFTP -----------------------------------------------------------------------------------------


def test_assets_that_break_sftp(site: Hostile, bystander: object) -> None:
    """Each is its own session's end, or refused; the gate goes on, and so does the session beside it."""

    async def one() -> str:
        connection = await site.client("second")
        try:
            async with asyncio.timeout(PATIENT):
                client = await connection.start_sftp_client()
                return str(await client.realpath("/srv"))
        except (asyncssh.Error, OSError) as error:
            return f"refused: {error}"
        finally:
            connection.abort()

    for what in ANSWERS:
        site.asset.breaks = what
        try:
            found = asyncio.run(one())
        finally:
            site.asset.breaks = ""
        assert found.startswith("refused") or found == "/srv", what
        eventually(lambda: [each["asset"] for each in site.sessions()] == ["station"])
