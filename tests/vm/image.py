"""The virtual machine's disk: a stock Debian 12 with its own kernel, systemd, and the locked dependencies.

Built once and kept in a folder that git does not see; made anew when what it is made from changes. The project's own
code is not in it: each machine gets that when it boots. Needs root and mmdebstrap; packages come from where this
machine's apt has Debian from.

Not here: starting a machine (machine).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SUITE = "bookworm"
PACKAGES = (
    "systemd-sysv", "udev", "dbus", "kmod", "nftables", "iproute2", "iputils-ping", "procps", "python3", "python3-venv",
    "wireguard-tools", "libcap2-bin", "zstd",
)  # fmt: skip
"""Besides the kernel and what every Debian has."""
DISK = "4G"
RECIPE = 1
"""To be counted up when what this module does changes in a way that the disk shows."""
NICS = {
    "mgmt0": "52:54:00:0c:fd:01", "away0": "52:54:00:0c:fd:02",
    "it0": "52:54:00:0c:fd:11", "office0": "52:54:00:0c:fd:12",
    "ot0": "52:54:00:0c:fd:21", "plant0": "52:54:00:0c:fd:22",
}  # fmt: skip
"""The machine's network cards: its own, the gate's two, and those of the hosts that it plays besides."""

AGENT_UNIT = """\
[Unit]
Description=Runs what the checks ask for
DefaultDependencies=no
After=local-fs.target systemd-udevd.service
Conflicts=shutdown.target
Before=shutdown.target

[Service]
ExecStart=/usr/bin/python3 /usr/local/sbin/vm-agent
Restart=always
RestartSec=1

[Install]
WantedBy=sysinit.target
"""
PROGRAM = """\
#!/opt/venv/bin/python
import sys
from cofferdam.cli.main import main
sys.exit(main())
"""

SLOW = 3600.0
"""Seconds for making a Debian, on a machine where much else runs."""
PRIVATE = ("unshare", "--mount", "--propagation", "private")
"""What a build mounts is seen by the build alone, and is gone with it, also when it is interrupted."""


class ImageError(Exception):
    """The disk cannot be built; the message says what to do."""


@dataclass(frozen=True)
class Image:
    """A disk (raw), with the kernel and the first file system outside of it. `machine`: its processor, as in uname."""

    disk: Path
    kernel: Path
    initrd: Path
    machine: str


@dataclass(frozen=True)
class Kind:
    """What is built. `machine` is as in uname, `architecture` and `kernel` are Debian's names."""

    machine: str
    architecture: str
    kernel: str


KIND = Kind("x86_64", "amd64", "linux-image-amd64")


def run(*words: str | Path, stdin: str = "", timeout: float = 900) -> str:
    """A program's output. Raises: ImageError."""
    command = [str(word) for word in words]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise ImageError(f"{' '.join(command[:4])} ... failed with code {done.returncode}:\n{last}")
    return done.stdout


def ready(cache: Path, kind: Kind, *, anew: bool = False) -> Image:
    """The image, built if it is not there or made from something else. Raises: ImageError."""
    home = cache / kind.machine
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{kind.machine}.lock").open("w") as lock:  # one of several runs builds, the others wait
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _ready(home, kind, anew=anew)


