"""A judge that is not trained: a model behind an OpenAI-compatible address scores answers by criteria."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from selfevo_contract import reasons
from selfevo_contract.canonical import digest
from selfevo_contract.errors import InputError
from selfevo_contract.judging import ANSWERS, COUNTED, MALFORMED, REQUESTS, TOKENS, UNSCORED
from selfevo_contract.process import JUDGE_TOKEN_ENV
from selfevo_contract.rows_between import OracleReply
from selfevo_contract.spec.rubric import Rubric
from selfevo_trainer.context import Context
from selfevo_trainer.endpoints.chat import Asked, Chat
from selfevo_trainer.endpoints.in_parallel import in_parallel
from selfevo_trainer.judges.criteria import Criterion, read_criteria
from selfevo_trainer.judges.verdicts import read_scores, request
from selfevo_trainer.prompts import shown

FIELD = "spec.verifier.rubric"
_ASKED = Asked(f"{FIELD}.endpoint", FIELD, JUDGE_TOKEN_ENV)
FEW = 16
"""Answers before which the share without a score is not checked."""
_CHARACTERS = 4
"""Of a token, where the server does not count."""
_KEPT = 3
"""Answers without the JSON that messages show."""


class RubricJudge:
    """See `Scorer`. What it gives depends on task and answer alone, and on the model behind the address."""

    def __init__(
        self, rubric: Rubric, criteria: Sequence[Criterion], *, share: float = 1.0, counted: Mapping[str, float] = {}
    ) -> None:
        """
        Args:
            share: this process's of the step's budget of tokens.
            counted: what earlier attempts of it have asked.
        """
        self.rubric, self.criteria = rubric, criteria
        self.digest = digest(
            {
                "rubric": rubric.model_dump(
                    mode="json", exclude={"criteria", "endpoint", "max_unscored", "anchor_pairs"}
                ),
                "criteria": [[each.name, each.description, each.weight, list(each.scale)] for each in criteria],
            }
        )
        limit = rubric.endpoint.max_tokens
        self._limit = None if limit is None else limit * share
        self._share = share
        self._counts = Counter({name: int(counted.get(name, 0)) for name in COUNTED})
        self._reported = Counter(self._counts)
        self._malformed: list[str] = []
        self._lock = threading.Lock()
        self._chat = Chat(
            rubric.endpoint.url,
            _ASKED,
            token=os.environ.get(JUDGE_TOKEN_ENV, ""),
            timeout_s=rubric.endpoint.request_timeout,
            patience_s=rubric.endpoint.patience,
        )

    @classmethod
    def open(
        cls, context: Context, rubric: Rubric, *, share: float = 1.0, counted: Mapping[str, float] = {}
    ) -> RubricJudge:
        """The judge of a phase; its criteria are read.

        Raises:
            InputError: the criteria cannot be read, or are not as they must be.
        """
        return cls(rubric, read_criteria(context, rubric.criteria), share=share, counted=counted)

    def rewards(self, tasks: Sequence[str], answers: Sequence[str]) -> list[float | None]:
        """See `Scorer.rewards`.

        Raises:
            InputError: the endpoint refuses; the budget is used up; too many answers have no score.
            ServiceError: the endpoint gives no useful answer within its patience.
        """
        pairs = list(zip(map(_text, tasks), map(_text, answers), strict=True))
        new = list(dict.fromkeys(pairs))
        votes = self.rubric.votes
        found = in_parallel(
            lambda number: self._vote(*new[number // votes], number % votes),
            len(new) * votes,
            self.rubric.endpoint.max_concurrency,
        )
        known = {pair: _mean(found[number * votes : (number + 1) * votes]) for number, pair in enumerate(new)}
        scores = [known[pair] for pair in pairs]
        self._counts += Counter({ANSWERS: len(scores), UNSCORED: scores.count(None)})
        self._check_scored()
        return scores

    def goes_on(self, tokens: float) -> None:
        """Training has spent ``tokens`` in this process so far, earlier attempts' too."""
        more = max(0, int(tokens) - self._counts[TOKENS])
        self._counts[TOKENS] += more
        self._reported[TOKENS] += more

    def spent(self) -> dict[str, float]:
        """See `Scorer.spent`."""
        before, self._reported = self._reported, Counter(self._counts)
        return {name: float(self._counts[name] - before[name]) for name in COUNTED}

    def close(self) -> None:
        """Give its connections back."""
        self._chat.close()

    def _vote(self, task: str, answer: str, number: int) -> float | None:
        """One vote on ``answer``; None where each attempt was answered with what is not the JSON."""
        for attempt in range(self.rubric.attempts):
            self._check_budget()
            asked = request(self.rubric, self.criteria, task, answer, number, attempt)
            reply = self._chat.ask(asked)
            score = read_scores(reply.text, self.criteria)
            with self._lock:
                self._counts[REQUESTS] += 1
                self._counts[TOKENS] += _tokens(asked, reply)
                if score is not None:
                    return score
                self._counts[MALFORMED] += 1
                self._malformed = [*self._malformed, reply.text][-_KEPT:]
        return None

    def _check_budget(self) -> None:
        used = self._counts[TOKENS]
        if self._limit is not None and used >= self._limit:
            of = "" if self._share == 1 else f", of which this process has {self._limit:.0f}"
            raise InputError(
                f"the judge has been asked for {used:,} tokens in this step, and {FIELD}.endpoint.maxTokens is "
                f"{self.rubric.endpoint.max_tokens:,}{of}; raise it, and the step goes on from what is kept",
                reason=reasons.JUDGE_BUDGET_EXCEEDED,
            )

    def _check_scored(self) -> None:
        answers, without = self._counts[ANSWERS], self._counts[UNSCORED]
        if answers >= FEW and without > self.rubric.max_unscored * answers:
            raise InputError(
                f"the judge has left {without} of {answers} answers without a score ({without / answers:.0%}), and "
                f"{FIELD}.maxUnscored is {self.rubric.max_unscored}: what it answers is not the JSON that it is asked "
                f"for; name another {FIELD}.model, raise {FIELD}.maxCompletionLength, or set {FIELD}.responseFormat. "
                f"Its last replies: {shown(self._malformed)}",
                reason=reasons.NO_SCORES,
            )


def _mean(votes: Sequence[float | None]) -> float | None:
    counted = [vote for vote in votes if vote is not None]
    return fmean(counted) if counted else None


def totals(history: Iterable[Mapping[str, float]], processes: int) -> dict[str, float]:
    """What a training's judge was asked, from the metrics of its updates, each the mean over the processes."""
    rows = [row for row in history if TOKENS in row]
    return {name: sum(row[name] for row in rows) * processes for name in COUNTED} if rows else {}


def _tokens(asked: Mapping[str, object], reply: OracleReply) -> int:
    counted = reply.tokens_read + reply.tokens_written
    return counted or (len(str(asked["messages"])) + len(reply.text)) // _CHARACTERS + 1


def _text(text: str) -> str:
    # Half of a surrogate pair is no text that could be sent.
    return text.encode("utf-8", "replace").decode()
