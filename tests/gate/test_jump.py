"""The jump server in a gate that was started as a user starts it: real OpenSSH before it and behind it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cofferdam.errors import StoreError
from cofferdam.evidence import gather, selftest, selftest_jump
from cofferdam.evidence.checks import services
from cofferdam.evidence.model import Finding
from tests.brokers.jump.serial_line import SER2NET, Controller
from tests.brokers.jump.site import TELNETD, THERE, JumpSite, Telnetd, ends, reads_until
from tests.gate.plant import QuickGate, cli, events, settle
from tests.ports import held_ports
from tests.waiting import PATIENT, eventually, kill

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(not THERE, reason="there is no OpenSSH (Debian: openssh-server, openssh-client)"),
]


TELNET = pytest.mark.skipif(
    not TELNETD.exists() or os.geteuid() != 0,
    reason="there is no telnetd (Debian: inetutils-telnetd), or no root, who alone may give terminals away",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JumpSite]:
    folder = tmp_path_factory.mktemp("jump")
    port, line, drive = held_ports(3)
    assets = "\n  ".join(
        f"{name}: {{zone: plant, address: 127.0.0.1, port: {at}, protocol: {protocol}}}"
        for name, at, protocol in (("old", port, "telnet"), ("line", line, "telnet"), ("drive", drive, "serial"))
    )
    rule = "- {who: {group: staff}, asset: [old, line, drive], as: operator, do: shell}"
    made = JumpSite(folder, assets=assets, rules=rule, free="certificates: 8 h")
    made.ports |= {"line": line, "drive": drive}
    telnetd = Telnetd(folder / "old", port) if TELNETD.exists() else None
    try:
        made.set_up()
        yield made
        made.gate.wait_ready()
        assert made.gate.stop() == 0, made.gate.said()
        assert "Traceback" not in made.gate.said()
        assert events(made.state, "access-opened")  # in a log that is whole
    finally:
        made.close()
        if telnetd is not None:
            telnetd.close()


def nothing_is_granted(site: JumpSite) -> None:
    """What others have left is taken back."""
    for one in json.loads(site.jump("requests", "--json")):
        if one["state"] in ("waiting", "granted"):
            site.jump("revoke", str(one["id"]))
    settle(site.state)


def last_has_ended(site: JumpSite) -> bool:
    """By the log, which may have it later than the client."""
    ended = [one["session"] for one in events(site.state, "access-ended")]
    return ended[-1:] == [events(site.state, "access-opened")[-1]["session"]]


def test_a_session_breaks_at_the_gate(site: JumpSite) -> None:
    """CIP-005-7 R2.1, R2.2: the initiator's session ends here, and one of ours goes on."""
    settle(site.state)
    known = len(events(site.state, "access-opened"))
    done = site.ssh("tech", "station", "echo hello")
    assert (done.returncode, done.stdout) == (0, b"hello\n"), done.stderr
    assert site.ssh("tech", "tech%station", "exit 3").returncode == 3
    shown = site.ssh("tech", "station", "cat", stdin=os.urandom(1) * 3_000_000)
    assert len(shown.stdout) == 3_000_000, shown.stderr
    opened = events(site.state, "access-opened")[known]
    assert (opened["person"], opened["asset"], opened["login"]) == ("tech", "station", site.login)
    eventually(lambda: last_has_ended(site))
    ended = events(site.state, "access-ended")[-1]
    assert (ended["sent"], ended["received"]) == (3_000_000, 3_000_000)


def test_the_end_of_what_somebody_says_is_told_whenever_it_comes(site: JumpSite) -> None:
    """Also before the asset has let us in, as with `ssh ... < /dev/null`: a program that reads would wait for ever."""
    assert (done := site.ssh("tech", "station", "cat", stdin=b"")).returncode == 0, done.stderr


def test_large_output_is_whole(site: JumpSite) -> None:
    shown = site.ssh("tech", "station", "head -c 6000000 /dev/zero")
    assert (len(shown.stdout), shown.returncode) == (6_000_000, 0), shown.stderr


def test_a_command_is_a_right_of_its_own(site: JumpSite) -> None:
    for command in ("uptime", "echo a; id", "echo $(id)", "id -u", "scp -S x -f /etc/passwd", "rsync --server . /tmp"):
        done = site.ssh("tech", "station", command)
        assert done.returncode == 1, command
        assert b"no rule lets you have that command" in done.stderr


@pytest.mark.parametrize(
    ("user", "key", "code"),
    [
        ("station", "tech", "000000"),
        ("station", "lead", None),
        ("tech", "vendor", None),
        ("lead%station", "tech", None),
        ("tech%nothing", "tech", None),
        ("tech\u202e", "tech", None),
        ("x" * 300, "tech", None),
    ],
)
def test_who_does_not_show_both_factors_is_refused_alike(site: JumpSite, user: str, key: str, code: str | None) -> None:
    """CIP-005-7 R2.3; 62443-3-3 SR 1.13: from wherever they come."""
    whose = site.code("tech") if code is None else code
    done = site.ssh("tech", user, "id", key=key, code=whose)
    assert done.returncode == 255 if key != "lead" else done.returncode != 0
    assert done.stdout == b""


def test_the_notice_comes_first_and_the_last_sign_in_after(site: JumpSite) -> None:
    """62443-3-3 SR 1.12; CIP-003-9 Att. 1 section 6: the sign-in of a vendor is in the log at once."""
    options = [option.replace("LogLevel=ERROR", "LogLevel=INFO") for option in site.options("tech")]
    for code in ("000000", site.code("tech")):
        command = ["ssh", *options, "-tt", "-p", str(site.door), "tech@127.0.0.1"]
        done = subprocess.run(
            command,
            input=b"exit\n",
            capture_output=True,
            env=site.environment("tech", code),
            timeout=PATIENT,
            check=False,
        )
        assert b"Authorised people only. What you do is recorded." in done.stderr
        assert (b"gate> " in done.stdout) is (code != "000000")
        assert (b"signed in" in done.stdout) is (code != "000000"), done.stdout
    assert events(site.state, "signed-in")[-1]["person"] == "tech"


