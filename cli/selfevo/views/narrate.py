"""What happens to a run, in words: one line a transition, and the table at its end. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from selfevo.text import aligned, percent, printable, seconds
from selfevo_contract import reasons
from selfevo_contract.errors import ExitCode
from selfevo_contract.plan import Plan
from selfevo_contract.process import Progress
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.spec.budget import Budget
from selfevo_contract.status import AttemptStatus, GuardStatus, IterationStatus, RunStatus, StepProgress, StepStatus
from selfevo_core.attempt_end import STOPPED
from selfevo_core.judges import agreement_line, promotion_line
from selfevo_core.policies.forking import fork_line
from selfevo_core.policies.guarding import rollback_line
from selfevo_core.usage import amounts

COLUMNS = ("iteration", "score", "greedy", "in band", "majority share", "label accuracy", "kept")


NARROW_COLUMNS = ("iteration", "score", "greedy", "in band", "agree", "labels", "kept")
_SCORES = 3
"""Columns before those of the groups of tasks."""

STOPPED_AT = "stopped at a checkpoint"
_LOUD = ("Warned", "Tripped")


class Change(NamedTuple):
    """Something that has happened."""

    text: str
    passing: bool = False
    """A picture of how things stand would not show it afterwards."""
    progress: str = ""
    """The step that it says nothing of but how far it is."""


def transitions(before: RunStatus, after: RunStatus) -> Iterator[Change]:
    """A sentence for everything that is new in ``after``."""
    old_steps = {(step.name, step.key): step for step in before.steps}
    old_attempts = {attempt.name: attempt for attempt in before.attempts}
    for attempt in after.attempts:
        old = old_attempts.get(attempt.name)
        if (old is None or old.state != attempt.state) and attempt.state == "Failed" and attempt.reason != "Lost":
            yield Change(_failure(attempt, after), passing=True)
    for step in after.steps:
        known = old_steps.get((step.name, step.key))
        if known is not None and known.state == step.state:
            if step.progress is not None and step.progress != known.progress:
                yield Change(f"{step.name}: {recorded_progress(step.progress)}", progress=step.name)
            continue
        if step.state == "Running":
            yield Change(f"{step.name} started" + (f", attempt {step.attempts}" if step.attempts > 1 else ""))
        elif step.state == "Succeeded":
            yield from _success(step, after)
    if after.fork is not None and before.fork is None:
        yield Change(fork_line(after.fork), passing=True)
    yield from _guards(before, after)


def fork_lines(status: RunStatus) -> list[str]:
    """``goes on from iteration 2 of run math``; nothing of a run that forks none."""
    return [] if status.fork is None else [fork_line(status.fork)]


def _guards(before: RunStatus, after: RunStatus) -> Iterator[Change]:
    for rollback in after.rollbacks[len(before.rollbacks) :]:
        yield Change(printable(rollback_line(rollback)), passing=True)
    old = {guard.name: guard for guard in before.guards}
    for guard in after.guards:
        known = old.get(guard.name)
        was_loud = known is not None and known.state in _LOUD
        changed = known is None or known.message != guard.message
        if (guard.state in _LOUD and changed) or (guard.state == "Passing" and was_loud):
            yield Change(guard_line(guard), passing=True)


def guard_line(guard: GuardStatus) -> str:
    """``guard truncation warns: in iteration 2 7.1 % of the rollout's answers ended at their length limit, ...``."""
    verb = {"Warned": "warns", "Tripped": "has tripped", "Passing": "passes", "Waiting": "waits for its first figure"}
    message = f": {printable(guard.message)}" if guard.message else ""
    return f"guard {guard.name} {verb.get(guard.state, 'is blind')}{message}"


def guard_lines(status: RunStatus) -> list[str]:
    """What the guards say, the loud ones in a line each; nothing of a run without guards."""
    back = [printable(rollback_line(rollback)) for rollback in status.rollbacks]
    if not status.guards:
        return back
    named = {state: [g.name for g in status.guards if g.state == state] for state in ("Passing", "Waiting", "Blind")}
    quiet = [f"{len(names)} {state.lower()}" for state, names in named.items() if names]
    loud = [guard_line(guard) for guard in status.guards if guard.state in _LOUD]
    return [*back, *loud, f"guards: {', '.join([*([f'{len(loud)} loud'] if loud else []), *quiet])}"]


