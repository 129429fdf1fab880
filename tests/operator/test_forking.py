"""A run that goes on from an iteration of another one: it finds what it begins with once, and then needs it no more."""

from __future__ import annotations

from typing import Any

import pytest
from test_reconcile import NOW, at
from test_sharing import FIRST, SECOND, Two

from harness.runs import TRIAD, make_run
from selfevo_contract.artifacts import SCHEMA_VERSION
from selfevo_contract.phases import StepModelRef
from selfevo_contract.plan import Plan, plan, plan_of
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.status import Fork, Rollback, RunStatus, StepStatus, Usage
from selfevo_core.policies import NotFound
from selfevo_core.policies.forking import beginning_of
from selfevo_core.reconcile import ObservedAttempt, Outcome, Start, attempt_name, reconcile


def recorded(planned: Plan, last: int) -> list[StepStatus]:
    """What is done when iteration ``last`` is."""
    return [
        StepStatus(name=s.name, phase=s.phase, iteration=s.iteration, key=s.key, state="Succeeded")
        for s in planned.steps
        if s.iteration <= last
    ]


def source(last: int, phase: str = "Running", **changes: Any) -> SelfEvolutionRun:
    """The run ``first``, of three iterations, done up to ``last``."""
    run = make_run(**{"metadata__name": "first", "spec__iterations": 3, **changes})
    status = RunStatus(schema_version=SCHEMA_VERSION, phase=phase, steps=recorded(plan(run.spec), last))  # type: ignore[arg-type]
    return run.model_copy(update={"status": status})


def forking(iteration: int = 2, **changes: Any) -> SelfEvolutionRun:
    asked = {"run": "first", "iteration": iteration}
    return make_run(**{"spec__iterations": 4, "spec__forkFrom": asked, **changes})


def begun(run: SelfEvolutionRun, other: SelfEvolutionRun) -> SelfEvolutionRun:
    found = beginning_of(run, other)
    assert isinstance(found, Fork), found
    return run.model_copy(update={"status": RunStatus(fork=found)})


def with_steps(run: SelfEvolutionRun, steps: list[StepStatus]) -> SelfEvolutionRun:
    """The same with a record of these steps."""
    status = (run.status or RunStatus()).model_copy(update={"steps": steps, "schema_version": SCHEMA_VERSION})
    return run.model_copy(update={"status": status})


def of_step(other: SelfEvolutionRun, name: str) -> str:
    return plan_of(other.spec, other.status).by_name[name].key


def test_it_begins_with_the_models_of_that_iteration_and_has_settings_of_its_own() -> None:
    other = source(2)
    run = begun(forking(2, spec__solver__grpo__maxSteps=7, spec__rollout__replay={"share": 0.5}), other)
    assert run.status is not None and run.status.fork == Fork(
        run="first", iteration=2, solver=of_step(other, "solver-train-2"),
        challenger=of_step(other, "challenger-train-2"), curriculum=of_step(other, "solver-rollout-2"),
    )  # fmt: skip
    planned = plan_of(run.spec, run.status)
    assert [step.name for step in planned.steps] == [
        *("evaluate-0", "evaluate-2"),
        *("challenger-train-3", "solver-rollout-3", "solver-train-3", "evaluate-3"),
        *("challenger-train-4", "solver-rollout-4", "solver-train-4", "evaluate-4"),
    ]
    training: Any = planned.by_name["challenger-train-3"].inputs
    assert training.challenger.key == run.status.fork.challenger and training.solver.key == run.status.fork.solver
    rollout: Any = planned.by_name["solver-rollout-3"].inputs
    assert rollout.earlier == run.status.fork.curriculum
    assert planned.by_name["solver-rollout-3"].parents == ("challenger-train-3",)
    assert planned.by_name["challenger-train-3"].parents == ()
    for name in ("evaluate-0", "evaluate-2"):  # found in the store
        assert planned.by_name[name].key == of_step(other, name)


def test_a_fork_with_equal_settings_has_the_other_runs_keys() -> None:
    other = source(1)
    planned = plan_of((run := begun(forking(1, spec__iterations=3), other)).spec, run.status)
    theirs = plan(other.spec).by_name
    assert {name: step.key for name, step in planned.by_name.items()} == {
        name: theirs[name].key for name in planned.by_name
    }


