"""About how long a run takes, how many GPU hours and how much traffic: the estimate of docs/sizing.md as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import get_args

from selfevo.text import aligned
from selfevo_contract.plan import plan
from selfevo_contract.sizing.architecture import Architecture
from selfevo_contract.sizing.hours import Lengths, Took, estimate, wall_hours
from selfevo_contract.sizing.speeds import Origin, figures
from selfevo_contract.sizing.traffic import Traffic, traffic
from selfevo_contract.spec.run import RunSpec

HEAD = ("phase", "GPUs", "hours", "generating", "training", "GPU hours", "million tokens", "GB written", "GB read")


@dataclass(frozen=True)
class Estimate:
    """Of the steps of a run that are not done."""

    took: Sequence[Took]
    traffic: Sequence[Traffic]
    """Of each of them."""
    hours: float
    """From the first one's start to the last one's end, waiting left out."""

    @property
    def gpu_hours(self) -> float:
        return sum(step.gpu_hours for step in self.took)

    @property
    def tokens(self) -> float:
        return sum(step.tokens for step in self.took)


def estimated(
    spec: RunSpec, model: Architecture, card: str, lengths: Lengths, done: Collection[str] = ()
) -> Estimate | None:
    """None where the figures are not for: they are of weights in 16 bits."""
    if spec.model.dtype == "float32":
        return None
    found = estimate(spec, plan(spec), model, card, lengths, done)
    moved = [traffic(one, spec, model, lengths) for one in found]
    return Estimate(found, moved, wall_hours(found, spec.parallel_steps))


def hours_table(
    spec: RunSpec, model: Architecture, card: str, answer_tokens: int | None, with_figures: bool
) -> list[str]:
    """A row a phase (its last step), one for an iteration, one for the run; and what to think of them."""
    whole = estimated(spec, model, card, Lengths(answer_tokens))
    if whole is None:
        return ["no hours are worked out for spec.model.dtype float32: the figures are for 16 bits"]
    if not whole.took:
        return []
    steps = list(zip(whole.took, whole.traffic, strict=True))
    number = max(one.step.iteration for one, _ in steps)
    iteration = [(one, moved) for one, moved in steps if one.step.iteration == number]
    last = {one.step.phase: (one, moved) for one, moved in (*iteration, *steps)}
    rows = [list(HEAD)]
    for one, moved in last.values():
        parts = map(amount, (one.hours, one.generating, one.training))
        rows.append([one.step.phase, str(one.gpus), *parts, *_sums([(one, moved)])])
    rows.append([f"iteration {number}", "", amount(sum(one.hours for one, _ in iteration)), "", "", *_sums(iteration)])
    rows.append(["the run", "", amount(whole.hours), "", "", *_sums(steps)])
    lines = aligned(rows, right=range(1, len(HEAD)))
    full = estimated(spec, model, card, Lengths(full=True))
    if full is not None and full.gpu_hours > 1.01 * whole.gpu_hours:
        most = f"{amount(full.hours)} hours, {amount(full.gpu_hours)} GPU hours"
        lines.append(f"with every completion as long as it may be: {most}")
    used = figures(card)
    kinds = Counter(figure.origin for figure in used)
    told = ", ".join(f"{kinds[kind]} {kind}" for kind in get_args(Origin))
    lines.append(f"hours are rough, by {len(used)} figures: {told}{'' if with_figures else ' (--figures)'}")
    return lines + ([f"  {figure}" for figure in used] if with_figures else [])


def _sums(steps: Sequence[tuple[Took, Traffic]]) -> list[str]:
    return [
        amount(sum(one.gpu_hours for one, _ in steps)),
        amount(sum(one.tokens for one, _ in steps) / 1e6),
        amount(sum(moved.written for _, moved in steps) / 1e9),
        amount(sum(moved.read for _, moved in steps) / 1e9),
    ]


def amount(value: float) -> str:
    """As many digits as an estimate is worth.

    >>> amount(1234.5), amount(12.34), amount(0.05), amount(0.001), amount(0.0)
    ('1,234', '12.3', '0.05', '<0.01', '0')
    """
    if value == 0:
        return "0"
    if value < 0.01:
        return "<0.01"
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"
