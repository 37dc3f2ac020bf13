"""docs/howto.md, done step by step on a gate that runs: it is for nights in which nobody wants to find an error."""

from __future__ import annotations

import re
from pathlib import Path

from tests.gate.conftest import Site
from tests.gate.plant import Client, cli, copied, log_of, running
from tests.waiting import eventually

DONE_BY = {
    "find out at 3 a.m. why the PLC looks dead": "tests/gate/test_howto.py::test_the_plc_looks_dead_which_half",
    "bypass a gate that has failed": "tests/gate/test_howto.py::test_a_bypass_is_in_the_log_and_is_taken_back",
    "back up, and restore": "tests/gate/test_howto.py::test_backup_and_restore",
    "go on after hardware has failed": "tests/enforce/test_first_site.py::test_a_spare_machine_goes_on",
    "upgrade": "tests/vm/package.py::package",
    "change keys": "tests/gate/test_howto_pages.py::test_keys_are_changed",
    "send the log to a SIEM": "tests/gate/test_howto_pages.py::test_the_log_goes_to_a_siem",
}
"""What does each how-to; the first site has tests/enforce/test_first_site.py. An upgrade needs a booted
machine (`make vm`)."""


def test_every_how_to_is_done_by_something() -> None:
    root = Path(__file__).parents[2]
    titles = re.findall(r"^## \.\.\. (.*)$", (root / "docs" / "howto.md").read_text(), re.MULTILINE)
    assert titles == list(DONE_BY)
    for file, name in (where.split("::") for where in DONE_BY.values()):
        assert f"def {name}(" in (root / file).read_text(), (file, name)


def test_the_plc_looks_dead_which_half(live: Site) -> None:
    with Client(live.port) as client:
        client.read()
        code, said, _ = cli("ping", "plc", "--state", live.state)
        assert code == 0
        assert [line.split()[0] for line in said.splitlines()] == ["outer", "inner", "device"]
        live.device.close()
        told = (2, "", "")
        while told[0] == 2:  # it is asked once a second at most
            told = cli("ping", "plc", "--state", live.state)
        code, said, _ = told
        assert code == 1
        assert "both halves work: look at the device" in said
        assert cli("whois", "192.0.2.9", "--state", live.state)[0] == 1
        code, said, _ = cli("describe", "plc", "--state", live.state)
        assert "open: session" in said
        code, said, _ = cli("audit", "show", "--kind", "asset-pinged", "--state", live.state)
        assert code == 0 and len(said.splitlines()) == 2


def test_a_bypass_is_in_the_log_and_is_taken_back(live: Site) -> None:
    code, said, _ = cli("sever", "it", "--reason", "bypass, decided by N.", "--state", live.state)
    assert (code, "the it side is severed" in said) == (0, True)
    assert cli("restore", "it", "--state", live.state)[0] == 0
    with Client(live.port) as client:
        client.read()
    told = {entry["event"]["kind"]: entry["event"] for entry in log_of(live.state)}
    assert told["severed"]["reason"] == "bypass, decided by N."
    assert "restored" in told


def test_backup_and_restore(site: Site, tmp_path: Path) -> None:
    """Copied while the gate runs; what was written after the copy is lost, and a checkpoint kept elsewhere shows it."""
    copy, kept = tmp_path / "copy", tmp_path / "checkpoint"
    with running(site.state, site.policy):
        with Client(site.port) as client:
            client.write(7)
        assert cli("audit", "verify", "--state", site.state)[0] == 0
        eventually(lambda: copied(site.state, copy))
        with Client(site.port) as client:
            client.write(8)
        assert cli("down", "--state", site.state)[0] == 0
    assert cli("audit", "export", "--checkpoint", "--output", kept, "--state", site.state)[0] == 0
    with running(copy, site.policy):
        with Client(site.port) as client:
            assert client.read()
        entries = log_of(copy)
    assert [one["event"]["kind"] for one in entries].count("log-opened") == 2
    assert cli("audit", "verify", "--state", copy)[0] == 0
    code, said, _ = cli("audit", "verify", "--checkpoint", kept, "--state", copy)
    assert (code, "WRONG" in said) == (1, True), (kept.read_text(), said)
