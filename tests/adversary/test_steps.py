"""A step is judged by what the device holds when it is judged, not by what the gate remembers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cofferdam.audit.events.access import Refused, WriteAllowed
from tests.brokers.stage import Stage, Wire, answer, exception, write

STEP = 210


class Plant:
    """A device whose register somebody else turns as well; it keeps by how much each write moved it."""

    def __init__(self, stage: Stage, value: int) -> None:
        self.stage = stage
        self.value = value
        self.moves: list[int] = []
        self.asked = 0

    def work(self) -> None:
        """Answers all that reaches it, until all is quiet."""
        self.stage.cross()
        while self.stage.devices and (frames := self._wire().take()):
            for frame in frames:
                self.stage.reactor.advance(0.001)
                self.asked += frame[7] == 3
                if frame[7] == 6:
                    self.moves.append(int.from_bytes(frame[10:12], "big") - self.value)
                    self.value += self.moves[-1]
                self._wire().on_data(answer(frame, self.value))
                self.stage.cross()

    def _wire(self) -> Wire:
        wire = self.stage.devices[-1]
        if wire.on_connected is not None:
            up, wire.on_connected = wire.on_connected, None
            up()
            self.stage.cross()
        return wire


def test_a_hand_at_the_device_is_seen_before_the_next_step() -> None:
    """M2: known 510, a local panel sets 100, then 520 was allowed: a step of 420 at a limit of 100."""
    stage = Stage(limits="known_value_seconds: 0, client_requests_burst: 4000")
    client, plant = stage.client(), Plant(stage, 500)
    client.on_data(write(1, STEP, 510))
    plant.work()
    assert client.take() == [write(1, STEP, 510)]
    plant.value = 100
    client.on_data(write(2, STEP, 520))
    plant.work()
    assert client.take() == [exception(2, 6, 3)]
    assert "it is 100, and a step of 100 is allowed" in stage.of(Refused)[-1].detail
    client.on_data(write(3, STEP, 150))
    plant.work()
    assert (plant.moves, plant.asked) == ([10, 50], 3)
    [first, second] = stage.of(WriteAllowed)
    assert [(one.point, one.value) for one in (*first.before, *second.before)] == [("step", "500"), ("step", "100")]


def test_a_policy_may_say_how_old_a_value_may_be() -> None:
    stage = Stage(limits="known_value_seconds: 2, client_requests_burst: 4000")
    client, plant = stage.client(), Plant(stage, 500)
    for number, seconds in enumerate((0.0, 1.0, 2.5)):
        stage.reactor.advance(seconds)
        client.on_data(write(number, STEP, 510 + number))
        plant.work()
    assert (plant.moves, plant.asked) == ([10, 1, 1], 2)


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 1000), st.integers(1, 4), st.none() | st.integers(0, 1000)),
        min_size=1, max_size=12,
    )
)  # fmt: skip
def test_whoever_writes_however_many_at_once_no_write_is_a_larger_step(
    acts: list[tuple[int, int, int, int | None]],
) -> None:
    """Three clients send so many writes at once, upward from a value; in between a hand sets another."""
    stage = Stage(limits="known_value_seconds: 0, client_requests_burst: 4000", asset_extra="connections: 2")
    clients, plant, number = [stage.client(port=port) for port in (1, 2, 3)], Plant(stage, 500), 0
    for who, value, count, hand in acts:
        plant.value = plant.value if hand is None else hand
        for more in range(count):
            number += 1
            clients[who].on_data(write(number, STEP, value + 60 * more))
        plant.work()
    assert sum(len(client.take()) for client in clients) == number, "each has its answer"
    assert all(abs(move) <= 100 for move in plant.moves)
