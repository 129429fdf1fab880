"""The store -> a Report. Reads a step, keeps what the page shows of it, and lets the rest go."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from selfevo.report.contamination import overlap_of
from selfevo.report.data import Evaluation, Finetuned, Iteration, Report, Rollout, Samples, StepRecord, Update
from selfevo.report.flips import Answers, Flips, flips_of, greedy_answers
from selfevo.report.reading import own_manifest, prefix_of, progress_of, read_chunks, read_failed, read_rows
from selfevo.report.samples import samples_of, shown_of, unusable_of
from selfevo.report.scores import Answered, evaluation_of, over
from selfevo.report.timings import by_phase, found_by, gpu_hours_of, seconds_of
from selfevo.stores import recorded
from selfevo_contract.artifacts import Manifest
from selfevo_contract.judging import QUESTIONS_SCORED
from selfevo_contract.phases import (
    ChallengerTrainInputs,
    FinetuneEvaluateInputs,
    HeldOutInputs,
    SolverRolloutInputs,
    SolverTrainInputs,
)
from selfevo_contract.plan import Plan, Step
from selfevo_contract.rows import CURRICULUM, METRICS, QUESTIONS, R, RowFile, ScoreRow, UpdateRow, answers_of
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.scores import Results
from selfevo_core.summary import best_of, iterations_of
from selfevo_store import ObjectStore


def collect(
    run: SelfEvolutionRun, plan: Plan, store: ObjectStore, failure: str = "", *, questions: bool = True
) -> Report:
    """What the store has of ``plan``'s steps. A step that is not there yet is listed as missing; it is no error.

    Args:
        failure: Why the run failed, which the store does not know; empty when it did not.
        questions: With a few questions of each iteration, for which all of them are read.

    Raises:
        SelfevoError: the store failed, or what it has is damaged or another's.
    """
    return _Collector(run, plan, store, failure, questions).report()


class _Collector:
    def __init__(
        self, run: SelfEvolutionRun, plan: Plan, store: ObjectStore, failure: str, questions: bool = True
    ) -> None:
        self.questions = questions
        self.run, self.plan, self.store, self.failure = run, plan, store, failure
        self.found = found_by(run.status)
        self.metric = run.spec.evaluation.metric if run.spec.evaluation else "mean"
        self.tasks = [task.name for task in run.spec.evaluation.tasks] if run.spec.evaluation else []
        self.groups = {task.name: task.group for task in run.spec.evaluation.tasks} if run.spec.evaluation else {}
        self.shown = shown_of(run.spec.iterations)
        """Questions of an iteration, and held-out ones that it has wrong."""
        self.records: dict[str, StepRecord] = {}
        self.results: dict[int, dict[str, Results]] = {}
        """By iteration and task."""
        self.evaluations: dict[int, Evaluation | None] = {}
        self.tuned: dict[int, list[Answered]] = {}
        """Answers after fine-tuning, by the iteration that it started from."""
        self.greedy: tuple[int, Answers] | None = None
        self.flips: list[Flips] = []
        self.rollouts: dict[int, Rollout] = {}
        self.samples: list[Samples] = []
        self.unusable: list[Samples] = []
        self.challenger: list[Update] = []
        self.solver: list[Update] = []

    def report(self) -> Report:
        for step in self.plan.steps:  # parents before children
            self.records[step.name] = self.read(step)
        records = tuple(self.records.values())
        own = range(max(1, self.plan.start), self.run.spec.iterations + 1)
        iterations = tuple(self.iteration(number) for number in (0, *own))
        return Report(
            run=self.run,
            plan=self.plan,
            iterations=iterations,
            best=self.best(),
            failure=self.failure,
            challenger=tuple(self.challenger),
            solver=tuple(self.solver),
            samples=tuple(self.samples),
            times=by_phase(records),
            steps=records,
            versions=versions_of(records),
            unusable=tuple(self.unusable),
            results=self.results,
            finetuned=self.finetuned(),
            flips=tuple(self.flips),
        )

    def best(self) -> int | None:
        """As the status has it: from the same records, by the same function."""
        committed = {name: record.manifest for name, record in self.records.items() if record.manifest is not None}
        steps = {step.name: step for step in recorded(None, self.plan, committed).steps}
        best = best_of(self.run, self.plan, steps, iterations_of(self.run, self.plan, steps))
        return None if best is None else best.iteration

    def iteration(self, number: int) -> Iteration:
        return Iteration(
            number=number,
            evaluation=self.evaluations.get(number),
            evaluated=self.plan.evaluation_of(number) is not None,
            rollout=self.rollouts.get(number),
        )

    def read(self, step: Step) -> StepRecord:
        prefix = prefix_of(self.run.metadata.namespace, step)
        manifest = own_manifest(self.store, prefix, step)
        begun = manifest is not None or all(self.records[parent].manifest for parent in step.parents)
        chunks = read_chunks(self.store, prefix, step) if manifest is None and begun and step.type.sharded else []
        if manifest is not None:
            self.take(step, prefix, manifest)
        elif begun and isinstance(step.inputs, ChallengerTrainInputs):
            rows = read_failed(self.store, prefix, step)
            if rows:
                self.unusable.append(unusable_of(step.iteration, rows))
        progress = progress_of(self.store, prefix, step) if manifest is None and begun else ""
        gpu_hours = None if manifest is None or step.key in self.found else gpu_hours_of([manifest])
        place = self.store.uri_of(prefix)
        return StepRecord(step, place, manifest, seconds_of(manifest, chunks), progress, gpu_hours)

    def answered(self, inputs: HeldOutInputs, found: Mapping[str, Sequence[ScoreRow]]) -> list[Answered]:
        return [
            Answered.of(task.name, self.groups.get(task.name), inputs.samples_of(task), found[task.name])
            for task in inputs.tasks
            if found[task.name]
        ]

    def finetuned(self) -> tuple[Finetuned, ...]:
        """What it started from, the best first and the base last, with the gain over the base trained likewise."""
        control = {each.task: each.results for each in self.tuned.get(0, [])}
        return tuple(
            Finetuned(
                number,
                before=self.evaluations.get(number),
                after=evaluation_of(answered, self.results.get(0), self.metric),
                over_control=over(answered, control, self.metric) if number and control else None,
                results={each.task: each.results for each in answered},
            )
            for number, answered in sorted(self.tuned.items(), reverse=True)
        )

    def take(self, step: Step, prefix: str, manifest: Manifest) -> None:
        """Keep what the page shows of a step's files."""

        def rows(file: RowFile[R]) -> list[R]:
            return read_rows(self.store, prefix, manifest, file)

        match step.inputs:
            case HeldOutInputs() as inputs:
                found = {task.name: rows(answers_of(task.name)) for task in inputs.tasks}
                self.scored(step, self.answered(inputs, found), found)
            case SolverRolloutInputs() as inputs:
                self.rollouts[step.iteration] = rollout_of(manifest.metrics, self.tasks)
                if self.questions:
                    asked = rows(QUESTIONS_SCORED) if inputs.is_judged else rows(QUESTIONS)
                    kept = rows(CURRICULUM)
                    self.samples.append(samples_of(step.iteration, asked, kept, inputs.samples, self.shown))
            case ChallengerTrainInputs():
                self.challenger += updates_of(step.iteration, rows(METRICS))
            case SolverTrainInputs():
                self.solver += updates_of(step.iteration, rows(METRICS))

    def scored(self, step: Step, answered: list[Answered], found: Mapping[str, Sequence[ScoreRow]]) -> None:
        """Keep the scores of a model; those after fine-tuning are apart."""
        if isinstance(step.inputs, FinetuneEvaluateInputs):
            self.tuned[step.iteration] = answered
            return
        self.compare(step.iteration, found)
        self.results[step.iteration] = {each.task: each.results for each in answered}
        base = self.results.get(0) if step.iteration else None
        self.evaluations[step.iteration] = evaluation_of(answered, base, self.metric)

    def compare(self, iteration: int, found: Mapping[str, Sequence[ScoreRow]]) -> None:
        """Hold an iteration's greedy answers against those of the one evaluated before it."""
        now: Answers = {
            key: greedy for task, rows in found.items() for key, greedy in greedy_answers(task, rows).items()
        }
        if self.greedy is not None:
            self.flips.append(flips_of(iteration, now, *self.greedy, self.shown))
        self.greedy = (iteration, now)


