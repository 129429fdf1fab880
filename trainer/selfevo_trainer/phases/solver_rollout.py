"""solver-rollout: the Challenger writes, the Solver answers, the vote labels, the band filters (docs/method.md).

Each shard commits itself; whoever then sees all shards writes the step's manifest (docs/design.md, decision 3).
"""

from __future__ import annotations

import random
from collections import Counter

from selfevo_contract import reasons
from selfevo_contract.artifacts import shard_prefix
from selfevo_contract.canonical import derive_seed
from selfevo_contract.errors import DataError
from selfevo_contract.phases import SolverRolloutInputs
from selfevo_contract.process import PhaseResult
from selfevo_contract.rows import (
    CURRICULUM,
    QUESTIONS,
    SHARD_QUESTIONS,
    CheckedQuestion,
    CurriculumRow,
    InvalidCompletion,
    Question,
    Tally,
    write_rows,
)
from selfevo_store import fetch_rows
from selfevo_trainer.answers.extraction import ParsedQuestion, last_boxed, normalise_question, parse_challenger
from selfevo_trainer.answers.grades import tally, verdicts_of
from selfevo_trainer.answers.voting import Vote, vote_many
from selfevo_trainer.context import Context
from selfevo_trainer.curriculum import Candidate, select
from selfevo_trainer.inputs import preflight
from selfevo_trainer.inputs.data import held_out_questions
from selfevo_trainer.inputs.frozen import open_frozen
from selfevo_trainer.inputs.model_files import fetch_model
from selfevo_trainer.models.loading import load_tokenizer
from selfevo_trainer.oracles.arithmetic import true_answer
from selfevo_trainer.prompts import encode, messages, shown

ShardRow = Question | InvalidCompletion


def run(context: Context, inputs: SolverRolloutInputs) -> PhaseResult:
    """Make this shard, then the whole if all shards are there."""
    assert context.shard is not None
    prefix = shard_prefix(context.config.prefix, context.shard)
    if context.own_manifest(prefix) is None:
        rows = make_shard(context, inputs, context.shard)
        file = write_rows(context.workdir / SHARD_QUESTIONS.name, rows)
        context.commit(prefix, {SHARD_QUESTIONS.name: file}, {"questions": float(len(rows))})
    shards = read_shards(context, inputs.shards)
    if shards is None:
        return context.result("shard", {})
    return finish(context, inputs, shards)


def shard_size(inputs: SolverRolloutInputs, shard: int) -> int:
    """Questions of ``shard``: as equal as can be, and ``inputs.questions`` in all."""
    return inputs.questions // inputs.shards + (shard < inputs.questions % inputs.shards)


def first_of(inputs: SolverRolloutInputs, shard: int) -> int:
    """Number of ``shard``'s first question in the whole rollout."""
    return sum(shard_size(inputs, before) for before in range(shard))


def make_shard(context: Context, inputs: SolverRolloutInputs, shard: int) -> list[ShardRow]:
    """Write and answer this shard's questions: a row for each completion of the Challenger, in order."""
    preflight.check(context, inputs)
    count = shard_size(inputs, shard)
    total = count * (1 + inputs.samples)
    context.progress("writing questions", 0, total)
    engine = open_frozen(context, inputs, "challenger", [inputs.question_sampling])
    # The number of a question in the whole rollout, so that questions and answers are those of any other cut.
    numbers = range(first_of(inputs, shard), first_of(inputs, shard) + count)
    asks = [messages(inputs.challenger_prompt)] * count
    written = engine.generate(asks, inputs.question_sampling, 1, derive_seed(inputs.seed, "questions"), numbers)
    engine.close()
    rows: dict[int, ShardRow] = {}
    asked: dict[int, ParsedQuestion] = {}
    for number, [completion] in zip(numbers, written, strict=True):
        parsed = parse_challenger(completion.text)
        if parsed is None:
            rows[number] = InvalidCompletion.of(completion.text)
        else:
            asked[number] = parsed

    context.progress("answering", count, total)
    engine = open_frozen(context, inputs, "solver", [inputs.answer_sampling], inputs.max_prompt_length)
    with context.clock.during("load"):
        tokenizer = load_tokenizer(fetch_model(context, inputs.solver, "solver"), inputs.loading)
    prompts = {number: messages(inputs.solver_prompt, parsed.question) for number, parsed in asked.items()}
    long = {number for number, prompt in prompts.items() if len(encode(tokenizer, prompt)) > inputs.max_prompt_length}
    for number in long:
        rows[number] = _question(inputs, asked.pop(number), Vote(None, 0, inputs.samples, ()), None)
        del prompts[number]
    seed = derive_seed(inputs.seed, "answers")
    answers = engine.generate(list(prompts.values()), inputs.answer_sampling, inputs.samples, seed, list(prompts))
    engine.close()

    context.progress("voting", total, total)
    with context.clock.during("grading"), context.grader(inputs.grading) as grader:
        boxes = [[last_boxed(completion.text) for completion in group] for group in answers]
        votes, verdicts = verdicts_of(grader, lambda: vote_many(boxes, grader))
    for i, (number, vote, group) in enumerate(zip(asked, votes, answers, strict=True)):
        rows[number] = _question(inputs, asked[number], vote, tally(group, verdicts if i == 0 else None))
    return [rows[number] for number in numbers]


