"""Which judge a run with a Verifier goes by, from what its verifier-train steps have measured. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from selfevo_contract.judging import (
    AFTER,
    AGREED,
    AGREED_COUNT,
    BEFORE,
    BY_LENGTH,
    CHANCE,
    CHANCE_REMEDY,
    ERROR,
    LENGTH_AFTER,
    LENGTH_BEFORE,
    PROMOTED,
    is_by_chance,
)
from selfevo_contract.phases import SOLVER_ROLLOUT, VERIFIER_TRAIN
from selfevo_contract.status import StepStatus


def is_promoted(step: StepStatus) -> bool | None:
    """Whether the judge that ``step`` trained took the place of the one before; None of other steps, and where nothing
    is known. The first judge always does."""
    if step.phase != VERIFIER_TRAIN.name or step.state != "Succeeded" or PROMOTED not in step.metrics:
        return None
    return step.metrics[PROMOTED] > 0


def scores_by_chance(step: StepStatus) -> bool:
    """Whether the judge that ``step`` put in place is no better than chance on the sealed anchors."""
    return is_promoted(step) is True and is_by_chance(step.metrics.get(AFTER), step.metrics.get(AGREED_COUNT))


def promotion_line(step: StepStatus) -> str:
    """``its judge is not promoted: 61.0 % of the sealed anchors right, 84.0 % before (± 5.1)``; empty of others."""
    promoted, after, before = is_promoted(step), step.metrics.get(AFTER), step.metrics.get(BEFORE)
    if promoted is None:
        return ""
    shares = "" if after is None else f": {100 * after:.1f} % of the sealed anchors right"
    if after is not None and before is not None:
        shares += f", {100 * before:.1f} % before (± {100 * step.metrics.get(ERROR, 0.0):.1f})"
    if step.metrics.get(BY_LENGTH) and (length := step.metrics.get(LENGTH_AFTER)) is not None:
        earlier = step.metrics.get(LENGTH_BEFORE)
        against = "" if earlier is None else f", {earlier:.2f} before"
        shares += (
            f"{', and' if shares else ':'} its scores follow the answers' lengths (correlation {length:.2f}{against})"
        )
    chance = f", {CHANCE}: {CHANCE_REMEDY}" if scores_by_chance(step) else ""
    return f"its judge is {'' if promoted else 'not '}promoted{shares}{chance}"


def agreement_line(metrics: Mapping[str, float]) -> str:
    """``89.1 % of 64 anchors right``, of a rollout whose judge has criteria; empty of others. A half is no sign of a
    guess there: such a judge may tie, and a tie is not right."""
    if AGREED not in metrics:
        return ""
    return f"{100 * metrics[AGREED]:.1f} % of {metrics.get(AGREED_COUNT, 0):.0f} anchors right"


def judge_of(steps: Iterable[StepStatus]) -> str:
    """A column of `kubectl get ser -o wide`: ``iteration 2``, or ``iteration 2; 3, 4 not promoted``. Of a judge with
    criteria, which is never trained: ``89.1 % of 64 anchors right``, by the newest rollout.

    >>> judge_of([])
    ''
    """
    steps = list(steps)
    asked = [step for step in steps if step.phase == SOLVER_ROLLOUT.name and AGREED in step.metrics]
    if asked:
        return agreement_line(max(asked, key=lambda step: step.iteration).metrics)
    known = {step.iteration: promoted for step in steps if (promoted := is_promoted(step)) is not None}
    newest = max((iteration for iteration, promoted in known.items() if promoted), default=None)
    if newest is None:
        return ""
    refused = ", ".join(str(iteration) for iteration in sorted(known) if iteration > newest)
    return f"iteration {newest}" + (f"; {refused} not promoted" if refused else "")
