"""The systemd units of a gate, as text. No I/O.

`cofferdam-shut` closes the gate's interfaces in the host's own namespace before any network is configured, and keeps
them closed there for good: while no gate runs, they lead nowhere. `cofferdam` is the gate, which takes them away. A
drop-in for Debian's own `nftables` puts the closing rules back where that unit flushes all rules.

Not here: where the files go (installing).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cofferdam.enforce.users import NEEDED, USEFUL

SHUT_TABLE = "cofferdam-shut"
CALLS = (
    "@system-service @mount @privileged setns unshare pivot_root capset seccomp landlock_create_ruleset "
    "landlock_add_rule landlock_restrict_self"
)
REFUSED_CALLS = (
    "~@clock @cpu-emulation @debug @module @obsolete @raw-io @reboot @swap @keyring acct bpf kexec_load quotactl "
    "io_uring_setup io_uring_enter io_uring_register userfaultfd perf_event_open open_by_handle_at"
)


@dataclass(frozen=True)
class UnitSetting:
    """What the units depend on. `interfaces` are those that a policy moves; `early`: nothing of the gate needs the
    host's network, so it starts before it."""

    program: str
    policy: str
    state: str
    interfaces: tuple[str, ...]
    early: bool
    nft: str = "/usr/sbin/nft"
    rules: str = "/etc/cofferdam/shut.nft"
    host_rules: str = "/etc/nftables.conf"
    options: str = ""
    """Further words of `cofferdam up`."""

    @property
    def bridge_rules(self) -> str:
        """Where the rules are that keep the interfaces out of what a bridge carries."""
        return f"{self.rules.removesuffix('.nft')}-bridge.nft"

    @property
    def frame_rules(self) -> tuple[str, ...]:
        """Where each interface's rules for frames are: by number, since a name may hold what a unit may not."""
        return tuple(f"{self.rules.removesuffix('.nft')}-{n}.nft" for n in range(1, len(self.interfaces) + 1))

    def load_frame_rules(self, when: str) -> str:
        """Lines of a unit that load what not every kernel has, or has only while the interface is there: what cannot
        be loaded stops nothing."""
        return "".join(f"{when}=-{self.nft} -f {path}\n" for path in self.frame_rules)


def shut_rules(interfaces: Sequence[str]) -> str:
    """The nftables file that closes interfaces in the host's namespace, as a transaction that can be repeated."""
    lines = [
        "# Written by `cofferdam install`: in the host's own namespace the gate's interfaces lead nowhere, whether the",
        "# gate runs or not. While it runs they are in namespaces of their own, with its own rules.",
    ]
    for family in ("inet", "arp"):
        lines += [f"table {family} {SHUT_TABLE} {{}}", f"delete table {family} {SHUT_TABLE}"]
    if not interfaces:
        return "\n".join(lines) + "\n"
    names = ", ".join(f'"{name}"' for name in interfaces)
    lines += [
        f"table inet {SHUT_TABLE} {{",
        "  chain prerouting {",
        "    type filter hook prerouting priority -450; policy accept;",
        f"    iifname {{ {names} }} counter drop",
        "  }",
        "  chain forward {",
        "    type filter hook forward priority -450; policy accept;",
        f"    iifname {{ {names} }} counter drop",
        f"    oifname {{ {names} }} counter drop",
        "  }",
        "  chain postrouting {",
        "    type filter hook postrouting priority -450; policy accept;",
        f"    oifname {{ {names} }} counter drop",
        "  }",
        "}",
        f"table arp {SHUT_TABLE} {{",
        "  chain input {",
        "    type filter hook input priority 0; policy accept;",
        f"    iifname {{ {names} }} counter drop",
        "  }",
        "  chain output {",
        "    type filter hook output priority 0; policy accept;",
        f"    oifname {{ {names} }} counter drop",
        "  }",
        "}",
    ]
    return "\n".join(lines) + "\n"


def shut_bridge_rules(interfaces: Sequence[str]) -> str:
    """Closes interfaces that somebody put into a bridge: what it carries passes none of the other rules. By name, so
    the interfaces need not be there."""
    lines = [f"table bridge {SHUT_TABLE} {{}}", f"delete table bridge {SHUT_TABLE}"]
    if interfaces:
        names = ", ".join(f'"{name}"' for name in interfaces)
        lines.append(f"table bridge {SHUT_TABLE} {{")
        for hook, direction in (("prerouting", "iifname"), ("postrouting", "oifname")):
            lines += [f"  chain {hook} {{", f"    type filter hook {hook} priority -450; policy accept;",
                      f"    {direction} {{ {names} }} counter drop", "  }"]  # fmt: skip
        lines.append("}")
    return "\n".join(lines) + "\n"


def shut_frame_rules(interface: str, number: int) -> str:
    """Closes one interface to frames of every kind, in both directions, also to those of packet sockets. The kernel
    wants the interface to be there (before Linux 6.16), and forgets these rules when it goes away: so they are an
    addition, loaded again and again. Loading them twice changes nothing."""
    lines = [f"table netdev {SHUT_TABLE} {{"]
    for hook in ("ingress", "egress"):
        lines += [f"  chain {hook}-{number} {{",
                  f'    type filter hook {hook} device "{interface}" priority -450; policy drop;', "  }"]  # fmt: skip
    return "\n".join([*lines, "}"]) + "\n"


