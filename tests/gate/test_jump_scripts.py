"""What scripts do at the menu (`ssh gate WORDS`): answers by stdout, refusals by stderr and the exit status, JSON; a
request that is withdrawn; and lists of thousands, which no answer takes whole."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from tests.brokers.jump.site import THERE, JumpSite, stops
from tests.gate.plant import QuickGate, events

pytestmark = pytest.mark.skipif(not THERE, reason="there is no OpenSSH (Debian: openssh-server, openssh-client)")
MANY = 5_000
ASKED = 400


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JumpSite]:
    with contextlib.closing(JumpSite(tmp_path_factory.mktemp("jump"))) as made:
        made.set_up()
        yield made
        assert made.gate.stop() == 0, made.gate.said()


def says(site: JumpSite, who: str, *words: str) -> str:
    """What somebody's command answers."""
    done = site.ssh(who, who, *words)
    assert (done.returncode, done.stderr) == (0, b""), done
    return done.stdout.decode()


def refuses(site: JumpSite, who: str, *words: str) -> str:
    """Why somebody's command does nothing."""
    done = site.ssh(who, who, *words)
    assert (done.returncode, done.stdout) == (1, b""), done
    return done.stderr.decode()


def rows(site: JumpSite, who: str, *words: str) -> list[dict[str, Any]]:
    found = json.loads(says(site, who, *words))
    assert found["more"] == 0
    listed: list[dict[str, Any]] = found["rows"]
    return listed


def test_answers_and_refusals_are_two_streams(site: JumpSite) -> None:
    assert "station" in says(site, "tech", "list")
    assert says(site, "tech", "list zz") == "nothing that you may reach has 'zz' in its name\n"
    assert "no requests" in says(site, "tech", "requests") and "no files" in says(site, "tech", "files")
    for words, why in (
        ("request statoin 1h pump", "did you mean station?"), ("request station pump", "is no time"),
        ("request station 1h", "a request says why"),
        ("request station", "for how long and why"), ("approve 77", "there is no request 77"), ("approve", "a number"),
        ("watch 5", "there is no session 5"), ("kill 5", "there is no session 5"), ("dance", "is no word of the menu"),
    ):  # fmt: skip
        assert why in refuses(site, "vendor", words), words
    # A terminal has one stream; the status is there all the same.
    done = site.ssh("vendor", "vendor", "approve 77", more=("-tt",))
    assert (done.returncode, b"there is no request 77" in done.stdout) == (1, True)


def test_a_credential_that_no_rule_uses_is_told(site: JumpSite) -> None:
    said = site.jump("credential", "second", "roto", "--new-key")
    assert f"no rule of the policy goes there as roto, but as {site.login}\n" in said
    assert "; no rule goes there so" in next(one for one in site.jump("assets").splitlines() if "    roto:" in one)
    assert "no rule" not in site.jump("credential", "second", site.login, "--new-key")


def test_what_a_program_reads_is_json(site: JumpSite) -> None:
    (one,) = rows(site, "tech", "list --json")
    assert (one["asset"], one["state"], one["do"]) == ("station", "open", ["down", "exec", "shell", "up"])
    assert {each["asset"]: each["state"] for each in rows(site, "vendor", "list --json")} == {
        "station": "asks", "second": "asks",
    }  # fmt: skip
    assert [each["asset"] for each in rows(site, "vendor", "list --json sec")] == ["second"]
    asked = json.loads(says(site, "vendor", "request --json station 1h pump trips #4711"))
    assert asked["by"] == "leads"
    (one,) = [each for each in rows(site, "lead", "requests --json") if each["id"] == asked["request"]]
    assert (one["person"], one["state"], one["reason"], one["ticket"]) == ("vendor", "waiting", "pump trips", "4711")
    assert rows(site, "tech", "requests --json") == []
    process = site.begins("tech", "station", "sleep 1000")
    try:
        (session,) = rows(site, "tech", "who --json")
        assert (session["asset"], session["what"], session["command"]) == ("station", "exec", "sleep 1000")
        assert rows(site, "vendor", "who --json") == [] and "1 of others" in says(site, "vendor", "who")
    finally:
        stops(process)
    assert rows(site, "tech", "files --json") == []
    assert json.loads(says(site, "vendor", f"withdraw --json {asked['request']}")) == {"request": asked["request"]}
    assert "is no time" in refuses(site, "vendor", "request --json station pump")


def test_nobody_forges_lines_of_a_list(site: JumpSite) -> None:
    """By a line's end in what they ask with."""
    forged = "  99  anna → plc, 60 min: granted"
    for words in (f"request station 1h pump\n{forged}", f"request station 1h pump #1\n{forged}"):
        number = says(site, "vendor", words).split()[1]
        (line,) = says(site, "lead", "requests").splitlines()
        assert line.startswith(f"{number:>4}  vendor → station")
        says(site, "vendor", f"withdraw {number}")


