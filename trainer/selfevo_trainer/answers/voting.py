"""Majority votes: answers to one question -> classes of equal answers -> label and share (docs/method.md, "Voting").

Pure; what "equal" means is an argument. Suffixes: Q questions, M answers to one question, C classes of one question.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from selfevo_trainer.answers.forms import answer_form


@dataclass(frozen=True)
class Vote:
    """The outcome for one question.

    >>> vote(["4", "5", None, "4"], lambda a, b: a == b)
    Vote(answer='4', count=2, total=4, classes=(('4', 2), ('5', 1)))
    """

    answer: str | None
    """The majority answer: the commonest spelling in the largest class; None when no answer had a box."""
    count: int
    """Size of the largest class."""
    total: int
    """m: all answers, those without a box too."""
    classes: tuple[tuple[str, int], ...]
    """Commonest spelling and size of each class, in the order first seen. Of spellings as common, the first seen."""
    class_of: tuple[int | None, ...] = field(default=(), repr=False, compare=False)
    """The class of each answer, by its place in ``classes``; None without a box. M long."""

    @property
    def share(self) -> float:
        """p, the majority share: 0 when no answer had a box."""
        return self.count / self.total

    @property
    def boxed_share(self) -> float:
        """The majority share among the answers that have a box: 0 when none has."""
        boxed = sum(size for _, size in self.classes)
        return self.count / boxed if boxed else 0.0


def expected_accuracy(votes: Iterable[Sequence[int]], total: int, band: Callable[[float], bool]) -> float | None:
    """What another answer of the same Solver earns by the majority, over the questions that ``band`` lets in.

    An answer has a part in its own majority, and in whether its question is let in: the largest class's share is above
    what another one earns, and most where the Solver is least sure or the band is high. So each answer is left out in
    turn, the others vote, and ``band`` is asked about their majority's share; where several classes are the largest,
    the answer equals it as often as chance would choose its own.

    Args:
        votes: of each question, let in or not, the sizes of its classes; answers in none of them never equal a
            majority.
        total: answers to a question.

    Returns:
        The share of the answers whose others' question is let in; None where there is none.

    >>> every = lambda share: True
    >>> expected_accuracy([[3, 1]], 4, every), expected_accuracy([[2, 2]], 4, every)
    (0.75, 0.0)
    >>> expected_accuracy([[3, 1]], 4, lambda share: share < 1)
    1.0
    """
    paid = counted = 0.0
    for sizes in votes:
        nowhere = total - sum(sizes)
        for place, size in [*enumerate(sizes), (-1, nowhere)]:
            others = [each - (at == place) for at, each in enumerate(sizes)]
            largest = max(others, default=0)
            if not size or not largest or not band(largest / (total - 1)):
                continue
            counted += size
            if place >= 0 and others[place] == largest:
                paid += size / others.count(largest)
    return paid / counted if counted else None


class Comparer(Protocol):
    """What compares answers in batches: ``grading.Grader``."""

    def equal_many(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether each pair is equal."""
        ...


def vote(answers: Sequence[str | None], equal: Callable[[str, str], bool]) -> Vote:
    """The majority of ``answers``. None is an answer without a box: it counts in the total and never wins.

    An answer joins the first class that holds no answer unequal to it, else founds one: equality of answers is not
    transitive (50 % is 0.5, and it is 50), so equal to one member is not enough. Of classes of one size the one first
    seen wins. Source: R-Zero, arXiv 2508.05004: p is the share of the majority answer among m samples.
    """
    classes: list[list[str]] = []
    for answer in answers:
        if answer is None:
            continue
        for members in classes:
            if all(answer == member or equal(member, answer) for member in dict.fromkeys(members)):
                members.append(answer)
                break
        else:
            classes.append([answer])
    return _outcome(classes, answers)


