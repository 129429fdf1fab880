"""Several runs held against each other: scores on the same held-out questions, settings that differ, seeds. Pure.

The first run is the reference. A difference is taken question by question, over the questions that both were asked,
so that its standard error is smaller than the two scores' own would suggest; tasks count alike, as in a score.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from selfevo.report.data import Evaluation, Finetuned, Report
from selfevo.report.settings import flattened
from selfevo.report.spread import Spread, spread_of
from selfevo_contract.phases import FinetuneEvaluateInputs
from selfevo_contract.plan import sketch
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.scores import Results, Score, average, score_of

SEED = "seed"
ABSENT = "not set"
_STORAGE = "storage."
"""Settings that say where, not what: they differ without a difference to what is computed."""


@dataclass(frozen=True)
class Difference:
    """One model less another, in the reference's metric."""

    gain: Score | None
    """None where no question was asked of both."""
    questions: int
    """That both were asked."""


@dataclass(frozen=True)
class Tuned:
    """One model that a run trained on labelled data at its end."""

    model: Finetuned | None
    """None while it has no score."""
    difference: Difference | None
    """To the reference's model in the same part; None of that itself, or without one of the two."""


@dataclass(frozen=True)
class FinetunedRun:
    """What a run trained on labelled data at its end, in both parts."""

    best: Tuned
    """From its best iteration, or from the base where that is the best."""
    base: Tuned
    """The control, which may be left out (finetune.control)."""
    over_base: Difference | None
    """The best less the base of this run, both fine-tuned; None where the base is the best, or without one of them."""


@dataclass(frozen=True)
class Compared:
    """One run."""

    name: str
    report: Report
    by_iteration: Mapping[int, Difference]
    """To the reference at the same iteration; empty of the reference itself."""
    best: Difference | None
    """This run's best iteration to the best one of the reference; None of that itself, or without one of the two."""
    finetuned: FinetunedRun | None
    """None of a run without spec.finetune."""

    @property
    def scores(self) -> Mapping[int, Evaluation]:
        """By iteration, of those that are evaluated."""
        return {i.number: i.evaluation for i in self.report.iterations if i.evaluation is not None}

    @property
    def last(self) -> int | None:
        """The newest iteration that was held against the reference."""
        return max((number for number, each in self.by_iteration.items() if each.gain is not None), default=None)


@dataclass(frozen=True)
class Setting:
    """A field of the spec that is not the same in all runs."""

    path: str
    values: tuple[str, ...]
    """One a run."""


@dataclass(frozen=True)
class Seeds:
    """Runs that compute the same but for their seeds."""

    name: str
    """The settings by which they differ from the other runs."""
    members: tuple[int, ...]
    """Places in `Comparison.runs`."""
    seeds: tuple[int, ...]
    scores: Mapping[int, Spread]
    """By iteration, of the seeds that have a score there."""
    gains: Mapping[int, Spread]
    """Over each seed's own base."""
    difference: Spread | None
    """To the first group at the last iteration that both have: of runs with the same seed, question by question."""


@dataclass(frozen=True)
class Comparison:
    """Everything that a page on several runs shows."""

    runs: tuple[Compared, ...]
    settings: tuple[Setting, ...]
    groups: tuple[Seeds, ...]
    """Every run is in one of them."""
    metric: str
    shared: int
    """Steps that two runs or more have in common."""

    @property
    def reference(self) -> Compared:
        return self.runs[0]

    @property
    def iterations(self) -> list[int]:
        """Those that a run has a score of."""
        return sorted({number for run in self.runs for number in run.scores})

    @property
    def finetunes(self) -> bool:
        """Whether a run trains on labelled data at its end."""
        return any(run.finetuned is not None for run in self.runs)

    @property
    def repeated(self) -> bool:
        """Whether there are seeds to speak of a spread."""
        return any(len(group.members) > 1 for group in self.groups)


