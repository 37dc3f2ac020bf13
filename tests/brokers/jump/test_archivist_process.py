"""The archivist's own process, under its filter, with an inner part that was written for the purpose."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cofferdam.audit.events.jump import RecordingMarked, RecordingUsed
from cofferdam.brokers.jump import records
from cofferdam.brokers.kit.supervision import Configure, Failing, Ready
from cofferdam.crossing.pipe import make_pipe
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.table import to_bytes
from cofferdam.policy.terms.base import Scope
from cofferdam.policy.terms.kinds import KINDS
from tests.brokers.harness import WATCHED, Auditor, PartChild
from tests.brokers.jump.test_keeper_process import POLICY, Wire
from tests.waiting import PATIENT, eventually


class Archive:
    """An archivist that runs, and the inner part's pipes in the test's hand."""

    def __init__(self, store: Path) -> None:
        self.folder = store / "recordings"
        self.folder.mkdir(mode=0o700, parents=True)
        self.auditor = Auditor()
        to, back = make_pipe(), make_pipe()
        self.child = PartChild("jump", "archivist", self.auditor, {"inner": to[0]}, {"inner": back[1]}, WATCHED)
        self.inner = Wire(to[1], back[0], records.to_archivist(), records.from_archivist())
        self.store = store

    def start(self) -> None:
        keep = "{keep: 1 h, room: 1 MB}"
        text = POLICY.replace("PATHS", "/a").replace("{terminal: RECORD}", keep)
        text = text.replace("approval: {", f"record: {keep}, approval: {{")
        policy = compile_policy(loads(text), now_ns=time.time_ns())
        scope = Scope(frozenset(policy.conduits), frozenset(policy.assets))
        sliced = to_bytes(KINDS["jump"].slice(policy, scope, "archivist"))
        self.auditor.start()
        self.child.start([])
        self.child.send(
            Configure(
                crew="jump", part="archivist", broker="jump", source_zones=("office",), target_zone="plant", boot="t",
                policy=sliced, assets=("plc",), store=str(self.store),
            )
        )  # fmt: skip
        self.child.wait_for(Ready)

    def close(self) -> None:
        self.inner.close()
        self.child.close()
        self.auditor.stop()


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    made = Archive(tmp_path / "store")
    try:
        yield made
    finally:
        made.close()


def record(session: int) -> records.Record:
    return records.Record(session, f"t-{session}", "tech", "plc", "svc", "10.1.0.9", "", 80, 24, "xterm")


def test_what_is_kept(archive: Archive) -> None:
    """62443-3-3 SR 2.9: by age and by room; what is held stays; nothing goes that is not in the log as gone."""
    now = int(time.time())
    names = {"old": f"{now - 9000}-a.cast", "held": f"{now - 9500}-b.cast", "large": f"{now - 60}-c.cast",
             "new": f"{now - 10}-d.cast"}  # fmt: skip
    for what, name in names.items():
        (archive.folder / name).write_bytes(b"{}\n" + b"x" * (1_500_000 if what == "large" else 10))
    (archive.folder / f"{names['held']}.hold").write_text("a claim")
    archive.start()
    archive.inner.send(record(1))
    live = archive.inner  # a session that goes on is not removed either
    eventually(lambda: not (archive.folder / names["large"]).exists())
    assert not (archive.folder / names["old"]).exists()
    assert (archive.folder / names["held"]).exists()
    assert (archive.folder / names["new"]).exists()
    removed = [(each.recording, each.how) for each in archive.auditor.of(RecordingUsed)]
    assert removed == [(names["old"], "removed"), (names["large"], "removed")]
    live.send(records.Happened(1, 1, "o", b"hello"))
    assert live.wait_for(records.Stored).number == 1
    assert any(b"hello" in path.read_bytes() for path in archive.folder.glob("*-t-1.cast"))


HOSTILE: dict[str, Callable[[], tuple[Any, ...]]] = {
    "a second recording of a session": lambda: (record(1), record(1)),
    "a piece left out": lambda: (record(1), records.Happened(1, 2, "o", b"x")),
    "a file that is not held": lambda: (records.Judge(7),),
}


@pytest.mark.parametrize("what", list(HOSTILE))
def test_what_no_honest_inner_part_says_ends_the_crew(archive: Archive, what: str) -> None:
    archive.start()
    archive.inner.send(*HOSTILE[what]())
    failing: Failing = archive.child.wait_for(Failing)
    assert "inner broke the crossing's rules" in failing.reason
    assert archive.child.process is not None
    assert archive.child.process.wait(PATIENT) == 4
    # What was recorded up to then stays, and the log can vouch for its beginning.
    assert len(archive.auditor.of(RecordingMarked)) == len(list(archive.folder.glob("*.cast")))
