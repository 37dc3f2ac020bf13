"""A gate between the lab's two hosts, in namespaces, and what a proof needs of it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cofferdam.brokers.registry import CREWS
from cofferdam.enforce.plans.network import network_plan
from cofferdam.enforce.putback import clean
from cofferdam.gate.client import ask
from cofferdam.lab.layout import Namespaces
from cofferdam.lab.play import Play
from cofferdam.lab.play import policy as policy_of
from cofferdam.lab.plays import spots
from cofferdam.lab.water.play import Water
from cofferdam.proof import run as proof
from cofferdam.proof.subject import Subject, open_subject, places
from tests.gate.plant import Gate
from tests.verbs import cli


class Stage:
    """A lab whose gate runs."""

    def __init__(self, lab: Namespaces, gate: Gate, folder: Path) -> None:
        self.lab = lab
        self.gate = gate
        self.state = gate.state
        self.folder = folder
        self._namespaces: dict[str, str] = {}

    @contextlib.contextmanager
    def subject(self) -> Iterator[Subject]:
        """The gate as a proof sees it, read anew, while no round of the leak probe is in its namespaces."""
        status = ask(self.state, "status")
        policy = proof.policy_in_force(status, proof.policy_path(self.state, status))
        plan = network_plan(policy)
        with proof.alone(self.state, lambda _: None):
            made = open_subject(self.state, plan, status, places(policy, plan, status), CREWS)
            try:
                made.read()
                yield made
            finally:
                made.close()

    def namespace(self, side: str) -> str:
        """Its name, which is the site's for as long as there is a gate."""
        if not self._namespaces:
            with self.subject() as subject:
                self._namespaces = {one: found.namespace for one, found in subject.sides.items()}
        return self._namespaces[side]

    def prove(self, *words: str) -> tuple[int, dict[str, Any]]:
        """`cofferdam prove --json`: the exit code and the document."""
        code, out, err = cli("prove", "--json", "--state", self.state, *words)
        assert out, err
        document: dict[str, Any] = json.loads(out)
        return code, document


@contextlib.contextmanager
def staged(plays: Sequence[Play] = (), gate: type[Gate] = Gate) -> Iterator[Stage]:
    """With the policy of these plays, without those who play; the water works alone unless told otherwise."""
    plays = plays or (Water(),)
    with tempfile.TemporaryDirectory(prefix="cofferdam-test-") as name, Namespaces(spots(plays)) as lab:
        folder = Path(name)
        folder.chmod(0o711)  # so the gate sees the folder, and a reload may name another file there
        policy = folder / "policy.yaml"
        policy.write_text(policy_of(plays, lab.addresses)[0])
        made = gate(folder / "state", policy)
        try:
            made.wait_ready()
            yield Stage(lab, made, folder)
        finally:
            made.close()
            clean(made.state)


def run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    return done.stdout
