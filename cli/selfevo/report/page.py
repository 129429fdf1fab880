"""A Report as one HTML file: everything inside, nothing from the network.

Three defences stand between a model's text and the reader's browser: jinja2's autoescape with ``shown`` for characters
that escaping leaves alone, plots that hold numbers only, and a content security policy that runs the two scripts whose
digests it names and loads nothing at all.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from selfevo.report import figures, findings, text, thinned
from selfevo.report.data import Report, Samples
from selfevo.report.downloads import downloads_of, stored
from selfevo.report.figures import Figure
from selfevo.report.lineage import lineage
from selfevo.report.payment import about_votes
from selfevo.report.samples import INVALID, UNLABELLED
from selfevo.report.settings import without_values
from selfevo.report.timings import gpu_hours, overhead
from selfevo.report.traffic import moved
from selfevo.report.verifier import judges_of
from selfevo_contract.phases import PHASES
from selfevo_contract.run import API_VERSION, KIND
from selfevo_contract.version import selfevo_version

TEMPLATES = Path(__file__).parent / "templates"
VENDOR = Path(__file__).parent / "vendor"

REASONS = {
    INVALID: "not in the asked form",
    UNLABELLED: "no known truth to label with",
    "empty_majority": "no answer had a box",
    "proof": "asks for a proof",
    "markup": "quotes the prompt's markup",
    "duplicate": "asked before",
    "held_out": "a held-out question",
    "contaminated": "the words of a held-out question",
    "below_band": "below the band",
    "above_band": "above the band",
    "disagreed": "not agreed on by the committee",
    "low_spread": "with a smaller spread of scores",
    "too_long": "too long for the Solver",
}
"""Why a question is not in the curriculum, for people."""


def render(report: Report) -> str:
    """The page."""
    return page_of("report.html.j2", variables(report))


def page_of(template: str, context: dict[str, Any]) -> str:
    """A page with its style and its scripts inside of it."""
    plotly, script = plotly_js(), (TEMPLATES / "report.js").read_text(encoding="utf-8")
    inside = {
        "style": Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        "plotly_js": Markup(plotly),
        "script": Markup(script),
        "here": True,  # a page of this machine's files may link to them
        "script_hashes": [_csp_hash(code) for code in (plotly, script)],
    }
    return encodable(environment().get_template(template).render(context, **inside))


def plotly_js() -> str:
    """What draws the plots: the part of plotly.js that has lines and bars, a quarter of the whole."""
    return (VENDOR / "plotly-basic.min.js").read_text(encoding="utf-8")


def encodable(page: str) -> str:
    """The page with escapes for what UTF-8 cannot encode: a name or a path from outside may hold that."""
    return page.encode("utf-8", "backslashreplace").decode()


def environment(*folders: Path) -> Environment:
    """Templates of ``folders``, then the report's, with all that they write escaped."""
    made = Environment(
        loader=FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        shown=text.shown,
        plain=text.plain,
        percent=text.percent,
        points=text.points,
        count=text.count,
        duration=text.duration,
        gigabytes=text.gigabytes,
        score=findings.with_error,
        gain=findings.gain_with_error,
        clear=findings.is_clear,
        spread=text.spread,
        spread_error=text.spread_error,
    )
    return made


def variables(report: Report) -> dict[str, Any]:
    """The template's variables: the page's content, without style and scripts."""
    scores, shares, times = figures.scores(report), figures.shares(report), figures.times(report)
    challenger = figures.update_figures(
        "challenger", report.challenger, (*figures.CHALLENGER, *figures.BOTH), figures.BLUE
    )
    solver = figures.update_figures("solver", report.solver, (*figures.SOLVER, *figures.BOTH), figures.GREEN)
    drawn = [figure for figure in (scores, shares, *challenger, *solver, times) if figure is not None]
    return {
        "report": report,
        "spec": report.run.spec,
        "phases": {name: phase.title for name, phase in PHASES.items()},
        "reasons": REASONS,
        "headline": findings.headline(report),
        "failed": findings.failed(report),
        "missing": findings.missing(report),
        "limits": findings.limits(report),
        "rivals": findings.rivals(report),
        "downloads": downloads_of(report),
        "stored": stored(report.steps),
        "evaluated": [iteration for iteration in report.iterations if iteration.evaluation is not None],
        "scores": scores,
        "shares": shares,
        "challenger": challenger,
        "solver": solver,
        "drawn_of": {
            "challenger": thinned.width_of(len(report.challenger)),
            "solver": thinned.width_of(len(report.solver)),
        },
        "times": times,
        "activities": figures.activities_of(report),
        "overhead": overhead(report.times),
        "moved": moved(report),
        "gpu_hours": gpu_hours(
            report.run.status,
            [record.manifest for record in report.steps if record.manifest is not None],
            counts=report.counts_gpus,
        ),
        "graph": lineage(report),
        "open_samples": report.samples[-1].iteration if report.samples else None,
        "overlaps": [(i.number, i.rollout.overlap) for i in report.iterations if i.rollout and i.rollout.overlap],
        "dropped_counts": {samples.iteration: _dropped_counts(report, samples) for samples in report.samples},
        "judges": judges_of(report),
        "about_votes": about_votes(report.run.spec),
        "manifest": _manifest(report),
        "selfevo_version": selfevo_version(),
        "figures_json": Markup(figures_json(drawn)),
    }


def figures_json(drawn: list[Figure]) -> str:
    """The plots as they stand in the page."""
    # to_json writes NaN as null, which JSON has. Escaped, "<" cannot end the script element whatever a title says.
    plots = [{"id": figure.id, **json.loads(figure.plot.to_json())} for figure in drawn]
    return json.dumps(plots, separators=(",", ":")).replace("<", "\\u003c")


def _csp_hash(code: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() + "'"


def _dropped_counts(report: Report, samples: Samples) -> list[tuple[str, int]]:
    rollout = report.iteration(samples.iteration).rollout
    if rollout is None:
        return []
    invalid = {INVALID: rollout.questions - rollout.valid} if rollout.questions > rollout.valid else {}
    counts = {**invalid, **rollout.dropped}
    return [
        (REASONS.get(reason, reason), number) for reason, number in sorted(counts.items(), key=lambda item: -item[1])
    ]


def _manifest(report: Report) -> str:
    document = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": report.run.metadata.name, "namespace": report.run.metadata.namespace},
        "spec": without_values(report.run.spec.wire()),
    }
    return yaml.safe_dump(document, sort_keys=False, width=100)
