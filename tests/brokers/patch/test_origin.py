"""Proofs of origin against what real makers sign: gpg, osslsigncode, minisign."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from cofferdam.brokers.kit.supervision import DoJob, JobResult
from cofferdam.brokers.patch.origin import NotProved, Pins, prove
from cofferdam.brokers.patch.reports import Order, Report
from cofferdam.crossing.framing import PACKET, Assembler, pack
from cofferdam.crossing.link import RECORD_BYTES
from cofferdam.crossing.pipe import make_pipe
from cofferdam.crossing.records import RecordCodec
from tests.brokers.patch.makers import Gpg, Publisher, a_program, run
from tests.brokers.patch.sigstore_maker import IDENTITY, ISSUER, Instance
from tests.waiting import PATIENT, readable

OSSLSIGNCODE = pytest.mark.skipif(shutil.which("osslsigncode") is None, reason="osslsigncode is not installed")
MINISIGN = pytest.mark.skipif(shutil.which("minisign") is None, reason="minisign is not installed")


# --- OpenPGP ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gpg]:
    made = Gpg(tmp_path_factory.mktemp("gpg") / "vendor")
    yield made
    made.close()


def test_a_vendor_signs_by_gpg(vendor: Gpg, tmp_path: Path) -> None:
    file = tmp_path / "fw"
    file.write_bytes(b"firmware")
    found = prove("pgp", file, vendor.sign(b"firmware"), Pins([vendor.public()]))
    assert "Vendor" in found.detail
    assert len(found.facts["certificate"]) == 40


@pytest.mark.parametrize(
    ("what", "says"),
    [("changed", "does not hold"), ("other", "does not hold"), ("nothing", "no OpenPGP"), ("empty", "no OpenPGP"),
     ("expired", "expired"), ("revoked", "revoked"), ("sha1", "does not hold"), ("not-a-key", "cannot be read")],
)  # fmt: skip
def test_what_gpg_did_not_sign_is_refused(vendor: Gpg, tmp_path: Path, what: str, says: str) -> None:
    file = tmp_path / "fw"
    file.write_bytes(b"firmware" if what != "changed" else b"firmwarf")
    signature, keys = vendor.sign(b"firmware"), [vendor.public()]
    if what == "other":
        other = Gpg(tmp_path / "other", name="Other <o@example>")
        signature = other.sign(b"firmware")
        other.close()
    elif what == "nothing":
        signature = b"no signature"
    elif what == "empty":
        signature = b""
    elif what == "expired":
        old = Gpg(tmp_path / "old", "--faked-system-time", "20200101T000000!", name="Old <o@example>")
        signature, keys = old.sign(b"firmware", "--faked-system-time", "20200201T000000!"), [old.public()]
        old.close()
    elif what == "revoked":
        gone = Gpg(tmp_path / "gone", name="Gone <g@example>")
        signature = gone.sign(b"firmware")
        gone.revoke()
        keys = [gone.public()]
        gone.close()
    elif what == "sha1":
        signature = vendor.sign(b"firmware", "--digest-algo", "SHA1", "--allow-weak-digest-algos")
    elif what == "not-a-key":
        keys = [b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n"]
    with pytest.raises(NotProved, match=says):
        prove("pgp", file, signature, Pins(keys))


@pytest.mark.parametrize("data", [b"\x7fELF\none\ntwo\n", b"\x7fELF\r\none\r\ntwo\r\n"], ids=["as signed", "other"])
def test_a_signature_that_holds_whatever_ends_the_lines_is_one_of_lists_alone(
    vendor: Gpg, tmp_path: Path, data: bytes
) -> None:
    """Who is on the way could make another file of it, which has the vendor's signature as well."""
    file, pins = tmp_path / "fw", Pins([vendor.public()])
    file.write_bytes(data)
    signature = vendor.sign(b"\x7fELF\none\ntwo\n", "--textmode")
    with pytest.raises(NotProved, match="is over a text"):
        prove("pgp", file, signature, pins)
    assert "Vendor" in prove("pgp", file, signature, pins, lines=True).detail


# --- Authenticode -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    return Publisher(tmp_path_factory.mktemp("pki") / "vendor")


@OSSLSIGNCODE
def test_a_publisher_signs_a_program(publisher: Publisher, tmp_path: Path) -> None:
    signed = publisher.sign(a_program(tmp_path), tmp_path / "signed.exe")
    found = prove("authenticode", signed, b"", Pins([publisher.ca.read_bytes()], "Vendor Ltd"))
    assert found.facts["publisher"] == "Vendor Ltd"


def examined(store: Path, order: Order) -> Report:
    """By an examiner of its own, under its filter."""
    (told, tell), (hear, said) = make_pipe(), make_pipe()
    command = ["-m", "cofferdam.brokers.job", "--name", "test", "--kind", "patch", "--job", "examiner",
               "--control-in", str(told), "--control-out", str(said)]  # fmt: skip
    with subprocess.Popen([sys.executable, "-I", *command], pass_fds=(told, said)) as process:
        for fd in (told, said):
            os.close(fd)
        for packet in pack([RecordCodec(DoJob).encode(DoJob(msgspec.json.encode(order), {"keeper": str(store)}))]):
            os.write(tell, packet)
        assembler, found = Assembler(RECORD_BYTES), list[bytes]()
        while not found and readable([hear], PATIENT) and (packet := os.read(hear, PACKET)):
            found += assembler.feed(packet)
    for fd in (tell, hear):
        os.close(fd)
    answers: RecordCodec[JobResult] = RecordCodec(JobResult, limit=RECORD_BYTES)
    answer = answers.decode(found[0])
    assert process.returncode == 0
    return msgspec.json.decode(answer.result, type=Report)


