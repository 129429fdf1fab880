"""The cards of a published model and of its curricula: README.md, with the fields that the hub reads above. Pure.

It is made of what the steps have committed, so that every attempt writes the same bytes. It names no place but the
hub: addresses of buckets and paths of machines are nobody else's business.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from selfevo_contract.judging import AFTER, AGREED, AGREED_COUNT, AGREED_ERROR, BEFORE, ERROR, PROMOTED
from selfevo_contract.phases import SOLVER_TRAIN, JudgedBy, PublishInputs, WatchedBy
from selfevo_contract.scores import SCORES
from selfevo_contract.spec.data import Data
from selfevo_contract.spec.publish import HUB
from selfevo_contract.spec.rewards import CONFIDENCE

NAMES = {"mean": "mean of the samples", "greedy": "greedy", "maj": "majority"}


@dataclass(frozen=True)
class Curriculum:
    """What an iteration's Solver was trained on."""

    iteration: int
    name: str
    """Of its file, where it is published."""
    sha256: str
    rows: float | None


@dataclass(frozen=True)
class Facts:
    """What the steps have committed."""

    scores: Mapping[str, float] = field(default_factory=dict)
    """Of this model's evaluation."""
    base: Mapping[str, float] = field(default_factory=dict)
    """Of the base's."""
    curricula: Sequence[Curriculum] = ()
    judge: Mapping[str, float] | None = None
    """What the step of its judge measured, or, where the judge is not trained, the newest rollout; None in a run
    without one."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of what trained it."""
    adapter: bool = False
    """It is published as an adapter."""


def model_card(inputs: PublishInputs, facts: Facts) -> str:
    """Of the model."""
    base = hub_name(inputs.base.uri)
    data = hub_name(inputs.to) if inputs.curriculum else None
    head: dict[str, Any] = {
        "base_model": base,
        "base_model_relation": "adapter" if facts.adapter else "finetune",
        "datasets": [data] if data else None,
        "library_name": "peft" if facts.adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["selfevo", "self-evolution"],
    }
    if base is None:
        del head["base_model"], head["base_model_relation"]
    parts = [
        f"# Solver of iteration {inputs.iteration}",
        f"Trained by selfevo: in each iteration a Challenger writes questions, and the Solver is trained on them by "
        f"GRPO, paid by {_paid(inputs, facts)}. It started from {_base(inputs)}, and is "
        f"{'an adapter on it' if facts.adapter else f'whole, in {inputs.loading.dtype}'}.",
        "## Scores",
        _scores(inputs, facts),
        "## Training data",
        _data(inputs, facts),
        *_judge(inputs.rubric, facts.judge),
        *_guards(inputs.guards, inputs.rollbacks),
        "## Lineage",
        _lineage(inputs, facts),
    ]
    return _front(head) + "\n\n".join(parts) + "\n"


def data_card(inputs: PublishInputs, curricula: Sequence[Curriculum]) -> str:
    """Of its curricula, where they are a data set of their own."""
    splits = [{"split": f"iteration_{each.iteration}", "path": each.name} for each in curricula]
    head: dict[str, Any] = {
        "configs": [{"config_name": "default", "data_files": splits}] if splits else None,
        "tags": ["selfevo", "synthetic"],
    }
    text = [
        f"# Curricula of iterations {_span(each.iteration for each in curricula)}",
        f"Questions that a Challenger wrote and that a Solver was trained on. {_answers(inputs)}",
        _table(["iteration", "file", "rows", "sha256"], [[*_of(each)] for each in curricula]),
    ]
    return _front(head) + "\n\n".join(text) + "\n"


def _paid(inputs: PublishInputs, facts: Facts) -> str:
    if inputs.unlabelled is not None:
        votes = inputs.unlabelled == CONFIDENCE
        what = "agreeing with its own other answers" if votes else "how sure it was of its tokens"
        return f"{what} (`{inputs.unlabelled}`), and by no label"
    if inputs.rubric is not None:
        how = "preferences between its answers" if inputs.rubric.pairwise else "scores"
        return f"a judge's {how} by criteria"
    return "a judge's scores" if facts.judge is not None else f"labels of the kind `{inputs.labels}`"


def _answers(inputs: PublishInputs) -> str:
    """What a curriculum's answers are."""
    if inputs.rubric is not None or inputs.judge is not None:
        return "They are a model's, and nobody has checked them. They have no answers: a judge paid the Solver's own."
    models = "Questions and answers are a model's, and nobody has checked them: an answer is"
    if inputs.unlabelled is not None:
        return f"{models} a label of the kind `{inputs.labels}`, which training did not use, and may be wrong."
    return f"{models} the label that training used, and may be wrong."


def hub_name(uri: str) -> str | None:
    """``owner/name`` of what lies at the hub."""
    return uri.removeprefix(HUB).partition("@")[0] if uri.startswith(HUB) else None


def _base(inputs: PublishInputs) -> str:
    base = inputs.base
    if base.uri.startswith(HUB):
        return f"`{base.uri.removeprefix(HUB)}`"
    named = f", whose digest is `{base.digest}`" if base.digest else ""
    return f"a model that the hub does not have{named}"


