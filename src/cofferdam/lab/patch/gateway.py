"""A gateway of embedded Linux: Debian's own swupdate, which polls the gate for images as hawkBit has it (DDI), believes
those that its maker has signed, and installs them. And its maker.

It cannot be told from which address to call, and addresses tell who is who here: so it calls through a door at its own.

Not here: who may bring images (the gate).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import os
import shutil
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from cofferdam.lab.patch import events
from cofferdam.lab.scene import tie_to

NAME: Final = "filler-gateway"
FILE: Final = "gateway.swu"
PROGRAM: Final = "swupdate"
PIECE: Final = 1 << 16
BOARD: Final = "board:1.0"
VALID: Final = timedelta(days=30)


def is_there() -> bool:
    """Whether this machine has the program."""
    return shutil.which(PROGRAM) is not None


def cpio(*files: tuple[str, bytes]) -> bytes:
    """The archive format "crc" of cpio, which SWUpdate takes."""
    made = b""
    for number, (name, data) in enumerate((*files, ("TRAILER!!!", b"")), 1):
        fields = (number, 0o100644, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, sum(data) & 0xFFFFFFFF)
        head = b"070702" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        made += head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)
    return made + b"\0" * (-len(made) % 512)


class Maker:
    """Who makes the gateway, and signs what it is to believe."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(65537, 2048)
        name, now = x509.Name.from_rfc4514_string("CN=the gateway's maker"), datetime.now(UTC)
        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign",
             "encipher_only", "decipher_only"), False,
        )  # fmt: skip
        self._certificate = (
            x509.CertificateBuilder(name, name, self._key.public_key(), x509.random_serial_number())
            .not_valid_before(now - VALID)
            .not_valid_after(now + VALID)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(digital_signature=True, key_cert_sign=True, **usage), critical=True)
            .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
            .sign(self._key, SHA256())
        )

    @property
    def certificate(self) -> bytes:
        """What a gateway believes."""
        return self._certificate.public_bytes(Encoding.PEM)

    def image(self, version: str, payload: bytes, target: Path) -> bytes:
        """One that puts this there."""
        said = (
            f'software = {{ version = "{version}"; hardware-compatibility = ["1.0"]; files: ( {{ filename = "app";'
            f' path = "{target}"; sha256 = "{hashlib.sha256(payload).hexdigest()}"; }} ); }}\n'
        ).encode()
        options = (pkcs7.PKCS7Options.DetachedSignature, pkcs7.PKCS7Options.Binary, pkcs7.PKCS7Options.NoCapabilities)
        builder = pkcs7.PKCS7SignatureBuilder().set_data(said).add_signer(self._certificate, self._key, SHA256())
        signature = builder.sign(Encoding.DER, options)
        return cpio(("sw-description", said), ("sw-description.sig", signature), ("app", payload))


async def _through(
    source: str, gate: tuple[str, int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """What swupdate says, from this gateway's own address."""
    there, back = await asyncio.open_connection(*gate, local_addr=(source, 0))

    async def copy(taken: asyncio.StreamReader, given: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await taken.read(PIECE):
                given.write(data)
                await given.drain()
            given.write_eof()

    await asyncio.gather(copy(reader, back), copy(there, writer))
    for each in (writer, back):
        each.close()


async def serve(folder: Path, address: str, gate: str, sink: events.Sink) -> None:
    """Until it is ended. `folder` has its key for the gate (`key`) and its maker's certificate (`maker.pem`)."""
    host, _, port = gate.rpartition(":")
    door = await asyncio.start_server(functools.partial(_through, address, (host, int(port))), address, 0)
    (folder / "hwrevision").write_text("board 1.0\n")
    config = folder / "swupdate.cfg"
    config.write_text('globals : { verbose = true; };\nidentify : ( { name = "lab"; value = "yes"; } );\n')
    number = door.sockets[0].getsockname()[1]
    asks = f"-t DEFAULT -u http://{address}:{number} -i {NAME} -g {(folder / 'key').read_text().strip()}"
    argv = (PROGRAM, "-f", str(config), "-H", BOARD, "-k", str(folder / "maker.pem"), "-u", asks)
    with (folder / "swupdate.log").open("wb") as log:
        device = await asyncio.create_subprocess_exec(
            *argv, stdout=log, stderr=log, cwd=folder, preexec_fn=tie_to(os.getpid())
        )
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, device.terminate)
    sink(events.Listening(address, number))
    await device.wait()
