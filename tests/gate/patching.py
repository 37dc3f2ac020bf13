"""A plant with a patch relay: a vendor, approvers, an asset with SFTP, and a gate started as a user starts it."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.brokers.patch.makers import Gpg, Sshd, run, ssh_key
from tests.gate.plant import Gate, QuickGate
from tests.ports import held_ports
from tests.verbs import cli
from tests.waiting import PATIENT, eventually

POLICY = """
site: works
zones:
  office: {{side: it, level: 4}}
  plant: {{side: ot, level: 2}}
principals:
  stage: {{zone: office, addresses: [127.0.0.1]}}
  panel: {{zone: plant, addresses: [127.0.0.1]}}
conduits:
  firmware:
    from: office
    to: plant
    broker: patch
    owner: maintenance
    reason: vendor updates
    root: root.json
    listen:
      office: {{at: "127.0.0.1:{office}", plain: true}}
      plant: {{at: "127.0.0.1:{plant}", plain: true}}
    products:
      plc-firmware: {{origin: {{pgp: vendor.asc}}, most: 20 MB, scan: {scan}}}
      advisories: {{origin: {{pgp: vendor.asc}}, scan: none, kind: advisories, provider: "https://vendor.example"}}
{products}
{sources}
    inventory:
      plc-1: {{vendor: Vendor, product: [PLC 9, "6ES7-9"], version: "2.9.4"}}
      plc-2: {{vendor: Vendor, product: PLC 9, version: "3.1"}}
      panel: {{vendor: Maker, product: Panel, version: "7 SP1"}}
    rings: [test, line]
    ways:
      plc-1:
        address: 127.0.0.1
        rate: 10 MB
        sftp: {{port: {sftp}, user: {user}, host_key: "{host_key}", path: "{files}/{{file}}"}}
      plc-2:
        address: 127.0.0.1
        rate: 10 MB
        sftp: {{port: {sftp}, user: {user}, host_key: "{host_key}", path: "{files}/two/{{file}}", secret: plc-1}}
      panel: {{address: 127.0.0.1, pull: panel}}
{ways}
    allow:
      - {{who: stage, put: plc-firmware}}
      - {{asset: plc-1, install: plc-firmware, ring: test{more}}}
      - {{asset: plc-2, install: plc-firmware, ring: line{more}}}
      - {{asset: panel, install: [{panel}], ring: line}}
{rules}
gate: {{separation: processes, management: "127.0.0.1:{management}"}}
"""
ME = pwd.getpwuid(os.getuid()).pw_name
"""By whom the gate sees what a test asks."""
APPROVERS = ("alice", "bob", "carol")


class Works:
    """The plant, and its command line."""

    def __init__(self, folder: Path, *, scan: str = "none", clamd: Path | None = None, more: str = "",
                 products: str = "", sources: str = "", rules: str = "", panel: str = "plc-firmware", ways: str = "",
                 options: tuple[str, ...] = (), files: dict[str, bytes] | None = None,
                 prepare: Callable[[Works], None] | None = None, gate: type[Gate] = QuickGate) -> None:  # fmt: skip
        self.folder = folder
        folder.mkdir(exist_ok=True)
        for name, data in (files or {}).items():
            (folder / name).write_bytes(data)
        self.state = folder / "state"
        self.office, self.plant, self.management = held_ports(3)
        self.vendor = Gpg(folder / "vendor")
        (folder / "vendor.asc").write_bytes(self.vendor.public())
        self.keys = {name: ssh_key(folder, name) for name in (*APPROVERS, "h1", "h2", "machine")}
        self.sshd = Sshd(folder / "plc", self.keys["machine"].with_suffix(".pub"))
        (self.sshd.files / "two").mkdir()
        self.policy = folder / "policy.yaml"
        self.scan, self.more, self.panel = scan, more, panel
        self.products, self.sources, self.rules, self.ways = products, sources, rules, ways
        self.write_policy()
        self.root = folder / "root.json"
        self.keys[ME] = ssh_key(folder, "own")
        people = {name: self.keys[name] for name in (*APPROVERS, ME)}
        words = [word for name in people for word in ("--approver", f"{name}={people[name]}.pub")]
        words += [word for name in ("h1", "h2") for word in ("--holder", f"{name}={self.keys[name]}.pub")]
        self.patch("root", "new", str(self.policy), *words, "--out", str(self.root))
        for name in ("h1", "h2"):
            self.patch("root", "sign", str(self.root), "--key", str(self.keys[name]))
        self.patch("credential", "plc-1", "--policy", str(self.policy), "--key", str(self.keys["machine"]))
        if prepare is not None:
            prepare(self)
        sockets = ["--socket", f"clamd={clamd}"] if clamd is not None else []
        self.gate = gate(self.state, self.policy, *sockets, *options)
        self.gate.wait_ready()

    def write_policy(self) -> None:
        self.policy.write_text(
            POLICY.format(
                office=self.office,
                plant=self.plant,
                management=self.management,
                sftp=self.sshd.port,
                user=ME,
                host_key=self.sshd.host_key,
                files=self.sshd.files,
                scan=self.scan,
                more=self.more,
                panel=self.panel,
                products=self.products,
                sources=self.sources,
                rules=self.rules,
                ways=self.ways.format(sftp=self.sshd.port, user=ME, host_key=self.sshd.host_key, files=self.sshd.files),
            )
        )

    def patch(self, *words: str, code: int = 0, state: bool = True) -> str:
        """`cofferdam patch ...`."""
        found, said, complained = cli("patch", *words, "--state", self.state)
        assert found == code, complained + said + self.log()
        return said if code == 0 else complained + said

    def told(self, *words: str) -> Any:
        return json.loads(self.patch(*words, "--json"))

    def put(
        self, name: str, data: bytes, version: str, signature: bytes | None = None, product: str = "plc-firmware"
    ) -> int:
        file = self.folder / name
        file.write_bytes(data)
        sig = self.folder / f"{name}.asc"
        sig.write_bytes(self.vendor.sign(data) if signature is None else signature)
        found = self.told("put", str(file), "--product", product, "--version", version, "--signature", str(sig))
        return int(found["number"])

    def state_of(self, number: int) -> str:
        return str(self.told("show", str(number))["state"])

    def examined(self, number: int) -> dict[str, Any]:
        eventually(lambda: self.state_of(number) not in ("examining", "waiting"))
        return dict(self.told("show", str(number)))

    def approve(self, number: int, who: str, code: int = 0) -> str:
        return self.patch("approve", str(number), "--key", str(self.keys[who]), "--yes", code=code)

    def release(self, name: str, data: bytes, version: str, *who: str, product: str = "plc-firmware") -> int:
        number = self.put(name, data, version, product=product)
        found = self.examined(number)
        assert found["state"] == "passed", found
        self.patch("request", str(number))
        for each in who or ("alice", "bob"):
            self.approve(number, each)
        return number

    def asset(self, name: str) -> dict[str, Any]:
        return next(dict(row) for row in self.told("plan")["assets"] if row["asset"] == name)

    def becomes(self, name: str, state: str) -> None:
        """Waits until an asset stands there; where it does not come to that, the error says where it stands."""
        try:
            eventually(lambda: self.asset(name)["state"] == state)
        except AssertionError as error:
            error.add_note(f"{self.asset(name)}\n{self.log()}")
            raise

    def log(self) -> str:
        return self.gate.said()[-4000:] if hasattr(self, "gate") else ""

    def close(self) -> None:
        self.gate.close()
        self.sshd.stop()
        self.vendor.close()


__all__ = ["PATIENT", "Works", "run"]
