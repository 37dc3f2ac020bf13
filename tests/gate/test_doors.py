"""Members of a group of the machine look at a gate, or sever, without being root: by real users and a real gate."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ctypes
import fcntl
import grp
import io
import json
import os
import pwd
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from cofferdam.cli.main import main
from cofferdam.enforce import doors
from cofferdam.enforce.statefolder import lock_state
from cofferdam.errors import GateError
from cofferdam.gate import commands, shown
from cofferdam.gate.asking import UNHEARD, _vouched
from cofferdam.gate.client import ask, cut_off
from cofferdam.gate.commands import AT_A_DOOR, LET_IN, ControlServer, _counts_as
from cofferdam.gate.requests import Answer, Status
from cofferdam.gate.shown import Shown, ShownPolicy
from cofferdam.gate.state import Cut, Severed, control_socket, save_severed
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.table import CompiledPolicy
from tests.folders import others_get_into
from tests.gate.conftest import Site
from tests.gate.plant import cli, events, log_of, refuses, running
from tests.waiting import PATIENT, eventually, kill

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be others")

NOBODY = 65_534
LOOK, SEVER, OTHER = (grp.getgrnam(name) for name in ("games", "users", "nogroup"))


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with others_get_into() as folder:
        made = Site(folder)
        with running(made.state, made.policy, "--look", LOOK.gr_name, "--sever", SEVER.gr_name) as gate:
            made.gate = gate
            yield made
        made.device.close()


def by(group: int, *words: str) -> tuple[int, str, str]:
    """`cofferdam ...` by a user who is in this group and no other: exit code, output, errors.

    Who asks nine times within a tenth of a second finds no place, and is told to ask again: so these do.
    """
    while "no place is left: ask again" in (told := once_by(group, *words))[2]:
        time.sleep(commands.PLACE_SECONDS)
    return told


def once_by(group: int, *words: str) -> tuple[int, str, str]:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        code, out, err = 99, io.StringIO(), io.StringIO()
        try:
            os.setgroups([])
            os.setresgid(group, group, group)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main(words)
        except BaseException as error:
            err.write(repr(error))
        finally:
            with os.fdopen(write, "w") as pipe:
                json.dump([code, out.getvalue(), err.getvalue()], pipe)
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        code, out_text, err_text = json.load(pipe)
    os.waitpid(pid, 0)
    return code, out_text, err_text


def does(expected: int, *words: str) -> Callable[[], bool]:
    """Whether the command does for a member of LOOK what it does for root."""
    return lambda: by(LOOK.gr_gid, *words)[::2] == (expected, "")


def test_what_no_gate_takes_is_told_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(GateError, match=r"'pl\\udcff' is not UTF-8"):
        ask(tmp_path, "sever-part", kind="asset", name="pl\udcff")
    with pytest.raises(GateError, match="a request of 100"):
        ask(tmp_path, "sever-part", kind="asset", name="x" * 100_000)


def test_who_may_look_sees_what_root_sees_and_changes_nothing(site: Site) -> None:
    state = ("--state", str(site.state))
    code, out, err = by(LOOK.gr_gid, "status", "--json", *state)
    assert json.loads(out)["policy"] == json.loads(cli("status", "--json", *state)[1])["policy"], err
    assert code == cli("status", *state)[0]
    looks = (("ping", "plc"), ("describe", "plc"), ("whois", "127.0.0.1"), ("diff", "running", str(site.policy)))
    for words in looks:
        expected = main([*words, *state])  # here, where Python's own files may be read: the child finds them loaded
        eventually(does(expected, *words, *state))  # a device is pinged now and then
    for verb in (("sever", "it"), ("restore", "it"), ("reload",), ("down",)):
        main([*verb, "--state", str(site.folder / "none")])
        code, out, err = by(LOOK.gr_gid, *verb, *state)
        assert (code, out) == (2, ""), (verb, err)
        assert "nobody may look at this gate, and no more" in err and "root" in err
    assert not site.up.status()["severed"] and site.up.process.poll() is None


def test_who_may_sever_severs_and_does_not_restore(site: Site) -> None:
    state = ("--state", str(site.state))
    code, out, err = by(SEVER.gr_gid, "sever", "asset", "plc", "--reason", "smoke", *state)
    assert code == 0 and "plc" in out, err
    code, _, err = by(SEVER.gr_gid, "restore", "asset", "plc", *state)
    assert code == 2 and "may look at this gate and cut off, and no more" in err
    severed = [entry["event"] for entry in log_of(site.state) if entry["event"].get("reason") == "smoke"]
    assert [one["by"] for one in severed] == ["nobody"]
    assert cli("restore", "asset", "plc", *state)[0] == 0


@pytest.mark.parametrize(("what", "name"), [("asset", "plc"), ("principal", "erp"), ("conduit", "plc-road")])
def test_who_may_sever_does_not_restore_by_severing_for_a_moment(site: Site, what: str, name: str) -> None:
    """A second severing took the place of the first one, with its end."""
    state = ("--state", str(site.state))
    assert cli("sever", what, name, "--reason", "incident", *state)[0] == 0
    code, out, err = by(SEVER.gr_gid, "sever", what, name, "--for", "1s", *state)
    assert code == 0 and "stays so, as it was severed before" in out, err
    [stands] = site.up.status()["closures"]
    who = stands["by"].partition(" (")[0]  # a launcher that is busy for 0.2 s does not say whose login it was
    assert (who, stands["reason"], stands["until_ns"]) == ("root", "incident", 0)
    assert cli("restore", what, name, *state)[0] == 0


def test_words_of_who_may_sever_make_no_lines_for_others(site: Site) -> None:
    state = ("--state", str(site.state))
    words = "smoke\x1b[2J\u202e\nok: no alarm"
    for what in (("asset", "plc"), ("ot",)):
        assert by(SEVER.gr_gid, "sever", *what, "--reason", words, *state)[0] == 0
    shown = cli("status", *state)[1]
    cli("restore", "ot", *state)
    cli("restore", "asset", "plc", *state)
    assert shown.count("smoke\\u001b[2J\\u202e\\u000aok: no alarm") == 3
    assert "\x1b[2J" not in shown and not any(line.startswith("ok: no") for line in shown.splitlines())


def test_others_are_let_in_by_no_socket_and_see_no_file(site: Site) -> None:
    code, out, err = by(OTHER.gr_gid, "status", "--state", str(site.state))
    assert (code, out) == (2, "") and "is not for this user" in err and "--look" in err
    for group in (OTHER.gr_gid, LOOK.gr_gid, SEVER.gr_gid):
        assert opens(group, site.state) == []


def opens(group: int, state: Path) -> list[str]:
    """What of a state directory a user of this group can read."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        found: list[str] = []
        try:
            names = [str(path.relative_to(state)) for path in state.rglob("*")]
            os.setgroups([])
            os.setresgid(group, group, group)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            with contextlib.suppress(OSError):
                found += map(str, state.iterdir())
            for name in names:
                with contextlib.suppress(OSError):
                    if not (state / name).is_socket():
                        os.close(os.open(state / name, os.O_RDONLY | os.O_NONBLOCK))
                        found.append(name)
        finally:
            with os.fdopen(write, "w") as pipe:
                json.dump(found, pipe)
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        seen: list[str] = json.load(pipe)
    os.waitpid(pid, 0)
    return seen


