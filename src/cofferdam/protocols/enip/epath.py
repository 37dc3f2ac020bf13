"""An EPATH that was read. A module of its own: what defines records is not compiled.

Not here: reading and making one (paths).
"""

from __future__ import annotations

import msgspec


class Path(msgspec.Struct, frozen=True, gc=False):
    """A path's segments. -1 where there is none of a kind. `names`: parts with their indexes; `elements`: indexes of
    the instance itself; `program`: the one name before a class; `points`: connection points; `route`: (port, link)
    before all else, a port with 16 added where its link is long; `key`: an electronic key; `data`: simple data (a
    configuration)."""

    cls: int = -1
    instance: int = -1
    attribute: int = -1
    names: tuple[tuple[str, tuple[int, ...]], ...] = ()
    elements: tuple[int, ...] = ()
    points: tuple[int, ...] = ()
    program: str = ""
    instances: tuple[int, ...] = ()
    route: tuple[tuple[int, bytes], ...] = ()
    key: bytes = b""
    data: bytes = b""
