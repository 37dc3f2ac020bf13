"""What becomes of an order for a crew: real children in real places, that say what they were given and do as told.

In place of each part's own program stands one that runs what the test tells it: everything else (pipes, users, limits,
mounts, arguments) is the launcher's.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cofferdam.crossing.framing import PACKET
from cofferdam.enforce.isolation import THREADS, Berth, Isolation, PlainIsolation
from cofferdam.enforce.launcher import Launcher
from cofferdam.enforce.namespaces import NamespaceIsolation
from cofferdam.enforce.orders import (
    GATE_CHILD,
    MAX_ORDER,
    REPORTS,
    Child,
    Exited,
    Kill,
    ListenerOpened,
    OpenListener,
    OrderFailed,
    PartOrder,
    Place,
    Spawn,
    Spawned,
)
from cofferdam.enforce.plans.network import network_plan
from cofferdam.enforce.producers import Producer
from cofferdam.enforce.profile import Can, Crew, Profile
from cofferdam.enforce.seams import Seams
from cofferdam.enforce.users import Users
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import load
from tests.enforce.site import DEVICE, PORT, PlantDevice, Site, netns
from tests.waiting import PATIENT

QUOTA = 1 << 20


def in_namespaces(test: Any) -> Any:
    for mark in netns:
        test = mark(test)
    return test


TOY = Crew(
    "toy",
    {
        "outer": Profile("toy/outer", "outer", Can.ACCEPT, says=("limit-hit",)),
        "keeper": Profile("toy/keeper", "apart", Can.STORE, store=True, quota=QUOTA, says=("limit-hit",)),
        "reader": Profile("toy/reader", "outer", Can.READ, reads=("keeper",)),
        "inner": Profile("toy/inner", "inner", Can.DIAL_TCP, memory=1 << 30),
    },
    pipes=(("outer", "keeper"), ("keeper", "inner"), ("inner", "keeper"), ("keeper", "reader")),
    optional=frozenset({"reader"}),
)
COMES = Crew(
    "comes",
    {
        "outer": Profile("comes/outer", "outer", Can.ACCEPT),
        "keeper": Profile("comes/keeper", "apart", Can.STORE, store=True, quota=QUOTA),
    },
    pipes=(("outer", "keeper"), ("keeper", "outer")),
    returns=frozenset({"keeper"}),
)
LONE = Crew("lone", {"one": Profile("lone/one", "apart", Can.STORE, store=True)})
LISTENING = Crew("log", {"log": Profile("log/log", "apart", producers=True, confined=False)})
SITE = Crew("site", {"one": Profile("site/one", "apart", Can.STORE, folders=True, quota=QUOTA)})
MEEK = Crew(
    "meek",
    {
        "none": Profile("meek/none", "apart"),
        "some": Profile("meek/some", "apart", yields="some"),
        "low": Profile("meek/low", "apart", yields="low"),
        "idle": Profile("meek/idle", "apart", yields="idle"),
    },
)
CREWS = {crew.kind: crew for crew in (TOY, COMES, LONE, LISTENING, SITE, MEEK)}
IT, OT = Place("it", "office"), Place("ot", "plant")
PARTS = (PartOrder("outer", IT), PartOrder("keeper"), PartOrder("inner", OT))
ALL = (*PARTS, PartOrder("reader", IT))
PROGRAM = r"""
import contextlib, ctypes, errno, fcntl, json, os, resource, socket, sys, threading
from pathlib import Path
from cofferdam.enforce import sandbox
from cofferdam.enforce.profile import Can, Profile
words = sys.argv[1:]
given = {name: [words[at + 1] for at, word in enumerate(words) if word == name] for name in words if name[:2] == "--"}
told, tell = int(given["--control-in"][0]), int(given["--control-out"][0])
way = lambda option, part: next(int(text.partition("=")[2]) for text in given[option] if text.startswith(part + "="))
os.set_blocking(told, True)
while text := os.read(told, 4096):
    try:
        code = text.decode()
        answer = exec(code, globals()) if "\n" in code else eval(code)
    except OSError as error:
        answer = errno.errorcode.get(error.errno, "?")
    except Exception as error:
        answer = f"{type(error).__name__}: {error}"
    os.write(tell, json.dumps(answer).encode())
