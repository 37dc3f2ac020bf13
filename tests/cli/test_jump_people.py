"""The file of people: what is wrong in it is said with its line, before anybody is added."""

from __future__ import annotations

import asyncssh
import pytest

from cofferdam.cli.jump_people import read
from cofferdam.errors import GateError

KEY = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()


def test_what_is_read() -> None:
    found = read(f"\ufeffgroups,person,key\r\na b,anna,{KEY}\r\n,bert,\r\n", "f")
    assert [(row.person, row.groups, bool(row.key)) for row in found] == [
        ("anna", ["a", "b"], True),
        ("bert", [], False),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no column `person`"),
        ("name,groups\nanna,a\n", "no column `person`"),
        ("person,grups\n", r"'grups' \(groups\?\)"),
        ("person,groups\nanna\n", "line 2 has more or fewer"),
        ("person,groups\nanna,a,b\n", "line 2 has more or fewer"),
        ("person,groups\nanna,a\nanna,b\n", "line 3: anna stands in it twice"),
        ("person,groups\nanna,a/b\n", "line 2: 'a/b' is no name"),
        ("person\n\u202eanna\n", "line 2: .* is no name"),
        ('person\n"anna\n', "line 1: unexpected end"),
        ("person,key\nanna,ssh-ed25519 AAAA\n", "line 2: that is no public key"),
        ("person;full;groups\n", "no column `person`"),
        ("person,person\nanna,bert\n", "a column twice"),
        (f"person,full\nanna,{'x' * 129}\n", "line 2: `full` has more than 128 letters"),
        ("person,account\nanna,a\nbert,a\n", "line 3: that account is somebody else's"),
        (f"person,key\nanna,{KEY}\nbert,{KEY}\n", "line 3: that key is somebody else's"),
    ],
)
def test_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(GateError, match=says):
        read(text, "f")
