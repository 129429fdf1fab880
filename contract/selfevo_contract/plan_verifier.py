"""What the steps of a run's judge compute: the part of the plan that a run with a Verifier has beside. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from selfevo_contract.phases import BaseModelRef, ModelRef, StepModelRef, VerifierTrainInputs
from selfevo_contract.spec.data import Data
from selfevo_contract.spec.verifier import TRAINING_ONLY, Verifier


def first_inputs(verifier: Verifier, common: Mapping[str, Any], base: BaseModelRef) -> VerifierTrainInputs:
    """The first judge: the reward model that the spec names, or the base with a fresh score head."""
    named = verifier.model
    # Arms that train it in different ways begin with the same one.
    unset = {name: Verifier.model_fields[name].get_default() for name in TRAINING_ONLY}
    return VerifierTrainInputs(
        base=base if named is None else BaseModelRef(uri=named.uri, digest=named.digest),
        settings=verifier.model_copy(update=unset),
        **common,
    )


def training_inputs(
    verifier: Verifier,
    common: Mapping[str, Any],
    solvers: Sequence[ModelRef],
    challenger: ModelRef,
    judges: Sequence[StepModelRef | None],
    rollout: str,
) -> VerifierTrainInputs:
    """The judge of an iteration: other models are its inputs only where a maker of pairs asks them."""
    asks_earlier = "temporal" in verifier.pairs and len(solvers) > 1
    return VerifierTrainInputs(
        solver=solvers[-1],
        challenger=challenger if "role" in verifier.pairs else None,
        earlier_solver=solvers[-2] if asks_earlier else None,
        judge=judges[-1],
        first_judge=judges[0],
        rollout=rollout,
        settings=verifier,
        **common,
    )


def judge_of(verifier: Verifier, judge: StepModelRef | None, *, compares: bool = False) -> dict[str, Any]:
    """What the inputs of a phase that asks the judge say of it: the step that left it, or its criteria.

    Args:
        compares: the phase may ask it about two answers.
    """
    if verifier.rubric is not None:
        rubric = verifier.rubric
        return {"rubric": rubric if compares else rubric.model_copy(update={"pairwise": None})}
    return {"judge": judge, "judge_length": verifier.max_length}


def anchors_of(verifier: Verifier | None) -> list[Data]:
    """The anchors' file, where there is one."""
    return [] if verifier is None or verifier.anchors is None else [verifier.anchors.data]


def curriculum_of(verifier: Verifier | None) -> dict[str, Any]:
    """What a rollout's inputs say beside; nothing in a run without a Verifier."""
    if verifier is None:
        return {}
    anchors = None if verifier.is_trained else verifier.anchors
    return {"curriculum_share": verifier.curriculum_share, "anchors": anchors and anchors.data}