def test_a_code_counts_once(site: JumpSite) -> None:
    code = site.code("tech")
    assert site.ssh("tech", "station", "echo a", code=code).returncode == 0
    assert site.ssh("tech", "station", "echo a", code=code).returncode == 255
    refused = events(site.state, "sign-in-refused")
    assert "a code that was used before" in {each["reason"] for each in refused}


def test_a_certificate_in_place_of_codes(site: JumpSite) -> None:
    """OpenSSH takes it by itself, beside the key; where the conduit knows none it does not count."""
    site.person("often", "staff", "vendors", "leads")
    made = site.ssh("often", "often", "certificate").stdout
    assert made.startswith(b"ssh-ed25519-cert-v01@openssh.com ")
    (site.folder / "often-cert.pub").write_bytes(made)
    for _ in range(2):
        done = site.ssh("often", "station", "echo in", code="none is asked for")
        assert done.stdout == b"in\n", (done.stderr, events(site.state, "sign-in-refused")[-1:])
    assert events(site.state, "signed-in")[-1]["factors"] == ["key", "certificate"]
    second = site.ssh("often", "second", "id", code="none is asked for")
    assert b"a certificate, which does not count there" in second.stderr
    for line, why in (("certificate", b"makes no other"), ("approve 1", b"you came by a certificate")):
        assert why in site.ssh("often", "often", line, code="none is asked for").stderr
    assert b"the policy has no certificates" not in made
    (site.folder / "often-cert.pub").write_bytes(made.replace(made[-40:-30], b"AAAAAAAAAA"))
    assert site.ssh("often", "station", "echo in", code="000000").returncode == 255
    (site.folder / "often-cert.pub").unlink()
    signed = [each for each in events(site.state, "access-set") if each["what"] == "certificate"]
    assert [each["name"] for each in signed] == ["often"]


def test_password_and_code(site: JumpSite) -> None:
    (site.folder / "password").write_text("correct horse battery\n")
    site.jump("factor", "password", "tech", "--file", str(site.folder / "password"))
    bare = ("-o", "PubkeyAuthentication=no")
    said = site.ssh("tech", "tech%station", "echo in", more=bare, password="correct horse battery")
    assert said.stdout == b"in\n", said.stderr
    assert site.ssh("tech", "tech%station", "id", more=bare, password="correct horse").returncode == 255
    (site.folder / "password").write_text("password1234\n")
    assert "tried first" in site.jump("factor", "password", "tech", "--file", str(site.folder / "password"), code=2)


def test_approval_by_another_person(site: JumpSite) -> None:
    """62443-3-3 SR 1.13 RE1: explicit approval, by somebody else."""
    nothing_is_granted(site)
    known = len(events(site.state, "access-decided"))
    refused = site.ssh("vendor", "station", "id")
    assert (refused.returncode, b"takes an approval" in refused.stderr) == (1, True)
    asked = site.ssh("vendor", "vendor", "request station 2h pump trips #4711").stdout.decode()
    number = asked.split()[1]
    assert "waits for leads" in asked
    # What somebody may ask for is named to them; what they may not know of is not.
    assert b"did you mean station?" in site.ssh("vendor", "vendor", "request statoin 1h pump").stderr
    assert b"did you mean" not in site.ssh("vendor", "vendor", "request driwe 1h pump").stderr
    hostile = site.ssh("vendor", "vendor", "request station 1h \x1b]52;c;AAAA\x07 #\x1b[2J").stdout
    assert b"waits for leads" in hostile
    assert b"\x1b" not in site.ssh("lead", "lead", "requests").stdout
    own = site.ssh("vendor", "vendor", f"approve {number}")
    assert b"nobody approves their own" in own.stderr
    site.jump("group", "join", "vendor", "leads")
    assert b"nobody approves their own" in site.ssh("vendor", "vendor", f"approve {number}").stderr
    site.jump("group", "leave", "vendor", "leads")
    assert b"it takes somebody of leads" in site.ssh("tech", "tech", f"approve {number}").stderr
    assert f"{number}  vendor → station, 120 min: pump trips [4711]: waiting" in site.jump("requests")
    assert b"is granted until" in site.ssh("lead", "lead", f"approve {number}").stdout
    assert site.ssh("vendor", "station", "id").returncode == 0
    process = site.begins("vendor", "station", "sleep 1000")
    assert "is revoked" in site.jump("revoke", number)
    assert b"it takes an approval" in ends(process)
    decided = events(site.state, "access-decided")[known:]
    assert [each["decision"] for each in decided] == ["granted", "revoked"]
    site.jump("revoke", str(int(number) + 1))


