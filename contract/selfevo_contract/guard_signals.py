"""Which guards of a run never see anything, and which can warn and never act: known from its spec alone
(docs/guards.md). What a guard reads, and what follows, is the core's. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfevo_contract.spec.guards import Guard, Guards
from selfevo_contract.spec.rewards import WITHOUT_LABELS
from selfevo_contract.spec.rollout import VOTED
from selfevo_contract.spec.run import RunSpec

Needs = Callable[[RunSpec], str]
"""Why a run of this spec never has the signal; empty where it has."""


def watched(spec: RunSpec) -> dict[str, Guard]:
    """The settings of the guards that are not switched off, by the fields of `Guards`."""
    if spec.guards is None:
        return {}
    fields = {field: getattr(spec.guards, field) for field in Guards.model_fields}
    return {field: its for field, its in fields.items() if isinstance(its, Guard) and its.action != "ignore"}


def blind_guards(spec: RunSpec) -> dict[str, str]:
    """Those of them whose signal the run does not have or that cannot cross their limit, by name, and why."""
    return {name_of(field): why for field in watched(spec) if (why := blind(field, spec))}


def warning_guards(spec: RunSpec) -> dict[str, str]:
    """Those of them that see, and whose action never follows, by name, and why: the run is too short for it, or they
    cannot cross the limit at which it is taken."""
    acting = {field: its for field, its in watched(spec).items() if its.action != "warn" and not blind(field, spec)}
    reasons = {field: _out_of_reach(field, spec) or _too_patient(field, its, spec) for field, its in acting.items()}
    return {name_of(field): why for field, why in reasons.items() if why}


def blind(field: str, spec: RunSpec) -> str:
    """Why the guard ``field`` never sees anything in a run of ``spec``; empty where it does."""
    return next((why for needs in _NEEDS.get(field, ()) if (why := needs(spec))), "")


def name_of(field: str) -> str:
    """E.g. ``labelAccuracy`` of the field ``label_accuracy``."""
    return Guards.model_fields[field].alias or field


def share_error(value: float, of: float) -> float:
    """The standard error of a share that was counted among ``of``. One of each kind is added: none of 18 is no error
    of 0."""
    smoothed = (value * of + 1) / (of + 2)
    return math.sqrt(smoothed * (1 - smoothed) / (of + 2))


def groups(spec: RunSpec) -> int:
    """Groups of answers in an update of the Solver."""
    grpo = spec.solver.grpo
    return grpo.completions_per_update // grpo.num_generations


def _own(spec: RunSpec) -> range:
    """The iterations that the run computes itself."""
    return range((spec.fork_from.iteration if spec.fork_from else 0) + 1, spec.iterations + 1)


# --- what is not there ------------------------------------------------------------------------------------------------


def _training(spec: RunSpec) -> str:
    return "the Solver is not trained (spec.solver.grpo.maxSteps is 0)" if spec.solver.grpo.max_steps == 0 else ""


def _evaluation(spec: RunSpec) -> str:
    return "there is no spec.evaluation" if spec.evaluation is None else ""


def _several_samples(spec: RunSpec) -> str:
    if spec.evaluation is not None and 1 in [task.samples or spec.evaluation.samples for task in spec.evaluation.tasks]:
        return "one sampled answer agrees with itself (samples of spec.evaluation or one of its tasks is 1)"
    return ""


def _oracle(spec: RunSpec) -> str:
    return "there is no spec.rollout.oracle" if spec.rollout.oracle is None else ""


def _paid_by_votes(spec: RunSpec) -> str:
    grpo, sampling = spec.solver.grpo, spec.rollout.answer_sampling
    if spec.verifier is not None:
        return "spec.verifier pays the Solver, and not labels that were voted on"
    if spec.solver.reward.mode in WITHOUT_LABELS:
        return f"no label pays the Solver (spec.solver.reward.mode is {spec.solver.reward.mode})"
    if spec.rollout.labels not in VOTED:
        return f"the labels are not what the Solver voted for (spec.rollout.labels is {spec.rollout.labels})"
    if sampling is not None and sampling != grpo.sampling:
        return "answers are drawn in another way in the rollout than in training (spec.rollout.answerSampling)"
    return ""


def _votes(spec: RunSpec) -> str:
    return "" if spec.verifier is None else "spec.verifier scores answers, and no share of them is a majority"


def _others_in_band(spec: RunSpec) -> str:
    """What votes foretell is of questions that are in the band by all answers but one."""
    others, band = spec.rollout.samples - 1, spec.rollout.band
    if any(band.side(votes / others) == "in" for votes in range(1, others + 1)):
        return ""
    return (
        f"no share of {others} answer{'' if others == 1 else 's'}, which are those to a question but one, is in "
        f"spec.rollout.band ({band.min:g} to {band.max:g}); raise spec.rollout.samples, or widen the band"
    )


def _kl(spec: RunSpec) -> str:
    return "the KL divergence is not computed (spec.solver.grpo.beta is 0)" if spec.solver.grpo.beta == 0 else ""


def _earlier_questions(spec: RunSpec) -> str:
    if spec.rollout.replay is not None or (spec.challenger.reward.memory and spec.challenger.grpo.max_steps > 0):
        return ""
    return (
        "nothing reads earlier questions (neither spec.rollout.replay is set, nor is a Challenger trained with "
        "spec.challenger.reward.memory)"
    )


def _second_iteration(spec: RunSpec) -> str:
    if len(_own(spec)) > 1:
        return ""
    return "it compares with the first iteration of the run, which has no other one; raise spec.iterations"


# --- what is counted too rarely ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Extreme:
    """The shares that are furthest on the wrong side of a limit, in as many measurements as there may be."""

    excess: float
    error: float
    readings: int

    def is_beyond(self, errors: float) -> bool:
        return self.readings * self.excess / self.error > errors


@dataclass(frozen=True)
class _Few:
    """A guard that reads a share is blind where not even the furthest shares are beyond its limit by its errors."""

    field: str
    extremes: Callable[[RunSpec, float, int], Sequence[_Extreme]]
    """``extremes(spec, limit, count)``: of each way in which it may be beyond."""
    count: Callable[[RunSpec], int] = lambda spec: spec.rollout.questions
    counted: str = "a rollout has {} questions"
    more: str = "spec.rollout.questions"
    below: bool = False

    def __call__(self, spec: RunSpec) -> str:
        its = getattr(spec.guards, self.field)
        limit = self._warns_from(its)
        is_limit = limit == its.limit and getattr(its, "warn_at", None) is None
        return self._cannot_cross(spec, limit, "limit" if is_limit else "warnAt")

    def only_warns(self, spec: RunSpec) -> str:
        """Why it cannot cross the limit at which its action is taken, where it warns before; empty where it can."""
        its, count = getattr(spec.guards, self.field), self.count(spec)
        if self._warns_from(its) == its.limit:
            return ""
        if any(each.excess > 0 for each in self.extremes(spec, its.limit, count)):
            return self._cannot_cross(spec, its.limit, "limit")
        name = f"spec.guards.{name_of(self.field)}"
        return f"nothing is beyond {name}.limit, {its.limit:g}; lower it, or set {name}.action to warn"

    @staticmethod
    def _warns_from(its: Any) -> float:
        return float(getattr(its, "warns_from", its.limit))

    def _cannot_cross(self, spec: RunSpec, limit: float, setting: str) -> str:
        """Why it cannot cross ``limit``, which is its ``setting``; empty where it can."""
        assert spec.guards is not None
        errors, count = spec.guards.standard_errors, self.count(spec)
        found = self.extremes(spec, limit, count)
        # A limit that nothing exceeds is a person's own choice.
        if not any(each.excess > 0 for each in found) or any(each.is_beyond(errors) for each in found):
            return ""
        name = f"spec.guards.{name_of(self.field)}.{setting}"
        side, share = ("below", "none") if self.below else ("beyond", "all")
        change = f"raise {self.more} or {name}, or lower" if self.below else f"raise {self.more}, or lower {name} or"
        of = f"in each of {len(_own(spec))} iterations" if len(_own(spec)) != 1 else "in the one iteration"
        return (
            f"{self.counted.format(count)}, of which even {share}, {of}, are not {side} {100 * limit:.1f} % by "
            f"{errors:g} standard errors; {change} spec.guards.standardErrors"
        )


def _all(spec: RunSpec, limit: float, count: int) -> list[_Extreme]:
    return [_Extreme(1 - limit, share_error(1, count), len(_own(spec)))]


def _none(spec: RunSpec, limit: float, count: int) -> list[_Extreme]:
    return [_Extreme(limit, share_error(0, count), len(_own(spec)))]


def _one_of_them(spec: RunSpec, limit: float, count: int) -> list[_Extreme]:
    """Of repeated questions one is the first."""
    return [_Extreme(limit - 1 / count, share_error(1 / count, count), len(_own(spec)))]


def _change(spec: RunSpec, limit: float, count: int) -> list[_Extreme]:
    """From none to all; the first measurement is what the others are held against."""
    return [_Extreme(1 - limit, math.hypot(share_error(0, count), share_error(1, count)), len(_own(spec)) - 1)]


def _fall_of_distinct(spec: RunSpec, limit: float, count: int) -> list[_Extreme]:
    """Below the limit, or fallen to one question from none that is repeated."""
    assert spec.guards is not None
    fall = 1 - 1 / count - spec.guards.diversity.fall
    error = math.hypot(share_error(1, count), share_error(1 / count, count))
    return [*_one_of_them(spec, limit, count), _Extreme(fall, error, len(_own(spec)) - 1)]


def _share_or_rise(spec: RunSpec, limit: float, count: int) -> list[_Extreme]:
    assert spec.guards is not None
    return [*_all(spec, limit, count), *_change(spec, spec.guards.malformed.rise, count)]


_NEEDS: Mapping[str, Sequence[Needs]] = {
    "held_out": (_evaluation,),
    "flips": (_evaluation,),
    "consensus_without_gain": (_several_samples, _evaluation),
    "label_accuracy": (_oracle, _second_iteration, _Few("label_accuracy", _change)),
    "reward_gap": (
        _training,
        _paid_by_votes,
        _others_in_band,
        _Few(
            "reward_gap",
            _all,
            lambda spec: spec.solver.grpo.prompts_per_step,
            "a step has {} groups",
            "spec.solver.grpo.promptsPerStep",
        ),
    ),
    "malformed": (_Few("malformed", _share_or_rise),),
    "diversity": (_Few("diversity", _fall_of_distinct, below=True),),
    "similarity": (_earlier_questions, _second_iteration),
    "in_band": (_votes, _Few("in_band", _none, below=True)),
    "truncation": (_Few("truncation", _all),),
    "entropy": (_training,),
    "zero_spread": (
        _training,
        _Few("zero_spread", _all, groups, "an update has {} groups", "spec.solver.grpo.promptsPerUpdate"),
    ),
    "kl": (_kl, _training, _second_iteration),
    "length": (_training,),
}
"""What each guard's signal needs, by the field of `Guards`; one that is not listed needs nothing."""


