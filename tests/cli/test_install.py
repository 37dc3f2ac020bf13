"""The systemd units: what stands in them, what systemd thinks of them, and that their rules close interfaces."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cofferdam.enforce.units import (
    SHUT_TABLE,
    UnitSetting,
    firewall_dropin,
    gate_unit,
    shut_bridge_rules,
    shut_frame_rules,
    shut_rules,
    shut_unit,
)
from cofferdam.enforce.users import NEEDED, USEFUL
from tests.gate.plant import cli
from tests.waiting import PATIENT, eventually

ROOT = Path(__file__).parent.parent.parent
SHIPPED = ROOT / "packaging" / "systemd"
EXPOSURE = 6.1
"""systemd-analyze's figure for the gate, 0 to 10: what a launcher needs costs most of it (docs/install.md)."""
POLICY = """
site: works
zones:
  office: {side: it, interface: eth1, addresses: 10.1.0.1/16}
  vlan: {side: it, interface: eth0, vlan: 7, addresses: 10.3.0.1/16}
  plant: {side: ot, interface: eth2, addresses: 10.2.0.1/16}
gate: {%s}
"""
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def default() -> UnitSetting:
    return UnitSetting(
        "/usr/bin/cofferdam", "/etc/cofferdam/policy.yaml", "/var/lib/cofferdam", ("eth1", "eth2"), early=True
    )


def test_the_shipped_units_are_those_that_are_written() -> None:
    assert (SHIPPED / "cofferdam.service").read_text() == gate_unit(default())
    assert (SHIPPED / "cofferdam-shut.service").read_text() == shut_unit(default())
    assert (SHIPPED / "nftables.service.d" / "cofferdam.conf").read_text() == firewall_dropin(default())
    assert (SHIPPED / "shut.nft").read_text() == shut_rules(("eth1", "eth2"))
    assert (SHIPPED / "shut-bridge.nft").read_text() == shut_bridge_rules(("eth1", "eth2"))
    for number, name in enumerate(("eth1", "eth2"), 1):
        assert (SHIPPED / f"shut-{number}.nft").read_text() == shut_frame_rules(name, number)


def test_install_writes_below_a_root(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY % "")
    code, out, err = cli("install", policy, "--root", tmp_path / "root", "--program", "/opt/c/bin/cofferdam", "--json")
    assert code == 0, err
    written = [Path(path) for path in json.loads(out)["written"]]
    assert [path.name for path in written] == [
        "cofferdam-shut.service", "cofferdam.service", "cofferdam.conf",
        "shut.nft", "shut-bridge.nft", "shut-1.nft", "shut-2.nft",
    ]  # fmt: skip
    unit = (tmp_path / "root/etc/systemd/system/cofferdam.service").read_text()
    assert f"ExecStart=/opt/c/bin/cofferdam up {policy} --state /var/lib/cofferdam\n" in unit
    rules = (tmp_path / "root/etc/cofferdam/shut.nft").read_text()
    # The VLAN's parent serves this machine as well: it is not closed.
    assert '"eth1", "eth2"' in rules and '"eth0"' not in rules
    assert (tmp_path / "root/var/lib/cofferdam").stat().st_mode & 0o777 == 0o700


def test_what_is_so_already_is_not_written_again(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY % "")
    words = ("install", policy, "--root", tmp_path / "root", "--program", "/opt/c/bin/cofferdam")
    assert cli(*words)[1].count("wrote ") == 7
    unit = tmp_path / "root/etc/systemd/system/cofferdam.service"
    unit.write_text("somebody's own")
    said = cli(*words)[1]
    assert (said.count("wrote "), said.count("unchanged: ")) == (1, 6)
    assert "ExecStart=" in unit.read_text()


def test_units_of_an_earlier_release_go(tmp_path: Path) -> None:
    """The gate proves itself now: a timer that is left would do it twice. What others have written stays."""
    (tmp_path / "policy.yaml").write_text(POLICY % "")
    units = tmp_path / "root/etc/systemd/system"
    units.mkdir(parents=True)
    (units / "cofferdam-nightly.timer").write_text("# Written by `cofferdam install`. A night\n[Timer]\n")
    (units / "cofferdam-nightly.service").write_text("[Service]\n# mine\n")
    assert cli("install", tmp_path / "policy.yaml", "--root", tmp_path / "root", "--program", "/bin/true")[0] == 0
    assert not (units / "cofferdam-nightly.timer").exists()
    assert (units / "cofferdam-nightly.service").exists()


