"""evaluate: held-out scores of one Solver (docs/evaluation.md), and its gains over the base's.

Each shard commits its questions in chunks; whoever then sees all of them writes the step's manifest, with the scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from selfevo_contract.artifacts import ANSWER_CHUNKS
from selfevo_contract.canonical import derive_seed
from selfevo_contract.errors import InputError
from selfevo_contract.phases import EVALUATE, EvaluateInputs, FinetuneEvaluateInputs
from selfevo_contract.process import PhaseResult
from selfevo_contract.rows import SCORED, TEXTS, HeldOut, ScoreRow, Tally, TextRow, answers_of, texts_of
from selfevo_contract.scores import Results, metrics_of, results_of
from selfevo_contract.spec.evaluation import Task
from selfevo_contract.spec.sampling import Sampling
from selfevo_store import fetch_rows
from selfevo_trainer.answers.extraction import last_boxed
from selfevo_trainer.answers.grades import extract_and_grade, tally, verdicts_of
from selfevo_trainer.answers.kinds import KindComparer, truth_of
from selfevo_trainer.answers.texts import text_rows
from selfevo_trainer.answers.voting import Comparer, Vote, vote_many
from selfevo_trainer.chunks import Chunks, cut, in_shards, seconds_of_all, share_of
from selfevo_trainer.context import Context
from selfevo_trainer.engines import Completion, Engine
from selfevo_trainer.inputs import preflight
from selfevo_trainer.inputs.data import read_held_out
from selfevo_trainer.inputs.frozen import open_frozen
from selfevo_trainer.process.pace import Pace
from selfevo_trainer.prompts import messages

Scored = EvaluateInputs | FinetuneEvaluateInputs


@dataclass(frozen=True)
class Asked:
    """A task with its questions, which are counted through all tasks."""

    task: Task
    rows: list[HeldOut]
    first: int
    """The number of its first question."""

    @property
    def numbers(self) -> range:
        """The numbers of its questions."""
        return range(self.first, self.first + len(self.rows))


def run(context: Context, inputs: Scored) -> PhaseResult:
    """Answer what is missing of this shard's questions, then score the whole if no shard's are missing."""
    asked = read_tasks(context, inputs)
    base = cache(lambda: read_base(context, inputs))
    answered = Chunks(context, ANSWER_CHUNKS, SCORED)
    assert context.shard is not None
    return in_shards(
        answered,
        asked[-1].numbers.stop,
        numbers_of(asked, inputs.shards, context.shard),
        lambda missing: make(context, inputs, asked, base, missing, answered),
        lambda: gather_texts(context, asked, answered),
        lambda rows, texts: finish(context, inputs, asked, base(), rows, texts, answered),
    )


def numbers_of(asked: Sequence[Asked], shards: int, shard: int) -> Sequence[int]:
    """The questions of ``shard``: the first shards are those of tasks that have their own, task by task, and the other
    tasks' questions are shared out over the rest."""
    for of in asked:
        own = of.task.shards
        if own is None:
            continue
        if shard < own:
            mine = share_of(len(of.rows), own, shard)
            return of.numbers[mine.start : mine.stop]
        shard, shards = shard - own, shards - own
    others = [number for of in asked if of.task.shards is None for number in of.numbers]
    mine = share_of(len(others), shards, shard)
    return others[mine.start : mine.stop]


def read_tasks(context: Context, inputs: Scored) -> list[Asked]:
    """The tasks in their order, of which there is at least one."""
    asked: list[Asked] = []
    for index, task in enumerate(inputs.tasks):
        rows = read_task(context, task, f"spec.evaluation.tasks[{index}].data")
        asked.append(Asked(task, rows, asked[-1].numbers.stop if asked else 0))
    return asked


def read_task(context: Context, task: Task, field: str) -> list[HeldOut]:
    """The task's rows, with answers that are compared as its kind wants them.

    Raises:
        InputError: as ``read_held_out``, or an answer is not of that kind.
    """
    rows = []
    for number, row in enumerate(read_held_out(context, task.data, field), 1):
        truth = truth_of(task.answer_kind, row.answer)
        if truth is None:
            raise InputError(
                f"{field}.uri is {task.data.uri!r}, whose row {number} has the answer {row.answer[:40]!r}, which is "
                f"no {task.answer_kind}; correct it, or choose another kind of answers for the task"
            )
        rows.append(HeldOut(question=row.question, answer=truth))
    return rows


