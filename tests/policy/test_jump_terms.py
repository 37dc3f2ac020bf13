"""What a policy may say of the jump server: errors at their place, warnings, needs, slices, explanations."""

from __future__ import annotations

from pathlib import Path

import pytest

from cofferdam.cli.main import main
from cofferdam.errors import CofferdamError, PolicyError
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.explain import Question
from cofferdam.policy.lint import lint
from cofferdam.policy.load import load, loads
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms import jump
from cofferdam.policy.terms.base import Scope
from cofferdam.policy.terms.jump_rows import JumpRows, fits, is_opaque, leads_to, matching, names, within, words_of
from cofferdam.policy.terms.kinds import KINDS

POLICY = """
site: works
zones:
  office: {side: it}
  plant: {side: ot}
assets:
  station: {zone: plant, address: 10.20.0.30, protocol: ssh}
  switch: {zone: plant, address: 10.20.0.31, protocol: ssh}
  line: {zone: plant, address: 10.20.0.34, protocol: telnet}
  drive: {zone: plant, address: 10.20.0.35, protocol: serial}
  screen: {zone: plant, address: 10.20.0.32, protocol: vnc}
  plc: {zone: plant, address: 10.20.0.33, protocol: modbus}
principals:
  vendors: {zone: office, addresses: [10.1.0.0/24]}
  yard: {zone: plant, addresses: [10.20.1.1]}
conduits:
  vendor-helps:
    from: office
    to: plant
    broker: jump
    owner: maintenance
    reason: contract 4711
    expires: 2030-06-30
    listen: "10.1.0.2:22"
    clients: vendors
    approval: {by: leads, people: two, window: 4 h}
    files: {scan: true, most: 100 MB}
    idle: 10 min
    allow:
      - {who: {group: vendor-x}, asset: station, as: service, do: [shell, up, down], paths: [/srv/logs/**, /tmp/*.csv]}
      - {who: [{person: tech1}, {group: own}], asset: [station, switch], as: admin, do: shell}
      - {who: {person: tech1}, asset: station, as: admin, do: exec, commands: [uptime, "journalctl -u *"]}
"""
NOW = 1_900_000_000 * 10**9


def compiled(text: str = POLICY) -> CompiledPolicy:
    return compile_policy(loads(text), now_ns=NOW)


WRONG = [
    ("who: {group: vendor-x}", "who: vendor-x", "vendor-x", "did you mean {group: vendor-x}"),
    ("asset: station, as: service", "asset: statoin, as: service", "statoin", "did you mean station"),
    ("asset: station, as: service", "asset: screen, as: service", "screen", "desktops come with the console"),
    ("asset: station, as: service", "asset: plc, as: service", "plc", "an asset that speaks ssh"),
    ("asset: station, as: service", "asset: drive, as: service", "down, up at drive, which speaks serial", "shell"),
    ("asset: station, as: service", "asset: line, as: service", "down, up at line", "expected shell"),
    ("do: [shell, up, down], paths: [/srv/logs/**, /tmp/*.csv]", "do: up", "files without paths", "paths"),
    ("do: exec, commands: [uptime, \"journalctl -u *\"]", "do: exec", "exec without commands", "commands"),
    ("/srv/logs/**", "/srv/../etc", "/srv/../etc", "an absolute path"),
    ("/srv/logs/**", "/srv/**/x", "/srv/**/x", "an absolute path"),
    ("uptime, ", "'*', ", "*", "a command"),
    ("do: exec", "do: exce", "exce", "did you mean exec"),
    ("clients: vendors", "clients: yard", "yard of zone plant", "a principal of office"),
    ("clients: vendors", "clients: vendor", "vendor", "did you mean vendors"),
    ("from: office\n    to: plant", "from: plant\n    to: office", "plant, which is ot", "people on the it side"),
    ("people: two", "people: three", "three", "one, two"),
    ("window: 4 h", "window: 9 weeks", "9 weeks", ""),
    ("window: 4 h}", "always: {from: '06:00', to: '14:00', zone: Mars/Base}}", "Mars/Base", "time zone"),
    ("idle: 10 min", "idle: 10 min\n    lock: 10 min", "before it would be locked", "shorter than `idle`"),
    ("idle: 10 min", "rotate: {command: passwd, says: x}", "never say the new password", "{new}"),
    ("idle: 10 min", "rotate: {command: 'x {new}'}", "in the command's line", "a command that reads it"),
    ("as: service", "as: 'a b'", "a b", "account"),
    ("[uptime, ", "['rsync --server *', ", "rsync --server *", "`opaque: [rsync]`"),
    ("commands: [uptime", "opaque: 'sh -c *', commands: [uptime", "sh -c *", "one program"),
    ("do: shell}", "do: shell, opaque: rsync}", "opaque without exec", "do: [exec]"),
    ("most: 100 MB", "rate: 1 kB", "1 kB", "10"),
]  # fmt: skip


