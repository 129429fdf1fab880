"""The report in a sentence, and what it cannot show. Pure: every statement follows from this run's own numbers."""

from __future__ import annotations

import math

from selfevo.report.compare import difference
from selfevo.report.data import Evaluation, Report, Rollout
from selfevo.report.oracles import words_of
from selfevo.report.payment import controls
from selfevo.report.text import listed, percent, points
from selfevo_contract.fingerprint import FINGERPRINT_OFF
from selfevo_contract.judging import (
    AFTER,
    AGREED,
    AGREED_COUNT,
    AGREED_ERROR,
    CHANCE,
    CHANCE_REMEDY,
    PROMOTED,
    is_by_chance,
)
from selfevo_contract.scores import Score
from selfevo_contract.spec.rewards import WITHOUT_LABELS
from selfevo_core.summary import highest

CLEAR = 2.0
"""Standard errors from which on a difference is called one."""


def with_error(score: Score) -> str:
    """``47.8 ± 1.6 %``."""
    if score.stderr is None:
        return percent(score.value)
    return f"{100 * score.value:.1f} ± {percent(score.stderr)}"


def gain_with_error(gain: Score) -> str:
    """``+30.1 ± 1.5``, in percentage points."""
    return points(gain.value) if gain.stderr is None else f"{points(gain.value)} ± {100 * gain.stderr:.1f}"


def is_clear(gain: Score) -> bool:
    """Whether a difference is larger than its standard error can explain. Without an error nothing is."""
    return gain.stderr is not None and abs(gain.value) > CLEAR * gain.stderr


def headline(report: Report) -> str:
    """One sentence: from which score to which, at which iteration, and whether that is a difference."""
    evaluation = report.run.spec.evaluation
    if evaluation is None:
        return "The manifest asks for no evaluation (spec.evaluation), so how good the Solvers are is not known."
    samples = report.samples_of_each
    kinds = {"mean": f"Mean accuracy of {samples}", "maj": f"Accuracy of the majority of {samples}"}
    what = kinds.get(report.metric, "Greedy accuracy")
    base = report.iterations[0].evaluation
    trained = {i.number: i.evaluation for i in report.iterations[1:] if i.evaluation is not None}
    if base is None and not trained:
        return f"{what} on held-out questions is not known yet: no evaluation is done."
    asked = base or next(iter(trained.values()))
    where = f"on {asked.questions:,} held-out questions" if asked.questions else "on the held-out questions"
    if not trained:
        return f"{what} {where} is {_score(base, report)} for the base; no trained Solver has a score yet."
    # The best of the trained ones: when the base is above it, that is what there is to say.
    best = report.best or highest({number: it.score(report.metric).value for number, it in trained.items()})
    if best not in trained:
        return f"{what} on held-out questions has no number at any iteration."
    top = trained[best]
    finished = len(trained) == sum(i.evaluated for i in report.iterations[1:])
    rank = "the only one" if finished and len(trained) == 1 else "the best" if finished else "the best so far"
    rank += f", tied with {listed([_named(number) for number in report.tied])}" if report.tied else ""
    if base is None:
        return f"{what} {where} is {_score(top, report)} at iteration {best}, {rank}; the base has no score yet."
    gain = top.gain or Score(top.score(report.metric).value - base.score(report.metric).value)
    change = f"{gain_with_error(gain)} points"
    from_base, to_best = f"{_score(base, report)} (base)", f"{_score(top, report)} at iteration {best}, {rank}"
    if gain.stderr is None:
        return f"{what} {where} went from {from_base} to {to_best}: {change}."
    if not is_clear(gain):
        return (
            f"{what} {where} is {from_base} and {to_best}: {change}, which is within two standard errors, so no clear "
            "change."
        )
    if gain.value < 0:
        return f"No iteration scored above the base: {what.lower()} {where} is {from_base} and {to_best}: {change}."
    return f"{what} {where} rose from {from_base} to {to_best}: {change}."


def rivals(report: Report) -> str:
    """The iterations that the held-out questions do not tell from the best one, in a sentence; empty without any."""
    if report.best is None or report.best not in report.results:
        return ""
    top = report.results[report.best]
    gains = {n: difference(of, top, report.metric).gain for n, of in report.results.items() if n != report.best}
    near = [_named(number) for number, gain in gains.items() if gain is not None and not is_clear(gain)]
    if not near:
        return ""
    verb = "is" if len(near) == 1 else "are"
    return f"Within two standard errors of the best, question by question, {verb} {listed(near)}."


def _named(number: int) -> str:
    return f"iteration {number}" if number else "the base"


def _score(evaluation: Evaluation | None, report: Report) -> str:
    return with_error(evaluation.score(report.metric)) if evaluation else "not known"


def failed(report: Report) -> str:
    """That the run failed, and why; empty when it did not."""
    return f"This run failed. {report.failure}." if report.failure else ""


def missing(report: Report) -> str:
    """What is not there yet, in a sentence; empty for a finished run."""
    if not report.missing:
        return ""
    names = [f"{r.step.name} ({r.progress})" if r.progress else r.step.name for r in report.missing]
    done = len(report.steps) - len(report.missing)
    what = "" if report.failure else "This run is not finished: "
    return f"{what}{done} of {len(report.steps)} steps are done. Not there yet: {listed(names)}."


