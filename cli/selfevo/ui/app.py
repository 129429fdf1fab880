"""Requests -> pages. Nothing but GET and HEAD, no script but our own files, no other server, no other host's name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from selfevo.report.page import REASONS, TEMPLATES, encodable, environment, plotly_js, variables
from selfevo.ui.filters import VERDICTS, read_filter
from selfevo.ui.questions import Questions
from selfevo.ui.runs import Runs, Shown
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
        "connect-src 'none'",
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
CAME = {"kept": "in the curriculum", **REASONS}


class Pages:
    """Each method answers one kind of request, in a thread of its own."""

    def __init__(self, runs: Runs) -> None:
        self.runs, self.questions = runs, Questions()
        self.templates = environment(HERE)

    def overview(self, request: Request) -> Response:
        shown = [(one, curve(one)) for one in self.runs.all()]
        return self.page("runs.html.j2", runs=shown, workdir=str(self.runs.workdir))

    def run(self, request: Request) -> Response:
        shown = self.shown(request)
        return self.page("run.html.j2", shown=shown, **variables(self.runs.report(shown)))

    def list(self, request: Request) -> Response:
        shown, asked = self.shown(request), read_filter(request.query_params)
        self.questions.take(shown.run.metadata.namespace, shown.store, shown.rollouts)
        found = self.questions.find(_keys(shown), asked)
        return self.page(
            "questions.html.j2", shown=shown, asked=asked, found=found, came=CAME, verdicts=VERDICTS, total=found.total
        )

    def question(self, request: Request) -> Response:
        shown, number = self.shown(request), request.path_params["place"]
        namespace = shown.run.metadata.namespace
        step, manifest = next(
            ((s, m) for s, m in shown.rollouts if s.iteration == request.path_params["iteration"]), (None, None)
        )
        if step is None or manifest is None or number >= 1 << 62:
            raise HTTPException(404)
        self.questions.take(namespace, shown.store, shown.rollouts)
        row = self.questions.one(step.key, number)
        if row is None:
            raise HTTPException(404)
        return self.page(
            "question.html.j2",
            shown=shown,
            row=row,
            iteration=step.iteration,
            samples=_samples(step),
            same=self.questions.same(_keys(shown), row) if row.question is not None else [],
            answers=self.questions.answers(namespace, shown.store, step, manifest, number),
            came=CAME,
        )

    def shown(self, request: Request) -> Shown:
        shown = self.runs.one(request.path_params["namespace"], request.path_params["name"])
        if shown is None:
            raise HTTPException(404)
        return shown

    def page(self, template: str, status: int = 200, **values: Any) -> Response:
        html = self.templates.get_template(template).render(**values)
        return HTMLResponse(encodable(html), status, headers=HEADERS)

    async def missing(self, request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        said = {404: "There is no such page.", 405: "These pages are read-only."}.get(status, "This cannot be done.")
        return self.page("error.html.j2", status, said=said)

    async def failed(self, request: Request, error: Exception) -> Response:
        return self.page("error.html.j2", 503, said=str(error))


def app_of(runs: Runs) -> Starlette:
    """The pages on ``runs``."""
    pages = Pages(runs)
    style = "".join((place / name).read_text() for place, name in ((TEMPLATES, "report.css"), (HERE, "ui.css")))
    files = {
        "plotly.js": (plotly_js(), "text/javascript"),
        "report.js": ((TEMPLATES / "report.js").read_text(), "text/javascript"),
        "ui.css": (style, "text/css"),
    }
    one = "/runs/{namespace}/{name}"
    return Starlette(
        routes=[
            Route("/", pages.overview),
            Route(one, pages.run),
            Route(f"{one}/questions", pages.list),
            Route(f"{one}/questions/{{iteration:int}}/{{place:int}}", pages.question),
            *(Route(f"/static/{name}", _file(*content)) for name, content in files.items()),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False)],
        exception_handlers={HTTPException: pages.missing, SelfevoError: pages.failed},
    )


def curve(shown: Shown) -> Mapping[str, Any] | None:
    """The scores of a run as points of a drawing 100 wide and 24 high; None before there are two."""
    scores = [(i.iteration, i.score) for i in shown.iterations if i.score is not None]
    if len(scores) < 2:
        return None
    least, most = min(s for _, s in scores), max(s for _, s in scores)
    last = scores[-1][0] - scores[0][0]
    points = [
        (4 + 92 * (n - scores[0][0]) / last, 20 - 16 * ((s - least) / (most - least) if most > least else 0.5))
        for n, s in scores
    ]
    said = ", ".join(f"{n or 'base'}: {100 * s:.1f} %" for n, s in scores)
    return {"line": " ".join(f"{x:.1f},{y:.1f}" for x, y in points), "end": points[-1], "said": said}


def _file(text: str, kind: str) -> Any:
    headers = {**HEADERS, "Cache-Control": "max-age=3600"}

    def get(request: Request) -> Response:
        return Response(text, media_type=kind, headers=headers)

    return get


def _keys(shown: Shown) -> list[str]:
    return [step.key for step, _ in shown.rollouts]


def _samples(step: Step) -> int:
    return step.inputs.samples if isinstance(step.inputs, SolverRolloutInputs) else 1
