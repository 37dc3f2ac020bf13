"""Where a half stands, without its filter: even so, hostile code there finds no file, no process and no road."""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cofferdam.brokers.registry import CREWS
from cofferdam.enforce.crews import GATE
from cofferdam.enforce.isolation import Berth
from cofferdam.enforce.namespaces import NamespaceIsolation
from cofferdam.enforce.orders import Place
from cofferdam.enforce.plans.network import network_plan
from cofferdam.enforce.users import Users
from cofferdam.errors import GateError
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import load
from tests.enforce import hostile
from tests.enforce.site import DEVICE, ERP, OVERLAY, PORT, PlantDevice, Site, netns
from tests.waiting import PATIENT

pytestmark = netns
PLACES = {"outer": Place("it", "office"), "inner": Place("ot", "plant")}
PROFILES = {**CREWS["modbus"].parts, **CREWS["auditor"].parts, "gate": GATE}
NAMES = {"outer": "modbus/office-plant/outer", "inner": "modbus/office-plant/inner", "auditor": "auditor/auditor"}


class Stage:
    """An isolation as the launcher has it, with a secret in the state directory."""

    def __init__(self, site: Site) -> None:
        self.site = site
        site.state.mkdir(mode=0o700)
        self.isolation = NamespaceIsolation(site.state, site.policy, Users(64100, 64199))
        self.isolation.begin()
        self.key = site.state / "keys" / "audit.key"
        self.key.write_text("secret")
        os.chown(self.key, 64101, 64101)
        self.key.chmod(0o600)
        self.isolation.prepare(network_plan(compile_policy(load(site.policy), now_ns=0)))

    def berth(self, role: str, user: int = 0) -> Berth:
        return Berth(PROFILES[role], user or self.isolation.user(NAMES.get(role, role)), PLACES.get(role))

    def does(self, berth: Berth, deed: Callable[[], object]) -> str:
        with self.isolation.forking(berth.profile):
            return hostile.attempt(lambda: self.isolation.child_setup(berth), deed)

    def tries(self, role: str, deed: Callable[[], object]) -> str:
        """What becomes of a deed in the place of such a process."""
        return self.does(self.berth(role), deed)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Site(tmp_path_factory.mktemp("site")) as site:
        device = PlantDevice(site.plant)
        made = Stage(site)
        try:
            yield made
        finally:
            made.isolation.undo()
            device.close()
        assert site.gates() == []


@pytest.mark.parametrize("role", ["outer", "inner"])
def test_a_half_can_open_nothing_of_the_host(stage: Stage, role: str) -> None:
    state = stage.site.state
    for path in (stage.key, state / "gate.sock", state / "severed.json", stage.site.policy, Path("/etc/passwd"),
                 Path("/proc/1/status"), Path("/proc/self/mem"), Path("/run"), Path("/dev/null")):  # fmt: skip
        assert stage.tries(role, lambda path=path: path.open("rb")) == "ENOENT", path  # type: ignore[misc]
    assert stage.tries(role, lambda: list(Path("/proc").iterdir())) == "ENOENT"


@pytest.mark.parametrize("role", ["outer", "inner"])
def test_a_half_can_write_nowhere(stage: Stage, role: str) -> None:
    import cofferdam

    code = Path(cofferdam.__file__).parent
    for path in (Path("/x"), Path("/tmp/x"), code / "x", Path("/dev/shm/x")):
        assert stage.tries(role, lambda path=path: path.touch()) in {"EROFS", "ENOENT", "EACCES"}, path  # type: ignore[misc]


@pytest.mark.parametrize("role", ["outer", "inner"])
def test_a_half_can_not_gain_anything(stage: Stage, role: str) -> None:
    for name, deed in {
        "root": lambda: os.setuid(0),
        "mount": lambda: hostile.call("mount", b"none\0", b"/\0", b"tmpfs\0", 0, None),
        "raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
        "packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
        "namespace": lambda: hostile.call("unshare", 0x40000000),
    }.items():
        assert stage.tries(role, deed) == "EPERM", name
    assert stage.tries(role, hostile.fork) in {"EAGAIN", "EPERM"}
    # Whom it could signal: nobody. It is the first process of its own space, and that has no others.
    assert stage.tries(role, lambda: os.kill(-1, signal.SIGTERM)) == "ESRCH"
    for pid in {os.getpid(), os.getppid()} - {1}:  # by that number it would find itself
        assert stage.tries(role, lambda pid=pid: os.kill(pid, 0)) == "ESRCH"  # type: ignore[misc]