PORTS = (
    POLICY.replace(
        "modbus}", 'modbus, listen: "10.1.0.2:502", points: {level: {at: holding 0, type: uint16}}}'
    ).replace("conduits:", "  helpers: {zone: office, jump: vendor-helps}\nconduits:")
    + """      - {who: {group: own}, asset: plc, do: port}
  asks:
    from: office
    to: plant
    broker: modbus
    owner: maintenance
    reason: contract 4711
    expires: 2030-06-30
    allow: [{who: helpers, asset: plc, read: level}]
"""
)
NO_PORTS = [
    ("jump: vendor-helps", "jump: asks", "asks, a conduit of modbus", "one of the jump server"),
    ("jump: vendor-helps", "jump: vendor-help", "vendor-help", "did you mean vendor-helps"),
    ("jump: vendor-helps", "jump: vendor-helps, addresses: [10.1.0.9]", "addresses and jump", "has signed in there"),
    ("zone: office, jump", "zone: plant, jump", "plant", "office, where vendor-helps begins"),
    ("who: helpers", "who: vendors", "lets nobody ask who comes by this conduit", "{zone: office, jump: vendor-helps}"),
    ("asset: plc, do: port", "asset: station, do: port", "station, which speaks ssh", "another broker serves"),
    ("asset: plc, do: port", "asset: plc, do: [port, shell], as: admin", "port beside others", "a rule of its own"),
    ("window: 4 h", "window: 4 h, watched: true", "a port, at which nobody could look", "without `watched: true`"),
    ("asset: station, as: service", "asset: station", "a rule without `as`", "as: service"),
]


@pytest.mark.parametrize(("old", "new", "found", "expected"), NO_PORTS)
def test_ports_that_lead_nowhere(old: str, new: str, found: str, expected: str) -> None:
    assert old in PORTS
    with pytest.raises(PolicyError) as raised:
        loads(PORTS.replace(old, new, 1))
    said = "\n".join(map(str, raised.value.problems))
    assert found in said and expected in said, said


def test_a_port_joins_two_crews() -> None:
    policy = compiled(PORTS)
    needs = {name: KINDS[each.broker].needs(each, policy).parts for name, each in policy.conduits.items()}
    for part in ("outer", "inner"):
        ends = {
            name: [(one.end, one.address, one.port, one.share) for one in parts[part].seams]
            for name, parts in needs.items()
        }  # fmt: skip
        assert ends["vendor-helps"] == [("front", "10.1.0.2", 502, "plc")]
        assert ends["asks"] == [("back", "10.1.0.2", 502, "plc")]
    # Nobody else may come: the proxy does not listen, and the jump server's inner part has no way to the device.
    assert needs["asks"]["outer"].listens == ()
    assert "plc" not in {reach.share for reach in needs["vendor-helps"]["inner"].reaches}
    without = compiled(PORTS.replace("      - {who: {group: own}, asset: plc, do: port}\n", ""))
    assert not KINDS["modbus"].needs(without.conduits["asks"], without).parts["outer"].seams


def test_who_comes_by_a_port_is_who_the_policy_says() -> None:
    policy = compiled(PORTS)
    assert policy.principals_of("jump:vendor-helps", "office") == ("helpers",)
    assert policy.principals_of("jump:asks") == policy.principals_of("jump:vendor-helps", "plant") == ()
    assert "helpers" not in policy.principals_of("10.1.0.7")
    assert policy.held(principals=["helpers"]).principals_of("jump:vendor-helps") == ()
    asked = Question("10.1.0.7", {"person": "group:own", "asset": "plc", "do": "port"}, NOW - 10**18)
    found = KINDS["jump"].explain(policy, asked)
    assert found.allowed and "judged by the broker modbus" in " ".join(found.conditions)
    by_port = Question("jump:vendor-helps", {"asset": "plc", "operation": "read level"}, NOW - 10**18)
    assert (
        KINDS["modbus"].explain(policy, by_port).sentence.startswith("allowed by asks/0: jump:vendor-helps (helpers)")
    )
    person = compiled(PORTS.replace("jump: vendor-helps", "jump: vendor-helps, user: anna"))
    assert person.principals_of("jump:vendor-helps") == ()


