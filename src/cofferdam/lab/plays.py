"""The plays of the lab, in the order in which they come on. A new service adds one line."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence

from cofferdam.errors import CofferdamError
from cofferdam.lab.auditor.play import Auditor
from cofferdam.lab.diode.play import Diode
from cofferdam.lab.filling.play import Filling
from cofferdam.lab.layout import Spot
from cofferdam.lab.mirror.play import Mirror
from cofferdam.lab.orders.play import Orders
from cofferdam.lab.packer.play import Packer
from cofferdam.lab.patch.play import Patch
from cofferdam.lab.play import Play
from cofferdam.lab.remote.play import Remote
from cofferdam.lab.water.play import Water


def plays(names: Collection[str] = ()) -> tuple[Play, ...]:
    """Those of these names, or all of them, anew. Raises CofferdamError for a name that no play has."""
    found: tuple[Play, ...] = (
        Water(), Orders(), Mirror(), Packer(), Remote(), Patch(), Filling(), Diode(), Auditor(),
    )  # fmt: skip
    known = [play.name for play in found]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise CofferdamError(
                f"there is no play {name}" + (f"; did you mean {near[0]}?" if near else ""),
                hint=f"the plays are {', '.join(known)}",
            )
    return tuple(play for play in found if not names or play.name in names)


def spots(plays: Sequence[Play]) -> tuple[Spot, ...]:
    """All places that these plays need."""
    return tuple(spot for play in plays for spot in play.spots)
