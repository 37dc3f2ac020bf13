"""The mistakes that newcomers made: each gives one message, at its place, in their own words, with the nearest right
thing. And the normal form of a text."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from cofferdam.cli.findings import print_problems
from cofferdam.cli.main import main
from cofferdam.errors import PolicyError
from cofferdam.policy.lint import lint
from cofferdam.policy.load import loads
from cofferdam.policy.problems import Problem, excerpt, lines_of
from cofferdam.policy.tidy import tidy
from tests.policy.plant import BASE, conduit

GOOD = BASE + conduit("{who: erp, asset: plc, read: [flow, level]}", "{who: ops, asset: plc, write: speed}")
OWNER = "    owner: someone"
NO_BREAK = "\u00a0"

MISTAKES = [
    # what is replaced, by what; the text at which the finding points; what was found, what is expected, the nearest
    ("  plc:", "\tplc:", "\tplc", "a tab before a word", "spaces", ""),
    ("    zone: plant", "   zone: plant", "address: 10.20.0.17", "begins in column 5", "column 4", ""),
    ("    protocol: modbus", "   protocol: modbus", "protocol: modbus", "column 4", "the lines around it", ""),
    ("    owner: someone", '    owner: "some" one', "one", "behind one that is over", "in quotes", ""),
    ("address: 10.20.0.17", "address: 10.20.0.17:502", "10.20.0.17:502", "10.20.0.17:502", "`port:`", ""),
    ("site: works", "site works", "site works", "without a colon", "NAME: VALUE", "site: works"),
    ("    owner: someone", "    owner someone", "owner someone", "without a colon", "NAME: VALUE", "owner: someone"),
    ("max: 1500,", "max: 1500, {", "{at: holding 200", "{ that nothing closes", "} at the end", ""),
    ("at: holding 100,", "at: holding 100", ": ", 'behind "at: holding 100 type"', "a comma between two entries", ""),
    ("unit: rpm", "unit: a: b", ": b", "a second colon in one entry", "in quotes", ""),
    (OWNER, "    owner: 'someone", "'someone", "a quote that nothing closes", "another '", ""),
    (OWNER, r'    owner: "some\done"', r"\done", "a backslash in double quotes", "single quotes", ""),
    ("unit: rpm", "unit: %", "%", "a text that begins with %", "in quotes", '"%"'),
    ("at: holding 100", "at: %MW100", "%MW100", "begins with %", "in quotes", '"%MW100"'),
    ("    zone: plant", f"    zone:{NO_BREAK}plant", f"{NO_BREAK}plant", "no-break space", "plain space", ""),
    ("type: uint32", "type: int", "int", "int", "one of bool", "int16"),
    ("type: uint32", "type: real", "real", "real", "one of bool", "float32"),
    ("10.1.0.20", "scada01.local", "scada01.local", "scada01", "names are not looked up", ""),
    ("10.1.0.20", "10.1.0.20-10.1.0.25", "10.1.0.20-", "-10.1.0.25", "network", "[10.1.0.20/30, 10.1.0.24/31]"),
    ("10.1.0.20", "10.1.0.20-.21", "10.1.0.20-", "-.21", "network", "10.1.0.20/31"),
    ("10.1.0.20", "192.168.050.020", "192.168.050", "050.020", "network", "192.168.50.20"),
    ("10.1.0.20", "fe80::1%eth0", "fe80::1", "%eth0", "without a scope", ""),
    (OWNER, f"{OWNER}\n    expires: 2027-6-30", "2027-6-30", "2027-6-30", "a date", "2027-06-30"),
    (OWNER, f"{OWNER}\n    expires: 06/30/2027", "06/30", "06/30/2027", "a date", "2027-06-30"),
    (OWNER, f"{OWNER}\n    expires: 2027-02-30", "2027-02", "02-30", "the calendar", ""),
    ("  plc:", "  plc b:", "plc b", "plc b", "letters, digits", "plc-b"),
    ("  plc:", "  plc-ü:", "plc-ü", "plc-ü", "letters, digits", "plc-u"),
    ("read: [flow, level]", 'read: "*"', '"*"', "*", "letters, digits", "all"),
    ("at: holding 100", "at: HR100", "HR100", "HR100", "counted from 0", '"holding 100"'),
    ("at: holding 200", "at: holding200", "holding200", "holding200", "counted from 0", '"holding 200"'),
    ("at: holding 200", "at: Holding Register 200", "Holding", "Register 200", "counted from 0", '"holding 200"'),
    ("at: holding 200", "at: hr 200", "hr", 'the space "hr"', "one of holding", "holding"),
    ("at: holding 200", "register: holding 200", "register", 'the field "register"', "one of at", "at"),
    ("    unit: 1", "    slave: 1", "slave", 'the field "slave"', "one of zone", "unit"),
    ("    unit: 1", "    unit_id: 1", "unit_id", 'the field "unit_id"', "one of zone", "unit"),
    ("    address: 10.20.0.17", "    host: 10.20.0.17", "host", 'the field "host"', "one of zone", "address"),
    ("who: erp, asset", "client: erp, asset", "client", 'the field "client"', "one of who", "who"),
    ("    from: office\n    to: plant", "    from: plant\n    to: office", "plant", "towards office", "on the it side",
     "from: office, to: plant"),
    ("protocol: modbus", "protocol: Modbus/TCP", "Modbus/TCP", "Modbus/TCP", "a name of", "modbus"),
    ("protocol: modbus", "protocol: opcua", "opcua", "of plc is modbus's", "the protocol of the conduit", "modbus"),
    ("write: speed", "write_registers: all", "all", "all", "all stands for reads alone", ""),
    ("site: works", "site: FILL-IN", "FILL-IN", "FILL-IN", "the site's name", ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "at", "found", "expected", "near"), MISTAKES, ids=[case[1] for case in MISTAKES]
)
def test_one_mistake_is_one_message(old: str, new: str, at: str, found: str, expected: str, near: str) -> None:
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    with pytest.raises(PolicyError) as caught:
        loads(text)
    [problem] = caught.value.problems
    assert isinstance(problem, Problem)
    assert found in problem.found and expected in problem.expected and problem.near == near, problem
    assert text.splitlines()[problem.line - 1][problem.column - 1 :].startswith(at), problem
    _, caret = excerpt(problem, lines_of(text)).splitlines()
    assert caret.index("^") - caret.index("|") == problem.column + 1


WARNINGS = [
    ("10.1.0.20", "fd00::9", "never-meet", "erp by IPv6 and plc at IPv4 alone"),
    ("listen: 127.0.0.1:1502", "listen: 10.20.0.17:502", "own-address", "the device's own address"),
    ("at: holding 100", "at: holding 40101", "modicon", "for that address holding 100"),
]


@pytest.mark.parametrize(("old", "new", "check", "words"), WARNINGS)
def test_what_loads_and_was_hardly_meant(old: str, new: str, check: str, words: str) -> None:
    found = [str(one) for one in lint(loads(GOOD.replace(old, new, 1)))]
    assert sum(words in one for one in found) == 1, found
    assert not any(words in str(one) for one in lint(loads(GOOD)))


def test_a_long_line_and_what_no_terminal_should_get() -> None:
    problem = Problem("p", 1, 301, "x", "y")
    line, caret = excerpt(problem, ["\x1b" + "a" * 299 + "bcd"]).splitlines()
    assert "\x1b" not in line and line[caret.index("^")] == "b" and len(line) < 120
    assert excerpt(Problem("p", 9, 1, "x", "y"), ["one line"]) == ""


def test_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for name in ("a", "b", "c"):
        (many / f"{name}.yaml").write_text(GOOD)
    assert main(["check", str(many)]) == 2
    assert "3 files that name a site" in capsys.readouterr().err
    (many / "c.yaml").unlink()  # a copy that somebody keeps beside it: one message, not one for each name
    assert main(["check", str(many)]) == 2
    said = capsys.readouterr().err
    assert "2 files that name a site (a.yaml, b.yaml)" in said and "move copies away" in said and "again" not in said
    one = tmp_path / "one"
    (one / "below").mkdir(parents=True)
    (one / "a.yaml").write_text(GOOD)
    (one / "below" / "openapi.yaml").write_text("openapi: 3.0.0\n")
    assert main(["check", str(one)]) == 0
    (one / "below" / "b.yaml").write_text("zones: {x: {side: it}}\n")
    assert main(["check", str(one)]) == 2
    assert "below/b.yaml in a folder below" in capsys.readouterr().err
    (tmp_path / "wide.yaml").write_bytes(GOOD.encode("utf-16"))
    assert main(["check", str(tmp_path / "wide.yaml")]) == 2
    assert "text in UTF-16" in capsys.readouterr().err


UNTIDY = """\ufeffsite:   works   \r
zones:\r
      office: {side: it}  \r
      # of the plant\r
      plant: {side: ot}\r
