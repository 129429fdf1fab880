"""Requests -> pages. Nothing but GET and HEAD, no script but our own files, no other server, no other host's name."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from selfevo.report.compare import compare
from selfevo.report.compare_page import comparison_variables
from selfevo.report.page import REASONS, TEMPLATES, encodable, environment, plotly_js, variables
from selfevo.ui import rewards
from selfevo.ui.filters import CHANGES, MEASURES, VERDICTS, read_filter, read_held_out
from selfevo.ui.held_out import HeldOut
from selfevo.ui.live import MOST as MOST_LIVE
from selfevo.ui.live import Live, digest_of
from selfevo.ui.models import TUNED, full_name_of, last_of, name_of, place_of
from selfevo.ui.questions import Questions
from selfevo.ui.runs import Runs, Shown, Unread
from selfevo_contract.errors import SelfevoError
from selfevo_contract.phases import SolverRolloutInputs
from selfevo_contract.plan import Step

HERE = Path(__file__).parent / "templates"
HOSTS = ["127.0.0.1", "localhost"]
"""What a browser may call us: a foreign name that leads here is another page's attempt to read ours."""
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # plotly's, and the widths of bars
        "img-src data:",
        "connect-src 'self'",  # what is new, by live.js
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
COLUMNS = 16
"""Iterations that the table of held-out questions shows."""
MOST = 24
"""Runs that are compared at once."""
CAME = {"kept": "in the curriculum", **REASONS}


