"""The plots, by plotly. Only numbers and our own words go in: never a model's text.

Colours stand out from white and from near-black alike (3:1 or more); text, grid and axes take the page's colours, light
or dark, by its style sheet. Titles and captions are the page's as well: they wrap on a phone, a plot's own would not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from selfevo.report import thinned
from selfevo.report.data import Iteration, PhaseTime, Report, Update
from selfevo.report.oracles import words_of
from selfevo.report.timings import NAMES
from selfevo_contract.phases import PHASES

BLUE, ORANGE, GREEN, PURPLE, RED, TEAL, GREY, OLIVE = (
    "#3b7fc4",
    "#c9701a",
    "#2e9160",
    "#8d6cc4",
    "#cf5151",
    "#1f8f9c",
    "#7f8791",
    "#8a8420",
)
ACTIVITY_COLOURS = dict(zip(NAMES, (BLUE, GREEN, ORANGE, PURPLE, TEAL, OLIVE, RED, GREY), strict=True))
_LEAST_S = 0.05
"""Seconds below which an activity is left out."""
_TICKS = 13
"""Iterations that an axis names; of more, every second, third, ..."""


@dataclass(frozen=True)
class Figure:
    """One plot and the words around it."""

    id: str
    title: str
    caption: str
    plot: go.Figure
    key: tuple[tuple[str, str], ...] = ()
    """(name, colour) of what the page explains itself, because a plot's own legend would crowd it."""


@dataclass(frozen=True)
class Metric:
    """One of TRL's metrics, as it is plotted."""

    name: str
    title: str
    axis: str
    caption: str
    share: bool = False


CHALLENGER = (
    Metric("reward", "Reward", "reward", "Mean over the batch: uncertainty less repetition; invalid ones included."),
    Metric(
        "uncertainty", "Uncertainty", "uncertainty", "Mean over valid questions; highest when half the votes agree."
    ),
    Metric("repetition", "Repetition", "share of the batch", "Mean share of the batch in a question's cluster.", True),
    Metric("memory", "Memory", "share of earlier", "Mean share of the earlier questions that lie near.", True),
    Metric("majority_share", "Majority share", "share of answers", "Answers that agree with the majority.", True),
    Metric("valid", "Valid questions", "share of completions", "In the asked form, and not a held-out question.", True),
    Metric("distinct", "Distinct questions", "share of completions", "Different texts among the valid.", True),
)
SOLVER = (Metric("reward", "Reward", "reward", "Mean over the batch; answers that equal their label are paid."),)
BOTH = (
    Metric("kl", "KL divergence", "nats per token", "To the weights that the phase started from (k3 estimator)."),
    Metric("entropy", "Entropy", "nats per token", "Of the next token, mean over completions."),
    Metric("completions/mean_length", "Completion length", "tokens", "Mean over the batch."),
    Metric("completions/clipped_ratio", "Truncation", "share of completions", "Hit the limit of tokens.", True),
    Metric(
        "loss",
        "Loss",
        "loss",
        "Of the update. Advantages add up to nearly 0 in a group, so it says little of progress.",
    ),
    Metric("grad_norm", "Gradient norm", "L2 norm", "Before it is cut at maxGradNorm."),
    Metric("clip_ratio/region_mean", "Clipped tokens", "share of tokens", "Whose ratio left the clip range.", True),
    Metric(
        "frac_reward_zero_std", "Groups without spread", "share of groups", "All rewards equal: nothing to learn.", True
    ),
)


def plain_figure(traces: Sequence[Any], **layout: Any) -> go.Figure:
    """What all plots have in common."""
    figure = go.Figure(list(traces))
    figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 12, "color": GREY},
        margin={"l": 56, "r": 14, "t": 10, "b": 44},
        hoverlabel={"bgcolor": "#24292f", "bordercolor": "#24292f", "font": {"color": "#ffffff"}},
        # A finger on a plot scrolls the page.
        dragmode=False,
        showlegend=False,
        legend={
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1.02,
            "yanchor": "bottom",
            "bgcolor": "rgba(0,0,0,0)",
        },
        **layout,
    )
    figure.update_xaxes(fixedrange=True, showgrid=False, zeroline=False, showline=True, linecolor=GREY, automargin=True)
    figure.update_yaxes(fixedrange=True, gridcolor=GREY, zeroline=False, automargin=True, title_standoff=8)
    return figure