\r
\r
\r
principals:\r
    erp:\r
        addresses:\r
        -   10.1.0.1   # one\r
        -   10.1.0.2\r
conduits:\r
     c:\r
        reason: |\r
          two\r
            lines\r
        allow:\r
        -    who: erp\r
             # why\r
             read: all\r
# end"""
TIDY = """site:   works
zones:
  office: {side: it}
  # of the plant
  plant: {side: ot}

principals:
  erp:
    addresses:
      -   10.1.0.1   # one
      -   10.1.0.2
conduits:
  c:
    reason: |
      two
        lines
    allow:
      - who: erp
        # why
        read: all
# end
"""


def test_the_normal_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tidy(UNTIDY, "p") == TIDY == tidy(TIDY, "p")
    file = tmp_path / "p.yaml"
    file.write_bytes(UNTIDY.encode())
    file.chmod(0o640)
    assert main(["fmt", "--check", str(file)]) == 1 and file.read_bytes() == UNTIDY.encode()
    assert main(["fmt", "--diff", str(file)]) == 0 and file.read_bytes() == UNTIDY.encode()
    assert "+  office: {side: it}" in capsys.readouterr().out
    assert main(["fmt", str(file)]) == 0 and file.read_text() == TIDY and file.stat().st_mode & 0o777 == 0o640
    assert main(["fmt", "--check", str(tmp_path)]) == 0
    file.write_text("site: {\n")
    assert main(["fmt", str(file)]) == 2 and file.read_text() == "site: {\n"
    os.mkfifo(tmp_path / "pipe")
    assert main(["fmt", str(tmp_path / "pipe")]) == 2 and main(["fmt", "/dev/zero"]) == 2  # no text that ends
    for example in sorted(Path("examples").glob("*.yaml")):
        assert main(["fmt", "--check", str(example)]) == 0


