"""What an operator takes in wrongly is named before anything is sent."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cofferdam.audit.keys import make_key
from cofferdam.brokers.diode import pairing
from cofferdam.cli.main import main

POLICY = """
site: {site}
zones:
  strand-in: {{side: ot, addresses: [127.0.0.1/8], crossing: diode}}
  strand-out: {{side: it, addresses: [127.0.0.2/8], crossing: diode}}
conduits:
  {strand}:
    {{from: strand-in, to: strand-out, broker: diode, owner: tests, reason: tests, carries: [files:reports],
     files: {{reports: {{names: ["*.csv"]}}}}}}
"""


class Site:
    """A policy, and a state for each end."""

    def __init__(self, folder: Path, site: str, strand: str = "strand") -> None:
        self.folder = folder / f"{site}-{strand}"
        self.folder.mkdir()
        self.policy = self.folder / "policy.yaml"
        self.policy.write_text(POLICY.format(site=site, strand=strand))

    def pair(self, end: str, *options: str) -> int:
        state = str(self.folder / end)
        return main(["diode", "pair", end, "--policy", str(self.policy), "--state", state, *options])

    def file(self, end: str) -> Path:
        path = self.folder / f"{end}.pair"
        if not path.exists():
            assert self.pair(end, "--output", str(path)) == 0
        return path


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("own", "of the inside end, and so is this machine"),
        ("site", "of other, not strand of riverside"),
        ("strand", "the strand second of riverside, not strand"),
        ("cut", "no file of a pair"),
        ("changed", "no file of a pair"),
        ("log", "key of the audit log is none"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str, why: str) -> None:
    one = Site(tmp_path, "riverside")
    given = {
        "own": one, "site": Site(tmp_path, "other"), "strand": Site(tmp_path, "riverside", "second"), "cut": one,
        "changed": one, "log": one,
    }[what].file("inside" if what == "own" else "outside")  # fmt: skip
    if what == "cut":
        given.write_bytes(given.read_bytes()[:-9])
    elif what == "changed":
        given.write_text(json.dumps({**json.loads(given.read_text()), "sign": "0"}))
    elif what == "log":
        given.write_text(json.dumps({**json.loads(given.read_text()), "log": "x+y"}))
    assert one.pair("inside", "--output", str(tmp_path / "x")) == 0
    capsys.readouterr()
    assert one.pair("inside", "--take", str(given)) != 0
    said = capsys.readouterr()
    assert re.search(why, said.err + said.out), said.err
    good = one.folder / "good"
    assert one.pair("outside", "--output", str(good)) == 0 and one.pair("inside", "--take", str(good)) == 0


@pytest.mark.parametrize("end", ["inside", "outside"])
def test_new_keys_leave_the_old_ones_their_days(tmp_path: Path, end: str) -> None:
    """Also where somebody asks for more days than there are: the keys are read again."""
    one = Site(tmp_path, "riverside")
    first = one.file(end).read_bytes()
    for number, days in enumerate(("0", "7", "99999999999999")):
        assert one.pair(end, "--new", "--old-days", days, "--output", str(tmp_path / f"{number}")) == 0
    assert one.pair(end, "--output", str(tmp_path / "last")) == 0
    assert (tmp_path / "last").read_bytes() == (tmp_path / "2").read_bytes() != first
    (path,) = (one.folder / end / "secrets").rglob(f"{'sender' if end == 'inside' else 'receiver'}/strand")
    data = {pairing.SECRET: path.read_bytes()}
    keys: pairing.SenderKeys | pairing.ReceiverKeys | None = pairing.load(pairing.SenderKeys, data) if (
        end == "inside"
    ) else pairing.load(pairing.ReceiverKeys, data)  # fmt: skip
    assert keys is not None and len(keys.former) == 2 and keys.former[1].until == pairing.EVER


@pytest.mark.parametrize("carried", [True, False])
def test_the_log_s_key_is_spoken_of_where_the_log_rides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], carried: bool
) -> None:
    site = Site(tmp_path, "riverside")
    if carried:
        site.policy.write_text(site.policy.read_text().replace("[files:reports]", '[files:reports, "gate:log"]'))
    site.file("inside")
    assert ("audit log has no key yet" in capsys.readouterr().out) == carried


@pytest.mark.parametrize(
    ("then", "signer", "says", "kept"),
    [
        ("", "", "older than the key of the inside's audit log, which stays", True),
        ("", "0" * 64, "of another machine, and has no key", False),
        ("another", "", "is another from now on", False),
    ],
)
def test_what_becomes_of_the_log_s_key_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], then: str, signer: str, says: str, kept: bool
) -> None:
    """A file that is taken in again, and is an older one, or another's."""
    one = Site(tmp_path, "riverside")
    given = one.folder / "given"
    pair = json.loads(one.file("inside").read_text())
    keys = [make_key(name).verifier.text for name in ("log", "another")]
    given.write_text(json.dumps({**pair, "log": keys[0]}))
    one.file("outside")
    assert one.pair("outside", "--take", str(given)) == 0
    given.write_text(json.dumps({**pair, "sign": signer or pair["sign"], **({"log": keys[1]} if then else {})}))
    capsys.readouterr()
    assert one.pair("outside", "--take", str(given)) == 0
    assert says in " ".join(capsys.readouterr().out.split())
    (path,) = (one.folder / "outside" / "secrets").rglob("keeper/strand")
    found = pairing.load(pairing.KeeperKeys, {pairing.SECRET: path.read_bytes()})
    assert found is not None and found.log == (keys[0] if kept else keys[1] if then else "")
