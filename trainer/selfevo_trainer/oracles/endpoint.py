"""A stronger model is asked for the answers to a sample of the curriculum, and votes."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Sequence
from contextlib import closing

from selfevo_contract.artifacts import ORACLE_CHUNKS
from selfevo_contract.canonical import derive_seed
from selfevo_contract.errors import InputError, ServiceError
from selfevo_contract.phases import SolverRolloutInputs
from selfevo_contract.process import ORACLE_TOKEN_ENV
from selfevo_contract.rows import CurriculumRow, OracleRow, Question
from selfevo_contract.rows_between import REPLIES, OracleReplies, OracleReply
from selfevo_contract.spec.oracles import EndpointOracle
from selfevo_trainer.answers.extraction import last_boxed
from selfevo_trainer.answers.voting import Vote, vote_many
from selfevo_trainer.chunks import Chunks, cut
from selfevo_trainer.context import Context
from selfevo_trainer.endpoints.chat import Asked, Chat
from selfevo_trainer.oracles.judgement import Judgement, accuracy
from selfevo_trainer.prompts import messages

log = logging.getLogger(__name__)
_FIELD = "spec.rollout.oracle"
_ASKED = Asked(_FIELD, _FIELD, ORACLE_TOKEN_ENV, f", or set {_FIELD}.required to false to go on without it")


def judge(
    context: Context, inputs: SolverRolloutInputs, valid: Sequence[Question], kept: Sequence[CurriculumRow]
) -> Judgement:
    """Accuracy of the labels of a sample, what it cost, and a row for each question of it."""
    oracle = inputs.oracle
    assert isinstance(oracle, EndpointOracle)
    draw = random.Random(derive_seed(inputs.seed, "oracle", oracle.seed))
    asked = [kept[i] for i in sorted(draw.sample(range(len(kept)), min(oracle.questions, len(kept))))]
    kept_replies = Chunks(context, ORACLE_CHUNKS, REPLIES)
    try:
        replies = _ask_all(
            context, oracle, asked, derive_seed(inputs.seed, "oracle answers", oracle.seed), kept_replies
        )
    except (InputError, ServiceError) as error:
        if oracle.required:
            raise
        log.warning("label accuracy is not known of this curriculum: %s", error)
        return Judgement({})
    with context.clock.during("grading"), context.grader(inputs.grading) as grader:
        votes = vote_many([[last_boxed(reply.text) for reply in group] for group in replies], grader)
        answers = [vote.answer if 2 * vote.count > vote.total else None for vote in votes]
        pairs = [(row.answer, answer) for row, answer in zip(asked, answers, strict=True) if answer is not None]
        verdicts = grader.equal_many(pairs)
    right = iter(verdicts)
    rows = [
        _row(row, answer, None if answer is None else next(right), vote, group)
        for row, answer, vote, group in zip(asked, answers, votes, replies, strict=True)
    ]
    metrics = accuracy(verdicts, len(kept)) | {
        "oracle_prompt_tokens": float(sum(row.tokens_read for row in rows)),
        "oracle_completion_tokens": float(sum(row.tokens_written for row in rows)),
    }
    if rows:
        metrics["oracle_undecided"] = answers.count(None) / len(rows)
    return Judgement(metrics, rows, kept_replies.timings())


def _ask_all(
    context: Context,
    oracle: EndpointOracle,
    asked: Sequence[CurriculumRow],
    seed: int,
    chunks: Chunks[OracleReplies],
) -> list[Sequence[OracleReply]]:
    """The answers to each question, in order. Those that an earlier attempt got are not asked for again.

    Raises:
        Terminated: SIGTERM came, and what was answered is committed.
    """
    found = {
        number: row.replies
        for number, row in chunks.read(range(len(asked))).items()
        if row.question == asked[number].question and len(row.replies) == oracle.samples
    }
    context.progress("asking the oracle", len(found), len(asked))
    chat = Chat(
        oracle.url,
        _ASKED,
        token=os.environ.get(ORACLE_TOKEN_ENV, ""),
        timeout_s=oracle.request_timeout,
        patience_s=oracle.patience,
    )
    with closing(chat):
        for numbers in cut(
            [number for number in range(len(asked)) if number not in found], context.config.chunk_questions
        ):
            questions = [asked[number] for number in numbers]
            with context.clock.during("oracle"):
                groups = _ask(chat, oracle, questions, seed)
            rows = [
                OracleReplies(question=row.question, replies=tuple(group))
                for row, group in zip(questions, groups, strict=True)
            ]
            chunks.commit(numbers, rows)
            found |= {number: row.replies for number, row in zip(numbers, rows, strict=True)}
            context.progress("asking the oracle", len(found), len(asked))
    chunks.read(range(len(asked)))  # for what they say of time
    return [found[number] for number in range(len(asked))]


def _ask(chat: Chat, oracle: EndpointOracle, asked: Sequence[CurriculumRow], seed: int) -> list[list[OracleReply]]:
    """``oracle.samples`` answers to each question, in order."""
    requests = [
        {
            "model": oracle.model,
            "messages": messages(oracle.prompt, row.question),
            "temperature": oracle.temperature,
            "max_tokens": oracle.max_completion_length,
            "seed": derive_seed(seed, row.question, sample),
        }
        for row in asked
        for sample in range(oracle.samples)
    ]
    replies = chat.ask_all(requests, oracle.max_concurrency)
    return [replies[start : start + oracle.samples] for start in range(0, len(replies), oracle.samples)]


def _row(
    row: CurriculumRow, answer: str | None, right: bool | None, vote: Vote, group: Sequence[OracleReply]
) -> OracleRow:
    return OracleRow(
        question=row.question,
        label=row.answer,
        answer=answer,
        right=right,
        votes=vote.classes,
        unboxed=sum(last_boxed(reply.text) is None for reply in group),
        truncated=sum(reply.truncated for reply in group),
        tokens_read=sum(reply.tokens_read for reply in group),
        tokens_written=sum(reply.tokens_written for reply in group),
    )
