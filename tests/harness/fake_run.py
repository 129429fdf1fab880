"""A small run that nobody computed, committed to a file:// store as the trainer would: files, metrics, timings.

Its figures are made up but hang together. Its models are hostile: what they wrote is in HOSTILE, and all of it is among
the questions, the answers and the malformed completions.
"""

from __future__ import annotations

import math
import random
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.artifacts import write_files
from harness.runs import make_run
from selfevo_contract.artifacts import (
    ANSWER_CHUNKS,
    GPU_SECONDS,
    ManifestDraft,
    checkpoint_prefix,
    chunk_prefix,
    step_prefix,
)
from selfevo_contract.phases import (
    EVALUATE,
    BaseModelRef,
    ChallengerTrainInputs,
    FinetuneInputs,
    HeldOutInputs,
    PublishInputs,
    SolverRolloutInputs,
    SolverTrainInputs,
    StepModelRef,
)
from selfevo_contract.plan import Plan, Step, plan
from selfevo_contract.rows import (
    ANSWERED,
    CURRICULUM,
    METRICS,
    QUESTIONS,
    TEXTS,
    CheckedQuestion,
    CurriculumRow,
    InvalidCompletion,
    Question,
    R,
    RowFile,
    ScoreRow,
    TextRow,
    UpdateRow,
    answers_of,
    texts_of,
)
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.scores import Results, metrics_of, results_of
from selfevo_store import ObjectStore, commit, fetch_rows, open_store, read_manifest

HOSTILE = (
    "<script>document.title='owned'</script>",
    "</script><script>alert(1)</script>",
    "</style><img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "<iframe src='https://attacker.example/'></iframe>",
    "<!-- <script>",
    "{{ ''.__class__.__mro__ }}{% raw %}",
    "&lt;b&gt; &amp;amp; &#x202e;",
    "5 + 3 \u202e8 = 3 - 11\u202c",
    "a\u200bb\u2066c\u2069\ufeff",
    "NUL \x00 bell \x07 escape \x1b[2J",
    "lone \ud800 surrogates \udfff",
    "\u2028line\u2029paragraph\x85next",
    "Z\u0335\u0322" + "\u0336\u0321" * 200,
    "\u05d0\u05d1\u05d2 1 + 2",
    "x" * 5000,
    ']]>{"figures": [null]}',
)
"""Texts that try to leave the place that they are put in, or to pass for other texts."""


OF_TRUTH = {"malformed_share", "majority_accuracy", "label_accuracy"}
"""Metrics that a rollout has when the truth is known."""


@dataclass(frozen=True)
class FakeRun:
    """A run, its plan, and the store that holds what is done of it."""

    run: SelfEvolutionRun
    plan: Plan
    store: ObjectStore

    def prefix(self, name: str) -> str:
        """Where the step called ``name`` lies in the store."""
        step = self.plan.by_name[name]
        return step_prefix(self.run.metadata.namespace, step.phase, step.key)


def fake_run(folder: Path, *, until: str | None = None, luck: int = 0, gpus: int | None = 0, **changes: Any) -> FakeRun:
    """Commits a run below ``folder``.

    Args:
        until: Name of the step at which it was interrupted: of this one there is the first chunk or a checkpoint, of
            those after it nothing. The whole run when not given.
        luck: What the made-up figures are drawn by.
        gpus: That each process saw; None for trainers that did not say it.
        changes: To the manifest, as ``make_run`` takes them.
    """
    settings = {
        "spec__storage__uri": (folder / "store").absolute().as_uri(),
        "spec__rollout__questions": 60,
        "spec__rollout__samples": 10,
        "spec__rollout__oracle": {"kind": "arithmetic"},
        "spec__evaluation__samples": 8,
        **changes,
    }
    run = make_run(**settings)
    found = FakeRun(run, plan(run.spec), open_store(run.spec.storage.uri))
    for number, step in enumerate(found.plan.steps):
        work = folder / "work" / step.name
        interrupted = step.name == until
        _Committer(found, step, work, random.Random(number + 1000 * luck), gpus).commit(interrupted=interrupted)
        if interrupted:
            break
    return found


