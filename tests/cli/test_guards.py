"""Guards of a run on this machine: what plan, run, status, watch and report say of them, with the fake trainer."""

from __future__ import annotations

import json

import pytest

from harness.cli import Project

TRIPS = {"standardErrors": 0, "inBand": {"limit": 0.6, "action": "stop"}}
MEASURED = "in iteration 1 50.0 % of the valid questions are in the band, below 60.0 %"


@pytest.mark.slow
def test_a_guard_stops_a_run_here_and_changing_it_lets_the_same_command_go_on(project: Project) -> None:
    project.write(spec__guards=TRIPS)
    stopped = project.drive("run.yaml")
    assert stopped.returncode == 4
    assert stopped.stderr.startswith(f"selfevo: guard inBand: {MEASURED}; change spec.guards.inBand")
    assert f"guard inBand has tripped: {MEASURED}" in stopped.stdout
    assert "solver-train-1" not in project.worked()

    shown = project.invoke("status", "run.yaml")
    assert "Failed" in shown.stdout and f"guard inBand has tripped: {MEASURED}" in " ".join(shown.stdout.split())
    assert "guards: 1 loud, 7 waiting, 6 blind" in shown.stdout
    page = project.root / "page.html"
    assert project.invoke("report", "run.yaml", "-o", str(page)).returncode == 0
    assert ">inBand</td><td>" in (text := page.read_text()) and MEASURED in text

    project.write(spec__guards={"standardErrors": 0, "inBand": {"limit": 0.6, "action": "warn"}})
    done = project.drive("run.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"guard inBand warns: {MEASURED}" in done.stdout and "solver-train-1" in project.worked()


@pytest.mark.slow
def test_a_run_here_rolls_back_once_and_then_stops_and_what_it_made_is_kept(project: Project) -> None:
    project.write(spec__guards={**TRIPS, "inBand": {"limit": 0.6, "action": "rollback"}, "maxRollbacks": 1})
    stopped = project.drive("run.yaml")
    back = f"goes back to the base, and on from there with another seed: guard inBand, {MEASURED}"
    assert (stopped.returncode, stopped.stdout.count(back)) == (4, 1)
    assert "raise spec.guards.maxRollbacks, 1 rollbacks are done, or change spec.guards.inBand" in stopped.stderr
    assert project.worked().count("challenger-train-1") == 2 and "solver-train-1" not in project.worked()
    assert len(list((project.store / "default" / "challenger-train").iterdir())) == 2  # nothing was deleted
    assert back in " ".join(project.invoke("status", "run.yaml").stdout.split())

    project.write(spec__guards={"standardErrors": 0, "inBand": {"limit": 0.6, "action": "warn"}})
    done = project.drive("run.yaml")
    assert done.returncode == 0 and project.worked().count("challenger-train-1") == 2
    plan = json.loads(project.invoke("plan", "run.yaml", "-o", "json").stdout)
    assert all(step["exists"] for step in plan["steps"])
    status = project.recorded().status
    assert status is not None and {step.key for step in status.steps} == {step["key"] for step in plan["steps"]}
    assert not set(status.rollbacks[0].abandoned.values()) & {step.key for step in status.steps}


def test_plan_says_which_guards_will_be_blind(project: Project) -> None:
    assert "guards:" not in project.invoke("plan", "run.yaml").stdout
    project.write(spec__guards={"length": {"action": "ignore"}})
    shown = project.invoke("plan", "run.yaml").stdout
    assert "guards: rewardGap, malformed, diversity, truncation, entropy\n" in shown
    assert "guard zeroSpread will be blind: an update has " in shown
    assert "guard inBand will be blind: a rollout has " in shown and "guard kl will be blind: it compares with" in shown
    assert "guard labelAccuracy will be blind: there is no spec.rollout.oracle\n" in shown
    plan = json.loads(project.invoke("plan", "run.yaml", "-o", "json").stdout)
    assert (
        list(plan["blindGuards"])
        == ["heldOut", "flips", "consensusWithoutGain", "labelAccuracy", "similarity", "inBand", "zeroSpread", "kl"]
        and "length" not in plan["guards"]
    )
    assert plan["warningGuards"] == {}
    project.write(spec__guards={"truncation": {"patience": 3}})
    shown, plan = (project.invoke("plan", "run.yaml", *how).stdout for how in ((), ("-o", "json")))
    assert list(json.loads(plan)["warningGuards"]) == ["truncation"]
    assert "guard truncation may warn and will never act: it acts when 3 measurements in a row are beyond its " in shown


def test_a_guard_that_makes_no_sense_is_reported_in_a_sentence(project: Project) -> None:
    for guards, message in (
        ({"speed": {}}, "spec.guards.speed"),
        ({"kl": {"limit": 0.5}}, "spec.guards.kl.limit"),
        ({"kl": {"action": "panic"}}, "spec.guards.kl.action"),
        ({"truncation": {"warnAt": 0.3}}, "spec.guards.truncation: warnAt 0.3 is above limit 0.15, so it would never"),
        ({"length": {"patience": 0}}, "spec.guards.length.patience"),
        ({"standardErrors": -1}, "spec.guards.standardErrors"),
    ):
        project.write(spec__guards=guards)
        refused = project.invoke("plan", "run.yaml")
        assert refused.returncode == 2 and message in refused.stderr, refused.stderr