class Pages:
    """Each method answers one kind of request, in a thread of its own."""

    def __init__(self, runs: Runs) -> None:
        self.runs, self.questions, self.held_out, self.live = runs, Questions(), HeldOut(), Live()
        self.templates = environment(HERE)

    def overview(self, request: Request) -> Response:
        everything, failing = self.runs.all(), self.runs.failing
        return self.page(
            "runs.html.j2",
            live=_of_all(everything, failing),
            failing=failing,
            runs=[(one, curve(one)) for one in everything],
            nothing=self.runs.nothing,
            phases={one.phase for one in everything if isinstance(one, Shown)},
            unknown=self.runs.unknown,
            least=any(isinstance(one, Shown) and one.gpu_hours and one.gpu_hours.at_least for one in everything),
        )

    def run(self, request: Request) -> Response:
        shown = self.shown(request)
        return self.page("run.html.j2", live=_of_one(shown), shown=shown, **variables(self.runs.report(shown)))

    def list(self, request: Request) -> Response:
        shown, asked = self.shown(request), read_filter(request.query_params)
        found, refused = self.questions.page(shown.run.metadata.namespace, shown.store, shown.rollouts, asked)
        return self.page(
            "questions.html.j2",
            live=_of_one(shown),
            shown=shown,
            asked=asked,
            found=found,
            came=CAME,
            verdicts=VERDICTS,
            total=found.total,
            refused=[(step.iteration, str(refused[step.key])) for step, _ in shown.rollouts if step.key in refused],
        )

    def question(self, request: Request) -> Response:
        shown, number = self.shown(request), request.path_params["place"]
        namespace = shown.run.metadata.namespace
        step, manifest = next(
            ((s, m) for s, m in shown.rollouts if s.iteration == request.path_params["iteration"]), (None, None)
        )
        if step is None or manifest is None or number >= 1 << 62:
            raise HTTPException(404)
        refused = self.questions.take(namespace, shown.store, shown.rollouts)
        if step.key in refused:
            raise refused[step.key]
        row = self.questions.one(step.key, number)
        if row is None:
            raise HTTPException(404)
        keys, asked = _keys(shown, refused), row.question is not None
        nearest = self.questions.nearest(keys, row) if asked and "near" in request.query_params else None
        return self.page(
            "question.html.j2",
            shown=shown,
            row=row,
            iteration=step.iteration,
            samples=_samples(step),
            challenger=rewards.of_challenger(shown.run.spec, row),
            solver=rewards.of_solver(shown.run.spec, row, _samples(step)),
            same=self.questions.same(keys, row) if asked else [],
            nearest=nearest,
            others=len(keys) > 1,
            answers=self.questions.answers(namespace, shown.store, step, manifest, number),
            came=CAME,
        )

    def evaluation(self, request: Request) -> Response:
        shown, asked = self.shown(request), read_held_out(request.query_params)
        there = [place_of(step) for step, _ in shown.evaluations]
        if there:
            asked = replace(
                asked,
                since=asked.since if asked.since in there else there[0],
                until=asked.until if asked.until in there else last_of(there),
            )
        self.held_out.take(shown.run.metadata.namespace, shown.store, shown.evaluations)
        return self.page(
            "evaluation.html.j2",
            live=_of_one(shown),
            shown=shown,
            asked=asked,
            there=there,
            at=name_of,
            tuned=there[-1] >= TUNED if there else False,
            columns=columns_of(there, asked.since or 0, asked.until or 0),
            found=self.held_out.find(shown.evaluations, asked),
            flips=self.held_out.flips(shown.evaluations, asked.by, asked.task),
            tasks=_tasks(shown),
            measures=MEASURES,
            changes=CHANGES,
        )

    def held_out_question(self, request: Request) -> Response:
        shown, number, task = self.shown(request), request.path_params["place"], request.path_params["task"]
        if number >= 1 << 62:
            raise HTTPException(404)
        namespace = shown.run.metadata.namespace
        self.held_out.take(namespace, shown.store, shown.evaluations)
        rows = self.held_out.one(shown.evaluations, task, number)
        if not rows:
            raise HTTPException(404)
        of = {place_of(step): (step, manifest) for step, manifest in shown.evaluations}
        chosen = next((place for place in of if str(place) == request.query_params.get("model")), last_of([*of]))
        step, manifest = of[chosen]
        return self.page(
            "held_out.html.j2",
            shown=shown,
            rows=rows,
            task=task,
            number=number,
            chosen=chosen,
            at=full_name_of,
            answers=self.held_out.answers(namespace, shown.store, step, manifest, task, number),
        )

    def compare(self, request: Request) -> Response:
        everything = self.runs.all()
        known = {run.path.removeprefix("/runs/"): run for run in everything if isinstance(run, Shown)}
        names = [request.query_params.get("against", ""), *request.query_params.getlist("run")]
        chosen = {name: known[name] for name in names if name in known and name in names[1:]}
        chosen = dict(list(chosen.items())[:MOST])
        template = "compared.html.j2" if chosen else "compare.html.j2"
        shown = comparison_variables(compare([self.runs.report(run) for run in chosen.values()])) if chosen else {}
        failing = self.runs.failing
        live = _of_all(everything, failing)
        return self.page(template, live=live, everything=everything, failing=failing, chosen=list(chosen), **shown)

    async def events(self, request: Request) -> Response:
        """What a page hears while it is open: of one run, or of all."""
        name = request.query_params.get("run", "")[:200]
        if self.live.open >= MOST_LIVE:
            raise HTTPException(503)
        headers = {**HEADERS, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        if request.method == "HEAD":
            return Response(media_type="text/event-stream", headers=headers)
        return StreamingResponse(
            self.live.events(name, lambda: self.state(name)), media_type="text/event-stream", headers=headers
        )

    def state(self, name: str) -> str:
        """Of the run of that name as in its address, or of all without one."""
        try:
            if not name:
                return _of_all(self.runs.all(), self.runs.failing)["state"]
            shown = self.runs.one(*name.split("/", 1)) if "/" in name else None
        except SelfevoError as error:
            return digest_of(str(error))
        return "" if shown is None else shown.state

    def shown(self, request: Request) -> Shown:
        shown = self.runs.one(request.path_params["namespace"], request.path_params["name"])
        if shown is None:
            raise HTTPException(404)
        return shown

    def page(self, template: str, status: int = 200, live: Mapping[str, str] | None = None, **values: Any) -> Response:
        html = self.templates.get_template(template).render(live=live, status=status, **values)
        return HTMLResponse(encodable(html), status, headers=HEADERS)

    async def missing(self, request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        message = {404: "There is no such page.", 405: "These pages are read-only."}.get(status, "This cannot be done.")
        return self.page("error.html.j2", status, message=message)

    async def failed(self, request: Request, error: Exception) -> Response:
        return self.page("error.html.j2", 503, message=str(error))


def app_of(runs: Runs) -> Starlette:
    """The pages on ``runs``; set ``state.live.closing`` of it when the server ends."""
    pages = Pages(runs)
    style = "".join((place / name).read_text() for place, name in ((TEMPLATES, "report.css"), (HERE, "ui.css")))
    files = {
        "plotly.js": (plotly_js(), "text/javascript"),
        "live.js": ((HERE / "live.js").read_text(), "text/javascript"),
        "report.js": ((TEMPLATES / "report.js").read_text(), "text/javascript"),
        "ui.css": (style, "text/css"),
    }
    one = "/runs/{namespace}/{name}"
    app = Starlette(
        routes=[
            Route("/", pages.overview),
            Route(one, pages.run),
            Route("/events", pages.events),
            Route("/compare", pages.compare),
            Route(f"{one}/evaluation", pages.evaluation),
            Route(f"{one}/evaluation/{{task}}/{{place:int}}", pages.held_out_question),
            Route(f"{one}/questions", pages.list),
            Route(f"{one}/questions/{{iteration:int}}/{{place:int}}", pages.question),
            *(Route(f"/static/{name}", _file(*content)) for name, content in files.items()),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False)],
        exception_handlers={HTTPException: pages.missing, SelfevoError: pages.failed},
    )
    app.state.live = pages.live
    return app


def curve(shown: Shown | Unread) -> Mapping[str, Any] | None:
    """The scores of a run as points of a drawing 100 wide and 24 high; None before there are two."""
    if isinstance(shown, Unread):
        return None
    scores = [(i.iteration, i.score) for i in shown.iterations if i.score is not None]
    if len(scores) < 2:
        return None
    least, most = min(s for _, s in scores), max(s for _, s in scores)
    last = scores[-1][0] - scores[0][0]
    points = [
        (4 + 92 * (n - scores[0][0]) / last, 20 - 16 * ((s - least) / (most - least) if most > least else 0.5))
        for n, s in scores
    ]
    text = ", ".join(f"{n or 'base'}: {100 * s:.1f} %" for n, s in scores)
    return {"line": " ".join(f"{x:.1f},{y:.1f}" for x, y in points), "end": points[-1], "text": text}


def columns_of(there: Sequence[int], since: int, until: int) -> list[int]:
    """Of the evaluated models those that the table has a column for: all, or of many iterations some, and always the
    two asked for.

    >>> columns_of([0, 1, 2], 0, 2), columns_of([*range(100), TUNED], 0, 98)
    ([0, 1, 2], [0, 7, 14, 21, 28, 35, 42, 49, 56, 63, 70, 77, 84, 91, 98, 10000])
    """
    solvers = [place for place in there if place < TUNED]
    every = -(-len(solvers) // COLUMNS) or 1
    return sorted({*solvers[::every], *there[len(solvers) :], *(each for each in (since, until) if each in there)})


def _of_one(shown: Shown) -> dict[str, str]:
    """What keeps a page on one run new."""
    return {"events": f"/events?run={shown.path.removeprefix('/runs/')}", "state": shown.state}


def _of_all(runs: Sequence[Shown | Unread], failing: Sequence[str]) -> dict[str, str]:
    return {"events": "/events", "state": digest_of([(run.path, run.state) for run in runs], failing)}


def _tasks(shown: Shown) -> list[str]:
    evaluation = shown.run.spec.evaluation
    return [task.name for task in evaluation.tasks] if evaluation else []


def _file(text: str, kind: str) -> Any:
    headers = {**HEADERS, "Cache-Control": "max-age=3600"}

    def get(request: Request) -> Response:
        return Response(text, media_type=kind, headers=headers)

    return get


def _keys(shown: Shown, refused: Container[str]) -> list[str]:
    return [step.key for step, _ in shown.rollouts if step.key not in refused]


def _samples(step: Step) -> int:
    return step.inputs.samples if isinstance(step.inputs, SolverRolloutInputs) else 1
