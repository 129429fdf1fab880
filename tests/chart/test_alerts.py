"""Alerts and dashboard: they parse, they name metrics that the operator has, and each alert fires when it should."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import chart
from harness.gotools import GoTool
from selfevo_operator.runtime.metrics import Metrics
from selfevo_operator.writes import events

pytestmark = pytest.mark.slow

NAMESPACE = 'namespace="selfevo-system"'
METRIC = re.compile(r"\b((?:selfevo|process)_[a-z_]+)\b")


@pytest.fixture(scope="module")
def groups(helm: GoTool) -> list[dict[str, Any]]:
    """The groups of the PrometheusRule, as Prometheus' operator would hand them on."""
    values = {"metrics": {"prometheusRule": {"enabled": True}}}
    (rule,) = chart.of_kind(chart.manifests(chart.template(values, tool=helm)), "PrometheusRule")
    return rule["spec"]["groups"]


@pytest.fixture(scope="module")
def dashboard(helm: GoTool) -> dict[str, Any]:
    values = {"metrics": {"dashboard": {"enabled": True}}}
    found = chart.of_kind(chart.manifests(chart.template(values, tool=helm)), "ConfigMap")
    (page,) = (one for one in found if "selfevo.json" in one["data"])
    return json.loads(page["data"]["selfevo.json"])


@pytest.fixture(scope="module")
def metric_names() -> set[str]:
    """What the operator's /metrics may show."""
    registry = Metrics(list, lambda: 0).registry
    names = set()
    for family in registry.collect():
        names |= {family.name} | {sample.name for sample in family.samples}
        if family.type == "counter":
            names.add(f"{family.name}_total")
        if family.type == "histogram":
            names |= {f"{family.name}_{part}" for part in ("bucket", "sum", "count")}
    return names


def queries(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def check(promtool: Path, *arguments: str | Path) -> None:
    done = subprocess.run([promtool, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_finds_nothing_wrong_with_the_rules(promtool: Path, groups: list[dict[str, Any]], tmp_path: Path):
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump({"groups": groups}))
    check(promtool, "check", "rules", "--lint=all", "--lint-fatal", rules)
    names = [rule["alert"] for group in groups for rule in group["rules"]]
    assert len(names) == len(set(names)) >= 8
    assert all({"summary", "description"} <= set(rule["annotations"]) for group in groups for rule in group["rules"])


def test_rules_and_dashboard_name_metrics_that_the_operator_has(
    groups: list[dict[str, Any]], dashboard: dict[str, Any], metric_names: set[str]
):
    expressions = [rule["expr"] for group in groups for rule in group["rules"]] + queries(dashboard)
    named = {name for expression in expressions for name in METRIC.findall(expression)}
    assert named - metric_names == set()
    assert {name for name in named if name.startswith("selfevo_")} >= {"selfevo_runs", "selfevo_queue_oldest_seconds"}


def test_the_ordinary_reasons_are_those_that_events_tell(groups: list[dict[str, Any]]):
    (stuck,) = (rule for group in groups for rule in group["rules"] if rule["alert"] == "SelfevoRunsStuck")
    ordinary = re.compile(re.search(r'reason!~"([^"]*)"', stuck["expr"])[1])
    reasons = set(re.findall(r'Fact\(\s*"([A-Za-z]+)"', inspect.getsource(events))) | {
        "Succeeded",
        "Failed",
        "Suspended",
    }
    assert {"StepStarted", "StepFailed", "AttemptFailed", "Resumed"} <= reasons
    assert [reason for reason in sorted(reasons) if not ordinary.fullmatch(reason)] == []
    assert not ordinary.fullmatch("CreateRefused")


def test_the_dashboards_queries_parse(promtool: Path, dashboard: dict[str, Any], tmp_path: Path):
    expressions = [query.replace("$namespace", "x").replace("$__rate_interval", "5m") for query in queries(dashboard)]
    recorded = [{"record": f"panel:query:{index}", "expr": query} for index, query in enumerate(expressions)]
    rules = tmp_path / "queries.yaml"
    rules.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))
    check(promtool, "check", "rules", rules)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"]) >= 10


# Values at one-minute intervals, in promtool's notation: a+bxn is a and then n times b more; _ is no value.
WENT_ON = "selfevo_run_went_on_timestamp_seconds"
QUIET = {
    f"selfevo_jobs{{{NAMESPACE}}}": "3+0x1800",
    f"selfevo_queue_oldest_seconds{{{NAMESPACE}}}": "0+0x1800",
    f'selfevo_watch_missed_total{{{NAMESPACE},resource="jobs"}}': "0+0x1800",
    f'selfevo_watch_events_total{{{NAMESPACE},resource="jobs"}}': "0+1x1800",
    f'selfevo_transitions_total{{{NAMESPACE},reason="StepStarted"}}': "0+0.05x1800",
    f'selfevo_runs{{{NAMESPACE},phase="Running"}}': "2+0x1800",
    f'{WENT_ON}{{{NAMESPACE},run_namespace="lab",run="busy"}}': "1+1x1800",
    f'selfevo_runs{{{NAMESPACE},phase="Failed"}}': "5+0x1800",
    f"selfevo_reconcile_errors_total{{{NAMESPACE}}}": "0+0.1x1800",
    f'selfevo_api_calls_total{{{NAMESPACE},verb="create",resource="jobs",code="201"}}': "0+1x1800",
}
STUCK = f'selfevo_transitions_total{{{NAMESPACE},reason="CreateRefused"}}'
REFUSED = f'selfevo_api_calls_total{{{NAMESPACE},verb="create",resource="jobs",code="403"}}'