def test_who_asks_withdraws_while_it_waits(site: JumpSite) -> None:
    number = says(site, "vendor", "request station 1h a mistake").split()[1]
    assert "is not yours" in refuses(site, "lead", f"withdraw {number}")
    assert says(site, "vendor", f"withdraw {number}") == f"request {number} is withdrawn\n"
    assert f"request {number} is withdrawn" in refuses(site, "vendor", f"withdraw {number}")
    assert f"request {number} is withdrawn" in refuses(site, "lead", f"approve {number}")
    assert f" {number}  " not in says(site, "vendor", "requests") and site.jump("requests") == "no requests\n"
    (entry,) = [each for each in events(site.state, "access-decided") if each["request"] == int(number)]
    assert (entry["decision"], entry["by"], entry["person"]) == ("withdrawn", "vendor", "vendor")
    # What was granted is taken back by who may, and not withdrawn.
    number = says(site, "vendor", "request station 1h needed").split()[1]
    assert "is granted" in says(site, "lead", f"approve {number}")
    assert f"request {number} is granted" in refuses(site, "vendor", f"withdraw {number}")
    site.jump("revoke", number)
    # At the gate, as the person whom one is there.
    number = says(site, "vendor", "request station 1h once more").split()[1]
    assert "nobody whom the keeper knows" in site.jump("withdraw", number, code=2)
    site.jump("person", "add", "gatekeeper", "--account", site.login)
    assert "is not yours" in site.jump("withdraw", number, code=2)
    assert "there is no request" in site.jump("withdraw", "9999", code=2)
    site.jump("deny", number, code=2)
    says(site, "vendor", f"withdraw {number}")


@contextlib.contextmanager
def stopped(site: JumpSite) -> Iterator[sqlite3.Connection]:
    """The keeper's store while no gate runs; there is one again afterwards."""
    assert site.gate.stop() == 0
    (store,) = site.state.rglob("access.db")
    with contextlib.closing(sqlite3.connect(store)) as base, base:
        yield base
    site.gate = QuickGate(site.state, site.policy).wait_ready()


@pytest.fixture
def crowd(site: JumpSite) -> Iterator[None]:
    """Thousands of people, and hundreds of requests, for as long as this test goes on."""
    with stopped(site) as base:
        for number in range(MANY):
            name, full = f"many-{number:05d}", f"Number {number} of the Many, of a department with a long name"
            base.execute("INSERT INTO person VALUES(?, ?, '', 'local', 1, '', 0, '', 0, '')", (name, full))
            base.execute("INSERT INTO member VALUES(?, 'crowd')", (name,))
        for number in range(ASKED):
            base.execute(
                "INSERT INTO request(person, asset, conduit, seconds, reason, ticket, at_ns, state, until_ns)"
                " VALUES('vendor', 'station', 'vendor-helps', 3600, ?, '', 1, 'waiting', 0)",
                (f"reason {number:04d} " + "and so on " * 30,),
            )  # fmt: skip
    yield
    with stopped(site) as base:
        base.execute("DELETE FROM request WHERE reason LIKE 'reason %'")
        base.execute("DELETE FROM member WHERE grp = 'crowd'")
        base.execute("DELETE FROM person WHERE name LIKE 'many-%'")


@pytest.mark.usefixtures("crowd")
def test_lists_of_thousands(site: JumpSite) -> None:
    """They are told in pieces at the gate, and cut at the menu, with how many there are more."""
    people = json.loads(site.jump("person", "list", "--json"))
    assert [one["person"] for one in people] == sorted({*(one["person"] for one in people)})
    assert len([one for one in people if one["groups"] == ["crowd"]]) == MANY
    assert site.jump("person", "list").count("many-") == MANY
    assert site.jump("person", "list", "NUMBER 4321 OF").count("\n") == 1
    assert "nobody has" in site.jump("person", "list", "nothing of that kind")
    asked = json.loads(site.jump("requests", "--json"))
    assert len(asked) == ASKED
    (one,) = json.loads(site.jump("requests", "reason 0007", "--json"))
    shown = says(site, "lead", "requests")
    lines = shown.splitlines()
    assert lines[-1] == f"and {ASKED - len(lines) + 1} more: `requests WORD` has those with that word alone"
    assert len(lines) > 100
    assert says(site, "lead", "requests reason 0399").count("\n") == 1
    some = json.loads(says(site, "lead", "requests --json"))
    assert len(some["rows"]) + some["more"] == ASKED and some["more"] > 0
    assert [one] == rows(site, "lead", "requests --json reason 0007")
    # Who is known by then is known to an import as well.
    (site.folder / "people.csv").write_text("person,groups\nmany-04999,crowd\n")
    assert "many-04999: nothing new" in site.jump("person", "import", str(site.folder / "people.csv"))
