"""The tunnel's parts that need no device: what is said to the kernel and heard from it, and the choice of a program."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from pyroute2.netlink.generic.wireguard import AsyncWireGuard, wgmsg

from cofferdam.enforce import bpf
from cofferdam.enforce.overlay import tunnel
from cofferdam.enforce.syscalls import NUMBERS
from cofferdam.errors import GateError

KEY = base64.b64encode(bytes(range(32))).decode()


def test_a_peer_as_the_kernel_tells_of_it() -> None:
    """Through the library's own encoder, since no kernel here may have WireGuard."""
    message = wgmsg()
    message["attrs"].append(["WGDEVICE_A_IFNAME", "wg0"])
    AsyncWireGuard._wg_set_peer(
        _Keys(),
        message,
        {"public_key": KEY, "allowed_ips": ["10.64.8.5/32", "fd00::5/128"], "replace_allowed_ips": True},
    )
    peer = message["attrs"][-1][1][0]["attrs"]
    peer += [["WGPEER_A_RX_BYTES", 1234], ["WGPEER_A_TX_BYTES", 99]]
    peer.append(["WGPEER_A_LAST_HANDSHAKE_TIME", {"tv_sec": 1_795_000_000, "tv_nsec": 5}])
    message.encode()
    heard = wgmsg(message.data)
    heard.decode()
    (found,) = heard.get_attr("WGDEVICE_A_PEERS")
    assert tunnel._kernel_peer(found) == (KEY, 1_795_000_000, 1234, 99, "")
    networks = sorted(map(tunnel._network_of, found.get_attr("WGPEER_A_ALLOWEDIPS")))
    assert networks == ["10.64.8.5/32", "fd00::5/128"]


class _Keys:
    """What `_wg_set_peer` asks of its socket."""

    _wg_test_key = AsyncWireGuard._wg_test_key
    _wg_build_allowedips = AsyncWireGuard._wg_build_allowedips


@pytest.mark.parametrize(
    ("said", "headerless"),
    [("wireguard-go v0.0.20220316", False), ("wireguard-go v0.0.20230223", False),
     ("wireguard-go v0.0.20250522", True), ("wireguard-go of nobody knows when", True)],
)  # fmt: skip
def test_the_program_and_its_kind_of_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, headerless: bool
) -> None:
    program = tmp_path / "wireguard-go"
    program.write_text(f"#!/bin/sh\necho '{said}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tunnel.find_program() == (program, headerless)


def test_a_program_that_does_not_run_is_an_error_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "wireguard-go"
    program.write_text("no program\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GateError) as caught:
        tunnel.find_program()
    assert "apt-get install wireguard-go" in caught.value.hint


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_programs_filter(machine: str) -> None:
    numbers = NUMBERS[machine]
    program = bpf.assemble(machine, tunnel.program_rules(machine), bpf.ALLOW)

    def says(name: str, *arguments: int) -> int:
        return bpf.run(program, bpf.AUDIT_ARCH[machine], numbers[name], arguments)

    refused, nonblocking = bpf.fail_with(1), 0o4000 | 0o2000000
    assert says("socket", 2, 2 | nonblocking, 0) == says("socket", 10, 2, 17) == bpf.ALLOW
    assert says("socket", 16, 3, 0) == bpf.ALLOW  # news of interfaces
    for family, kind, protocol in ((2, 1, 0), (10, 1, 6), (2, 3, 1), (1, 1, 0), (17, 3, 768), (16, 3, 12), (40, 1, 0)):
        assert says("socket", family, kind, protocol) == refused, (family, kind, protocol)
    assert says("ioctl", 5, 0x8922, 0) == bpf.fail_with(0)
    assert says("ioctl", 5, 0x8933, 0) == bpf.ALLOW
    assert says("clone", 0x50F00) == bpf.ALLOW
    for flag in (0x10000000, 0x20000, 0x40000000, 0x20000000, 0x2000000, 0x4000000, 0x8000000):
        assert says("clone", 0x50F00 | flag) == refused, hex(flag)
    for name in ("connect", "ptrace", "setns", "unshare", "mount", "bpf", "io_uring_setup"):
        assert says(name) == refused, name