"""


class Puppets(Launcher):
    """Starts the test's program in the place of every part's."""

    def _start(self, part: str, berth: Berth, arguments: list[str], fds: list[int], producer: Producer | None) -> Child:
        arguments = ["-c", PROGRAM, *arguments[arguments.index("--name") :]]
        return super()._start(part, berth, arguments, fds, producer)


class Puppet:
    """One child, and the gate's ends of its control pipes."""

    def __init__(self, child: Child, read_fd: int, write_fd: int) -> None:
        self.child = child
        self._read, self._write = read_fd, write_fd
        os.set_blocking(read_fd, True)

    def do(self, code: str) -> Any:
        """What an expression is, in the child; an OSError's name. Several lines are done, and are nothing."""
        os.write(self._write, code.encode())
        return json.loads(os.read(self._read, PACKET))

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


class Stage:
    """A launcher of which the test is the gate."""

    def __init__(self, isolation: Isolation, state: Path) -> None:
        self.launcher = Puppets(isolation, state, CREWS, [])
        self.launcher._children._next = GATE_CHILD + 1
        self.state = state
        self._ours, self.launcher._orders = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._puppets: list[Puppet] = []
        self._serial = 0

    def ask(self, order: Any) -> tuple[Any, list[int]]:
        self.launcher._obey(order)
        while True:
            data, fds, _, _ = socket.recv_fds(self._ours, MAX_ORDER, 16)
            report = REPORTS.decode(data)
            if not isinstance(report, Exited):
                return report, fds

    def spawn(self, *parts: PartOrder, kind: str = "toy", crew: str = "toy/a-b", road: str = "") -> dict[str, Puppet]:
        """The children by their parts' names."""
        report, fds = self.ask(Spawn(1, kind, crew, parts, road))
        assert isinstance(report, Spawned), report
        assert [child.part for child in report.children] == [part.part for part in parts]
        made = [Puppet(child, *fds[2 * at : 2 * at + 2]) for at, child in enumerate(report.children)]
        self._puppets += made
        return {puppet.child.part: puppet for puppet in made}

    def refused(self, *parts: PartOrder, kind: str = "toy") -> str:
        """Why an order was not carried out. Nothing is left of it."""
        before, open_before = set(self.launcher._children.by_number), _open_files()
        report, fds = self.ask(Spawn(1, kind, "toy/refused", parts))
        assert isinstance(report, OrderFailed) and not fds
        assert set(self.launcher._children.by_number) == before and _open_files() == open_before
        return f"{report.message} {report.hint}"

    def listen(self, place: Place, address: str = "127.0.0.1", *, datagrams: bool = False) -> int:
        report, _ = self.ask(OpenListener(1, place, address, 0, datagrams))
        assert isinstance(report, ListenerOpened)
        return report.listener

    def end(self, puppets: dict[str, Puppet]) -> None:
        for puppet in puppets.values():
            self.launcher._obey(Kill(puppet.child.child))
        until = time.monotonic() + PATIENT
        while any(puppet.child.child in self.launcher._children.by_number for puppet in puppets.values()):
            assert time.monotonic() < until
            self.launcher._take_signals(b"")
            time.sleep(0.005)

    def close(self) -> None:
        for puppet in self._puppets:
            puppet.close()
        self._ours.close()
        self.launcher._end_all()


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Stage]:
    with contextlib.closing(Stage(PlainIsolation(), tmp_path)) as stage:
        yield stage


# --- pipes and arguments ----------------------------------------------------------------------------------------------


def test_each_part_gets_the_pipes_that_are_declared_one_way_each_and_no_others(plain: Stage) -> None:
    crew = plain.spawn(*ALL)
    ways = {
        name: {option: crew[name].do(f"given.get({option!r}, [])") for option in ("--in", "--out")} for name in crew
    }
    names = {name: {key: [text.split("=")[0] for text in texts] for key, texts in found.items()}
             for name, found in ways.items()}  # fmt: skip
    assert names == {
        "outer": {"--in": [], "--out": ["keeper"]},
        "keeper": {"--in": ["outer", "inner"], "--out": ["inner", "reader"]},
        "inner": {"--in": ["keeper"], "--out": ["keeper"]},
        "reader": {"--in": ["keeper"], "--out": []},
    }
    for source, target in TOY.pipes:
        assert crew[source].do(f'os.write(way("--out", "{target}"), b"{source}")') == len(source)
        assert crew[target].do(f'os.read(way("--in", "{source}"), 99).decode()') == source
        assert crew[source].do(f'os.read(way("--out", "{target}"), 99)') == "EBADF"
        assert crew[target].do(f'os.write(way("--in", "{source}"), b"x")') == "EBADF"
    # Standard streams, control, the auditor's for who tells it, and the declared ones: numbered without a gap.
    for name, expected in {"outer": 3 + 2 + 2 + 1, "keeper": 3 + 2 + 2 + 4, "inner": 3 + 2 + 2, "reader": 6}.items():
        code = "[fd for fd in range(99) if (lambda: ctypes.CDLL(None).fcntl(fd, 1, 0))() >= 0]"
        assert crew[name].do(code) == list(range(expected)), name


