"""Revocation lists: whose count, what they end, and what is wanted where there has to be one."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from cofferdam.errors import GateError
from cofferdam.protocols.base import Established
from cofferdam.protocols.opcua.channel import Fault
from cofferdam.protocols.opcua.machine import OpcUaClient, OpcUaServer
from cofferdam.protocols.opcua.security import POLICIES
from cofferdam.protocols.opcua.trust import Secret, Trust
from tests.protocols.opcua.certificates import Authority, make
from tests.protocols.opcua.pair import Pair, facing

POLICY = POLICIES["Basic256Sha256"]
WALL = time.time_ns()
DAY = 86_400 * 10**9


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture(scope="module")
def given(folder: Path, authority: Authority) -> Path:
    return authority.give(make(folder / "given", "urn:given"))


def known(authority: Authority, *lists: bytes, own: Path | None = None) -> Trust:
    secret = Secret(trusted=(authority.certificate,), lists=lists)
    if own is not None:
        secret = msgspec.structs.replace(
            secret, key=(own / "own.pem").read_text(), certificate=(own / "own.der").read_bytes()
        )
    return Trust({"opcua": msgspec.json.encode(secret)})


def why(trust: Trust, folder: Path, revocation: bool = False, wall: int = WALL) -> str:
    """Why a certificate is not good; "" where it is."""
    try:
        trust.judge((folder / "own.der").read_bytes(), POLICY, wall, "", revocation)
    except Fault as fault:
        return f"{fault.status:08X} {fault}"
    return ""


def test_a_certificate_that_its_authority_has_revoked_is_refused(
    given: Path, authority: Authority, folder: Path
) -> None:
    assert not why(known(authority), given)
    assert not why(known(authority, authority.list()), given)
    assert "801D0000" in why(known(authority, authority.list(given)), given)
    other = authority.give(make(folder / "other", "urn:other"))
    assert not why(known(authority, authority.list(other)), given)
    late = known(authority, authority.list(given, days=1, ago=5))
    assert "revoked" in why(late, given), "also by a list that is past its time"
    newer = known(authority, authority.list(given, ago=2), authority.list())
    assert not why(newer, given), "the newer of two"


def test_one_that_is_trusted_by_itself_is_revoked_all_the_same(given: Path, authority: Authority) -> None:
    secret = Secret(trusted=(authority.certificate, (given / "own.der").read_bytes()), lists=(authority.list(given),))
    assert "801D0000" in why(Trust({"opcua": msgspec.json.encode(secret)}), given)


def test_where_a_list_has_to_be_there_it_has_to_be_current(given: Path, authority: Authority, folder: Path) -> None:
    assert "801B0000" in why(known(authority), given, True) and "pki crl" in why(known(authority), given, True)
    assert not why(known(authority, authority.list()), given, True)
    late = known(authority, authority.list(days=1))
    assert not why(late, given, True) and "801B0000" in why(late, given, True, WALL + 2 * DAY)
    assert not why(late, given, False, WALL + 2 * DAY)
    assert "past its time" in str(late.alarms(WALL + 2 * DAY)) and not late.alarms(WALL)
    alone = make(folder / "alone", "urn:alone")
    secret = Secret(trusted=((alone / "own.der").read_bytes(),))
    assert not why(Trust({"opcua": msgspec.json.encode(secret)}), alone, True), "who has signed itself has no list"


def test_a_list_by_somebody_else_counts_for_nothing(given: Path, authority: Authority) -> None:
    """Of the same name, with another key."""
    pretender = Authority("authority\0")
    pretender._name, pretender._serials = authority._name, authority._serials
    assert not why(known(authority, pretender.list(given)), given)
    with pytest.raises(GateError, match="damaged"):
        known(authority, b"x")


def test_a_channel_ends_when_its_certificate_is_revoked_on_either_side(folder: Path, authority: Authority) -> None:
    ours, theirs = (authority.give(make(folder / name, f"urn:{name}")) for name in ("ours", "theirs"))
    for revoked, error in ((theirs, "server_error"), (ours, "client_error")):
        sides = [known(authority, own=ours), known(authority, own=theirs)]
        pair = Pair(OpcUaServer(facing(sides[0], POLICY.name)), OpcUaClient(facing(sides[1], POLICY.name), 8)).run()
        for _ in range(2):  # the server's certificate is asked for on a connection of its own
            if any(isinstance(event, Established) for event in pair.heard):
                break
            pair = Pair(OpcUaServer(facing(sides[0], POLICY.name)), OpcUaClient(facing(sides[1], POLICY.name), 8)).run()
        assert any(isinstance(event, Established) for event in pair.heard), (pair.server_error, pair.client_error)
        for side in sides:
            side.take(msgspec.structs.replace(side.secret, lists=(authority.list(revoked),)))
        pair.later(1)
        assert "not trusted any more" in str(getattr(pair, error))