def test_an_approval_by_a_signature(site: JumpSite) -> None:
    """62443-3-3 SR 2.12: OpenSSH's own ssh-keygen signs, and whose key it is says who approved."""

    def request() -> str:
        return site.ssh("vendor", "vendor", "request station 1h signed #1").stdout.decode().split()[1]

    number = request()
    text = site.folder / "statement"
    text.write_bytes(site.ssh("lead", "lead", f"statement {number}").stdout)
    assert f"request: {number}\n".encode() in text.read_bytes()

    def sign(who: str, namespace: str = "cofferdam-approval") -> str:
        text.with_suffix(".sig").unlink(missing_ok=True)
        command = ["ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", str(site.folder / who), str(text)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        return "".join(text.with_suffix(".sig").read_text().splitlines()[1:-1])

    for signature, why in (
        (sign("lead", "file"), b"is for 'file'"),
        (sign("tech"), b"not yours"),
        (sign("lead")[:-8] + "AAAAAAA=", b"no signature over request"),
    ):
        refused = site.ssh("lead", "lead", f"approve {number} {signature}").stderr
        assert why in refused, refused
    assert "nobody approves their own" in site.jump(
        "approve", number, "--key", str(site.folder / "vendor"), code=2
    )  # fmt: skip
    mine = sign("lead")
    other = request()
    assert b"no signature over request" in site.ssh("lead", "lead", f"approve {other} {mine}").stderr
    assert b"is granted until" in site.ssh("lead", "lead", f"approve {number} {mine}").stdout
    assert b"is granted" in site.ssh("lead", "lead", f"approve {number} {mine}").stderr  # and not again
    assert "is denied" in site.jump("deny", other, "--key", str(site.folder / "lead"))
    decided = events(site.state, "access-decided")[-2:]
    assert [each["how"].startswith("a signature by SHA256:") for each in decided] == [True, True]
    assert (decided[0]["signature"], decided[0]["statement"]) == (mine, text.read_text())
    site.jump("revoke", number)


def test_the_sealed_code(site: JumpSite) -> None:
    """62443-3-3 SR 2.1 RE 3: break-glass. It takes the place of an approval, once, is an alarm, and somebody else
    reviews it."""
    nothing_is_granted(site)
    known = len(events(site.state, "glass-used"))
    code, *_ = site.jump("break-glass", "seal").splitlines()
    file = site.folder / "envelope"
    file.write_text("AAAA-" + code[5:] + "\n")
    use = ("break-glass", "use", "vendor", "station", "pump", "trips", "at", "night", "--file", str(file))
    assert "not the code" in site.jump(*use, code=2)
    file.write_text(code.lower() + "\n")
    assert site.ssh("vendor", "station", "id").returncode == 1
    assert "may reach station" in site.jump(*use)
    assert site.ssh("vendor", "station", "echo in").stdout == b"in\n"
    assert "no code is sealed" in site.jump(*use, code=2)
    eventually(lambda: "jump-break-glass" in json.dumps(site.gate.status()["alarms"]))
    assert "does not review it" in site.jump("break-glass", "review", "all", "well", code=2)
    granted = next(one for one in json.loads(site.jump("requests", "--json")) if one["ticket"] == "break-glass")
    site.jump("revoke", str(granted["id"]))
    assert site.ssh("vendor", "station", "id").returncode == 1
    used = [(each["how"], each.get("person", "")) for each in events(site.state, "glass-used")[known:]]
    assert used == [("sealed", ""), ("refused", "vendor"), ("broken", "vendor"), ("refused", "vendor")]
    assert code not in json.dumps(events(site.state, "glass-used"))


def test_a_terminal_is_recorded_and_played(site: JumpSite) -> None:
    """62443-3-3 SR 2.8; CIP-003-9 Att. 1 section 6: recorded."""
    process = site.start("tech", "station", more=("-tt",))
    assert process.stdin is not None
    reads_until(process, b"#" if site.login == "root" else b"$")
    number = str(site.sessions()[-1]["number"])
    assert "it lives" in site.jump("recording", "show", number)
    process.stdin.write(b"printf '\\033]52;c;%s\\007-clean\\n' Y2xpcA==; echo shown-$((40+2)); "
                        b"printf '\\033[2;1Hdrawn-\\033[3;1Hx\\033[2;7Hin-pieces\\n'; exit 7\n")  # fmt: skip
    process.stdin.flush()
    said = ends(process)
    assert b"shown-42" in said
    assert b"-clean\r\n" in said
    assert b"\x1b]52" not in said
    assert process.returncode == 7
    newest = site.newest()
    assert "tech (127.0.0.1) at station" in newest["title"]
    assert "shown-42" in site.jump("recording", "play", newest["name"], "--speed", "0")
    site.jump("recording", "export", newest["name"], "--output", str(site.folder / "out.cast"))
    head, *rest = (site.folder / "out.cast").read_text().splitlines()
    assert json.loads(head)["version"] == 2
    assert json.loads(rest[-1])[1:] == ["x", "7"]
    site.jump("recording", "export", newest["name"], "--text", "--output", str(site.folder / "out.txt"))
    assert "shown-42\n" in (site.folder / "out.txt").read_text()
    site.jump("recording", "export", newest["name"], "--v3", "--output", str(site.folder / "third.cast"))
    third = [json.loads(line) for line in (site.folder / "third.cast").read_text().splitlines()]
    assert (third[0]["version"], third[0]["term"]["rows"] > 0, third[-1][1:]) == (3, True, ["x", "7"])
    assert sum(event[0] for event in third[1:]) == pytest.approx(json.loads(rest[-1])[0], abs=0.001)
    found = json.loads(site.jump("recording", "search", "SHOWN-42", "--title", "station", "--json"))
    assert {one["name"] for one in found} == {newest["name"]}
    assert newest["name"] in site.jump("recording", "search", "drawn-in-pieces")  # as it stood on the screen
    assert "nobody" in site.jump("recording", "search", "never was shown", "--most", "3")
    assert "is held" in site.jump("recording", "hold", newest["name"], "claim", "17")
    assert "held already" in site.jump("recording", "hold", newest["name"], "again", code=2)
    assert "HELD" in site.jump("recording", "list")
    assert "held no more" in site.jump("recording", "release", newest["name"], "settled")
    how = [each["how"] for each in events(site.state, "recording-used") if each["how"] != "read"]
    assert how == ["held", "released"]
    session = newest["name"].partition("-")[2].removesuffix(".cast")
    shown = site.jump("recording", "show", session)
    for words in ("tech (127.0.0.1) at station", "status 7", "no findings", "held claim 17", "released settled"):
        assert words in shown, words
    assert "no findings" in site.jump("recording", "verify")
    (file,) = site.state.rglob(newest["name"])
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"shown-42", b"shown-43"))
    assert "are not what they were" in site.jump("recording", "verify", newest["name"], code=1)
    assert "are not what they were" in site.jump("recording", "show", session, code=1)
    assert "are not what they were" in evidence(site.state)[1]
    file.unlink()
    os.mkfifo(file)  # a folder of the archivist's: whoever owns that puts there what it likes
    assert evidence(site.state) == ("failed", f"{newest['name']}: it cannot be read: it is no plain file")
    file.unlink()
    assert "it is gone" in evidence(site.state)[1]
    file.write_bytes(whole + b"more")
    assert "something was added" in evidence(site.state)[1]
    file.write_bytes(whole)
    assert evidence(site.state)[0] == "tested"


def evidence(state: Path, check: str = "recording.whole") -> tuple[str, str]:
    """What a check finds, that of the recordings by itself: its outcome, and what it says."""
    _, out, error = cli("evidence", "run", check, "--state", str(state), "--json")
    assert out, error
    (found,) = json.loads(out)["checks"]
    return found["outcome"], found["says"]