def read_base(context: Context, inputs: Scored) -> dict[str, Results] | None:
    """The base's results by task, for gains over them; None when this is the base.

    Raises:
        InputError: its evaluation is not there, or damaged.
    """
    if inputs.base is None:
        return None
    with context.clock.during("store"):
        use = "tells gains over that evaluation of the base"
        prefix, manifest = context.output_of(EVALUATE.name, inputs.base, use)
        return {
            task.name: results_of(
                fetch_rows(context.store, prefix, manifest, answers_of(task.name)), inputs.samples_of(task)
            )
            for task in inputs.tasks
        }


def parts_of(asked: Sequence[Asked], missing: Sequence[int], size: int | None) -> Iterator[tuple[Asked, range]]:
    """The questions with the numbers ``missing``, which ascend, as chunks of at most ``size``, each of one task."""
    for of in asked:
        for numbers in cut((number for number in missing if number in of.numbers), size):
            yield of, numbers


def make(
    context: Context,
    inputs: Scored,
    asked: Sequence[Asked],
    base: Callable[[], dict[str, Results] | None],
    missing: list[int],
    answered: Chunks[ScoreRow],
) -> None:
    """Answer the questions with the numbers ``missing``, which ascend, and commit them chunk by chunk."""
    preflight.check(context, inputs)
    base()  # if it is missing, the step fails before hours of answering
    samplings = [inputs.sampling_of(task) for task in inputs.tasks]
    parts = list(parts_of(asked, missing, context.config.chunk_questions))
    total = sum(len(numbers) * (1 + inputs.samples_of(of.task)) for of, numbers in parts)
    done = 0
    with closing(open_frozen(context, inputs, "model", samplings)) as engine, context.grader(inputs.grading) as grader:
        pace = Pace()
        for of, numbers in parts:
            doing = f"answering {of.task.name}"
            context.progress(doing, done, total, pace=pace)
            rows, texts, completions = answer_chunk(context, inputs, of, numbers, engine, grader)
            beside = TEXTS.write(context.workdir / f"texts-{numbers.start}", texts) if texts else {}
            answered.commit(numbers, rows, {"questions": float(len(rows))}, beside)
            pace.add(completions)
            done += len(completions)
            context.progress(doing, done, total, pace=pace)


def answer_chunk(
    context: Context, inputs: Scored, of: Asked, numbers: range, engine: Engine, grader: Comparer
) -> tuple[list[ScoreRow], list[TextRow], list[Completion]]:
    """Each question with its greedy answer, the number of right samples, and their majority; all answers as they stand,
    if they are kept, the greedy one of each question first; and all that were generated for them."""
    task = of.task
    places = range(numbers.start - of.first, numbers.stop - of.first)
    rows = of.rows[places.start : places.stop]
    samples, sampling, comparer = (
        inputs.samples_of(task),
        inputs.sampling_of(task),
        KindComparer(task.answer_kind, grader),
    )
    prompts = [messages(inputs.prompt_of(task), row.question) for row in rows]
    # The number of a question in its task, so that answers are those of any other cut, and of other tasks beside it.
    greedy = engine.generate(prompts, _greedy(sampling), 1, 0, places)
    seed = derive_seed(inputs.seed, EVALUATE.name, task.name)
    sampled = engine.generate(prompts, sampling, samples, seed, places)
    answers_QM = [[last_boxed(completion.text) for completion in group] for group in sampled]
    with context.clock.during("grading"):
        greedy_right = right([group[0] for group in greedy], [row.answer for row in rows], comparer)
        flat = [completion for group in sampled for completion in group]
        truths = [row.answer for row in rows for _ in range(samples)]
        (sampled_right, votes), verdicts = verdicts_of(
            comparer, lambda: (right(flat, truths, comparer), vote_many(answers_QM, comparer))
        )
    right_QM = [sampled_right[i * samples : (i + 1) * samples] for i in range(len(rows))]
    texts: list[TextRow] = []
    kept = context.config.storage.keep_answers != "votes"
    for i, (row, [completion]) in enumerate(zip(rows, greedy, strict=True) if kept else ()):
        number = places[i]
        [first] = text_rows(
            number, row.question, [completion], [last_boxed(completion.text)], [None], [greedy_right[i]]
        )
        texts.append(first.model_copy(update={"sample": None}))
        texts += text_rows(number, row.question, sampled[i], answers_QM[i], votes[i].class_of, right_QM[i])
    scores = [
        ScoreRow(
            question=row.question,
            answer=row.answer,
            greedy=group[0].text[:4000],
            greedy_right=greedy_right[i],
            samples_right=sum(right_QM[i]),
            answers=tally(sampled[i], verdicts if i == 0 else None),
            mean_tokens=sum(item.tokens for item in sampled[i]) / samples,
            majority=votes[i].answer,
            majority_right=majority_right(votes[i], answers_QM[i], right_QM[i]),
            votes=votes[i].classes,
        )
        for i, (row, group) in enumerate(zip(rows, greedy, strict=True))
    ]
    return scores, texts, [completion for group in [*greedy, *sampled] for completion in group]


