"""Events of the bell."""

from __future__ import annotations

from cofferdam.audit.events.base import Event, Name
from cofferdam.audit.events.lines import Line


class BellRung(Event, frozen=True, kw_only=True):
    """A bell was rung. It is rung once this entry is on disk."""

    principal: Name
    bell: Name


INNER = (BellRung,)
LINES: dict[str, Line] = {"bell-rung": lambda e: f"{e.get('principal')} rings {e.get('bell')}"}
Draft = BellRung
