"""A jump server in a gate that was started as a user starts it, a real sshd behind it, and real clients before it."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pyotp

from cofferdam.gate.client import ask
from tests.gate.plant import Gate, QuickGate
from tests.ports import held_ports
from tests.verbs import cli
from tests.waiting import PATIENT, eventually

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
ELSEWHERE, FARTHER, FARTHEST = "127.0.0.7", "127.0.0.8", "127.0.0.9"
"""People may come from there as well: for a test that wants its address's first entry, which says why."""
ADDRESSES = f"127.0.0.1, {ELSEWHERE}, {FARTHER}, {FARTHEST}"
THERE = bool(shutil.which("ssh")) and Path(SSHD).exists()
KEY = bytes(range(32))
"""By which a keeper's store is sealed, where no gate makes one."""
POLICY = """
site: works
zones:
  office: {{side: it, level: 4}}
  plant: {{side: ot, level: 2}}
assets:
  station: {{zone: plant, address: 127.0.0.1, port: {station}, protocol: ssh}}
  second: {{zone: plant, address: 127.0.0.1, port: {second}, protocol: ssh}}
  {assets}
principals:
  people: {{zone: office, addresses: [{addresses}]}}
  {principals}
conduits:
  free:
    from: office
    to: plant
    broker: jump
    owner: maintenance
    reason: own people
    listen: "127.0.0.1:{door}"
    clients: people
    notice: Authorised people only. What you do is recorded.
    sessions: 20
    {free}
    allow:
      - {{who: {{group: staff}}, asset: station, as: {login}, do: [shell, exec, up, down], commands: {commands},
          paths: ["{files}/**"]}}
      {rules}
  vendor-helps:
    from: office
    to: plant
    broker: jump
    owner: maintenance
    reason: contract 4711
    listen: "127.0.0.1:{door}"
    clients: people
    approval: {{by: leads, window: 4 h}}
    allow:
      - {{who: {{group: vendors}}, asset: [station, second], as: {login}, do: [shell, exec], commands: {commands}}}
      {vendors}
  guests-come:
    from: office
    to: plant
    broker: jump
    owner: maintenance
    reason: somebody sits beside them
    listen: "127.0.0.1:{door}"
    clients: people
    names: [localhost]
    approval: {{by: leads, watched: true, signed: true}}
    allow:
      - {{who: {{group: guests}}, asset: station, as: {login}, do: [shell, exec], commands: {commands}}}
  desks-lock:
    from: office
    to: plant
    broker: jump
    owner: maintenance
    reason: desks that stand in the open
    listen: "127.0.0.1:{door}"
    clients: people
    lock: 15 s
    allow:
      - {{who: {{group: desks}}, asset: station, as: {login}, do: shell}}
  {conduits}
gate: {{separation: processes}}
limits: {{audit_wait_seconds: 60}}
"""
ASKPASS = """#!/bin/sh
case "$1" in *assword*) echo "$TEST_PASSWORD";; *ode*) echo "$TEST_CODE";; *) echo yes;; esac
"""


class Sshd:
    """A real sshd, as an asset, for the user who runs the tests."""

    def __init__(
        self, folder: Path, port: int, address: str = "127.0.0.1", namespace: str = "", kind: str = "ed25519"
    ) -> None:
        folder.mkdir()
        self.folder, self.port = folder, port
        self._within = ["ip", "netns", "exec", namespace] if namespace else []
        self.host_key = folder / "host_key"
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(self.host_key)], check=True)
        self.authorized = folder / "authorized_keys"
        self.authorized.write_text("")
        (folder / "config").write_text(
            f"Port {port}\nListenAddress {address}\nHostKey {self.host_key}\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {self.authorized}\nStrictModes no\nPermitRootLogin yes\nMaxStartups 100\n"
            "PasswordAuthentication no\nSubsystem sftp internal-sftp\n"
            f"SetEnv HOME={folder}\n"  # the shell's start is the test's, not that of whoever runs it
        )
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        self.start()

    def start(self) -> None:
        command = [*self._within, SSHD, "-D", "-e", "-f", str(self.folder / "config")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)
        eventually(lambda: "listening" in (self.folder / "log").read_text())

    def authorize(self, line: str) -> None:
        with self.authorized.open("a") as file:
            file.write(line + "\n")

    @property
    def public_key(self) -> str:
        return self.host_key.with_suffix(".pub").read_text()

    def close(self) -> None:
        self.process.kill()
        self.process.wait(PATIENT)


