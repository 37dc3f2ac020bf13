"""What the outer and the inner part tell a keeper that has come again, while they went on without it: what stands.

It knows what it had granted from its own store, and believes them as little as in all else: what they say can end
something, and never open anything. Each says it once; the outer part before anything else.

Not here: what else they say (records), what comes of it (resuming).
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from cofferdam.brokers.jump.file_records import Count, Name, Number

MOST = 16_384
"""Connections, sessions: more than there are."""
SESSIONS_MOST = 64
"""Of one connection: more than it has channels."""
Connection = tuple[Number, Annotated[tuple[Number, ...], Meta(max_length=SESSIONS_MOST)]]
"""Its number, and those of its sessions; none: it has one within it that has some."""
Session = tuple[Number, Name, bool]
"""Its number and its name, and whether its terminal is locked."""
Change = tuple[Number, Name, Name]
"""The number of a change of password, the asset and the login."""


class Stands(Struct, frozen=True, array_like=True, tag=10, forbid_unknown_fields=True):
    """The connections that go on. Numbers of connections and of sessions go on after these."""

    connections: Annotated[tuple[Connection, ...], Meta(max_length=MOST)]
    conn: Count
    session: Count


class Lives(Struct, frozen=True, array_like=True, tag=6, forbid_unknown_fields=True):
    """The grants that are in use, and the changes of passwords that are under way, or whose outcome has not been told:
    that follows. `last`: the highest number of a session that had a grant."""

    sessions: Annotated[tuple[Session, ...], Meta(max_length=MOST)]
    changes: Annotated[tuple[Change, ...], Meta(max_length=MOST)]
    last: Count