def _ready(home: Path, kind: Kind, *, anew: bool) -> Image:
    image = Image(home / "disk.img", home / "vmlinuz", home / "initrd.img", kind.machine)
    stamp, wanted = home / "made-from", _made_from(kind)
    if not anew and stamp.exists() and stamp.read_text() == wanted:
        return image
    needs = ("mmdebstrap", "mke2fs")
    lacking = [name for name in needs if not shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")]
    if lacking:
        raise ImageError(f"missing: {', '.join(lacking)}; as root: packaging/debian-packages.sh vm")
    if os.geteuid() != 0:
        raise ImageError("building the machine's disk needs root, for mmdebstrap and chroot: sudo make vm")
    print(f"building a Debian {SUITE} for {kind.machine} in {home}: about three minutes ...", flush=True)
    remove(home)
    home.mkdir(parents=True)
    tree = home / "tree"
    _wheels(home / "wheels", kind)
    _debian(tree, kind)
    try:
        _furnish(tree, home / "wheels")
        for name, at in (("vmlinuz", image.kernel), ("initrd.img", image.initrd)):
            shutil.copyfile(next((tree / "boot").glob(f"{name}-*")), at)
        run("mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", tree, image.disk, DISK)
    finally:
        for folder in (tree, home / "wheels"):
            remove(folder)
    stamp.write_text(wanted)
    return image


def remove(folder: Path) -> None:
    """Takes a folder away, and never what is mounted in it. Raises: ImageError, if something is."""
    if not folder.exists():
        return
    at = f"{folder.resolve()}/"
    mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    inside = [point for point in mounted if f"{point}/".startswith(at)]
    if inside:
        raise ImageError(f"something is mounted in {folder}: {inside[0]}; unmount it, then run this again")
    run("rm", "-rf", "--one-file-system", "--", folder)


def _made_from(kind: Kind) -> str:
    parts = [repr((RECIPE, SUITE, PACKAGES, kind, NICS, DISK, AGENT_UNIT, PROGRAM))]
    parts += [path.read_text() for path in (HERE / "agent.py", ROOT / "requirements.lock")]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _wheels(to: Path, kind: Kind) -> None:
    """The locked dependencies, as the machine's Python takes them."""
    to.mkdir()
    listed = to / "requirements.lock"
    shutil.copyfile(ROOT / "requirements.lock", listed)
    platforms = [f"--platform=manylinux_2_{minor}_{kind.machine}" for minor in range(5, 37)]
    platforms += [f"--platform=manylinux{year}_{kind.machine}" for year in ("1", "2010", "2014")]
    run(
        sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--require-hashes", "--only-binary=:all:",
        "--implementation=cp", "--python-version=3.11", *platforms, "-r", listed, "-d", to,
    )  # fmt: skip


def _sources() -> list[str]:
    """Where this machine's apt has Debian from."""
    try:
        said = run(
            "apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages", "Origin: Debian"
        )
    except (ImageError, FileNotFoundError):
        said = ""
    found = sorted({tuple(line.split()) for line in said.splitlines()})
    # The release that the machine gets is not always this machine's.
    lines = {f"deb {uri} {SUITE}{'-security' if 'security' in release else ''} main" for uri, release in found}
    if not any(f" {SUITE} " in line for line in lines):
        raise ImageError("apt has no source of Debian packages here: `apt-get update` as root, on a Debian system")
    return sorted(lines)


def _debian(tree: Path, kind: Kind) -> None:
    packages = ",".join((kind.kernel, *PACKAGES))
    words = [
        "--variant=minbase",
        "--dpkgopt=force-unsafe-io",
        f"--include={packages}",
        f"--architectures={kind.architecture}",
        SUITE,
        str(tree),
    ]
    run(*PRIVATE, "mmdebstrap", "--quiet", *words, "-", stdin="\n".join(_sources()) + "\n", timeout=SLOW)


def _furnish(tree: Path, wheels: Path) -> None:
    """What makes it a machine for checks: names of cards, the virtual environment, the agent."""

    def write(name: str, text: str, mode: int = 0o644) -> None:
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    for name, mac in NICS.items():
        write(f"etc/systemd/network/10-{name}.link", f"[Match]\nMACAddress={mac}\n\n[Link]\nName={name}\n")
    write("etc/fstab", "LABEL=root / ext4 defaults 0 1\n")
    write("etc/hostname", "gate\n")
    write("etc/hosts", "127.0.0.1 localhost gate\n::1 localhost\n")
    write("usr/local/sbin/vm-agent", (HERE / "agent.py").read_text(), 0o755)
    write("etc/systemd/system/vm-agent.service", AGENT_UNIT)
    write("etc/systemd/journald.conf.d/vm.conf", "[Journal]\nStorage=persistent\n")
    (tree / "opt/wheels").mkdir()
    for wheel in wheels.iterdir():
        shutil.copyfile(wheel, tree / "opt/wheels" / wheel.name)
    inside: Sequence[Sequence[str]] = (
        ("python3", "-m", "venv", "/opt/venv"),
        ("/opt/venv/bin/python", "-m", "pip", "install", "-q", "--no-index", "--find-links=/opt/wheels",
         "--require-hashes", "-r", "/opt/wheels/requirements.lock"),
        ("systemctl", "enable", "-q", "vm-agent", "systemd-networkd"),
        ("update-initramfs", "-u"),
    )  # fmt: skip
    script = 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'  # pip asks /proc
    for words in inside:
        run(*PRIVATE, "sh", "-c", script, tree, *words, timeout=SLOW)
    remove(tree / "opt/wheels")
    write("opt/venv/bin/cofferdam", PROGRAM, 0o755)
    write("opt/venv/lib/python3.11/site-packages/cofferdam.pth", "/opt/cofferdam/src\n")
