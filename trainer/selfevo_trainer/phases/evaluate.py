"""evaluate: held-out scores of one Solver (docs/evaluation.md), and its gains over the base's."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from selfevo_contract.canonical import derive_seed
from selfevo_contract.errors import InputError
from selfevo_contract.phases import EVALUATE, EvaluateInputs
from selfevo_contract.process import PhaseResult
from selfevo_contract.rows import HeldOut, ScoreRow, Tally, TextRow, answers_of, texts_of
from selfevo_contract.scores import Results, metrics_of, results_of
from selfevo_contract.spec.evaluation import Task
from selfevo_contract.spec.sampling import Sampling
from selfevo_store import fetch_rows
from selfevo_trainer.answers.extraction import last_boxed
from selfevo_trainer.answers.grades import extract_and_grade, tally, verdicts_of
from selfevo_trainer.answers.kinds import KindComparer, truth_of
from selfevo_trainer.answers.texts import text_rows
from selfevo_trainer.answers.voting import Comparer, Vote, vote_many
from selfevo_trainer.context import Context
from selfevo_trainer.engines import Completion, Engine
from selfevo_trainer.inputs import preflight
from selfevo_trainer.inputs.data import read_held_out
from selfevo_trainer.inputs.frozen import open_frozen
from selfevo_trainer.prompts import messages


def run(context: Context, inputs: EvaluateInputs) -> PhaseResult:
    """Score every task, commit the answers and the scores."""
    data = [read_task(context, task, f"spec.evaluation.tasks[{index}].data") for index, task in enumerate(inputs.tasks)]
    preflight.check(context, inputs)
    base = read_base(context, inputs)
    samplings = [inputs.sampling_of(task) for task in inputs.tasks]
    shares: dict[str, float] = {}
    results = {}
    files: dict[str, Path] = {}
    with closing(open_frozen(context, inputs, "model", samplings)) as engine, context.grader(inputs.grading) as grader:
        for task, rows in zip(inputs.tasks, data, strict=True):
            answered, texts = answer(context, inputs, task, rows, engine, KindComparer(task.answer_kind, grader))
            shares |= shares_of(task.name, answered)
            results[task.name] = results_of(answered, inputs.samples_of(task))
            files |= answers_of(task.name).write(context.workdir, answered)
            if texts:
                files |= texts_of(task.name).write(context.workdir, texts)
    committed = context.commit(context.config.prefix, files, {**metrics_of(results, base), **shares})
    return context.result("committed" if committed.won else "found", committed.manifest.metrics)


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


def read_base(context: Context, inputs: EvaluateInputs) -> dict[str, Results] | None:
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


def answer(
    context: Context, inputs: EvaluateInputs, task: Task, rows: list[HeldOut], engine: Engine, grader: Comparer
) -> tuple[list[ScoreRow], list[TextRow]]:
    """Each row with its greedy answer, the number of right samples, and their majority; and all answers as they stand,
    the greedy one of each question first."""
    samples, sampling = inputs.samples_of(task), inputs.sampling_of(task)
    total = len(rows) * (1 + samples)
    prompts = [messages(inputs.prompt_of(task), row.question) for row in rows]
    context.progress(f"{task.name}: greedy", 0, total)
    greedy = engine.generate(prompts, _greedy(sampling), 1, 0)
    context.progress(f"{task.name}: sampling", len(rows), total)
    seed = derive_seed(inputs.seed, EVALUATE.name, task.name)
    sampled = engine.generate(prompts, sampling, samples, seed)
    answers_QM = [[last_boxed(completion.text) for completion in group] for group in sampled]
    with context.clock.during("grading"):
        greedy_right = right([group[0] for group in greedy], [row.answer for row in rows], grader)
        flat = [completion for group in sampled for completion in group]
        truths = [row.answer for row in rows for _ in range(samples)]
        (sampled_right, votes), verdicts = verdicts_of(
            grader, lambda: (right(flat, truths, grader), vote_many(answers_QM, grader))
        )
    right_QM = [sampled_right[i * samples : (i + 1) * samples] for i in range(len(rows))]
    texts: list[TextRow] = []
    kept = context.config.storage.keep_answers != "votes"
    for i, (row, [completion]) in enumerate(zip(rows, greedy, strict=True) if kept else ()):
        [first] = text_rows(i, row.question, [completion], [last_boxed(completion.text)], [None], [greedy_right[i]])
        texts.append(first.model_copy(update={"sample": None}))
        texts += text_rows(i, row.question, sampled[i], answers_QM[i], votes[i].class_of, right_QM[i])
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
    return scores, texts


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