def test_a_group_that_asks_and_asks_keeps_nobody_else_out(site: Site) -> None:
    held = []
    for _ in range(40):
        one = socket.socket(socket.AF_UNIX)
        one.settimeout(PATIENT)
        one.connect(str(site.state / "look.sock"))
        held.append(one)
    assert site.up.status()["pid"], "the other sockets are not theirs"
    eventually(lambda: sum(closed(one) for one in held) >= 40 - 8)
    for one in held:
        one.close()
    eventually(lambda: '"policy":' in by(LOOK.gr_gid, "status", "--json", "--state", str(site.state))[1])


def test_one_of_a_group_keeps_the_others_of_it_out_neither(site: Site) -> None:
    """Root has all places, and asks nothing; a member is answered."""
    path = str(site.state / "sever.sock")
    state = ("--state", str(site.state))

    def evicted() -> bool:
        """Who is silent loses the place after five seconds, which a slow machine may need for all of this."""
        with contextlib.ExitStack() as stack:
            held = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(AT_A_DOOR)]
            for one in held:
                one.connect(path)
            code, _, err = once_by(SEVER.gr_gid, "sever", "asset", "plc", *state)
            assert code == 0, err
            gone = [closed(one) for one in held]
        assert cli("restore", "asset", "plc", *state)[0] == 0
        assert gone[0], "the oldest of who has most"
        return not any(gone[1:])

    eventually(evicted)