@pytest.mark.parametrize(("old", "new", "found", "expected"), WRONG)
def test_what_is_wrong_is_said_at_its_place(old: str, new: str, found: str, expected: str) -> None:
    assert POLICY.count(old) >= 1
    text = POLICY.replace(old, new, 1)
    with pytest.raises(PolicyError) as raised:
        loads(text)
    said = [str(problem) for problem in raised.value.problems]
    assert any(found in one and expected in one for one in said), said


def test_warnings() -> None:
    text = POLICY.replace("    approval: {by: leads, people: two, window: 4 h}\n", "    record: {terminal: false}\n")
    text = text.replace("    files: {scan: true, most: 100 MB}\n", "")
    found = {problem.check for problem in lint(loads(text), now_ns=NOW)}
    assert {"no-approval", "unrecorded", "unscanned"} <= found
    clean = {problem.check for problem in lint(loads(POLICY), now_ns=NOW)}
    assert clean & {"no-approval", "unrecorded", "unscanned", "no-points"} == {"no-points"}  # the PLC's
    old = "- {who: {person: tech1}, asset: [line, drive], as: admin, do: shell}"
    more = POLICY.replace("      - {who: {group: vendor-x}", f"      {old}\n      - {{who: {{group: vendor-x}}", 1)
    (unencrypted,) = [problem for problem in lint(loads(more), now_ns=NOW) if problem.check == "unencrypted"]
    assert "drive, line, reached unencrypted" in unencrypted.found
    more = POLICY.replace("exec, commands:", "exec, opaque: [rsync, /bin/sh], commands:")
    (opaque,) = [problem for problem in lint(loads(more), now_ns=NOW) if problem.check == "opaque"]
    assert "rsync, /bin/sh with whatever arguments" in opaque.found
    assert len(jump.CHECKS) == 5


def test_what_its_parts_need() -> None:
    policy = compiled()
    needs = KINDS["jump"].needs(policy.conduits["vendor-helps"], policy)
    assert list(needs.parts) == ["outer", "keeper", "archivist", "inner"]
    (listen,) = needs.parts["outer"].listens
    assert (listen.address, listen.port, listen.who) == ("10.1.0.2", 22, ("vendors",))
    reached = {(reach.address, reach.port) for reach in needs.parts["inner"].reaches}
    assert reached == {("10.20.0.30", 22), ("10.20.0.31", 22)}
    assert needs.parts["keeper"].place is None
    assert needs.parts["keeper"].store is not None
    assert len(set(needs.apart.values())) == 1


def test_each_part_knows_no_more_than_it_must() -> None:
    policy = compiled()
    scope = Scope(frozenset(policy.conduits), frozenset({"station", "switch"}))

    def row(part: str) -> tuple[JumpRows, CompiledPolicy]:
        table = KINDS["jump"].slice(policy, scope, part)
        terms = table.conduits["vendor-helps"].terms
        assert isinstance(terms, JumpRows)
        return terms, CompiledPolicy(table)

    outer, seen = row("outer")
    assert (outer.lines, outer.approval, seen.assets) == ((), None, {})
    assert list(seen.principals) == ["vendors"]
    inner, seen = row("inner")
    assert seen.assets["station"].address == "10.20.0.30"
    assert (inner.address, seen.principals) == ("", {})
    keeper, seen = row("keeper")
    assert keeper.lines and keeper.approval is not None
    assert seen.assets["station"].address == ""
    archivist, seen = row("archivist")
    assert (archivist.lines, seen.assets, seen.principals) == ((), {}, {})


def ask(source: str, person: str, asset: str, do: str) -> str:
    said = {"person": person, "asset": asset, "do": do}
    return KINDS["jump"].explain(compiled(), Question(source, said, NOW)).sentence


def test_hours_in_which_nobody_is_asked_are_said() -> None:
    text = POLICY.replace("window: 4 h}", "always: {days: mon-fri, from: '06:00', to: '14:00', zone: Europe/Paris}}")
    said = {"person": "tech1", "asset": "switch", "do": "shell"}
    found = KINDS["jump"].explain(compiled(text), Question("10.1.0.9", said, NOW))
    assert any("nobody has to in mon-fri 06:00-14:00 Europe/Paris" in one for one in found.conditions), found.conditions
    policy = compiled(text)
    for part, clocks in (("keeper", {"Europe/Paris"}), ("inner", set()), ("outer", set())):
        table = KINDS["jump"].slice(policy, Scope(frozenset(policy.conduits), frozenset({"station"})), part)
        assert set(table.clocks) == clocks, part


