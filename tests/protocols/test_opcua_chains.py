"""Authorities below others: which chains lead to one that is trusted, and what is wrong with those that do not."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cofferdam.protocols.base import Established
from cofferdam.protocols.opcua.channel import Fault
from cofferdam.protocols.opcua.machine import OpcUaClient, OpcUaServer
from cofferdam.protocols.opcua.security import POLICIES
from cofferdam.protocols.opcua.trust import Secret, Trust, mark
from tests.protocols.opcua.certificates import Authority, make
from tests.protocols.opcua.pair import Pair, facing

POLICY = POLICIES["Basic256Sha256"]
WALL = time.time_ns()
DAY = 86_400 * 10**9


class Site:
    """A root, an authority below it, and one below that; an application of each of the last two."""

    def __init__(self, folder: Path) -> None:
        self.root = Authority("root")
        self.plant = Authority("plant", self.root)
        self.line = Authority("line", self.plant)
        self.filler = self.plant.give(make(folder / "filler", "urn:filler"))
        self.robot = self.line.give(make(folder / "robot", "urn:robot"))
        self.other = Authority("other")

    def der(self, folder: Path) -> bytes:
        return (folder / "own.der").read_bytes()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("chains"))


def known(*trusted: Authority, issuers: tuple[Authority, ...] = (), **more: Any) -> Trust:
    secret = Secret(
        trusted=tuple(one.certificate for one in trusted), issuers=tuple(one.certificate for one in issuers), **more
    )
    return Trust({"opcua": msgspec.json.encode(secret)})


def why(trust: Trust, chain: bytes, wall: int = WALL, revocation: bool = False) -> str:
    """Why a chain is not good; "" where it is."""
    try:
        trust.judge(chain, POLICY, wall, "", revocation)
    except Fault as fault:
        return f"{fault.status:08X} {fault}"
    return ""


def test_a_chain_leads_to_the_root_whether_its_middle_is_sent_or_known(site: Site) -> None:
    filler = site.der(site.filler)
    assert "is not trusted" in why(known(site.root), filler), "nobody knows its authority"
    assert why(known(site.root), filler + site.plant.certificate) == ""
    assert why(known(site.root), filler + site.plant.certificate + site.root.certificate) == ""
    assert why(known(site.root, issuers=(site.plant,)), filler) == ""
    assert why(known(site.plant), filler) == "", "who trusts the one in between need not know the root"
    assert "is not trusted" in why(known(site.other, issuers=(site.plant,)), filler)
    assert "is not trusted" in why(known(issuers=(site.root, site.plant)), filler), "an issuer alone is no trust"
    both = known(site.root, issuers=(site.plant, site.line))
    assert "is not trusted" in why(both, site.der(site.robot)), "four certificates are too many"
    assert why(known(site.plant, issuers=(site.line,)), site.der(site.robot)) == ""


def test_an_application_is_no_authority_in_between(site: Site, tmp_path: Path) -> None:
    class Forged(Authority):
        def __init__(self, folder: Path) -> None:
            from cryptography import x509
            from cryptography.hazmat.primitives import serialization

            found = x509.load_der_x509_certificate((folder / "own.der").read_bytes())
            self._name = found.subject
            self._key = serialization.load_pem_private_key((folder / "own.pem").read_bytes(), None)  # type: ignore[assignment]
            self._serials = {}

    forger = Forged(site.filler)
    made = forger.give(make(tmp_path / "made", "urn:made"))
    chain = site.der(made) + site.der(site.filler)
    assert "is not trusted" in why(known(site.plant), chain)


def test_each_of_a_chain_has_to_be_good(site: Site) -> None:
    filler = site.der(site.filler)
    late = why(known(site.root, issuers=(site.plant,)), filler, WALL + 290 * DAY)
    assert late == "", "the application's and its authorities' time is not over"
    short = Authority("short", site.root, days=1)
    app = short.give(make(Path(site.filler).parent / "short", "urn:short"))
    assert why(known(site.root, issuers=(short,)), site.der(app)) == ""
    assert why(known(site.root, issuers=(short,)), site.der(app), WALL + 2 * DAY).startswith("80150000")
    none = Authority("none below", under=0)
    below = Authority("below", none)
    app = below.give(make(Path(site.filler).parent / "below", "urn:below"))
    assert "no more than 0" in why(known(none, issuers=(below,)), site.der(app))
    gone = known(site.root, issuers=(site.plant,), revoked=(mark(site.plant.certificate),))
    assert "is not trusted" in why(gone, filler), "its authority was rejected by an operator"
    assert "is not trusted" in why(gone, filler + site.plant.certificate)


def test_lists_of_each_authority_count(site: Site) -> None:
    filler, plant, root = site.der(site.filler), site.plant, site.root

    def said(*lists: bytes, revocation: bool = False, issuers: tuple[Authority, ...] = (plant,)) -> str:
        return why(known(root, issuers=issuers, lists=lists), filler + plant.certificate, revocation=revocation)

    assert said(root.list(plant)).startswith("801E0000"), "the root has taken back the one below it"
    assert said(plant.list(site.filler)).startswith("801D0000")
    assert said(root.list(), plant.list(), revocation=True) == ""
    assert said(plant.list(), revocation=True).startswith("801C0000"), "of the root there is none"
    assert said(root.list(), revocation=True).startswith("801B0000")
    assert said(root.list(), plant.list(), revocation=True, issuers=()).startswith("801C0000")


def test_a_channel_goes_by_a_chain_in_both_directions_and_is_renewed(site: Site) -> None:
    def side(folder: Path, *sent: Authority) -> Trust:
        secret = Secret(
            key=(folder / "own.pem").read_text(), certificate=site.der(folder), trusted=(site.root.certificate,),
            issuers=tuple(one.certificate for one in sent),
        )  # fmt: skip
        return Trust({"opcua": msgspec.json.encode(secret)})

    word = "Basic256Sha256"
    server, client = side(site.filler), side(site.filler)
    # Each sends its authority with its own certificate, as stacks do that have them in one file.
    chain = site.der(site.filler) + site.plant.certificate
    for one in (server, client):
        assert one.own is not None
        one.own = dataclasses.replace(one.own, above=site.plant.certificate)
    client.learn_server("filler", chain)
    pair = Pair(OpcUaServer(facing(server, word)), OpcUaClient(facing(client, word), 8)).run()
    assert any(isinstance(one, Established) for one in pair.heard), (pair.server_error, pair.client_error)
    assert pair.server.channel.peer == chain
    before = pair.server.channel.renew_at
    for _ in range(16):
        pair.later(30 * 10**9)
    assert pair.server_error is None and pair.client_error is None and pair.server.channel.renew_at > before
