"""The listening sockets that the launcher holds for the gate, by where they listen."""

from __future__ import annotations

from collections.abc import Iterable

from cofferdam.enforce.orders import Place
from cofferdam.errors import GateError
from cofferdam.gate.crew.crew import HeldListener
from cofferdam.gate.crew.launcher import LauncherLink
from cofferdam.gate.crew.plan import Spot


class Listeners:
    """Opens and closes them. All or nothing: a failed `open` leaves what was there before."""

    def __init__(self, launcher: LauncherLink) -> None:
        self._launcher = launcher
        self._held: dict[Spot, HeldListener] = {}

    async def open(self, spots: Iterable[Spot], assets: dict[Spot, str]) -> tuple[Spot, ...]:
        """Opens those that are not held; returns them. `assets` says for whom, for the message.

        Raises:
            GateError: which address, why, and what to do.
        """
        fresh: list[Spot] = []
        for spot in spots:
            if spot in self._held:
                continue
            try:
                place = Place(spot.side, spot.zone)  # type: ignore[arg-type]
                opened = await self._launcher.open_listener(
                    place, spot.address, spot.port, datagrams=spot.datagrams, way=spot.way, peer=spot.peer
                )
            except GateError as error:
                self.close(fresh)
                raise GateError(f"asset {assets.get(spot, '?')}: {error}", hint=error.hint) from None
            self._held[spot] = HeldListener(opened.listener, spot, opened.address, opened.port)
            fresh.append(spot)
        return tuple(fresh)

    def of(self, spots: Iterable[Spot]) -> dict[Spot, HeldListener]:
        """Those that are held of these."""
        return {spot: self._held[spot] for spot in spots if spot in self._held}

    def keep(self, spots: Iterable[Spot]) -> None:
        """Closes all others."""
        wanted = set(spots)
        self.close([spot for spot in self._held if spot not in wanted])

    def close(self, spots: Iterable[Spot]) -> None:
        for spot in spots:
            opened = self._held.pop(spot, None)
            if opened is not None:
                self._launcher.close_listener(opened.number)