def vote_many(answers_QM: Sequence[Sequence[str | None]], comparer: Comparer) -> list[Vote]:
    """``vote`` for each question, with the same outcome, in rounds that each compare one batch over all questions.

    Class after class: the first text in no class yet founds one and all other texts in no class are compared with it,
    in one batch; then those equal to it with each other, in a second. Texts with one form (``answer_form``) are one
    text, so each pair of forms is compared once.
    """
    ballots_Q = [_Ballot(answers) for answers in answers_QM]
    while unsettled := [ballot for ballot in ballots_Q if ballot.open]:
        for pairs_of in (_Ballot.found_class, _Ballot.candidates):
            pairs_U = [pairs_of(ballot) for ballot in unsettled]
            pairs = [pair for each in pairs_U for pair in each]
            verdicts = iter(comparer.equal_many(pairs) if pairs else [])
            for ballot, each in zip(unsettled, pairs_U, strict=True):
                ballot.verdicts = [next(verdicts) for _ in each]
        for ballot in unsettled:
            ballot.settle()
    return [_outcome(ballot.classes, answers) for ballot, answers in zip(ballots_Q, answers_QM, strict=True)]


@dataclass
class _Ballot:
    """One question's texts while they are sorted into classes."""

    answers: Sequence[str | None]
    open: list[Counter[str]] = field(init=False)
    """The texts of one form, counted, for each form in no class yet, as first seen."""
    classes: list[list[str]] = field(default_factory=list)
    """The members of each class, in the order of the answers."""
    verdicts: list[bool] = field(default_factory=list)
    """On the pairs last asked for."""
    _equal: list[Counter[str]] = field(default_factory=list)
    """Those equal to the founder."""
    _founder: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        texts: dict[str, Counter[str]] = {}
        for answer in self.answers:
            if answer is not None:
                texts.setdefault(answer_form(answer) or answer, Counter())[answer] += 1
        self.open = list(texts.values())

    def found_class(self) -> list[tuple[str, str]]:
        """The first open text founds a class; the comparisons of the others with it."""
        self._founder = self.open.pop(0)
        return [(_first(self._founder), _first(texts)) for texts in self.open]

    def candidates(self) -> list[tuple[str, str]]:
        """The comparisons with each other of those that are equal to the founder."""
        self._equal = [texts for texts, same in zip(self.open, self.verdicts, strict=True) if same]
        return [(_first(a), _first(b)) for i, b in enumerate(self._equal) for a in self._equal[:i]]

    def settle(self) -> None:
        """Those equal to all members so far join, in the order first seen."""
        verdicts = iter(self.verdicts)
        joined: list[int] = []
        for i in range(len(self._equal)):
            same = [next(verdicts) for _ in range(i)]
            if all(same[j] for j in joined):
                joined.append(i)
        members = [self._equal[i] for i in joined]
        self.open = [texts for texts in self.open if not any(texts is member for member in members)]
        # In the order of the answers, so that of equally common spellings the first seen is first.
        texts = {text for each in (self._founder, *members) for text in each}
        self.classes.append([answer for answer in self.answers if answer in texts])


def _first(texts: Counter[str]) -> str:
    return next(iter(texts))


def _named(texts: Counter[str]) -> tuple[str, int]:
    """The commonest spelling (of equals the first seen, which ``most_common`` keeps), and how many there are in all."""
    return texts.most_common(1)[0][0], texts.total()


def _outcome(members_C: Sequence[Sequence[str]], answers: Sequence[str | None]) -> Vote:
    """The vote whose classes hold ``members_C``, each in the order of the ``answers``."""
    if not answers:
        raise ValueError("a vote over no answers; the engine must return at least one answer for each question")
    class_of = {text: number for number, members in enumerate(members_C) for text in members}
    classes = tuple(_named(Counter(members)) for members in members_C)
    # max takes the first of equals: the class first seen
    answer, count = max(classes, key=lambda item: item[1], default=(None, 0))
    return Vote(
        answer, count, len(answers), classes, tuple(None if text is None else class_of[text] for text in answers)
    )
