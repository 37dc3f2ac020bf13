"""Tickets: short, signed, and every mistyped letter is found."""

from __future__ import annotations

import itertools

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.brokers.diode import tickets
from cofferdam.brokers.diode.ledger import Gap
from cofferdam.brokers.diode.tickets import ALPHABET, LETTERS_MOST, make, read, site_tag, spaced
from cofferdam.errors import GateError

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PRIVATE, PUBLIC = KEY.private_bytes_raw(), KEY.public_key().public_bytes_raw()
TAG = site_tag("riverside", "strand")
EPOCH = 1_790_000_000_000_000_000


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 10**9), st.integers(0, 10**6)), min_size=1, max_size=60),
    st.integers(1, 10**6),
)
def test_what_is_read_covers_what_was_asked_for(gaps: list[tuple[int, int, int]], serial: int) -> None:
    asked = [Gap(EPOCH + epoch, first, first + more) for epoch, first, more in gaps]
    text = make(PRIVATE, TAG, serial, 2_000_000_000, 3, asked)
    assert len(text) <= LETTERS_MOST
    ticket = read(spaced(text).lower(), TAG, {PUBLIC: 2**62}, 1_900_000_000)
    assert (ticket.serial, ticket.until, ticket.channel) == (serial, 2_000_000_000, 3)
    newest = max(gap.epoch for gap in asked)
    for gap in asked:
        if gap.epoch == newest:
            assert any(one.epoch == newest and one.first <= gap.first and gap.last <= one.last for one in ticket.ranges)


def test_thousands_of_gaps_are_joined_as_some_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """They were joined two by two, with all of them written out each time."""
    asked = [Gap(EPOCH + number % 3, number * number, number * number + 3) for number in range(1, 3_000, 2)]
    quick = make(PRIVATE, TAG, 1, 99, 0, asked[:300])
    assert make(PRIVATE, TAG, 1, 99, 0, asked)
    monkeypatch.setattr(tickets, "_joined", lambda ranges, _: ranges)
    assert make(PRIVATE, TAG, 1, 99, 0, asked[:300]) == quick


def test_few_ranges_are_asked_for_exactly() -> None:
    asked = [Gap(EPOCH, 5001, 5003), Gap(EPOCH, 7000, 7000)]
    assert read(make(PRIVATE, TAG, 1, 99, 0, asked), TAG, {PUBLIC: 2**62}, 1).ranges == tuple(asked)


TEXT = make(PRIVATE, TAG, 7, 100, 0, [Gap(EPOCH, 1, 2)])


def test_every_wrong_letter_and_every_swap_is_found() -> None:
    for at, letter in itertools.product(range(len(TEXT)), ALPHABET):
        if TEXT[at] != letter:
            with pytest.raises(GateError, match="mistyped"):
                read(TEXT[:at] + letter + TEXT[at + 1 :], TAG, {PUBLIC: 2**62}, 1)
    for at in range(len(TEXT) - 1):
        if TEXT[at] != TEXT[at + 1]:
            with pytest.raises(GateError, match="mistyped"):
                read(TEXT[:at] + TEXT[at + 1] + TEXT[at] + TEXT[at + 2 :], TAG, {PUBLIC: 2**62}, 1)


@pytest.mark.parametrize(
    "text,tag,signers,now,why",
    [
        (TEXT, TAG, {PUBLIC: 2**62}, 100, "expired"),
        (TEXT, site_tag("other", "strand"), {PUBLIC: 2**62}, 1, "not signed"),
        (TEXT, TAG, {bytes(32): 2**62}, 1, "not signed"),
        (TEXT, TAG, {PUBLIC: 1}, 1, "not signed"),
        (TEXT[:-5], TAG, {PUBLIC: 2**62}, 1, "mistyped|short"),
        (TEXT * 2, TAG, {PUBLIC: 2**62}, 1, "letters"),
        ("", TAG, {PUBLIC: 2**62}, 1, "short"),
        ("ABC!" * 8, TAG, {PUBLIC: 2**62}, 1, "no letter"),
        (make(PRIVATE, TAG, 7, 100, 0, [Gap(EPOCH, 1, 2**60)]), TAG, {PUBLIC: 2**62}, 1, "at most"),
    ],
)
def test_a_ticket_that_is_not_good(text: str, tag: bytes, signers: dict[bytes, int], now: int, why: str) -> None:
    with pytest.raises(GateError, match=why):
        read(text, tag, signers, now)


def test_nothing_to_ask_for() -> None:
    with pytest.raises(GateError, match="nothing is missing"):
        make(PRIVATE, TAG, 1, 1, 0, [])


@pytest.mark.parametrize(("text", "why"), [("abc", "too short"), ("", "too short"), ("2!" * 60, "no letter of")])
def test_what_is_no_ticket_is_told_how_one_looks(text: str, why: str) -> None:
    with pytest.raises(GateError, match=why) as found:
        read(text, b"", {}, 0)
    assert "give all of it" in found.value.hint
