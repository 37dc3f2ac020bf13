"""The jump server while its keeper is away: who is at work goes on, nobody comes in, and the next keeper finds all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cofferdam.errors import GateError
from cofferdam.gate.client import ask
from tests.brokers.jump.site import THERE, JumpSite, ends, reads_until, stops
from tests.gate.plant import events
from tests.gate.test_jump_ports import written_by
from tests.waiting import eventually, kill

pytestmark = pytest.mark.skipif(not THERE, reason="there is no OpenSSH (Debian: openssh-server, openssh-client)")
MUCH = 6 << 20
AWAY = b"the gate's keeper is away"
KILLS = int(os.environ.get("COFFERDAM_SOAK_KILLS", "20"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JumpSite]:
    made = JumpSite(tmp_path_factory.mktemp("jump"), free="files: {rate: 1 MB}")
    with made.running():
        yield made


def says(process: subprocess.Popen[bytes], words: bytes) -> None:
    """What is typed at a program that gives it back."""
    assert process.stdin is not None
    process.stdin.write(words + b"\n")
    process.stdin.flush()
    reads_until(process, words)


def others(site: JumpSite) -> dict[str, int]:
    return {part: pid for part, pid in site.gate.pids().items() if part != "keeper"}


def comes_again(site: JumpSite, before: int) -> None:
    eventually(lambda: site.gate.pids().get("keeper", before) != before)


@contextlib.contextmanager
def away(site: JumpSite) -> Iterator[None]:
    """The keeper is killed, and cannot be born again until this is over: its store is not there."""
    (database,) = site.state.rglob("access.db")
    store, aside = database.parent, site.folder / "aside"
    store.rename(aside)
    store.write_text("")
    kill(site.gate.pid("keeper"))
    try:
        eventually(lambda: "is no folder" in json.dumps(site.gate.status()["alarms"]))
        yield
    finally:
        store.unlink()
        aside.rename(store)
        eventually(lambda: works_again(site))
    eventually(lambda: "crew-held" not in json.dumps(site.gate.status()["alarms"]))


def works_again(site: JumpSite) -> bool:
    try:
        return bool(site.ask("people"))
    except (AssertionError, GateError):
        return False


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_who_is_at_work_goes_on(site: JumpSite) -> None:
    """A program, a terminal, and a file that goes up: through the gap and beyond. Nobody signs in meanwhile; an
    operator ends one session, and the next keeper another."""
    load = site.folder / "load"
    load.write_bytes(data := os.urandom(MUCH))
    cat = site.begins("tech", "station", "cat")
    shell = site.begins("tech", "station", more=("-tt",))
    killed = site.begins("tech", "station", "cat")
    number = max(one["number"] for one in site.sessions())
    copy = subprocess.Popen(
        ["scp", *site.options("tech"), "-P", str(site.door), str(load), f"station@127.0.0.1:{site.files}/load"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=site.environment("tech"),
    )  # fmt: skip
    eventually(lambda: any(one.stat().st_size for one in site.files.glob(".load.cofferdam-*")))
    before, there = others(site), {one["session"] for one in site.sessions()}
    assert len(there) == 4
    ended = {one["session"] for one in events(site.state, "access-ended")}
    code = site.code("tech")
    with away(site):
        assert copy.poll() is None
        says(cat, b"while it is away")
        says(shell, b"echo at a terminal")
        refused = site.ssh("tech", "station", "echo never", code=code)
        assert (refused.returncode, AWAY in refused.stderr, refused.stdout) == (255, True, b""), refused.stderr
        listed = json.loads(site.jump("sessions", "--json"))
        assert {one["session"] for one in listed} == there
        assert all(one["line"].endswith("the keeper is away") for one in listed)
        status = site.gate.status()
        assert not status["pairs"][0]["working"]
        told = site.jump("kill", str(number), "--reason", "seen enough")
        assert "is ended; nobody is barred, since the keeper is away" in told
        ends(killed)
        assert killed.returncode == 1
        assert "keeper does not run now" in site.jump("requests", code=2)
    assert others(site) == before
    (gone,) = there - {one["session"] for one in site.sessions()}
    eventually(lambda: gone in {one["session"] for one in events(site.state, "access-ended")})
    (entry,) = [one for one in events(site.state, "access-ended") if one["session"] == gone]
    assert entry["reason"].endswith(": seen enough") and entry["person"] == "tech"
    assert {one["session"] for one in events(site.state, "access-ended")} == ended | {gone}
    says(cat, b"after")
    says(shell, b"echo after")
    again = site.ssh("tech", "station", "echo again")
    assert again.stdout == b"again\n", again.stderr
    said = ends(copy)
    assert copy.returncode == 0, said
    assert digest((site.files / "load").read_bytes()) == digest(data)
    (old,) = [one for one in site.sessions() if one["what"] == "shell"]
    site.jump("kill", str(old["number"]), "--bar", "none")
    assert b"ended by" in ends(shell)
    says(cat, b"it is not ended")
    stops(cat)
    eventually(lambda: not site.sessions())


def nested(site: JumpSite) -> subprocess.Popen[bytes]:
    """`ssh -J gate station cat`."""
    config = site.folder / "config"
    config.write_text(
        f"Host gate\n HostName 127.0.0.1\n Port {site.door}\n User tech\n"
        f"Host station\n HostName station\n ProxyJump gate\n User {site.login}\n"
        f"Host *\n IdentityFile {site.folder}/tech\n IdentitiesOnly yes\n StrictHostKeyChecking no\n"
        f" UserKnownHostsFile {site.folder}/any\n LogLevel ERROR\n"
    )
    process = subprocess.Popen(
        ["ssh", "-F", str(config), "station", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, env=site.environment("tech"),
    )  # fmt: skip
    says(process, b"within another")
    return process


def test_a_connection_within_another_and_one_that_is_shared(site: JumpSite) -> None:
    """Both go on. Whoever wants another session by a connection of before signs in anew, and loses none by asking."""
    inside = nested(site)
    control = ("-o", f"ControlPath={site.folder}/shared", "-o", "ControlMaster=auto")
    shared = site.begins("tech", "station", "cat", more=control)
    says(shared, b"shared")
    before = site.gate.pid("keeper")
    kill(before)
    comes_again(site, before)
    eventually(lambda: len(site.sessions()) == 2)
    more = site.ssh("tech", "station", "echo more", more=control)
    assert (more.returncode, b"sign in anew" in more.stderr) == (1, True), more.stderr
    says(inside, b"still within")
    says(shared, b"still shared")
    stops(shared)
    eventually(lambda: len(site.sessions()) == 1)
    (left,) = site.sessions()
    site.jump("kill", str(left["number"]), "--bar", "none")
    ends(inside)
    eventually(lambda: not site.sessions())


def test_who_goes_while_it_is_away_is_gone_for_the_next_one(site: JumpSite) -> None:
    """Its entry says what was carried."""
    cat = site.begins("tech", "station", "cat")
    says(cat, b"a word")
    (session,) = site.sessions()
    with away(site):
        stops(cat)
        eventually(lambda: json.loads(site.jump("sessions", "--json")) == [])
    eventually(lambda: events(site.state, "access-ended")[-1]["session"] == session["session"])
    entry = events(site.state, "access-ended")[-1]
    assert (entry["sent"], entry["received"]) == (7, 7)
    assert site.sessions() == []


def test_a_policy_that_comes_while_it_is_away_ends_all(site: JumpSite) -> None:
    cat = site.begins("tech", "station", "cat")
    says(cat, b"a word")
    with away(site):
        ask(site.state, "reload")
        assert b"the policy was loaded, and the gate's keeper" in ends(cat)
    assert site.sessions() == []
    assert site.ssh("tech", "station", "echo again").stdout == b"again\n"


def test_a_policy_that_comes_while_it_hangs_ends_all_if_it_does_not_come_again(site: JumpSite) -> None:
    """The others have heard of the policy before they hear that nobody has judged by it."""
    cat = site.begins("tech", "station", "cat")
    says(cat, b"a word")
    (database,) = site.state.rglob("access.db")
    store, aside = database.parent, site.folder / "aside"
    kill(site.gate.pid("keeper"), signal.SIGSTOP)
    store.rename(aside)
    store.write_text("")
    try:
        ask(site.state, "reload")  # which waits for it, until it is ended
        assert b"the policy was loaded, and the gate's keeper" in ends(cat)
    finally:
        store.unlink()
        aside.rename(store)
    eventually(lambda: works_again(site))
    assert site.sessions() == []


def test_a_watched_session_ends_with_who_could_tell_that_it_is(site: JumpSite) -> None:
    site.person("guest", "guests")
    asked = site.ssh("guest", "guest", "request station 1h a look").stdout.decode().split()[1]
    assert "is granted" in site.jump("approve", asked, "--key", str(site.folder / "lead"))
    guest = site.begins("guest", "station", "cat")
    number = next(one["number"] for one in site.sessions() if one["person"] == "guest")
    watcher = site.start("lead", "lead", f"watch {number}")
    reads_until(watcher, b"you watch guest")
    says(guest, b"somebody looks on")
    kill(before := site.gate.pid("keeper"))
    assert b"nobody watches any more" in ends(guest)
    assert AWAY in ends(watcher)
    comes_again(site, before)
    eventually(lambda: not site.sessions())


def test_a_side_is_severed_without_it(site: JumpSite) -> None:
    cat = site.begins("tech", "station", "cat")
    says(cat, b"a word")
    with away(site):
        ask(site.state, "sever", side="ot", reason="a drill")
        ends(cat)
        ask(site.state, "restore", side="ot")
    site.gate.wait_ready()
    eventually(lambda: works_again(site))
    assert not site.sessions()
    assert site.ssh("tech", "station", "echo again").stdout == b"again\n"


def test_a_key_exchange_that_is_due_waits_for_it(site: JumpSite) -> None:
    """Nobody else could sign it. What was said meanwhile arrives."""
    cat = site.begins("tech", "station", "cat", more=("-o", "RekeyLimit=16K"))
    says(cat, b"a word")
    assert cat.stdin is not None
    with away(site):
        cat.stdin.write(b"much of it\n" * 6_000)
        cat.stdin.flush()
    says(cat, b"the last word")
    stops(cat)
    eventually(lambda: not site.sessions())


@pytest.mark.skipif(os.geteuid() != 0, reason="writing into another process's pipe takes root")
def test_a_part_that_breaks_the_rules_does_not_go_on(site: JumpSite) -> None:
    """The keeper ends by that, and whoever made it end with it."""
    cat = site.begins("tech", "station", "cat")
    says(cat, b"a word")
    before = site.gate.pids()
    with written_by(before["outer"], before["keeper"]) as pipe:
        os.write(pipe, b"\0\0\1\xc1")
    ends(cat)
    eventually(lambda: works_again(site))
    after = site.gate.pids()
    assert all(before[part] != after[part] for part in ("outer", "inner", "archivist", "keeper"))
    assert not site.sessions()
    assert events(site.state, "record-violation")


def test_what_cannot_be_recorded_ends_without_it_as_well(site: JumpSite) -> None:
    cat = site.begins("tech", "station", "cat")
    says(cat, b"a word")
    (recordings,) = site.state.rglob("archivist/recordings")
    aside = site.folder / "recordings"
    with away(site):
        recordings.rename(aside)
        try:
            assert b"cannot be recorded" in ends(cat)
        finally:
            aside.rename(recordings)
    assert not site.sessions()


@pytest.mark.soak
def test_a_grant_ends_at_its_time_without_it(site: JumpSite) -> None:
    """A minute: there are no shorter ones."""
    asked = site.ssh("vendor", "vendor", "request station 1m a look").stdout.decode().split()[1]
    assert b"is granted" in site.ssh("lead", "lead", f"approve {asked}").stdout
    cat = site.begins("vendor", "station", "cat")
    says(cat, b"a word")
    with away(site):
        assert b"its time is over" in ends(cat)
    assert not site.sessions()
    assert b"it takes an approval" in site.ssh("vendor", "station", "echo never").stderr


def faults(pid: int) -> None:
    """It does what no process may, as where a library stumbles: the next that it does is no instruction of a program's.
    (A signal that is sent does nothing to it, but for SIGKILL: it is the first process of its namespace.)"""
    place = Path(f"/proc/{pid}/syscall")
    eventually(lambda: place.read_text()[0].isdigit())  # it waits, in the kernel
    with Path(f"/proc/{pid}/mem").open("r+b", buffering=0) as memory:
        memory.seek(int(place.read_text().split()[-1], 16))
        memory.write(b"\xf4" if platform.machine() == "x86_64" else bytes(4))


@pytest.mark.skipif(os.geteuid() != 0, reason="writing into another process's memory takes root")
def test_who_may_have_made_it_stumble_does_not_go_on(site: JumpSite) -> None:
    cat = site.begins("tech", "station", "cat")
    says(cat, b"a word")
    before = site.gate.pids()
    faults(before["keeper"])
    comes_again(site, before["keeper"])
    eventually(lambda: works_again(site))
    after = site.gate.pids()
    assert all(before[part] != after[part] for part in ("outer", "inner", "archivist", "keeper"))
    ends(cat)
    died = [one for one in events(site.state, "half-died") if one["half"].endswith("/keeper")]
    assert died[-1]["status"] in (-signal.SIGSEGV, -signal.SIGILL)
    assert not site.sessions()


@pytest.mark.soak
def test_killed_again_and_again(site: JumpSite) -> None:
    """The same two sessions through all of its lives, none of which leaves the others anything to end by."""
    cat, shell = site.begins("tech", "station", "cat"), site.begins("tech", "station", more=("-tt",))
    there, before = {one["session"] for one in site.sessions()}, others(site)
    for process in (cat, shell):
        says(process, b"echo there")  # one that the asset has not let in yet would be refused
    for number in range(KILLS):
        kill(keeper := site.gate.pid("keeper"))
        says(cat, b"round %d" % number)
        says(shell, b"echo round-%d" % number)
        comes_again(site, keeper)
        eventually(lambda: {one["session"] for one in site.sessions()} == there)
        assert site.ssh("tech", "station", "echo in").stdout == b"in\n"
        eventually(lambda: {one["session"] for one in site.sessions()} == there)
    assert others(site) == before
    for process in (cat, shell):
        stops(process)
    eventually(lambda: not site.sessions())
    ended = [one["session"] for one in events(site.state, "access-ended")]
    assert sorted(set(ended)) == sorted(ended), "each has ended once"
