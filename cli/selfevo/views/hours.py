"""About how long a run takes, how many GPU hours and how much traffic: the estimate of docs/sizing.md as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import get_args

from selfevo.text import aligned, count
from selfevo_contract.plan import sketch
from selfevo_contract.sizing.architecture import Architecture, known
from selfevo_contract.sizing.fit import gib
from selfevo_contract.sizing.hours import Lengths, Took, estimate, wall_hours
from selfevo_contract.sizing.memory import CARDS, named_gpus
from selfevo_contract.sizing.speeds import Origin, figures
from selfevo_contract.sizing.traffic import Traffic, traffic
from selfevo_contract.spec.budget import Budget
from selfevo_contract.spec.run import RunSpec
from selfevo_core.usage import amounts

USUAL = "80 GB"
"""The card of an estimate where the manifest says nothing of its GPUs."""
HEAD = (
    *("phase", "GPUs", "hours", "starting", "generating", "training", "GPU hours"),
    *("million tokens", "GB written", "GB read"),
)


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
    found = estimate(spec, sketch(spec), model, card, lengths, done)
    moved = [traffic(one, spec, model, lengths) for one in found]
    return Estimate(found, moved, wall_hours(found, spec.parallel_steps))


def expected(spec: RunSpec, done: Collection[str]) -> tuple[Estimate | None, str]:
    """What the steps take that are not ``done``, on the cards that the manifest names, and those cards; or None and why
    nobody can say."""
    if not any(named_gpus(spec, part) for part in (spec.challenger.pods, spec.rollout.pods, spec.solver.pods)):
        return None, "no pods name GPUs"
    model = known(spec.model.uri)
    if model is None:
        return None, f"the sizes of {spec.model.uri} are not known by its name; `selfevo size` reads a config.json"
    card = card_of(spec)
    found = estimated(spec, model, card, Lengths(), done)
    return found, card if found is not None else f"spec.model.dtype is {spec.model.dtype}"


def card_of(spec: RunSpec) -> str:
    """The usual card that is next to pods.gpuMemory; 80 GB where no pods name it."""
    named = [pods.gpu_memory for pods in (spec.challenger.pods, spec.solver.pods, spec.rollout.pods, spec.pods)]
    memory = next((gib(it) for it in named if it is not None), CARDS[USUAL])
    return min(CARDS, key=lambda card: abs(CARDS[card] - memory))


def estimate_line(found: Estimate, card: str, budget: Budget | None) -> str:
    """What is expected, each amount with its share of the budget."""
    limits = {limit.field: limit.limit for limit in amounts(budget, None)}
    parts = [
        f"{text} ({used / limits[field]:,.0%} of budget.{field})" if field in limits else text
        for field, used, text in _parts(found, budget)
    ]
    return (
        f"estimate: about {', '.join(parts)} for the {count(len(found.took), 'step')} not in the store, on cards of "
        f"{card}; rough, `selfevo size` says more"
    )


def _parts(found: Estimate, budget: Budget | None) -> list[tuple[str, float, str]]:
    """Fields of a budget, what is expected of each, and that in words."""
    price = budget.dollars_per_gpu_hour if budget else None
    return [
        ("wallTime", found.hours, f"{amount(found.hours)} hours"),
        ("gpuHours", found.gpu_hours, f"{amount(found.gpu_hours)} GPU hours"),
        ("tokens", found.tokens, f"{amount(found.tokens / 1e6)} million tokens"),
        *([("dollars", found.gpu_hours * price, f"{amount(found.gpu_hours * price)} dollars")] if price else []),
    ]


def budget_warnings(found: Estimate, budget: Budget | None) -> list[str]:
    """Amounts that the run is expected to use up before its end."""
    limits = {limit.field: limit for limit in amounts(budget, None)}
    return [
        f"warning: spec.budget.{field} is {limits[field].as_written}, and the run takes about {text}: it would stop "
        "with BudgetExceeded before its end; raise it, or make the run smaller"
        for field, used, text in _parts(found, budget)
        if field in limits and used > limits[field].limit
    ]


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
        parts = map(amount, (one.hours, one.starting, one.generating, one.training))
        rows.append([one.step.phase, str(one.gpus), *parts, *_sums([(one, moved)])])
    rows.append(
        [f"iteration {number}", "", amount(sum(one.hours for one, _ in iteration)), "", "", "", *_sums(iteration)]
    )
    rows.append(["the run", "", amount(whole.hours), "", "", "", *_sums(steps)])
    lines = aligned(rows, right=range(1, len(HEAD)))
    full = estimated(spec, model, card, Lengths(full=True))
    if full is not None and full.gpu_hours > 1.01 * whole.gpu_hours:
        most = f"{amount(full.hours)} hours, {amount(full.gpu_hours)} GPU hours"
        lines.append(f"with every completion as long as it may be: {most}")
    used = figures(card)
    kinds = Counter(figure.origin for figure in used)
    origins = ", ".join(f"{kinds[kind]} {kind}" for kind in get_args(Origin))
    lines.append("starting is one attempt's: another one takes it again; queues and the pull of images are not in it")
    lines.append(f"hours are rough, by {len(used)} figures: {origins}{'' if with_figures else ' (--figures)'}")
    lines += [f"  {figure}" for figure in used] if with_figures else []
    return lines + budget_warnings(whole, spec.budget)


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
