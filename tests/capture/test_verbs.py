"""The verbs simulate and learn, as a user calls them: output, exit codes, errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cofferdam.cli.main import main
from cofferdam.policy.syntax import FILL_IN
from tests.capture.maker import Connection, Frame, pcap, read_answer, read_request, write_request
from tests.capture.test_simulate import POLICY
from tests.capture.traffic import filled
from tests.json_answers import holds
from tests.verbs import cli


@pytest.fixture
def traffic(tmp_path: Path) -> Path:
    connection = Connection().open()
    connection.ask(read_request(1, 10, 1))
    connection.answer(read_answer(1, [5]))
    connection.ask(write_request(2, 999, 1))
    connection.answer(write_request(2, 999, 1))
    path = tmp_path / "traffic.pcap"
    path.write_bytes(pcap(connection.frames))
    return path


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


def test_learn_then_check_then_simulate(traffic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    learned = tmp_path / "learned.yaml"
    assert main(["learn", str(traffic), "-o", str(learned), "--site", "works"]) == 0
    assert "learned from 2 requests: 1 client, 1 asset, 1 written point;" in capsys.readouterr().err
    assert main(["check", str(learned)]) == 2
    assert f"found {FILL_IN}, expected the owner of" in capsys.readouterr().err
    learned.write_text(filled(learned.read_text()).replace("# overlay:", "overlay:"))
    assert main(["check", str(learned)]) == 0
    said = capsys.readouterr()
    assert "overlay" not in said.out + said.err, "what it suggests is not warned of"
    assert main(["simulate", str(learned), str(traffic)]) == 0
    assert "2 requests: 2 allowed, 0 refused" in capsys.readouterr().out
    assert main(["learn", str(traffic), "-o", str(learned)]) == 2
    assert "exists" in capsys.readouterr().err


def test_simulate_says_what_is_refused_and_exits_1(
    policy: Path, traffic: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", str(traffic), str(policy)]) == 2
    assert "the policy comes first" in capsys.readouterr().err
    assert main(["simulate", str(policy), str(traffic)]) == 1
    out = capsys.readouterr().out
    assert "10.1.0.20 → 10.20.0.17:502   modbus, asset plc" in out
    assert "write holding 999" in out
    assert "2 requests: 1 allowed, 1 refused, 0 depends, 0 malformed" in out
    assert main(["simulate", str(policy), str(traffic), "--refused"]) == 1
    assert "read holding 10" not in capsys.readouterr().out


def test_simulate_json(policy: Path, traffic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", str(policy), str(traffic), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["allowed"], report["refused"]) == (1, 1)
    assert report["flows"][0]["groups"][1]["reason"] == "address"
    assert report["reading"]["packets"] == 7
    holds("simulate", report)


def test_learn_json_and_stdout(traffic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["learn", str(traffic)]) == 0
    text = capsys.readouterr().out
    assert main(["learn", str(traffic), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["text"] == text
    assert report["requests"] == 2
    holds("learn", report)


def test_a_truncated_capture_is_reported_and_exits_2(
    policy: Path, traffic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = tmp_path / "short.pcap"
    short.write_bytes(traffic.read_bytes()[:-7])
    assert main(["simulate", str(policy), str(short)]) == 2
    for words in (("simulate", policy, short), ("learn", short)):
        code, out, err = cli(*words, "--json")
        assert code == 2
        assert json.loads(out)["reading"]["error"] in err, "one document: what was read, and why no more was"
    printed = capsys.readouterr()
    assert "2 requests: 1 allowed" in printed.out
    assert "the file is cut off in the packet 7 at byte" in printed.err
    assert "6 packets" in printed.err
    assert main(["learn", str(short)]) == 2
    printed = capsys.readouterr()
    assert "# NOT COMPLETE" in printed.out
    assert "6 packets" in printed.err


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "empty"), (b"%PDF-1.4 not a capture", "not a pcap"), (b"\x28\xb5\x2f\xfd", "zstd -dk")],
)
def test_foreign_files_exit_2(
    policy: Path, tmp_path: Path, content: bytes, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "foreign"
    path.write_bytes(content)
    for arguments in (["simulate", str(policy), str(path)], ["learn", str(path)]):
        assert main(arguments) == 2
        assert says in capsys.readouterr().err


def test_missing_files_exit_2(policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", str(policy), str(tmp_path / "none.pcap")]) == 2
    assert "No such file" in capsys.readouterr().err
    assert main(["learn", str(tmp_path)]) == 2
    assert "directory" in capsys.readouterr().err
    assert main(["simulate", str(tmp_path / "none.yaml"), str(tmp_path / "none.pcap")]) == 2


def test_a_capture_without_requests_exits_2_and_says_what_it_holds(
    policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    connection = Connection(server=("10.20.0.17", 10502)).open()
    connection.ask(read_request(1, 10, 1))
    path = tmp_path / "other.pcap"
    path.write_bytes(pcap(connection.frames))
    assert main(["simulate", str(policy), str(path)]) == 2
    assert "--port" in capsys.readouterr().err
    assert main(["simulate", str(policy), str(path), "--port", "10502"]) == 1
    assert "no asset of the policy" in capsys.readouterr().out
    assert main(["learn", str(path), "--port", "10502=modbus"]) == 0
    assert "port: 10502" in capsys.readouterr().out
    assert main(["learn", str(path), "--port", "10502", "--ot", "192.0.2.0/24"]) == 2
    assert "outside the given networks" in capsys.readouterr().err


def test_a_capture_of_what_people_work_by_is_not_called_modbus(
    policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ssh, other = Connection(server=("10.20.0.17", 22)).open(), Connection(server=("10.20.0.18", 10502)).open()
    path = tmp_path / "ssh.pcap"
    path.write_bytes(pcap(ssh.frames))
    for verb in (["simulate", str(policy)], ["learn"]):
        assert main([*verb, str(path)]) == 2
        said = capsys.readouterr().err
        assert "port 22 is that of ssh" in said and "jump server" in said and "follow one" not in said
    path.write_bytes(pcap([*ssh.frames, *other.frames]))
    assert main(["simulate", str(policy), str(path)]) == 2
    said = capsys.readouterr().err
    assert "port 22 is that of ssh" in said and "seen on port 10502; follow one with --port PORT=PROTOCOL" in said


@pytest.mark.parametrize(
    "arguments",
    [["--port", "0"], ["--port", "502=telnet"], ["--at", "noon"]],
)
def test_bad_arguments_exit_2(
    policy: Path, traffic: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["simulate", str(policy), str(traffic), *arguments])
    assert caught.value.code == 2
    assert arguments[1].split("=")[-1] in capsys.readouterr().err


def test_windows_of_old_captures_are_judged_by_their_own_time_or_by_now(
    tmp_path: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    connection = Connection().open()
    connection.ask(read_request(1, 200, 1))
    connection.answer(read_answer(1, [700]))
    connection.ask(write_request(2, 200, 710))
    path = tmp_path / "write.pcap"
    path.write_bytes(pcap(connection.frames))
    assert main(["simulate", str(policy), str(path)]) == 0
    assert main(["simulate", str(policy), str(path), "--at", "2023-11-15T03:00Z"]) == 1
    assert "window: " in capsys.readouterr().out
    assert main(["simulate", str(policy), str(path), "--at", "now"]) == 1
    assert "expired" in capsys.readouterr().out


def test_packets_that_were_cut_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    connection = Connection().open()
    for number in range(4):
        connection.ask(read_request(number, 10, 2))
    path = tmp_path / "short.pcap"
    path.write_bytes(pcap([Frame(one.time_ns, one.data[:60], len(one.data)) for one in connection.frames]))
    assert main(["learn", str(path)]) == 2
    assert "whole packets (tcpdump -s 0)" in capsys.readouterr().err
