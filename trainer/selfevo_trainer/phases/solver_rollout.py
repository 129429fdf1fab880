"""solver-rollout: the Challenger writes, the Solver answers, the vote labels, the band filters (docs/method.md).

Each shard commits its questions in chunks; whoever then sees all of them writes the step's manifest.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from selfevo_contract import reasons
from selfevo_contract.artifacts import ANSWER_CHUNKS, COMMITTEE_CHUNKS, QUESTION_CHUNKS
from selfevo_contract.canonical import derive_seed
from selfevo_contract.errors import DataError, ServiceError
from selfevo_contract.judging import JUDGE
from selfevo_contract.phases import SOLVER_ROLLOUT, SolverRolloutInputs
from selfevo_contract.process import PhaseResult
from selfevo_contract.rows import (
    CURRICULUM,
    ORACLE,
    POOL,
    TEXTS,
    WRITTEN,
    CheckedQuestion,
    CurriculumRow,
    InvalidCompletion,
    Question,
    Tally,
    TextRow,
    WrittenQuestion,
)
from selfevo_contract.rows_between import SECONDED
from selfevo_store import fetch_rows
from selfevo_trainer import oracles
from selfevo_trainer.answers.extraction import normalise_question
from selfevo_trainer.answers.texts import is_kept, text_rows
from selfevo_trainer.chunks import Chunks, cut, in_shards, seconds_of_all, share_of
from selfevo_trainer.committee import SecondedRow, second
from selfevo_trainer.contamination import HeldOutQuestions
from selfevo_trainer.context import Context
from selfevo_trainer.engines import Completion, Engine
from selfevo_trainer.inputs import preflight
from selfevo_trainer.inputs.data import held_out_questions
from selfevo_trainer.inputs.frozen import open_frozen
from selfevo_trainer.inputs.model_files import fetch_model
from selfevo_trainer.labelling import Labelling, Marker, labelling_of
from selfevo_trainer.models.loading import load_tokenizer
from selfevo_trainer.process.pace import Pace
from selfevo_trainer.prompts import Messages, encode, messages, shown
from selfevo_trainer.replay import Pool, newest, replayed
from selfevo_trainer.rewards.repetition import near_share

ChunkRow = Question | InvalidCompletion
log = logging.getLogger("selfevo")


def run(context: Context, inputs: SolverRolloutInputs) -> PhaseResult:
    """Make what is missing of this shard's questions, then the whole if no shard's are missing."""
    written = Chunks(context, QUESTION_CHUNKS, WRITTEN)
    seconded = Chunks(context, COMMITTEE_CHUNKS, SECONDED)
    labelling = labelling_of(inputs)
    answered: Chunks[ChunkRow] = Chunks(context, ANSWER_CHUNKS, labelling.answered)
    assert context.shard is not None
    pool = earlier_pool(context, inputs)  # before anything is generated: it may not be there
    return in_shards(
        answered,
        inputs.questions,
        share_of(inputs.questions, inputs.shards, context.shard),
        lambda missing: make(context, inputs, missing, written, seconded, answered, labelling),
        lambda: gather_texts(context, inputs, answered),
        lambda rows, texts: finish(context, inputs, rows, texts, (written, seconded), answered, labelling, pool),
    )


def make(
    context: Context,
    inputs: SolverRolloutInputs,
    missing: list[int],
    written: Chunks[WrittenQuestion | InvalidCompletion],
    seconded: Chunks[SecondedRow],
    answered: Chunks[ChunkRow],
    labelling: Labelling,
) -> None:
    """Write and answer the questions with the numbers ``missing``, which ascend, and commit them chunk by chunk.

    All are written before the first is answered, so that each model is loaded once.
    """
    preflight.check(context, inputs)
    unwritten = sorted(set(missing) - written.read(missing).keys())
    total = len(missing) * (1 + inputs.samples)
    if unwritten:
        write(context, inputs, unwritten, written, total, labelling)
    questions = all_of(context, written, missing)
    if inputs.member is not None:
        second(context, inputs, questions, seconded)
        questions = all_of(context, seconded, missing)
    answer(context, inputs, questions, answered, total, labelling)


def all_of(context: Context, chunks: Chunks[Any], missing: list[int]) -> dict[int, Any]:
    """The committed rows with the numbers ``missing``.

    Raises:
        ServiceError: one is not there.
    """
    rows = chunks.read(missing)
    if lost := set(missing) - rows.keys():
        raise ServiceError(
            f"{context.store.uri_of(context.config.prefix)}: question {min(lost)} was committed and is gone; try again"
        )
    return rows


def write(
    context: Context,
    inputs: SolverRolloutInputs,
    unwritten: list[int],
    written: Chunks[WrittenQuestion | InvalidCompletion],
    total: int,
    labelling: Labelling,
) -> None:
    """The Challenger writes the questions with the numbers ``unwritten``, which ascend."""
    done = total // (1 + inputs.samples) - len(unwritten)
    context.progress("writing questions", done, total)
    seed = derive_seed(inputs.seed, "questions")
    # As many completions as a chunk of answers has.
    size = context.config.chunk_questions and context.config.chunk_questions * inputs.samples
    with closing(open_frozen(context, inputs, "challenger", [inputs.question_sampling])) as engine:
        pace = Pace()
        for numbers in cut(unwritten, size):
            asks = [messages(inputs.challenger_prompt)] * len(numbers)
            # The number of a question in the whole rollout, so that questions and answers are those of any other cut.
            completions = [c for [c] in engine.generate(asks, inputs.question_sampling, 1, seed, numbers)]
            written.commit(numbers, [labelling.written(completion.text) for completion in completions])
            pace.add(completions)
            done += len(numbers)
            context.progress("writing questions", done, total, pace=pace)


def answer(
    context: Context,
    inputs: SolverRolloutInputs,
    questions: Mapping[int, WrittenQuestion | InvalidCompletion],
    answered: Chunks[ChunkRow],
    total: int,
    labelling: Labelling,
) -> None:
    """The Solver answers ``questions``, which their numbers name, and the answers are voted on, or scored."""
    done = len(questions)
    context.progress("answering", done, total)
    with closing(open_frozen(context, inputs, "solver", [inputs.answer_sampling], inputs.max_prompt_length)) as engine:
        with context.clock.during("load"):
            tokenizer = load_tokenizer(fetch_model(context, inputs.solver, "solver"), inputs.loading)
        with labelling.open(context, answered.counted(JUDGE)) as marker:
            pace = Pace()
            for numbers in cut(sorted(questions), context.config.chunk_questions):
                asked = [questions[number] for number in numbers]
                rows, texts, completions = answer_chunk(
                    context, inputs, numbers, asked, engine, tokenizer, labelling, marker
                )
                beside = TEXTS.write(context.workdir / f"texts-{numbers.start}", texts) if texts else {}
                answered.commit(numbers, rows, {"questions": float(len(rows)), **marker.spent()}, beside)
                pace.add(completions)
                done += len(numbers) * inputs.samples
                context.progress("answering", done, total, pace=pace)


def answer_chunk(
    context: Context,
    inputs: SolverRolloutInputs,
    numbers: range,
    written: list[WrittenQuestion | InvalidCompletion],
    engine: Engine,
    tokenizer: PreTrainedTokenizerBase,
    labelling: Labelling,
    marker: Marker,
) -> tuple[list[ChunkRow], list[TextRow], list[Completion]]:
    """A row for each of ``written``, in order, the answers that are kept, and all that were generated for them."""
    rows: dict[int, ChunkRow] = {}
    asked: dict[int, WrittenQuestion] = {}
    prompts: list[Messages] = []
    for number, row in zip(numbers, written, strict=True):
        if isinstance(row, InvalidCompletion):
            rows[number] = row
            continue
        prompt = messages(inputs.solver_prompt, row.question)
        if len(encode(tokenizer, prompt)) > inputs.max_prompt_length:
            rows[number] = labelling.unanswered(row)
        else:
            asked[number] = row
            prompts.append(prompt)
    seed = derive_seed(inputs.seed, "answers")
    answers = engine.generate(prompts, inputs.answer_sampling, inputs.samples, seed, list(asked))
    texts: list[TextRow] = []
    found = marker.mark(list(asked.values()), answers)
    for (number, row), group, marked in zip(asked.items(), answers, found, strict=True):
        rows[number] = marked.row
        if is_kept(context.config.storage.keep_answers, number, inputs.questions):
            texts += text_rows(number, row.question, group, marked.boxes, marked.class_of)
    return [rows[number] for number in numbers], texts, [completion for group in answers for completion in group]


def gather_texts(context: Context, inputs: SolverRolloutInputs, answered: Chunks[ChunkRow]) -> dict[str, Path]:
    """The answers of all chunks that are kept, as one file of the step; nothing where there are none.

    Raises:
        CorruptArtifact: a chunk's are damaged; it is passed over.
    """
    keep = context.config.storage.keep_answers

    def kept() -> Iterator[TextRow]:
        for numbers, found in answered.beside(TEXTS):
            yield from (row for row in found if row.number in numbers and is_kept(keep, row.number, inputs.questions))

    first = next(rows := kept(), None)
    return {} if first is None else TEXTS.write(context.workdir, chain([first], rows))


def finish(
    context: Context,
    inputs: SolverRolloutInputs,
    rows: list[ChunkRow],
    texts: dict[str, Path],
    before: tuple[Chunks[Any], ...],
    answered: Chunks[ChunkRow],
    labelling: Labelling,
    pool: Pool,
) -> PhaseResult:
    """Filter, label and commit the step. ``before`` are the chunks that the answers came from, ``pool`` is what the
    rollout before left to draw from.

    Raises:
        DataError: no question was valid, or none is left.
    """
    rows = oracles.with_truths(context, inputs, rows)
    valid = [row for row in rows if isinstance(row, Question)]
    if not valid:
        raw = [row.raw for row in rows if isinstance(row, InvalidCompletion)]
        raise DataError(
            f"the Challenger wrote no valid question in {len(rows)} completions ({labelling.form}); change "
            "spec.challenger.prompt or raise spec.challenger.grpo.maxCompletionLength. "
            f"It wrote: {shown(raw[:3])}",
            reason=reasons.NO_VALID_QUESTION,
        )
    held_out = held_out_questions(context, inputs)
    selection = labelling.select(valid, held_out)
    why_not = iter(selection.reasons)
    checked = [row.checked(next(why_not)) if isinstance(row, Question) else row for row in rows]
    kept = labelling.curriculum([row for row in checked if isinstance(row, CheckedQuestion) and row.dropped is None])
    metrics = measure(checked, len(kept), selection.dropped, labelling) | held_out.counts(row.question for row in valid)
    if len(kept) < inputs.min_curriculum:
        counts = {**selection.dropped, "no_truth": selection.reasons.count(None) - len(kept)}
        raise too_small(len(kept), len(valid), counts, inputs.min_curriculum, labelling.remedy)
    judgement = oracles.judge(context, inputs, rows, kept)
    counted = answered.counted(JUDGE)
    agreement = labelling.agreement(context, counted)
    earlier = trainable(pool, labelling, held_out)
    metrics |= similarity(valid, earlier)
    if pool.rows:
        metrics["replay_left_out"] = float(len(pool.rows) - len(earlier))
    files = {
        **curriculum_files(context, inputs, kept, earlier),
        **labelling.questions.write(context.workdir, checked),
        **texts,
    }
    for chunks in before:
        chunks.read(range(inputs.questions))
    if judgement.rows:
        files |= ORACLE.write(context.workdir, judgement.rows)
    metrics |= {**judgement.metrics, **counted, **agreement.metrics}
    others = Counter(judgement.timings)
    others.update(agreement.timings)
    committed = context.commit(
        context.config.prefix, {**files, **agreement.files}, metrics, seconds_of_all(context, others, *before, answered)
    )
    context.tracking.table("questions", TABLE, [table_row(row) for row in checked[:TABLE_ROWS]])
    return context.result("committed" if committed.won else "found", committed.manifest.metrics)


def too_small(kept: int, valid: int, counts: dict[str, int], least: int, remedy: str) -> DataError:
    """The error of a curriculum with fewer than ``least`` questions."""
    why = ", ".join(f"{count} {reason}" for reason, count in counts.items() if count)
    left = f"{kept} are left, fewer than spec.rollout.minCurriculum {least}"
    return DataError(
        f"the curriculum is {'too small' if kept else 'empty'}: of {valid} valid questions "
        f"{left if kept else 'none is left'} ({why}); {remedy}, raise spec.rollout.questions"
        f"{', or lower spec.rollout.minCurriculum' if kept else ''}",
        reason=reasons.EMPTY_CURRICULUM,
    )


TABLE = ("question", "majority", "share", "dropped")
"""Columns of the table of a rollout that trackers get."""
TABLE_ROWS = 200


def table_row(row: CheckedQuestion | InvalidCompletion) -> tuple[str | float | None, ...]:
    """What trackers show of a question, by the columns of ``TABLE``."""
    if isinstance(row, InvalidCompletion):
        return row.raw[:200], None, None, "invalid"
    return row.question, row.majority, round(row.share, 4), row.dropped


def earlier_pool(context: Context, inputs: SolverRolloutInputs) -> Pool:
    """The questions of earlier curricula that rollout.replay draws from; none without it, in the first iteration, and
    behind a rollout that had no replay, as before a fork.

    Raises:
        InputError: the rollout before is not there.
    """
    if inputs.replay is None or inputs.earlier is None:
        return Pool()
    with context.clock.during("store"):
        prefix, manifest = context.output_of(SOLVER_ROLLOUT.name, inputs.earlier, "replays that curriculum")
        rows = fetch_rows(context.store, prefix, manifest, POOL) if POOL.as_in(manifest) is not None else []
        return Pool(rows, manifest.inputs.get("labels"))


def trainable(pool: Pool, labelling: Labelling, held_out: HeldOutQuestions) -> list[CurriculumRow]:
    """The rows of ``pool`` that this run may train on: a fork goes on from a run with settings of its own.

    What is left out is not handed on either, so that a pool's labels are all of one kind.
    """
    labelled = labelling.replays(pool)
    found = [row for row in labelled if not held_out.holds(row.question) and not held_out.overlaps(row.question)]
    if len(found) < len(pool.rows):
        log.warning(
            "%d of the %d questions of earlier curricula are not replayed: %d have no label as this run's are, and %d "
            "repeat a held-out question",
            len(pool.rows) - len(found),
            len(pool.rows),
            len(pool.rows) - len(labelled),
            len(labelled) - len(found),
        )
    return found


def curriculum_files(
    context: Context, inputs: SolverRolloutInputs, kept: list[CurriculumRow], earlier: list[CurriculumRow]
) -> dict[str, Path]:
    """The curriculum of ``kept`` and, with rollout.replay, of questions of ``earlier`` ones, and then the next pool."""
    if inputs.replay is None:
        return CURRICULUM.write(context.workdir, kept)
    again = replayed(kept, earlier, inputs.replay, derive_seed(inputs.seed, "replay"))
    log.info("%d questions of earlier curricula stand behind the %d of its own", len(again), len(kept))
    pool = newest(kept, earlier, inputs.replay.pool)
    return {**CURRICULUM.write(context.workdir, [*kept, *again]), **POOL.write(context.workdir, pool)}


def similarity(valid: list[Question], earlier: list[CurriculumRow]) -> dict[str, float]:
    """The share of the valid questions near which one of ``earlier`` curricula lies, as far as there are any."""
    if not earlier:
        return {}
    near = near_share([row.question for row in valid], [row.question for row in earlier])
    return {"similar_share": float((near > 0).mean())}


def measure(
    rows: Sequence[CheckedQuestion | InvalidCompletion], kept: int, dropped: dict[str, int], labelling: Labelling
) -> dict[str, float]:
    """What the manifest says of a rollout, but for what an oracle says. ``kept`` is the length of the curriculum."""
    valid = [row for row in rows if isinstance(row, CheckedQuestion)]
    texts = Counter(normalise_question(row.question) for row in valid)
    return {
        "questions": float(len(rows)),
        "valid": float(len(valid)),
        "kept": float(kept),
        "distinct_share": len(texts) / len(rows),
        **sum((row.answers or Tally() for row in valid), Tally()).shares("answers/"),
        **labelling.measure(valid, [row for row in valid if row.dropped is None]),
        **{f"dropped_{reason}": float(count) for reason, count in sorted(dropped.items())},
    }