def _out_of_reach(field: str, spec: RunSpec) -> str:
    """Why its action never follows: it is taken at a limit that lies further out than where the guard warns."""
    few = [needs for needs in _NEEDS.get(field, ()) if isinstance(needs, _Few)]
    return next((why for needs in few if (why := needs.only_warns(spec))), "")


# --- what is over too soon --------------------------------------------------------------------------------------------

_OF_EVALUATIONS = ("held_out", "flips", "consensus_without_gain")
_AGAINST_THE_FIRST = ("label_accuracy", "similarity", "kl")
"""Their first measurement is within the limit by itself."""


def _too_patient(field: str, its: Guard, spec: RunSpec) -> str:
    """Why its action never follows: the run measures less often than it waits for."""
    own, name = _own(spec), f"spec.guards.{name_of(field)}.patience"
    count, what, remedy = len(own) - (field in _AGAINST_THE_FIRST), "measurement", "raise spec.iterations"
    if field in _OF_EVALUATIONS and spec.evaluation is not None:
        every = spec.evaluation.every
        numbers = [number for number in (own.start - 1, *own) if number == spec.iterations or number % every == 0]
        count, what = len([number for number in numbers if number > 0]), "evaluation"
        remedy = f"lower spec.evaluation.every, {every}, or {remedy}" if every > 1 else remedy
    if count >= its.patience:
        return ""
    counted = f"{count} {what}{'' if count == 1 else 's'}"
    return (
        f"it acts when {its.patience} {what}s in a row are beyond its limit, and the run has {counted} that can be; "
        f"lower {name}, or {remedy}"
    )