def test_people_of_a_file(site: JumpSite) -> None:
    """62443-3-3 SR 1.3, SR 1.3 RE 1, SR 1.4: added once, with what is new of them each time; whoever has come so signs
    in as anybody."""
    for name in ("ida", "otto"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(site.folder / name)], check=True)
    lines = [
        "person,full,account,groups,key", f"ida,Ida Works,,staff,{(site.folder / 'ida.pub').read_text().strip()}",
        'tech,,,"staff leads",', "otto,,,,",
    ]  # fmt: skip
    file = site.folder / "people.csv"
    file.write_text("\n".join(lines))
    found = json.loads(site.jump("person", "import", str(file), "--json"))
    assert [(one["person"], one["new"], one["groups"], bool(one["key"])) for one in found] == [
        ("ida", True, ["staff"], True), ("tech", False, ["leads"], False), ("otto", True, [], False),
    ]  # fmt: skip
    assert site.ssh("ida", "ida%station", "echo in").stdout == b"in\n"
    lines[-1] += (site.folder / "otto.pub").read_text().strip()
    file.write_text("\n".join(lines))
    said = site.jump("person", "import", str(file)).splitlines()
    assert said[:2] == ["ida: nothing new", "tech: nothing new"] and said[2].startswith("otto: key SHA256:")
    file.write_text("\n".join([*lines, "new,,,,", "x y,,,,"]))
    assert "people.csv, line 6: 'x y' is no name" in site.jump("person", "import", str(file), code=2)
    for wrong, why in ((f"other,,,,{(site.folder / 'tech.pub').read_text()}", "line 6: that key is tech's"),
                       ("station,,,,", "line 6: station is an asset's name")):  # fmt: skip
        file.write_text("\n".join([*lines, "new,,,,", wrong]))
        assert why in site.jump("person", "import", str(file), code=2)
    assert "new" not in site.jump("person", "list")
    # Of who has no whole name nobody could tell that they approve what they have asked for by another account.
    file.write_text("person,full\nplain,\nwhole,Whole Name\n")
    plain, whole = site.jump("person", "import", str(file)).splitlines()
    assert "two accounts are one person's" in plain and "two accounts" not in whole
    assert "two accounts are one person's" in site.jump("person", "add", "bare")
    assert "two accounts" not in site.jump("person", "add", "named", "--full", "Named Person")
    site.jump("group", "leave", "tech", "leads")