def test_a_part_is_told_its_names_and_numbers(plain: Stage) -> None:
    listeners = tuple(plain.listen(IT) for _ in range(3))
    crew = plain.spawn(PartOrder("outer", IT, listeners), *PARTS[1:])
    outer, keeper = crew["outer"], crew["keeper"]
    assert outer.do("given")["--name"] == ["toy/a-b/outer"]
    assert outer.do("[given[option] for option in ('--kind', '--part', '--listeners')]") == [["toy"], ["outer"], ["3"]]
    assert outer.do("int(given['--listeners-at'][0])") == outer.child.listeners_at == 8
    code = "[socket.socket(fileno=os.dup(fd)).getsockname()[1] for fd in range(8, 11)]"
    held = [plain.launcher._listeners[number].sock for number in listeners]
    assert outer.do(code) == [sock.getsockname()[1] for sock in held if isinstance(sock, socket.socket)]
    assert not keeper.child.listeners_at and "--listeners-at" not in keeper.do("given")
    assert (outer.child.store, keeper.child.store) == ("", str(plain.state / "stores" / "toy%2Fa-b" / "keeper"))


def test_what_is_optional_may_be_missing_with_its_pipes(plain: Stage) -> None:
    crew = plain.spawn(*PARTS)
    assert [text.split("=")[0] for text in crew["keeper"].do("given['--out']")] == ["inner"]


def test_an_end_of_a_seam_is_for_a_part_that_may_have_it(plain: Stage) -> None:
    report, _ = plain.ask(OpenListener(1, IT, "127.0.0.1", 502, way="forth-out"))
    assert isinstance(report, ListenerOpened) and (report.address, report.port) == ("127.0.0.1", 502)
    _, keeper, inner = PARTS
    assert "and may use none of that kind" in plain.refused(PartOrder("outer", IT, (report.listener,)), keeper, inner)


def test_a_seam_lives_as_long_as_anybody_has_an_end_of_it() -> None:
    """One crew ends and is born again; what lies in the pipe is there, and its other end sees no end."""
    seams = Seams()
    where = ("it", "127.0.0.1", 502)
    writes, reads = seams.end(where, "forth-out"), seams.end(where, "forth-in")
    os.write(writes.fileno(), b"one")
    writes.close()
    seams.forget()
    again = seams.end(where, "forth-out")
    os.write(again.fileno(), b"two")
    assert [os.read(reads.fileno(), 4096) for _ in range(2)] == [b"one", b"two"]
    with pytest.raises(BlockingIOError):
        os.read(reads.fileno(), 1)
    for end in (again, reads):
        end.close()
    seams.forget()
    assert not seams._pipes
    fresh = seams.end(where, "forth-in")
    with pytest.raises(BlockingIOError):
        os.read(fresh.fileno(), 1)
    fresh.close()
    seams.close()


