"""Authenticode of installer packages, cabinets and catalogues, time stamps, and exports of WSUS: made and signed by
wixl, gcab and osslsigncode, which has the last word on each that is taken."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cofferdam.brokers.patch import wsus_bundle
from cofferdam.brokers.patch.origin import NotProved, Pins, prove
from tests.brokers.patch.makers import HAS_PUBLISHERS, Gpg, Publisher, a_cabinet, a_package, a_program, run

pytestmark = pytest.mark.skipif(not HAS_PUBLISHERS, reason="osslsigncode, wixl and gcab are not all installed")
CAT = bytes.fromhex("2b0601040182370a01")


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    return Publisher(tmp_path_factory.mktemp("pki") / "vendor")


def der(tag: int, *parts: bytes) -> bytes:
    data = b"".join(parts)
    head = bytes([tag, len(data)]) if len(data) < 0x80 else bytes([tag, 0x82]) + len(data).to_bytes(2, "big")
    return head + data


def a_catalogue(folder: Path) -> Path:
    """An unsigned one, of one entry that nobody looks at."""
    content = der(0x30, der(0x30, der(6, CAT)), der(4, b"fw"))
    signed = der(0x30, der(2, b"\1"), der(0x31), der(0x30, der(6, CAT), der(0xA0, content)), der(0x31))
    file = folder / "fw.cat"
    file.write_bytes(der(0x30, der(6, bytes.fromhex("2a864886f70d010702")), der(0xA0, signed)))
    return file


MAKE: dict[str, Callable[[Path], Path]] = {
    "MSI": lambda folder: a_package(folder, b"payload" * 9000),
    "CAB": lambda folder: a_cabinet(folder, b"payload" * 9000),
    "CAT": a_catalogue,
    "PE": a_program,
}


def signed(publisher: Publisher, kind: str, folder: Path, *more: str) -> Path:
    how = (*more, "-add-msi-dse") if kind == "MSI" and "-bare" not in more else more
    return publisher.sign(MAKE[kind](folder), folder / "signed", *(word for word in how if word != "-bare"))


def refused(file: Path, publisher: Publisher, says: str, name: str = "") -> None:
    with pytest.raises(NotProved, match=says):
        prove("authenticode", file, b"", Pins([publisher.ca.read_bytes()], name))


@pytest.mark.parametrize("kind", list(MAKE))
def test_what_a_publisher_signs_is_taken(publisher: Publisher, tmp_path: Path, kind: str) -> None:
    file = signed(publisher, kind, tmp_path)
    assert publisher.holds(file)
    found = prove("authenticode", file, b"", Pins([publisher.ca.read_bytes()], "Vendor Ltd"))
    assert (found.detail, found.facts["stamped"]) == (f"Authenticode of {kind}, Vendor Ltd", "no")
    refused(file, publisher, "publisher is", "Somebody Else")
    refused(file, Publisher(tmp_path / "other"), "does not lead")
    if kind != "CAT":
        refused(MAKE[kind](tmp_path), publisher, "no Authenticode")


@pytest.mark.parametrize("kind", ["PE", "MSI", "CAB", "CAT"])
def test_no_changed_byte_is_taken(publisher: Publisher, tmp_path: Path, kind: str) -> None:
    """Every so many bytes; what is taken all the same has to be good for osslsigncode as well."""
    file, keys = signed(publisher, kind, tmp_path), [publisher.ca.read_bytes()]
    data, wrong = file.read_bytes(), tmp_path / "wrong"
    for at in [*range(0, 1024, 13), *range(1024, len(data), len(data) // 150)]:
        changed = bytearray(data)
        changed[at] ^= 0x41
        wrong.write_bytes(changed)
        try:
            prove("authenticode", wrong, b"", Pins(keys))
        except NotProved:
            continue
        # What nobody reads: slack of sectors, free ones, names of the format's own.
        assert publisher.holds(wrong), f"{kind}, byte {at}"


RSA, SHA256_OID = bytes.fromhex("2a864886f70d010101"), bytes.fromhex("608648016503040201")


def last(data: bytes, old: bytes, new: bytes) -> bytes:
    before, found, after = data.rpartition(old)
    assert found
    return before + new + after


def entries_at(data: bytes) -> int:
    """Where the directory begins, of which the first sector is enough."""
    return 512 * (int.from_bytes(data[48:52], "little") + 1)


def turned_round(data: bytes) -> bytes:
    """What is right of an entry is left of it: all are there, and who searches finds no more."""
    at = entries_at(data) + 128 + 68
    return data[:at] + data[at + 4 : at + 8] + data[at : at + 4] + data[at + 8 :]


def beside(data: bytes) -> bytes:
    """A stream that is in no storage: the entries that nothing is in, as there are at the end of the directory."""
    at = data.rindex(b"\0" * 68 + b"\xff" * 12)
    return data[:at] + data[entries_at(data) + 128 :][:68] + data[at + 68 :]


@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [
        ("MSI", lambda data: data + b"PK\3\4" + b"x" * 508, "data behind the package"),
        ("MSI", lambda data: data + b"x", "does not end with a sector"),
        ("MSI", lambda data: data[: len(data) // 1024 * 512], "."),
        ("MSI", lambda data: data.replace("Root Entry".encode("utf-16-le"), "Root\0Entry".encode("utf-16-le")), "name"),
        ("CAB", lambda data: data + b"x" * 8, "data behind the signature"),
        ("CAB", lambda data: data[:4] + b"evil" + data[8:], "reserved words"),
        ("CAB", lambda data: data[:34] + b"\1" + data[35:], "a cabinet of a set"),
        ("CAB", lambda data: data[:30] + b"\6" + data[31:], "a cabinet of a set"),
        ("CAB", lambda data: data[:52] + b"evil" + data[56:], "reserved words"),
        ("CAB", lambda data: data[:30] + b"\0" + data[31:], "no Authenticode"),
        ("CAB", lambda data: data[:70], "cut off|behind"),
        ("CAT", lambda data: data + b"x", "something behind"),
        ("CAT", lambda data: last(data, RSA + b"\5\0", RSA + b"\4\0"), "beside an algorithm's name"),
        ("CAT", lambda data: last(data, SHA256_OID + b"\5\0", SHA256_OID + b"\4\0"), "beside an algorithm's name"),
        ("CAT", lambda data: data.replace(b"\2\1\1\x31", b"\2\1\1\xa1", 1), "no 0x31"),
        ("MSI", lambda data: data[:10] + b"x" + data[11:], "of a kind that there is not"),
        ("MSI", lambda data: data[:36] + b"x" + data[37:], "of a kind that there is not"),
        ("MSI", lambda data: data[:40] + b"\1" + data[41:], "of a kind that there is not"),
        ("MSI", lambda data: data[:64] + b"\2" + data[65:], "table of sectors is damaged"),
        ("MSI", lambda data: turned_round(data), "not in order"),
        ("MSI", lambda data: beside(data), "an entry that is in no storage"),
        ("CAT", lambda data: data.replace(b"\xa0\3\2\1\2", b"\xa0\3\2\1\3"), "cannot be read"),
        ("CAT", lambda data: data.replace(b"\4\2fw", b"\4\2fx"), "another file"),
    ],
)  # fmt: skip
def test_what_was_changed_is_refused(
    publisher: Publisher, tmp_path: Path, kind: str, change: Callable[[bytes], bytes], says: str
) -> None:
    file = signed(publisher, kind, tmp_path)
    file.write_bytes(change(file.read_bytes()))
    refused(file, publisher, says)


@pytest.mark.parametrize(
    ("kind", "more", "says"),
    [
        ("MSI", ("-bare",), "names in the package are not"),
        ("MSI", ("-h", "sha1"), "weak hash"),
        ("CAB", ("-h", "sha1"), "weak hash"),
        ("CAB", ("-addUnauthenticatedBlob",), "nobody signed|padding"),
        ("PE", ("-addUnauthenticatedBlob",), "nobody signed"),
    ],
)  # fmt: skip
def test_what_is_signed_otherwise_is_refused(
    publisher: Publisher, tmp_path: Path, kind: str, more: tuple[str, ...], says: str
) -> None:
    refused(signed(publisher, kind, tmp_path, *more), publisher, says)


@pytest.mark.parametrize(
    ("word", "at"), [("directory", 48), ("table of small streams", 60), ("tables", 44), ("tables of tables", 72)]
)
def test_a_package_whose_tables_fill_it_takes_no_memory(
    publisher: Publisher, tmp_path: Path, word: str, at: int
) -> None:
    """A chain through all of a large file; so many tables as there are sectors."""
    count = (64 << 20) // 4096
    fats = -(-count // 1024)
    head = bytearray(4096)
    head[:8] = bytes.fromhex("d0cf11e0a1b11ae1")
    struct.pack_into("<HHHHH", head, 24, 62, 4, 0xFFFE, 12, 6)
    struct.pack_into("<8I", head, 44, fats, fats, 0, 4096, 0xFFFFFFFE, 0, 0xFFFFFFFE, 0)
    struct.pack_into("<109I", head, 76, *range(fats), *[0xFFFFFFFF] * (109 - fats))
    entries = "Root Entry\0".encode("utf-16-le").ljust(64, b"\0") + b"\x16\0\5\1" + b"\xff" * 12
    chain = [*[0xFFFFFFFD] * fats, 0xFFFFFFFE if word == "table of small streams" else fats + 1]
    chain += [*range(fats + 2, count), 0xFFFFFFFE]
    if at in (48, 60):
        struct.pack_into("<I", head, at, fats if at == 48 else fats + 1)
    else:
        struct.pack_into("<I", head, at, 1 << 30)
    file = tmp_path / "large.msi"
    with file.open("wb") as opened:
        opened.write(head + struct.pack(f"<{count}I", *chain[:count]).ljust(fats * 4096, b"\xff") + entries)
        opened.truncate((count + 1) * 4096)
    tracemalloc.start()
    try:
        refused(file, publisher, "more than|larger than it can need")
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()


def test_nothing_hides_behind_the_header_of_large_sectors(publisher: Publisher, tmp_path: Path) -> None:
    head = bytearray(4096 * 3)
    head[:8] = bytes.fromhex("d0cf11e0a1b11ae1")
    struct.pack_into("<HHHHH", head, 24, 62, 4, 0xFFFE, 12, 6)
    head[600] = 1
    file = tmp_path / "fw.msi"
    file.write_bytes(head)
    refused(file, publisher, "behind the header")


@pytest.mark.parametrize("names", ["3004a3023000", "3006a504a1020c00"])
def test_a_certificate_with_names_that_cannot_be_read_is_refused(
    publisher: Publisher, tmp_path: Path, names: str
) -> None:
    key, certificate, out = tmp_path / "key", tmp_path / "certificate", tmp_path / "out.cab"
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-subj",
        "/CN=Vendor Ltd", "-addext", f"2.5.29.17=DER:{names}")  # fmt: skip
    run("osslsigncode", "sign", "-certs", certificate, "-key", key, "-h", "sha256", "-in", a_cabinet(tmp_path, b"x"),
        "-out", out)  # fmt: skip
    refused(out, publisher, "cannot be read")


def test_a_stream_that_is_called_otherwise_is_refused(publisher: Publisher, tmp_path: Path) -> None:
    """Without MsiDigitalSignatureEx nobody would notice."""
    file = signed(publisher, "MSI", tmp_path)
    data = file.read_bytes()
    name = "\x05SummaryInformation".encode("utf-16-le")
    assert data.count(name) == 1
    file.write_bytes(data.replace(name, "\x05SummaryInformatiom".encode("utf-16-le")))
    refused(file, publisher, "names in the package were changed")


def test_a_program_whose_parts_are_in_its_table_of_signatures(publisher: Publisher, tmp_path: Path) -> None:
    """A lying header: what would be loaded is what nobody signed."""
    file = signed(publisher, "PE", tmp_path)
    data = bytearray(file.read_bytes())
    header = int.from_bytes(data[0x3C:0x40], "little")
    optional = int.from_bytes(data[header + 20 : header + 22], "little")
    section = header + 24 + optional
    data[section + 16 : section + 20] = len(data).to_bytes(4, "little")
    file.write_bytes(data)
    refused(file, publisher, "parts of the program|does not hold")
    for at in (header, header + 24, 0x3C):
        lying = bytearray(data)
        lying[at : at + 4] = b"\xff\xff\xff\x7f"
        file.write_bytes(lying)
        refused(file, publisher, "cannot be read")


# --- time stamps ------------------------------------------------------------------------------------------------------


class Authority:
    """Certificates of any dates."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        folder.mkdir()
        self.key = rsa.generate_private_key(65537, 2048)
        self.ca = self._issue("ca", self.key, self.name, None, datetime(2015, 1, 1, tzinfo=UTC))

    def _issue(
        self, file: str, key: rsa.RSAPrivateKey, name: x509.Name, usage: x509.ObjectIdentifier | None,
        since: datetime, until: datetime = datetime(2099, 1, 1, tzinfo=UTC),
    ) -> Path:  # fmt: skip
        made = (
            x509.CertificateBuilder().subject_name(name).issuer_name(self.name).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(since).not_valid_after(until)
            .add_extension(x509.BasicConstraints(ca=usage is None, path_length=None), critical=True)
        )  # fmt: skip
        if usage is not None:
            made = made.add_extension(x509.ExtendedKeyUsage([usage]), critical=True)
        path = self.folder / f"{file}.pem"
        path.write_bytes(made.sign(self.key, SHA256()).public_bytes(Encoding.PEM))
        path.with_suffix(".key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return path

    def issue(self, name: str, usage: x509.ObjectIdentifier, since: int, until: int) -> Path:
        key = rsa.generate_private_key(65537, 2048)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        dates = datetime(since, 1, 1, tzinfo=UTC), datetime(until, 1, 1, tzinfo=UTC)
        return self._issue(name, key, subject, usage, *dates)


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, Authority]:
    folder = tmp_path_factory.mktemp("stamps")
    return Authority(folder / "vendors", "Vendor CA"), Authority(folder / "stamps", "Stamp CA")