def test_iteration_0_is_the_base() -> None:
    run = begun(forking(0), source(0))
    assert plan_of(run.spec, run.status).steps == plan(make_run(spec__iterations=4).spec).steps


def test_a_control_arm_gives_the_base() -> None:
    other = source(1, spec__challenger__grpo__maxSteps=0)
    run = begun(forking(1), other)
    assert run.status is not None and run.status.fork is not None and run.status.fork.challenger is None
    planned = plan_of(run.spec, run.status)
    assert planned.challengers[1].kind == "base" and isinstance(planned.solvers[1], StepModelRef)


def test_a_fork_goes_on_with_the_judge_of_its_iteration() -> None:
    """Whether that step's judge was promoted is in its output: the key stands for whichever judge it left in place."""
    other = source(2, **TRIAD)
    run = begun(forking(2, **TRIAD, spec__solver__grpo__maxSteps=7), other)
    assert run.status is not None and run.status.fork is not None
    assert run.status.fork.verifier == of_step(other, "verifier-train-2")
    steps = plan_of(run.spec, run.status).by_name
    judge = StepModelRef(phase="verifier-train", key=of_step(other, "verifier-train-2"))
    asking: list[Any] = [steps[name].inputs for name in ("challenger-train-3", "solver-rollout-3", "verifier-train-3")]
    assert [inputs.judge for inputs in asking] == [judge] * 3
    paid: Any = steps["solver-train-3"].inputs
    assert paid.judge.key == steps["verifier-train-3"].key
    # The first judge, which pairs are measured by, is found in the store where both runs begin it alike.
    assert asking[-1].first_judge.key == steps["verifier-train-0"].key == of_step(other, "verifier-train-0")
    assert judge.key not in {step.key for step in steps.values()}, "it is not trained again"


def test_it_waits_for_the_judge_of_its_iteration() -> None:
    other = source(2, **TRIAD)
    assert other.status is not None
    kept = [step for step in other.status.steps if step.name != "verifier-train-2"]
    found = beginning_of(forking(2, **TRIAD), with_steps(other, kept))
    assert (
        isinstance(found, NotFound) and not found.final and "iteration 2 of run first is not done yet" in found.message
    )


@pytest.mark.parametrize(
    ("theirs", "ours", "judge"),
    [
        ({"maxSteps": 0}, {}, "verifier-train-0"),  # the first one stayed, and is trained from now on
        ({}, {"maxSteps": 0}, "verifier-train-2"),  # it stays as it is from now on
    ],
)
def test_a_judge_may_be_frozen_before_a_fork_or_after_it(
    theirs: dict[str, Any], ours: dict[str, Any], judge: str
) -> None:
    def changed(over: dict[str, Any]) -> dict[str, Any]:
        return {**TRIAD, "spec__verifier": {**TRIAD["spec__verifier"], **over}}

    other = source(2, **changed(theirs))
    run = begun(forking(2, **changed(ours)), other)
    steps = plan_of(run.spec, run.status).by_name
    inputs: Any = steps["challenger-train-4"].inputs
    assert steps["challenger-train-3"].inputs.judge.key == of_step(other, judge)  # type: ignore[union-attr]
    assert inputs.judge.key == (of_step(other, judge) if ours else steps["verifier-train-3"].key)


def test_a_third_role_may_come_or_go_with_a_fork() -> None:
    with_judge = begun(forking(2, **TRIAD), source(2))
    steps = plan_of(with_judge.spec, with_judge.status).by_name
    first: Any = steps["challenger-train-3"].inputs
    assert first.judge.key == steps["verifier-train-0"].key, "it begins with the first judge"
    other = source(2, **TRIAD)
    without = begun(forking(2), other)
    assert without.status is not None and without.status.fork is not None and without.status.fork.verifier
    planned = plan_of(without.spec, without.status)
    assert not [step for step in planned.steps if step.phase == "verifier-train"]
    assert all(getattr(step.inputs, "judge", None) is None for step in planned.steps)
    # One that forks that run before it has trained a judge itself begins with the same one.
    again = begun(
        forking(2, **TRIAD), begun(forking(2, **TRIAD), other).model_copy(update={"metadata": other.metadata})
    )
    assert again.status is not None and again.status.fork is not None
    assert again.status.fork.verifier == of_step(other, "verifier-train-2")