def _question(inputs: SolverRolloutInputs, parsed: ParsedQuestion, vote: Vote, answers: Tally | None) -> Question:
    """The row of a valid question; ``answers`` are None when it was too long to be asked."""
    return Question(
        question=parsed.question,
        proposed=parsed.answer,
        too_long=answers is None,
        answers=answers,
        majority=vote.answer,
        share=vote.share,
        votes=vote.classes,
        truth=true_answer(inputs.oracle, parsed.question),
    )


def read_shards(context: Context, shards: int) -> list[ShardRow] | None:
    """All shards' rows in order, or None while one is missing."""
    rows: list[ShardRow] = []
    with context.clock.during("store"):
        prefixes = [shard_prefix(context.config.prefix, index) for index in range(shards)]
        manifests = [context.own_manifest(prefix) for prefix in prefixes]
        for prefix, manifest in zip(prefixes, manifests, strict=True):
            if manifest is None:
                return None
            rows += fetch_rows(context.store, prefix, manifest, SHARD_QUESTIONS)
    return rows


def finish(context: Context, inputs: SolverRolloutInputs, rows: list[ShardRow]) -> PhaseResult:
    """Filter, label and commit the step.

    Raises:
        DataError: no question was valid, or none is left.
    """
    valid = [row for row in rows if isinstance(row, Question)]
    if not valid:
        raw = [row.raw for row in rows if isinstance(row, InvalidCompletion)]
        raise DataError(
            f"the Challenger wrote no valid question in {len(rows)} completions (<question>...</question> and "
            "\\boxed{...}); change spec.challenger.prompt or raise spec.challenger.grpo.maxCompletionLength. "
            f"It wrote: {shown(raw[:3])}",
            reason=reasons.NO_VALID_QUESTION,
        )
    held_out = held_out_questions(context, inputs)
    selection = select(
        [Candidate(row.question, row.majority, row.share, row.too_long) for row in valid],
        band=inputs.band,
        held_out=held_out,
    )
    why_not = iter(selection.reasons)
    checked = [row.checked(next(why_not)) if isinstance(row, Question) else row for row in rows]
    kept = relabel([row for row in checked if isinstance(row, CheckedQuestion) and row.dropped is None], inputs)
    metrics = measure(rows, kept, selection.dropped, inputs) | held_out.counts(row.question for row in valid)
    if len(kept) < inputs.min_curriculum:
        counts = {**selection.dropped, "no_truth": selection.reasons.count(None) - len(kept)}
        why = ", ".join(f"{count} {reason}" for reason, count in counts.items() if count)
        left = f"{len(kept)} are left, fewer than spec.rollout.minCurriculum {inputs.min_curriculum}"
        raise DataError(
            f"the curriculum is {'too small' if kept else 'empty'}: of {len(valid)} valid questions "
            f"{left if kept else 'none is left'} ({why}); widen spec.rollout.band "
            f"({inputs.band.min}..{inputs.band.max}), raise spec.rollout.questions"
            f"{', or lower spec.rollout.minCurriculum' if kept else ''}",
            reason=reasons.EMPTY_CURRICULUM,
        )
    files = {
        CURRICULUM.name: write_rows(context.workdir / CURRICULUM.name, kept),
        QUESTIONS.name: write_rows(context.workdir / "all.jsonl", checked),
    }
    committed = context.commit(context.config.prefix, files, metrics)
    return context.result("committed" if committed.won else "found", committed.manifest.metrics)


def relabel(kept: list[CheckedQuestion], inputs: SolverRolloutInputs) -> list[CurriculumRow]:
    """The curriculum. `random` deals the majority answers out anew; `truth` leaves out questions without one."""
    labels = [row.majority for row in kept]
    if inputs.labels == "random":
        random.Random(derive_seed(inputs.seed, "labels")).shuffle(labels)
    elif inputs.labels == "truth":
        labels = [row.truth for row in kept]
    return [
        CurriculumRow(question=row.question, answer=label, share=row.share, truth=row.truth)
        for row, label in zip(kept, labels, strict=True)
        if label is not None
    ]


def measure(
    rows: list[ShardRow], kept: list[CurriculumRow], dropped: dict[str, int], inputs: SolverRolloutInputs
) -> dict[str, float]:
    """What the manifest says of a rollout.

    ``label_accuracy`` counts a question without a known truth (a malformed one) as labelled wrongly.
    """
    valid = [row for row in rows if isinstance(row, Question)]
    texts = Counter(normalise_question(row.question) for row in valid)
    in_band = sum(inputs.band.side(row.share) == "in" and row.majority is not None for row in valid)
    metrics = {
        "questions": float(len(rows)),
        "valid": float(len(valid)),
        "kept": float(len(kept)),
        "distinct_share": len(texts) / len(rows),
        "in_band_share": in_band / len(valid),
        **sum((row.answers or Tally() for row in valid), Tally()).shares("answers/"),
        "majority_share_mean": sum(row.share for row in valid) / len(valid),
        **{f"dropped_{reason}": float(count) for reason, count in sorted(dropped.items())},
    }
    if inputs.oracle is not None:
        metrics["malformed_share"] = sum(row.truth is None for row in valid) / len(valid)
        metrics["majority_accuracy"] = sum(_right(row, row.majority) for row in valid) / len(valid)
        if kept:
            metrics["label_accuracy"] = sum(_right(row, row.answer) for row in kept) / len(kept)
    return metrics


def _right(row: Question | CurriculumRow, answer: str | None) -> bool:
    return row.truth is not None and answer == row.truth
