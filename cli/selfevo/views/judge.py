"""What a run asks of a judge with criteria, beside its budget: lines of `selfevo size` and `selfevo plan`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from selfevo.text import aligned, count
from selfevo.views.hours import amount
from selfevo_contract.plan import sketch
from selfevo_contract.sizing.hours import Lengths
from selfevo_contract.sizing.judged import Judged, judged, limit_of, tokens_of, warnings
from selfevo_contract.sizing.speeds import OF_JUDGES
from selfevo_contract.spec.run import RunSpec

HEAD = ("asks the judge", "answers", "calls", "million tokens", "of maxTokens")


def judge_table(spec: RunSpec, answer_tokens: int | None, with_figures: bool) -> list[str]:
    """A row a phase (its last step), one for the run, and what does not suffice; nothing in a run without such a
    judge."""
    found = judged(spec, sketch(spec), Lengths(answer_tokens))
    if not found:
        return []
    last = {one.step.phase: one for one in found}
    rows = [list(HEAD), *(_row(one.step.phase, [one], limit_of(spec)) for one in last.values())]
    lines = aligned([*rows, _row("the run", found, None)], right=range(1, len(HEAD)))
    lines.append("maxTokens is of a step; spec.budget.tokens counts none of the judge's, and no hours are its own")
    lines += [f"  {figure}" for figure in OF_JUDGES] if with_figures else []
    return lines + [f"warning: {line}" for line in warnings(spec, found)]


def judge_lines(spec: RunSpec, done: Collection[str]) -> list[str]:
    """The same of the steps that are not ``done``, in one line, and warnings."""
    found = judged(spec, sketch(spec), Lengths(), done)
    if not found:
        return []
    calls = sum(one.calls for one in found)
    return [
        f"judge: at most about {amount(calls / 1e3)} thousand calls and {amount(tokens_of(found) / 1e6)} million "
        f"tokens for the {count(len(found), 'step')} not in the store that ask it; budget.tokens counts none of them",
        *(f"warning: {line}" for line in warnings(spec, found)),
    ]


def judge_json(spec: RunSpec, done: Collection[str]) -> dict[str, Any] | None:
    """For programs; None where no step that is left asks a judge with criteria."""
    found = judged(spec, sketch(spec), Lengths(), done)
    if not found:
        return None
    calls = sum(one.calls for one in found)
    return {"calls": calls, "tokens": tokens_of(found), "warnings": warnings(spec, found)}


def _row(name: str, found: Sequence[Judged], limit: int | None) -> list[str]:
    answers, calls, tokens = sum(one.answers for one in found), sum(one.calls for one in found), tokens_of(found)
    share = "" if limit is None else f"{tokens / limit:,.0%}"
    return [name, f"{answers:,}", f"{calls:,}", amount(tokens / 1e6), share]
