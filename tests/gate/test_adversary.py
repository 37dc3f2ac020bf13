"""What could end a running gate, or keep it from its duty: policies that are good but large or strange, processes that
stand still, and a state directory that others can write to."""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import signal
import socket
import stat
import struct
import time
from pathlib import Path

import pytest

from cofferdam.enforce import kernel
from cofferdam.enforce.orders import MAX_ORDER, MAX_PART, ORDERS, PLANS, REPORTS, Prepare, Prepared
from cofferdam.enforce.plans.records import NetworkPlan, Reach, SidePlan
from cofferdam.enforce.statefolder import _is_own_group, _on_the_way, _own, check_place
from cofferdam.errors import GateError
from cofferdam.gate.crew.launcher import LauncherLink
from tests.folders import others_get_into
from tests.gate.conftest import Site
from tests.gate.plant import Client, cli, events, refuses, running
from tests.gate.test_gate import served
from tests.waiting import PATIENT, eventually, kill

LONG = [f"{'z' * 28}{number}" for number in range(5)]
"""Names of zones that make a pair's name too long, put together."""


def with_zones(text: str, zones: list[str]) -> str:
    """The policy with more zones on the IT side that reach the same device, each by one address: 127.0.1.1, ..."""
    lines = {"zones:": "", "principals:": "", "conduits:": ""}
    for number, zone in enumerate(zones, 1):
        lines["zones:"] += f"  {zone}: {{side: it}}\n"
        lines["principals:"] += f"  host-{number}: {{zone: {zone}, addresses: [127.0.1.{number}]}}\n"
        lines["conduits:"] += (
            f"  way-{number}: {{from: {zone}, to: control, broker: modbus, owner: o, reason: r, "
            f"allow: [{{who: host-{number}, asset: plc, read: [level]}}]}}\n"
        )
    for section, more in lines.items():
        assert f"\n{section}\n" in text
        text = text.replace(f"\n{section}\n", f"\n{section}\n{more}")
    return text


def reads_from(port: int, source: str) -> bytes:
    """The answer to a read by a client with this address."""
    with Client(port, source=source) as client:
        return client.read()


def test_zones_that_share_a_device_are_all_served(site: Site) -> None:
    site.policy.write_text(with_zones(site.text(), ["office", "dmz"]))
    with running(site.state, site.policy) as gate:
        assert len(gate.status()["pairs"]) == 1
        for source in ("127.0.0.1", "127.0.1.1", "127.0.1.2"):
            assert reads_from(site.port, source) == b"\x03\x02\x00\x2a", source
        assert reads_from(site.port, "127.0.1.9")[0] & 0x80, "no zone has this address"


def test_a_reload_to_zones_of_long_names_is_taken(live: Site) -> None:
    live.policy.write_text(with_zones(live.text(), LONG))
    assert cli("check", live.policy)[0] == 0
    code, _, err = cli("reload", "--state", live.state)
    assert code == 0, err
    for number in range(1, 6):
        assert reads_from(live.port, f"127.0.1.{number}") == b"\x03\x02\x00\x2a"
    assert served(live.port)
    assert live.up.process.poll() is None


def test_a_reload_to_more_assets_than_a_pair_can_listen_for_changes_nothing(live: Site) -> None:
    before = live.up.status()
    text = live.text()
    assets = "".join(
        f"  a{number}: {{zone: control, address: 10.1.{number >> 8}.{number & 255}, protocol: modbus, unit: 1, "
        f'listen: "127.3.{number >> 8}.{number & 255}:{live.port}", points: {{p: {{at: holding 0, type: uint16}}}}}}\n'
        for number in range(4200)
    )
    names = ", ".join(f"a{number}" for number in range(4200))
    road = f"      - {{who: erp, asset: [{names}], read: [p]}}\n"
    text = text.replace("\nprincipals:\n", f"\n{assets}principals:\n").replace("    allow:\n", f"    allow:\n{road}")
    live.policy.write_text(text)
    code, _, err = cli("reload", "--state", live.state)
    assert code == 2 and "--pairs" in err
    assert served(live.port)
    after = live.up.status()
    assert after["policy"] == before["policy"]
    assert after["pairs"][0]["halves"][0]["pid"] == before["pairs"][0]["halves"][0]["pid"]


