"""What every verb shares: exit codes, and errors as a sentence with the way out."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cofferdam.cli.main import GROUPS, VERBS, main
from tests.waiting import PATIENT


def cofferdam(*arguments: str | Path, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*prefix, sys.executable, "-m", "cofferdam.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENT, check=False)


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])
    said = capsys.readouterr().out
    assert end.value.code == 0 and f"usage: cofferdam {verb}" in said and VERBS[verb][1][1:] in " ".join(said.split())


def test_the_overview_has_each_verb_once_by_what_it_is_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert end.value.code == 0 and max(map(len, lines)) <= 80
    assert [title for title in GROUPS if f"{title}:" not in lines] == []
    shown = [line.split()[0] for line in lines if line[:2] == "  " and line[2:3].isalpha()]
    assert [verb for verb in shown if verb != "cofferdam"] == list(VERBS)


def test_what_the_readme_does_first_works_as_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = Path(__file__).parents[2]
    block = next(one for one in (root / "README.md").read_text().split("```") if "cofferdam check" in one)
    lines = [shlex.split(line, comments=True) for line in block.strip().splitlines()]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(root / "examples")
    assert subprocess.run(lines[0], check=False).returncode == 0
    for words, code, said in zip(lines[1:3], (0, 1), ("no errors", "refused"), strict=True):
        assert words[0] == "cofferdam" and main(words[1:]) == code, words
        assert said in capsys.readouterr().out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("words", [("schema",), ("schema", "--json"), ("explain", "x", "--json")])
def test_output_that_has_no_room_is_a_sentence(words: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "cofferdam.cli.main", *words]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=PATIENT, check=False
        )  # fmt: skip
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    if words[0] == "schema":
        assert ended.stderr == "cofferdam schema: No space left on device\n"


def test_a_verb_that_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["chekc"])
    assert end.value.code == 2 and "did you mean check" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        main(["log"])
    assert end.value.code == 2 and "did you mean audit show" in capsys.readouterr().err


INTERRUPTED = """
import os, signal, sys
from cofferdam.cli.main import program

class Impatient:
    def find_spec(self, name, path, target=None):
        if name == "cofferdam.cli.check":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Impatient())
sys.argv = ["cofferdam", "check", "policy.yaml"]
sys.exit(program())
"""


def test_ctrl_c_while_a_verb_is_still_loading_is_no_traceback() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=PATIENT, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


def test_the_schema_of_one_field_of_the_policy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "asset.points"]) == 0
    said = json.loads(capsys.readouterr().out)
    [point] = said["patternProperties"].values()
    assert point["$ref"] == "#/$defs/Point" and list(said["$defs"]) == ["Point"], "what it needs, and no more"
    assert main(["schema", "conduits.allow.who"]) == 0
    assert "$schema" in json.loads(capsys.readouterr().out), "conduits of all brokers have it"
    assert main(["schema", "audit"]) == 0  # that a verb begins so is no hindrance
    assert json.loads(capsys.readouterr().out)["$ref"] == "#/$defs/Audit"
    assert main(["schema", "audit.collectors.form"]) == 0
    assert "ocsf" in capsys.readouterr().out
    for wrong, way in (
        ("asset.poimts", "did you mean asset.points?"),
        ("assset.points", "did you mean assets.points?"),
        ("asset.zone.x", "cofferdam schema --list"),
        ("chekc", "did you mean check?"),
        ("a..b", "cofferdam schema --list"),
    ):
        assert main(["schema", wrong]) == 2
        assert way in capsys.readouterr().err, wrong


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_group_without_a_word_says_which_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["grant"], ["relay", "key"]):
        with pytest.raises(SystemExit) as end:
            main(words)
        said = capsys.readouterr().err
        assert end.value.code == 2 and "list " in said and said.endswith("say which\n")


def test_a_folder_that_this_user_may_not_read_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir()
    tmp_path.chmod(0o700)
    other = ("setpriv", "--reuid=65534", "--clear-groups")
    done = cofferdam("audit", "show", "--state", tmp_path, prefix=other)
    if "No module named" in done.stderr:
        pytest.skip("another user cannot read this copy of the program")
    assert done.returncode == 2
    assert "Permission denied" in done.stderr and str(tmp_path) in done.stderr and "Traceback" not in done.stderr


def test_a_pipe_that_nobody_reads_is_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m cofferdam.cli.main schema | head -c 1 >/dev/null"],
        capture_output=True, text=True, timeout=PATIENT, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr == ""


def test_the_words_of_a_policy_drive_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It may be another's work, and `diff` and `explain` quote it."""
    policy = (
        "site: x\nzones: {office: {side: it, addresses: [127.0.0.1/8]}, plant: {side: ot}}\n"
        "principals: {erp: {zone: office, addresses: [127.0.0.1]}}\n"
        "assets: {plc: {zone: plant, address: 127.0.0.1, protocol: modbus, unit: 1, "
        "listen: 127.0.0.1:1502, points: {level: {at: input 1, type: uint16}}}}\n"
        "conduits:\n  a: {from: office, to: plant, broker: modbus, owner: tests, reason: WORDS,\n"
        "      allow: [{who: erp, asset: plc, read: all}]}\n"
    )
    old, new = tmp_path / "old\x1b[2J.yaml", tmp_path / "new.yaml"
    old.write_text(policy.replace("WORDS", "plain"))
    new.write_text(policy.replace("WORDS", r'"\e[2J\nallowed by \u202e"'))
    assert main(["diff", str(old), str(new)]) == 1
    assert main(["explain", str(new), "--who", "erp", "--asset", "plc", "--operation", "read level"]) == 0
    old.write_text("site: [")
    assert main(["check", str(old)]) == 2
    assert main(["diff", str(new), str(old)]) == 2
    told = capsys.readouterr()
    assert r"\x1b[2J\nallowed by \u202e" in told.out and r"old\x1b[2J.yaml" in told.out + told.err
    assert not set("\x1b\u202e") & set(told.out + told.err)
