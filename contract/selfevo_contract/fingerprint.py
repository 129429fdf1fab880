"""Which weights an engine serves, by what they say of a probe (docs/engines.md).

A training draws a few completions of its own prompts before its first step, and commits how likely their tokens are
after its last one: the model's fingerprint. Whoever serves the model is asked for the same numbers before its answers
count. Random tokens would show little of a small update; these are where the training has pulled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from selfevo_contract.rows import Count, Row, RowFile

Dtype = Literal["float32", "bfloat16", "float16"]
"""What weights are loaded in."""
Precision = Literal["float32", "bfloat16", "float16", "fp8"]
"""What an engine computes in: the run's dtype, or how it rounds frozen weights."""


class ProbeRow(Row):
    """One completion of the probe."""

    tokens: Annotated[list[Count], Field(min_length=2)]
    """Ids: the prompt, then the completion."""
    prompt: Annotated[int, Field(ge=1)]
    """Tokens of the prompt, which are given and not compared."""
    dtype: Dtype
    """What the weights are rounded to before they are computed with: the run's, in which engines load them."""
    logprobs: list[float]
    """Log-probability (natural logarithm, temperature 1, whole vocabulary) of each token of the completion."""
    before: list[float] = []
    """The same of the weights that the training began with; empty for a model that no training of ours made."""


FINGERPRINT = RowFile[ProbeRow]("fingerprint.jsonl", (ProbeRow,))
"""Of a training: a row for each completion of the probe."""

FINGERPRINT_OFF = "fingerprint_off"
"""The metric of a step whose engine was not held against a fingerprint, as its settings asked for; 1."""

LIMITS: dict[Precision, float] = {"float32": 0.005, "float16": 0.02, "bfloat16": 0.05, "fp8": 0.25}
"""Most mean absolute difference that rounding explains: nearly three to eight times what was measured on a real model
(benchmarks/results/fingerprint.json). Float32's is for kernels that multiply in TF32."""
NOISE: dict[Precision, float] = {"float32": 0.0015, "float16": 0.006, "bfloat16": 0.04, "fp8": 0.17}
"""Root of the mean square of the same differences, as measured there and rounded up."""
_BY_DIRECTION: frozenset[Precision] = frozenset({"float32", "float16", "bfloat16"})
"""Fingerprints are of weights rounded to the run's dtype, as these engines load them. In 8 bits an update may be lost
altogether in the right model's weights too."""
_APART = 8.0
"""Least distance of two models over the probe, in NOISE, at which the verdict is between them: each is then four
standard deviations from the middle between them."""


@dataclass(frozen=True)
class Verdict:
    """What an engine's numbers say."""

    served: Literal["wanted", "before", "other"]
    """The model itself; the weights that its training began with, up to rounding; or neither."""
    difference: float
    """Mean absolute difference from the fingerprint."""
    limit: float
    """The most that counts as equal."""
    tokens: int


def judge(rows: Sequence[ProbeRow], scores: Sequence[Sequence[float]], precision: Precision) -> Verdict:
    """Whether an engine serves the model of ``rows``.

    The mean absolute difference finds another model. An update at a learning rate of 1e-6 may stay below its limit;
    the model before it is found by its direction: of b before, w wanted, s served, (s - b)(w - b) / |w - b|^2 is 0
    for the one and 1 for the other, up to the rounding of single tokens, which it averages out.

    Args:
        scores: for each row the log-probabilities of all its tokens but the first (`Engine.score`).

    Raises:
        ValueError: the scores are not one finite number for each token; the message says which.
    """
    wanted: list[float] = []
    before: list[float] = []
    served: list[float] = []
    if len(scores) != len(rows):
        raise ValueError(f"{len(scores)} rows of log-probabilities for {len(rows)} rows of tokens")
    for number, (row, own) in enumerate(zip(rows, scores, strict=True), 1):
        if len(own) != len(row.tokens) - 1:
            raise ValueError(f"{len(own)} log-probabilities for the {len(row.tokens)} tokens of row {number}")
        completion = list(own[row.prompt - 1 :])
        if bad := [value for value in completion if not math.isfinite(value)]:
            raise ValueError(f"{bad[0]} as a log-probability in row {number}")
        wanted += row.logprobs
        before += row.before
        served += completion
    if len(wanted) != len(served) or len(before) not in (0, len(wanted)):
        raise ValueError(f"{len(served)} tokens to compare with a fingerprint of {len(wanted)}")
    limit = LIMITS[precision]
    difference = sum(abs(s - w) for s, w in zip(served, wanted, strict=True)) / len(wanted)
    verdict: Literal["wanted", "before", "other"] = "wanted" if difference <= limit else "other"
    if before and precision in _BY_DIRECTION and _nearer_to_before(served, wanted, before, NOISE[precision]):
        away = sum(abs(s - b) for s, b in zip(served, before, strict=True)) / len(before)
        verdict = "before" if away <= limit else "other"
    return Verdict(verdict, difference, limit, len(wanted))


def _nearer_to_before(served: list[float], wanted: list[float], before: list[float], noise: float) -> bool:
    step = [w - b for w, b in zip(wanted, before, strict=True)]
    length = math.sqrt(sum(each * each for each in step))
    if length < _APART * noise:
        return False
    along = sum((s - b) * each for s, b, each in zip(served, before, step, strict=True))
    return along < length * length / 2


def smallest_detectable(tokens: int, precision: Precision) -> float:
    """Least root-mean-square change of a token's log-probability at which the model before an update is distinguished
    from the one after it; infinite where it never is.

    >>> round(smallest_detectable(100, "bfloat16"), 3)
    0.032
    """
    return _APART * NOISE[precision] / math.sqrt(tokens) if precision in _BY_DIRECTION else math.inf