def test_explain() -> None:
    assert ask("10.1.0.9", "tech1", "switch", "shell").startswith("allowed by vendor-helps/1")
    assert "the value fails: /etc/x is asked" in ask("10.1.0.9", "group:vendor-x", "station", "up:/etc/x")
    assert ask("10.1.0.9", "group:vendor-x", "station", "up:/srv/logs/a/b").startswith("allowed by vendor-helps/0")
    assert "reaches no jump server" in ask("10.9.0.9", "tech1", "switch", "shell")
    assert "person:tech1, group:own may" in ask("10.1.0.9", "who", "switch", "shell") or "group:own" in ask(
        "10.1.0.9", "who", "switch", "shell"
    )
    said = ask("10.1.0.9", "tech1", "station", "exec:reboot")
    assert "rule is vendor-helps/2" in said and "value fails: the command reboot is asked; allowed: uptime" in said
    assert "did you mean group:vendor-x?" in ask("10.1.0.9", "group:vendr-x", "station", "shell")
    with pytest.raises(CofferdamError, match="has no asset"):
        ask("10.1.0.9", "tech1", "staton", "shell")
    with pytest.raises(CofferdamError, match="cannot be done"):
        ask("10.1.0.9", "tech1", "station", "format")


def test_a_question_without_what_is_done_is_answered_with_how_to_ask_that_broker(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.yaml").write_text(POLICY)
    assert main(["explain", str(tmp_path / "p.yaml"), "--person", "tech1", "--asset", "station"]) == 2
    hint = capsys.readouterr().err.splitlines()[-1]
    assert "--do" in hint and "--push" not in hint and "--operation" not in hint


def test_an_asset_of_people_is_described_by_how_they_reach_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.yaml").write_text(POLICY)
    assert main(["describe", "station", "--policy", str(tmp_path / "p.yaml")]) == 0
    said = capsys.readouterr().out
    assert "people reach it by the jump server at 10.1.0.2:22: ssh station@GATE" in said
    assert "nothing listens" not in said
    for may in ("may shell (", "may reach station (", "may run uptime (", "may have files at /tmp/*.csv ("):
        assert may in said, may


def test_a_scan_without_a_scanner_is_said_before_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if Path("/run/clamav/clamd.ctl").is_socket():
        pytest.skip("clamd runs here")
    for text, told in ((POLICY, True), (POLICY.replace("scan: true, ", ""), False)):
        (tmp_path / "p.yaml").write_text(text)
        main(["up", str(tmp_path / "p.yaml"), "--state", str(tmp_path / "state"), "--check-only"])
        said = capsys.readouterr().out
        assert ("vendor-helps: files are scanned, and there is no clamd: none of them passes" in said) == told


def test_a_setting_that_changes_is_called_as_in_the_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "old.yaml").write_text(POLICY)
    (tmp_path / "new.yaml").write_text(POLICY.replace("scan: true, ", ""))
    assert main(["diff", str(tmp_path / "old.yaml"), str(tmp_path / "new.yaml")]) == 1
    assert "~ conduits / vendor-helps / files / scan: " in capsys.readouterr().out


def test_commands_and_paths() -> None:
    rows = {name: each.terms for name, each in compiled().conduits.items() if isinstance(each.terms, JumpRows)}
    who = names("tech1", ())
    assert matching(rows, who, "station", "exec", command="uptime")
    assert matching(rows, who, "station", "exec", command="journalctl -u pump")
    for command in (
        "uptime;id",
        "journalctl -u x; id",
        "journalctl -u $(id)",
        "journalctl",
        "Uptime",
        "journalctl -u a\nb",
    ):
        assert not matching(rows, who, "station", "exec", command=command), command
    assert fits("a [b] ?", ["a [b] *"]) and not fits("a b x", ["a [b] *"])
    patterns = ("/srv/logs/**", "/tmp/*.csv")
    assert all(within(path, patterns) for path in ("/srv/logs", "/srv/logs/a", "/srv/logs/a/b", "/tmp/x.csv"))
    assert not any(within(path, patterns) for path in ("/srv/logsx", "/srv", "/tmp/a/x.csv", "/tmp/x.csv/y", "/"))
    assert all(leads_to(path, patterns) for path in ("/", "/srv", "/srv/logs", "/tmp"))
    assert not any(leads_to(path, patterns) for path in ("/etc", "/srv/other"))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("/bin/sh -c 'echo ~ && sleep 0; id'", ["/bin/sh", "-c", "echo ~ && sleep 0; id"]),
        ("/bin/sh -c 'a'\"'\"'b'", ["/bin/sh", "-c", "a'b"]),
        ("rsync --server -vlogDtpre.iLsfxCIvu . /srv/a\\ b/*.csv", None),
        ("rsync ''  \"x y\" ", ["rsync", "", "x y"]),
        *[(f"rsync --server {more}", []) for more in (
            "; id", "a;id", "| id", "& id", "> /x", "< /x", "`id`", "$(id)", "$HOME", '"$(id)"', '"`id`"', "\nid",
            "(id)", "a\0", "'open", '"open', "open\\", "# x", "!x", "{a,b}",
        )],
    ],
)  # fmt: skip
def test_one_command_and_no_other(command: str, words: list[str] | None) -> None:
    found = words_of(command)
    assert found == (["rsync", "--server", "-vlogDtpre.iLsfxCIvu", ".", "/srv/a b/*.csv"] if words is None else words)


