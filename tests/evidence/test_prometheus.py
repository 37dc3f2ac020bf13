"""Alert rules by promtool; every query of the dashboard against a real Prometheus that scraped a real gate."""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import shutil
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cofferdam.brokers.registry import BROKERS
from cofferdam.cli.main import main
from cofferdam.gate.client import ask
from cofferdam.gate.watch.metrics import OWN, described
from tests.gate.conftest import Site, site
from tests.gate.plant import Client, running
from tests.ports import held_port
from tests.waiting import PATIENT, eventually

__all__ = ["site"]
PACKAGING = Path(__file__).parent.parent.parent / "packaging"
RULES = PACKAGING / "prometheus" / "alerts.yaml"
DASHBOARD = PACKAGING / "grafana" / "cofferdam.json"
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None, reason="no Prometheus (prometheus)"
)


def promtool(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *words], cwd=cwd, capture_output=True, text=True, check=False)


@needs_prometheus
def test_alert_rules_and_that_their_tests_can_fail(tmp_path: Path) -> None:
    assert promtool("check", "rules", RULES.name, cwd=RULES.parent).returncode == 0
    done = promtool("test", "rules", "alerts.test.yaml", cwd=RULES.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    begin, _, trouble, *_ = (RULES.parent / "alerts.test.yaml").read_text().split("\n  - interval: ")
    (tmp_path / "alerts.test.yaml").write_text(f"{begin}\n  - interval: {trouble}\n")
    (tmp_path / RULES.name).write_text(RULES.read_text())
    assert promtool("test", "rules", "alerts.test.yaml", cwd=tmp_path).returncode == 0
    (tmp_path / RULES.name).write_text(RULES.read_text().replace("cofferdam_severed == 1", "cofferdam_severed == 2"))
    assert promtool("test", "rules", "alerts.test.yaml", cwd=tmp_path).returncode == 1


def test_every_alert_is_tested_and_every_metric_is_one_of_ours() -> None:
    rules, tests = RULES.read_text(), (RULES.parent / "alerts.test.yaml").read_text()
    alerts = re.findall(r"alert: (\w+)", rules)
    assert len(alerts) == len(set(alerts)) == 17
    for alert in alerts:
        assert len(re.findall(rf"alertname: {alert}\b", tests)) >= 2, alert
    known = {*OWN, *described(BROKERS.values())}
    for text in (rules, DASHBOARD.read_text()):
        for name in set(re.findall(r"cofferdam_[a-z_]+", text)):
            assert name.removesuffix("_bucket") in known, name


def test_the_verb_lists_every_metric(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics", "--json"]) == 0
    listed = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert listed.keys() == OWN.keys() | described(BROKERS.values()).keys()
    units = r"_(days|hours|minutes|milliseconds|ms|us|percent|kilobytes|megabytes)(_|$)"
    assert not [name for name in listed if re.search(units, name)], "seconds, bytes and ratios: promtool check metrics"
    with pytest.raises(SystemExit):
        main(["metrics", "--help"])
    said = capsys.readouterr().out
    assert all(name in said for name in listed)
    assert main(["metrics", "unsigned"]) == 0
    assert capsys.readouterr().out.startswith("cofferdam_audit_unsigned_entries")
    assert main(["metrics", "no", "such"]) == 2


class Paged:
    """Where an alertmanager brings its alerts: what a person would be called with."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        paged = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                paged.got += body["alerts"]
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def names(self, status: str) -> set[tuple[str, str]]:
        """(alert, what it is about) of those that fired or were resolved."""
        return {
            (one["labels"]["alertname"], one["labels"].get("check", one["labels"].get("name", "")))
            for one in self.got if one["status"] == status
        }  # fmt: skip


@contextlib.contextmanager
def alertmanager(folder: Path, paged: Paged) -> Iterator[str]:
    config, port = folder / "alertmanager.yml", held_port()
    config.write_text(
        "route: {receiver: person, group_by: [alertname], group_wait: 100ms, group_interval: 300ms}\n"
        f"receivers: [{{name: person, webhook_configs: [{{url: 'http://127.0.0.1:{paged.port}/'}}]}}]\n"
    )
    command = ["prometheus-alertmanager", f"--config.file={config}", f"--storage.path={folder / 'alerts'}",
               f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="]  # fmt: skip
    with (folder / "alertmanager-said").open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(PATIENT)


class Prometheus:
    def __init__(self, port: int) -> None:
        self.at = f"http://127.0.0.1:{port}"

    def query(self, expr: str) -> list[Any]:
        url = f"{self.at}/api/v1/query?{urllib.parse.urlencode({'query': expr})}"
        with urllib.request.urlopen(url, timeout=PATIENT) as answer:
            found = json.load(answer)
        assert found["status"] == "success", found
        result: list[Any] = found["data"]["result"]
        return result


@contextlib.contextmanager
def prometheus(folder: Path, target: str, alerts: str = "") -> Iterator[Prometheus]:
    port = held_port()
    config = folder / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 250ms}\n"
        + (f"alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{alerts}']}}]}}]}}\n" if alerts else "")
        + f"rule_files: ['{RULES}']\n"
        f"scrape_configs: [{{job_name: cofferdam, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}",
               f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]  # fmt: skip
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
    try:
        made = Prometheus(port)

        def ready() -> bool:
            assert process.poll() is None, (folder / "said").read_text()
            with contextlib.suppress(OSError):
                return bool(made.query('up{job="cofferdam"} == 1'))
            return False

        eventually(ready)
        yield made
    finally:
        process.terminate()
        process.wait(PATIENT)


@pytest.mark.parametrize("file", [DASHBOARD, *sorted((PACKAGING.parent / "examples" / "grafana").glob("*.json"))],
                         ids=lambda file: file.stem)  # fmt: skip
def test_a_dashboard_is_in_the_form_that_grafana_reads(file: Path) -> None:
    """Its dashboard model (schema 36 to 39): Grafana itself is not among what the tests run, and it takes a wrong one
    without a word and shows a gap."""
    board = json.loads(file.read_text())
    assert board["title"] and re.fullmatch(r"[A-Za-z0-9_-]{1,40}", board["uid"]) and 36 <= board["schemaVersion"] <= 39
    assert "id" not in board, "a number of the Grafana that exported it"
    known = {one["name"] for one in board["templating"]["list"]}
    asked = set(re.findall(r"\$\{?([A-Za-z]\w*)", json.dumps(board)))
    assert asked <= known, f"variables that nobody declares: {asked - known}"
    panels = [inner for panel in board["panels"] for inner in (panel, *panel.get("panels", ()))]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: dict[tuple[int, int], str] = {}
    for panel in panels:
        place, title = panel["gridPos"], panel["title"]
        assert panel["type"] in ("row", "stat", "table", "timeseries"), title
        assert place["x"] >= 0 and place["x"] + place["w"] <= 24 and place["h"] > 0, f"{title} is wider than the page"
        for cell in ((x, y) for x in range(place["x"], place["x"] + place["w"])
                     for y in range(place["y"], place["y"] + place["h"])):  # fmt: skip
            assert taken.setdefault(cell, title) == title, f"{title} lies on {taken[cell]}"
        if panel["type"] != "row":
            assert panel["targets"] and {"type", "uid"} <= panel["datasource"].keys(), title
            letters = [target["refId"] for target in panel["targets"]]
            assert len(set(letters)) == len(letters), title


EMPTY = ("cofferdam_relay_", "cofferdam_dropped_packets_total", "cofferdam_limit_hits_total")
"""What this gate has none of: no relay, no firewall of its own, no limit that was hit."""


@needs_prometheus
def test_every_query_of_the_dashboard(site: Site, tmp_path: Path) -> None:
    site.policy.write_text(re.sub(r"(    owner: )", r"    latency_budget: 1 s\n\1", site.text()))
    with running(site.state, site.policy):
        _ask_everything(site, tmp_path)


def _call_a_person(live: Site, folder: Path) -> None:
    """A check that fails reaches a person by way of a real alertmanager, and so does its end."""
    if shutil.which("prometheus-alertmanager") is None:
        return
    folder, paged = folder / "paging", Paged()
    folder.mkdir()
    wanted = {("CofferdamCheckFailed", "log.whole"), ("CofferdamAlarm", "check-log.whole")}
    with alertmanager(folder, paged) as alerts, prometheus(folder, f"127.0.0.1:{live.management}", alerts):
        ask(live.state, "findings", found=[{"check": "log.whole", "outcome": "failed", "says": "entry 7 was changed"}])
        eventually(lambda: wanted <= paged.names("firing"))
        ask(live.state, "findings", found=[{"check": "log.whole", "outcome": "tested", "says": "so"}])
        eventually(lambda: wanted <= paged.names("resolved"))
    paged.server.shutdown()
    paged.server.server_close()
    assert any("evidence show log.whole" in one["annotations"]["summary"] for one in paged.got)


def _ask_everything(live: Site, tmp_path: Path) -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    assert len(queries) > 35
    ask(live.state, "findings", found=[{"check": "log.whole", "outcome": "tested", "says": "so"}])
    _call_a_person(live, tmp_path)
    with prometheus(tmp_path, f"127.0.0.1:{live.management}") as peer:
        for expr in queries:
            expr = expr.replace("$__rate_interval", "30s").replace("$job", ".+").replace("$conduit", ".+")
            if any(name in expr for name in EMPTY):
                peer.query(expr)  # it is a query that can be asked
                continue

            def answered(expr: str = expr) -> bool:
                with contextlib.suppress(OSError), Client(live.port) as client:
                    client.read()
                    client.write(1)
                    client.read(999)  # which no rule allows
                return bool(peer.query(expr))

            try:
                eventually(answered)
            except AssertionError:
                names = sorted(
                    {one["metric"]["__name__"] for one in peer.query(chr(123) + 'job="cofferdam"' + chr(125))}
                )
                pytest.fail(f"no series answers {expr}; {names}")
        # A busy gate's page may come too late for one look or another.
        eventually(
            lambda: (
                [one["metric"]["check"] for one in peer.query("cofferdam_check_failed == 0")].count("log.whole") == 1
            )
        )
