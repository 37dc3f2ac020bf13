"""Pages for people: their links lead somewhere, and the commands they show are ones that exist."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from cofferdam.cli.main import VERBS, build_parser

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)]*)?\)")
COMMAND = re.compile(r"^ *(?:\$ |sudo )?cofferdam ([a-z-]+)", re.MULTILINE)
INLINE = re.compile(r"`cofferdam ([a-z-]+)")
TARGET = re.compile(r"`make ([a-z-]+)|^make ([a-z-]+)", re.MULTILINE)


def test_links_lead_somewhere() -> None:
    links = [(page, link[0]) for page in PAGES for link in LINK.findall(page.read_text("utf-8"))]
    within = [(page, target) for page, target in links if "://" not in target]
    assert within
    assert not [(str(page), target) for page, target in within if not (page.parent / target).exists()]


def test_commands_exist() -> None:
    goals = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    unknown = []
    for page in PAGES:
        text = page.read_text("utf-8")
        verbs = {*COMMAND.findall(text), *INLINE.findall(text)} - {*VERBS}
        unknown += [
            (str(page), word) for word in verbs | {one or other for one, other in TARGET.findall(text)} - {*goals}
        ]
    assert not unknown


WORDS = re.compile(r"(?:^ *(?:\$ |sudo )?|`)cofferdam ([a-z]+) ([a-z][a-z-]+)", re.MULTILINE)


def test_words_of_verbs_exist() -> None:
    """What stands behind a verb that has words of its own is one of them."""
    words = {
        verb: set(action.choices or ())
        for verb in VERBS
        for action in build_parser(verb)._subparsers._group_actions[0].choices[verb]._actions  # type: ignore[union-attr, index]
        if isinstance(action, argparse._SubParsersAction)
    }
    assert "agree" in words["grant"]
    said = {(page.name, *found) for page in PAGES if "adr" not in page.parts and page.name != "CHANGELOG.md"
            for found in WORDS.findall(page.read_text("utf-8"))}  # fmt: skip
    assert [one for one in sorted(said) if one[1] in words and one[2] not in words[one[1]]] == []


def test_every_page_is_reached_from_the_readme() -> None:
    reached, waiting = set[Path](), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop().resolve()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        for target, _ in LINK.findall(page.read_text("utf-8")):
            if "://" not in target and (page.parent / target).is_file():
                waiting.append(page.parent / target)
            elif "://" not in target and (page.parent / target).is_dir():
                waiting += (page.parent / target).glob("*.md")
    assert {page.resolve() for page in PAGES} <= reached


def test_every_decision_has_a_status_and_a_row() -> None:
    folder = ROOT / "docs" / "adr"
    index = (folder / "README.md").read_text("utf-8")
    for page in sorted(folder.glob("[0-9]*.md")):
        title, _, rest = page.read_text("utf-8").partition("\n")
        number, _, decision = title.removeprefix("# ").partition(". ")
        assert page.name.startswith(f"{int(number):04}-"), page.name
        status = re.match(r"\nStatus: (accepted|changed|superseded|proposed)\b", rest)
        assert status, f"{page.name} says no status below its title"
        assert f"| [{number}]({page.name}) | {decision} | {status[1]}" in index, f"no such row for {page.name}"