def test_what_the_evidence_has_of_people(site: JumpSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """62443-3-3 SR 2.1 RE 2: groups and passwords by the entries that set them, and a keeper of its own that is told
    lies."""
    assert site.ssh("tech", "station", "echo hello").returncode == 0
    number = site.ssh("vendor", "vendor", "request station 1h pump trips #4712").stdout.decode().split()[1]
    assert b"is granted until" in site.ssh("lead", "lead", f"approve {number}").stdout
    assert site.ssh("vendor", "station", "id").returncode == 0
    site.jump("revoke", number)
    found, says = evidence(site.state, "access.roles")
    assert found == "observed", says
    assert "nobody has had a session" not in says, says
    assert evidence(site.state, "secret.strength")[0] == "observed"
    # Of what has gone before as well: programs that said nothing, sessions that never began, a sealed code.
    eventually(lambda: evidence(site.state, "recording.complete")[0] == "observed")
    for check in ("access.approval", "access.four-eyes", "access.mfa", "access.kill", "access.window"):
        found, says = evidence(site.state, check)
        assert found in ("observed", "tested", "unknown"), says
    assert evidence(site.state, "access.approval")[0] == evidence(site.state, "access.four-eyes")[0] == "observed"
    monkeypatch.setattr(selftest, "apart", lambda: False)
    monkeypatch.setattr(selftest, "run", lambda *_, **__: [])  # the gate of the self-test has tests of its own
    code, out, error = cli("evidence", "selftest", "--json", "--state", str(site.state))
    assert code == 0, error
    said = json.loads(out)
    assert [(one["check"], one["outcome"]) for one in said["checks"]] == [("access.signed-hop", "tested")]
    assert said["recorded"] == 1

    def full() -> Finding:
        raise StoreError("database or disk is full")

    monkeypatch.setattr(
        selftest, "run", lambda *_, **__: [Finding("broker.flood-limits", "tested", "it went", ("so",))]
    )
    monkeypatch.setattr(selftest_jump, "run", full)
    code, out, error = cli("evidence", "selftest", "--state", str(site.state))
    assert (code, "disk is full" in error, "1 new in the log" in out) == (2, True, True), out + error


def alarms(site: JumpSite) -> set[str]:
    return {one["name"] for one in site.gate.status()["alarms"]}


def test_who_is_in_a_group_without_an_entry_is_named(site: JumpSite) -> None:
    """Somebody with root's rights put a person into a group in the keeper's own file, while no gate ran: the rule lets
    them in, and by the log nobody has put them there."""
    site.person("uninvited", "guests")
    assert site.gate.stop() == 0
    (store,) = site.state.rglob("access.db")

    def in_the_store(statement: str) -> None:
        with contextlib.closing(sqlite3.connect(store)) as base, base:
            base.execute(statement)

    def begins_anew() -> None:
        site.gate = QuickGate(site.state, site.policy).wait_ready()

    in_the_store("INSERT INTO member VALUES('uninvited', 'staff')")
    begins_anew()
    assert site.ssh("uninvited", "station", "echo in").stdout == b"in\n"
    found, says = evidence(site.state, "access.roles")
    assert found == "failed" and "uninvited" in says and "nobody had put them in a group of it" in says
    eventually(lambda: "check-access.roles" in alarms(site))
    # They leave it as they came. Sessions of this policy stay what they were; under the next one all is well.
    assert site.gate.stop() == 0
    in_the_store("DELETE FROM member WHERE person='uninvited' AND grp='staff'")
    site.policy.write_text(site.policy.read_text().replace("reason: own people", "reason: people of our own"))
    begins_anew()
    assert site.ssh("uninvited", "station", "echo in").returncode != 0
    assert site.ssh("tech", "station", "echo in").stdout == b"in\n"
    found, says = evidence(site.state, "access.roles")
    assert found == "observed" and "in 1 session " in says, says
    eventually(lambda: "check-access.roles" not in alarms(site))


def test_a_conduit_that_shows_no_notice_is_named(site: JumpSite) -> None:
    before = site.policy.read_text()
    notice = "    notice: Authorised people only. What you do is recorded.\n"
    everywhere = before.replace("    allow:\n", f"{notice}    allow:\n").replace(notice, "", 1)
    for text, wanted in ((before, "failed"), (everywhere, "observed")):
        site.policy.write_text(text)
        assert cli("reload", "--state", site.state)[0] == 0
        found, says = evidence(site.state, "access.banner")
        assert found == wanted, says
        eventually(lambda wanted=wanted: ("check-access.banner" in alarms(site)) is (wanted == "failed"))  # type: ignore[misc]
    site.policy.write_text(before)
    assert cli("reload", "--state", site.state)[0] == 0


def test_a_terminal_at_which_nobody_types_is_locked(site: JumpSite) -> None:
    """62443-3-3 SR 2.5: blanked until its person shows a factor again; what was typed meanwhile reaches nobody."""
    site.person("clerk", "desks")
    process = site.begins("clerk", "station", more=("-tt",))
    assert process.stdin is not None

    def types(line: str) -> None:
        assert process.stdin is not None
        process.stdin.write(line.encode() + b"\n")
        process.stdin.flush()

    reads_until(process, b"#" if site.login == "root" else b"$")
    go = site.folder / "locked"  # what the asset says while it is locked, it says when it is, however late that is
    types(f"(until [ -e {go} ]; do sleep 0.2; done; echo late-$((40+2)))& echo before")
    shown = reads_until(process, b"goes on: ")
    assert shown.index(b"before") < shown.index(b"\x1b[2J\x1b[3J\x1b[H[gate] locked")
    go.touch()
    types("touch never")
    assert b"late-42" not in reads_until(process, b"does not unlock it")
    assert "locked" in site.jump("sessions")
    types("000000")
    assert b"late-42" not in reads_until(process, b"does not unlock it")
    time.sleep(2)  # what the asset says now is shown when it is unlocked
    types(site.code("clerk"))
    said = reads_until(process, b"late-42")
    assert b"\x1b[2J\x1b[3J\x1b[H" in said
    types("echo never-$(ls never 2>&1 | wc -c); exit")
    assert b"No such file" not in ends(process)
    how = [(each["how"], each.get("factor", "")) for each in events(site.state, "access-locked")]
    assert how == [("locked", ""), ("unlocked", "code")]
    newest = site.newest()
    played = site.jump("recording", "play", newest["name"], "--speed", "0")
    assert "touch never" not in played
    assert "late-42" in played


def test_nothing_is_tunnelled(site: JumpSite) -> None:
    """Ports, agents, X11, tunnels: each is refused and recorded."""
    ways = {
        "direct-tcpip": ("-W", f"127.0.0.1:{site.ports['station']}"),
        "tcpip-forward": ("-R", "0:127.0.0.1:1", "-o", "ExitOnForwardFailure=yes"),
        "streamlocal-forward": ("-R", f"{site.folder}/socket:127.0.0.1:1", "-o", "ExitOnForwardFailure=yes"),
    }
    for what, way in ways.items():
        done = site.ssh("tech", "station", *([] if way[0] == "-W" else ["echo on"]), more=way)
        assert done.returncode != 0, what
        assert what in {each["what"] for each in events(site.state, "tunnel-refused")}
    refused = events(site.state, "tunnel-refused")
    assert {(each["person"], each["source"]) for each in refused} == {("tech", "127.0.0.1")}


def test_proxy_jump_ends_here_as_well(site: JumpSite) -> None:
    """`ssh -J gate station`: the nested connection's person is the one around it."""
    config = site.folder / "config"
    # One line is enough: the gate's authority says who the gate is, and who it may pass for.
    authority, plain = site.jump("known-hosts").splitlines()
    assert authority.startswith("@cert-authority ")
    trusted = site.folder / "trusted"
    trusted.write_text(authority + "\n")
    config.write_text(
        f"Host gate\n HostName 127.0.0.1\n Port {site.door}\n User tech\n"
        f"Host station\n HostName station\n ProxyJump gate\n User {site.login}\n"
        f"Host *\n IdentityFile {site.folder}/tech\n IdentitiesOnly yes\n UserKnownHostsFile {trusted}\n"
        " StrictHostKeyChecking yes\n LogLevel ERROR\n"
    )
    command = ["ssh", "-F", str(config), "station", "echo through"]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=site.environment("tech"),
        timeout=PATIENT,
        check=False,
    )
    assert done.stdout == b"through\n", done.stderr
    trusted.write_text(plain.replace("127.0.0.1", "127.0.0.9") + "\n")
    refused = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, env=site.environment("tech"), timeout=PATIENT,
        check=False,
    )  # fmt: skip
    assert (refused.stdout, b"Host key verification failed" in refused.stderr) == (b"", True)
    trusted.write_text(authority + "\n")
    # Another's key within a connection of tech's opens nothing.
    text = config.read_text().replace("ProxyJump gate", f"ProxyJump gate\n IdentityFile {site.folder}/lead", 1)
    own = f" IdentityFile {site.folder}/tech\n"
    config.write_text(text.replace(f"Host *\n{own}", f"Host gate\n{own}Host *\n"))
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=site.environment("tech"),
        timeout=PATIENT,
        check=False,
    )
    assert done.stdout == b""


def test_the_gate_is_known_by_its_name_at_whatever_port(site: JumpSite) -> None:
    """An ssh looks for "[NAME]:PORT" in what it knows, where the port is not 22."""
    authority = site.jump("known-hosts").splitlines()[0]
    assert authority.startswith("@cert-authority ")
    trusted = site.folder / "by-name"
    trusted.write_text(authority + "\n")
    known = ["-o", f"UserKnownHostsFile={trusted}", "-o", "HostKeyAlgorithms=ssh-ed25519-cert-v01@openssh.com"]
    done = subprocess.run(
        ["ssh", *known, *site.options("tech"), "-p", str(site.door), "tech@localhost", "list"],
        stdin=subprocess.DEVNULL, capture_output=True, env=site.environment("tech"), timeout=PATIENT, check=False,
    )  # fmt: skip
    assert (done.returncode, b"station" in done.stdout) == (0, True), done.stderr


