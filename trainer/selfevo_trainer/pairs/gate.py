"""Which made pairs are trained on (docs/verifier.md, "Gate"). Pure but for the judge that is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from selfevo_contract.spec.verifier import Gate
from selfevo_trainer.judges.base import Judge
from selfevo_trainer.pairs.base import Made, Part

EMPTY = "empty"
"""An answer says nothing."""
SAME = "same"
"""Both answers are the same."""
LENGTH = "length"
"""One is longer than gate.lengthRatio allows."""
PARTS = "parts"
"""The first judge finds its parts' answers no better than answers to other parts."""
REASONS = (EMPTY, SAME, LENGTH, PARTS)
"""In the order in which they are checked."""


def gate(made: Sequence[Made], settings: Gate, length: Callable[[str], int], first: Judge | None) -> list[str | None]:
    """Why each pair is dropped, None where it is trained on.

    Args:
        length: of an answer, in tokens.
        first: the first judge, which knows parts better than what is composed of them: about the whole it is wrong
            where the pair is of use. None where there is none.
    """
    found = [_by_text(pair, settings.length_ratio, length) for pair in made]
    if not settings.parts or first is None:
        return found
    asked = [i for i, pair in enumerate(made) if found[i] is None and len(pair.parts) > 1]
    for i, right in zip(asked, _parts_right(first, [made[i].parts for i in asked]), strict=True):
        found[i] = None if 2 * right > len(made[i].parts) else PARTS
    return found


def _by_text(pair: Made, ratio: float, length: Callable[[str], int]) -> str | None:
    chosen, rejected = pair.chosen.strip(), pair.rejected.strip()
    if not chosen or not rejected:
        return EMPTY
    if chosen == rejected:
        return SAME
    shorter, longer = sorted((length(chosen), length(rejected)))
    return LENGTH if longer > ratio * shorter else None


def _parts_right(judge: Judge, parts: Sequence[tuple[Part, ...]]) -> list[int]:
    """Of each composed answer, how many parts have a better score with their own answer than with the next part's."""
    own = [(part.question, part.answer) for group in parts for part in group]
    other = [(part.question, group[(k + 1) % len(group)].answer) for group in parts for k, part in enumerate(group)]
    scores = judge.score(*_columns([*own, *other])) if own else []
    better = iter(mine > theirs for mine, theirs in zip(scores[: len(own)], scores[len(own) :], strict=True))
    return [sum(next(better) for _ in group) for group in parts]


def _columns(pairs: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    return [question for question, _ in pairs], [answer for _, answer in pairs]
