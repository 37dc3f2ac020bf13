"""A controller's console at the end of a serial line, behind a real ser2net.

ser2net asks its resolver for every address, and gets none on a machine that has only a loopback: it listens on a Unix
socket here, and a thread brings what comes by TCP to it.
"""

from __future__ import annotations

import contextlib
import os
import pty
import shutil
import socket
import subprocess
import threading
import tty
from pathlib import Path

from tests.waiting import PATIENT, eventually

SER2NET = shutil.which("ser2net") or "/usr/sbin/ser2net"
CONFIG = """%YAML 1.1
---
connection: &line
  accepter: {over},{socket}
  connector: serialdev,{device},9600n81,local
"""


class Controller:
    """What answers on the line: it echoes, and asks for a password where it has one. `how`: "raw", or "telnet(rfc2217)"
    and the like."""

    def __init__(self, folder: Path, port: int, how: str, password: str = "") -> None:
        folder.mkdir()
        self._password = password
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        unix = folder / "socket"
        config = folder / "ser2net.yaml"
        over = "unix" if how == "raw" else f"{how},unix"
        config.write_text(CONFIG.format(over=over, socket=unix, device=os.ttyname(self._slave)))
        self._sock = socket.create_server(("127.0.0.1", port))
        self._unix = str(unix)
        self.process = subprocess.Popen(
            [SER2NET, "-n", "-d", "-c", str(config)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        eventually(self._listens)
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._answer, self._serve)]
        for thread in self._threads:
            thread.start()

    def _say(self, text: bytes) -> None:
        os.write(self._master, text)

    def _answer(self) -> None:
        state, line = "login" if self._password else "in", b""
        prompts = {"login": b"\r\nPLC login: ", "password": b"\r\nPassword: ", "in": b"\r\nPLC> "}
        with contextlib.suppress(OSError):
            while data := os.read(self._master, 1):
                if (
                    data in b"\0\n"
                ):  # what telnet puts behind a carriage return (RFC 854), where a device server passes it on
                    continue
                if data != b"\r":
                    line += data
                    self._say(data if state != "password" else b"")
                    continue
                if state == "in":
                    self._say(b"\r\n24.1 V" if line == b"volts" else b"\r\n?" if line else b"")
                elif state == "password":
                    state = "in" if line.decode() == self._password else "login"
                    self._say(b"\r\nwelcome" if state == "in" else b"\r\nLogin incorrect")
                elif line:
                    state = "password"
                line = b""
                self._say(prompts[state])

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._sock.accept()
                line = socket.socket(socket.AF_UNIX)
                line.connect(self._unix)
                back = threading.Thread(target=_copy, args=(line, client), daemon=True)
                back.start()
                _copy(client, line)
                back.join(PATIENT)
                line.close()
                client.close()

    def _listens(self) -> bool:
        """Its socket is there before it listens, and whoever comes in between is refused."""
        lines = Path("/proc/net/unix").read_text().splitlines()
        return any(line.endswith(self._unix) and line.split()[3] == "00010000" for line in lines)  # __SO_ACCEPTCON

    def close(self) -> None:
        self.process.kill()
        self.process.wait(PATIENT)
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        for fd in (self._slave, self._master):
            os.close(fd)
        for thread in self._threads:
            thread.join(PATIENT)


def _copy(source: socket.socket, to: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(4_096):
            to.sendall(data)
    for sock in (source, to):
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
