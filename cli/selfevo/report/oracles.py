"""What a report says of label accuracy, by the kind of the oracle (`selfevo_contract.spec.oracles`)."""

from __future__ import annotations

from typing import NamedTuple

from selfevo_contract.run import SelfEvolutionRun


class Words(NamedTuple):
    """Of one kind."""

    counted: str
    """What is counted as right, as the end of a sentence."""
    means: str
    """What a reader has to know of it."""


_COMPUTED = Words(
    "labels of the curriculum that equal the truth.",
    "Label accuracy counts a question without a known truth, a malformed one, as labelled wrongly.",
)
KINDS = {
    "arithmetic": _COMPUTED,
    "sorting": _COMPUTED,
    "data": Words(
        "labels of the curriculum that equal the truth, of those whose question the data has.",
        "Label accuracy is over the labels whose question the data has.",
    ),
    "endpoint": Words(
        "labels of a sample that equal a stronger model's answer; bars span one standard error to either side.",
        "Label accuracy is agreement with a stronger model, on a sample of the labels; it knows nothing of that "
        "model's own mistakes.",
    ),
}


def words_of(run: SelfEvolutionRun) -> Words:
    """Of the run's oracle; of one that computes the truth where the manifest no longer has it."""
    oracle = run.spec.rollout.oracle
    return _COMPUTED if oracle is None else KINDS[oracle.kind]
