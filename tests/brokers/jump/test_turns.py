"""Strangers at the jump server's door, and somebody at work: whose key comes in a turn of the loop is served in it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

import pytest

from cofferdam.brokers.jump.turns import TURN_NS, Turns
from cofferdam.brokers.kit.aio import PartLoop


@pytest.mark.parametrize("takes", [TURN_NS, TURN_NS // 4, TURN_NS * 50], ids=["as long", "a quarter", "long"])
def test_a_key_waits_for_few_strangers(takes: int) -> None:
    """All of them come in one turn; each takes so long by a clock that the test keeps."""
    now, order = [0], list[int | str]()

    def stranger(number: int) -> Callable[[], None]:
        def act() -> None:
            now[0] += takes
            order.append(number)
            if number == 49:
                loop.stop()

        return act

    ours, theirs = socket.socketpair()
    with ours, theirs, contextlib.closing(PartLoop()) as loop:
        turns = Turns(loop, clock=lambda: now[0])
        theirs.send(b"a key")
        loop.add_reader(ours, lambda: order.append("key"))  # it is not read, and so there in every turn
        for number in range(50):
            loop.call_soon(turns.add, stranger(number))
        loop.run_forever()
        loop.remove_reader(ours)
    assert [one for one in order if one != "key"] == list(range(50))
    at_once = max(1, TURN_NS // takes)
    runs = "".join("k" if one == "key" else "s" for one in order).split("k")
    assert max(map(len, runs)) <= at_once
    assert len(runs) > 49 // at_once
