"""The classes of system calls, one by one: under the real filter and Landlock, each lets its own deeds through and no
other's, and some deeds no class lets through."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import socket
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest

from cofferdam.enforce import bpf, sandbox
from cofferdam.enforce.profile import Can, Profile
from cofferdam.enforce.syscalls import NUMBERS
from tests.enforce import hostile

pytestmark = pytest.mark.skipif(platform.machine() not in NUMBERS, reason="no filter is written for this processor")
CLASSES = [Can.NOTHING, *(flag | Can.STORE if flag is Can.FEED else flag for flag in Can)]
FILES = Can.STORE | Can.READ
REFUSED = {"EPERM", "SIGSYS", "EACCES"}
MSG_FASTOPEN, TCP_USER_TIMEOUT = 0x20000000, 18


class Scene:
    """What a part may have from before: sockets of every kind, a store, and a folder that it may read."""

    def __init__(self, folder: Path) -> None:
        self.store, self.reads = folder / "store", folder / "reads"
        self.store.mkdir()
        self.reads.mkdir()
        (self.reads / "fact").write_text("42")
        (self.store / "old").write_text("old")
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.waits = socket.create_connection(self.listener.getsockname())
        self.device = socket.create_server(("127.0.0.1", 0))
        self.ours = socket.create_connection(self.device.getsockname())
        self.peer, _ = self.device.accept()
        self.peer.sendall(b"hello")
        self.datagrams, self.far = (socket.socket(type=socket.SOCK_DGRAM) for _ in range(2))
        for one in (self.datagrams, self.far):
            one.bind(("127.0.0.1", 0))
        self.far.sendto(b"hello", self.datagrams.getsockname())
        self.unbound, self.portless = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)

    def close(self) -> None:
        for one in (self.listener, self.waits, self.device, self.ours, self.peer, self.datagrams, self.far,
                    self.unbound, self.portless):  # fmt: skip
            one.close()

    def deeds(self) -> dict[str, tuple[Callable[[], object], Can]]:
        """Each deed, and the classes that let it through."""
        store, fact = self.store, self.reads / "fact"
        both = Can.STREAM | Can.DATAGRAMS
        return {
            "accept": (self.listener.accept, Can.ACCEPT),
            "dial": (self._dial, Can.DIAL_TCP),
            "recv": (lambda: self.ours.recv(1), both),
            "send": (lambda: self.ours.send(b"x"), both),
            "take a datagram": (lambda: self.datagrams.recvfrom(9), Can.DATAGRAMS),
            "send a datagram": (lambda: self.datagrams.sendto(b"x", self.far.getsockname()), Can.DATAGRAMS),
            "dial by sending": (
                lambda: self.unbound.sendto(b"x", MSG_FASTOPEN, self.device.getsockname()), Can.NOTHING,
            ),
            "keep alive": (self._keep_alive, Can.KEEPALIVE),
            "reuse a port": (lambda: self.ours.setsockopt(socket.SOL_SOCKET, 15, 1), Can.NOTHING),
            "UDP socket": (self._dial_udp, Can.DIAL_UDP),
            "ask for an echo": (self._ping, Can.PING),
            "bind a UDP port": (lambda: self.portless.bind(("127.0.0.1", 0)), Can.BIND_UDP),
            "bind a TCP port": (lambda: self.unbound.bind(("127.0.0.1", 0)), Can.NOTHING),
            "listen": (lambda: hostile.call("listen", self.unbound.fileno(), 5), Can.NOTHING),
            "write in the store": (lambda: (store / "new").write_text("x"), Can.STORE),
            "replace": (lambda: (store / "old").replace(store / "new"), Can.STORE),
            "make and remove a folder": (self._folder, Can.STORE),
            "make it last": (self._lasting, Can.STORE),
            "read": (fact.read_text, FILES),
            "list": (lambda: list(self.reads.iterdir()), FILES),
            "write what it reads": (lambda: fact.write_text("43"), Can.NOTHING),
            "remove what it reads": (fact.unlink, Can.NOTHING),
            "write beside": (lambda: (store.parent / "x").write_text("x"), Can.NOTHING),
            "read elsewhere": (lambda: Path("/etc/passwd").read_text(), Can.NOTHING),
            "symbolic link": (lambda: (store / "link").symlink_to("/etc/passwd"), Can.NOTHING),
            "hard link": (lambda: (store / "link").hardlink_to(store / "old"), Can.NOTHING),
            "named pipe": (self._pipe, Can.FEED),
            "named socket": (lambda: os.mknod(store / "socket", stat.S_IFSOCK | 0o600), Can.NOTHING),
            "change times": (lambda: os.utime(store / "old"), Can.NOTHING),
            "thread": (self._thread, Can.READ),
            "fork": (hostile.fork, Can.NOTHING),
            "start a program": (lambda: os.execv("/bin/true", ["true"]), Can.NOTHING),
            "pass a descriptor": (lambda: socket.send_fds(self.ours, [b"x"], [0]), Can.NOTHING),
        }  # fmt: skip

    def _pipe(self) -> None:
        os.mkfifo(self.store / "pipe")
        fd = os.open(self.store / "pipe", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, 8192)
        if os.write(fd, b"x" * 8192) != 8192 or os.read(fd, 1) != b"x":
            raise RuntimeError("it has no room")

    def _dial(self) -> None:
        with socket.socket() as sock:
            sock.connect(self.device.getsockname())
            os.write(sock.fileno(), b"x")

    def _dial_udp(self) -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.connect(self.far.getsockname())
            os.write(sock.fileno(), b"x")

    @staticmethod
    def _ping() -> None:
        """The filter says EPERM, and the kernel to whose group it gives none: EACCES."""
        try:
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP).close()
        except PermissionError as error:
            if error.errno != errno.EACCES:
                raise

    def _keep_alive(self) -> None:
        self.ours.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, TCP_USER_TIMEOUT):
            self.ours.setsockopt(socket.IPPROTO_TCP, option, 5)

    def _folder(self) -> None:
        (self.store / "folder").mkdir()
        (self.store / "old").rename(self.store / "folder" / "old")
        (self.store / "folder" / "old").unlink()
        (self.store / "folder").rmdir()

    def _lasting(self) -> None:
        fd = os.open(self.store / "new", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.posix_fallocate(fd, 0, 8192)
        os.pwrite(fd, b"x", 4096)
        os.ftruncate(fd, 4097)
        os.fsync(fd)
        os.fdatasync(fd)
        if os.pread(fd, 1, 4096) != b"x" or os.statvfs(self.store).f_bavail < 0:
            raise RuntimeError("it was not written")

    @staticmethod
    def _thread() -> None:
        done: list[int] = []
        thread = threading.Thread(target=done.append, args=(1,))
        thread.start()
        thread.join()
        if not done:
            raise RuntimeError("it did not run")


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.close()


def part(can: Can) -> Profile:
    return Profile("test", "apart", can, store=Can.STORE in can)


def closed(scene: Scene, can: Can) -> Callable[[], None]:
    store = scene.store if Can.STORE in can else None
    return hostile.confined(part(can), store, [scene.reads] if can & FILES else [])


@pytest.mark.parametrize("can", CLASSES, ids=lambda can: can.name)
def test_a_class_lets_its_own_deeds_through_and_no_others(can: Can, tmp_path: Path) -> None:
    wrong = []
    for number, name in enumerate(_names(tmp_path / "names")):
        folder = tmp_path / str(number)  # each deed has a scene that no other has changed
        folder.mkdir()
        scene = Scene(folder)
        try:
            deed, needs = scene.deeds()[name]
            outcome = hostile.attempt(closed(scene, can), deed)
        finally:
            scene.close()
        if (outcome != "done") if can & needs else (outcome not in REFUSED):
            wrong.append(f"{name}: {outcome}")
    assert not wrong


def _names(folder: Path) -> list[str]:
    folder.mkdir()
    scene = Scene(folder)
    scene.close()
    return list(scene.deeds())


def test_the_deeds_are_real(tmp_path: Path) -> None:
    """Without a filter every one of them is done."""
    failed = {}
    for number, name in enumerate(_names(tmp_path / "names")):
        folder = tmp_path / str(number)
        folder.mkdir()
        scene = Scene(folder)
        try:
            outcome = hostile.attempt(lambda: None, scene.deeds()[name][0])
        finally:
            scene.close()
        if name != "start a program" and outcome != "done":
            failed[name] = outcome
    assert not failed


def test_named_pipes_are_made_in_the_store_and_in_no_folder_of_the_sites(scene: Scene) -> None:
    folder = scene.store.parent / "site"
    folder.mkdir()

    def setup() -> None:
        facts = sandbox.confine(part(Can.STORE | Can.FEED), (scene.store, folder))
        if not all(there for _, there, _ in facts):
            raise RuntimeError(str(facts))

    assert hostile.attempt(setup, lambda: os.mkfifo(scene.store / "pipe")) == "done"
    assert hostile.attempt(setup, lambda: os.mkfifo(folder / "pipe")) in REFUSED
    assert hostile.attempt(setup, lambda: (folder / "file").write_text("x")) == "done"


def test_a_store_that_the_profile_does_not_have(scene: Scene) -> None:
    with pytest.raises(ValueError, match="do not fit the profile test"):
        sandbox.confine(part(Can.ACCEPT), [scene.store])
    with pytest.raises(ValueError, match="do not fit"):
        sandbox.confine(part(Can.STORE))
    with pytest.raises(ValueError, match="do not fit"):
        sandbox.confine(part(Can.ACCEPT), (), [scene.reads])
    with pytest.raises(ValueError, match="but not both"):
        Profile("test", "apart", Can.STORE)
    with pytest.raises(ValueError, match="named pipes and has no store"):
        Profile("test", "apart", Can.FEED)
    with pytest.raises(ValueError, match="may open no file"):
        Profile("test", "apart", Can.ACCEPT, reads=("keeper",))


def test_sqlite_keeps_a_durable_queue_in_a_store(scene: Scene) -> None:
    path = scene.store / "queue.db"

    def work() -> None:
        base = sqlite3.connect(path)
        base.execute("PRAGMA journal_mode=WAL")
        base.execute("PRAGMA synchronous=FULL")
        base.execute("CREATE TABLE message (id INTEGER PRIMARY KEY, body BLOB)")
        for _ in range(50):
            with base:
                base.executemany("INSERT INTO message (body) VALUES (?)", [(b"x" * 500,)] * 20)
        base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        base.execute("VACUUM")
        base.close()

    assert hostile.attempt(closed(scene, Can.STORE), work) == "done"
    with sqlite3.connect(path) as base:
        assert base.execute("SELECT count(*) FROM message").fetchone() == (1000,)
        assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    base.close()


def test_duckdb_writes_in_a_store_and_another_part_reads_it_with_threads(scene: Scene) -> None:
    """As a keeper and the part that serves readers: the second sees the first one's folder and cannot change it."""

    def connect(threads: int) -> duckdb.DuckDBPyConnection:
        return duckdb.connect(
            ":memory:", config={"threads": threads, "temp_directory": "", "autoinstall_known_extensions": False}
        )

    held = connect(1)

    def write() -> None:
        held.execute("CREATE TABLE sample AS SELECT range AS at, sin(range) AS value FROM range(200000)")
        held.execute(f"COPY sample TO '{scene.store / 'hour.parquet'}' (FORMAT parquet)")

    assert hostile.attempt(closed(scene, Can.STORE), write) == "done"
    files = [scene.store / "hour.parquet"]
    reader = hostile.confined(part(Can.READ), None, [scene.store])
    read = connect(1)

    def look() -> None:
        read.execute("SET threads=4")
        count, total = read.execute(f"SELECT count(*), sum(value) FROM read_parquet('{files[0]}')").fetchall()[0]
        if count != 200000 or not -10 < total < 10:
            raise RuntimeError(f"{count} rows with the sum {total}")

    def undo() -> None:
        read.execute(f"COPY (SELECT 1) TO '{scene.store / 'forged.parquet'}' (FORMAT parquet)")

    assert hostile.attempt(reader, look) == "done"
    assert "Operation not permitted" in hostile.attempt(reader, undo)
    assert sorted(path.name for path in scene.store.iterdir()) == ["hour.parquet", "old"]