def test_a_gate_without_namespaces_does_not_take_a_policy_that_names_interfaces(live: Site) -> None:
    """It would say that a zone is bound to its interface, and it would not be."""
    live.policy.write_text(live.text().replace("{side: it}", "{side: it, interface: office0}"))
    code, _, err = cli("reload", "--state", live.state)
    assert code == 2
    assert "enterprise names an interface" in err and "separation: processes" in err
    assert served(live.port)
    live.policy.write_text(live.policy.read_text().replace("gate:\n", "gate:\n  separation: processes\n"))
    assert cli("reload", "--state", live.state)[0] == 0, "unless it says that this is meant"
    assert served(live.port)


def test_a_plan_larger_than_the_launchers_socket_arrives_whole_though_the_launcher_is_late() -> None:
    """Thousands of assets on a road: the parts wait for room, in order; nothing is lost and nothing is raised."""
    reaches = tuple(
        Reach("road", "control", (f"10.1.{n >> 8}.{n & 255}",), 502, "modbus/a-b", "inner") for n in range(20000)
    )
    plan = NetworkPlan("s", False, False, (SidePlan("it"), SidePlan("ot", reaches=reaches)))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    async def play() -> None:
        link = LauncherLink(ours, lambda _: None, lambda: None)
        try:
            call = asyncio.gather(link.prepare(plan))
            await asyncio.sleep(0.05)  # the launcher is busy, and the socket is full
            received, more, last = b"", True, 0
            while more:
                order = ORDERS.decode(await asyncio.to_thread(theirs.recv, MAX_ORDER + 1))
                assert isinstance(order, Prepare)
                received, more = received + order.part, order.more
                last = order.serial
            assert PLANS.decode(received) == plan
            theirs.send(REPORTS.encode(Prepared(last, "processes", ())))
            assert [prepared.isolation for prepared in await call] == ["processes"]
        finally:
            asyncio.get_running_loop().remove_reader(ours.fileno())

    with ours, theirs:
        theirs.settimeout(PATIENT)
        assert len(PLANS.encode(plan)) > 8 * MAX_PART
        asyncio.run(play())


# --- processes that stand still -------------------------------------------------------------------------------------


def test_halves_that_stand_still_are_ended_and_the_pair_serves_again(live: Site) -> None:
    stuck = live.up.pids()
    for role in ("outer", "inner"):
        kill(stuck[role], signal.SIGSTOP)
    eventually(lambda: served(live.port))
    assert not {stuck["outer"], stuck["inner"]} & set(live.up.pids().values())
    live.up.stop()
    assert {event["status"] for event in events(live.state, "half-died")} >= {-signal.SIGKILL}


@pytest.mark.soak
def test_a_gate_that_stood_still_does_not_take_its_own_pause_for_that_of_the_halves(live: Site) -> None:
    before = live.up.pids()
    kill(before["gate"], signal.SIGSTOP)
    time.sleep(6)
    assert served(live.port)
    kill(before["gate"], signal.SIGCONT)
    time.sleep(3)
    assert live.up.pids() == before


@pytest.mark.soak
def test_a_gate_that_stands_still_for_good_ends_everything(live: Site) -> None:
    """Nobody could sever a side any more."""
    kill(live.up.pid("gate"), signal.SIGSTOP)
    assert live.up.process.wait(PATIENT) == 2
    assert "has not been heard from" in live.up.said()
    assert not served(live.port)


@pytest.mark.soak
def test_a_launcher_that_stood_still_does_not_take_its_own_pause_for_that_of_the_gate(live: Site) -> None:
    live.up.process.send_signal(signal.SIGSTOP)
    time.sleep(13)
    live.up.process.send_signal(signal.SIGCONT)
    time.sleep(3)
    assert live.up.process.poll() is None, live.up.said()
    assert served(live.port)


# --- the state directory --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_a_state_directory_that_others_can_write_to_is_refused(site: Site, mode: int) -> None:
    site.state.mkdir()
    site.state.chmod(mode)
    code, err = refuses(site.state, site.policy)
    assert code == 2 and "can be written to by others" in err and "chmod 700" in err
    code, out, _ = cli("up", site.policy, "--state", site.state, "--check-only")
    assert code == 1 and "can be written to by others" in out
    assert list(site.state.iterdir()) == [], "nothing was put where others could swap it"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a directory to a group")