def test_it_takes_what_the_other_runs_record_says_is_current() -> None:
    other = source(3)
    assert other.status is not None
    before = of_step(other, "solver-train-2")
    gone = {s.name: s.key for s in other.status.steps if s.iteration >= 2}
    back = [Rollback(iteration=2, guard="flips", abandoned=gone)]
    kept = [s for s in other.status.steps if s.iteration < 2]
    other = other.model_copy(update={"status": other.status.model_copy(update={"rollbacks": back, "steps": kept})})
    found = beginning_of(forking(2), other)
    assert isinstance(found, NotFound) and not found.final, "what it abandoned is nothing to go on from"
    again = other.status.model_copy(update={"steps": recorded(plan_of(other.spec, other.status), 2)})
    run = begun(forking(2), other.model_copy(update={"status": again}))
    assert run.status is not None and run.status.fork is not None and run.status.fork.solver not in (None, before)


def test_a_fork_can_be_forked() -> None:
    second = begun(forking(1), source(1)).model_copy(update={"metadata": make_run(metadata__name="first").metadata})
    assert second.status is not None
    done = second.status.model_copy(
        update={"schema_version": SCHEMA_VERSION, "steps": recorded(plan_of(second.spec, second.status), 2)}
    )
    second = second.model_copy(update={"status": done})
    third = begun(forking(2), second)
    assert third.status is not None and third.status.fork is not None
    assert third.status.fork.solver == of_step(second, "solver-train-2")
    # what it began with itself
    fork = begun(forking(1, spec__seed=5), second).status
    assert fork is not None and fork.fork == done.fork


@pytest.mark.parametrize(
    ("iteration", "other", "sentence"),
    [
        (
            5,
            {},
            "spec.forkFrom.iteration is 5, and run first has 3 iterations; name one of them in a",
        ),
        (2, {"spec__storage__uri": "s3://elsewhere/x"}, "whose spec.storage is s3://elsewhere/x, not file:///store"),
        (2, {"spec__model__digest": "e" * 64}, "whose spec.model.uri is file:///models/base, another model"),
        (2, {"spec__solver__grpo__lora": {"rank": 4}}, "whose roles have another grpo.lora"),
        (
            1,
            {"spec__forkFrom": {"run": "zeroth", "iteration": 2}},
            "run first begins with iteration 2 of run zeroth; fork that in a new run",
        ),
    ],
)
def test_what_can_never_be_is_refused_with_a_sentence(iteration: int, other: dict[str, Any], sentence: str) -> None:
    run = forking(iteration, spec__iterations=9)
    found = beginning_of(run, source(0, **other))
    assert isinstance(found, NotFound) and found.final and sentence in found.message
    outcome = reconcile(run, plan(run.spec), [], NOW, beginning=found)
    assert (outcome.status.phase, outcome.actions, outcome.wake_at) == ("Failed", (), None)
    assert {(c.reason, c.message) for c in outcome.status.conditions} == {("ForkRefused", found.message)}


def test_it_cannot_fork_itself_nor_what_another_version_has_made() -> None:
    run = forking(metadata__name="first")
    itself = beginning_of(run, run)
    assert isinstance(itself, NotFound) and itself.final and "the run itself" in itself.message
    other = source(2)
    assert other.status is not None
    older = other.model_copy(update={"status": other.status.model_copy(update={"schema_version": SCHEMA_VERSION - 1})})
    found = beginning_of(forking(), older)
    assert isinstance(found, NotFound) and found.final and "another version of selfevo" in found.message


