"""Members of a group of the machine look at a gate, or sever, without being root: by real users and a real gate."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import io
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cofferdam.cli.main import main
from cofferdam.enforce import doors
from cofferdam.gate import commands
from cofferdam.gate.commands import AT_A_DOOR, FRESH_SECONDS, ControlServer
from tests.folders import others_get_into
from tests.gate.conftest import Site
from tests.gate.plant import cli, log_of, refuses, running
from tests.waiting import PATIENT, eventually

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
    """`cofferdam ...` by a user who is in this group and no other: exit code, output, errors."""
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
    assert (stands["by"], stands["reason"], stands["until_ns"]) == ("root", "incident", 0)
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
    eventually(lambda: by(LOOK.gr_gid, "status", "--json", "--state", str(site.state))[1] != "")


def test_one_of_a_group_keeps_the_others_of_it_out_neither(site: Site) -> None:
    """Root has all places, and asks nothing; a member is answered."""
    path = str(site.state / "sever.sock")
    held = []
    for _ in range(AT_A_DOOR):
        one = socket.socket(socket.AF_UNIX)
        one.connect(path)
        held.append(one)
    code, _, err = by(SEVER.gr_gid, "sever", "asset", "plc", "--state", str(site.state))
    assert code == 0, err
    assert [closed(one) for one in held] == [True] + [False] * (AT_A_DOOR - 1), "the oldest of who has most"
    for one in held:
        one.close()
    assert cli("restore", "asset", "plc", "--state", str(site.state))[0] == 0


def test_who_does_not_read_the_answer_holds_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(commands, "PLACE_SECONDS", 0.0)
    server = ControlServer.__new__(ControlServer)
    server._at_door = {"look": {}}

    async def do(request: Any, user: str, more: bytes = b"") -> str:
        return "x" * (4 << 20)

    server._do = do  # type: ignore[method-assign]

    async def ask() -> None:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        theirs.send(b'{"type": "policy"}\n')
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

    async def do(request: Any, user: str, more: bytes = b"") -> str:
        return "here"

    server._do = do  # type: ignore[method-assign]

    async def ask(serving: asyncio.TaskGroup) -> tuple[asyncio.Task[None], bool]:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        theirs.send(b'{"type": "policy"}\n')
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


def test_the_parts_are_not_made_to_report_by_who_asks_and_asks() -> None:
    counted = []
    server = ControlServer.__new__(ControlServer)
    server._fresh_at = -FRESH_SECONDS

    async def do(request: Any, user: str, more: bytes = b"") -> None:
        counted.append(request.fresh)

    server._do = do  # type: ignore[method-assign]

    async def ask() -> None:
        for role in ("look", "look", "sever", ""):
            assert (await server._obey(b'{"type": "status"}', "anna", asyncio.StreamReader(), role)).ok

    asyncio.run(ask())
    assert counted == [True, False, False, True]


def closed(one: socket.socket) -> bool:
    try:
        return one.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


@pytest.mark.parametrize(
    "line", [b'{"type": "down"', b"\xff\n", b"x" * 70_000 + b"\n", b"[]\n", b'{"type": "ask-part"}\n']
)
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
