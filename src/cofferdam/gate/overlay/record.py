"""Overlay addresses on record: a file beside the policy that keeps each name's address for good.

Not here: giving addresses (policy.addressing).
"""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from cofferdam.errors import GateError, PolicyError
from cofferdam.policy.addressing import give, record
from cofferdam.policy.load import load, overlay_record

RECORD_HEAD = """\
# Overlay addresses that were given once, so that each asset and peer keeps its own. Part of the policy: keep them
# together.
# Written by `cofferdam overlay assign`, which adds names and changes none. Remove a name to free its address.
"""


def write_record(path: Path) -> Path:
    """Writes down the overlay addresses of a policy's names. The file that was written.

    Raises:
        PolicyError: the policy has an error other than that its names collide, or no overlay.
    """
    target = overlay_record(path)
    try:
        policy = load(path, resolve=True).policy
        if policy.overlay is None:
            raise PolicyError(f"{path} has no `overlay:` section", hint="docs/overlay.md says how to write it")
        if give(policy, resolve=True).findings:
            load(path)  # raises, with the places
        assets, peers = record(policy)
        document = {
            "overlay": {
                "assigned": {name: list(found) for name, found in sorted(assets.items())},
                "assigned_peers": {name: list(found) for name, found in sorted(peers.items())},
            }
        }
        fresh = target.with_name(f".{target.name}.new")
        with fresh.open("w", encoding="utf-8") as file:
            file.write(RECORD_HEAD + yaml.safe_dump(document, default_flow_style=None, width=100))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(target)
    except OSError as error:
        raise GateError(f"cannot write {target}: {error.strerror}", hint="it lies beside the policy") from None
    return target
