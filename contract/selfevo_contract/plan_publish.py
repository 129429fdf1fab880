"""What is published of a run, and where: the part of the plan that a run with `spec.publish` has beside. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from selfevo_contract.guard_signals import blind_guards, name_of, warning_guards, watched
from selfevo_contract.phases import (
    EVALUATE,
    PUBLISH,
    SOLVER_ROLLOUT,
    SOLVER_TRAIN,
    VERIFIER_TRAIN,
    HeldOutTask,
    JudgedBy,
    Loading,
    Made,
    PublishInputs,
    SolverTrainInputs,
    StepModelRef,
    WatchedBy,
    input_key,
)
from selfevo_contract.phases.base import BaseModelRef
from selfevo_contract.plan_steps import Step
from selfevo_contract.spec.publish import HUB, Publish
from selfevo_contract.spec.rewards import WITHOUT_LABELS
from selfevo_contract.spec.run import RunSpec


def address_of(inputs: object) -> str:
    """Where a publication goes, as spec.model.uri takes it; empty of another step's inputs."""
    if not isinstance(inputs, PublishInputs):
        return ""
    if inputs.revision is None:
        return inputs.to
    return f"{inputs.to}{'@' if inputs.to.startswith(HUB) else '/'}{inputs.revision}"


def revision_of(publish: Publish, iteration: int, redone: Mapping[int, int]) -> str | None:
    """Where below ``to`` an iteration's Solver goes. One that is computed anew takes a place of its own.

    >>> revision_of(Publish.model_validate({"to": "hf://a/b", "what": "each"}), 3, {2: 1})
    'iteration-3-again-1'
    """
    if publish.what == "best":
        return None
    again = sum(count for first, count in redone.items() if first <= iteration)
    return f"iteration-{iteration}" + (f"-again-{again}" if again else "")


def publication(
    spec: RunSpec,
    steps: Sequence[Step],
    iteration: int,
    model: StepModelRef,
    redone: Mapping[int, int],
    guards: list[WatchedBy] | None,
    needs: Sequence[str],
) -> Step:
    """The step that publishes ``model``, the Solver of ``iteration``, in a run that has ``steps`` and that ``guards``
    watch; it also waits for those that ``needs`` names."""

    def made(phase: str) -> list[Made]:
        of_phase = [step for step in steps if step.phase == phase and step.iteration <= iteration]
        return [Made(iteration=step.iteration, key=step.key) for step in of_phase]

    trained = [step.inputs for step in steps if isinstance(step.inputs, SolverTrainInputs)]
    begins = trained[0].solver if trained and made(SOLVER_TRAIN.name) else model
    scores = {each.iteration: each.key for each in made(EVALUATE.name)}
    judges = made(VERIFIER_TRAIN.name)
    evaluation = spec.evaluation
    publish = spec.publish
    assert publish is not None
    inputs = PublishInputs(
        to=publish.to.rstrip("/"),
        revision=revision_of(publish, iteration, redone),
        private=publish.private,
        curriculum=publish.curriculum,
        iteration=iteration,
        model=model,
        base=BaseModelRef(uri=spec.model.uri, digest=spec.model.digest),
        loading=Loading(dtype=spec.model.dtype, trust_remote_code=spec.model.trust_remote_code),
        labels=spec.rollout.labels,
        **_payment(spec),
        origin=begins.key if isinstance(begins, StepModelRef) else None,
        solvers=made(SOLVER_TRAIN.name),
        rollouts=made(SOLVER_ROLLOUT.name),
        scores=scores.get(iteration),
        base_scores=scores.get(0) if iteration in scores else None,
        tasks=[HeldOutTask(name=task.name, data=task.data) for task in evaluation.tasks] if evaluation else [],
        judge=judges[-1].key if judges else None,
        guards=guards,
        rollbacks=sum(count for first, count in redone.items() if first <= iteration),
    )
    keys = {model.key, inputs.scores, inputs.base_scores, inputs.judge}
    parents = [*(step.name for step in steps if step.key in keys), *needs]
    name = f"{PUBLISH.name}-{iteration}"
    return Step(name, iteration, inputs, input_key(inputs), tuple(dict.fromkeys(parents)))


def _payment(spec: RunSpec) -> dict[str, Any]:
    """What pays the Solver, where it is neither a label nor a judge that a step has made; nothing else may be there, so
    that the keys of other runs are what they were."""
    mode, verifier = spec.solver.reward.mode, spec.verifier
    if mode in WITHOUT_LABELS:
        return {"unlabelled": mode}
    if verifier is None or verifier.rubric is None:
        return {}
    rubric = verifier.rubric
    return {"rubric": JudgedBy(model=rubric.model, criteria=rubric.criteria, pairwise=rubric.pairwise is not None)}


def guards_of(spec: RunSpec) -> list[WatchedBy] | None:
    """What a publication says of the guards that see something of the run."""
    if spec.guards is None:
        return None
    blind, warning = blind_guards(spec), warning_guards(spec)
    seeing = {name_of(field): its.action for field, its in watched(spec).items() if name_of(field) not in blind}
    return [WatchedBy(name=name, action="warn" if name in warning else action) for name, action in seeing.items()]