def test_a_part_that_comes_again_has_the_pipes_of_before(plain: Stage) -> None:
    """The others see no end of theirs; there is never a second of it, and it is nothing without the others."""
    keeper, order = PartOrder("keeper"), (PartOrder("outer", IT), PartOrder("keeper"))
    assert "lacks outer" in plain.refused(keeper, kind="comes")
    before = _open_files()
    crew = plain.spawn(*order, kind="comes", crew="comes/a-b")
    report, _ = plain.ask(Spawn(1, "comes", "comes/a-b", (keeper,)))
    assert isinstance(report, OrderFailed) and report.message == "comes/a-b/keeper lives"
    outer = crew.pop("outer")
    for life in (1, 2):
        plain.end(crew)
        assert outer.do('os.write(way("--out", "keeper"), b"left")') == 4
        assert outer.do('os.read(way("--in", "keeper"), 99)') == "EAGAIN"
        crew = plain.spawn(keeper, kind="comes", crew="comes/a-b")
        assert crew["keeper"].do('os.read(way("--in", "outer"), 99).decode()') == "left"
        assert crew["keeper"].do(f'os.write(way("--out", "outer"), b"life {life}")') == 6
        assert outer.do('os.read(way("--in", "keeper"), 99).decode()') == f"life {life}"
    plain.end({"outer": outer})
    assert crew["keeper"].do('os.read(way("--in", "outer"), 99).decode()') == ""
    plain.end(crew)
    report, _ = plain.ask(Spawn(1, "comes", "comes/a-b", (keeper,)))
    assert isinstance(report, OrderFailed) and "lacks outer" in report.message
    for puppet in plain._puppets:
        puppet.close()
    plain._puppets.clear()
    assert _open_files() == before


def test_orders_that_make_no_sense_start_nothing(plain: Stage) -> None:
    listener, elsewhere = plain.listen(IT), plain.listen(OT)
    outer, keeper, inner = PARTS
    assert "no crew of the kind nothing" in plain.refused(*PARTS, kind="nothing")
    assert "lacks keeper" in plain.refused(outer, inner)
    assert "names outer twice" in plain.refused(*PARTS, outer)
    assert "names stranger, which that kind has not" in plain.refused(*PARTS, PartOrder("stranger", IT))
    assert "toy/outer is to stand outer" in plain.refused(PartOrder("outer"), keeper, inner)
    assert "toy/keeper is to stand apart" in plain.refused(outer, PartOrder("keeper", IT), inner)
    assert "no listener 99" in plain.refused(PartOrder("outer", IT, (99,)), keeper, inner)
    assert "toy/inner is given a listener" in plain.refused(outer, keeper, PartOrder("inner", OT, (elsewhere,)))
    assert "toy/keeper is given a listener" in plain.refused(outer, PartOrder("keeper", None, (listener,)), inner)
    assert "a listener of ot, and stands elsewhere" in plain.refused(
        PartOrder("outer", IT, (elsewhere,)), keeper, inner
    )
    assert plain.spawn(PartOrder("outer", IT, (listener,)), keeper, inner)


def test_a_crew_of_which_one_part_cannot_be_started_is_not_there(plain: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    start = plain.launcher._start

    def fail(part: str, *arguments: Any) -> Child:
        if part == "inner":
            raise OSError(errno.EAGAIN, "no more processes")
        return start(part, *arguments)

    monkeypatch.setattr(plain.launcher, "_start", fail)
    report, fds = plain.ask(Spawn(1, "toy", "toy/a-b", PARTS))
    assert isinstance(report, OrderFailed) and report.message == "no more processes" and not fds
    until = time.monotonic() + PATIENT
    assert len(plain.launcher._producers._all) == 2, "of those that were started, until they are reaped"
    while plain.launcher._children.by_number:  # those that had been started are ended
        assert time.monotonic() < until
        plain.launcher._take_signals(b"")
        time.sleep(0.005)
    assert not plain.launcher._producers._all
    monkeypatch.setattr(plain.launcher, "_start", lambda *_: fail("inner"))
    report, _ = plain.ask(Spawn(1, "log", "log", (PartOrder("log"),)))
    assert isinstance(report, OrderFailed) and not plain.launcher._producers.taken


def test_there_is_one_auditor(plain: Stage) -> None:
    first = plain.spawn(PartOrder("log"), kind="log", crew="log")
    assert "--producers" in first["log"].do("given") and "--audit-in" not in first["log"].do("given")
    assert "an auditor already" in plain.refused(PartOrder("log"), kind="log")
    plain.end(first)
    assert plain.spawn(PartOrder("log"), kind="log", crew="log")


def test_a_producer_is_introduced_with_what_it_may_say(plain: Stage) -> None:
    log = plain.spawn(PartOrder("log"), kind="log", crew="log")["log"]
    plain.spawn(*PARTS)
    code = "[socket.recv_fds(socket.socket(fileno=os.dup(int(given['--producers'][0]))), 9999, 2)[0].decode('latin-1')]"
    said = [log.do(code)[0] for _ in range(2)]
    assert [("toy/a-b/outer" in text, "limit-hit" in text, "alarm" in text) for text in said] == [
        (True, True, False), (False, True, False),
    ]  # fmt: skip


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="this kernel has no groups by session")
def test_what_a_part_yields_counts_among_sessions_as_well(plain: Stage) -> None:
    """Each part is a session, and the kernel shares the processor out among sessions first."""
    crew = plain.spawn(*(PartOrder(name) for name in MEEK.parts), kind="meek", crew="meek")
    code = "[os.getpriority(os.PRIO_PROCESS, 0), int(open('/proc/self/autogroup').read().split()[-1])]"
    ours = os.getpriority(os.PRIO_PROCESS, 0)  # whoever runs this may yield to others
    assert {name: part.do(code) for name, part in crew.items()} == {
        "none": [ours, 0], "some": [min(19, ours + 5), 5], "low": [19, 5], "idle": [ours, 5],
    }  # fmt: skip
    assert crew["idle"].do("os.sched_getscheduler(0) == os.SCHED_IDLE")
    assert not crew["low"].do("os.sched_getscheduler(0) == os.SCHED_IDLE")
    sessions = {part.do("open('/proc/self/autogroup').read().split()[0]") for part in crew.values()}
    assert len(sessions) == len(crew)