class Alone:
    """A gate and its launcher, that know nobody's login."""

    @property
    def launcher(self) -> Alone:
        return self

    async def ask_login(self, pid: int) -> int:
        return -1


def test_who_does_not_read_the_answer_holds_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(commands, "PLACE_SECONDS", 0.0)
    server = ControlServer.__new__(ControlServer)
    server._at_door = {"look": {}}
    server._gate = Alone()  # type: ignore[assignment]

    server._shown = Shown()

    async def do(request: Any, user: str, more: bytes = b"") -> str:
        return "x" * (4 << 20)

    server._do = do  # type: ignore[method-assign]

    async def ask() -> None:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        theirs.send(b'{"type": "status"}\n')
        async with asyncio.timeout(PATIENT):
            await server._at("look", reader, writer)
        assert not server._at_door["look"]
        theirs.close()

    asyncio.run(ask())


def test_a_loop_of_questions_is_no_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each question takes a place for a while, also where it is answered at once."""
    monkeypatch.setattr(commands, "PLACE_SECONDS", 10 * PATIENT)
    server = ControlServer.__new__(ControlServer)
    server._at_door = {"look": {}}
    server._gate = Alone()  # type: ignore[assignment]

    server._shown = Shown()

    async def do(request: Any, user: str, more: bytes = b"") -> str:
        return "here"

    server._do = do  # type: ignore[method-assign]

    async def ask(serving: asyncio.TaskGroup) -> tuple[asyncio.Task[None], bool]:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        theirs.send(b'{"type": "status"}\n')
        task = serving.create_task(server._at("look", reader, writer))
        reader, writer = await asyncio.open_unix_connection(sock=theirs)
        try:
            async with asyncio.timeout(PATIENT):
                return task, b"here" in await reader.read()
        except ConnectionResetError:
            return task, False
        finally:
            writer.close()

    async def loop() -> list[bool]:
        async with asyncio.TaskGroup() as serving:
            asked = [await ask(serving) for _ in range(AT_A_DOOR + 1)]
            for task, _ in asked:
                task.cancel()
        return [answered for _, answered in asked]

    assert asyncio.run(loop()) == [True] * AT_A_DOOR + [False]


def test_the_parts_are_not_made_to_report_by_who_asks_and_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown, "FRESH_SECONDS", 10 * PATIENT)
    counted = []
    server = ControlServer.__new__(ControlServer)

    async def do(request: Any, user: str, more: bytes = b"") -> int:
        counted.append(request.fresh if isinstance(request, Status) else "")
        return len(counted)

    server._do = do  # type: ignore[method-assign]

    async def ask() -> list[object]:
        server._shown, server._peers = Shown(), Shown()
        told = []
        more = ("down", "")  # what root has changed shows at once
        peers = [("peers", role) for role in ("look", "sever")]  # the launcher forks for each that is asked of it
        looks = (("status", role) for role in ("look", "look", "sever", ""))
        for verb, role in (*looks, *peers, more, ("status", "look"), *peers):
            line = json.dumps({"type": verb}).encode()
            answer = await server._obey(line, "anna", asyncio.StreamReader(), role)
            assert isinstance(answer, Answer) and answer.ok
            told.append(msgspec.json.decode(msgspec.json.encode(answer.result)))
        return told

    assert asyncio.run(ask()) == [1, 1, 1, 2, 3, 3, 4, 5, 6, 6]
    assert counted == [True, True, "", "", False, ""]


def closed(one: socket.socket) -> bool:
    try:
        return one.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


@pytest.mark.parametrize(
    "line",
    [
        b'{"type": "down"', b"\xff\n", b"x" * 70_000 + b"\n", b"[]\n", b'{"type": "ask-part"}\n',
        b'{"type":"ask-part","broker":"b","part":"p","verb":"v","arguments":{"a":' + 20_000 * b"[" + b"\n",
    ],
)  # fmt: skip
def test_what_is_no_question_is_no_harm(site: Site, line: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(PATIENT)
        one.connect(str(site.state / "look.sock"))
        with contextlib.suppress(BrokenPipeError):
            one.sendall(line)
            one.shutdown(socket.SHUT_WR)
        answer: dict[str, Any] = json.loads(one.makefile("rb").readline() or b'{"ok": false}')
    assert not answer["ok"]
    assert site.up.status()["pid"] == site.up.pids()["gate"]
    assert not events(site.state, "command-failed"), "who may look writes no entries"


@pytest.mark.parametrize("what", ['"sever","side":"ot"', '"sever-part","kind":"asset","name":"plc"'])
@pytest.mark.parametrize("until", [2**63, 2**64, 10**40])
def test_no_severing_that_the_log_cannot_say(site: Site, what: str, until: int) -> None:
    """It stood, and nobody's name was on record for it."""
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(PATIENT)
        one.connect(str(site.state / "sever.sock"))
        one.sendall(f'{{"type":{what},"until_ns":{until}}}\n'.encode())
        answer: dict[str, Any] = json.loads(one.makefile("rb").readline())
    assert not answer["ok"] and "not understood" in answer["error"]
    status = site.up.status()
    assert not status["severed"] and not status["closures"]


