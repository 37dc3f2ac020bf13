"""The bash script completes verbs, their verbs, options, choices and names of files: asked of a real bash."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cofferdam.cli.main import VERBS, main
from tests.waiting import PATIENT


def completions(script: str, folder: Path, *words: str) -> set[str]:
    """What bash would offer for the last of `words`."""
    ask = (
        'source /dev/stdin; complete -p cofferdam >/dev/null || exit 3; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
        'COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}; _shtab_cofferdam; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", ask, "bash", "cofferdam", *words],
        input=script, capture_output=True, text=True, cwd=folder, timeout=PATIENT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_bash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    (tmp_path / "policy.yaml").write_text("")
    (tmp_path / "polders").mkdir()
    assert completions(script, tmp_path, "") >= set(VERBS)
    assert completions(script, tmp_path, "sta") == {"status"}
    assert completions(script, tmp_path, "audit", "ver") == {"verify"}
    assert {"--json", "--watch", "--state"} <= completions(script, tmp_path, "status", "--")
    smaller = {"zone", "conduit", "principal", "asset", "session"}
    assert completions(script, tmp_path, "sever", "") == {"it", "ot"} | smaller
    assert "policy.yaml" in completions(script, tmp_path, "check", "pol")
    assert "policy.yaml" in completions(script, tmp_path, "up", "pol")
    assert completions(script, tmp_path, "status", "--state", "pol") == {"polders"}


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_get_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "cofferdam" in capsys.readouterr().out


def test_a_shell_that_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["completion", "fsh"])
    assert end.value.code == 2 and "bash" in capsys.readouterr().err
