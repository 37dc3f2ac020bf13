"""A device and a client that speak the toy protocol on real sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

from cofferdam.protocols.base import NEED_DATA, FrameReceived, Released, RequestReceived
from cofferdam.values import Float32, Int32
from tests.brokers.harness import listen
from tests.protocols.toy import messages as m
from tests.protocols.toy.machine import ToyClient, ToyServer
from tests.waiting import PATIENT


class Plant(threading.Thread):
    """A device on a real socket: news of what is subscribed to come at once, three of them; a stream is echoed."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.listener = listen()
        self.port: int = self.listener.getsockname()[1]
        self.asked: list[Any] = []
        self.frames: list[Any] = []
        self.peers: list[socket.socket] = []

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self.listener.accept()
                self.peers.append(peer)
                threading.Thread(target=self.serve, args=(peer,), daemon=True).start()

    def serve(self, peer: socket.socket) -> None:
        machine = ToyServer()
        with contextlib.suppress(OSError):
            while data := peer.recv(65536):
                machine.receive_data(data)
                while (event := machine.next_event()) is not NEED_DATA:
                    peer.sendall(self.answer(machine, event))
                peer.sendall(machine.take_output())

    def answer(self, machine: ToyServer, event: Any) -> bytes:
        if isinstance(event, FrameReceived):
            self.frames.append(event.message)
            return machine.frame(event.standing, event.message)
        if isinstance(event, Released):
            self.asked.append("drop")
            return machine.send(event.token, event.reply)
        if not isinstance(event, RequestReceived):
            return b""
        self.asked.append(event.request)
        match event.request:
            case m.Read(items):
                return machine.send(event.token, m.Values((Int32((100,)),) * len(items)))
            case m.Subscribe():
                news = [m.News(Float32((float(number),))) for number in range(3)]
                agreed = machine.send(event.token, m.Agreed())
                return agreed + b"".join(machine.notice(event.token, one) for one in news)
            case m.Open():
                return machine.send(event.token, m.Agreed())
        return machine.send(event.token, m.Done())

    def stop(self) -> None:
        for sock in (self.listener, *self.peers):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


class Caller:
    """A client on a real socket."""

    def __init__(self, port: int) -> None:
        self.machine = ToyClient(outstanding=16)
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENT)
        self.events: list[Any] = []
        self.socket.sendall(self.machine.take_output())
        self.until(lambda: bool(self.events))

    def until(self, done: Any) -> None:
        while not done():
            data = self.socket.recv(65536)
            assert data, "closed by the gate"
            self.machine.receive_data(data)
            while (event := self.machine.next_event()) is not NEED_DATA:
                self.events.append(event)
            self.socket.sendall(self.machine.take_output())

    def ask(self, request: Any) -> tuple[int, Any]:
        token, data = self.machine.send(request)
        self.socket.sendall(data)
        self.until(lambda: any(getattr(event, "token", None) == token for event in self.events))
        return token, next(event.response for event in self.events if getattr(event, "token", None) == token)

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]