# --- limits and stores ------------------------------------------------------------------------------------------------


def test_limits_are_those_of_the_profile(plain: Stage) -> None:
    crew = plain.spawn(*ALL)
    limits = {name: crew[name].do("[resource.getrlimit(getattr(resource, 'RLIMIT_' + name))[1] for name in "
                                  "('AS', 'NPROC', 'FSIZE', 'CORE')]") for name in crew}  # fmt: skip
    free = -1
    assert limits == {
        "outer": [2 << 30, 0, free, 0],
        "keeper": [2 << 30, 0, QUOTA, 0],
        "inner": [1 << 30, 0, free, 0],
        "reader": [2 << 30, THREADS, free, 0],
    }
    other = plain.spawn(PartOrder("one", None, (), 4096), kind="lone", crew="lone/b")["one"]
    assert other.do("resource.getrlimit(resource.RLIMIT_FSIZE)[1]") == 4096  # the policy's word before the profile's


def test_a_store_outlives_its_crew_and_takes_no_file_beyond_its_quota(plain: Stage) -> None:
    crew = plain.spawn(*PARTS)
    store = Path(crew["keeper"].child.store)
    assert crew["keeper"].do(f"Path('{store}', 'queue').write_bytes(bytes({QUOTA}))") == QUOTA
    assert crew["keeper"].do(f"Path('{store}', 'more').write_bytes(bytes({QUOTA} + 1))") == "EFBIG"
    assert (store / "queue").stat().st_mode & 0o777 == 0o640  # another part may be there to read it
    plain.end(crew)
    again = plain.spawn(*PARTS)
    assert again["keeper"].do(f"Path('{store}', 'queue').stat().st_size") == QUOTA
    lone = plain.spawn(PartOrder("one"), kind="lone", crew="lone/b")["one"]
    lone.do(f"Path('{lone.child.store}', 'mine').write_text('x')")
    assert Path(lone.child.store, "mine").stat().st_mode & 0o777 == 0o600


def test_a_crew_whose_store_is_not_to_be_had_is_refused(plain: Stage) -> None:
    crew = plain.spawn(*PARTS)
    plain.end(crew)
    store = plain.state / "stores" / "toy%2Frefused" / "keeper"
    store.parent.mkdir()
    store.symlink_to(plain.state)
    said = plain.refused(*PARTS)
    assert f"{store} is a symbolic link" in said and "rm" in said


def test_a_folder_of_the_sites_is_made_and_written(plain: Stage) -> None:
    part = plain.spawn(PartOrder("one", folders=("counts", "orders")), kind="site", crew="site/a")["one"]
    assert part.child.folders == {name: str(plain.state / "folders" / name) for name in ("counts", "orders")}
    folder = Path(part.child.folders["counts"])
    assert folder.stat().st_mode & 0o7777 == 0o2770 and folder.parent.stat().st_mode & 0o777 == 0o711
    assert part.do(f"Path('{folder}', 'bad').write_bytes(bytes({QUOTA} + 1))") == "EFBIG"
    part.do(f"Path('{folder}', 'x').write_text('y')")
    assert (folder / "x").stat().st_mode & 0o777 == 0o660  # the site's group fetches it
    (folder.parent / "linked").symlink_to("/etc")
    refused = plain.refused(PartOrder("one", folders=("linked",)), kind="site")
    assert "linked is a symbolic link" in refused
    (folder.parent / "file").touch()
    assert "file is no folder" in plain.refused(PartOrder("one", folders=("file",)), kind="site")
    assert "may have none" in plain.refused(PartOrder("one", folders=("counts",)), kind="lone")