def test_killed_and_barred(site: JumpSite) -> None:
    """CIP-005-7 R2.5, R3.2; CIP-003-9 Att. 1 section 6: ended, and the return is controlled."""
    process = site.begins("tech", "station", "sleep 1000")
    session = site.sessions()[-1]
    assert "tech (127.0.0.1) at station" in site.jump("sessions")
    code, told, why = cli("ping", "station", "--state", site.state)
    assert (code, told) == (2, "") and "no crew of this gate asks station questions" in why
    assert "at the gate `cofferdam jump sessions`" in site.jump("kill", "99999", code=2)
    assert "barred: tech station" in site.jump("kill", str(session["number"]), "--reason", "wrong machine")
    said = ends(process)
    assert b"ended by" in said
    assert b"wrong machine" in said
    barred = site.ssh("tech", "station", "echo a")
    assert (barred.returncode, b"has barred" in barred.stderr) == (1, True)
    assert "tech station" in site.jump("blocks")
    assert "`cofferdam jump unblock tech station`: these two are barred" in site.jump("unblock", "tech", code=2)
    site.jump("unblock", "tech", "station")
    assert site.ssh("tech", "station", "echo a").returncode == 0


def test_a_key_that_is_taken_away_ends_its_sessions(site: JumpSite) -> None:
    """62443-3-3 SR 1.9: keys are bound to a person, and revocable."""
    site.person("leaver", "staff")
    process = site.begins("leaver", "station", "sleep 1000")
    people = {one["person"]: one for one in json.loads(site.jump("person", "list", "--json"))}
    site.jump("factor", "remove-key", "leaver", people["leaver"]["keys"][0]["fingerprint"])
    assert b"your key was taken away" in ends(process)
    site.jump("person", "remove", "leaver")
    assert site.ssh("tech", "leaver%station", "echo a", key="leaver").returncode == 255


def test_another_host_key_is_refused_and_alarmed(site: JumpSite) -> None:
    (site.folder / "wrong.pub").write_text((site.folder / "tech.pub").read_text())
    site.jump("host-key", "station", "--file", str(site.folder / "wrong.pub"), "--yes")
    done = site.ssh("tech", "station", "echo a")
    assert (done.returncode, b"another host key" in done.stderr) == (1, True)
    (refused,) = events(site.state, "host-key-refused")
    assert refused["asset"] == "station"
    eventually(lambda: "jump-host-key-station" in json.dumps(site.gate.status()["alarms"]))
    (site.folder / "right.pub").write_text(site.station.public_key)
    site.jump("host-key", "station", "--file", str(site.folder / "right.pub"), "--yes")
    assert site.ssh("tech", "station", "echo a").returncode == 0
    eventually(lambda: "jump-host-key-station" not in json.dumps(site.gate.status()["alarms"]))


def test_who_cannot_reach_an_asset_is_not_told_where_it_is(site: JumpSite) -> None:
    site.station.close()
    try:
        done = site.ssh("tech", "station", "echo a")
        assert (done.returncode, b"station cannot be reached: Connection refused" in done.stderr) == (1, True)
        assert str(site.ports["station"]).encode() not in done.stderr
    finally:
        site.station.start()


def test_sever_ends_all(site: JumpSite) -> None:
    """CIP-005-7 R2.5: all of them at once."""
    from cofferdam.gate.client import ask

    process = site.begins("tech", "station", "sleep 1000")
    ask(site.state, "sever", side="it", reason="a drill")
    ends(process)
    eventually(lambda: last_has_ended(site))
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", site.door), 1) as sock:
        sock.settimeout(1)
        assert sock.recv(10) == b""
    ask(site.state, "restore", side="it")
    site.gate.wait_ready()
    eventually(lambda: site.ssh("tech", "station", "echo a").returncode == 0)


DUMMY = Path("/usr/lib/openssh/regress/misc/sk-dummy/sk-dummy.so")


@pytest.mark.skipif(not DUMMY.exists(), reason="there is no sk-dummy.so (Debian: openssh-tests)")
def test_security_keys(site: JumpSite) -> None:
    """One that verifies its user is both factors; one that is only touched is one of them; one without that is none."""
    by = ("-o", f"SecurityKeyProvider={DUMMY}")
    for name, more in (
        ("touch", ()), ("verify", ("-O", "verify-required")), ("untouched", ("-O", "no-touch-required")),
    ):  # fmt: skip
        key = site.folder / f"sk-{name}"
        made = ["ssh-keygen", "-q", "-t", "ed25519-sk", "-N", "", *more, "-f", str(key)]
        environment = {**site.environment("tech"), "SSH_SK_PROVIDER": str(DUMMY)}
        subprocess.run(made, check=True, env=environment, stdin=subprocess.DEVNULL)
        site.jump("person", "add", f"sk-{name}", "--group", "staff")
        site.jump("factor", "key", f"sk-{name}", f"{key}.pub")
    assert site.ssh("sk-touch", "station", "echo in", code="000000", more=by).returncode == 255
    assert site.ssh("sk-touch", "station", "echo in", more=by).stdout == b"in\n"
    done = site.ssh("sk-verify", "station", "echo in", code="none is asked for", more=by)
    assert done.stdout == b"in\n", done.stderr
    assert "security key" in events(site.state, "signed-in")[-1]["factors"]
    before = len(events(site.state, "sign-in-refused"))
    assert site.ssh("sk-untouched", "station", "echo in", more=by).returncode == 255
    assert "a signature that does not fit" in {e["reason"] for e in events(site.state, "sign-in-refused")[before:]}


def test_where_nothing_is_recorded_nothing_goes_on(site: JumpSite) -> None:
    """62443-3-3 SR 2.10: response to audit processing failures."""
    folder = next(site.state.rglob("recordings"))
    aside = folder.with_name("aside")
    folder.rename(aside)
    try:
        done = site.ssh("tech", "station", "echo never")
        assert (done.returncode, done.stdout) == (1, b"")
        assert b"cannot be recorded" in done.stderr
        eventually(lambda: "jump-recording" in json.dumps(site.gate.status()["alarms"]))
    finally:
        aside.rename(folder)
    assert site.ssh("tech", "station", "echo again").stdout == b"again\n"