def test_root_is_the_login_and_a_member_is_the_user(site: Site) -> None:
    """The gate itself sees no process of the machine. A process that no login began may say whose it is, once, without
    a privilege: of a member that is no word to go by."""
    daemon = pwd.getpwnam("daemon").pw_uid
    for uid, group, role, login in ((0, 0, "gate", daemon), (NOBODY, SEVER.gr_gid, "sever", 0)):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.setgroups([])
                os.setresgid(group, group, group)
                os.setresuid(uid, uid, uid)
                ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # as after exec: its files in /proc are its own
                Path("/proc/self/loginuid").write_text(str(login))
                with socket.socket(socket.AF_UNIX) as one:
                    one.connect(str(site.state / f"{role}.sock"))
                    one.sendall(b'{"type":"sever-part","kind":"asset","name":"plc","reason":"login"}\n')
                    os.write(write, one.makefile("rb").readline())
            finally:
                os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            said = pipe.read()
        os.waitpid(pid, 0)
        if not said:
            pytest.skip("this kernel lets nobody have another login")
        assert json.loads(said)["ok"]
    by = [entry["by"] for entry in events(site.state, "severed") if entry["reason"] == "login"]
    assert by == ["daemon", "nobody"]
    assert cli("restore", "asset", "plc", "--state", str(site.state))[0] == 0


def test_users_without_a_name_are_one(site: Site) -> None:
    """Whoever has ids of their own for a container (subuid) is thousands of users."""
    held = []
    for number in range(2 * AT_A_DOOR):
        one = socket.socket(socket.AF_UNIX)
        pid = os.fork()
        if pid == 0:
            try:
                os.setgroups([LOOK.gr_gid])
                os.setresuid(*3 * (1_000_000_000 + number,))
                one.connect(str(site.state / "look.sock"))
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        held.append(one)
    eventually(lambda: sum(not closed(one) for one in held) <= AT_A_DOOR)  # they have all places
    out = by(LOOK.gr_gid, "status", "--json", "--state", str(site.state))[1]
    assert "policy" in json.loads(out), out
    for one in held:
        one.close()