def _failure(attempt: AttemptStatus, after: RunStatus) -> str:
    step = next((step for step in after.steps if step.name == attempt.step), None)
    if attempt.reason in (*STOPPED, reasons.TERMINATED):  # somebody's wish, and the next one goes on from there
        return f"{attempt.step} {STOPPED_AT}"
    line = f"{attempt.step} failed: {printable(attempt.message)}"
    goes_on = after.phase != "Suspended"
    if goes_on and step is not None and step.state == "Pending" and step.retry_at and attempt.finished_at:
        wait = datetime.fromisoformat(step.retry_at) - datetime.fromisoformat(attempt.finished_at)
        line += f"; tried again in {seconds(wait.total_seconds())}"
    return line


def _success(step: StepStatus, after: RunStatus) -> Iterator[Change]:
    how = "was in the store already" if step.reused else f"done in {seconds(duration(step, after.attempts) or 0.0)}"
    figures = highlights(step)
    yield Change(f"{step.name} {how}" + (f": {figures}" if figures else ""))
    if step.type is not None and step.type.scores:
        line = score_line(step.iteration, after)
        if line:
            yield Change(line, passing=True)


def score_line(iteration: int, status: RunStatus) -> str:
    """``iteration 2: score 69.8 % (base 47.8 %)``."""
    scores = {line.iteration: line.score for line in status.iterations}
    if scores.get(iteration) is None:
        return ""
    if iteration == 0:
        return f"base: score {percent(scores[0])}"
    base = f" (base {percent(scores[0])})" if scores.get(0) is not None else ""
    return f"iteration {iteration}: score {percent(scores[iteration])}{base}"


def highlights(step: StepStatus) -> str:
    """The few figures of a step that tell how it went."""
    m = step.metrics
    if step.type is not None and step.type.generates and "mean" in m:
        return ", ".join(f"{name} {percent(m[name])}{gain(m, name)}" for name in ("mean", "greedy") if name in m)
    if step.type is not None and step.type.publishes:
        return f"{m['put']:.0f} of {m['files']:.0f} files were not there" if {"put", "files"} <= m.keys() else ""
    if step.type is not None and step.type.closes:
        return _finetuning(m)
    if "kept" in m:
        parts = [f"{m['kept']:.0f} of {m['questions']:.0f} questions kept"] if {"kept", "questions"} <= m.keys() else []
        right = [f"{percent(m['label_accuracy'])} of labels right"] if "label_accuracy" in m else []
        right += [f"score {m['score_mean']:.3g}"] if "score_mean" in m else []
        return ", ".join(filter(None, [*parts, *right, agreement_line(m)]))
    if promotion := promotion_line(step):
        return promotion
    parts = []
    for name in ("reward", "kl"):
        if f"{name}_last" in m:
            first = f"{m[f'{name}_first']:.3g} -> " if f"{name}_first" in m and name != "kl" else ""
            parts.append(f"{name} {first}{m[f'{name}_last']:.3g}")
    return ", ".join(parts)


def _finetuning(metrics: Mapping[str, float]) -> str:
    parts = (
        [f"{metrics['kept']:.0f} of {metrics['questions']:.0f} rows"] if {"kept", "questions"} <= metrics.keys() else []
    )
    for name in ("reward", "loss"):
        if {f"{name}_first", f"{name}_last"} <= metrics.keys():
            parts.append(f"{name} {metrics[f'{name}_first']:.3g} -> {metrics[f'{name}_last']:.3g}")
    return ", ".join(parts)


def gain(metrics: Mapping[str, float], score: str) -> str:
    """`` (+11.9 ± 1.4)``: points over the base, with the standard error of the differences by question."""
    gain, error = metrics.get(f"{score}_gain"), metrics.get(f"{score}_gain_stderr")
    return "" if gain is None or error is None else f" ({100 * gain:+.1f} ± {100 * error:.1f})"


def duration(step: StepStatus, attempts: Sequence[AttemptStatus]) -> float | None:
    """Seconds that a step's attempts ran, the waits between them left out; of those that are known (the newest 20).

    None while none of them has ended. Where none is known, from the first start to the end.
    """
    mine = [a for a in attempts if a.step == step.name and f"-{step.key[:8]}-" in a.name]
    spans = [_between(a.started_at, a.finished_at) for a in mine if a.started_at and a.finished_at]
    if spans:
        return sum(spans)
    if mine or step.started_at is None or step.finished_at is None:
        return None
    return _between(step.started_at, step.finished_at)