STAYS = [
    "a:\n  b: 'x\n\n\n    y'\n",
    "a: |2\n    x\nb: 1\n",
    'a: "x \\\n   y"\n',
    "- - 1\n  - 2\n-\n  - a: 1\n    b: 2\n",
]


@pytest.mark.parametrize("text", STAYS)
def test_the_normal_form_means_the_same(text: str) -> None:
    import yaml

    try:
        made = tidy(text, "p")
    except PolicyError:
        return  # it stays as it is
    assert yaml.safe_load(made) == yaml.safe_load(text) and tidy(made, "p") == made


def test_findings_that_come_from_a_gate_are_printed_too(capsys: pytest.CaptureFixture[str]) -> None:
    """A gate that refuses a policy says so in texts; they are no terminal's orders."""
    print_problems(["site.yaml:7:5: no point speeed \x1b[2J; did you mean speed?"])
    out, err = capsys.readouterr()
    assert not out and "site.yaml:7:5: no point speeed" in err and "did you mean speed?" in err and "\x1b" not in err


def test_a_slip_of_the_pen_in_any_word_is_one_mistake() -> None:
    """What hangs on a misspelt word is not told as well. A name that is misspelt where it is defined is told at each
    place that uses it, in the same words."""
    for word in re.finditer(r"[A-Za-z_]{3,}", GOOD):
        text = f"{GOOD[: word.start() + 1]}{GOOD[word.start() + 2 :]}"
        try:
            loads(text)
        except PolicyError as error:
            said = {(one.found, one.expected) for one in error.problems if isinstance(one, Problem)}
            assert len(said) == 1, (word[0], said)