def test_print_writes_nothing(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY % "")
    code, out, _ = cli("install", policy, "--print", "--program", "/usr/bin/cofferdam", "--root", tmp_path / "root")
    assert code == 0
    assert "# --- /etc/systemd/system/cofferdam.service" in out
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("gate", "expected"),
    [("", "Before=network-pre.target"), ('management: "127.0.0.1:9464"', "Before=network-pre.target"),
     ('management: "192.0.2.1:9464"', "network-online.target")],
)  # fmt: skip
def test_the_gate_starts_before_the_network_unless_it_needs_it(tmp_path: Path, gate: str, expected: str) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY % gate)
    code, out, _ = cli("install", policy, "--print", "--json", "--program", "/usr/bin/cofferdam")
    assert code == 0
    files = json.loads(out)
    assert expected in files["/etc/systemd/system/cofferdam.service"]
    # In both cases the interfaces are closed before any network is configured, and the gate insists on it.
    assert "Before=network-pre.target" in files["/etc/systemd/system/cofferdam-shut.service"]
    assert "Requires=cofferdam-shut.service" in files["/etc/systemd/system/cofferdam.service"]
    assert "ExecStop=" not in files["/etc/systemd/system/cofferdam-shut.service"]


def test_the_gate_has_the_capabilities_of_its_launcher_and_no_other() -> None:
    found = re.search(r"^CapabilityBoundingSet=(.*)$", gate_unit(default()), re.MULTILINE)
    assert found is not None
    assert {name.removeprefix("CAP_").lower() for name in found[1].split()} == {*NEEDED, *USEFUL}


def test_a_path_that_a_unit_can_not_hold_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "policy.yaml").write_text(POLICY % "")
    code, _, err = cli("install", folder / "policy.yaml", "--print", "--program", "/usr/bin/cofferdam")
    assert code == 2
    assert "cannot stand in a unit" in err


@needs_systemd
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY % "")
    assert cli("install", policy, "--root", tmp_path, "--program", "/bin/true")[0] == 0
    names = ("cofferdam.service", "cofferdam-shut.service")
    units = [str(tmp_path / "etc/systemd/system" / name) for name in names]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, timeout=PATIENT, check=False
    )
    # Units of this machine may have faults of their own.
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "cofferdam" in line]
    assert not ours, ours


