"""The WireGuard device by which overlay peers come: its UDP socket in the host's namespace, its packets in that of the
office side. The privileged part; it runs in the launcher.

With the kernel's own WireGuard, the device is made in the host's namespace, where its socket then stays, and moved.
Without it, wireguard-go runs as a process: it gets the TUN device and its control socket by descriptor, and has a user
of its own, no capability, a file tree of its own and a system-call filter. It is the only process here that takes
packets from anywhere, and it holds nothing but that device.

What wireguard-go says is read in a short-lived child (worker), not in the launcher.

Not here: who the peers are (gate.peers), keys, the firewall of what comes by the device (plans.rules).
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import errno
import fcntl
import ipaddress
import os
import platform
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from cofferdam.enforce import bpf, kernel, netns, view
from cofferdam.enforce.inside import inside
from cofferdam.enforce.orders import PeerState, SetTunnel
from cofferdam.enforce.plans.overlay import MTU
from cofferdam.enforce.syscalls import NUMBERS
from cofferdam.errors import GateError

SOCKETS = Path("/var/run/wireguard")
"""Where control sockets of WireGuard programs are, so that `wg show` finds ours as well."""
START_SECONDS = 5.0
ANSWER_SECONDS = 2.0
"""The launcher waits for it, so it is short; a program that takes longer is ended."""
ANSWER_BYTES = 1 << 20
PROCESSES = 256
"""Threads that wireguard-go may have."""
_HINT = "Debian: apt-get install wireguard-go (or a kernel with WireGuard)"
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_SIOCSIFMTU = 0x8922
_NEW_NAMESPACES = 0x7E020080
_FIRST_FD = 3
_WITHOUT_HEADER = 20230301
"""From this version on wireguard-go wants its TUN device without the four bytes before each packet."""
NEVER = (
    "ptrace", "mount", "umount2", "unshare", "setns", "bpf", "io_uring_setup", "io_uring_enter", "io_uring_register",
    "keyctl", "add_key", "init_module", "open_by_handle_at", "process_vm_readv", "process_vm_writev", "pidfd_getfd",
    "pidfd_open", "perf_event_open", "userfaultfd", "memfd_create", "connect", "execveat", "kill",
)  # fmt: skip
"""What wireguard-go has no use for."""

_libc = ctypes.CDLL(None, use_errno=True)


class TunnelDevice:
    """One device, in the namespace `namespace` (a descriptor), with routes to `networks`."""

    def __init__(
        self, name: str, port: int, networks: Iterable[str], namespace: int, home: int, root: Path, user: int
    ) -> None:
        """`root` is an empty folder for the program's file tree, `user` its user id."""
        self.name = name
        self.kind = ""
        self._port = port
        self._networks = list(networks)
        self._namespace = namespace
        self._home = home
        self._root = root
        self._user = user
        self._keys: set[str] = set()
        self._pid = 0

    def make(self) -> int:
        """Makes the device if it is not there. The process id of the program that was started for it, else 0.

        Raises:
            GateError: neither the kernel nor a program here can do WireGuard.
        """
        if self.kind:
            return 0
        pid = 0
        if inside(None, _make_kernel, self.name):
            kind = "kernel"
        else:
            pid = self._start()
            kind = "wireguard-go"
        try:
            inside(None, netns.move, self.name, self._namespace)
            inside(self._namespace, _settle, self.name, self._networks)
        except GateError:
            if pid:
                os.kill(pid, signal.SIGKILL)
            raise
        finally:
            self._keys.clear()
        self.kind, self._pid = kind, pid
        return pid

    def end(self) -> None:
        """Takes the device away at once, whatever its program does. `ended` follows if it has one."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
        elif self.kind:
            inside(self._namespace, netns.delete_interface, self.name)
            self.ended()

    def ended(self) -> None:
        """Its program has ended, and the device with it."""
        self.kind, self._pid = "", 0
        self._keys.clear()
        (SOCKETS / f"{self.name}.sock").unlink(missing_ok=True)

    def set(self, order: SetTunnel) -> None:
        """Lets exactly the order's peers in. Raises: GateError."""
        peers = {peer.key: list(peer.addresses) for peer in order.peers}
        if self.kind == "kernel":
            inside(self._namespace, _set_kernel, self.name, order.key, self._port, peers)
            return
        lines = ["set=1", f"private_key={_hex(order.key)}", f"listen_port={self._port}", "replace_peers=true"]
        if self._keys:  # a change: peers that stay keep their sessions
            lines.remove("replace_peers=true")
            for key in sorted(self._keys - peers.keys()):
                lines += [f"public_key={_hex(key)}", "remove=true"]
        for key, addresses in peers.items():
            lines += [f"public_key={_hex(key)}", "replace_allowed_ips=true"]
            lines += [f"allowed_ip={text}/{128 if ':' in text else 32}" for text in addresses]
        inside(None, _exchange, self.name, "\n".join(lines) + "\n\n")
        self._keys = set(peers)

    def state(self) -> tuple[PeerState, ...]:
        """What the device knows of its peers. Raises: GateError."""
        if not self.kind:
            return ()
        if self.kind == "kernel":
            found = inside(self._namespace, _ask_kernel, self.name)
        else:
            found = inside(None, _ask_program, self.name)
        return tuple(PeerState(*entry) for entry in found)

    # --- wireguard-go -------------------------------------------------------------------------------------------------

    def _start(self) -> int:
        program, headerless = find_program()
        path = SOCKETS / f"{self.name}.sock"
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            flags = _IFF_TUN | (_IFF_NO_PI if headerless else 0)
            fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", self.name.encode(), flags))
            inside(None, _set_mtu, self.name)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            control.bind(str(path))
            control.listen(4)
            sys.stderr.flush()
            pid = os.fork()
            if pid == 0:
                self._become(program, path, [tun, control.fileno()])
        except OSError as error:
            raise GateError(f"the tunnel's device cannot be made: {error.strerror or error}", hint=_HINT) from None
        finally:
            os.close(tun)
            control.close()
        try:
            inside(None, _wait, self.name)
        except GateError as error:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            raise GateError(f"{program} does not start: {error}", hint=_HINT) from None
        return pid

    def _become(self, program: Path, control: Path, fds: list[int]) -> None:
        """A fresh fork becomes wireguard-go. Nothing returns from here."""
        try:
            launcher = os.getppid()
            os.setsid()
            copies = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FD + len(fds)) for fd in fds]
            for target, copy in enumerate(copies, _FIRST_FD):
                os.dup2(copy, target, inheritable=True)
            nothing = os.open(os.devnull, os.O_RDONLY)
            os.dup2(nothing, 0)
            os.dup2(2, 1)
            os.closerange(_FIRST_FD + len(fds), resource.getrlimit(resource.RLIMIT_NOFILE)[1])
            kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS)
            view.enter(self._root, _program_tree(program), [control])
            os.umask(0o077)
            kernel.prctl(kernel.PR_SET_SECUREBITS, kernel.SECUREBITS_LOCKED)
            kernel.drop_bounding_set()
            os.setgroups([])
            os.setresgid(self._user, self._user, self._user)
            os.setresuid(self._user, self._user, self._user)
            kernel.set_capabilities(())
            kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
            kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != launcher:
                raise OSError(errno.ESRCH, "the launcher ended while this child started")
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            signal.set_wakeup_fd(-1)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
            resource.setrlimit(resource.RLIMIT_NPROC, (PROCESSES, PROCESSES))
            confine_program()
            environment = {"WG_TUN_FD": "3", "WG_UAPI_FD": "4", "WG_PROCESS_FOREGROUND": "1", "LOG_LEVEL": "error"}
            os.execve(program, [str(program), "-f", self.name], environment)  # noqa: S606 - no shell
        except BaseException as error:
            os.write(2, f"cofferdam: cannot start wireguard-go: {error}\n".encode())
        finally:
            os._exit(127)