# --- in namespaces ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Site(tmp_path_factory.mktemp("site")) as site:
        device = PlantDevice(site.plant)
        site.state.mkdir(mode=0o700)
        isolation = NamespaceIsolation(site.state, site.policy, Users(64100, 64199))
        isolation.begin()
        isolation.prepare(network_plan(compile_policy(load(site.policy), now_ns=0)))
        try:
            with contextlib.closing(Stage(isolation, site.state)) as stage:
                yield stage
        finally:
            isolation.undo()
            device.close()


@in_namespaces
def test_parts_stand_apart_as_users_of_their_own_that_stay(sealed: Stage) -> None:
    crew = sealed.spawn(*ALL, crew="toy/users")
    users = {name: crew[name].do("os.getuid()") for name in crew}
    assert len(set(users.values())) == 4 and all(64102 <= user < 64199 for user in users.values())
    groups = {name: crew[name].do("os.getgroups()") for name in crew}
    assert groups == {"outer": [], "keeper": [], "inner": [], "reader": [users["keeper"]]}
    sealed.end(crew)
    again = sealed.spawn(*reversed(ALL), crew="toy/users")
    assert {name: again[name].do("os.getuid()") for name in crew} == users
    # A second crew of the same road does the same, and is the same users; another road is others.
    second = sealed.spawn(*ALL, crew="toy/users:2", road="toy/users")
    assert {name: second[name].do("os.getuid()") for name in crew} == users
    third = sealed.spawn(*ALL, crew="toy/others")
    assert not set(users.values()) & {third[name].do("os.getuid()") for name in crew}


@in_namespaces
def test_each_part_is_in_the_network_that_it_stands_in(sealed: Stage) -> None:
    crew = sealed.spawn(*ALL, crew="toy/places")
    interfaces = {name: crew[name].do("[name for _, name in socket.if_nameindex()]") for name in crew}
    assert interfaces["keeper"] == ["lo"] and len(interfaces["outer"]) == len(interfaces["inner"]) == 2
    assert interfaces["outer"] == interfaces["reader"] != interfaces["inner"]
    dial = f"[socket.create_connection(('{DEVICE}', {PORT}), 1)].pop().close()"
    assert crew["keeper"].do(dial) == "ENETUNREACH"
    # No rule of the plan is for this crew: it stands there, and may not use the road of another.
    assert crew["inner"].do(dial) in {"EPERM", "TimeoutError: timed out", "?"}


@in_namespaces
def test_a_store_is_seen_by_its_part_and_read_by_those_who_may(sealed: Stage) -> None:
    crew = sealed.spawn(*ALL, crew="toy/store")
    keeper, reader, outer = crew["keeper"], crew["reader"], crew["outer"]
    store = keeper.child.store
    assert reader.child.reads == {"keeper": store} and not outer.child.reads
    assert keeper.do(f"Path('{store}/fact').write_text('42')") == 2
    assert reader.do(f"Path('{store}/fact').read_text()") == "42"
    assert keeper.do(f"sorted(os.listdir('{Path(store).parent}'))") == ["keeper"]
    hard = os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC
    assert keeper.do(f"os.statvfs('{store}').f_flag & {hard | os.ST_RDONLY}") == hard
    assert reader.do(f"os.statvfs('{store}').f_flag & {os.ST_RDONLY}") == os.ST_RDONLY
    for deed in ("write_text('43')", "unlink()", "chmod(0o777)"):
        assert reader.do(f"Path('{store}/fact').{deed}") == "EROFS"
    assert reader.do(f"Path('{store}/new').touch()") == "EROFS"
    assert outer.do(f"os.listdir('{store}')") == "ENOENT"
    assert keeper.do("Path('/x').touch()") in {"EROFS", "EACCES"}
    found = Path(store, "fact").stat()
    assert (found.st_uid, found.st_mode & 0o777) == (keeper.do("os.getuid()"), 0o640)
    other = sealed.spawn(*PARTS, crew="toy/elsewhere")["keeper"]
    assert other.do(f"os.listdir('{store}')") == "ENOENT"
    assert other.do(f"os.listdir('{Path(store).parent.parent}')") == ["toy%2Felsewhere"]