@needs_systemd
@pytest.mark.parametrize(("unit", "limit"), [("cofferdam", EXPOSURE), ("cofferdam-shut", 2.0)])
def test_exposure_is_what_the_docs_say(unit: str, limit: float) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(SHIPPED / f"{unit}.service")],
        capture_output=True, text=True, timeout=PATIENT, check=False,
    )  # fmt: skip
    found = re.search(r"Overall exposure level for .*: ([0-9.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    assert float(found[1]) <= limit
    assert f"{found[1]}" in (ROOT / "docs" / "install.md").read_text(encoding="utf-8")


@contextlib.contextmanager
def monitored(namespace: str) -> Iterator[list[str]]:
    """What the kernel tells of changes to the rules while the block runs, and nothing from before or after it: on each
    side a table is made and unmade until the monitor has told of it."""
    inside = ["ip", "netns", "exec", namespace, "nft"]
    lines: list[str] = []

    def marked(name: str) -> None:
        def told() -> bool:
            subprocess.run([*inside, f"add table inet {name}; delete table inet {name}"], check=True)
            return any(name in line for line in lines)

        eventually(told)
        # Each change is told with the generation that it made: when all that was asked for is there, so is the rest.
        subprocess.run([*inside, f"add table inet {name}-last; delete table inet {name}-last"], check=True)
        eventually(lambda: any(line.startswith(f"delete table inet {name}-last") for line in lines))
        number = next(at for at, line in enumerate(lines) if f"{name}-last" in line)
        eventually(lambda: any("# new generation" in line for line in lines[number:]))

    seen: list[str] = []
    with subprocess.Popen([*inside, "monitor"], stdout=subprocess.PIPE, text=True) as monitor:
        assert monitor.stdout is not None
        reader = threading.Thread(target=lambda: lines.extend(iter(monitor.stdout.readline, "")))  # type: ignore[union-attr]
        reader.start()
        try:
            marked("before")
            lines.clear()
            yield seen
            marked("after")
        finally:
            monitor.terminate()
            reader.join()
    seen += lines[: next(at for at, line in enumerate(lines) if "after" in line)]


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("nft") is None, reason="network namespaces need root and nft")
def test_the_firewall_unit_flushes_and_closes_in_one_transaction(tmp_path: Path) -> None:
    """The commands of the drop-in, as systemd splits them; the rules of the host are those that Debian ships."""
    host, shut = tmp_path / "nftables.conf", tmp_path / "shut.nft"
    host.write_text("#!/usr/sbin/nft -f\n\nflush ruleset\n\ntable inet filter {\n\tchain input {\n\t}\n}\n")
    shut.write_text(shut_rules(("shut0",)))
    setting = replace(default(), nft="nft", rules=str(shut), host_rules=str(host))
    lines = [line.partition("=") for line in firewall_dropin(setting).splitlines() if line.startswith("Exec")]
    commands = {name: shlex.split(value) for name, _, value in lines if value and not value.startswith("-")}
    namespace = f"cdt{os.getpid()}-{secrets.token_hex(2)}"

    def run(*words: str) -> str:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("ip", "netns", "add", namespace)
    try:
        for name, tables in (("ExecStart", 3), ("ExecReload", 3), ("ExecStop", 2), ("ExecStart", 3)):
            with monitored(namespace) as seen:
                run("ip", "netns", "exec", namespace, *commands[name])
            # Between the generations of the rules there is none without ours.
            assert "\n".join(seen).count("# new generation") == 1, seen
            shown = run("ip", "netns", "exec", namespace, "nft", "list", "tables")
            assert (shown.count(SHUT_TABLE), len(shown.splitlines())) == (2, tables), (name, shown)
    finally:
        run("ip", "netns", "del", namespace)


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("nft") is None, reason="network namespaces need root and nft")
def test_the_rules_close_an_interface_and_nothing_else(tmp_path: Path) -> None:
    tag = f"cdt{os.getpid()}-{secrets.token_hex(2)}"
    here, there = f"{tag}-a", f"{tag}-b"

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, capture_output=True, text=True, check=False)

    rules = tmp_path / "shut.nft"
    rules.write_text(shut_rules(("shut0",)))
    try:
        for name in (here, there):
            assert run("ip", "netns", "add", name).returncode == 0
        for number, name in enumerate(("shut0", "open0")):
            run("ip", "-n", here, "link", "add", name, "type", "veth", "peer", "name", f"peer{number}", "netns", there)
            for namespace, end, host in ((here, name, 1), (there, f"peer{number}", 2)):
                run("ip", "-n", namespace, "addr", "add", f"10.7.{number}.{host}/24", "dev", end)
                run("ip", "-n", namespace, "link", "set", end, "up")
        from tests.enforce.site import at

        def reached(number: int, seconds: float = PATIENT) -> bool:
            with at(here):
                listener = socket.create_server((f"10.7.{number}.1", 0))
            with at(there), socket.socket() as client:
                client.settimeout(seconds)
                port = listener.getsockname()[1]
                answer = client.connect_ex((f"10.7.{number}.1", port))
            listener.close()
            return answer == 0

        assert [reached(0), reached(1)] == [True, True]
        for _ in range(2):  # loading it again changes nothing
            done = run("ip", "netns", "exec", here, "nft", "-f", str(rules))
            assert done.returncode == 0, done.stderr
        assert [reached(0, 0.7), reached(1)] == [False, True]
        assert run("ip", "netns", "exec", here, "nft", "list", "tables").stdout.count(SHUT_TABLE) == 2
    finally:
        for name in (here, there):
            run("ip", "netns", "del", name)


