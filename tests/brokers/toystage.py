"""The real halves with the toy protocol: a client's machine at one end, a device's at the other, time in the test's
hands.
"""

from __future__ import annotations

from typing import Any

from cofferdam.model import Assign, Item
from cofferdam.policy.table import CompiledPolicy
from cofferdam.protocols.base import (
    NEED_DATA,
    Established,
    FrameReceived,
    Released,
    RequestReceived,
)
from cofferdam.values import Int32, Value
from tests.brokers.stage import Stage, Wire
from tests.protocols.toy import messages as m
from tests.protocols.toy.dialect import TOY
from tests.protocols.toy.machine import ToyClient, ToyServer
from tests.protocols.toy.site import TOYS, toy_policy
from tests.protocols.toy.wire import frame


def item(text: str) -> Item:
    found = TOY.notation.parse(text if " " in text else f"tag {text}")
    assert isinstance(found, Item)
    return found


class ToyDevice:
    """A device at the other end of a wire: it answers what the gate asks, and keeps what it was told."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.machine = ToyServer()
        self.held: dict[str, Value] = {}
        self.asked: list[Any] = []
        self.standing: dict[str, int] = {}  # item -> token
        self.frames: list[Any] = []
        self.refuses = 0  # a code: the next request is refused with it
        self.mute = False

    def turn(self) -> bool:
        """Takes what the gate has sent; whether there was anything."""
        busy = False
        for data in self.wire.take():
            busy = True
            self.machine.receive_data(data)
        while (event := self.machine.next_event()) is not NEED_DATA:
            if isinstance(event, RequestReceived):
                self.asked.append(event.request)
                if not self.mute:
                    self.send(self.machine.send(event.token, self.answer(event.token, event.request)))
            elif isinstance(event, FrameReceived):
                self.frames.append(event.message)
            elif isinstance(event, Released):
                self.asked.append("drop")
                self.standing = {name: token for name, token in self.standing.items() if token != event.standing}
                self.send(self.machine.send(event.token, event.reply))
            else:
                assert isinstance(event, Established), event
        self.send(self.machine.take_output())
        return busy

    def answer(self, token: int, request: Any) -> Any:
        if self.refuses:
            code, self.refuses = self.refuses, 0
            return m.Refusal(code)
        match request:
            case m.Read(items):
                return m.Values(tuple(self.held.get(one.name, Int32((7,))) for one in items))
            case m.Write(writes):
                self.held |= {write.item.name: write.value for write in writes if write.value is not None}
            case m.Subscribe(one) | m.Open(one):
                self.standing[one.name] = token
                return m.Agreed()
            case m.Uptime():
                return m.Seconds(12)
        return m.Done()

    def send(self, data: bytes) -> None:
        if data and not self.wire.closed:
            self.wire.on_data(data)

    def news(self, name: str, value: Value) -> None:
        self.send(self.machine.notice(self.standing[name], m.News(value)))

    def signals(self, name: str, *signals: tuple[str, Value]) -> None:
        message = m.Signals(tuple(m.Signal(*signal) for signal in signals))
        self.send(self.machine.frame(self.standing[name], message))


class ToyPeer:
    """A client at the other end of a wire."""

    def __init__(self, stage: ToyStage, wire: Wire) -> None:
        self.stage = stage
        self.wire = wire
        self.machine = ToyClient(outstanding=100)
        self.events: list[Any] = []
        self.say(self.machine.take_output())

    def say(self, data: bytes) -> None:
        if data:
            self.wire.arrive(data)

    def ask(self, request: Any) -> int:
        token, data = self.machine.send(request)
        self.say(data)
        return token

    def drop(self, token: int) -> None:
        self.say(self.machine.give_up(token))

    def signals(self, token: int, *signals: tuple[str, Value]) -> None:
        self.say(self.machine.frame(token, m.Signals(tuple(m.Signal(*signal) for signal in signals))))

    def take(self) -> None:
        for data in self.wire.take():
            self.machine.receive_data(data)
        while (event := self.machine.next_event()) is not NEED_DATA:
            self.events.append(event)
        self.say(self.machine.take_output())

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def answers(self) -> list[Any]:
        return [event.response for event in self.events if hasattr(event, "response")]


class ToyStage(Stage):
    """The stage with this protocol. `everything` lets all through until all is quiet, devices and clients included."""

    zones = (("office",), "plant")
    place = ("127.0.0.1", 7008)

    def __init__(self, policy: CompiledPolicy | None = None, **options: Any) -> None:
        super().__init__(policy=policy or toy_policy(), broker="toy", protocols=TOYS, **options)
        self.peers: list[ToyPeer] = []
        self.plant: list[ToyDevice] = []

    def peer(self, source: str = "127.0.0.1") -> ToyPeer:
        peer = ToyPeer(self, self.client(source))
        self.peers.append(peer)
        self.everything()
        return peer

    def everything(self) -> None:
        for _ in range(50):
            self.cross()
            for wire in self.devices[len(self.plant) :]:
                assert wire.on_connected is not None
                self.plant.append(ToyDevice(wire))
                wire.on_connected()
            busy = [device.turn() for device in self.plant if not device.wire.closed]
            before = sum(len(peer.events) for peer in self.peers)
            for peer in self.peers:
                peer.take()
            self.cross()
            written = any(device.wire.written for device in self.plant if not device.wire.closed)
            if not any(busy) and not written and before == sum(len(peer.events) for peer in self.peers):
                return
        raise AssertionError("they do not come to rest")

    @property
    def device(self) -> ToyDevice:
        return self.plant[-1]


__all__ = ["Assign", "ToyDevice", "ToyPeer", "ToyStage", "frame", "item"]