@pytest.mark.parametrize(
    ("command", "may"),
    [
        ("rsync --server . /srv", True), ("/bin/sh -c 'a && b'", True), ("/bin/sh", True),
        ("rsync . host:/", False), ("/usr/bin/rsync --server . /srv", False), ("sh -c a", False),
        ("X=1 /bin/sh -c a", False), ("/bin/sh -c a; b", False), ("", False), ("/bin/sh*", False),
        ("/bin/s? -c a", False),
    ],
)  # fmt: skip
def test_opaque_programs(command: str, may: bool) -> None:
    assert is_opaque(command, ("rsync", "/bin/sh")) is may


def test_opaque_is_explained() -> None:
    policy = compiled(POLICY.replace("do: exec, commands: [uptime,", "do: exec, opaque: rsync, commands: [uptime,"))
    said = {"person": "tech1", "asset": "station"}
    for do, note in (("exec:rsync --server . /x", True), ("exec:uptime", False)):
        found = KINDS["jump"].explain(policy, Question("10.1.0.7", said | {"do": do}, NOW))
        assert found.allowed
        assert any("recorded as bytes" in one for one in found.conditions) is note


FROM_ANYWHERE = [
    ("tech1", "exec:uptime", True, "person:tech1 may exec:uptime on station"),
    ("group:vendor-x", "up:/srv/logs/today", True, "they come from vendors"),
    ("group:vendor-x", "up:/home/tech/x", False, "/home/tech/x is asked; /srv/logs/**, /tmp/*.csv are allowed"),
    ("tech1", "up:/srv/logs/x", False, "ask with --person group:NAME"),
    ("group:own", "up:/srv/logs/x", False, "group:own asks for up /srv/logs/x; group:vendor-x may up there"),
]


@pytest.mark.parametrize(("person", "do", "allowed", "says"), FROM_ANYWHERE)
def test_from_wherever_they_come(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], person: str, do: str, allowed: bool, says: str
) -> None:
    """Who asks is told by the name; from where need not be."""
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    at = ["--at", "2027-01-04T07:30Z"]
    code = main(["explain", str(file), "--person", person, "--asset", "station", "--do", do, *at])
    said = capsys.readouterr().out
    assert (code == 0) is allowed, said
    assert says in said
    assert "0.0.0.0" not in said and "the gate may" not in said
    assert main(["explain", str(file), "--person", person, "--asset", "station", "--do", do, "--from", "10.9.9.9"]) == 1
    assert "10.9.9.9 reaches no jump server" in capsys.readouterr().out


def test_the_example() -> None:
    """It loads, says what it means, and lint finds no more in it than its comments say."""
    read = load(Path(__file__).parents[2] / "examples" / "remote-access.yaml")
    assert {problem.check for problem in lint(read, now_ns=NOW)} == {"not-recorded", "unencrypted", "opaque"}
    policy = compile_policy(read, now_ns=NOW)
    (laptop,) = policy.principals["vendor-laptop"].networks[:1]
    for source, person, asset, do, allowed in (
        (laptop.split("/")[0], "group:vendor-x", "eng-station", "down:/srv/logs/a", True),
        (laptop.split("/")[0], "group:vendor-x", "panel", "shell", False),
        ("10.1.5.7", "group:vendor-x", "eng-station", "shell", False),
        ("10.1.5.7", "group:technicians", "panel", "up:/srv/recipes/1.csv", True),
        ("10.1.6.10", "group:technicians", "panel", "shell", False),
    ):
        question = Question(source, {"person": person, "asset": asset, "do": do}, NOW)
        assert KINDS["jump"].explain(policy, question).allowed is allowed, (source, person, asset, do)
