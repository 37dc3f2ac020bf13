"""What a side's file of keys and trust becomes by each change, and which changes are refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec.structs import replace

from cofferdam.protocols.opcua import pki
from cofferdam.protocols.opcua.revocation import LISTS
from cofferdam.protocols.opcua.trust import Secret, application_uri, mark
from tests.protocols.opcua.certificates import Authority, make, sign

NOW = datetime.now(UTC)
YEAR = timedelta(days=365)


@pytest.fixture(scope="module")
def own() -> Secret:
    return pki.application("works", "outer", ["10.1.0.2"], NOW, 730)


def test_an_application_has_what_the_standard_wants(own: Secret) -> None:
    made = x509.load_der_x509_certificate(own.certificate)
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert application_uri(made) == "urn:cofferdam:works:outer"
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["10.1.0.2"]
    usage = made.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.data_encipherment and usage.key_encipherment and not usage.key_cert_sign
    assert made.not_valid_after_utc - NOW < timedelta(days=731)


def test_what_an_authority_makes_of_our_request_is_taken(own: Secret, tmp_path: Path) -> None:
    der = sign(pki.request(own), tmp_path).read_bytes()
    taken = pki.answered(own, [der, b"above"], NOW)
    assert taken == replace(own, certificate=der, above=(b"above",))
    assert pki.answered(Secret(), [der], NOW) is None, "it has no key"
    assert pki.answered(pki.application("works", "inner", (), NOW, 1), [der], NOW) is None, "it has another"
    with pytest.raises(ValueError, match="not valid now"):
        pki.answered(own, [der], NOW + YEAR)
    elsewhere = replace(own, certificate=pki.application("elsewhere", "outer", (), NOW, 1).certificate)
    with pytest.raises(ValueError, match="'urn:cofferdam:works:outer', and we are 'urn:cofferdam:elsewhere:outer'"):
        pki.answered(elsewhere, [der], NOW)


def test_we_log_in_by_a_key_that_is_made_or_brought(tmp_path: Path) -> None:
    key, der = pki.login("works", "filler", NOW, 30)
    assert pki.login_of(key.encode(), der) == (key, der)
    folder = make(tmp_path, "urn:other")
    with pytest.raises(ValueError, match="not the key"):
        pki.login_of((folder / "own.pem").read_bytes(), der)
    with pytest.raises(ValueError, match="no key"):
        pki.login_of(b"nonsense", der)


def test_trust_is_given_and_taken(own: Secret, tmp_path: Path) -> None:
    der = (make(tmp_path, "urn:peer") / "own.der").read_bytes()
    once = pki.trusting(own, der)
    assert once.trusted == (der,) == pki.trusting(once, der).trusted
    found = pki.rejecting(once, mark(der)[:8])
    assert found is not None
    without, gone = found
    assert gone == der and (without.trusted, without.revoked) == ((), (mark(der),))
    assert pki.rejecting(without, mark(der)[:8]) is None
    assert pki.trusting(without, der, issuer=True) == replace(own, issuers=(der,)), "said again, it is forgiven"


def test_a_revocation_list_takes_the_place_of_its_authoritys_older_one(own: Secret) -> None:
    authority = Authority()
    knows = pki.trusting(own, authority.certificate)
    pem = x509.load_der_x509_crl(authority.list()).public_bytes(Encoding.PEM)
    first, older = pki.revocation_list(pem), authority.list(ago=3)
    assert pki.listing(own, first) is None, "of an authority that it does not know"
    has = pki.listing(knows, first)
    assert has is not None and has.lists == (first,) and pki.listing(has, first) == has
    with pytest.raises(ValueError, match="older than the list"):
        pki.listing(has, older)
    with pytest.raises(ValueError, match=f"{LISTS} at most"):
        pki.listing(replace(knows, lists=LISTS * (Authority("another").list(),)), first)
    with pytest.raises(ValueError, match="no revocation list"):
        pki.revocation_list(b"x")
