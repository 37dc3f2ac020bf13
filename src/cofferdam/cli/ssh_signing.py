"""A person signs with their own OpenSSH key: `ssh-keygen -Y sign`, on the machine where that key is.

Not here: what is signed (each verb), checking it (brokers.kit.sshsig).
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from cofferdam.brokers.kit.sshsig import APPROVAL
from cofferdam.errors import GateError


def ssh_sign(key: Path, message: bytes) -> bytes:
    """A signature for an approval by `ssh-keygen`, which asks for passphrase or touch, in its armour.

    Raises:
        GateError: it makes none.
    """
    with tempfile.TemporaryDirectory(prefix="cofferdam-") as folder:
        text = Path(folder) / "text"
        text.write_bytes(message)
        command = ["ssh-keygen", "-q", "-Y", "sign", "-n", APPROVAL, "-f", str(key), str(text)]
        try:
            done = subprocess.run(command, capture_output=True, check=False)
        except FileNotFoundError:
            raise GateError("ssh-keygen is not here", hint="it is in OpenSSH's client (openssh-client)") from None
        made = text.with_suffix(".sig")
        if done.returncode or not made.is_file():
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise GateError(f"ssh-keygen does not sign with {key}: {said[-1] if said else done.returncode}")
        return made.read_bytes()