TELNETD = Path("/usr/sbin/telnetd")
LOGIN = """#!/bin/sh
printf 'works of the plant\\n%s login: ' "$TERM"; read -r name
stty -echo; printf 'Password: '; read -r word; stty echo; echo
if [ "$name $word" = "operator geheim" ]; then echo "Last failed login: never"; exec /bin/sh; fi
echo "Login incorrect"; printf 'login: '; read -r again; exec /bin/sh
"""


class Telnetd:
    """A real telnetd of inetutils, as an asset, started for each connection as inetd does."""

    def __init__(self, folder: Path, port: int) -> None:
        folder.mkdir()
        script = folder / "login"
        script.write_text(LOGIN)
        script.chmod(0o755)
        self._sock = socket.create_server(("127.0.0.1", port))
        self._command = [str(TELNETD), "-h", "-E", str(script)]
        self._children: list[subprocess.Popen[bytes]] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._sock.accept()
                with sock:
                    fd = sock.fileno()
                    child = subprocess.Popen(self._command, stdin=fd, stdout=fd, stderr=subprocess.DEVNULL)
                    self._children.append(child)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self._thread.join(PATIENT)
        for child in self._children:
            child.kill()
            child.wait(PATIENT)


class JumpSite:
    """Gate, asset, people."""

    def __init__(
        self, folder: Path, options: tuple[str, ...] = (), *, gate: type[Gate] = QuickGate, **words: str
    ) -> None:
        """`options`: for `cofferdam up`; `words`: for the policy; `gate`: how it is started."""
        self.folder = folder
        self.state = folder / "state"
        self.login = getpass.getuser() if os.geteuid() else pwd.getpwuid(0).pw_name
        self.files = folder / "files"
        self.files.mkdir()
        self.door, station, second = held_ports(3)
        self.ports = {"door": self.door, "station": station, "second": second}
        self.words = {
            **dict.fromkeys(("free", "rules", "assets", "principals", "vendors", "conduits"), ""),
            "commands": '["echo *", "cat", "head *", "sleep *", "exit 3", "id"]',
        } | words  # fmt: skip
        self.policy = folder / "policy.yaml"
        self.write_policy()
        self.askpass = folder / "askpass"
        self.askpass.write_text(ASKPASS)
        self.askpass.chmod(0o755)
        self.codes: dict[str, str] = {}
        self.station = Sshd(folder / "station", station)
        self.gate = gate(self.state, self.policy, *options)
        self.known_hosts = folder / "known_hosts"

    def write_policy(self, **words: str) -> None:
        self.words |= words
        said = {"files": self.files, "login": self.login, "addresses": ADDRESSES, **self.ports, **self.words}
        for word in ("rules", "conduits"):
            text = str(said[word]).replace("LOGIN", self.login).replace("FILES", str(self.files))
            said[word] = text.replace("DOOR", str(self.door))
        self.policy.write_text(POLICY.format(**said))

    def set_up(self) -> None:
        """The station is known, and people are there: tech (staff), vendor (vendors), lead (leads)."""
        self.gate.wait_ready()
        plain = [line for line in self.jump("known-hosts").splitlines() if not line.startswith("@")]
        self.known_hosts.write_text("\n".join(plain) + "\n")
        for name, group in (("tech", "staff"), ("vendor", "vendors"), ("lead", "leads")):
            self.person(name, group)
        made = json.loads(self.jump("credential", "station", self.login, "--new-key", "--json"))
        self.station.authorize(made["public_key"])
        key = self.folder / "station.pub"
        key.write_text(self.station.public_key)
        self.jump("host-key", "station", "--file", str(key), "--yes")

    def person(self, name: str, *groups: str) -> None:
        """Somebody with a key and a code generator."""
        key = self.folder / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        self.jump("person", "add", name, *(word for group in groups for word in ("--group", group)))
        self.jump("factor", "key", name, f"{key}.pub")

    def code(self, name: str) -> str:
        """A code that has not been used: of a new generator each time, since one counts once in 30 s. It is the next
        one, which counts for a minute at least: a client on a busy machine may take longer than half of that."""
        return pyotp.TOTP(self.ask("code-new", person=name)["secret"]).at(int(time.time()) + 30)

    def jump(self, *words: str, code: int = 0) -> str:
        """`cofferdam jump ...`."""
        found, said, complained = cli("jump", *words, "--state", self.state)
        assert found == code, complained + said
        return said if code == 0 else complained + said

    def ask(self, verb: str, **arguments: object) -> Any:
        """What `cofferdam jump` asks of the keeper, without building the whole command line first: for what tests ask
        again and again."""
        (answer,) = ask(self.state, "ask-part", broker="jump", part="keeper", verb=verb, arguments=arguments, crew="")
        assert "error" not in answer, answer
        return answer["result"]

    # --- clients ----------------------------------------------------------------------------------------------------

    def options(self, name: str, key: str | None = None) -> list[str]:
        said = {
            "UserKnownHostsFile": str(self.known_hosts), "IdentitiesOnly": "yes", "StrictHostKeyChecking": "yes",
            "NumberOfPasswordPrompts": "1", "LogLevel": "ERROR", "HostKeyAlgorithms": "ssh-ed25519",
        }  # fmt: skip
        found = ["-F", "none", "-i", str(self.folder / (key or name))]
        for option, value in said.items():
            found += ["-o", f"{option}={value}"]
        return found

    def environment(self, name: str, code: str | None = None, password: str = "") -> dict[str, str]:
        return {
            **os.environ, "SSH_ASKPASS": str(self.askpass), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":none",
            "TEST_CODE": self.code(name) if code is None else code, "TEST_PASSWORD": password,
        }  # fmt: skip

    def ssh(
        self, name: str, user: str, *words: str, key: str | None = None, code: str | None = None,
        more: tuple[str, ...] = (), stdin: bytes = b"", password: str = "",
    ) -> subprocess.CompletedProcess[bytes]:  # fmt: skip
        """`ssh USER@gate WORDS`, by somebody's key and a code."""
        command = ["ssh", *self.options(name, key), *more, "-p", str(self.door), f"{user}@127.0.0.1", *words]
        return subprocess.run(
            command, input=stdin, capture_output=True, env=self.environment(name, code, password), timeout=PATIENT,
            check=False,
        )  # fmt: skip

    def start(self, name: str, user: str, *words: str, more: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        """The same, and it goes on."""
        command = ["ssh", *self.options(name), *more, "-p", str(self.door), f"{user}@127.0.0.1", *words]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=self.environment(name),
        )  # fmt: skip

    async def client(self, user: str, source: str = "127.0.0.1") -> asyncssh.SSHClientConnection:
        """A client of asyncssh, signed in by tech's key and a code."""
        code = await asyncio.to_thread(self.code, "tech")

        class Typist(asyncssh.SSHClient):
            def kbdint_auth_requested(self) -> str:
                return ""

            def kbdint_challenge_received(self, *_: Any) -> list[str]:
                return [code]

        connection, _ = await asyncssh.create_connection(
            Typist, "127.0.0.1", self.door, username=user, client_keys=[str(self.folder / "tech")], known_hosts=None,
            config=None, agent_path=None, local_addr=(source, 0),
        )  # fmt: skip
        return connection

    def sessions(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("sessions")
        return found

    def begins(self, name: str, user: str, *words: str, more: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        """`start`, and the session that it wants is there: another one may still be ending."""
        known = {one["number"] for one in self.sessions()}
        process = self.start(name, user, *words, more=more)
        eventually(lambda: [one for one in self.sessions() if one["person"] == name and one["number"] not in known])
        return process

    def newest(self) -> dict[str, Any]:
        """The newest recording, once it is whole: a client may have gone before it is."""
        found: list[dict[str, Any]] = []

        def whole() -> bool:
            found[:] = json.loads(self.jump("recording", "list", "--json"))[:1]
            return bool(found) and not found[0]["live"]

        eventually(whole)
        return found[0]

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Set up, in use, and ended as it should, with nothing of a fault in what it said."""
        try:
            self.set_up()
            yield
            assert self.gate.stop() == 0, self.gate.said()
            assert "Traceback" not in self.gate.said()
        finally:
            self.close()

    def close(self) -> None:
        self.station.close()
        self.gate.close()


def ends(process: subprocess.Popen[bytes]) -> bytes:
    """All that it still says, once it has ended by itself."""
    assert process.stdout is not None
    with process:
        said = process.stdout.read()
        process.wait(PATIENT)
    return said


def reads_until(process: subprocess.Popen[bytes], word: bytes) -> bytes:
    """What it says up to a word."""
    assert process.stdout is not None
    said, until = b"", time.monotonic() + PATIENT
    os.set_blocking(process.stdout.fileno(), False)
    while word not in said:
        assert time.monotonic() < until, said
        piece = process.stdout.read()
        if piece:
            said += piece
        else:
            assert process.poll() is None, said
            time.sleep(0.01)
    os.set_blocking(process.stdout.fileno(), True)
    return said


def stops(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENT)
