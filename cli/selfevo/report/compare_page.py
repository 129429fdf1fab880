"""A Comparison as one HTML file, by the report's style and defences. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup

from selfevo.report import figures
from selfevo.report.compare import Compared, Comparison, Difference, Seeds, differing
from selfevo.report.downloads import downloads_of_comparison
from selfevo.report.figures import Figure
from selfevo.report.findings import CLEAR, gain_with_error, is_clear
from selfevo.report.page import figures_json, page_of
from selfevo.report.text import listed, spread
from selfevo_contract.scores import Score
from selfevo_contract.version import selfevo_version

COLOURS = (
    figures.BLUE,
    figures.ORANGE,
    figures.GREEN,
    figures.PURPLE,
    figures.RED,
    figures.TEAL,
    figures.OLIVE,
    figures.GREY,
)
_DASHES = ("solid", "dash", "dot", "dashdot")
_WITH_ERRORS = 4
"""Runs up to which their curves have bars; of more, bars would hide the curves."""
_SENTENCES = 6
_LEAST = 3
"""Seeds from which on a difference of groups is judged."""
METRICS = {"mean": "mean of the samples", "maj": "accuracy of the majority", "greedy": "greedy accuracy"}


def render_comparison(comparison: Comparison) -> str:
    """The page."""
    return page_of("comparison.html.j2", comparison_variables(comparison))


def comparison_variables(comparison: Comparison) -> dict[str, Any]:
    """The template's variables: the page's content, without style and scripts."""
    curves, seeds = _curves(comparison), _seed_curves(comparison)
    return {
        "comparison": comparison,
        "metric": METRICS.get(comparison.metric, comparison.metric),
        "sentences": sentences(comparison),
        "cautions": cautions(comparison),
        "downloads": downloads_of_comparison(comparison),
        "curves": curves,
        "seed_curves": seeds,
        "selfevo_version": selfevo_version(),
        "figures_json": Markup(figures_json([figure for figure in (curves, seeds) if figure is not None])),
    }


# --- what it says -------------------------------------------------------------------------------------------------


def sentences(comparison: Comparison) -> list[str]:
    """The answer: what each run, or each group of seeds, is above the reference, and whether that is a difference."""
    first = comparison.groups[0]
    if comparison.repeated:
        lines = [_of_group(group, first) for group in comparison.groups[1:] if group.difference is not None]
        lines = lines if len(comparison.groups) > 1 else [_of_seeds(first)]
    else:
        lines = [_of_run(run, comparison.reference) for run in comparison.runs[1:]]
        lines += [line for run in comparison.runs[1:] if (line := _of_finetuned(run, comparison.reference))]
    if len(lines) > _SENTENCES:
        lines = [*lines[:_SENTENCES], f"The tables have {len(lines) - _SENTENCES} more."]
    return lines or [
        "No held-out question was asked of two of these runs, so that their scores say nothing of each other."
    ]


def _of_run(run: Compared, reference: Compared) -> str:
    last = run.last
    if last is None:
        return f"{run.name} and {reference.name} have no evaluated iteration with a question in common yet."
    where = f"iteration {last}" if last else "the base"
    return f"{run.name} less {reference.name} at {where}: {_gain_text(run.by_iteration[last])}."


def _of_finetuned(run: Compared, reference: Compared) -> str:
    """Empty where they have no fine-tuned models with a question in common."""
    found = run.finetuned.best.difference if run.finetuned else None
    if found is None or found.gain is None:
        return ""
    return f"{run.name} less {reference.name}, the best of each fine-tuned: {_gain_text(found)}."


def _gain_text(found: Difference) -> str:
    gain = found.gain
    assert gain is not None
    clear = (
        "which is a clear difference" if is_clear(gain) else "which is within two standard errors: no clear difference"
    )
    if gain.stderr is None:
        clear = "of unknown error"
    return f"{gain_with_error(gain)} points on {found.questions:,} held-out questions, {clear}"


def _of_group(group: Seeds, first: Seeds) -> str:
    difference = group.difference
    assert difference is not None
    gain = gain_with_error(Score(difference.mean, difference.stderr))
    seeds = "1 seed" if difference.count == 1 else f"{difference.count} seeds"
    if difference.count < _LEAST:
        verdict = "too few seeds to judge it by"
    elif abs(difference.mean) > CLEAR * (difference.stderr or 0.0):
        verdict = "a clear difference"
    else:
        verdict = "within two standard errors: no clear difference"
    return f"{group.name} less {first.name}: {gain} points over {seeds}, {verdict}."


def _of_seeds(group: Seeds) -> str:
    """Of runs that are all one group, which has nothing to be held against."""
    same = "These runs compute the same but for their seeds"
    if not group.scores:
        return f"{same}, and none has a score yet."
    last = max(group.scores)
    where = f"at iteration {last}" if last else "before training"
    return f"{same}: {spread(group.scores[last])} % {where}, the mean of {group.scores[last].count}."


def cautions(comparison: Comparison) -> list[str]:
    """What these numbers cannot show, or show only with care."""
    found = [
        "± of a difference is one standard error over questions: how sure the difference between these very models is. "
        "How much another seed would differ, only more seeds can say."
    ]
    if comparison.repeated:
        found.append(
            "± of a mean over seeds is their standard deviation; of a difference over seeds, its standard error."
        )
    if len(comparison.runs) > 2:
        found.append(
            f"{len(comparison.runs) - 1} runs are held against one: of so many differences, some reach two standard "
            "errors by chance."
        )
    found.append(
        "Best iterations are chosen by the scores that are shown, so that theirs are likely a little too good."
    )
    other = [run.name for run in comparison.runs if run.report.metric != comparison.metric]
    if other:
        found.append(f"spec.evaluation.metric of {listed(other)} is another one; here all have {comparison.metric}.")
    tuned = [run.report.run for run in comparison.runs if run.finetuned is not None]
    if any(setting.path.startswith("finetune.") for setting in differing(tuned)):
        found.append(
            "The runs do not fine-tune alike (spec.finetune, among the settings that differ): a difference between "
            "fine-tuned models is also that of what they were fine-tuned by."
        )
    unfinished = [run.name for run in comparison.runs if run.report.missing]
    if unfinished:
        found.append(f"Not finished: {listed(unfinished)}.")
    if comparison.shared:
        found.append(
            f"{comparison.shared} steps are shared by two runs or more: computed once, with the same result in each, "
            "so that these runs are alike in them by construction."
        )
    return found


# --- what is drawn ------------------------------------------------------------------------------------------------


def _curves(comparison: Comparison) -> Figure | None:
    lines, key = [], []
    for place, run in enumerate(comparison.runs):
        scored = [(number, each.score(comparison.metric)) for number, each in sorted(run.scores.items())]
        if scored:
            colour = COLOURS[place % len(COLOURS)]
            errors = [score.stderr for _, score in scored] if len(comparison.runs) <= _WITH_ERRORS else []
            lines.append(_line(run.name, [(n, s.value) for n, s in scored], errors, place))
            key.append((run.name, colour))
    caption = (
        "Bars span one standard error over questions to either side." if len(comparison.runs) <= _WITH_ERRORS else ""
    )
    return _figure("runs", "Held-out accuracy, run by run", caption, lines, key, comparison)


def _seed_curves(comparison: Comparison) -> Figure | None:
    if not comparison.repeated:
        return None
    lines, key = [], []
    for place, group in enumerate(comparison.groups):
        points = [(number, each.mean) for number, each in group.scores.items()]
        if points:
            lines.append(_line(group.name, points, [each.deviation for each in group.scores.values()], place))
            key.append((group.name, COLOURS[place % len(COLOURS)]))
    caption = "Means of the seeds; bars span one standard deviation over them to either side."
    return _figure("seeds", "Held-out accuracy, mean over seeds", caption, lines, key, comparison)


def _line(name: str, points: Sequence[tuple[int, float]], errors: Sequence[float | None], place: int) -> go.Scatter:
    colour, dash = COLOURS[place % len(COLOURS)], _DASHES[place // len(COLOURS) % len(_DASHES)]
    # Settings stand in the name; plotly reads some markup in a hover's text.
    plain = name.replace("<", "‹").replace(">", "›").replace("%{", "% {")
    line = go.Scatter(
        name=plain,
        x=[x for x, _ in points],
        y=[y for _, y in points],
        mode="lines+markers",
        line={"color": colour, "width": 2, "dash": dash},
        marker={"color": colour, "size": 7},
        hovertemplate=f"iteration %{{x}}: %{{y:.1%}}<extra>{plain}</extra>",
    )
    if any(error is not None for error in errors):
        line.error_y = {"array": [error or 0.0 for error in errors], "color": colour, "thickness": 1.5, "width": 5}
    return line


def _figure(
    id: str,
    title: str,
    caption: str,
    lines: Sequence[go.Scatter],
    key: Sequence[tuple[str, str]],
    comparison: Comparison,
) -> Figure | None:
    if not lines:
        return None
    plot = figures.plain_figure(
        lines,
        xaxis=figures.iteration_axis(comparison.iterations[-1]),
        yaxis={"title": {"text": METRICS.get(comparison.metric, comparison.metric)}, "tickformat": ".0%"},
    )
    return Figure(id, title, caption, plot, tuple(key))
