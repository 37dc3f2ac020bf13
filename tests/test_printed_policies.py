"""Every policy that a page prints loads as it stands there, with what the page leaves to its reader filled in."""

from __future__ import annotations

import re
import textwrap
import time
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cofferdam.brokers.patch import trustkeys
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import load

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^( *)```yaml\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
FOUND = [
    pytest.param(page, textwrap.dedent(text), id=f"{page.stem}-{number}")
    for page in PAGES
    for number, (_, text) in enumerate(BLOCK.findall(page.read_text("utf-8")))
    if re.search(r"^ *conduits:$", text, re.MULTILINE)
]
LEFT_OUT = {
    "site": "site: works\n",
    "zones": "zones: {enterprise: {side: it}, control: {side: ot}}\n",
    "principals": "principals: {scada: {zone: enterprise, addresses: [10.1.0.21]}, "
    "operators: {zone: enterprise, addresses: 10.1.5.0/24}}\n",
    "assets": """assets:
  plc-7:
    {zone: control, address: 10.20.0.17, protocol: modbus, overlay: 10.99.7.17,
     points: {pump_speed: {at: holding 200, type: uint16}}}
""",
}
"""What a page about one service leaves out, since the page on the policy has it."""
NEEDED = {"principals": ("who:",), "assets": ("asset: plc-7, read",), "zones": ("from: enterprise", "to: control")}
"""By what a block shows that it leaves such a section out, and not that it has none."""
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGaIk8CHWWgzRbV2ae1TFe1ebTGx0/B/78J+oMQxVuQq"
BESIDE = re.compile(r"[a-z][\w-]*\.(?:json|asc|pub)\b")


def test_the_pages_on_services_print_a_policy() -> None:
    assert {str(param.id).rpartition("-")[0] for param in FOUND} >= {
        "README", "diode", "jump", "mirror", "patch", "policy", "protocol-enip", "protocol-opcua", "relay-http",
    }  # fmt: skip


def root() -> str:
    """What `cofferdam patch root new` writes."""
    keys = [Ed25519PrivateKey.generate().public_key() for _ in range(4)]
    alice, bob, safe = [
        trustkeys.person_key(key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode(), name)
        for key, name in zip(keys, ("alice", "bob", "safe-1"), strict=False)
    ]
    gate = trustkeys.SSlibKey.from_crypto(keys[3])
    made = trustkeys.make_root([alice, bob], [safe], gate, signatures=2, root_signatures=1)
    return trustkeys.encode(made).decode()


@pytest.mark.parametrize(("page", "text"), FOUND)
def test_it_loads(page: Path, text: str, tmp_path: Path) -> None:
    said = yaml.safe_load(text)
    missing = [name for name in LEFT_OUT if name not in said]
    whole = "".join(LEFT_OUT[name] for name in missing if any(word in text for word in NEEDED.get(name, ("",))))
    (tmp_path / "policy.yaml").write_text(whole + text.replace("ssh-ed25519 AAAA...", HOST_KEY))
    for name in BESIDE.findall(text):
        content = '{"type": "object"}' if name.endswith(".json") else "to be filled in\n"
        (tmp_path / name).write_text(root() if name == "patch-root.json" else content)
    found = compile_policy(load(tmp_path / "policy.yaml"), now_ns=time.time_ns())
    assert list(found.conduits) == list(said["conduits"])