class _Committer:
    def __init__(self, of: FakeRun, step: Step, work: Path, rng: random.Random, gpus: int | None) -> None:
        self.of, self.step, self.work, self.rng, self.gpus = of, step, work, rng, gpus
        self.place = step_prefix(of.run.metadata.namespace, step.phase, step.key)

    def commit(self, *, interrupted: bool) -> None:
        match self.step.inputs:
            case HeldOutInputs() as inputs:
                if not interrupted:
                    self.evaluation(inputs)
            case SolverRolloutInputs() as inputs:
                self.rollout(inputs, interrupted=interrupted)
            case ChallengerTrainInputs() | SolverTrainInputs() | FinetuneInputs() as inputs:
                if interrupted:
                    self.put(checkpoint_prefix(self.place, 1), {"model.safetensors": b"half"}, {}, {})
                else:
                    self.training(inputs)
            case PublishInputs() if not interrupted:
                figures = {"files": 5.0, "put": 5.0, "bytes": 1000.0}
                self.put(self.place, {"README.md": b"# Solver"}, figures, self.timings("startup", "publication"))
            case _:
                raise NotImplementedError(self.step.phase)

    def put(
        self, place: str, files: Mapping[str, bytes], metrics: Mapping[str, float], timings: Mapping[str, float]
    ) -> None:
        total = sum(timings.values()) + 0.25
        of_gpus = {} if self.gpus is None else {GPU_SECONDS: self.gpus * total}
        draft = ManifestDraft(
            key=self.step.key,
            phase=self.step.phase,
            iteration=self.step.iteration,
            attempt=f"demo-{self.step.name}",
            metrics=dict(metrics),
            timings={**timings, "total": total, **of_gpus} if timings else {},
            parents=_parents(self.step),
            inputs=self.step.inputs.wire(),
            versions={"python": "3.11.9", "selfevo": "0.1.0", "trl": "1.16.0" if self.step.iteration < 2 else "1.17.0"},
        )
        commit(self.of.store, place, write_files(self.work / place.rsplit("/", 1)[-1], files), draft)

    def timings(self, *activities: str) -> dict[str, float]:
        return {activity: round(self.rng.uniform(0.5, 20.0), 3) for activity in activities}

    def training(self, inputs: ChallengerTrainInputs | SolverTrainInputs | FinetuneInputs) -> None:
        challenger = isinstance(inputs, ChallengerTrainInputs)
        rows = [self.row(step, challenger) for step in range(1, inputs.grpo.updates + 1)]
        files = {"model/config.json": b"{}", "model/model.safetensors": b"weights", **content(METRICS, rows)}
        activities = ("startup", "load", "training", "generation", "reward", "checkpoint", "store")
        self.put(self.place, files, {"reward_last": rows[-1].metrics["reward"]}, self.timings(*activities))

    def row(self, step: int, challenger: bool) -> UpdateRow:
        """What TRL logs of one optimizer update."""
        wave = math.sin(step + self.step.iteration)
        row = {
            "loss": 0.001 * step,
            "reward": 0.4 + 0.02 * step + 0.01 * wave,
            "kl": math.nan if step == 1 else 0.001 * step,
            "entropy": 1.0 - 0.05 * step,
            "completions/mean_length": 17.0 + wave,
            "completions/clipped_ratio": 0.01 * step,
            "grad_norm": 0.4,
            "clip_ratio/region_mean": 0.002 * step,
            "frac_reward_zero_std": 0.25,
        }
        if challenger:
            row |= {"uncertainty": 0.5 + 0.02 * step, "repetition": 1 / 128, "valid": 0.98, "distinct": 0.9}
            row |= {"majority_share": 0.7 - 0.02 * step}
        return UpdateRow.model_validate({**row, "step": step, "update": step})

    def evaluation(self, inputs: HeldOutInputs) -> None:
        metrics: dict[str, float] = {}
        files: dict[str, bytes] = {}
        results = {}
        skill = 0.45 + 0.12 * self.step.iteration + (0.15 if self.step.type.closes else 0.0)
        for task in inputs.tasks:
            samples = inputs.samples_of(task)
            rows = [self.answered(i, skill, samples) for i in range(80)]
            files |= content(answers_of(task.name), rows)
            files |= content(texts_of(task.name), [text for i, row in enumerate(rows) for text in texts(i, row, True)])
            results[task.name] = results_of(rows, samples)
            metrics[f"{task.name}/tokens"] = sum(row.mean_tokens for row in rows) / len(rows)
        metrics |= metrics_of(results, self.base_results(inputs))
        self.put(self.place, files, metrics, self.timings("startup", "load", "generation", "grading", "store"))

    def base_results(self, inputs: HeldOutInputs) -> dict[str, Results] | None:
        if inputs.base is None:
            return None
        place = step_prefix(self.of.run.metadata.namespace, EVALUATE.name, inputs.base)
        manifest = read_manifest(self.of.store, place)
        assert manifest is not None
        return {
            task.name: results_of(
                fetch_rows(self.of.store, place, manifest, answers_of(task.name)), inputs.samples_of(task)
            )
            for task in inputs.tasks
        }

    def answered(self, number: int, skill: float, samples: int) -> ScoreRow:
        # A question is as hard in every evaluation, so that differences by question are smaller than those between.
        hardness = random.Random(f"question {number}").uniform(-0.35, 0.35)
        right = sum(self.rng.random() < skill + hardness for _ in range(samples))
        return ScoreRow(
            question=f"{number} + {number}",
            answer=str(2 * number),
            greedy=HOSTILE[number % len(HOSTILE)],
            greedy_right=skill + hardness > 0.5 and (number + self.step.iteration) % 7 > 0,  # some go wrong again
            samples_right=right,
            mean_tokens=12.0 + self.step.iteration,
            majority=str(2 * number) if 2 * right > samples else HOSTILE[number % len(HOSTILE)],
            majority_right=2 * right > samples,
            votes=((str(2 * number), right), (HOSTILE[number % len(HOSTILE)], samples - right)),
        )

    def rollout(self, inputs: SolverRolloutInputs, *, interrupted: bool) -> None:
        size = inputs.questions // inputs.shards
        chunks = [range(first, first + size) for first in range(0, inputs.questions, size)]
        made = [self.chunk(inputs, numbers) for numbers in chunks]
        clocks = [self.timings("startup", "load", "generation", "grading", "store") for _ in chunks]
        for numbers, rows, clock in zip(chunks, made, clocks, strict=True):
            metrics = {"questions": float(len(rows))}
            self.put(chunk_prefix(self.place, ANSWER_CHUNKS, numbers), content(ANSWERED, rows), metrics, clock)
            if interrupted:
                return
        checked = self.checked([row for chunk in made for row in chunk], inputs)
        kept = [
            CurriculumRow(question=row.question, answer=row.majority or "", share=row.share, truth=row.truth)
            for row in checked
            if isinstance(row, CheckedQuestion) and row.dropped is None
        ]
        files = {**content(CURRICULUM, kept), **content(QUESTIONS, checked)}
        asked = [(i, row) for i, row in enumerate(checked) if isinstance(row, CheckedQuestion)]
        files |= content(TEXTS, [text for i, row in asked for text in texts(i, row, False)])
        metrics = rollout_metrics(checked, kept)
        if inputs.oracle is None:
            metrics = {name: value for name, value in metrics.items() if name not in OF_TRUTH}
        self.put(self.place, files, metrics, {name: sum(clock[name] for clock in clocks) for name in clocks[0]})

    def chunk(self, inputs: SolverRolloutInputs, numbers: range) -> list[Question | InvalidCompletion]:
        rows = [self.question(inputs.samples, number) for number in numbers]
        if inputs.oracle is None:
            rows = [row.model_copy(update={"truth": None}) if isinstance(row, Question) else row for row in rows]
        return rows

    def question(self, samples: int, number: int) -> Question | InvalidCompletion:
        nasty = HOSTILE[number % len(HOSTILE)]
        if number % 10 == 9:
            return InvalidCompletion.of(nasty)
        left, right = self.rng.randrange(1000), self.rng.randrange(1000)
        question = f"{left} + {right}" if number % 3 else nasty
        truth = str(left + right) if number % 3 else None
        agree = self.rng.randint(1, samples)
        answers = [truth or nasty] * agree + [self.rng.choice([*HOSTILE, "7", "8"]) for _ in range(samples - agree)]
        classes = Counter(answers)
        majority, size = classes.most_common(1)[0]
        return Question(
            question=question,
            proposed=nasty,
            majority=majority,
            share=size / samples,
            votes=tuple(classes.items()),
            truth=truth,
        )

    def checked(
        self, rows: Sequence[Question | InvalidCompletion], inputs: SolverRolloutInputs
    ) -> list[CheckedQuestion | InvalidCompletion]:
        seen: set[str] = set()
        found: list[CheckedQuestion | InvalidCompletion] = []
        for row in rows:
            if isinstance(row, InvalidCompletion):
                found.append(row)
                continue
            dropped = None
            if row.question in seen:
                dropped = "duplicate"
            elif row.share < inputs.band.min:
                dropped = "below_band"
            elif row.share > inputs.band.max:
                dropped = "above_band"
            seen.add(row.question)
            found.append(row.checked(dropped))
        return found


