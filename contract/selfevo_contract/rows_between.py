"""Rows that a run has where its settings ask for them: a committee's votes, a Challenger's memory, an oracle's replies
(docs/data.md)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Strict

from selfevo_contract.rows import Count, InvalidCompletion, Row, RowFile, Share, WrittenQuestion


class SecondedQuestion(WrittenQuestion):
    """A question on which the committee's other Solver has voted."""

    second: str | None = None
    """Its majority; null when no answer of it had a vote, or it was not asked."""
    second_share: Share = 0.0
    """Its majority share."""


class OracleReply(Row):
    """One answer of an oracle that was asked."""

    text: str
    truncated: bool
    tokens_read: Count = 0
    """0 where the server does not say."""
    tokens_written: Count = 0


class OracleReplies(Row):
    """All answers of an oracle to one question of its sample."""

    question: str
    replies: Annotated[tuple[OracleReply, ...], Strict(False)]


SECONDED = RowFile[SecondedQuestion | InvalidCompletion]("questions.jsonl", (SecondedQuestion, InvalidCompletion))
"""Of a rollout's chunk ``committee``: the same rows, questions with the other Solver's vote."""
MEMORY = RowFile[WrittenQuestion]("memory.parquet", (WrittenQuestion,))
"""Of a Challenger's training with challenger.reward.memory: the questions of earlier iterations that it was held
against, oldest first."""
REPLIES = RowFile[OracleReplies]("replies.jsonl", (OracleReplies,))
"""Of a rollout's chunk ``oracle``: a row for each question of the oracle's sample, in the order of the curriculum."""
