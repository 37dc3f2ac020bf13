"""A machine of QEMU's: started, asked, cut off from power, and ended by its process id.

Its network cards hang on three hubs. Each hub has an end outside (`wire`), where every frame is seen from the moment of
power-on, and from where frames can be sent.

    hub 0   mgmt0  away0     the machine's own network, and a host somewhere outside
    hub 1   it0    office0   the IT wire: the gate's card, and a host of the office
    hub 2   ot0    plant0    the OT wire: the gate's card, and a device
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.vm.image import NICS, Image, run
from tests.vm.wire import Wire

HUBS = (("mgmt0", "away0"), ("it0", "office0"), ("ot0", "plant0"))
MEMORY_MIB = 3072
BOOT_SECONDS = {True: 120.0, False: 600.0}
"""By whether the processor runs the machine itself (KVM)."""
SLOW = 5
"""How many times as long whatever runs in the machine may take without it."""
KVM_SECONDS = 10
"""For a kernel's first words."""


class MachineError(Exception):
    """The machine did not do what a check needs; the message has its last words."""


@dataclass(frozen=True)
class Done:
    code: int
    out: str

    @property
    def ok(self) -> bool:
        return self.code == 0


@functools.cache
def accelerated(image: Image) -> bool:
    """Whether this processor can run the machine itself: found out by letting it say its first words, since a kernel
    may have KVM and still not run every guest."""
    if image.machine != os.uname().machine or not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    command = [emulator(image.machine), "-machine", "q35", "-accel", "kvm", "-cpu", "host", "-m", "512"]
    command += ["-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", str(image.kernel)]
    command += ["-append", "console=ttyS0 panic=-1"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=KVM_SECONDS, check=False)
        said = done.stdout
    except subprocess.TimeoutExpired as error:
        said = error.stdout or b""
    return b"Linux version" in said


def emulator(machine: str) -> str:
    """QEMU's program for it. Raises: MachineError."""
    name = f"qemu-system-{machine}"
    found = shutil.which(name)
    if not found:
        raise MachineError(f"{name} is not installed; as root: packaging/debian-packages.sh vm")
    return found