def _between(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def remark(step: StepStatus) -> str:
    """The text beside a step's state: its figures, or why it is not done."""
    if step.state == "Succeeded":
        return highlights(step)
    if step.progress is not None:
        return recorded_progress(step.progress)
    return STOPPED_AT if step.reason in (*STOPPED, reasons.TERMINATED) else printable(step.message)


def table(status: RunStatus) -> list[list[str]]:
    """The rows under COLUMNS, with the groups of tasks behind the second score: the base and every iteration that is
    kept in the status."""
    best = status.best.iteration if status.best else None
    return [_row(line, line.iteration == best, _groups(status)) for line in status.iterations]


def _groups(status: RunStatus) -> list[str]:
    return list(dict.fromkeys(group for line in status.iterations for group in line.groups))


def table_lines(status: RunStatus, columns: int | None = None) -> list[str]:
    """The same as text, between empty lines, with shorter headings where ``columns`` are too few for the usual ones.

    Nothing when there is nothing to tell.
    """
    rows = table(status)
    if not rows:
        return []
    usual, narrow = ([*names[:_SCORES], *_groups(status), *names[_SCORES:]] for names in (COLUMNS, NARROW_COLUMNS))
    lines = aligned([usual, *rows], right=range(len(usual)))
    if columns is not None and len(lines[0]) > columns:
        lines = aligned([narrow, *rows], right=range(len(narrow)))
    return ["", *lines, ""]


def _row(line: IterationStatus, best: bool, groups: list[str]) -> list[str]:
    m = line.metrics
    name = "base" if line.iteration == 0 else str(line.iteration)
    kept = m.get("rollout/kept")
    return [
        f"{name} (best)" if best else name,
        percent(line.score),
        percent(m.get("evaluation/greedy")),
        *(percent(line.groups.get(group)) for group in groups),
        percent(m.get("rollout/in_band_share")),
        percent(m.get("rollout/majority_share_mean")),
        percent(m.get("rollout/label_accuracy")),
        "-" if kept is None else f"{kept:.0f}",
    ]


def finetune_lines(status: RunStatus) -> list[str]:
    """``fine-tuned: iteration 2, score 91.2 % (the base on the same data 86.0 %)``, and where it lies."""
    tuned = status.finetune
    if tuned is None:
        return []
    line = "fine-tuned: " + (f"iteration {tuned.iteration}" if tuned.iteration else "the base")
    line += "" if tuned.score is None else f", score {percent(tuned.score)}"
    if tuned.iteration and tuned.control_score is not None:
        line += f" (the base on the same data {percent(tuned.control_score)})"
    return [line, *([f"fine-tuned model: {tuned.model_uri}"] if tuned.model_uri else [])]


def publish_lines(status: RunStatus) -> list[str]:
    """``published: iteration 2, hf://acme/sums``."""
    published = status.publish
    if published is None:
        return []
    if published.best == 0:
        return ["published: nothing, for the base is the best"]
    if published.uri is None:
        return []
    return [f"published: iteration {published.iteration}, {printable(published.uri)}"]


def counts(status: RunStatus, plan: Plan | None) -> str:
    """``5 of 13 steps done``, or ``5 steps done`` when the plan is not known."""
    done = {step.name for step in status.steps if step.state == "Succeeded"}
    return f"{len(done)} steps done" if plan is None else f"{len(done)} of {len(plan.keeping(done).steps)} steps done"


def standing(status: RunStatus) -> str:
    """Why the run stands as it does, where phase and steps do not say it: ``Unschedulable: no node has ...``."""
    conditions = {condition.type: condition for condition in status.conditions if condition.status == "True"}
    for kind in ("Failed", "Stalled", "Suspended", "Reconciling"):
        condition = conditions.get(kind)
        if condition is not None and condition.reason not in (reasons.STARTING, reasons.RUNNING, reasons.SUSPENDED):
            return f"{condition.reason}: {printable(condition.message)}"
    complete = conditions.get("Complete")
    if complete is not None and complete.reason == reasons.GUARD_TRIPPED:
        return f"{complete.reason}: {printable(complete.message)}"
    return ""


def held_by_spec(status: RunStatus) -> bool:
    """Whether ``spec.suspend`` is what holds the run, and not its budget."""
    held = next((c for c in status.conditions if c.type == "Suspended" and c.status == "True"), None)
    return held is None or held.reason == reasons.SUSPENDED


def awaits_review(status: RunStatus) -> bool:
    """Whether an iteration that wants an approval holds the run."""
    return any(c.reason == reasons.AWAITING_REVIEW and c.status == "True" for c in status.conditions)


def used(status: RunStatus, budget: Budget | None) -> list[str]:
    """What the run has used, and how much of its budget; nothing where there is neither GPU nor budget."""
    usage = status.usage
    if budget is None and (usage is None or not usage.gpu_hours):
        return []
    lines = []
    if usage is not None:
        parts = [f"{usage.wall_hours:.2f} hours", f"{usage.gpu_hours:.2f} GPU hours"]
        parts += [f"{usage.tokens:,} tokens"] if usage.tokens else []
        parts += [f"{usage.dollars:,.2f} dollars"] if usage.dollars is not None else []
        lines.append(f"used: {', '.join(parts)}")
    lines += [f"budget.{amount.field}: {amount} ({amount.share:.0%})" for amount in amounts(budget, usage)]
    return lines


def failure_code(status: RunStatus) -> int:
    """What a command that waits for a failed run ends with."""
    failed = next((step.name for step in status.steps if step.state == "Failed"), None)
    if failed is None and any(c.type == "Failed" and c.reason == reasons.GUARD_TRIPPED for c in status.conditions):
        return int(ExitCode.DATA)  # nothing is broken: what the run makes is not good
    codes = [attempt.exit_code for attempt in status.attempts if attempt.step == failed]
    known = (ExitCode.INPUT, ExitCode.DATA)
    return int(codes[-1]) if codes and codes[-1] in known else int(ExitCode.SERVICE)


def best_model(status: RunStatus) -> list[str]:
    """Which model is the best and where it lies; nothing when there is none yet."""
    best = status.best
    if best is None or best.model_uri is None:
        return []
    which = "the base model" if best.iteration == 0 else f"iteration {best.iteration}'s Solver"
    by = f", score {percent(best.score)}" if best.score is not None else ""
    return [f"Best model: {which}{by}", f"  {best.model_uri}"]


def end(run: SelfEvolutionRun, status: RunStatus, manifest: str, options: str) -> list[str]:
    """Where the best model lies, and what to do next."""
    best = status.best
    if best is None or best.model_uri is None:
        return []
    why = standing(status)
    return [
        *([why] if why else []),
        *best_model(status),
        *(line[:1].upper() + line[1:] for line in (*finetune_lines(status), *publish_lines(status))),
        "",
        "Next:",
        f"  selfevo report {manifest}{options}",
        f"  selfevo artifacts path {manifest}{options} --iteration best --role solver",
        *([f"  selfevo artifacts fetch {manifest}{options} --to best-model"] if best.iteration > 0 else []),
    ]


def progress(reports: Sequence[Progress]) -> str:
    """How far a running step is, by the newest report of each of its processes: ``7 of 15, training  reward 0.41``."""
    done, total = sum(report.done for report in reports), sum(report.total for report in reports)
    figures = newest(reports)
    return f"{done} of {total}, {printable(reports[-1].doing)}" + (f"  {figures}" if figures else "")


def recorded_progress(progress: StepProgress) -> str:
    """The same as an operator recorded it: ``7 of 15, training, 210 tokens a second, reward 0.41, until 14:05``.

    The end is in the reader's own time.
    """
    parts = [f"{progress.done} of {progress.total}", printable(progress.doing), recorded_figures(progress)]
    return ", ".join(filter(None, parts))


def recorded_figures(progress: StepProgress) -> str:
    """The figures alone: ``210 tokens a second, 4.0 % truncated, until 14:05``."""
    parts = []
    if progress.tokens_per_second is not None:
        parts.append(f"{progress.tokens_per_second:.0f} tokens a second")
    if progress.truncated_share is not None:
        parts.append(f"{percent(progress.truncated_share)} truncated")
    parts += [
        f"{printable(name).rsplit('/', 1)[-1]} {value:.3g}" for name, value in [*(progress.metrics or {}).items()][:3]
    ]
    if progress.ends_at:
        parts.append(f"until {datetime.fromisoformat(progress.ends_at).astimezone():%H:%M}")
    return ", ".join(parts)


def newest(reports: Sequence[Progress]) -> str:
    """The figures of a running step: ``reward 0.41  kl 0.002``, ``812 tokens/s  2.1 % truncated  9.0 s left``."""
    metrics = list(reports[-1].metrics.items())[:3]
    parts = [f"{name.rsplit('/', 1)[-1]} {value:.3g}" for name, value in metrics]
    speeds = [report.tokens_per_second for report in reports if report.tokens_per_second is not None]
    cut = [report.truncated_share for report in reports if report.truncated_share is not None]
    left = [report.seconds_left for report in reports if report.seconds_left is not None]
    if speeds:
        parts.append(f"{sum(speeds):.0f} tokens/s")
    if cut:
        parts.append(f"{percent(sum(cut) / len(cut))} truncated")
    if left:
        parts.append(f"{seconds(max(left))} left")
    return "  ".join(parts)