def rollout_of(metrics: Mapping[str, float], tasks: Sequence[str] = ()) -> Rollout:
    """From the manifest's metrics; ``tasks`` are the names of the run's tasks."""
    dropped = {
        name.removeprefix("dropped_"): int(n) for name, n in metrics.items() if name.startswith("dropped_") and n
    }
    return Rollout(
        questions=int(metrics.get("questions", 0)),
        valid=int(metrics.get("valid", 0)),
        kept=int(metrics.get("kept", 0)),
        in_band=metrics.get("in_band_share"),
        majority_share=metrics.get("majority_share_mean"),
        distinct=metrics.get("distinct_share"),
        label_accuracy=metrics.get("label_accuracy"),
        label_checked=int(metrics["label_checked"]) if "label_checked" in metrics else None,
        label_error=metrics.get("label_accuracy_error"),
        majority_accuracy=metrics.get("majority_accuracy"),
        malformed=metrics.get("malformed_share"),
        dropped=dict(sorted(dropped.items(), key=lambda item: -item[1])),
        overlap=overlap_of(metrics, tasks),
    )


def updates_of(iteration: int, rows: Sequence[UpdateRow]) -> list[Update]:
    """From a training's metrics.jsonl."""
    return [
        Update(iteration, row.step, row.update, {name: float(value) for name, value in row.metrics.items()})
        for row in rows
    ]


def versions_of(records: Iterable[StepRecord]) -> dict[str, dict[str, tuple[str, ...]]]:
    """Package -> version -> names of the steps that ran with it."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record.manifest is not None:
            for package, version in record.manifest.versions.items():
                found[package][version].append(record.step.name)
    return {
        package: {version: tuple(steps) for version, steps in versions.items()} for package, versions in found.items()
    }