def rollout_metrics(
    rows: Sequence[CheckedQuestion | InvalidCompletion], kept: Sequence[CurriculumRow]
) -> dict[str, float]:
    """The metrics of a rollout's manifest."""
    valid = [row for row in rows if isinstance(row, CheckedQuestion)]
    dropped = Counter(row.dropped for row in valid if row.dropped is not None)
    return {
        "questions": float(len(rows)),
        "valid": float(len(valid)),
        "kept": float(len(kept)),
        "distinct_share": len({row.question for row in valid}) / len(rows),
        "in_band_share": sum(0.25 <= row.share <= 0.75 for row in valid) / len(valid),
        "majority_share_mean": sum(row.share for row in valid) / len(valid),
        **{f"dropped_{reason}": float(number) for reason, number in dropped.items()},
        "dropped_proof": 0.0,
        "overlap_8": 3.0,
        "overlap_13": 1.0,
        "overlap_8/0": 2.0,
        "malformed_share": sum(row.truth is None for row in valid) / len(valid),
        "majority_accuracy": sum(row.majority == row.truth for row in valid) / len(valid),
        "label_accuracy": sum(row.answer == row.truth for row in kept) / len(kept),
    }


def content(file: RowFile[R], rows: Sequence[R]) -> dict[str, bytes]:
    """As the trainer writes it."""
    with tempfile.TemporaryDirectory() as folder:
        return {name: path.read_bytes() for name, path in file.write(Path(folder), rows).items()}


def texts(number: int, row: CheckedQuestion | ScoreRow, graded: bool) -> list[TextRow]:
    """Answers that make up the votes of ``row``; of a held-out question the first class is right."""
    answers = [(vote, answer) for vote, (answer, size) in enumerate(row.votes) for _ in range(size)]
    return [
        TextRow(
            number=number,
            sample=i,
            question=row.question,
            text=f"{HOSTILE[(number + i) % len(HOSTILE)]} so \\boxed{{{answer}}}",
            answer=answer,
            vote=vote,
            right=vote == 0 if graded else None,
            tokens=10 + (7 * number + i) % 100,
            truncated=False,
        )
        for i, (vote, answer) in enumerate(answers)
    ]


def _parents(step: Step) -> dict[str, str]:
    found: dict[str, str] = {}
    for role in ("challenger", "solver", "model"):
        ref = getattr(step.inputs, role, None)
        if isinstance(ref, StepModelRef):
            found[role] = f"{ref.phase}/{ref.key}"
        elif isinstance(ref, BaseModelRef):
            found[role] = ref.uri
    return found