def compare(reports: Sequence[Report]) -> Comparison:
    """The runs in the order that they are named in; the first is what the others are held against."""
    metric = reports[0].metric
    names = labels([report.run for report in reports])
    runs = tuple(_compared(name, report, reports[0], metric) for name, report in zip(names, reports, strict=True))
    settings = differing([report.run for report in reports])
    keys = Counter(key for report in reports for key in {record.step.key for record in report.steps})
    return Comparison(
        runs=runs,
        settings=settings,
        groups=_groups(runs, settings, metric),
        metric=metric,
        shared=sum(number > 1 for number in keys.values()),
    )


def labels(runs: Sequence[SelfEvolutionRun]) -> list[str]:
    """A name for each run: with its namespace, and then with its place, where the name alone says not which."""
    plain = [run.metadata.name for run in runs]
    full = [f"{run.metadata.namespace}/{run.metadata.name}" for run in runs]
    wider = [name if plain.count(name) == 1 else whole for name, whole in zip(plain, full, strict=True)]
    return [name if wider.count(name) == 1 else f"{name} ({place})" for place, name in enumerate(wider, 1)]


def _compared(name: str, report: Report, reference: Report, metric: str) -> Compared:
    tuned = _finetuned(report, reference, metric)
    if report is reference:
        return Compared(name, report, {}, None, tuned)
    both = [number for number in report.results if number in reference.results]
    ours, theirs = report.best, reference.best
    best = None
    if ours in report.results and theirs in reference.results:
        assert ours is not None and theirs is not None
        best = difference(reference.results[theirs], report.results[ours], metric)
    return Compared(
        name=name,
        report=report,
        by_iteration={n: difference(reference.results[n], report.results[n], metric) for n in sorted(both)},
        best=best,
        finetuned=tuned,
    )


def _finetuned(report: Report, reference: Report, metric: str) -> FinetunedRun | None:
    if report.run.spec.finetune is None:
        return None
    (best, base), theirs = _models(report), _models(reference)

    def tuned(model: Finetuned | None, other: Finetuned | None) -> Tuned:
        return Tuned(model, None if report is reference else _between(other, model, metric))

    over_base = _between(base, best, metric) if best is not base else None
    return FinetunedRun(tuned(best, theirs[0]), tuned(base, theirs[1]), over_base)


def _models(report: Report) -> tuple[Finetuned | None, Finetuned | None]:
    """The fine-tuned best, and the fine-tuned base, of those that have a score."""
    starts = [step.iteration for step in report.plan.steps if isinstance(step.inputs, FinetuneEvaluateInputs)]
    scored = {model.number: model for model in report.finetuned if model.after is not None}
    return scored.get(max(starts, default=0)), scored.get(0)


def _between(before: Finetuned | None, now: Finetuned | None, metric: str) -> Difference | None:
    return None if before is None or now is None else difference(before.results, now.results, metric)


# --- questions ----------------------------------------------------------------------------------------------------


def difference(before: Mapping[str, Results], now: Mapping[str, Results], metric: str) -> Difference:
    """``now`` less ``before``, by task; of tasks with the same name, on the questions that both have."""
    found, asked = [], 0
    for task in now:
        if task in before:
            values = _paired(before[task], now[task], metric)
            if values:
                found.append(score_of(values))
                asked += len(values)
    return Difference(average(found) if found else None, asked)


def _paired(before: Results, now: Results, metric: str) -> list[float]:
    """The differences of one task, a question that stands twice in it by its turn."""
    if metric not in before.values or metric not in now.values:
        return []
    old = dict(zip(_numbered(before.questions), before.values[metric], strict=True))
    new = zip(_numbered(now.questions), now.values[metric], strict=True)
    return [value - old[question] for question, value in new if question in old]


def _numbered(questions: Sequence[str]) -> list[tuple[str, int]]:
    seen: Counter[str] = Counter()
    found = []
    for question in questions:
        found.append((question, seen[question]))
        seen[question] += 1
    return found