@OSSLSIGNCODE
def test_an_examiner_under_its_filter_has_loaded_what_its_order_needs(publisher: Publisher, tmp_path: Path) -> None:
    publisher.sign(a_program(tmp_path), tmp_path / "signed.exe")
    (tmp_path / "ca").write_bytes(publisher.ca.read_bytes())
    report = examined(tmp_path, Order("signed.exe", "authenticode", ("ca",), "Vendor Ltd"))
    assert (report.refused, report.facts["publisher"]) == ("", "Vendor Ltd")


def test_an_examiner_reads_a_sigstore_bundle(tmp_path: Path) -> None:
    instance = Instance(tmp_path / "sigstore")
    for name, data in (("fw", b"firmware"), ("trust", json.dumps(instance.trust_root()).encode()),
                       ("bundle", json.dumps(instance.bundle(b"firmware", second=True)).encode())):  # fmt: skip
        (tmp_path / name).write_bytes(data)
    order = Order("fw", "sigstore", ("trust",), signature="bundle", identity=IDENTITY, issuer=ISSUER)
    report = examined(tmp_path, order)
    assert (report.refused, report.facts["identity"]) == ("", IDENTITY)


@OSSLSIGNCODE
@pytest.mark.parametrize(
    ("what", "says"),
    [("unsigned", "no Authenticode"), ("changed", "does not hold"), ("appended", "data behind the signature"),
     ("padded", "padding"), ("other-ca", "does not lead"), ("publisher", "publisher is"), ("usage", "not for signing"),
     ("sha1", "weak hash"), ("nested", "several|nobody signed"), ("blob", "nobody signed"), ("text", "no PE")],
)  # fmt: skip
def test_a_program_that_is_not_the_publishers(publisher: Publisher, tmp_path: Path, what: str, says: str) -> None:
    program, name, ca = a_program(tmp_path), "Vendor Ltd", publisher.ca
    file = tmp_path / "signed.exe"
    if what == "usage":
        publisher = Publisher(tmp_path / "mail", usage="emailProtection")
        ca = publisher.ca
    if what == "other-ca":
        ca = Publisher(tmp_path / "other").ca
    more = ("-h", "sha1") if what == "sha1" else ("-addUnauthenticatedBlob",) if what == "blob" else ()
    if what == "unsigned":
        shutil.copy(program, file)
    elif what == "text":
        file.write_bytes(b"no program")
    else:
        publisher.sign(program, file, *more)
    if what == "nested":
        file = publisher.sign(file, tmp_path / "nested.exe", "-nest")
    data = bytearray(file.read_bytes())
    if what == "changed":
        data[len(data) // 3] ^= 1
    elif what == "appended":
        data += b"x" * 16
    elif what == "padded":
        data = padded(data)
    elif what == "publisher":
        name = "Somebody Else"
    file.write_bytes(data)
    with pytest.raises(NotProved, match=says):
        prove("authenticode", file, b"", Pins([ca.read_bytes()], name))


def padded(data: bytearray) -> bytearray:
    """A payload in the padding of the table of signatures, which no hash covers."""
    header = int.from_bytes(data[0x3C:0x40], "little")
    wide = int.from_bytes(data[header + 24 : header + 26], "little") == 0x20B
    entry = header + 24 + (112 if wide else 96) + 4 * 8
    start = int.from_bytes(data[entry : entry + 4], "little")
    size = int.from_bytes(data[entry + 4 : entry + 8], "little")
    payload = b"payload!" * 8
    data[entry + 4 : entry + 8] = (size + len(payload)).to_bytes(4, "little")
    length = int.from_bytes(data[start : start + 4], "little")
    data[start : start + 4] = (length + len(payload)).to_bytes(4, "little")
    return data + payload


# --- minisign ---------------------------------------------------------------------------------------------------------


@MINISIGN
@pytest.mark.parametrize(
    ("what", "says"), [("", ""), ("changed", "does not hold"), ("comment", "does not hold"), ("other", "none of")]
)  # fmt: skip
def test_minisign(tmp_path: Path, what: str, says: str) -> None:
    for name in ("one", "two"):
        run("minisign", "-G", "-W", "-p", tmp_path / f"{name}.pub", "-s", tmp_path / f"{name}.key")
    file = tmp_path / "fw"
    file.write_bytes(b"firmware")
    run("minisign", "-S", "-H", "-s", tmp_path / "one.key", "-m", file, "-t", "version 1", "-x", tmp_path / "sig")
    signature = (tmp_path / "sig").read_bytes()
    if what == "changed":
        file.write_bytes(b"firmwarf")
    elif what == "comment":
        signature = signature.replace(b"version 1", b"version 2")
    key = (tmp_path / ("two.pub" if what == "other" else "one.pub")).read_bytes()
    if not what:
        assert prove("minisign", file, signature, Pins([key])).facts["comment"] == "version 1"
        return
    with pytest.raises(NotProved, match=says):
        prove("minisign", file, signature, Pins([key]))