def gather_texts(context: Context, asked: Sequence[Asked], answered: Chunks[ScoreRow]) -> dict[str, Path]:
    """The answers of all chunks that are kept, as a file of each task that has some.

    Raises:
        CorruptArtifact: a chunk's are damaged; it is passed over.
    """
    if context.config.storage.keep_answers == "votes":
        return {}
    kept: dict[str, list[TextRow]] = {of.task.name: [] for of in asked}
    for numbers, found in answered.beside(TEXTS):
        of = next(of for of in asked if numbers.start in of.numbers)
        kept[of.task.name] += (row for row in found if of.first + row.number in numbers)
    files: dict[str, Path] = {}
    for name, rows in kept.items():
        if rows:
            files |= texts_of(name).write(context.workdir, rows)
    return files


def finish(
    context: Context,
    inputs: Scored,
    asked: Sequence[Asked],
    base: dict[str, Results] | None,
    rows: list[ScoreRow],
    texts: dict[str, Path],
    answered: Chunks[ScoreRow],
) -> PhaseResult:
    """Score every task, commit the answers and the scores."""
    shares: dict[str, float] = {}
    results = {}
    files = dict(texts)
    for of in asked:
        mine = rows[of.first : of.numbers.stop]
        refuse_other_questions(of, mine)
        shares |= shares_of(of.task.name, mine)
        results[of.task.name] = results_of(mine, inputs.samples_of(of.task))
        files |= answers_of(of.task.name).write(context.workdir, mine)
    committed = context.commit(
        context.config.prefix, files, {**metrics_of(results, base), **shares}, seconds_of_all(context, {}, answered)
    )
    return context.result("committed" if committed.won else "found", committed.manifest.metrics)


def refuse_other_questions(of: Asked, answered: Sequence[ScoreRow]) -> None:
    """Raises InputError when ``answered``, which earlier processes made, are no answers to what the data holds now."""
    for number, (held, row) in enumerate(zip(of.rows, answered, strict=True), 1):
        if (held.question, held.answer) != (row.question, row.answer):
            raise InputError(
                f"task {of.task.name!r} has the data {of.task.data.uri!r}, whose row {number} changed after a part of "
                "the evaluation had answered it; put the file back, or give the new one another address"
            )


def majority_right(vote: Vote, answers: Sequence[str | None], right: Sequence[bool]) -> bool:
    """Whether the majority's answer is right: it is one of the ``answers``, so that its verdict is known."""
    return vote.answer is not None and right[answers.index(vote.answer)]


def _greedy(sampling: Sampling) -> Sampling:
    return sampling.model_copy(update={"temperature": 0.0})


def right(completions: list[Completion], truths: list[str], grader: Comparer) -> list[bool]:
    """Whether each completion's boxed answer equals its truth."""
    return extract_and_grade([completion.text for completion in completions], truths, grader)[1]


def shares_of(task: str, rows: list[ScoreRow]) -> dict[str, float]:
    """The shares of a task's samples that are unboxed, truncated, timed out and crashed, and their mean length."""
    return {
        **sum((row.answers or Tally() for row in rows), Tally()).shares(f"{task}/"),
        f"{task}/tokens": sum(row.mean_tokens for row in rows) / len(rows),
    }
