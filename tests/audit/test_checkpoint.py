"""Signed notes and checkpoints, against the specification's own examples."""

from __future__ import annotations

import pytest

from cofferdam.audit.checkpoint import (
    Checkpoint,
    SignerKey,
    VerifierKey,
    check_name,
    open_checkpoint,
    open_note,
    sign_checkpoint,
    sign_note,
)
from cofferdam.errors import AuditError

FOO = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
NOTE = (
    "This is an example message.\n\n— example.com/foo "
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
KEY = SignerKey("cofferdam/riverside", bytes(range(32)))
POINT = Checkpoint("cofferdam/riverside", 20852163, bytes(32))


def test_a_note_that_others_signed() -> None:
    assert open_note(NOTE.encode(), VerifierKey.parse(FOO)) == "This is an example message.\n"
    assert VerifierKey.parse(FOO).text == FOO


def test_signing_gives_the_specified_form() -> None:
    note = sign_checkpoint(POINT, KEY)
    assert note.decode().split("\n")[:4] == [
        "cofferdam/riverside",
        "20852163",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "",
    ]
    assert open_checkpoint(note, KEY.verifier) == POINT


def test_every_changed_bit_is_noticed() -> None:
    note = sign_checkpoint(POINT, KEY)
    for at in range(len(note)):
        for bit in range(8):
            wrong = bytearray(note)
            wrong[at] ^= 1 << bit
            with pytest.raises(AuditError):
                open_checkpoint(bytes(wrong), KEY.verifier)
    for length in range(len(note)):
        with pytest.raises(AuditError):
            open_checkpoint(note[:length], KEY.verifier)


def test_witness_signatures_are_left_alone() -> None:
    witness = SignerKey("witness.example", bytes(32))
    note = sign_checkpoint(POINT, KEY) + sign_checkpoint(POINT, witness).rpartition(b"\n\n")[2]
    assert open_checkpoint(note, KEY.verifier) == POINT


def test_a_foreign_key_or_log_is_refused() -> None:
    other = SignerKey("cofferdam/riverside", bytes(32))
    with pytest.raises(AuditError, match="has not signed"):
        open_checkpoint(sign_checkpoint(POINT, other), KEY.verifier)
    with pytest.raises(AuditError, match="is of the log"):
        open_checkpoint(sign_note(Checkpoint("elsewhere", 1, bytes(32)).text(), KEY), KEY.verifier)
    for text in ("cofferdam/riverside\n1\n", "cofferdam/riverside\n01\nAAAA\n", "cofferdam/riverside\n-1\nAAAA\n"):
        with pytest.raises(AuditError):
            open_checkpoint(sign_note(text, KEY), KEY.verifier)


def test_keys_there_and_back() -> None:
    assert SignerKey.parse(KEY.secret_text()).verifier.text == KEY.verifier.text
    assert "secret" in repr(KEY) and KEY.secret_text() not in repr(KEY)
    text = KEY.secret_text()
    for wrong in (text[:-1], text.replace("PRIVATE", "PUBLIC"), text.replace("riverside", "riverbank"), "", "x+y"):
        with pytest.raises(AuditError) as caught:
            SignerKey.parse(wrong)
        assert text.rsplit("+", 1)[1][:20] not in str(caught.value)
    for name in ("", "a b", "a+b", "a\nb", "a\u2003b"):
        with pytest.raises(AuditError):
            check_name(name)
    for vkey in ("", "a+b", FOO.replace("530d903a", "530d903b"), FOO[:-4]):
        with pytest.raises(AuditError):
            VerifierKey.parse(vkey)