def test_strangers_who_break_ssh_cost_nobody_else(site: JumpSite) -> None:
    """Banners that are none, silence, noise within SSH, a crowd."""
    process = site.begins("tech", "station", "cat")
    assert process.stdin is not None
    assert process.stdout is not None
    crowd = []
    for data in (b"GET / HTTP/1.1\r\n\r\n", b"x" * 1_000_000, b"SSH-2.0-x\r\n" + os.urandom(5000), b"", b"\0" * 100,
                 b"SSH-2.0-x\r\n" + b"\xff\xff\xff\xff" * 10, b"SSH-1.0-old\r\n"):  # fmt: skip
        sock = socket.create_connection(("127.0.0.1", site.door), PATIENT)
        with contextlib.suppress(OSError):
            sock.sendall(data)
        crowd.append(sock)
    for _ in range(60):
        crowd.append(socket.create_connection(("127.0.0.1", site.door), PATIENT))
    process.stdin.write(b"still here\n")
    process.stdin.flush()
    assert process.stdout.read(11) == b"still here\n"
    for sock in crowd:
        sock.close()
    process.stdin.close()
    process.stdin = None
    ends(process)
    eventually(lambda: site.ssh("tech", "station", "echo on").stdout == b"on\n")
    wanted = {"unsigned_of_address", "broken_protocol"}
    eventually(lambda: wanted <= {each["limit"] for each in events(site.state, "limit-hit")})


@TELNET
def test_a_terminal_by_telnet(site: JumpSite) -> None:
    """The gate signs in, nobody is shown the password, sizes and binary bytes arrive, and it is recorded."""
    secret = site.folder / "secret"
    secret.write_text("geheim\n")
    site.jump("credential", "old", "operator", "--password", str(secret))
    process = site.begins("tech", "old", more=("-tt",))
    assert process.stdin is not None
    reads_until(process, b"Last failed login: never")
    process.stdin.write(b"stty size; echo $TERM; printf 'a\\377b\\r\\n' | od -An -tx1\n")
    process.stdin.flush()
    said = reads_until(process, b"61 ff 62 0d 0a")  # a telnetd may drop what its shell says as it ends
    process.stdin.write(b"exit\n")
    process.stdin.flush()
    said += ends(process)
    assert b"geheim" not in said
    assert b"Password" not in said
    assert process.returncode == 0
    newest = site.newest()
    played = site.jump("recording", "play", newest["name"], "--speed", "0")
    assert "61 ff 62" in played
    assert "geheim" not in played
    assert "old                      telnet, UNENCRYPTED" in site.jump("assets")


@TELNET
def test_what_telnet_has_not(site: JumpSite) -> None:
    for more in (("echo a",), ("-s", "sftp")):
        assert b"no rule lets you have" in ends(site.start("tech", "old", *more))
    for kind in (("--new-key",), ("--key", str(site.folder / "tech"))):
        assert "telnet, which has no keys" in site.jump("credential", "old", "operator", *kind, code=2)
    assert "does not go without one" in site.jump("credential", "station", site.login, "--none", code=2)


@TELNET
def test_a_password_that_the_asset_does_not_take(site: JumpSite) -> None:
    """Nobody is left at a login prompt of the asset, where anything could be typed."""
    secret = site.folder / "secret"
    for wrong in ("other", "geheim"):
        secret.write_text(f"{wrong}\n")
        site.jump("credential", "old", "operator", "--password", str(secret))
        if wrong == "other":
            done = site.ssh("tech", "old", more=("-tt",))
            assert (done.returncode, b"does not take the gate's credential" in done.stderr + done.stdout) == (1, True)
            assert b"login:" not in done.stdout
    eventually(lambda: last_has_ended(site))
    assert events(site.state, "access-ended")[-1]["received"] == 0


@pytest.mark.skipif(not Path(SER2NET).exists(), reason="there is no ser2net (Debian)")
def test_a_serial_line_behind_ser2net(site: JumpSite) -> None:
    """By telnet with RFC 2217 offered, at which nobody signs in, and bare, where the gate does; one place each."""
    secret = site.folder / "secret"
    secret.write_text("geheim\n")
    site.jump("credential", "line", "operator", "--none")
    site.jump("credential", "drive", "operator", "--password", str(secret))
    for name, how, password in (("line", "telnet(rfc2217)", ""), ("drive", "raw", "geheim")):
        controller = Controller(site.folder / f"{name}-end", site.ports[name], how, password)
        try:
            process = site.begins("tech", name, more=("-tt",))
            assert process.stdin is not None
            process.stdin.write(b"\r" if name == "line" else b"")
            process.stdin.flush()
            said = reads_until(process, b"PLC> ")
            if name == "drive":
                refused = site.ssh("tech", "drive", more=("-tt",))
                assert b"drive has 1 session, and takes no more" in refused.stdout + refused.stderr
            process.stdin.write(b"volts\r")
            process.stdin.flush()
            said += reads_until(process, b"24.1 V")
            process.kill()
            ends(process)
        finally:
            controller.close()
        eventually(lambda: not site.sessions())
        newest = site.newest()
        played = site.jump("recording", "play", newest["name"], "--speed", "0")
        assert "24.1 V" in played
        assert "geheim" not in played + said.decode()
    assert "drive                    serial, UNENCRYPTED" in site.jump("assets")
    assert "serial, which has no keys" in site.jump("credential", "drive", "operator", "--new-key", code=2)


SOAK = [pytest.param(part, marks=pytest.mark.soak) for part in ("outer", "archivist")]


