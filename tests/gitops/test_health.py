"""What kstatus, Argo CD and Flux make of a run, in each of its states (tests/harness/states.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.health import FluxError, argo, flux
from harness.states import STATES, State, Story, kstatus

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy" / "gitops"
Object = dict[str, Any]
every_state = pytest.mark.parametrize("state", STATES.values(), ids=STATES.keys())


@pytest.mark.slow
@every_state
def test_kstatus_reads_the_conditions_as_they_are_meant(state: State) -> None:
    assert kstatus(state.story().shown()) == state.kstatus


@every_state
def test_argo_cd_shows_its_health(state: State) -> None:
    run = state.story().shown()
    health = argo(run)
    assert health["status"] == state.argo
    ready = next((c for c in run["status"].get("conditions", []) if c["type"] == "Ready"), None)
    if state.argo in ("Degraded", "Suspended", "Healthy"):
        assert ready is not None and health["message"] == f"{ready['reason']}: {ready['message']}"
    assert health["message"]


@every_state
def test_flux_waits_for_the_end_or_for_the_beginning(state: State) -> None:
    run = state.story().shown()
    assert flux("flux-finished.yaml", run) == state.finished
    assert flux("flux-taken.yaml", run) == state.taken


def test_the_states_are_all_that_the_documentation_has() -> None:
    """Each line of its table is met by a state that kstatus reads as the line says, and no state is without a line."""
    page = (ROOT / "docs" / "states.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if "| False |" in line]
    lines = {(phase, *row[1:7]): (row[7], row[8]) for row in rows for phase in row[0].split(",")[0].split(" or ")}
    met = {}
    for state in STATES.values():
        run = state.story().shown()
        if state.kstatus == "Terminating" or run["status"].get("observedGeneration") != run["metadata"]["generation"]:
            continue  # it says of an older spec, or of nothing
        kinds = {c["type"]: c["status"] for c in run["status"]["conditions"]}
        met[run["status"]["phase"], *kinds.values()] = (state.kstatus, state.argo)
    assert len(lines) == 7 and met == lines


@pytest.mark.slow
def test_what_another_writer_adds_changes_nothing() -> None:
    """Its own condition, before ours: the order is not a promise, and kstatus goes by it."""
    foreign = {"type": "Audited", "status": "True", "reason": "Seen", "message": "by somebody"}
    for state in STATES.values():
        run = state.story().shown()
        if "conditions" in run["status"]:
            run["status"]["conditions"] = [foreign, *reversed(run["status"]["conditions"])]
            assert (kstatus(run), argo(run)["status"]) == (state.kstatus, state.argo)
            assert flux("flux-finished.yaml", run) == state.finished


def test_a_run_from_before_the_status_had_a_default_is_not_healthy() -> None:
    run = Story().shown()
    del run["status"]
    assert argo(run) == {"status": "Progressing", "message": "the operator has not reconciled it yet"}
    for file in ("flux-finished.yaml", "flux-taken.yaml"):
        with pytest.raises(FluxError, match="status"):  # an error of the check, which is no health either
            flux(file, run)


def test_the_config_map_has_the_script_that_is_tested() -> None:
    patch = yaml.safe_load((DEPLOY / "argocd-cm.yaml").read_text())
    assert patch == {
        "data": {
            "resource.customizations.health.selfevo.dev_SelfEvolutionRun": (DEPLOY / "argocd-health.lua").read_text()
        }
    }