FIRES = {
    "the operator's metrics end": ("SelfevoOperatorAbsent", {f"selfevo_jobs{{{NAMESPACE}}}": "3+0x1700 _x100"}),
    "a run waits": ("SelfevoQueueOld", {f"selfevo_queue_oldest_seconds{{{NAMESPACE}}}": "0+0x1780 70+60x20"}),
    "lists show what the watch does not": (
        "SelfevoWatchSilent",
        {
            f'selfevo_watch_missed_total{{{NAMESPACE},resource="jobs"}}': "0+0x1760 0+2x40",
            f'selfevo_watch_events_total{{{NAMESPACE},resource="jobs"}}': "0+1x1760 1760+0x40",
        },
    ),
    "a run is stuck for the first time": ("SelfevoRunsStuck", {STUCK: "_x1795 1+0x5"}),
    "a run is stuck again": ("SelfevoRunsStuck", {STUCK: "4+0x1795 5+0x5"}),
    "one more run has failed": (
        "SelfevoRunsFailed",
        {f'selfevo_runs{{{NAMESPACE},phase="Failed"}}': "5+0x1795 6+0x5"},
    ),
    "no step of one run moves for a day, while those of others do": (
        "SelfevoNoProgress",
        {f'{WENT_ON}{{{NAMESPACE},run_namespace="lab",run="hangs"}}': "7+0x1800"},
    ),
    "the same, and the operator was started anew meanwhile": (
        "SelfevoNoProgress",
        {
            f'{WENT_ON}{{{NAMESPACE},pod="a",run_namespace="lab",run="hangs"}}': "7+0x900",
            f'{WENT_ON}{{{NAMESPACE},pod="b",run_namespace="lab",run="hangs"}}': "_x900 7+0x900",
        },
    ),
    "reconciles fail": (
        "SelfevoReconcileErrors",
        {f"selfevo_reconcile_errors_total{{{NAMESPACE}}}": "0+0x1760 0+30x40"},
    ),
    "a right is missing": ("SelfevoRightsMissing", {REFUSED: "0+0x1790 0+2x10"}),
}
STAYS_QUIET = {
    "all is well": {},
    "the operator was started anew, in another pod": {
        f"selfevo_jobs{{{NAMESPACE}}}": "3+0x1790 _x10",
        f'selfevo_jobs{{{NAMESPACE},pod="new"}}': "_x1792 0 3+0x7",
        f'selfevo_runs{{{NAMESPACE},phase="Failed"}}': "5+0x1790 _x10",
        f'selfevo_runs{{{NAMESPACE},phase="Failed",pod="new"}}': "_x1792 0 5+0x7",
    },
    "the watch is late once": {
        f'selfevo_watch_missed_total{{{NAMESPACE},resource="jobs"}}': "0+0x1790 1+0x10",
    },
    "runs were stuck long ago": {STUCK: "1+0x1800"},
    "nothing runs": {
        f'selfevo_runs{{{NAMESPACE},phase="Running"}}': "0+0x1800",
        f'selfevo_transitions_total{{{NAMESPACE},reason="StepStarted"}}': "7+0x1800",
        f'{WENT_ON}{{{NAMESPACE},run_namespace="lab",run="ended"}}': "7+0x900 _x900",
    },
    "another operator is in trouble": {'selfevo_queue_oldest_seconds{namespace="other"}': "900+0x1800"},
}


def fired(promtool: Path, groups: list[dict[str, Any]], folder: Path, series: dict[str, str], alerts: set[str]) -> None:
    """Asserts that 30 hours in, exactly ``alerts`` fire."""
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    names = [rule["alert"] for group in groups for rule in group["rules"]]
    values = {**QUIET, **series}
    count = [
        {
            "expr": f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) or vector(0)',
            "eval_time": "1800m",
            "exp_samples": [{"labels": "{}", "value": 1 if name in alerts else 0}],
        }
        for name in names
    ]
    case = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "5m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": points} for name, points in values.items()],
                "promql_expr_test": count,
            }
        ],
    }
    (folder / "case.yaml").write_text(yaml.safe_dump(case))
    check(promtool, "test", "rules", folder / "case.yaml")


@pytest.mark.parametrize("case", FIRES)
def test_an_alert_fires(case: str, promtool: Path, groups: list[dict[str, Any]], tmp_path: Path):
    alert, series = FIRES[case]
    fired(promtool, groups, tmp_path, series, {alert})


@pytest.mark.parametrize("case", STAYS_QUIET)
def test_no_alert_fires(case: str, promtool: Path, groups: list[dict[str, Any]], tmp_path: Path):
    fired(promtool, groups, tmp_path, STAYS_QUIET[case], set())


def test_every_alert_is_seen_to_fire(groups: list[dict[str, Any]]):
    assert {rule["alert"] for group in groups for rule in group["rules"]} == {alert for alert, _ in FIRES.values()}