def limits(report: Report) -> list[str]:
    """What these numbers cannot show, or show only with care."""
    return [
        *_greedy(report),
        *_seeds(report),
        *_controls(report),
        *_labels(report),
        *_anchors(report),
        *_unchecked(report),
        "Times are of the attempts that committed; what failed attempts, queues and pod starts cost is not in them.",
    ]


def _greedy(report: Report) -> list[str]:
    base = report.iterations[0].evaluation
    trained = [i for i in report.iterations[1:] if i.evaluation is not None]
    if base is None or not trained:
        return []
    last = trained[-1]
    assert last.evaluation is not None
    mean, greedy = (last.evaluation.mean.value - base.mean.value, last.evaluation.greedy.value - base.greedy.value)
    return [
        "Judge by the mean of samples. Greedy accuracy counts the single most likely answer, and can tip for many "
        f"questions at once when the model's habits shift: from the base to iteration {last.number} it moved by "
        f"{points(greedy)} points, the mean by {points(mean)}."
    ]


def _seeds(report: Report) -> list[str]:
    if not any(i.evaluation for i in report.iterations):
        return []
    found = [
        f"This is one run with one seed ({report.run.spec.seed}). ± is one standard error over questions; how much "
        "another seed would differ, only another seed can say."
    ]
    if sum(i.evaluation is not None for i in report.iterations[1:]) > 1:
        found.append(
            "The best iteration is chosen by the scores that are shown, on the same questions, so its score is "
            "likely a little too good."
        )
    return found


def _controls(report: Report) -> list[str]:
    spec = report.run.spec
    if spec.rollout.labels == "random" and spec.solver.reward.mode not in WITHOUT_LABELS:
        return [
            "Labels were dealt out at random (spec.rollout.labels): this is a control arm, and no gain is expected."
        ]
    which = controls(spec)
    same = f" The controls are the same run {' and one '.join(which)}." if which else ""
    return [f"What caused a change is not shown by one run.{same}"]


def _labels(report: Report) -> list[str]:
    known = [(i.number, i.rollout) for i in report.iterations if i.rollout and i.rollout.label_accuracy is not None]
    if not known and report.run.spec.verifier is not None:
        return []  # it has no labels
    if not known:
        oracle = report.run.spec.rollout.oracle
        why = "the manifest names no oracle" if oracle is None else f"the oracle of kind {oracle.kind} has judged none"
        return [f"Label accuracy is not known: {why} (spec.rollout.oracle)."]
    found = [words_of(report.run).means]
    (first, before), (last, after) = known[0], known[-1]
    a, b = before.label_accuracy or 0.0, after.label_accuracy or 0.0
    error = math.hypot(_binomial_error(a, before), _binomial_error(b, after))
    if a - b > CLEAR * error:
        found.append(
            f"Labels get worse: {percent(a)} of them are right in iteration {first}, {percent(b)} in iteration {last}. "
            "What the Solver is paid for is then less and less the truth."
        )
    return found


def _anchors(report: Report) -> list[str]:
    """Whether a judge knows the order of its anchors. The model of one with criteria may change behind its address."""
    if report.run.spec.verifier is None:
        return []
    if report.run.spec.verifier.is_trained:
        return _by_chance(report)
    found = [
        (record.step.iteration, record.manifest.metrics)
        for record in report.steps
        if record.manifest is not None and AGREED in record.manifest.metrics
    ]
    if not found:
        return ["Nothing here was held against the judge: the manifest names no anchors (spec.verifier.anchors)."]
    shares = [
        f"{with_error(Score(m[AGREED], m[AGREED_ERROR]))} of {m[AGREED_COUNT]:.0f} in iteration {t}"
        for t, m in (found if len(found) == 1 else (found[0], found[-1]))
    ]
    return [f"The judge puts anchors in their known order: {listed(shares)}."]


def _by_chance(report: Report) -> list[str]:
    """Of a judge that is trained: the iterations whose judge was put in place, and showed no more than a guess."""
    known = [
        (record.step.iteration, record.manifest.metrics)
        for record in report.steps
        if record.manifest is not None and record.manifest.metrics.get(PROMOTED)
    ]
    doubtful = [(t, m) for t, m in known if is_by_chance(m.get(AFTER), m.get(AGREED_COUNT))]
    if not doubtful:
        return []
    shares = [f"{percent(m[AFTER])} of {m[AGREED_COUNT]:.0f} by that of iteration {t}" for t, m in doubtful]
    return [f"A judge was put in place that is {CHANCE} on the sealed anchors: {listed(shares)}; {CHANCE_REMEDY}."]


def _unchecked(report: Report) -> list[str]:
    off = [r.step.name for r in report.steps if r.manifest is not None and FINGERPRINT_OFF in r.manifest.metrics]
    if not off:
        return []
    return [
        f"Nothing shows that the server had the right weights in {listed(off)}: it was not held against their "
        "fingerprint (engine.fingerprint: off)."
    ]


def _binomial_error(share: float, rollout: Rollout) -> float:
    count = rollout.kept if rollout.label_checked is None else rollout.label_checked
    return math.sqrt(share * (1 - share) / count) if count else 1.0