def _scores(inputs: PublishInputs, facts: Facts) -> str:
    rows = []
    for task in inputs.tasks:
        for score in SCORES:
            name = f"{task.name}/{score}"
            if name in facts.scores:
                gain = _points(facts.scores, f"{name}_gain", sign=True)
                rows.append([task.name, NAMES[score], _points(facts.base, name), _points(facts.scores, name), gain])
    if not rows:
        return "This model was not evaluated."
    table = _table(["task", "score, per cent", "base", "this model", "gain"], rows)
    about = (
        "Held-out questions; ± is one standard error over questions, of a gain over the differences by question. "
        "Both models answered the same questions with the same settings."
    )
    return f"{about}\n\n{table}"


def _points(metrics: Mapping[str, float], name: str, *, sign: bool = False) -> str:
    if name not in metrics:
        return "-"
    error = metrics.get(f"{name}_stderr")
    value = f"{100 * metrics[name]:+.1f}" if sign else f"{100 * metrics[name]:.1f}"
    return value if error is None else f"{value} ± {100 * error:.1f}"


def _data(inputs: PublishInputs, facts: Facts) -> str:
    lines = ["The curricula that its run wrote; the Solver was trained on nothing else.", ""]
    if inputs.origin is not None:
        lines[0] = (
            f"Its run went on from another run's Solver, `{inputs.origin}`. Since then it was trained on the curricula "
            "that its own run wrote, and on nothing else."
        )
    lines.append(_table(["iteration", "rows", "sha256"], [[*_of(each)[::2], _of(each)[3]] for each in facts.curricula]))
    if inputs.tasks:
        lines += ["", "Held out, and never trained on:", ""]
        lines += [f"- {task.name}: {_digest(task.data)}" for task in inputs.tasks]
    return "\n".join(lines)


def _of(each: Curriculum) -> list[str]:
    return [str(each.iteration), each.name, "-" if each.rows is None else f"{each.rows:.0f}", f"`{each.sha256}`"]


def _digest(data: Data) -> str:
    return f"sha256 `{data.digest}`" if data.digest else "its digest was not given"


def _judge(rubric: JudgedBy | None, metrics: Mapping[str, float] | None) -> list[str]:
    if rubric is not None:
        return ["## Judge", _with_criteria(rubric, metrics or {})]
    if metrics is None:
        return []
    parts = []
    if BEFORE not in metrics:  # the step that began it
        parts.append("Its answers were scored by the judge that its run began with, which was not trained since.")
    elif PROMOTED in metrics:
        parts.append(
            "The judge that this iteration trained took the place of the one before."
            if metrics[PROMOTED]
            else "The judge that this iteration trained was not promoted: the one before stayed."
        )
    if AFTER in metrics:
        before = f"{100 * metrics[BEFORE]:.1f} -> " if BEFORE in metrics else ""
        error = f" (standard error of the difference {100 * metrics[ERROR]:.1f})" if ERROR in metrics else ""
        parts.append(f"Right on sealed anchors, per cent: {before}{100 * metrics[AFTER]:.1f}{error}.")
    return ["## Judge", " ".join(parts)]


def _with_criteria(rubric: JudgedBy, metrics: Mapping[str, float]) -> str:
    files = ", ".join(map(_digest, rubric.criteria))
    asked = "compared its answers" if rubric.pairwise else "scored its answers"
    parts = [f"`{rubric.model}` {asked} by written criteria ({files}). It was not trained."]
    if AGREED in metrics:
        error = f" ± {100 * metrics[AGREED_ERROR]:.1f}" if AGREED_ERROR in metrics else ""
        of = f" of {metrics[AGREED_COUNT]:.0f}" if AGREED_COUNT in metrics else ""
        parts.append(f"Right on pairs of a known order, per cent: {100 * metrics[AGREED]:.1f}{error}{of}.")
    return " ".join(parts)


def _guards(guards: Sequence[WatchedBy] | None, rollbacks: int) -> list[str]:
    if guards is None:
        return []
    rows = [[guard.name, guard.action] for guard in guards]
    went = {0: "The run never went back.", 1: "The run went back once."}.get(
        rollbacks, f"The run went back {rollbacks} times."
    )
    return [
        "## Guards",
        f"What was watched, and what follows where a limit is crossed. {went}",
        _table(["guard", "action"], rows),
    ]


def _lineage(inputs: PublishInputs, facts: Facts) -> str:
    rollouts = {each.iteration: each.key for each in inputs.rollouts}
    rows = [
        [str(each.iteration), f"`{each.key}`", f"`{rollouts[each.iteration]}`" if each.iteration in rollouts else "-"]
        for each in inputs.solvers
    ]
    table = _table(["iteration", SOLVER_TRAIN.name, "its curriculum"], rows)
    used = ", ".join(f"{name} {version}" for name, version in sorted(facts.versions.items()))
    return f"Keys of the steps that made it, each the digest of all that its step was computed from.\n\n{table}" + (
        f"\n\nMade with {used}." if used else ""
    )


def _span(numbers: Iterable[int]) -> str:
    found = sorted(numbers)
    return f"{found[0]} to {found[-1]}" if found else "-"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(
        f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in [head, ["---"] * len(head), *rows]
    )


def _front(fields: Mapping[str, Any]) -> str:
    """JSON is YAML, so nothing has to be quoted by hand."""
    lines = [f"{name}: {json.dumps(value)}" for name, value in fields.items() if value is not None]
    return "\n".join(["---", *lines, "---", "", ""])
