"""`export.yaml` of an earlier release, which nothing reads any more: that it is there, and how to write it now.

Collectors stand in the policy since the gate has exports of its own (ADR 52). Whoever upgrades would otherwise find out
by a SIEM that has fallen silent.

Not here: collectors as they are now (policy.schema).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from cofferdam.policy.problems import Problem
from cofferdam.policy.yamltext import MAX_BYTES, parse

NAME: Final = "export.yaml"
KEPT: Final = ("name", "form", "kinds", "enterprise")
"""What is called as it was."""


def beside(policy: Path) -> Path:
    """Where an earlier release had it, by where the policy lies."""
    return (policy if policy.is_dir() else policy.parent) / NAME


def finding(policy: Path) -> Problem | None:
    """A warning, where the file is there."""
    path = beside(policy)
    if not path.is_file():
        return None
    found = f"{NAME} of an earlier release, which nothing reads any more"
    return Problem(str(path), 1, 1, found, "its collectors in the policy, and no such file", severity="warning",
                   check="old-export")  # fmt: skip


def rewritten(path: Path) -> tuple[str, ...]:
    """How its collectors are written now: lines for the policy, and commands for what stands in no policy; none where
    it cannot be understood."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES).decode()
    except (OSError, UnicodeDecodeError):
        return ()
    node = parse(text, str(path), [])
    found = node.plain() if node is not None else None
    collectors = found.get("collectors") if isinstance(found, dict) else None
    if not isinstance(collectors, dict):
        return ()
    lines, commands = ["audit:", "  collectors:"], []
    for name, said in collectors.items():
        if isinstance(said, dict):
            more, todo = _collector(str(name), said)
            lines += more
            commands += todo
    return (*lines, *commands, f"rm {path}") if len(lines) > 2 else ()


def _collector(name: str, said: dict[str, Any]) -> tuple[list[str], list[str]]:
    to = str(said.get("to", ""))
    lines, commands = [f"    {name}:"], []
    if to.startswith("file:"):
        lines.append(f"      to: folder    # STATE/folders/export-{name}/cofferdam.jsonl, and no longer {to}")
    else:
        lines.append(f'      to: "{to}"    # an address: names are not resolved')
    if to.startswith(("tls:", "https:")):
        ca = str(said.get("ca") or "FILE, whose certificates count: the system's do not")
        lines.append(f"      authority: {Path(ca).name}" if said.get("ca") else f"      authority: # {ca}")
        commands += [f"cp {ca} .    # beside the policy"] if said.get("ca") else []
    lines += [f"      {key}: {said[key]}" for key in KEPT if key in said]
    headers = said.get("header")
    if isinstance(headers, dict):
        for header, value in list(headers.items())[:1]:
            lines.append(f"      header: {header}")
            where = str(value).removeprefix("file:")
            commands.append(f"cofferdam export secret {name} --token {where}")
    if said.get("certificate"):
        pair = f"--certificate {said['certificate']} --key {said.get('key', 'FILE')}"
        commands.append(f"cofferdam export secret {name} {pair}")
    return lines, commands