@pytest.mark.parametrize(
    ("other", "sentence", "stalled"),
    [
        (None, "spec.forkFrom.run is 'first', and there is no such run in this namespace; create it, or", False),
        (source(1), "iteration 2 of run first is not done yet; this run begins when it is, or", False),
        (source(1, "Failed"), "iteration 2 of run first is not done, and that run has Failed; this run begins", True),
        (source(1).model_copy(update={"status": None}), "iteration 2 of run first is not done yet;", False),
    ],
)
def test_it_waits_with_a_sentence(other: SelfEvolutionRun | None, sentence: str, stalled: bool) -> None:
    run = forking()
    found = beginning_of(run, other)
    assert isinstance(found, NotFound) and not found.final
    outcome = reconcile(run, plan(run.spec), [], NOW, beginning=found)
    assert (outcome.status.phase, outcome.actions, outcome.wake_at) == ("Pending", (), at(60))
    conditions = {c.type: c for c in outcome.status.conditions}
    assert conditions["Ready"].reason == "ForkPending" and sentence in conditions["Ready"].message
    assert (conditions["Stalled"].status, conditions["Reconciling"].status) == (str(stalled), str(not stalled))


def reconciled(run: SelfEvolutionRun, seconds: float = 0, found: Fork | NotFound | None = None) -> Outcome:
    return reconcile(run, plan_of(run.spec, run.status), [], at(seconds), beginning=found)


def test_what_it_begins_with_is_recorded_before_anything_starts() -> None:
    run = forking()
    found = beginning_of(run, source(2))
    outcome = reconciled(run, found=found)  # type: ignore[arg-type]
    assert outcome.actions == () and outcome.wake_at == NOW and outcome.status.fork is not None
    assert outcome.status.fork.at == "2026-01-01T12:00:00.000Z"
    after = run.model_copy(update={"status": outcome.status})
    started = [action.step.name for action in reconciled(after, 1).actions if isinstance(action, Start)]
    assert started == ["evaluate-0"]


def test_a_review_asks_for_the_forks_own_iterations_alone() -> None:
    run = begun(forking(2, spec__review={"every": True}), source(2))
    assert run.status is not None
    done = recorded(plan_of(run.spec, run.status), 2)
    run = with_steps(run, done)
    outcome = reconciled(run)
    assert outcome.status.phase == "Suspended"
    assert "iteration 3 waits for a person" in outcome.status.conditions[0].message


def test_a_guard_judges_the_forks_own_iterations_and_goes_back_no_further_than_the_first_of_them() -> None:
    guards = {"inBand": {"limit": 0.6, "action": "rollback", "patience": 1}}
    run = begun(forking(2, spec__guards=guards), source(2))
    assert run.status is not None
    steps = [
        step.model_copy(update={"metrics": {"in_band_share": 0.1}}) if step.phase == "solver-rollout" else step
        for step in recorded(plan_of(run.spec, run.status), 3)
    ]
    run = with_steps(run, steps)
    (back,) = reconciled(run).status.rollbacks
    assert back.iteration == 3 and set(back.abandoned) == {s.name for s in steps if s.iteration == 3}


def test_the_best_of_a_fork_may_be_what_it_began_with() -> None:
    run = begun(forking(2), source(2))
    assert run.status is not None and run.status.fork is not None
    scores = {0: 0.1, 2: 0.9, 3: 0.5}
    steps = [
        step.model_copy(update={"metrics": {"mean": scores[step.iteration]}}) if step.phase == "evaluate" else step
        for step in recorded(plan_of(run.spec, run.status), 3)
    ]
    status = reconciled(with_steps(run, steps)).status
    assert [line.iteration for line in status.iterations] == [0, 2, 3]
    assert status.best is not None and status.best.iteration == 2
    assert status.model_uri == f"file:///store/default/solver-train/{run.status.fork.solver}"


