"""The inner part's own process, under its filter, with an outer part and a keeper in the test's hand."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from cofferdam.brokers.jump import records
from cofferdam.brokers.kit.supervision import Command, CommandDone, Configure, Ready
from cofferdam.crossing.pipe import make_pipe
from cofferdam.crossing.records import RecordCodec
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.table import to_bytes
from cofferdam.policy.terms.base import Scope
from cofferdam.policy.terms.kinds import KINDS
from tests.brokers.harness import WATCHED, Auditor, PartChild
from tests.brokers.jump.test_keeper_process import POLICY, Wire


class Stage:
    """An inner part that runs."""

    def __init__(self) -> None:
        self.auditor = Auditor()
        others = ("outer", "keeper", "archivist")
        to, back = {who: make_pipe() for who in others}, {who: make_pipe() for who in others}
        codecs: dict[str, tuple[RecordCodec[Any], RecordCodec[Any]]] = {
            "outer": (records.outer_to_inner(), records.inner_to_outer()),
            "keeper": (records.to_inner(), records.from_inner()),
            "archivist": (records.from_archivist(), records.to_archivist()),
        }
        wires = {who: Wire(to[who][1], back[who][0], *codecs[who]) for who in others}
        self.outer, self.keeper, self.archivist = (wires[who] for who in others)
        self.auditor.start()
        self.child = PartChild(
            "jump", "inner", self.auditor, {who: to[who][0] for who in others}, {who: back[who][1] for who in others},
            WATCHED,
        )  # fmt: skip
        self.child.start([])
        policy = compile_policy(
            loads(POLICY.replace("PATHS", "/a").replace("RECORD", "false")), now_ns=time.time_ns()
        )  # fmt: skip
        scope = Scope(frozenset(policy.conduits), frozenset(policy.assets))
        self.child.send(
            Configure(
                crew="jump", part="inner", broker="jump", source_zones=("office",), target_zone="plant", boot="t",
                policy=to_bytes(KINDS["jump"].slice(policy, scope, "inner")), assets=("plc", "station"),
            )
        )  # fmt: skip
        self.child.wait_for(Ready)
        self.asked = 0

    def sessions(self) -> list[int]:
        self.asked += 1
        self.child.send(Command(self.asked, "sessions", msgspec.json.encode({})))
        done: CommandDone = self.child.wait_for(CommandDone)
        assert not done.error, done
        return [one["number"] for one in msgspec.json.decode(done.result)]

    def close(self) -> None:
        for wire in (self.outer, self.keeper, self.archivist):
            wire.close()
        self.child.close()
        self.auditor.stop()


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    try:
        yield made
    finally:
        made.close()


def grant(number: int) -> records.Grant:
    return records.Grant(
        session=number, name=f"t-{number}", person="tech", source="10.1.0.9", conduit="c", asset="plc", login="svc",
        credential=records.Credential("none", b""), host_key=b"", what="exec", seconds=3600.0, record=False,
        command="open the valve",
    )  # fmt: skip


def test_what_was_given_up_before_its_grant_came_does_not_begin(stage: Stage) -> None:
    """Whoever was told that nothing came of it may try again: it is not done twice."""
    stage.outer.send(records.Close(2))
    stage.sessions()  # it has read that
    stage.keeper.send(grant(2))
    ended: records.Ended = stage.keeper.wait_for(records.Ended)
    assert (ended.session, ended.reason) == (2, "the person is gone")
    assert stage.sessions() == []