def test_who_is_shut_out_is_told_why(site: Site) -> None:
    if len({*map(_counts_as, range(1, AT_A_DOOR + 1))}) < AT_A_DOOR:
        pytest.skip("this machine has no name for them")

    def told() -> bool:
        """Who is silent loses the place after five seconds, which a slow machine may need for all of this."""
        with contextlib.ExitStack() as held:
            for number in range(AT_A_DOOR):
                one = held.enter_context(socket.socket(socket.AF_UNIX))
                pid = os.fork()
                if pid == 0:
                    try:
                        os.setgroups([LOOK.gr_gid])
                        os.setresuid(*3 * (number + 1,))  # users that most machines have a name for
                        one.connect(str(site.state / "look.sock"))
                    finally:
                        os._exit(0)
                os.waitpid(pid, 0)
            code, out, err = once_by(LOOK.gr_gid, "status", "--state", str(site.state))
        return (code, out) == (2, "") and "others of your group ask so much" in err

    eventually(told)


def test_however_many_knock_the_gate_has_its_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(commands, "BREATH_SECONDS", 10 * PATIENT)
    server = ControlServer.__new__(ControlServer)
    server._at_door, server._met = {"look": {}}, set()
    met = []

    async def meet(role: str, came: socket.socket) -> None:
        met.append(came)

    server._meet = meet  # type: ignore[method-assign]

    async def knock() -> None:
        with socket.socket(socket.AF_UNIX) as door, contextlib.ExitStack() as held:
            door.bind(str(tmp_path / "door"))
            door.listen(4 * LET_IN)
            for _ in range(3 * LET_IN):
                one = held.enter_context(socket.socket(socket.AF_UNIX))
                one.connect(str(tmp_path / "door"))
            async with asyncio.TaskGroup() as serving:
                letting = serving.create_task(server._let_in("look", door))
                for _ in range(100 * LET_IN):
                    await asyncio.sleep(0)
                letting.cancel()

    asyncio.run(knock())
    assert len(met) == LET_IN
    for one in met:
        one.close()


def test_a_command_waits_its_turn_where_many_knock(tmp_path: Path) -> None:
    """The kernel keeps so many that wait, and told all others at once to come again."""
    with socket.socket(socket.AF_UNIX) as gate, socket.socket(socket.AF_UNIX) as first:
        gate.bind(str(control_socket(tmp_path)))
        gate.listen(0)
        first.connect(str(control_socket(tmp_path)))
        with pytest.raises(GateError, match="does not answer"):
            ask(tmp_path, "status", seconds=0.05)

        def serve() -> None:
            for asks in (False, True):
                one, _ = gate.accept()
                with one, contextlib.suppress(OSError):
                    _ = one.recv(4096) if asks else b""
                    one.sendall(b'{"ok":true,"result":1,"error":"","hint":"","problems":[]}\n')

        later = threading.Timer(0.2, serve)
        later.start()
        assert ask(tmp_path, "status", seconds=PATIENT) == 1
        later.join()


def test_who_may_look_pings_once_a_second_whatever_the_asset() -> None:
    server = ControlServer.__new__(ControlServer)
    server._pinged = {}

    async def do(request: Any, user: str, more: bytes = b"") -> None:
        pass

    server._do = do  # type: ignore[method-assign]

    async def ping(asset: str, user: str, role: str) -> bool:
        line = json.dumps({"type": "ping", "asset": asset}).encode()
        answer = await server._obey(line, user, asyncio.StreamReader(), role)
        return isinstance(answer, Answer) and answer.ok

    async def loop() -> list[bool]:
        server._shown = Shown()
        who = (("a", "anna", "look"), ("b", "anna", "sever"), ("b", "ben", "look"), ("a", "uid 7", "look"))
        more = (("b", "uid 8", "look"), ("c", "anna", ""))
        return [await ping(*one) for one in (*who, *more)]

    assert asyncio.run(loop()) == [True, False, True, True, False, True]


class Holding(Alone):
    """A gate that has a policy."""

    base = compile_policy(loads("site: riverside\nzones:\n  enterprise: {side: it}\n  control: {side: ot}\n"), now_ns=0)
    policy_hash, policy_path = "a" * 64, Path("/etc/policy.yaml")


