"""The nft program: found, given a ruleset as one transaction, asked for what is in force.

It works on the network namespace of the calling process. Not here: what the rules say (plans.rules).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Any

from cofferdam.errors import GateError

SECONDS = 60.0
"""How long nft may take; 10,000 rules take about a second."""
_WHERE = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin"
_HINT = "Debian: apt-get install nftables"


def find_nft() -> str:
    """The program's path. Administrators' folders are searched too: a user's PATH often lacks them.

    Raises:
        GateError: it is not there.
    """
    found = shutil.which("nft", path=f"{os.environ.get('PATH', '')}:{_WHERE}")
    if found is None:
        raise GateError("the program nft is missing, and with it the firewall", hint=_HINT)
    return found


def apply(nft: str, rules: dict[str, Any]) -> str:
    """Puts a ruleset in force, all of it or nothing; what nft says against it, or ""."""
    done = _run([nft, "-j", "-f", "-"], json.dumps(rules))
    return "" if done.returncode == 0 else (done.stderr.strip() or f"nft ended with code {done.returncode}")


def live(nft: str) -> dict[str, Any]:
    """The ruleset that is in force.

    Raises:
        GateError: nft does not say.
    """
    done = _run([nft, "-j", "list", "ruleset"])
    if done.returncode != 0:
        raise GateError(f"nft does not list its rules: {done.stderr.strip()}")
    try:
        listed: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        # nft 1.0.6 takes the names of a table's flags from beyond the end of a list, and may print anything then, or
        # half of it. None of our tables has a flag; what is not known is for the reader of this to refuse.
        plain = _run([nft, "list", "ruleset"]).stdout.splitlines()
        flags = sorted({line.strip() for line in plain if line.startswith("\tflags ")})
        listed = {"nftables": [{f"listing that nft does not finish ({'; '.join(flags) or 'it says not why'})": {}}]}
    return listed


def table(nft: str, name: str) -> list[dict[str, Any]]:
    """What is in a table of the family inet, without what the kernel numbers it by; [] where it is not there.

    Raises:
        GateError: nft does not say.
    """
    done = _run([nft, "-j", "list", "table", "inet", name])
    if done.returncode != 0:
        return []
    try:
        rows: list[dict[str, Any]] = json.loads(done.stdout)["nftables"]
    except (ValueError, KeyError) as error:
        raise GateError(f"nft does not list the table {name}: {error}") from None
    return rows


def _run(command: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=SECONDS, check=False,
            env={"PATH": _WHERE, "LC_ALL": "C"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GateError(f"cannot run {command[0]}: {error}", hint=_HINT) from None