@pytest.mark.parametrize("mode", [0o775, 0o757, 0o2770])
def test_a_state_directory_that_others_can_put_out_of_its_place_is_refused(
    site: Site, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They put another there, and answered root's commands: a severing was told that was none."""
    shared = site.folder / "shared"
    shared.mkdir()
    os.chown(shared, 0, 12345)
    shared.chmod(mode)
    (site.folder / "link").symlink_to(shared / "state")
    for state in (shared / "state", shared / "deep" / "state", site.folder / "link"):
        code, err = refuses(state, site.policy)
        assert code == 2 and "can be put out of its place by others" in err and f"chmod go-w {shared}" in err
    shared.chmod(mode | 0o1000)
    assert not list(_on_the_way(shared / "state")), "the sticky bit keeps others from it"
    shared.chmod(mode & ~0o022)
    assert not list(_on_the_way(shared / "state"))
    os.chown(shared, 12345, 12345)
    assert list(_on_the_way(shared / "state")) == [shared]
    monkeypatch.setenv("SUDO_UID", "12345")
    assert not list(_on_the_way(shared / "state")), "who calls root by sudo is root in the end"
    monkeypatch.delenv("SUDO_UID")
    os.chown(shared, 65534, 0)
    if Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]:
        assert list(_on_the_way(shared / "state")) == [shared], "nobody is a user, too, but in a user namespace"
    os.chown(shared, 0, 0)
    os.lchown(site.folder / "link", 12345, 12345)
    assert list(_on_the_way(site.folder / "link")) == [site.folder / "link"]
    os.lchown(site.folder / "link", 0, 0)
    (site.folder / "kept").mkdir()
    (shared / "inner").symlink_to(site.folder / "kept" / "state")
    (site.folder / "outer").symlink_to(shared / "inner")
    assert not list(_on_the_way(site.folder / "outer"))
    shared.chmod(0o757)
    assert list(_on_the_way(site.folder / "outer")) == [shared], "a link that a link leads to is theirs to change"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a directory to a group")
def test_a_sticky_state_directory_is_nobodys_but_the_gates(site: Site) -> None:
    """Members of a group laid ready what stands in it: a grant that nobody had agreed to opened its conduit."""
    site.state.mkdir()
    os.chown(site.state, 0, grp.getgrnam("users").gr_gid)
    site.state.chmod(0o1770)
    code, err = refuses(site.state, site.policy)
    assert code == 2 and "can be written to by others" in err
    os.chown(site.state, 0, 64_000)  # as a gate of root's leaves it
    _own(site.state)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to name others in an access list")
def test_what_is_made_in_a_state_directory_is_nobody_elses_by_an_access_list(site: Site) -> None:
    """The list that a folder has for what is made in it let a user of no group sever, lay a grant ready, and remove
    files of the log: a mode is no more than the most that it allows."""
    entries = [(1, 7, 2**32 - 1), (2, 7, 12345), (4, 7, 2**32 - 1), (16, 7, 2**32 - 1), (32, 5, 2**32 - 1)]
    listed = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(site.folder, "system.posix_acl_default", listed)
    except OSError:
        pytest.skip("this file system has no access lists")
    with running(site.state, site.policy, "--look", "games"):
        for path in (site.state, site.state / "look.sock", site.state / "audit", site.state / "audit" / "tile"):
            assert not [name for name in os.listxattr(path) if "acl" in name], path
    for name in ("system.posix_acl_default", "system.posix_acl_access"):
        os.setxattr(site.state, name, listed)
        site.state.chmod(0o700)
        code, err = refuses(site.state, site.policy)
        assert code == 2 and f"setfacl -R -b -k {site.state}" in err, err
        os.removexattr(site.state, name)


@pytest.mark.parametrize("what", ["pipe", "second name"])
def test_a_lock_that_is_no_file_of_its_own_is_refused(site: Site, what: str) -> None:
    site.state.mkdir(0o700)
    other = site.folder / "other"
    other.write_text("precious")
    os.mkfifo(site.state / "lock") if what == "pipe" else os.link(other, site.state / "lock")
    code, err = refuses(site.state, site.policy)
    assert code == 2 and "it is no plain file" in err and "Traceback" not in err
    assert other.read_text() == "precious"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to name others in an access list")
@pytest.mark.parametrize(
    ("tag", "may", "most", "others"),
    [(2, 7, 7, True), (8, 7, 7, True), (2, 5, 7, False), (2, 7, 5, False), (8, 5, 7, False)],
)
def test_who_an_access_list_names_can_put_a_state_directory_out_of_its_place(
    tmp_path: Path, tag: int, may: int, most: int, others: bool
) -> None:
    entries = [(1, 7, 2**32 - 1), (4, 5, 2**32 - 1), (16, most, 2**32 - 1), (32, 5, 2**32 - 1), (tag, may, 12345)]
    listed = b"".join(struct.pack("<HHI", *entry) for entry in sorted(entries))
    try:
        os.setxattr(tmp_path, "system.posix_acl_access", struct.pack("<I", 2) + listed)
    except OSError:
        pytest.skip("this file system has no access lists")
    assert list(_on_the_way(tmp_path / "state")) == [tmp_path] * others


