"""How a judge with criteria is asked: its budget, what is asked again, what is counted, what ends a step."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from selfevo_contract import reasons
from selfevo_contract.errors import InputError
from selfevo_contract.judging import ANSWERS, COUNTED, MALFORMED, REQUESTS, TOKENS, UNSCORED
from selfevo_contract.process import JUDGE_TOKEN_ENV
from selfevo_contract.rows_between import OracleReply
from selfevo_contract.spec.rubric import Rubric
from selfevo_trainer.context import Context
from selfevo_trainer.endpoints.chat import Asked, Chat
from selfevo_trainer.inputs.criteria import Criterion, read_criteria
from selfevo_trainer.prompts import shown

FIELD = "spec.verifier.rubric"
_ASKED = Asked(f"{FIELD}.endpoint", FIELD, JUDGE_TOKEN_ENV)
FEW = 16
"""Answers before which the share without a score is not checked."""
_CHARACTERS = 4
"""Of a token, where the server does not count."""
_KEPT = 3
"""Answers without the JSON that messages show."""


class CriteriaJudge:
    """A model behind an OpenAI-compatible address, with criteria. What it answers depends on what it is asked about
    alone, and on the model behind the address."""

    def __init__(
        self, rubric: Rubric, criteria: Sequence[Criterion], *, share: float = 1.0, counted: Mapping[str, float] = {}
    ) -> None:
        """
        Args:
            share: this process's of the step's budget of tokens.
            counted: what earlier attempts of it have asked.
        """
        self.rubric, self.criteria = rubric, criteria
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
    def open(cls, context: Context, rubric: Rubric, *, share: float = 1.0, counted: Mapping[str, float] = {}) -> Self:
        """The judge of a phase; its criteria are read.

        Raises:
            InputError: the criteria cannot be read, or are not as they must be.
        """
        return cls(rubric, read_criteria(context, rubric.criteria), share=share, counted=counted)

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

    def vote(
        self, request: Callable[[int], dict[str, Any]], read: Callable[[str, Sequence[Criterion]], float | None]
    ) -> float | None:
        """One vote; None where each attempt was answered with what is not the JSON.

        Args:
            request: what is asked in an attempt, by its number.
            read: the vote in an answer; None where there is none.

        Raises:
            InputError: the endpoint refuses; the budget is used up.
            ServiceError: the endpoint gives no useful answer within its patience.
        """
        for attempt in range(self.rubric.attempts):
            self._check_budget()
            asked = request(attempt)
            reply = self._chat.ask(asked)
            found = read(reply.text, self.criteria)
            with self._lock:
                self._counts[REQUESTS] += 1
                self._counts[TOKENS] += _tokens(asked, reply)
                if found is not None:
                    return found
                self._counts[MALFORMED] += 1
                self._malformed = [*self._malformed, reply.text][-_KEPT:]
        return None

    def count(self, scores: Sequence[float | None]) -> None:
        """Answers have been given these ``scores``.

        Raises:
            InputError: too many answers have none.
        """
        self._counts += Counter({ANSWERS: len(scores), UNSCORED: scores.count(None)})
        answers, without = self._counts[ANSWERS], self._counts[UNSCORED]
        if answers >= FEW and without > self.rubric.max_unscored * answers:
            raise InputError(
                f"the judge has left {without} of {answers} answers without a score ({without / answers:.0%}), and "
                f"{FIELD}.maxUnscored is {self.rubric.max_unscored}: what it answers is not the JSON that it is asked "
                f"for; name another {FIELD}.model, raise {FIELD}.maxCompletionLength, or set {FIELD}.responseFormat. "
                f"Its last replies: {shown(self._malformed)}",
                reason=reasons.NO_SCORES,
            )

    def _check_budget(self) -> None:
        used = self._counts[TOKENS]
        if self._limit is not None and used >= self._limit:
            of = "" if self._share == 1 else f", of which this process has {self._limit:.0f}"
            raise InputError(
                f"the judge has been asked for {used:,} tokens in this step, and {FIELD}.endpoint.maxTokens is "
                f"{self.rubric.endpoint.max_tokens:,}{of}; raise it, and the step goes on from what is kept",
                reason=reasons.JUDGE_BUDGET_EXCEEDED,
            )


def _tokens(asked: Mapping[str, object], reply: OracleReply) -> int:
    counted = reply.tokens_read + reply.tokens_written
    return counted or (len(str(asked["messages"])) + len(reply.text)) // _CHARACTERS + 1


def sendable(text: str) -> str:
    """``text``, half of a surrogate pair replaced, which is no text that could be sent."""
    return text.encode("utf-8", "replace").decode()