@pytest.mark.parametrize(
    ("usage", "at", "says"),
    [
        (ExtendedKeyUsageOID.TIME_STAMPING, 2021, ""),
        (ExtendedKeyUsageOID.TIME_STAMPING, 2023, "not at its time stamp"),
        (ExtendedKeyUsageOID.TIME_STAMPING, 2017, "authority's certificate did not hold"),
        (ExtendedKeyUsageOID.TIME_STAMPING, 0, "no time stamp counts"),
    ],
)  # fmt: skip
def test_a_time_stamp_outlives_the_signers_certificate(
    authorities: tuple[Authority, Authority], tmp_path: Path, usage: x509.ObjectIdentifier, at: int, says: str
) -> None:
    """Its certificate held from 2020 to 2022, its authority's of time stamps from 2018 on."""
    vendors, stamps = authorities
    signer = vendors.issue("vendor", ExtendedKeyUsageOID.CODE_SIGNING, 2020, 2022)
    stamper = stamps.issue("stamper", usage, 2018, 2098)
    time = str(int(datetime(at or 2021, 6, 1, tzinfo=UTC).timestamp()))
    more = ("-TSA-certs", stamper, "-TSA-key", stamper.with_suffix(".key"), "-TSA-time", time) if at else ()
    for kind in ("CAB", "PE") if at == 2021 else ("CAB",):
        file = tmp_path / "signed"
        file.unlink(missing_ok=True)
        run("osslsigncode", "sign", "-certs", signer, "-key", signer.with_suffix(".key"), "-h", "sha256", *more,
            "-in", MAKE[kind](tmp_path), "-out", file)  # fmt: skip
        pins = Pins([vendors.ca.read_bytes()], "vendor", [stamps.ca.read_bytes()])
        if not says:
            assert prove("authenticode", file, b"", pins).facts["stamped"] == "2021-06-01T00:00:00Z"
            with pytest.raises(NotProved, match="not now, and no time stamp counts"):
                prove("authenticode", file, b"", Pins(pins.keys))
            with pytest.raises(NotProved, match="not pinned"):
                prove("authenticode", file, b"", Pins(pins.keys, "", [vendors.ca.read_bytes()]))
            continue
        with pytest.raises(NotProved, match=says):
            prove("authenticode", file, b"", pins)


