"""Which answered questions become the curriculum, and why others do not. Pure (docs/method.md, "Voting")."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from selfevo_contract.spec.rollout import Band
from selfevo_trainer.answers.extraction import normalise_question
from selfevo_trainer.contamination import NOTHING_HELD_OUT, HeldOutQuestions

EMPTY_MAJORITY = "empty_majority"
"""No answer had a box: there is nothing to label with."""
PROOF = "proof"
"""Asks for a proof, which no boxed answer can be checked against."""
MARKUP = "markup"
"""Question or majority answer quotes the prompt's own markup: the model talks about its task, not about mathematics."""
DUPLICATE = "duplicate"
"""The same text, normalised, as an earlier question."""
HELD_OUT = "held_out"
"""A question that the run may not train on."""
CONTAMINATED = "contaminated"
"""Shares rollout.contamination.words words in a row with a question that the run may not train on."""
BELOW_BAND = "below_band"
"""Majority share under the band: too hard, or no clear answer."""
ABOVE_BAND = "above_band"
"""Majority share over the band: nothing left to learn."""

DISAGREED = "disagreed"
"""The committee's other Solver has another majority, or none."""

TOO_LONG = "too_long"
"""The prompt with it is longer than solver.maxPromptLength; it was not answered."""

LOW_SPREAD = "low_spread"
"""A judge scores its answers more alike than those to the tasks that are kept."""

REASONS = (TOO_LONG, EMPTY_MAJORITY, PROOF, MARKUP, DUPLICATE, HELD_OUT, CONTAMINATED, BELOW_BAND, ABOVE_BAND)
"""In the order in which they are checked; a question is dropped for the first that applies."""
COMMITTEE_REASONS = (*REASONS, DISAGREED)
"""The same where a committee labels."""
SCORED_REASONS = (TOO_LONG, MARKUP, DUPLICATE, HELD_OUT, CONTAMINATED, LOW_SPREAD)
"""The same of tasks whose answers a judge scores."""

_PROOF = re.compile(r"\b(?:prove|show\s+that)\b|证明|證明", re.IGNORECASE)
# The prompt's tags and box, and the marks of chat templates (<|im_end|>). \boxed inside an answer is a nested box.
_MARKUP = re.compile(r"</?question>|\\boxed|<\|\w[\w-]{0,63}\|>|</?s>|\[/?INST\]|<(?:start|end)_of_turn>")


@dataclass(frozen=True)
class Candidate:
    """An answered question."""

    question: str
    answer: str | None
    """The majority answer."""
    share: float
    """p, the majority share."""
    too_long: bool = False
    """It was not answered for its length."""
    agrees: bool = True
    """No committee says otherwise."""


@dataclass(frozen=True)
class Selection:
    """What came of each candidate."""

    reasons: list[str | None]
    """One for each candidate, in order: why it was dropped, or None when it is kept."""
    possible: tuple[str, ...] = REASONS
    """Those that there are."""

    @property
    def dropped(self) -> dict[str, int]:
        """How many were dropped, by reason: all that are possible, zeros too."""
        return {reason: self.reasons.count(reason) for reason in self.possible}


def select(
    candidates: Sequence[Candidate],
    band: Band,
    held_out: HeldOutQuestions = NOTHING_HELD_OUT,
    possible: tuple[str, ...] = REASONS,
) -> Selection:
    """Checks each candidate against REASONS in order.

    Args:
        band: smallest and largest majority share that enter, both inclusive. Source: R-Zero, arXiv 2508.05004 keeps
            |p - 1/2| <= delta with delta = 0.25; its public code keeps 0.3..0.8.
        held_out: the questions that may not be asked.
        possible: the reasons that are counted.

    What the text says comes before what the vote says, so that the counts by band are of questions fit for training.
    A text that reached the duplicate check is taken, whatever comes of it then: its copies are duplicates, else asking
    a question ten times would be ten chances to fall into the band.
    """
    seen: set[str] = set()
    return Selection([_reason(candidate, band, held_out, seen) for candidate in candidates], possible)


@dataclass(frozen=True)
class Task:
    """A task whose answers a judge has scored."""

    question: str
    spread: float
    """Standard deviation of the scores."""
    too_long: bool = False
    """It was not answered for its length."""


def select_tasks(tasks: Sequence[Task], share: float, held_out: HeldOutQuestions = NOTHING_HELD_OUT) -> Selection:
    """Checks each task's text as `select` does, then keeps those with the largest spread of scores.

    Source: J-Zero, arXiv 2608.26582: where all answers are scored alike there is nothing to choose between.

    Args:
        share: of the tasks that pass, how many are kept, and one at least; ties go to the one that was written first.
            None without any spread is kept.
    """
    seen: set[str] = set()
    reasons = [_by_text(task.question, held_out, seen, too_long=task.too_long, checkable=False) for task in tasks]
    fit = [i for i, reason in enumerate(reasons) if reason is None]
    kept = sorted(fit, key=lambda i: -tasks[i].spread)[: max(1, round(share * len(fit)))]
    wide = {i for i in kept if tasks[i].spread > 0}
    return Selection(
        [reason or (None if i in wide else LOW_SPREAD) for i, reason in enumerate(reasons)], SCORED_REASONS
    )


def unfit(question: str, held_out: HeldOutQuestions = NOTHING_HELD_OUT, *, checkable: bool = True) -> str | None:
    """Why no vote could bring ``question`` into a curriculum: PROOF, MARKUP, HELD_OUT or CONTAMINATED; None if one can.

    The Challenger's reward asks the same, so that nothing is paid for what is dropped later.

    Args:
        checkable: an answer is to be compared; a judge reads proofs, too.
    """
    if checkable and _PROOF.search(question):
        return PROOF
    if quotes_markup(question):
        return MARKUP
    if held_out.holds(question):
        return HELD_OUT
    return CONTAMINATED if held_out.overlaps(question) else None


def quotes_markup(text: str) -> bool:
    """Whether ``text`` holds a tag or box of the prompt, or a mark of a chat template."""
    return _MARKUP.search(text) is not None


def _reason(candidate: Candidate, band: Band, held_out: HeldOutQuestions, seen: set[str]) -> str | None:
    answer = (candidate.answer or "").strip()
    if not answer and not candidate.too_long:
        return EMPTY_MAJORITY
    why = _by_text(candidate.question, held_out, seen, too_long=candidate.too_long, answer=answer)
    why = why or {"below": BELOW_BAND, "in": None, "above": ABOVE_BAND}[band.side(candidate.share)]
    return why or (None if candidate.agrees else DISAGREED)


def _by_text(
    question: str,
    held_out: HeldOutQuestions,
    seen: set[str],
    *,
    too_long: bool,
    answer: str = "",
    checkable: bool = True,
) -> str | None:
    """Why what is written keeps a question out. ``seen`` has the texts that came to the check for duplicates."""
    if too_long:
        return TOO_LONG
    never = unfit(question, held_out, checkable=checkable)
    if never == PROOF:
        return PROOF
    if never == MARKUP or quotes_markup(answer):
        return MARKUP
    text = normalise_question(question)
    if text in seen:
        return DUPLICATE
    seen.add(text)
    return never