# --- settings -----------------------------------------------------------------------------------------------------


def differing(runs: Sequence[SelfEvolutionRun]) -> tuple[Setting, ...]:
    """The fields of the spec that are not the same in all runs, in the order of the first manifest that has them.

    Where the same bytes lie is no difference.
    """
    each = [flattened(run.spec.wire()) for run in runs]
    found: dict[str, Setting] = {}
    for path in dict.fromkeys(path for fields in each for path in fields):
        values = tuple(fields.get(path, ABSENT) for fields in each)
        digests = {fields.get(path.removesuffix("uri") + "digest", ABSENT) for fields in each}
        same_bytes = path.endswith(".uri") and len(digests) == 1 and digests != {ABSENT}
        if len(set(values)) > 1 and not same_bytes:
            found[path] = Setting(path, values)
    return tuple(found.values())


def _groups(runs: Sequence[Compared], settings: Sequence[Setting], metric: str) -> tuple[Seeds, ...]:
    by_identity: dict[object, list[int]] = {}
    for place, run in enumerate(runs):
        by_identity.setdefault(_without_seed(run.report), []).append(place)
    members = list(by_identity.values())
    names = _group_names(runs, members, settings)
    return tuple(_seeds(name, group, members[0], runs, metric) for name, group in zip(names, members, strict=True))


def _without_seed(report: Report) -> object:
    """What runs have in common that compute the same but for the seed: the keys that one seed would give them."""
    spec = report.run.spec
    if spec.fork_from is not None:  # its first steps are another run's, of that one's seed
        return tuple(step.key for step in report.plan.steps)
    return report.metric, tuple(step.key for step in sketch(spec.model_copy(update={"seed": 0})).steps)


def _group_names(runs: Sequence[Compared], members: Sequence[Sequence[int]], settings: Sequence[Setting]) -> list[str]:
    """By the settings that tell the groups apart; by the first member where there are none, or not enough of them."""
    telling = [
        setting
        for setting in settings
        if setting.path != SEED
        and not setting.path.startswith(_STORAGE)
        and all(len({setting.values[place] for place in group}) == 1 for group in members)
    ]
    names = [", ".join(f"{setting.path}: {setting.values[group[0]]}" for setting in telling) for group in members]
    short = all(name and len(name) <= 80 for name in names) and len(set(names)) == len(names)
    return names if short else [runs[group[0]].name for group in members]


def _seeds(name: str, group: Sequence[int], first: Sequence[int], runs: Sequence[Compared], metric: str) -> Seeds:
    scores: dict[int, list[float]] = {}
    gains: dict[int, list[float]] = {}
    for place in group:
        for number, evaluation in runs[place].scores.items():
            scores.setdefault(number, []).append(evaluation.score(metric).value)
            if evaluation.gain is not None:
                gains.setdefault(number, []).append(evaluation.gain.value)
    return Seeds(
        name=name,
        members=tuple(group),
        seeds=tuple(runs[place].report.run.spec.seed for place in group),
        scores={number: spread_of(values) for number, values in sorted(scores.items())},
        gains={number: spread_of(values) for number, values in sorted(gains.items())},
        difference=None if group is first else _by_seed(group, first, runs, metric),
    )


def _by_seed(group: Sequence[int], first: Sequence[int], runs: Sequence[Compared], metric: str) -> Spread | None:
    reference = {runs[place].report.run.spec.seed: runs[place].report.results for place in first}
    ours = {runs[place].report.run.spec.seed: runs[place].report.results for place in group}
    seeds = [seed for seed in ours if seed in reference]
    common = set.intersection(*({*ours[seed]} & {*reference[seed]} for seed in seeds)) if seeds else set()
    if not common:
        return None
    last = max(common)
    found = [difference(reference[seed][last], ours[seed][last], metric).gain for seed in seeds]
    values = [gain.value for gain in found if gain is not None]
    return spread_of(values) if values else None