def find_program() -> tuple[Path, bool]:
    """wireguard-go, and whether it wants its device without packet headers. Raises: GateError if it is missing."""
    found = shutil.which("wireguard-go", path=f"{os.environ.get('PATH', '')}:/usr/bin:/usr/local/bin:/usr/sbin")
    if found is None:
        raise GateError("overlay peers need WireGuard, and neither the kernel nor a program here has it", hint=_HINT)
    try:
        said = subprocess.run(
            [found, "--version"], capture_output=True, text=True, timeout=5, stdin=subprocess.DEVNULL, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GateError(f"{found} does not tell its version: {error}", hint=_HINT) from None
    version = re.search(r"v0\.0\.(\d{8})", said)
    return Path(found).resolve(), version is None or int(version[1]) >= _WITHOUT_HEADER


def _program_tree(program: Path) -> view.Python:
    """The program and the C library, instead of Python."""
    whole = view.find_python()
    libraries = [path for path in whole.shown if any(path.glob("libc.so*")) or path.name == "ld.so.cache"]
    roots = [path for path in map(Path, ("/lib", "/lib64")) if path.is_dir() and not path.is_symlink()]
    links = [(path, target) for path, target in whole.links if path in (Path("/lib"), Path("/lib64"))]
    shown = [program, *libraries, *roots]
    loaders = [Path("/lib64/ld-linux-x86-64.so.2"), Path("/lib/ld-linux-aarch64.so.1")]
    for loader in loaders:
        if loader.exists():
            real = loader.resolve()
            if not any(real.is_relative_to(path) for path in shown):
                shown.append(real)
            # usr-merged: /lib64 is a link, and the loader in it another one
            holder = loader.parent.resolve() / loader.name
            if holder.is_symlink() and not any(holder.is_relative_to(path) for path in shown):
                links.append((holder, str(holder.readlink())))
    return view.Python(tuple(shown), tuple(links))


def confine_program() -> None:
    """Puts the calling process, and the program that it becomes, under a filter. Raises: OSError.

    The program is a Go runtime, whose calls are many; what is refused is what leads out of its tree, to other processes
    or to TCP. Setting its device's MTU is not done but said to be done: it needs a capability, and the launcher has
    set it.
    """
    machine = platform.machine()
    if machine not in NUMBERS:
        return
    code = bpf.assemble(machine, program_rules(machine), bpf.ALLOW)
    held = ctypes.create_string_buffer(code, len(code))
    head = ctypes.create_string_buffer(struct.pack("@HP", len(code) // 8, ctypes.addressof(held)))
    if _libc.prctl(22, 2, ctypes.byref(head), 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"the system-call filter: {os.strerror(number)}")


def program_rules(machine: str) -> list[bpf.CallRule]:
    """The filter of `confine_program`, rule by rule; what no rule names is allowed."""
    numbers = NUMBERS[machine]
    refuse = bpf.fail_with(errno.EPERM)
    return [
        bpf.CallRule(numbers["ioctl"], bpf.fail_with(0), (bpf.Is(1, (_SIOCSIFMTU,)),)),
        bpf.CallRule(numbers["socket"], bpf.ALLOW, (bpf.Is(0, (2, 10)), bpf.Is(1, (2,), ignoring=0o4000 | 0o2000000))),
        bpf.CallRule(numbers["socket"], bpf.ALLOW, (bpf.Is(0, (16,)), bpf.Is(2, (0,)))),
        bpf.CallRule(numbers["socket"], refuse),
        bpf.CallRule(numbers["clone"], bpf.ALLOW, (bpf.Lacks(0, _NEW_NAMESPACES),)),
        bpf.CallRule(numbers["clone"], refuse),
        bpf.CallRule(numbers["clone3"], bpf.fail_with(errno.ENOSYS)),
        *(bpf.CallRule(numbers[name], refuse) for name in NEVER if name in numbers),
    ]


def _hex(key: str) -> str:
    return base64.b64decode(key).hex()


# --- in a worker ------------------------------------------------------------------------------------------------------


def _make_kernel(name: str) -> bool:
    """Makes the kernel's own device, down; False if this kernel has none."""
    with IPRoute() as netlink:
        try:
            netlink.link("add", ifname=name, kind="wireguard")
        except NetlinkError as error:
            if error.code in (errno.EOPNOTSUPP, errno.ENODEV, errno.ENOENT):
                return False
            raise
        netlink.link("set", index=netlink.link_lookup(ifname=name)[0], mtu=MTU)
    return True


def _set_mtu(name: str) -> None:
    with IPRoute() as netlink:
        netlink.link("set", index=netlink.link_lookup(ifname=name)[0], mtu=MTU)


def _settle(name: str, networks: list[str]) -> None:
    """Takes the device up in its namespace, with the way to every peer."""
    with IPRoute() as netlink:
        index = netlink.link_lookup(ifname=name)[0]
        netlink.link("set", index=index, state="up", mtu=MTU)
        for network in networks:
            family = socket.AF_INET6 if ":" in network else socket.AF_INET
            netlink.route("replace", family=int(family), dst=network, oif=index)


def _wait(name: str) -> None:
    """Until the program answers."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            _exchange(name, "get=1\n\n", seconds=max(0.1, deadline - time.monotonic()))
            return
        except GateError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _exchange(name: str, text: str, seconds: float = ANSWER_SECONDS) -> str:
    """One request of the cross-platform userspace protocol (wireguard.com/xplatform). Raises: GateError."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
            control.settimeout(seconds)
            control.connect(str(SOCKETS / f"{name}.sock"))
            control.sendall(text.encode())
            said = b""
            while not said.endswith(b"\n\n"):
                piece = control.recv(65536)
                if not piece or len(said) > ANSWER_BYTES:
                    raise GateError("wireguard-go ended its answer early")
                said += piece
    except OSError as error:
        raise GateError(f"wireguard-go does not answer: {error.strerror or error}") from None
    found = re.search(rb"^errno=(-?\d+)$", said, re.MULTILINE)
    if found is None or found[1] != b"0":
        raise GateError(f"wireguard-go refuses its settings (errno {found[1].decode() if found else '?'})")
    return said.decode("ascii", "replace")


Entry = tuple[str, int, int, int, str]


def _ask_program(name: str) -> list[Entry]:
    """(key, last handshake, bytes received, bytes sent, endpoint) of each peer."""
    found: list[dict[str, str]] = []
    for line in _exchange(name, "get=1\n\n").splitlines():
        word, _, value = line.partition("=")
        if word == "public_key":
            found.append({})
        if found:
            found[-1][word] = value
    return [
        (
            base64.b64encode(bytes.fromhex(entry["public_key"])).decode(),
            int(entry.get("last_handshake_time_sec", "0")),
            int(entry.get("rx_bytes", "0")),
            int(entry.get("tx_bytes", "0")),
            entry.get("endpoint", "")[:128],
        )
        for entry in found
    ]


def allowed(name: str, kind: str) -> list[tuple[str, list[str]]]:
    """Whom a device lets in, for a proof: each public key, and the networks (CIDR, sorted) from which packets are taken
    by it and to which packets go by it. `kind` is the kernel's name for the device; its own WireGuard is asked in the
    device's namespace. Raises: GateError."""
    return _allowed_by_kernel(name) if kind == "wireguard" else _allowed_by_program(name)


def _allowed_by_program(name: str) -> list[tuple[str, list[str]]]:
    found: list[tuple[str, list[str]]] = []
    for line in _exchange(name, "get=1\n\n").splitlines():
        word, _, value = line.partition("=")
        if word == "public_key":
            found.append((base64.b64encode(bytes.fromhex(value)).decode(), []))
        elif word == "allowed_ip" and found:
            found[-1][1].append(str(ipaddress.ip_network(value)))
    return [(key, sorted(networks)) for key, networks in found]


def _allowed_by_kernel(name: str) -> list[tuple[str, list[str]]]:
    from pyroute2 import WireGuard

    found: dict[str, set[str]] = {}  # a peer of many networks comes in several messages
    with WireGuard() as device:
        for message in device.info(name):
            for peer in message.get_attr("WGDEVICE_A_PEERS") or ():
                networks = found.setdefault(_kernel_peer(peer)[0], set())
                networks.update(map(_network_of, peer.get_attr("WGPEER_A_ALLOWEDIPS") or ()))
    return [(key, sorted(networks)) for key, networks in found.items()]


def _network_of(entry: Any) -> str:
    """An allowed network as pyroute2 has it: the address's bytes in hexadecimal, and the mask's length."""
    address = ipaddress.ip_address(bytes.fromhex(entry.get_attr("WGALLOWEDIP_A_IPADDR").replace(":", "")))
    return str(ipaddress.ip_network((address, int(entry.get_attr("WGALLOWEDIP_A_CIDR_MASK")))))


def _set_kernel(name: str, key: str, port: int, peers: dict[str, list[str]]) -> None:
    from pyroute2 import WireGuard

    with WireGuard() as device:
        device.set(name, private_key=key, listen_port=port)
        for known in {entry[0] for entry in _ask_kernel(name)} - peers.keys():
            device.set(name, peer={"public_key": known, "remove": True})
        for known, addresses in peers.items():
            allowed = [f"{text}/{128 if ':' in text else 32}" for text in addresses]
            device.set(name, peer={"public_key": known, "allowed_ips": allowed, "replace_allowed_ips": True})


def _ask_kernel(name: str) -> list[Entry]:
    from pyroute2 import WireGuard

    entries: list[Entry] = []
    with WireGuard() as device:
        for message in device.info(name):
            for peer in message.get_attr("WGDEVICE_A_PEERS") or ():
                entries.append(_kernel_peer(peer))
    return entries


def _kernel_peer(peer: Any) -> Entry:
    key = peer.get_attr("WGPEER_A_PUBLIC_KEY")
    heard = peer.get_attr("WGPEER_A_LAST_HANDSHAKE_TIME") or {}
    text = key.decode() if isinstance(key, bytes) else str(key)
    endpoint = peer.get_attr("WGPEER_A_ENDPOINT") or {}
    where = f"{endpoint.get('addr', '')}:{endpoint.get('port', '')}" if endpoint else ""
    received = int(peer.get_attr("WGPEER_A_RX_BYTES") or 0)
    return text, int(heard.get("tv_sec", 0)), received, int(peer.get_attr("WGPEER_A_TX_BYTES") or 0), where