@in_namespaces
def test_a_folder_of_the_sites_is_all_that_its_part_sees(sealed: Stage) -> None:
    part = sealed.spawn(PartOrder("one", folders=("counts",)), kind="site", crew="site/a")["one"]
    folder = Path(part.child.folders["counts"])
    os.chown(folder, -1, 64777)  # the group of those who leave files here
    sealed.end({"one": part})
    (folder / "left").write_text("7")
    os.chown(folder / "left", 64778, 64777)
    (folder / "left").chmod(0o640)
    (folder.parent / "other").mkdir()
    part = sealed.spawn(PartOrder("one", folders=("counts",)), kind="site", crew="site/a")["one"]
    close = "all(fact[1] for fact in sandbox.confine(Profile('toy', 'apart', Can.STORE, folders=True), [Path('{}')]))"
    assert part.do("os.getgroups()") == [64777]
    assert part.do(close.format(folder))
    assert part.do(f"Path('{folder}/left').read_text()") == "7"
    assert part.do(f"os.mkdir('{folder}/done')") is None
    assert part.do(f"os.rename('{folder}/left', '{folder}/done/left')") is None
    assert part.do(f"os.listdir('{folder.parent}')") == "EACCES"


@in_namespaces
def test_a_store_that_was_given_to_another_user_is_refused(sealed: Stage) -> None:
    crew = sealed.spawn(*PARTS, crew="toy/refused")
    user = crew["keeper"].do("os.getuid()")
    sealed.end(crew)
    os.chown(crew["keeper"].child.store, 64150, 64150)
    said = sealed.refused(*PARTS)
    assert f"belongs to user 64150, and its part runs as user {user}" in said and f"chown -R {user}:{user}" in said


@in_namespaces
def test_sqlite_and_duckdb_work_where_parts_stand(sealed: Stage) -> None:
    """With namespaces, users, limits, mounts, Landlock and the filter together: a keeper that writes, and a part that
    reads with threads."""
    crew = sealed.spawn(*ALL, crew="toy/bases")
    keeper, reader = crew["keeper"], crew["reader"]
    loads = "import duckdb, sqlite3\n"  # before the filter, as all of a part's modules
    for puppet in (keeper, reader):
        puppet.do(loads)
    store = keeper.child.store
    close = "all(fact[1] for fact in sandbox.confine(Profile('toy', 'apart', {}), {}))"
    assert keeper.do(close.format("Can.STORE, store=True", f"[Path('{store}')]"))
    keeper.do(f"""
base = sqlite3.connect('{store}/queue.db')
base.execute('PRAGMA journal_mode=WAL')
base.execute('PRAGMA synchronous=FULL')
base.execute('CREATE TABLE m (body TEXT)')
for number in range(50):
    with base:
        base.execute('INSERT INTO m VALUES (?)', ('x' * 99,))
""")
    assert keeper.do("base.execute('SELECT count(*) FROM m').fetchone()[0]") == 50
    copy = (
        "duckdb.connect(config={{'threads': 1}}).execute(\"COPY (FROM range(5000)) TO '{0}/x.parquet'\").fetchone()[0]"
    )
    sealed.end({"keeper": keeper})
    keeper = sealed.spawn(*PARTS, crew="toy/bases")["keeper"]  # DuckDB wants to be opened before the filter
    keeper.do(loads)
    assert keeper.do(copy.format(store)) == 5000
    assert reader.do("(base := duckdb.connect(config={'threads': 1}), globals().update(base=base))[1]") is None
    assert reader.do(close.format("Can.READ", f"None, [Path('{store}')]"))
    assert reader.do("base.execute('SET threads=4').fetchall()") == []
    assert reader.do(f"base.execute(\"SELECT count(*) FROM '{store}/x.parquet'\").fetchone()[0]") == 5000
    assert "IOException" in reader.do(f"str(base.execute(\"COPY (SELECT 1) TO '{store}/forged.parquet'\"))")
    assert not Path(store, "forged.parquet").exists()