class Machine:
    """One machine with a disk of its own over the image's. Use as a context manager, then `boot`."""

    def __init__(self, image: Image, folder: Path, source: Path) -> None:
        """`source`: a tar of the project, which the machine sees as its second disk."""
        self.image = image
        self.folder = folder
        self.source = source
        self.kvm = accelerated(image)
        self.disk = folder / "disk.qcow2"
        self.console = folder / "console.log"
        self.heard = folder / "heard"
        """What the machine wrote to its second serial port; it is here as soon as it is written there."""
        self.wires = [Wire() for _ in HUBS]
        self._process: subprocess.Popen[bytes] | None = None
        self._agent: socket.socket | None = None
        self._buffer = b""
        self._asked = 0
        # What was not flushed dies with the emulator, as far as it made the disk's image grow.
        run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", image.disk.absolute(), self.disk)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut_power()
        for wire in self.wires:
            wire.close()

    def _command(self) -> list[str]:
        sizes = ["-m", str(MEMORY_MIB), "-smp", "2"]
        board = ["-machine", "q35", "-cpu", "host" if self.kvm else "max"]
        board += ["-accel", "kvm" if self.kvm else "tcg,thread=multi"]
        words = [emulator(self.image.machine), *board, *sizes, "-nodefaults", "-display", "none", "-no-user-config"]
        words += ["-kernel", str(self.image.kernel), "-initrd", str(self.image.initrd)]
        words += ["-append", "root=LABEL=root rw console=ttyS0 systemd.show_status=0 quiet"]
        words += ["-serial", f"file:{self.console}"]
        words += ["-drive", f"file={self.disk},if=virtio,format=qcow2,cache=writeback"]
        words += ["-drive", f"file={self.source},if=virtio,format=raw,readonly=on"]
        words += ["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]
        words += ["-chardev", f"socket,id=agent,path={self.folder / 'agent'},server=on,wait=off"]
        words += ["-device", "virtserialport,chardev=agent,name=cofferdam.agent"]
        words += ["-chardev", f"file,id=heard,path={self.heard},append=on"]
        words += ["-device", "virtserialport,chardev=heard,name=cofferdam.heard"]
        for hub, (names, wire) in enumerate(zip(HUBS, self.wires, strict=True)):
            words += ["-netdev", f"socket,id=out{hub},udp=127.0.0.1:{wire.port},localaddr=127.0.0.1:{wire.far_port}"]
            words += ["-netdev", f"hubport,id=end{hub},hubid={hub},netdev=out{hub}"]
            for name in names:
                words += ["-netdev", f"hubport,id={name},hubid={hub}"]
                words += ["-device", f"virtio-net-pci,netdev={name},mac={NICS[name]}"]
        return words

    def power_on(self) -> None:
        """Starts it, and waits for nothing."""
        (self.folder / "agent").unlink(missing_ok=True)
        with (self.folder / "qemu.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 10
        self._buffer = b""
        while True:
            self._agent = socket.socket(socket.AF_UNIX)
            try:
                self._agent.connect(str(self.folder / "agent"))
                return
            except OSError:
                self._agent.close()
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise MachineError(f"QEMU did not start: {(self.folder / 'qemu.log').read_text()}") from None
                time.sleep(0.05)

    def boot(self) -> None:
        """Starts it, and waits until it can be asked. Raises: MachineError."""
        self.power_on()
        self.wait()

    def wait(self) -> None:
        """Until the agent of a booting machine speaks."""
        self._hear("hello", BOOT_SECONDS[self.kvm])

    def reboot(self) -> None:
        """In order, from inside."""
        with contextlib.suppress(MachineError):
            self.run("systemd-run --quiet --on-active=1 systemctl reboot", seconds=10)
        self.wait()

    def cut_power(self) -> None:
        """Ends the emulator between two instructions."""
        if self._agent is not None:
            self._agent.close()
            self._agent = None
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGKILL)
            self._process.wait(20)
            self._process = None

    def _hear(self, wanted: str, seconds: float) -> dict[str, object]:
        """The next message from the agent with this field; others are left behind."""
        agent = self._agent
        if agent is None:
            raise MachineError("the machine is off")
        deadline = time.monotonic() + seconds
        while True:
            line, end, rest = self._buffer.partition(b"\n")
            if end:
                self._buffer = rest
                message: dict[str, object] = json.loads(line)
                if wanted in message:
                    return message
                continue
            left = deadline - time.monotonic()
            if left <= 0:
                raise MachineError(f"no answer within {seconds:.0f} s; the console says: {self.last_words()}")
            agent.settimeout(left)
            try:
                piece = agent.recv(1 << 16)
            except TimeoutError:
                continue
            if not piece:
                raise MachineError(f"QEMU has ended; the console says: {self.last_words()}")
            self._buffer += piece

    def last_words(self) -> str:
        if not self.console.exists():
            return "nothing"
        return "\n".join(self.console.read_text(errors="replace").splitlines()[-15:])

    def run(self, script: str, *, seconds: float = 60) -> Done:
        """Runs a shell script in the machine, as root, for so many seconds at most, where there is KVM. Raises:
        MachineError, where the machine does not answer."""
        seconds *= 1 if self.kvm else SLOW
        if self._agent is None:
            raise MachineError("the machine is off")
        self._asked += 1
        asked = {"id": self._asked, "script": script, "timeout": seconds}
        self._agent.sendall(json.dumps(asked).encode() + b"\n")
        while (message := self._hear("id", seconds + 30))["id"] != self._asked:
            pass
        return Done(int(str(message["code"])), str(message["out"]))

    def must(self, script: str, *, seconds: float = 60) -> str:
        """The same, for what has to succeed. Raises: MachineError."""
        done = self.run(script, seconds=seconds)
        if not done.ok:
            raise MachineError(f"in the machine, code {done.code} of: {script[:200]}\n{done.out[-3000:]}")
        return done.out