@pytest.mark.parametrize("machine", sorted(NUMBERS))
def test_the_program_tells_a_null_pointer_from_half_of_one(machine: str) -> None:
    """An address of which only the lower half is zero is still an address."""
    code, numbers, arch = sandbox.program(Can.STREAM, machine, 1), NUMBERS[machine], bpf.AUDIT_ARCH[machine]

    def verdict(name: str, *arguments: int) -> int:
        return bpf.run(code, arch, numbers[name], arguments)

    assert verdict("recvfrom", 3, 4096, 1, 0, 0, 0) == bpf.ALLOW == verdict("sendto", 3, 4096, 1, 0, 0, 0)
    for address in (1, 1 << 32, 0x7F00_0000_0000, 0x7FFF_DEAD_BEEF):
        assert verdict("recvfrom", 3, 4096, 1, 0, address, 0) == bpf.KILL
        assert verdict("recvfrom", 3, 4096, 1, 0, 0, address) == bpf.KILL
        assert verdict("sendto", 3, 4096, 1, 0, address, 16) == bpf.KILL
    assert verdict("sendto", 3, 4096, 1, MSG_FASTOPEN, 0, 0) == bpf.KILL


@pytest.mark.parametrize("machine", sorted(NUMBERS))
def test_the_program_lets_threads_be_made_and_nothing_else(machine: str) -> None:
    code, numbers, arch = sandbox.program(Can.READ, machine, 1), NUMBERS[machine], bpf.AUDIT_ARCH[machine]

    def verdict(name: str, *arguments: int) -> int:
        return bpf.run(code, arch, numbers[name], arguments)

    assert verdict("clone", 0x3D0F00) == bpf.ALLOW and verdict("clone3") == bpf.fail_with(38)
    for flags in (17, 0x10000000 | 17, 0x3D0F00 | 0x10000000, 0x3D0F00 | 0x40000000, 0x100):
        assert verdict("clone", flags) == bpf.KILL
    assert verdict("openat", 3, 4096, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY) == bpf.ALLOW
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC, os.O_WRONLY | os.O_APPEND, os.O_TMPFILE):
        assert verdict("openat", 3, 4096, flags) == bpf.fail_with(1), oct(flags)