def test_an_inner_half_reaches_the_device_and_nothing_else(stage: Stage) -> None:
    def connect(address: str, port: int, seconds: float = 0.5) -> Callable[[], object]:
        def deed() -> None:
            with socket.socket() as sock:
                sock.settimeout(seconds)
                try:
                    sock.connect((address, port))
                except TimeoutError:
                    raise OSError(110, "timed out") from None

        return deed

    assert stage.tries("inner", connect(DEVICE, PORT, PATIENT)) == "done"
    # The firewall drops what leaves: depending on where, the kernel says so at once or nobody answers.
    refused = {"EPERM", "ETIMEDOUT", "ENETUNREACH", "EHOSTUNREACH"}
    for address, port in ((DEVICE, 22), ("10.82.0.99", PORT), (ERP, PORT), ("192.0.2.1", 80), ("127.0.0.1", PORT)):
        assert stage.tries("inner", connect(address, port)) in refused, (address, port)
    for address, port in ((DEVICE, PORT), (ERP, 80), (OVERLAY, PORT)):
        assert stage.tries("outer", connect(address, port)) in refused, (address, port)


def test_a_road_is_its_own_parts_alone(stage: Stage) -> None:
    """An inner half of another crew stands in the same namespace, and may make connections as well."""

    def talk() -> None:
        with socket.create_connection((DEVICE, PORT), PATIENT) as sock:
            sock.sendall(struct.pack(">HHHBBHH", 1, 0, 6, 1, 3, 0, 1))
            if not sock.recv(64):
                raise OSError(errno.ECONNRESET, "closed")

    assert stage.tries("inner", talk) == "done"
    other = stage.berth("inner", user=stage.isolation.user("modbus/elsewhere-plant/inner"))
    assert stage.does(other, lambda: socket.create_connection((DEVICE, PORT), 0.5)) in {"EPERM", "ETIMEDOUT", "?"}
    assert stage.isolation.user("modbus/office-plant/inner") == stage.berth("inner").user != other.user
    assert stage.tries("inner", talk) == "done"


def test_the_log_and_its_key_are_the_auditors_alone(stage: Stage) -> None:
    state = stage.site.state
    assert stage.tries("auditor", lambda: stage.key.read_text()) == "done"
    assert stage.tries("auditor", lambda: (state / "audit" / "x").touch()) == "done"
    assert stage.tries("auditor", lambda: (state / "x").touch()) in {"EROFS", "EACCES"}
    assert stage.tries("auditor", lambda: socket.create_connection((DEVICE, PORT), 0.5)) == "ENETUNREACH"
    assert stage.tries("gate", lambda: stage.key.read_text()) == "EACCES"
    assert stage.tries("gate", lambda: stage.key.rename(state / "mine")) in {"EACCES", "EPERM"}
    assert stage.tries("gate", lambda: (state / "keys").rename(state / "mine")) in {"EACCES", "EPERM"}
    assert stage.tries("gate", lambda: (state / "audit" / "y").touch()) == "EACCES"
    assert stage.tries("gate", lambda: (state / "severed.json").write_text("{}")) == "done"
    assert stage.tries("gate", lambda: (state / "network" / "journal.json").read_text()) == "EACCES"
    assert stage.tries("gate", lambda: stage.site.policy.write_text("x")) in {"EROFS", "EACCES"}
    assert stage.tries("gate", lambda: stage.site.policy.read_text()) == "done"
    assert stage.tries("gate", lambda: Path("/etc/shadow").read_text()) == "ENOENT"


def test_a_listener_is_in_its_sides_namespace(stage: Stage) -> None:
    with stage.isolation.open_listener(PLACES["outer"], OVERLAY, 5020) as listener:
        assert listener.getsockname() == (OVERLAY, 5020)
    with pytest.raises(GateError, match="no such address"):
        stage.isolation.open_listener(PLACES["inner"], OVERLAY, 5020)


@pytest.mark.parametrize("text", ["", "1-2", "64000", "64000-64005", "0-999", "a-b", "64999-64000"])
def test_ranges_of_users_that_are_none(text: str) -> None:
    with pytest.raises(GateError, match="user ids"):
        Users.parse(text)


def test_a_half_can_still_say_what_is_wrong_where_messages_go_to_a_file(stage: Stage, tmp_path: Path) -> None:
    with (tmp_path / "messages").open("wb") as messages:
        assert stage.tries("outer", lambda: os.write(messages.fileno(), b"something broke")) == "done"
    assert (tmp_path / "messages").read_bytes() == b"something broke"
