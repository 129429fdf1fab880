"""The dashboard's panels about runs, evaluated by Prometheus' own engine on the series that the operator tells."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from harness.series import STATUS, series
from selfevo_operator.observed.figures import figures_of
from selfevo_operator.runtime.metrics import Metrics

DASHBOARD = Path(__file__).parents[2] / "charts" / "selfevo" / "files" / "dashboard.json"


@pytest.mark.slow
def test_every_panel_of_a_run_shows_what_the_operator_tells(promtool: Path, tmp_path: Path) -> None:
    registry = Metrics(list, lambda: 0, list, lambda: [("lab", "demo", figures_of(STATUS))]).registry
    samples = {name.replace("{", '{namespace="ops",', 1): value for name, value in series(registry).items()}
    panels = [
        panel for panel in json.loads(DASHBOARD.read_text())["panels"] if "run_namespace" in str(panel["targets"])
    ]
    assert len(panels) == 9
    queries = [filled(target["expr"]) for panel in panels for target in panel["targets"]]
    one = [{"labels": "{}", "value": 1}]
    tests = [{"expr": f"count({query}) > bool 0", "eval_time": "5m", "exp_samples": one} for query in queries]
    (by_iteration,) = (panel["targets"][0]["expr"] for panel in panels if panel["title"] == "Score by iteration")
    scores = [{"labels": f'{{iteration="{n}"}}', "value": score} for n, score in ((0, 0.478), (1, 0.597))]
    tests.append({"expr": filled(by_iteration), "eval_time": "5m", "exp_samples": scores})
    inputs = [{"series": name, "values": f"{value}+0x10"} for name, value in samples.items()]
    case = {"tests": [{"interval": "1m", "input_series": inputs, "promql_expr_test": tests}]}
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(case))
    command = [promtool, "test", "rules", tmp_path / "case.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def filled(query: str) -> str:
    """As Grafana asks it, when run lab/demo of the operator in namespace ops is chosen."""
    for name, value in (("$run_namespace", "lab"), ("$namespace", "ops"), ("$run", "demo")):
        query = query.replace(name, value)
    return query
