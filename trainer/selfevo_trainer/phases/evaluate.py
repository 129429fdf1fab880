"""evaluate: held-out accuracy of one Solver, greedy and as the mean over samples."""

from __future__ import annotations

from selfevo_contract.canonical import derive_seed
from selfevo_contract.errors import InputError
from selfevo_contract.phases import EVALUATE, EvaluateInputs
from selfevo_contract.process import PhaseResult
from selfevo_contract.rows import HeldOut, ScoreRow, Tally, answers_of, write_rows
from selfevo_contract.spec.evaluation import Task
from selfevo_contract.spec.sampling import Sampling
from selfevo_trainer.answers.grades import extract_and_grade, tally, verdicts_of
from selfevo_trainer.answers.kinds import KindComparer, truth_of
from selfevo_trainer.answers.voting import Comparer
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
    engine = open_frozen(context, inputs, "model", [inputs.sampling])
    metrics: dict[str, float] = {}
    files = {}
    with context.grader(inputs.grading) as grader:
        for task, rows in zip(inputs.tasks, data, strict=True):
            answered = answer(context, inputs, task, rows, engine, KindComparer(task.answer_kind, grader))
            metrics.update(scores(task.name, answered, inputs.samples))
            name = answers_of(task.name).name
            files[name] = write_rows(context.workdir / name, answered)
    engine.close()
    for kind in ("greedy", "mean"):
        metrics[kind] = sum(metrics[f"{task.name}/{kind}"] for task in inputs.tasks) / len(inputs.tasks)
    committed = context.commit(context.config.prefix, files, metrics)
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


def answer(
    context: Context, inputs: EvaluateInputs, task: Task, rows: list[HeldOut], engine: Engine, grader: Comparer
) -> list[ScoreRow]:
    """Each row with its greedy answer and the number of right samples."""
    total = len(rows) * (1 + inputs.samples)
    prompts = [messages(inputs.prompt, row.question) for row in rows]
    context.progress(f"{task.name}: greedy", 0, total)
    greedy = engine.generate(prompts, _greedy(inputs.sampling), 1, 0)
    context.progress(f"{task.name}: sampling", len(rows), total)
    seed = derive_seed(inputs.seed, EVALUATE.name, task.name)
    sampled = engine.generate(prompts, inputs.sampling, inputs.samples, seed)
    with context.clock.during("grading"):
        greedy_right = right([group[0] for group in greedy], [row.answer for row in rows], grader)
        flat = [completion for group in sampled for completion in group]
        truths = [row.answer for row in rows for _ in range(inputs.samples)]
        sampled_right, verdicts = verdicts_of(grader, lambda: right(flat, truths, grader))
    return [
        ScoreRow(
            question=row.question,
            answer=row.answer,
            greedy=group[0].text[:4000],
            greedy_right=greedy_right[i],
            samples_right=sum(sampled_right[i * inputs.samples : (i + 1) * inputs.samples]),
            answers=tally(sampled[i], verdicts if i == 0 else None),
            mean_tokens=sum(item.tokens for item in sampled[i]) / inputs.samples,
        )
        for i, (row, group) in enumerate(zip(rows, greedy, strict=True))
    ]


def _greedy(sampling: Sampling) -> Sampling:
    return sampling.model_copy(update={"temperature": 0.0})


def right(completions: list[Completion], truths: list[str], grader: Comparer) -> list[bool]:
    """Whether each completion's boxed answer equals its truth."""
    return extract_and_grade([completion.text for completion in completions], truths, grader)[1]


def scores(task: str, rows: list[ScoreRow], samples: int) -> dict[str, float]:
    """Greedy accuracy, the mean over samples with its standard error over questions, and the shares of samples that are
    unboxed, truncated, timed out and crashed."""
    count = len(rows)
    shares = [row.samples_right / samples for row in rows]
    mean = sum(shares) / count
    variance = sum((share - mean) ** 2 for share in shares) / max(1, count - 1)
    return {
        f"{task}/greedy": sum(row.greedy_right for row in rows) / count,
        f"{task}/mean": mean,
        f"{task}/mean_stderr": (variance / count) ** 0.5,
        **sum((row.answers or Tally() for row in rows), Tally()).shares(f"{task}/"),
        f"{task}/tokens": sum(row.mean_tokens for row in rows) / count,
    }