def iteration_axis(last: int) -> dict[str, Any]:
    """Of the base and the iterations up to ``last``."""
    every = -(-(last + 1) // _TICKS)
    values = list(range(0, last + 1, every))
    return {
        "title": {"text": "iteration"},
        "tickvals": values,
        "ticktext": ["base" if value == 0 else str(value) for value in values],
        "range": [-0.25, last + 0.25],
    }


def _line(
    name: str, points: Sequence[tuple[int, float | None]], colour: str, dash: str = "solid", symbol: str = "circle"
) -> go.Scatter:
    return go.Scatter(
        name=name,
        x=[x for x, _ in points],
        y=[y for _, y in points],
        mode="lines+markers",
        line={"color": colour, "width": 2, "dash": dash},
        marker={"color": colour, "size": 7, "symbol": symbol},
        hovertemplate=f"iteration %{{x}}: %{{y:.1%}}<extra>{name}</extra>",
    )


def scores(report: Report) -> Figure | None:
    """Held-out accuracy of the base and of every iteration's Solver; None before the first evaluation."""
    evaluated = [(i.number, i.evaluation) for i in report.iterations if i.evaluation is not None]
    evaluation = report.run.spec.evaluation
    if not evaluated or evaluation is None:
        return None
    mean = _line(f"mean of {report.samples_of_each}", [(n, e.mean.value) for n, e in evaluated], BLUE)
    mean.error_y = {"array": [e.mean.stderr or 0.0 for _, e in evaluated], "color": BLUE, "thickness": 1.5, "width": 5}
    greedy = _line("greedy", [(n, e.greedy.value) for n, e in evaluated], ORANGE, "dot", "diamond")
    majority = [(n, e.score("maj").value) for n, e in evaluated]
    plot = plain_figure(
        [mean, greedy, _line(f"majority of {report.samples_of_each}", majority, GREEN, "dash", "square")],
        xaxis=iteration_axis(report.iterations[-1].number),
        yaxis={"title": {"text": "accuracy"}, "tickformat": ".0%"},
    ).update_layout(showlegend=True)
    return Figure(
        "scores",
        "Held-out accuracy",
        "Bars span one standard error over questions to either side. Greedy is each question's most likely answer.",
        plot,
    )


def shares(report: Report) -> Figure | None:
    """The curriculum's shares, iteration by iteration; None before the first rollout."""
    with_rollout = [i for i in report.iterations if i.rollout is not None]
    if not with_rollout:
        return None
    lines = [
        _shares_line("in the band", with_rollout, lambda r: r.in_band, BLUE, "solid", "circle"),
        _shares_line("majority share", with_rollout, lambda r: r.majority_share, GREEN, "dash", "square"),
        _shares_line("label accuracy", with_rollout, lambda r: r.label_accuracy, ORANGE, "dot", "diamond"),
    ]
    errors = [i.rollout.label_error for i in with_rollout if i.rollout is not None]
    if any(error is not None for error in errors):
        lines[2].error_y = {
            "array": [error or 0.0 for error in errors],
            "color": ORANGE,
            "thickness": 1.5,
            "width": 5,
        }
    axis = iteration_axis(report.iterations[-1].number)
    axis["range"] = [0.75, report.iterations[-1].number + 0.25]
    plot = plain_figure(
        [line for line in lines if any(y is not None for y in line.y)],
        xaxis=axis,
        yaxis={"title": {"text": "share"}, "tickformat": ".0%", "range": [0, 1.04]},
    ).update_layout(showlegend=True)
    band = report.run.spec.rollout.band
    return Figure(
        "shares",
        "The questions of each iteration",
        f"In the band: valid questions with a majority share from {band.min:g} to {band.max:g}. Majority share: mean "
        f"over valid questions. Label accuracy: {words_of(report.run).counted}",
        plot,
    )


def _shares_line(
    name: str,
    iterations: Sequence[Iteration],
    value: Callable[[Any], float | None],
    colour: str,
    dash: str,
    symbol: str,
) -> go.Scatter:
    return _line(name, [(i.number, value(i.rollout)) for i in iterations], colour, dash, symbol)


def update_figures(role: str, updates: Sequence[Update], metrics: Sequence[Metric], colour: str) -> list[Figure]:
    """One small plot a metric over the optimizer updates of all iterations, one after the other."""
    figures = []
    for metric in metrics:
        if any(metric.name in update.metrics for update in updates):
            plot = _over_updates(updates, metric, colour)
            name = f"{role}-{metric.name.rsplit('/', 1)[-1].replace('_', '-')}"
            figures.append(Figure(name, metric.title, metric.caption, plot))
    return figures


def _over_updates(updates: Sequence[Update], metric: Metric, colour: str) -> go.Figure:
    number = ".1%" if metric.share else ".3g"
    traces, shapes, labels, values = [], [], [], []
    iterations = list(dict.fromkeys(update.iteration for update in updates))
    every, width = -(-len(iterations) // 8), thinned.width_of(len(updates))
    x = 0
    for position, iteration in enumerate(iterations):
        mine = [update for update in updates if update.iteration == iteration]
        measured = [(place, update) for place, update in enumerate(mine, x + 1) if metric.name in update.metrics]
        ys = [update.metrics[metric.name] for _, update in measured]
        values += [y for y in ys if y == y]
        drawn = thinned.places(ys, width)
        traces.append(
            go.Scatter(
                x=[measured[place][0] for place in drawn],
                y=[thinned.rounded(ys[place]) for place in drawn],
                customdata=[[measured[place][1].step, measured[place][1].update] for place in drawn],
                mode="lines+markers" if len(updates) <= 120 else "lines",
                line={"color": colour, "width": 1.75},
                marker={"color": colour, "size": 4},
                hovertemplate=f"iteration {iteration}, step %{{customdata[0]}}, update %{{customdata[1]}}: "
                f"%{{y:{number}}}<extra></extra>",
            )
        )
        if position:
            line = {"color": GREY, "width": 1, "dash": "dot"}
            shapes.append(
                {"type": "line", "x0": x + 0.5, "x1": x + 0.5, "yref": "paper", "y0": 0, "y1": 1, "line": line}
            )
        if position % every == 0:
            place = {"x": x + 0.5 + len(mine) / 2, "xref": "x", "y": 1.01, "yref": "paper", "yanchor": "bottom"}
            labels.append({**place, "text": f"it. {iteration}", "showarrow": False, "font": {"size": 11}})
        x += len(mine)
    return plain_figure(
        traces,
        shapes=shapes,
        annotations=labels,
        xaxis={"title": {"text": "optimizer update"}, "range": [0.5, x + 0.5], "nticks": 6, "tickformat": "d"},
        yaxis={
            "title": {"text": metric.axis},
            "tickformat": ".0%" if metric.share and _spread(values) >= 0.05 else ".1%" if metric.share else "",
            "range": _range(values, metric.share),
            "nticks": 5,
        },
    ).update_layout(margin={"l": 56, "r": 10, "t": 24, "b": 40})


def _spread(values: Sequence[float]) -> float:
    return max(values) - min(values) if values else 0.0


def _range(values: Sequence[float], share: bool) -> list[float] | None:
    """A flat line in the middle of a span that means something, where plotly would magnify rounding errors."""
    least = 0.02 if share else 1e-3
    if not values or _spread(values) >= least:
        return None
    middle = (max(values) + min(values)) / 2
    return [middle - 1.5 * least, middle + 1.5 * least] if middle > least else [-0.1 * least, 2 * least]


def times(report: Report) -> Figure | None:
    """Process time by phase and activity; None when nothing has run."""
    if not report.times:
        return None
    divisor, unit = _unit(max(time.total for time in report.times))
    order = list(reversed(report.times))
    activities = activities_of(report)
    plot = plain_figure(
        [_bar(activity, order, divisor, unit) for activity in activities],
        barmode="stack",
        bargap=0.35,
        xaxis={"title": {"text": f"process time ({unit})"}},
        yaxis={"ticks": "outside", "ticklen": 6, "tickcolor": "rgba(0,0,0,0)"},
    )
    plot.update_layout(margin={"l": 10, "r": 14, "t": 6, "b": 44}).update_yaxes(showgrid=False)
    return Figure(
        "times",
        "Time by phase",
        "Added up over iterations and parallel shards; of each step, the attempt that committed its output.",
        plot,
        key=tuple((activity, ACTIVITY_COLOURS[activity]) for activity in activities),
    )


def activities_of(report: Report) -> list[str]:
    """The activities that took a time worth a column."""
    return [name for name in NAMES if any(time.seconds.get(name, 0.0) >= _LEAST_S for time in report.times)]


def _bar(activity: str, order: Sequence[PhaseTime], divisor: float, unit: str) -> go.Bar:
    return go.Bar(
        name=activity,
        orientation="h",
        y=[PHASES[time.phase].title for time in order],
        x=[time.seconds.get(activity, 0.0) / divisor for time in order],
        marker={"color": ACTIVITY_COLOURS[activity], "line": {"width": 0}},
        hovertemplate=f"%{{y}}: %{{x:.3g}} {unit}<extra>{activity}</extra>",
    )


def _unit(seconds: float) -> tuple[float, str]:
    return (1.0, "s") if seconds < 600 else (60.0, "min") if seconds < 3 * 3600 else (3600.0, "h")