@pytest.mark.parametrize("part", ["inner", *SOAK])
def test_kill_9_of_a_part(site: JumpSite, part: str) -> None:
    """Both legs end; what was recorded is whole; what was known is known after. (Without a keeper sessions go on:
    test_jump_without_keeper.)"""
    process = site.begins("tech", "station", "sleep 1000")
    killed = events(site.state, "access-opened")[-1]["session"]
    kill(before := site.gate.pid(part))
    ends(process)
    site.gate.reborn(part, before)
    eventually(lambda: site.ssh("tech", "station", "echo again").stdout == b"again\n")
    assert "no findings" in site.jump("recording", "verify")
    eventually(lambda: killed in services.ends(gather.history(site.state)[1]))
    assert services.ends(gather.history(site.state)[1])[killed].event["kind"] in ("access-ended", "half-died")


def test_what_a_program_without_a_terminal_says_sets_nobodys_clipboard(site: JumpSite) -> None:
    """Its bytes are its client's, as they are; who watches, or plays it later, has a terminal."""
    evil = site.folder / "evil"
    evil.write_bytes(b"before\x1b]52;c;T1dORUQ=\x07after\n")
    assert site.ssh("tech", "station", f"head -n 1 {evil}").stdout == evil.read_bytes()
    assert "beforeafter\n" in site.jump("recording", "play", site.newest()["name"], "--speed", "0")


def test_watched_live_joined_and_told(site: JumpSite) -> None:
    """CIP-005-7 R2.4, R3.1: active sessions are seen, as they go on; two hands at one terminal."""
    settle(site.state)
    watched = len(events(site.state, "access-watched"))
    site.jump("group", "join", "tech", "vendors")
    number = site.ssh("vendor", "vendor", "request station 1h looks on").stdout.decode().split()[1]
    site.ssh("lead", "lead", f"approve {number}")
    worker = site.begins("vendor", "station", more=("-tt",))
    prompt = b"#" if site.login == "root" else b"$"
    reads_until(worker, prompt)
    session = site.sessions()[-1]["number"]
    for who in ("vendor", "tech"):
        refused = site.ssh(who, who, f"watch {session}").stderr
        assert b"only who may approve it" in refused, refused
    assert site.ssh("tech", "tech", "watch").returncode == 1
    assert site.ssh("tech", "tech", stdin=b"\x1b[A\x1bOBlist zz\x1b[1;5D\n").stdout.startswith(
        b"nothing that you may reach"
    )
    # Who is in the same group learns neither who is there nor why they asked.
    assert site.ssh("tech", "tech", "who").stdout == b"1 of others\n"
    assert b"neither yours nor for you" in site.ssh("tech", "tech", f"statement {number}").stderr
    assert b"vendor (127.0.0.1) at station" in site.ssh("lead", "lead", "who").stdout
    watcher = site.start("lead", "lead", "watch", str(session))
    said = reads_until(watcher, prompt)  # what was there before
    assert b"you watch vendor at station" in said
    reads_until(worker, b"lead watches")
    assert worker.stdin is not None
    worker.stdin.write(b"echo one-$((40+2))\n")
    worker.stdin.flush()
    reads_until(watcher, b"one-42")
    assert "lead watches" in site.jump("sessions")
    joiner = site.start("lead", "lead", "join", str(session), more=("-tt",))
    reads_until(joiner, b"you have joined vendor at station")
    reads_until(worker, b"lead joined")
    assert joiner.stdin is not None
    joiner.stdin.write(b"echo two-$((40+3))\n")
    joiner.stdin.flush()
    for each in (worker, watcher, joiner):
        reads_until(each, b"two-43")
    assert b"is told" in site.ssh("lead", "lead", f"say {session} not that valve \x1b]0;x\x07").stdout
    said = reads_until(worker, b"lead says: not that valve")
    site.jump("say", str(session), "come to the gate")
    reads_until(worker, b"at the gate says: come to the gate")
    command = [sys.executable, "-m", "cofferdam.cli.main", "jump", "watch", str(session), "--state", str(site.state)]
    operator = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert b"two-43" in reads_until(operator, b"come to the gate")
    joiner.stdin.write(b"\x1d")
    joiner.stdin.flush()
    assert b"you watch no more" in ends(joiner)
    reads_until(worker, b"lead watches no more")
    worker.stdin.write(b"exit\n")
    worker.stdin.flush()
    ends(worker)
    assert b"the session has ended" in ends(watcher)
    assert b"it has ended: 0" in ends(operator)
    eventually(lambda: len(events(site.state, "access-watched")) >= watched + 4)
    how = [(each["by"], each["how"]) for each in events(site.state, "access-watched")[watched:]]
    assert sorted(how) == sorted([("lead", "watches"), ("lead", "joined"), ("lead", "left"), ("lead", "left")])
    newest = site.newest()
    site.jump("recording", "export", newest["name"], "--output", str(site.folder / "watched.cast"))
    marks = [
        json.loads(line)[2] for line in (site.folder / "watched.cast").read_text().splitlines()[1:] if '"m"' in line
    ]
    assert [mark.split(":")[0] for mark in marks[:3]] == ["lead watches", "lead joined", "lead says"]
    site.jump("group", "leave", "tech", "vendors")


def test_a_session_that_has_to_be_watched(site: JumpSite) -> None:
    """It begins with its first watcher, and ends with the last."""
    site.person("guest", "guests")
    number = site.ssh("guest", "guest", "request station 1h a look").stdout.decode().split()[1]
    assert b"it takes a signature" in site.ssh("lead", "lead", f"approve {number}").stderr
    assert "is granted" in site.jump("approve", number, "--key", str(site.folder / "lead"))
    opened = len(events(site.state, "access-opened"))
    guest = site.start("guest", "station", "sleep 1000")
    reads_until(guest, b"waits for somebody of leads to watch")
    session = site.sessions()[-1]["number"]
    assert len(events(site.state, "access-opened")) == opened
    watcher = site.start("lead", "lead", "watch", str(session))
    reads_until(watcher, b"you watch guest")
    eventually(lambda: len(events(site.state, "access-opened")) == opened + 1)
    watcher.kill()
    watcher.communicate()
    assert b"nobody watches any more" in ends(guest)
    guest = site.start("guest", "station", "sleep 1000")
    reads_until(guest, b"waits for somebody")
    assert "barred" in site.jump("kill", str(site.sessions()[-1]["number"]))
    assert b"ended by" in ends(guest)
    site.jump("unblock", "guest", "station")
