"""A page's tables as CSV inside of it, and where in the store the large ones lie. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from selfevo.report.compare import Comparison
from selfevo.report.data import Report, Scored, StepRecord
from selfevo.report.thinned import rounded
from selfevo.tables import tables_of
from selfevo_contract.scores import Score

CARRIED = 280_000
"""Characters of all tables in a page. The largest are left out first, so that the page stays under 2 MB."""
_PLAIN = " ,:;=/@!$()*"
"""Stand for themselves in a link, beside letters and figures."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A text that begins so is a formula to a spreadsheet."""


@dataclass(frozen=True)
class Download:
    """One table as a file that the page carries."""

    name: str
    what: str
    rows: int
    uri: str | None
    """None where the page has no room for it."""
    rounded: bool = False
    """Whether its figures have fewer digits than the store's."""


@dataclass(frozen=True)
class Stored:
    """One file of rows in the store."""

    step: str
    name: str
    uri: str


def downloads_of(report: Report) -> tuple[Download, ...]:
    """Scores, curricula and updates; those without a row are left out."""
    name = report.run.metadata.name
    found = (
        _download(f"{name}-scores.csv", "Scores by iteration and task", _scores(report)),
        _download(f"{name}-curricula.csv", "Curricula by iteration", _curricula(report)),
        replace(_download(f"{name}-updates.csv", "Optimizer updates", _updates(report)), rounded=True),
    )
    return _carried(found)


def downloads_of_comparison(comparison: Comparison) -> tuple[Download, ...]:
    """Scores and differences of all runs, and the settings that differ."""
    runs = [{"run": run.name, **row} for run in comparison.runs for row in _scores(run.report)]
    differences = [
        {"run": run.name, "iteration": n, "questions": each.questions, **_score("difference", each.gain)}
        for run in comparison.runs
        for n, each in run.by_iteration.items()
    ]
    names = [run.name for run in comparison.runs]
    settings = [
        {"field": setting.path, **dict(zip(names, setting.values, strict=True))} for setting in comparison.settings
    ]
    found = (
        _download("comparison-scores.csv", "Scores by run, iteration and task", runs),
        _download("comparison-differences.csv", f"Differences to {comparison.reference.name}", differences),
        _download("comparison-finetuned.csv", "Fine-tuned models", _finetuned(comparison)),
        _download("comparison-settings.csv", "Settings that differ", settings),
    )
    return _carried(found)


def stored(records: Iterable[StepRecord]) -> tuple[Stored, ...]:
    """The files of rows of the committed steps: questions, answers, scores, updates."""
    return tuple(
        Stored(record.step.name, there.name, f"{record.uri}/{there.path}")
        for record in records
        if (manifest := record.manifest) is not None
        for file in tables_of(record.step)
        if (named := file.as_in(manifest)) is not None and (there := manifest.file(named.name)) is not None
    )


# --- rows ---------------------------------------------------------------------------------------------------------


def _scores(report: Report) -> list[dict[str, Any]]:
    return [
        {"iteration": iteration.number, **_scored(line, line not in iteration.evaluation.tasks)}
        for iteration in report.iterations
        if iteration.evaluation is not None
        for line in iteration.evaluation.lines
    ]


def _finetuned(comparison: Comparison) -> list[dict[str, Any]]:
    return [
        {
            "run": run.name,
            "model": part,
            "started_from": tuned.model.number,
            "questions": tuned.model.after.questions,
            **_score(comparison.metric, tuned.model.after.score(comparison.metric)),
            **_score("difference", tuned.difference.gain if tuned.difference else None),
        }
        for run in comparison.runs
        if run.finetuned is not None
        for part, tuned in (("best", run.finetuned.best), ("base", run.finetuned.base))
        if tuned.model is not None and tuned.model.after is not None
    ]


def _scored(line: Scored, averaged: bool) -> dict[str, Any]:
    row: dict[str, Any] = {
        "task": line.name,
        "average": averaged,
        "questions": line.questions,
        "samples": line.samples,
        "answer_tokens": line.tokens,
    }
    for name, score in line.scores.items():
        row |= _score(name, score)
    return row | _score("gain", line.gain)


def _score(name: str, score: Score | None) -> dict[str, float | None]:
    return {name: score.value if score else None, f"{name}_stderr": score.stderr if score else None}


def _curricula(report: Report) -> list[dict[str, Any]]:
    plain = (
        "questions",
        "valid",
        "kept",
        "in_band",
        "majority_share",
        "distinct",
        "label_accuracy",
        "label_error",
        "majority_accuracy",
        "malformed",
    )
    return [
        {
            "iteration": iteration.number,
            **{name: getattr(iteration.rollout, name) for name in plain},
            **{f"dropped_{reason}": number for reason, number in iteration.rollout.dropped.items()},
        }
        for iteration in report.iterations
        if iteration.rollout is not None
    ]


def _updates(report: Report) -> list[dict[str, Any]]:
    return [
        {
            "role": role,
            "iteration": each.iteration,
            "step": each.step,
            "update": each.update,
            **{metric: rounded(value) for metric, value in each.metrics.items()},
        }
        for role, updates in (("challenger", report.challenger), ("solver", report.solver))
        for each in updates
    ]


# --- files --------------------------------------------------------------------------------------------------------


def _download(name: str, what: str, rows: Sequence[Mapping[str, Any]]) -> Download:
    text = quote(written(rows), safe=_PLAIN, errors="backslashreplace")
    return Download(name, what, len(rows), f"data:text/csv;charset=utf-8,{text}")


def _carried(found: Iterable[Download]) -> tuple[Download, ...]:
    """Those with rows; the largest without their rows where all together are too much."""
    there = [each for each in found if each.rows]
    room, carried = CARRIED, set()
    for each in sorted(there, key=lambda each: len(each.uri or "")):
        room -= len(each.uri or "")
        if room >= 0:
            carried.add(each.name)
    return tuple(each if each.name in carried else replace(each, uri=None) for each in there)


def written(rows: Sequence[Mapping[str, Any]]) -> str:
    r"""As CSV, with the columns of all rows; what is not there is empty.

    >>> written([{"a": 1, "b": None}, {"a": -0.5, "c": "=1+1"}])
    "a,b,c\r\n1,,\r\n-0.5,,'=1+1\r\n"
    """
    file = io.StringIO()
    writer = csv.DictWriter(file, list(dict.fromkeys(column for row in rows for column in row)))
    writer.writeheader()
    writer.writerows({column: _cell(value) for column, value in row.items()} for row in rows)
    return file.getvalue()


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) and not _number(value) else value


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