def test_the_best_that_is_promoted_may_be_what_it_began_with() -> None:
    guards = {"inBand": {"limit": 0.6, "action": "promoteBest", "patience": 1}}
    run = begun(forking(2, spec__guards=guards), source(2))
    assert run.status is not None and run.status.fork is not None
    figures = {"solver-rollout": {"in_band_share": 0.1}, "evaluate": {"mean": 0.5}}
    steps = [
        step.model_copy(update={"metrics": figures.get(step.phase, {})})
        for step in recorded(plan_of(run.spec, run.status), 3)
    ]
    status = reconciled(with_steps(run, steps)).status
    assert (status.phase, status.best and status.best.iteration) == ("Succeeded", 0), "the earliest of equals"
    better = [s.model_copy(update={"metrics": {"mean": 0.9}}) if s.name == "evaluate-2" else s for s in steps]
    status = reconciled(with_steps(run, better)).status
    assert status.phase == "Succeeded" and status.conditions[0].reason == "GuardTripped"
    assert status.model_uri is not None and status.model_uri.endswith(run.status.fork.solver or "")


def test_a_budget_counts_what_the_fork_uses_itself() -> None:
    other = source(2)
    assert other.status is not None
    spent = other.status.model_copy(update={"usage": Usage(counted_at="2026-01-01T12:00:00Z", wall_hours=100.0)})
    run = begun(forking(2, spec__budget={"wallTime": "1h"}), other.model_copy(update={"status": spent}))
    step = plan_of(run.spec, run.status).steps[0]
    name = attempt_name("demo", step, 1)
    works = ObservedAttempt(name=name, step=step.name, key=step.key, number=1, state="Running", started_at=NOW)

    def after(seconds: float, before: RunStatus | None) -> RunStatus:
        now = run.model_copy(update={"status": before})
        return reconcile(now, plan_of(run.spec, before), [works], at(seconds)).status

    status = after(0, run.status)
    assert status.phase == "Running"
    status = after(1800, status)
    assert status.phase == "Running" and status.usage is not None and status.usage.wall_hours == 0.5
    assert after(3700, status).conditions[0].reason == "BudgetExceeded"


# --- the operator


class Forked(Two):
    """A run that goes on from the first iteration of the other one."""

    def __init__(self, **changes: Any) -> None:
        asked = {"run": "demo", "iteration": 1}
        super().__init__(**{"spec__forkFrom": asked, "spec__seed": 9, **changes})

    @property
    def fork(self) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.second.run["status"].get("fork")
        return found

    def do(self, step: str) -> None:
        """The other run's next step is done."""
        self.reconcile(1)
        (name,) = [name for name in self.names if f"demo-{step}" in name]
        self.finish(name)
        self.reconcile(1)
        self.reconcile(1)


def test_a_run_waits_until_the_other_one_is_so_far_and_then_needs_it_no_more() -> None:
    world = Forked()
    assert (world.of_second() or 0) <= 60 and world.reason()[0] == "ForkPending"
    world.do("solver-rollout-1")
    assert SECOND in world.freed, "it hears of each change of the other run"
    world.freed.clear()
    world.of_second()
    assert world.fork is None
    world.do("solver-train-1")
    assert SECOND in world.freed
    world.of_second()
    assert world.fork is not None and world.fork["iteration"] == 1
    assert [event["reason"] for event in world.cluster.events if "Forked" in event["reason"]] == ["Forked"]
    key = world.fork["solver"]
    # The other run is gone.
    uid = world.cache.runs[FIRST].uid
    world.cache.drop_run(FIRST, uid)
    world.of_second()
    (mine,) = [name for name in world.names if name.startswith("other-")]
    assert "solver-rollout-2" in mine
    config = str(world.cluster.jobs[mine]["spec"]["template"]["spec"]["containers"][0]["env"])
    assert key in config and world.fork["solver"] == key


def test_a_run_that_is_applied_before_the_one_that_it_forks_waits_for_it() -> None:
    world = Forked()
    first = world.cluster.run
    world.cache.drop_run(FIRST, first["metadata"]["uid"])
    world.of_second()
    assert world.reason() == (
        "ForkPending",
        "nothing is planned yet, spec.forkFrom.run is 'demo', and there is no such run in this namespace; create it, "
        "or name another in a new run",
    )
    world.cluster.run = world.cluster.stored(first, "run-3")
    world.cache.put_run(world.cluster.run)
    world.reconcile(1)
    assert SECOND in world.freed
    world.of_second(5)
    assert "iteration 1 of run demo is not done yet" in world.reason()[1]
