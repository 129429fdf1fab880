"""Majority votes: answers to one question -> classes of equal answers -> label and share (docs/method.md, "Voting").

Pure; what "equal" means is an argument. Suffixes: Q questions, M answers to one question, C classes of one question.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from selfevo_trainer.extraction import normalise_answer


@dataclass(frozen=True)
class Vote:
    """The outcome for one question.

    >>> vote(["4", "5", None, "4"], lambda a, b: a == b)
    Vote(answer='4', count=2, total=4, classes=(('4', 2), ('5', 1)))
    """

    answer: str | None
    """The majority answer: the first member of the largest class; None when no answer had a box."""
    count: int
    """Size of the largest class."""
    total: int
    """m: all answers, those without a box too."""
    classes: tuple[tuple[str, int], ...]
    """First member and size of each class, in the order first seen."""

    @property
    def share(self) -> float:
        """p, the majority share: 0 when no answer had a box."""
        return self.count / self.total


class Comparer(Protocol):
    """What compares answers in batches: ``grading.Grader``."""

    def equal_many(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether each pair is equal."""
        ...


def vote(answers: Sequence[str | None], equal: Callable[[str, str], bool]) -> Vote:
    """The majority of ``answers``. None is an answer without a box: it counts in the total and never wins.

    An answer joins the first class whose first member it equals, else founds one. Of classes of one size the one
    first seen wins. Source: R-Zero, arXiv 2508.05004: p is the share of the majority answer among m samples.
    """
    members: list[str] = []
    sizes: list[int] = []
    for answer in answers:
        if answer is None:
            continue
        for c, member in enumerate(members):
            if answer == member or equal(member, answer):
                sizes[c] += 1
                break
        else:
            members.append(answer)
            sizes.append(1)
    return _outcome(list(zip(members, sizes, strict=True)), len(answers))


def vote_many(answers_QM: Sequence[Sequence[str | None]], comparer: Comparer) -> list[Vote]:
    """``vote`` for each question, with the same outcome, in rounds that each compare one batch over all questions.

    Round c settles each question's c-th class: its founder is the first text in no class yet, and all other texts in
    no class are compared with it. The number of rounds is that of the largest number of classes, and the comparisons
    of a round can run in parallel. Texts with one normalised form are one text, so each is compared once.
    """
    ballots_Q = [_Ballot(answers) for answers in answers_QM]
    while unsettled := [ballot for ballot in ballots_Q if ballot.open]:
        pairs = [pair for ballot in unsettled for pair in ballot.found_class()]
        equal = iter(comparer.equal_many(pairs) if pairs else [])
        for ballot in unsettled:
            ballot.settle([next(equal) for _ in ballot.open])
    return [_outcome(ballot.classes, len(answers)) for ballot, answers in zip(ballots_Q, answers_QM, strict=True)]


@dataclass
class _Ballot:
    """One question's texts while they are sorted into classes."""

    answers: Sequence[str | None]
    open: list[tuple[str, int]] = field(init=False)
    """(first text with this normalised form, how many there are) of the forms in no class yet, as first seen."""
    classes: list[tuple[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        first: dict[str, str] = {}
        counts: dict[str, int] = {}
        for answer in self.answers:
            if answer is not None:
                form = normalise_answer(answer)
                first.setdefault(form, answer)
                counts[form] = counts.get(form, 0) + 1
        self.open = [(first[form], count) for form, count in counts.items()]

    def found_class(self) -> list[tuple[str, str]]:
        """The first open text founds a class; the comparisons of the others with it."""
        founder = self.open.pop(0)
        self.classes.append(founder)
        return [(founder[0], text) for text, _ in self.open]

    def settle(self, equal: Sequence[bool]) -> None:
        """Those equal to the founder join its class."""
        founder, size = self.classes[-1]
        joined = sum(count for (_, count), same in zip(self.open, equal, strict=True) if same)
        self.classes[-1] = (founder, size + joined)
        self.open = [text for text, same in zip(self.open, equal, strict=True) if not same]


def _outcome(classes: Sequence[tuple[str, int]], total: int) -> Vote:
    if total == 0:
        raise ValueError("a vote over no answers; the engine must return at least one answer for each question")
    if not classes:
        return Vote(answer=None, count=0, total=total, classes=())
    answer, count = max(classes, key=lambda item: item[1])  # max takes the first of equals: the class first seen
    return Vote(answer=answer, count=count, total=total, classes=tuple(classes))
