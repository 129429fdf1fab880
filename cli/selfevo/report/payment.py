"""What a report says of labels and of what pays the Solver. Pure."""

from __future__ import annotations

from selfevo_contract.spec.rewards import WITHOUT_LABELS
from selfevo_contract.spec.run import RunSpec

_LABELS = {
    "majority": "and becomes the label",
    "committee": "and becomes the label where the Solver of the iteration before has the same one",
    "random": "but labels are dealt out at random in this run",
    "truth": "but labels are the truth in this run",
}


def about_votes(spec: RunSpec) -> str:
    """How the sampled answers to a question are counted, and what becomes of that."""
    samples = spec.rollout.samples
    if spec.verifier is not None:
        return (
            f"Some tasks of each iteration. A judge scored the {samples} sampled answers to each; there are no "
            "votes and no labels in this run."
        )
    label = _LABELS[spec.rollout.labels]
    unpaid = f"; the Solver is paid without it ({mode})" if (mode := spec.solver.reward.mode) in WITHOUT_LABELS else ""
    return (
        f"Some questions of each iteration and how the {samples} sampled answers fell. Equal answers are one class; "
        f"the largest is the majority{',' if label.startswith('but') else ''} {label}{unpaid}."
    )


def controls(spec: RunSpec) -> list[str]:
    """The same run with another thing taken away, each ``with ...``; what would show what caused a change."""
    if spec.verifier is not None:
        frozen = spec.verifier.is_trained and spec.verifier.max_steps > 0
        found = ["with a frozen judge (spec.verifier.maxSteps: 0)"] if frozen else []
    elif spec.solver.reward.mode in WITHOUT_LABELS:
        found = ["paid by labels (spec.solver.reward.mode: code)"]
    else:
        found = ["with random labels (spec.rollout.labels: random)"]
    if spec.challenger.grpo.max_steps:
        found.append("with an untrained Challenger (spec.challenger.grpo.maxSteps: 0)")
    return found