# --- exports of WSUS --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exporter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gpg]:
    made = Gpg(tmp_path_factory.mktemp("gpg") / "exporter", name="Exporter <stage@works.example>")
    yield made
    made.close()


def sha1(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest().upper()


def at(data: bytes, ending: str) -> str:
    """Where WSUS lays a file."""
    return f"WsusContent/{sha1(data)[-2:]}/{sha1(data)}.{ending}"


def export(*files: tuple[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size, info.type = len(data), kind
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


METADATA = ("export.xml.gz", gzip.compress(b"<ExportPackage/>" * 100))


@pytest.fixture(scope="module")
def updates(publisher: Publisher, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    found = {}
    for kind, ending in (("CAB", "cab"), ("PE", "exe"), ("MSI", "msi")):
        found[ending] = signed(publisher, kind, tmp_path_factory.mktemp(ending)).read_bytes()
    return found


def proved(exporter: Gpg, publisher: Publisher, folder: Path, data: bytes) -> dict[str, str]:
    file = folder / "wsus.tar"
    file.write_bytes(data)
    pins = Pins([publisher.ca.read_bytes()], "Vendor Ltd")
    return wsus_bundle.prove(file, exporter.sign(data), [exporter.public()], pins).facts


def test_an_export_of_wsus(exporter: Gpg, publisher: Publisher, updates: dict[str, bytes], tmp_path: Path) -> None:
    licence = "Licence terms\r\n".encode("utf-16")
    files = [(at(data, ending), data) for ending, data in updates.items()]
    data = export(METADATA, *files, (at(licence, "txt"), licence))
    facts = proved(exporter, publisher, tmp_path, data)
    assert (facts["updates"], facts["texts"], facts["publishers"]) == ("3", "1", "Vendor Ltd")
    assert hashlib.sha256(METADATA[1]).hexdigest() in facts["metadata"]
    shown = [(name, b"".join(pieces)) for name, pieces in wsus_bundle.contents(tmp_path / "wsus.tar")]
    assert [name for name, _ in shown] == ["export.xml.gz", *(name.rpartition("/")[2] for name, _ in files),
                                           at(licence, "txt").rpartition("/")[2]]  # fmt: skip
    assert shown[1][1] == updates["cab"]
    # The same by Windows's own tar, which begins names with a dot and has the folders.
    windows = tmp_path / "windows"
    for name, content in [METADATA, *files]:
        (windows / name).parent.mkdir(parents=True, exist_ok=True)
        (windows / name).write_bytes(content)
    run("tar", "-C", windows, "-cf", tmp_path / "other.tar", ".")
    assert proved(exporter, publisher, tmp_path, (tmp_path / "other.tar").read_bytes())["updates"] == "3"


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("unsigned", "no Authenticode"), ("misnamed", "another SHA-1"), ("express", "no PE, MSI, CAB or CAT"),
        ("no-text", "called a text"), ("bare", "without updates"), ("no-metadata", "without metadata"),
        ("twice", "a name twice"), ("two-metadata", "where an export has"), ("out", "where an export has"),
        ("link", "a link"), ("other-publisher", "publisher is"),
        ("unsigned-export", "none of the pinned|does not hold"),
    ],
)  # fmt: skip
def test_an_export_that_is_refused(
    exporter: Gpg, publisher: Publisher, updates: dict[str, bytes], tmp_path: Path, what: str, says: str
) -> None:
    cab = updates["cab"]
    good = (at(cab, "cab"), cab)
    files = [METADATA, good]
    kind = tarfile.REGTYPE
    if what == "unsigned":
        plain = a_cabinet(tmp_path, b"x").read_bytes()
        files.append((at(plain, "cab"), plain))
    elif what == "misnamed":
        files.append((at(b"another", "cab"), cab))
    elif what == "express":
        files.append((at(b"PSTREAM", "psf"), b"PSTREAM"))
    elif what == "no-text":
        files.append((at(b"MZ\0\1", "txt"), b"MZ\0\1"))
    elif what == "bare":
        files.remove(good)
    elif what == "no-metadata":
        files.remove(METADATA)
    elif what == "twice":
        files.append((good[0].lower().replace("wsuscontent", "WsusContent"), cab))
    elif what == "two-metadata":
        files.append(("other.xml.gz", METADATA[1]))
    elif what == "out":
        files.append(("../WsusContent/psexec.exe", updates["exe"]))
    elif what == "link":
        kind = tarfile.SYMTYPE
    data = export(*files, kind=kind)
    if what == "unsigned-export":
        other = Gpg(tmp_path / "other", name="Other <o@example>")
        try:
            with pytest.raises(NotProved, match=says):
                wsus_file = tmp_path / "wsus.tar"
                wsus_file.write_bytes(data)
                pins = Pins([publisher.ca.read_bytes()])
                wsus_bundle.prove(wsus_file, other.sign(data), [exporter.public()], pins)
        finally:
            other.close()
        return
    ca = publisher
    if what == "other-publisher":
        ca = Publisher(tmp_path / "else", name="Else Ltd")
        theirs = signed(ca, "CAB", tmp_path).read_bytes()
        data = export(METADATA, (at(theirs, "cab"), theirs))
    with pytest.raises(NotProved, match=says):
        proved(exporter, ca, tmp_path, data)