def test_what_not_every_kernel_has_stops_no_unit() -> None:
    for unit in (shut_unit(default()), gate_unit(default())):
        loading = [line for line in unit.splitlines() if re.search(r"shut-(bridge|[0-9]+)\.nft", line)]
        assert loading and all("=-/usr/sbin/nft -f " in line for line in loading)
    assert "ExecStartPre=-/usr/sbin/nft -f /etc/cofferdam/shut-2.nft\n" in gate_unit(default())
    assert "ExecStopPost=-/usr/sbin/nft -f /etc/cofferdam/shut-2.nft\n" in gate_unit(default())


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("nft") is None, reason="network namespaces need root and nft")
@pytest.mark.parametrize("closed_by", ["bridge", "frames", "frames after a move"])
def test_frames_of_a_packet_socket_and_of_a_bridge_are_closed_in(closed_by: str, tmp_path: Path) -> None:
    """A frame that knows no IP goes out by a packet socket, and from wire to wire over the host's bridge; with the
    rules neither. Each part alone does what it is for."""
    tag = f"cdt{os.getpid()}-{secrets.token_hex(2)}"
    here, there, away = f"{tag}-a", f"{tag}-b", f"{tag}-c"
    kind = 0x88B5  # for experiments (IEEE 802)

    def run(*words: str) -> str:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    from tests.enforce.site import at

    def heard(sender: tuple[str, str], listener: str) -> bool:
        with at(there), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind)) as ear:
            ear.bind((listener, kind))
            ear.settimeout(0.5)
            with at(sender[0]), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as mouth:
                mouth.bind((sender[1], 0))
                with contextlib.suppress(OSError):  # a frame that is dropped on its way out may be an error
                    mouth.send(b"\xff" * 6 + b"\x02\0\0\0\0\x01" + kind.to_bytes(2, "big") + bytes(46))
            try:
                return bool(ear.recv(100))
            except TimeoutError:
                return False

    try:
        for name in (here, there, away):
            run("ip", "netns", "add", name)
        for number, name in enumerate(("shut0", "shut1")):
            run("ip", "-n", here, "link", "add", name, "type", "veth", "peer", "name", f"peer{number}", "netns", there)
            run("ip", "-n", there, "link", "set", f"peer{number}", "up")
        run("ip", "-n", here, "link", "add", "br0", "type", "bridge")

        def join() -> None:
            for name in ("br0", "shut0", "shut1"):
                run("ip", "-n", here, "link", "set", name, "up")
                if name != "br0":
                    run("ip", "-n", here, "link", "set", name, "master", "br0")

        join()
        # The road is open without rules, once the links are up and the bridge has taken note of it.
        eventually(lambda: heard((here, "shut0"), "peer0") and heard((there, "peer0"), "peer1"))
        (tmp_path / "bridge").write_text(shut_bridge_rules(("shut0", "shut1")))
        for number, name in enumerate(("shut0", "shut1"), 1):
            (tmp_path / name).write_text(shut_frame_rules(name, number))
        loaded = ["bridge"] if closed_by == "bridge" else ["shut0", "shut1"]

        def load() -> None:
            for file in loaded:
                run("ip", "netns", "exec", here, "nft", "-f", str(tmp_path / file))

        load()
        load()
        if closed_by == "frames after a move":
            for name in ("shut0", "shut1"):
                run("ip", "-n", here, "link", "set", name, "netns", away)
                run("ip", "-n", away, "link", "set", name, "up")
                # In the gate's namespace they are not closed.
                eventually(lambda name=name: heard((away, name), f"peer{name[-1]}"))  # type: ignore[misc]
                with at(away):
                    home = os.open(f"/run/netns/{here}", os.O_RDONLY)
                    run("ip", "link", "set", name, "netns", f"/proc/{os.getpid()}/fd/{home}")
                    os.close(home)
            load()
            join()
        assert not heard((there, "peer0"), "peer1"), "a bridge carries nothing from wire to wire"
        if closed_by == "bridge":
            eventually(lambda: heard((here, "shut0"), "peer0"))
        else:
            assert not heard((here, "shut0"), "peer0"), "a packet socket sends nothing"
    finally:
        for name in (here, there, away):
            run("ip", "netns", "del", name)


def test_groups_stand_in_the_unit_and_must_be_there(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY % "separation: namespaces")
    words = ("install", policy, "--print", "--json", "--program", "/usr/bin/cofferdam")
    code, out, err = cli(*words, "--look", "games", "--sever", "users")
    assert code == 0, err
    unit = json.loads(out)["/etc/systemd/system/cofferdam.service"]
    assert "--state /var/lib/cofferdam --look games --sever users\n" in unit
    code, out, err = cli(*words, "--look", "")
    assert code == 0 and "--look" not in out, err
    code, _, err = cli(*words, "--sever", "nobodys-group")
    assert code == 2 and "there is no group 'nobodys-group'" in err


@pytest.mark.skipif(os.geteuid() != 0, reason="a root of its own needs root")
def test_purging_the_package_removes_what_install_wrote_and_keeps_the_rest(tmp_path: Path) -> None:
    """The package's own script, in a root that has this machine's programs and nothing else."""
    root = tmp_path / "root"
    policy = root / "etc/cofferdam/policy.yaml"
    for folder in ("usr", "dev", "etc/cofferdam", "var/lib/cofferdam/audit"):
        (root / folder).mkdir(parents=True)
    for folder in ("bin", "sbin", "lib", "lib64"):
        (root / folder).symlink_to(f"usr/{folder}")
    policy.write_text(POLICY % "")
    assert cli("install", policy, "--root", root, "--program", "/usr/bin/cofferdam")[0] == 0
    wants = root / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir()
    (wants / "cofferdam.service").symlink_to("/etc/systemd/system/cofferdam.service")
    (wants / "other.service").symlink_to("/etc/systemd/system/other.service")
    shutil.copy("packaging/deb/postrm", root / "postrm")
    script = f"mount --bind /usr {root}/usr && mount --bind /dev {root}/dev && exec chroot {root} sh /postrm purge"
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=True)
    assert "kept: /var/lib/cofferdam" in done.stdout
    left = {str(path.relative_to(root)) for top in ("etc", "var") for path in (root / top).rglob("*")}
    assert {path for path in left if not (root / path).is_dir() or (root / path).is_symlink()} == {
        "etc/cofferdam/policy.yaml", "etc/systemd/system/multi-user.target.wants/other.service",
    }  # fmt: skip
    assert "var/lib/cofferdam/audit" in left and "etc/systemd/system/nftables.service.d" not in left