def test_whose_a_group_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many machines have a user in their own group by name, too; and some have others in root's."""
    users = {"root": 0, "anna": 1000, "bob": 1001}
    groups = {0: ("root", ["bob"]), 1000: ("anna", ["anna", "gone"]), 1001: ("bob", []), 1002: ("anna", ["bob"])}

    def user(name: str) -> pwd.struct_passwd:
        return pwd.struct_passwd((name, "x", users[name], 0, "", "", ""))

    born = {0: 0, 1000: 1000, 1001: 1001}
    monkeypatch.setattr(pwd, "getpwnam", user)
    monkeypatch.setattr(
        pwd, "getpwall", lambda: [pwd.struct_passwd(("", "x", uid, gid, "", "", "")) for uid, gid in born.items()]
    )
    monkeypatch.setattr(
        grp, "getgrgid", lambda number: grp.struct_group((groups[number][0], "x", number, groups[number][1]))
    )
    assert [_is_own_group(number, {0, 1000}) for number in (0, 1000, 1001, 1002, 7)] == [
        False,
        True,
        False,
        False,
        False,
    ]
    groups[0] = ("root", ["root", "anna"])
    assert _is_own_group(0, {0, 1000})
    born[1003] = 1000  # no line of a group names whom it is the first group of
    assert not _is_own_group(1000, {0, 1000})


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a directory to somebody else")
def test_a_state_directory_of_somebody_else_is_refused(site: Site) -> None:
    site.state.mkdir(0o700)
    os.chown(site.state, 65534, 65534)
    code, err = refuses(site.state, site.policy)
    assert code == 2 and "chown" in err
    assert list(site.state.iterdir()) == []


def test_what_somebody_planted_in_the_state_directory_is_not_followed(live: Site) -> None:
    victim = live.folder / "victim"
    victim.write_text("precious")
    (live.state / "severed.json.new").symlink_to(victim)
    assert cli("sever", "it", "--state", live.state)[0] == 0
    assert victim.read_text() == "precious"
    assert stat.S_ISREG((live.state / "severed.json").lstat().st_mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can map other users")
def test_nobody_of_a_container_owns_what_leads_to_no_state_folder() -> None:
    """Its root is another than the machine's, and it has the user by which what is nobody's there is shown."""
    with others_get_into() as folder:
        first, nobody = 100_000, 65_534
        theirs, state = folder / "theirs", folder / "theirs" / "state"
        state.mkdir(mode=0o700, parents=True)
        for path, owner in ((state, first), (theirs, first + nobody), (folder, first)):
            os.chown(path, owner, owner)
        ready, go, said = os.pipe(), os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                kernel.unshare(0x10000000)  # CLONE_NEWUSER
                os.write(ready[1], b"x")
                os.read(go[0], 1)
                os.setresgid(0, 0, 0)
                os.setresuid(0, 0, 0)
                check_place(state)
            except BaseException as error:
                os.write(said[1], str(error).encode())
            finally:
                os._exit(0)
        os.close(ready[1])
        assert os.read(ready[0], 1)
        for which in ("uid_map", "gid_map"):
            Path(f"/proc/{pid}/{which}").write_text(f"0 {first} 65536")
        os.write(go[1], b"x")
        os.waitpid(pid, 0)
        os.close(said[1])
        with os.fdopen(said[0]) as words:
            assert f"others, who may write to {theirs}" in words.read()
        for fd in (ready[0], *go):
            os.close(fd)


@pytest.mark.parametrize("leads", ["b", "a/x", "../a"])
def test_links_in_a_circle_end(tmp_path: Path, leads: str) -> None:
    """`cofferdam up` went round for ever, and with some of them took all memory."""
    for name, to in (("a", leads), ("b", "a")):
        (tmp_path / name).symlink_to(to if to != "../a" else f"../{tmp_path.name}/a")
    for state in (tmp_path / "a", tmp_path / "a" / "state"):
        signal.alarm(int(PATIENT))
        try:
            with pytest.raises(GateError, match="cannot use the state directory"):
                check_place(state)
        finally:
            signal.alarm(0)
