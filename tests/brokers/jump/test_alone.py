"""Exceptions that asyncssh would drop."""

from __future__ import annotations

import asyncio

import asyncssh
import pytest

from cofferdam.brokers.jump.alone import unswallowed
from cofferdam.brokers.jump.inner_ssh import SshLeg
from cofferdam.brokers.jump.outer_part import _Nested
from cofferdam.brokers.jump.outer_session import AssetSession
from cofferdam.brokers.jump.outer_ssh import _Owner
from cofferdam.crossing.loops import LoopReactor


class Stumbling(asyncssh.SSHClientSession[bytes]):
    @unswallowed
    def connection_lost(self, exc: Exception | None) -> None:
        raise ValueError("a session that does not hear of its end")


def test_what_fails_at_a_sessions_end_ends_the_part() -> None:
    loop = asyncio.new_event_loop()
    reactor = LoopReactor(loop)

    def lose() -> None:
        asyncio.set_event_loop(loop)
        try:
            Stumbling().connection_lost(None)
        except Exception:
            raise AssertionError("asyncssh would have dropped it") from None

    loop.call_soon(lose)
    with pytest.raises(ValueError, match="does not hear"):
        reactor.run()
    reactor.close()
    loop.close()


@pytest.mark.parametrize("kind", [AssetSession, SshLeg, _Nested, _Owner])
def test_all_that_hear_of_an_end_so(kind: type) -> None:
    assert hasattr(kind.connection_lost, "__wrapped__")  # type: ignore[attr-defined]
