"""The alarms for Prometheus: its own tools find them sound, and each has a metric that is served and a way to act."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest
import yaml

from application.readiness import Code

if TYPE_CHECKING:
    from tests.conftest import Process, Start

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/alarms.yaml"
SCRAPES = ROOT / "deploy/prometheus.yaml"
TESTS = Path(__file__).parent / "alarms_test.yaml"
RUNBOOK = (ROOT / "docs/operations.md").read_text()
ALARMS = {rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed; it comes with Debian's package prometheus")
    return found


def test_prometheus_takes_the_rules(promtool: str) -> None:
    checked = subprocess.run([promtool, "check", "rules", RULES], capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(ALARMS)} rules found" in checked.stdout


def test_prometheus_takes_what_scrapes_for_them(promtool: str) -> None:
    """Without looking for the key's file, which is on the machine of Prometheus only."""
    checked = subprocess.run(
        [promtool, "check", "config", "--syntax-only", SCRAPES], capture_output=True, text=True, timeout=60
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    scrapes = yaml.safe_load(SCRAPES.read_text())
    assert [job["job_name"] for job in scrapes["scrape_configs"]] == ["jobledger"]
    assert scrapes["rule_files"] == [RULES.name]


def test_each_alarm_is_raised_by_what_it_is_for(promtool: str) -> None:
    tested = subprocess.run([promtool, "test", "rules", TESTS], capture_output=True, text=True, timeout=120)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    raised = {
        test["alertname"]
        for each in yaml.safe_load(TESTS.read_text())["tests"]
        for test in each.get("alert_rule_test", [])
        if test["exp_alerts"]
    }
    assert raised == ALARMS.keys()


def test_the_metrics_of_the_alarms_are_served(api: str, dsn: str, start_for_module: "Start") -> None:
    import httpx2

    projector: Process = start_for_module("projector", DATABASE_URL=dsn)
    projector.wait_for_line("following the log")
    text = httpx2.get(f"{api}/metrics", timeout=30).text
    served = set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))
    asked = {name for rule in ALARMS.values() for name in re.findall(r"\bjobledger_\w+", rule["expr"])}
    assert {re.sub("_bucket$", "", name) for name in asked} <= served
    codes = set(re.findall(r'^jobledger_finding{code="([^"]+)"}', text, re.MULTILINE))
    assert codes == set(get_args(Code))


@pytest.mark.parametrize("alarm", ALARMS)
def test_each_alarm_says_what_to_do(alarm: str) -> None:
    assert f"\n### {alarm}\n" in RUNBOOK
    assert ALARMS[alarm]["labels"]["severity"] in ("page", "ticket")


@pytest.mark.parametrize("code", get_args(Code))
def test_each_finding_of_readyz_is_explained(code: str) -> None:
    assert f"`{code}`" in RUNBOOK