def shut_unit(setting: UnitSetting) -> str:
    """cofferdam-shut.service."""
    more = f"=-{setting.nft} -f {setting.bridge_rules}\n"
    return f"""\
[Unit]
Description=Closes the interfaces that belong to the Cofferdam gate
Documentation=man:nft(8)
DefaultDependencies=no
After=local-fs.target systemd-sysctl.service nftables.service
Before=network-pre.target sysinit.target shutdown.target
Wants=network-pre.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={setting.nft} -f {setting.rules}
# For frames: not every kernel has these, and the interfaces may not be there yet.
ExecStart{more}{setting.load_frame_rules("ExecStart")}\
ExecReload={setting.nft} -f {setting.rules}
ExecReload=-{setting.nft} delete table netdev {SHUT_TABLE}
ExecReload{more}{setting.load_frame_rules("ExecReload")}\
# There is no ExecStop: stopping this unit must not open what it closed.
CapabilityBoundingSet=CAP_NET_ADMIN
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectHostname=yes
ProtectProc=invisible
ProcSubset=pid
RestrictAddressFamilies=AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
UMask=0077
IPAddressDeny=any

[Install]
WantedBy=sysinit.target
"""


def gate_unit(setting: UnitSetting) -> str:
    """cofferdam.service."""
    capabilities = " ".join(f"CAP_{name.upper()}" for name in sorted((*NEEDED, *USEFUL)))
    if setting.early:
        order = "After=cofferdam-shut.service local-fs.target\nBefore=network-pre.target\nWants=network-pre.target"
    else:
        order = (
            "After=cofferdam-shut.service local-fs.target network-online.target\nWants=network-online.target\n"
            "# The policy names an address of this machine for management, so the gate needs its network."
        )
    return f"""\
[Unit]
Description=Cofferdam, the gate between office and plant
Documentation=man:cofferdam(1)
Requires=cofferdam-shut.service
{order}
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
# Whatever flushed the rules of the host's namespace since: closed before the interfaces come back to it.
ExecStartPre={setting.nft} -f {setting.rules}
ExecStart={setting.program} up {setting.policy} --state {setting.state}{setting.options}
ExecStop=-{setting.nft} -f {setting.rules}
# Reads the policy as root does, and fails where it is refused.
ExecReload={setting.program} reload {setting.policy} --state {setting.state}
WatchdogSec=30
TimeoutStartSec=180
TimeoutStopSec=30
Restart=always
# Code 0: it was told to stop (`cofferdam down`), and stays so.
RestartPreventExitStatus=0
RestartSec=100ms
KillMode=mixed
# The rules for frames go when an interface goes into the gate's namespace, and come back with it.
{setting.load_frame_rules("ExecStartPre")}{setting.load_frame_rules("ExecStopPost")}\
LimitNOFILE=65536
TasksMax=8192
OOMScoreAdjust=-500

# What the launcher needs, and nothing else; it passes none of it on. Each process behind them has a
# user, a file tree, a network and a system-call filter of its own.
CapabilityBoundingSet={capabilities}
NoNewPrivileges=yes
ProtectClock=yes
RestrictNamespaces=net mnt pid ipc uts
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK AF_PACKET
# A policy with `priority: realtime` needs "no" here: systemctl edit cofferdam.
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter={CALLS}
SystemCallFilter={REFUSED_CALLS}
SystemCallErrorNumber=EPERM
DevicePolicy=closed
DeviceAllow=/dev/net/tun rw
KeyringMode=private
UMask=0077

# No ProtectSystem=, PrivateTmp= and their like here: they give a unit a mount namespace of its own, and then the
# network namespaces that the launcher makes in /run/netns would be seen by nobody else, neither by `ip netns` nor by
# `cofferdam prove`. ProtectHostname=, ProtectKernelTunables=: the launcher sets the name and the forwarding switches of
# namespaces that it makes.

[Install]
WantedBy=multi-user.target
"""


def firewall_dropin(setting: UnitSetting) -> str:
    """For the distribution's nftables.service, whose start, reload and stop flush the rules of everyone: its commands,
    with the closing rules in the same transaction."""
    load = f"""{setting.nft} 'include "{setting.host_rules}"; include "{setting.rules}"'"""
    frames = {
        when: f"{when}=-{setting.nft} -f {setting.bridge_rules}\n{setting.load_frame_rules(when)}"
        for when in ("ExecStartPost", "ExecReload", "ExecStopPost")
    }
    return f"""\
# Written by `cofferdam install`: this unit flushes all rules, also those that close the gate's interfaces. Here they
# are put back in the same transaction.
[Service]
ExecStart=
ExecStart={load}
{frames["ExecStartPost"]}\
ExecReload=
ExecReload={load}
{frames["ExecReload"]}\
ExecStop=
ExecStop={setting.nft} 'flush ruleset; include "{setting.rules}"'
{frames["ExecStopPost"]}\
"""


def device_name(program: str) -> str:
    """A path as a unit may hold it: systemd(5) takes % and spaces in ExecStart= as its own."""
    if re.search(r"[\s\"'\\$;%]", program):
        return ""
    return program