def test_who_may_look_has_the_policy_as_often_as_its_size_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of 14.7 MB, asked for in a loop, took a quarter of the gate's time, and each answer was a copy."""
    monkeypatch.setattr(shown, "POLICY_BYTES_PER_SECOND", 1)
    server = ControlServer.__new__(ControlServer)
    server._gate, server._policy = Holding(), ShownPolicy()  # type: ignore[assignment]

    async def asked(user: str, role: str) -> Answer | bytes:
        return await server._obey(b'{"type": "policy"}', user, asyncio.StreamReader(), role)

    async def loop() -> list[Answer | bytes]:
        who = [("anna", "look"), ("ben", "sever"), ("uid 7", "look"), ("root", ""), ("root", "")]
        return [await asked(*one) for one in (*who, ("anna", "sever"), ("uid 8", "look"))]

    *told, anna, nobody = asyncio.run(loop())
    first = told[0]
    assert isinstance(first, bytes) and all(one is first for one in told)
    answer = msgspec.json.decode(first, type=Answer)
    assert answer.ok and CompiledPolicy.from_bytes(base64.b64decode(answer.result["rows"])).hash == Holding.base.hash
    for refused, whom in ((anna, "anna"), (nobody, "somebody")):
        assert isinstance(refused, Answer) and f"{whom} was told the policy a moment ago" in refused.error
        assert refused.hint.startswith("wait ")


