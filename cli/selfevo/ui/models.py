"""Which models were evaluated, as numbers: the base and the Solvers by iteration, fine-tuned ones behind them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from selfevo_contract.phases import FinetuneEvaluateInputs
from selfevo_contract.plan import Step

TUNED = 10_000
"""What a fine-tuned model has above the iteration that it started from: more than there can be iterations."""


def place_of(step: Step) -> int:
    """The number of the model that ``step`` evaluates."""
    return step.iteration + (TUNED if isinstance(step.inputs, FinetuneEvaluateInputs) else 0)


def name_of(place: int) -> str:
    """As the head of a column.

    >>> [name_of(place) for place in (0, 2, TUNED, TUNED + 2)]
    ['base', '2', 'fine-tuned base', 'fine-tuned 2']
    """
    tuned, iteration = divmod(place, TUNED)
    return ("fine-tuned " if tuned else "") + (str(iteration) if iteration else "base")


def full_name_of(place: int) -> str:
    """In a sentence.

    >>> [full_name_of(place) for place in (0, 2, TUNED, TUNED + 2)]
    ['the base', 'iteration 2', 'the fine-tuned base', 'fine-tuned iteration 2']
    """
    tuned, iteration = divmod(place, TUNED)
    fine_tuned = "fine-tuned " if tuned else ""
    return f"{fine_tuned}iteration {iteration}" if iteration else f"the {fine_tuned}base"


def last_of(places: Sequence[int]) -> int:
    """The last iteration among them, which are in order."""
    return next((place for place in reversed(places) if place < TUNED), places[-1])


def held_against(places: Iterable[int]) -> list[tuple[int, int]]:
    """Each model behind the one that it is compared with: a Solver with the one evaluated before it, a fine-tuned one
    with what it started from, and with the fine-tuned base.

    >>> held_against([0, 1, 3, TUNED, TUNED + 3])
    [(0, 1), (1, 3), (0, 10000), (3, 10003), (10000, 10003)]
    """
    known = sorted(places)
    solvers, tuned = ([n for n in known if (n >= TUNED) is of] for of in (False, True))
    pairs = list(pairwise(solvers))
    pairs += [(n - TUNED, n) for n in tuned if n - TUNED in solvers]
    return pairs + [(TUNED, n) for n in tuned if n > TUNED and TUNED in tuned]
