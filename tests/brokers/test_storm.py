"""Both halves in a storm of chance: clients come, ask, and leave, the device answers, is late or breaks off, the log
stutters, policies change, sides are severed, all in any order. Whatever happens, what must hold holds, and when the
storm is over nothing is left."""

from __future__ import annotations

import random

import pytest

from cofferdam.audit.events.access import LimitHit, WriteAllowed, WriteOutcome
from cofferdam.audit.records import Hello
from tests.brokers.stage import Stage, Wire, answer, read, write
from tests.brokers.test_adversary import PACE, SPEED, STEP, compiled

TURNS = 400
EXTRA = "timeout: 1 s\n    connections: 2\n    outstanding: 2"
POLICIES = [
    compiled(asset_extra=EXTRA),
    compiled(asset_extra=EXTRA + "\n    share_reads: 200 ms"),
    compiled(asset_extra=EXTRA.replace("outstanding: 2", "outstanding: 3")),
    compiled(("max_step: 100", "max_step: 50"), asset_extra=EXTRA),
    compiled(("port: 5020", "port: 5021"), asset_extra=EXTRA),
]


class Asker(Wire):
    """A client that knows what it has asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: dict[int, bytes] = {}
        self.answered: set[int] = set()
        self.there = True

    def ask(self, chance: random.Random) -> None:
        number = len(self.asked) + 1
        value = chance.choice([900, 950, 1000, 1050, 1100])
        frame = chance.choice(
            [
                read(number, chance.randrange(90), 2),
                read(number, STEP, 1),
                write(number, STEP, value),
                write(number, STEP, value),
                write(number, SPEED, value),
                write(number, PACE, value),
            ]
        )
        self.asked[number] = frame
        self.on_data(frame)

    def check(self) -> None:
        """Each answer is to a question, the only one to it, and of its function."""
        for frame in self.take():
            number = int.from_bytes(frame[:2], "big")
            question = self.asked[number]
            assert number not in self.answered, "two answers to one question"
            self.answered.add(number)
            assert frame[7] & 0x7F == question[7]
            if frame[7] == 6:
                assert frame[8:12] == question[8:12]
            elif frame[7] == 3 and question[8:10] != STEP.to_bytes(2, "big"):
                assert frame[9:11] == question[8:10], "the value of another register"


class Storm:
    """`calm`: the device answers everything, in order and in time, so that what it holds is certain."""

    def __init__(self, seed: int, *, calm: bool) -> None:
        self.chance = random.Random(seed)
        self.calm = calm
        self.stage = Stage(auto=False, policy=POLICIES[0])
        self.clients: list[Asker] = []
        self.at_device: list[tuple[Wire, bytes]] = []
        self.up: set[Wire] = set()
        self.step = 1000
        self.sent = 0
        self.severed: tuple[str, ...] = ()

    def turn(self) -> None:
        chance, stage = self.chance, self.stage
        happens = chance.choices(
            ["come", "leave", "ask", "device", "disk", "time", "reload", "sever", "auditor", "tick", "break"],
            [6, 3, 36, 34, 9, 3, 1.5, 0.7, 0.3, 5, 0 if self.calm else 1],
        )[0]
        if happens == "come":
            client = Asker()
            stage.outer.accept(client, "127.0.0.1", 1, ("127.0.0.1", 502))
            if not client.closed:
                self.clients.append(client)
        elif happens == "leave" and self.clients:
            client = chance.choice(self.clients)
            client.there = False
            client.on_closed("closed by the client")
            self.clients.remove(client)
        elif happens == "ask" and self.clients:
            client = chance.choice(self.clients)
            if not client.closed:
                client.ask(chance)
        elif happens == "device":
            self.device()
        elif happens == "disk":
            stage.acknowledge(self.calm or chance.random() < 0.9, "no space left")
        elif happens == "time":
            stage.reactor.advance(chance.choice([0.001, 0.02] if self.calm else [0.001, 0.1, 0.6, 1.1, 2.5]))
        elif happens == "reload":
            policy = chance.choice(POLICIES[:2] if self.calm else POLICIES)
            for take in chance.sample([stage.inner.take_policy, stage.outer.take_policy], 2):
                take(policy, tuple(policy.assets))
                if chance.random() < 0.5:
                    self.cross()
        elif happens == "sever":
            self.sever(chance.choice([("it",), ("ot",), (), ()]))
        elif happens == "auditor":
            stage.audit_pipe.unanswered.clear()
            stage.audit.on_record(Hello(True))
        elif happens == "break":
            alive = [wire for wire in self.up if not wire.closed]
            if alive:
                wire = chance.choice(sorted(alive, key=stage.devices.index))
                wire.closed = True
                wire.on_closed("connection reset")
        else:
            stage.outer.tick()
            stage.inner.tick()
        stage.reactor.advance(0.0005)
        self.cross()

    def device(self) -> None:
        for wire in self.stage.devices:
            if wire not in self.up and not wire.closed and wire.on_connected is not None:
                self.up.add(wire)
                wire.on_connected()
                return
        if not self.at_device:
            return
        wire, frame = self.at_device.pop(0 if self.calm else self.chance.randrange(len(self.at_device)))
        if wire.closed or (not self.calm and self.chance.random() < 0.06):
            return  # it never answers
        register = int.from_bytes(frame[8:10], "big")
        if frame[7] == 6:
            value = int.from_bytes(frame[10:12], "big")
            if register == STEP:
                assert not self.calm or abs(value - self.step) <= 100, f"from {self.step} to {value} in one step"
                self.step = value
            wire.on_data(frame)
            return
        count = int.from_bytes(frame[10:12], "big")
        wire.on_data(answer(frame, *[self.step if register + n == STEP else register + n for n in range(count)]))

    def sever(self, sides: tuple[str, ...]) -> None:
        self.severed = sides
        self.stage.inner.set_severed(sides)
        self.cross()
        self.stage.outer.set_severed(sides)

    def cross(self) -> None:
        """Everything through the crossing, but not through the disk."""
        stage = self.stage
        for _ in range(3):
            stage.reactor.settle()
            for record in stage.to_inner.take():
                stage.inner.take(record)
            stage.reactor.settle()
            for record in stage.to_outer.take():
                stage.outer.take(record)
        for wire in stage.devices:
            for frame in wire.take():
                if frame[7] == 6:
                    assert not self.severed, "a write left while a side was severed"
                    self.sent += 1
                self.at_device.append((wire, frame))
        for client in self.clients:
            client.check()

    def end(self) -> None:
        """The device answers no more; after a while all has come to its end."""
        stage = self.stage
        self.sever(())
        for _ in range(20):
            stage.acknowledge()
            self.cross()
            stage.reactor.advance(1)
            stage.outer.tick()
            stage.inner.tick()
        assert (stage.outer.busy, stage.inner.busy) == (0, 0)
        for served in stage.inner._served.values():
            assert (served.parked.count, served.judging, served.writes) == (0, {}, 0)
        assert all(session.under_way == 0 for session in stage.inner._sessions.values())
        for client in self.clients:
            assert client.closed or client.answered == set(client.asked), "a question without an answer"
        allowed = [entry.write for entry in stage.of(WriteAllowed)]
        assert sorted(allowed) == sorted(entry.write for entry in stage.of(WriteOutcome))
        assert self.sent <= len(allowed)
        assert not [hit for hit in stage.of(LimitHit) if hit.limit == "internal_error"]
        owned = [one.transport for device in stage.inner._devices.values() for one in device._connections]
        assert all(wire.closed or wire in owned for wire in stage.devices)


@pytest.mark.parametrize("calm", [True, False], ids=["a calm device", "any device"])
@pytest.mark.parametrize("seeds", range(5))
def test_storms(seeds: int, calm: bool) -> None:
    for seed in range(40 * seeds, 40 * seeds + 40):
        storm = Storm(seed, calm=calm)
        for _ in range(TURNS):
            storm.turn()
        storm.end()


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("calm", [True, False], ids=["a calm device", "any device"])
def test_long_storms(calm: bool) -> None:
    for seed in range(1000, 1400):
        storm = Storm(seed, calm=calm)
        for _ in range(4 * TURNS):
            storm.turn()
        storm.end()