def test_nobody_has_root_signal_whom_they_like(tmp_path: Path) -> None:
    """Whoever could put a lock there named any process: SIGUSR1 ends most."""
    victim = os.fork()
    if victim == 0:
        signal.pause()
        os._exit(0)
    with (tmp_path / "lock").open("w") as lock:
        lock.write(f"{victim}\n")
        lock.flush()
        os.fchown(lock.fileno(), NOBODY, NOBODY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not cut_off(tmp_path, "it")
    assert os.waitpid(victim, os.WNOHANG) == (0, 0)
    kill(victim)
    os.waitpid(victim, 0)


def test_no_process_is_signalled_that_has_not_the_lock(tmp_path: Path) -> None:
    """A gate in a container knows itself by a number that is another's outside; and whoever made a lock that root has
    taken over may have kept it open, and write another number."""
    stranger = os.fork()
    if stranger == 0:
        signal.pause()
        os._exit(0)
    with (tmp_path / "lock").open("w") as lock:
        lock.write(f"{stranger}\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = cut_off(tmp_path, "it")
    kill(stranger)
    assert os.WTERMSIG(os.waitpid(stranger, 0)[1]) == signal.SIGKILL and not done


def test_a_lock_that_another_gate_holds_stays_its_users(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with (tmp_path / "lock").open("w") as lock:
        os.fchown(lock.fileno(), NOBODY, NOBODY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(GateError, match="another gate runs"):
            lock_state(tmp_path)
    assert (tmp_path / "lock").stat().st_uid == NOBODY


def test_root_cuts_off_the_gate_of_another_user_that_hangs(tmp_path: Path) -> None:
    """And what root writes there is that user's to read: the gate's next life severed both sides, and did not say who
    had severed one of them, and why."""
    with (tmp_path / "lock").open("w") as lock:
        launcher = os.fork()
        if launcher == 0:
            os.setresuid(NOBODY, NOBODY, NOBODY)
            signal.pause()
            os._exit(0)
        eventually(lambda: f"Uid:\t{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}" in status_of(launcher))
        lock.write(f"{launcher}\n")
        lock.flush()
        os.fchown(lock.fileno(), NOBODY, NOBODY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = cut_off(tmp_path, "it")
    if not done:
        kill(launcher)
    assert os.WTERMSIG(os.waitpid(launcher, 0)[1]) == signal.SIGUSR1
    os.chown(tmp_path, NOBODY, -1)
    save_severed(tmp_path, Severed((Cut("it", 1, "root", "incident"),), "", ("it",)))
    assert {path.stat().st_uid for path in tmp_path.iterdir()} == {NOBODY}


def status_of(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text()


def test_a_lock_that_another_user_left_is_this_users(tmp_path: Path) -> None:
    """The hint for such a folder says chown of it alone; root's `sever` then took the launcher for a stranger's."""
    tmp_path.chmod(0o700)
    (tmp_path / "lock").touch(0o600)
    os.chown(tmp_path / "lock", NOBODY, NOBODY)
    os.close(lock_state(tmp_path))
    assert (tmp_path / "lock").stat().st_uid == 0


def test_nobody_agrees_to_their_own_wish_while_the_launcher_is_busy() -> None:
    """They were "root" then, and so another person."""
    server = ControlServer.__new__(ControlServer)

    class Busy:
        @property
        def launcher(self) -> Busy:
            return self

        async def ask_login(self, pid: int) -> int:
            raise TimeoutError

    server._gate = Busy()  # type: ignore[assignment]

    async def agree() -> Answer:
        user = await server._person(1, 0, "")
        answer = await server._obey(b'{"type":"agree-grant","number":1}', user, asyncio.StreamReader(), "")
        assert isinstance(answer, Answer)
        return answer

    answer = asyncio.run(agree())
    assert not answer.ok and "too busy" in answer.error


def test_nobody_approves_what_they_asked_for_while_the_launcher_is_busy() -> None:
    """They were "root (login unknown)" then, and so nobody who signs."""
    gone = SimpleNamespace(broker=SimpleNamespace(vouched={("keeper", "request")}))
    with pytest.raises(GateError, match="too busy to say whose login"):
        _vouched(gone, "keeper", "request", {"by": f"root{UNHEARD}", "claim": {}})  # type: ignore[arg-type]
    assert b"root" in _vouched(gone, "keeper", "show", {"by": f"root{UNHEARD}"})  # type: ignore[arg-type]


def test_nobody_agrees_to_their_own_wish_by_a_process_that_has_gone(site: Site) -> None:
    """Of one that has ended since it connected the launcher found no login, and took it for one that never had one."""
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:
        one = socket.socket(socket.AF_UNIX)
        one.connect(str(control_socket(site.state)))
        parent = os.getpid()
        if os.fork() == 0:
            eventually(lambda: not Path(f"/proc/{parent}").exists())
            one.sendall(b'{"type":"agree-grant","number":1}\n')
            os.write(write, one.makefile("rb").readline())
        os._exit(0)
    os.close(write)
    os.waitpid(parent, 0)
    with os.fdopen(read) as pipe:
        assert "too busy to say whose login" in json.loads(pipe.read())["error"]


def test_who_has_no_name_is_looked_for_in_no_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand times a second, and with thousands of users, that took a fifth of the gate's time."""
    assert _counts_as(0) == 0
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: pytest.fail("looked for"))
    monkeypatch.setattr(pwd, "getpwall", lambda: pytest.fail("looked for"))
    assert {_counts_as(uid) for uid in range(1_000_000_000, 1_000_000_100)} == {commands.NOBODY}
    assert _counts_as(NOBODY) == NOBODY


def test_a_group_that_is_none_is_said_before_anything_starts(tmp_path: Path, site: Site) -> None:
    code, err = refuses(tmp_path / "state", site.policy, "--look", "nobodys-group")
    assert code == 2 and "there is no group 'nobodys-group'" in err and "addgroup" in err


def test_without_groups_what_an_earlier_gate_left_is_gone(tmp_path: Path) -> None:
    made = Site(tmp_path)
    with running(made.state, made.policy, "--look", LOOK.gr_name):
        assert (made.state / "look.sock").stat().st_mode & 0o777 == 0o660 and made.state.stat().st_mode & 1
    with running(made.state, made.policy):
        assert not (made.state / "look.sock").exists() and not made.state.stat().st_mode & 1
    made.device.close()


def test_without_groups_the_folder_is_as_the_site_has_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with doors.opened(tmp_path, {}) as made:
        assert not made and tmp_path.stat().st_mode & 0o777 == 0o755
    with doors.opened(tmp_path, {"look": LOOK.gr_gid}):
        pass
    with doors.opened(tmp_path, {}):
        assert tmp_path.stat().st_mode & 0o777 == 0o754
