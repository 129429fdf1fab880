"""The steps as a graph: a row an iteration, a column a phase. Pure; the page draws it as SVG.

Long runs grow downwards, which is how a page scrolls; on a phone the graph scrolls sideways in its own frame.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from selfevo.report.data import Report, StepRecord
from selfevo_contract.judging import PROMOTED
from selfevo_contract.phases import PHASES, VERIFIER_TRAIN, BaseModelRef, StepModelRef
from selfevo_contract.plan import Step

WIDTH, HEIGHT = 136, 46
GAP_X, GAP_Y = 44, 46
LEFT, TOP = 44, 30
"""Room for the names of rows and columns."""
_PORT = 16
"""Distance between two ends of edges at one side of a node."""
_DIGITS = 10
_LETTERS = 15
BASE = "base"
FORK = "fork"
"""The iteration of another run that this one goes on from."""


@dataclass(frozen=True)
class Node:
    """One step, or the base model."""

    name: str
    phase: str
    """``base`` for the base model, and for what another run has made."""
    row: int
    column: int
    title: str
    key: str
    """All of it."""
    short: str
    """What fits."""
    there: bool
    note: str
    best: bool

    @property
    def x(self) -> int:
        return LEFT + self.column * (WIDTH + GAP_X)

    @property
    def y(self) -> int:
        return TOP + self.row * (HEIGHT + GAP_Y)


@dataclass(frozen=True)
class Edge:
    """From a step to one that takes its output."""

    parent: str
    child: str
    phase: str
    """The parent's."""
    path: str
    """SVG path data."""
    there: bool


@dataclass(frozen=True)
class Graph:
    """A laid-out lineage."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    columns: tuple[tuple[int, str], ...]
    """(x of the middle, name)."""
    rows: tuple[tuple[int, str], ...]
    """(y of the middle, name)."""
    width: int
    height: int


def lineage(report: Report) -> Graph:
    """The plan's steps with their edges, base model included."""
    present = {record.step.phase for record in report.steps}
    phases = [phase for phase in PHASES if phase in present]
    start, keys = report.plan.start, {record.step.key for record in report.steps}
    numbers = sorted({0, start, *(record.step.iteration for record in report.steps)})
    nodes = {BASE: _base(report, phases)}
    if start > 0:
        nodes[FORK] = _fork(report, numbers.index(start), nodes[BASE])
    for record in report.steps:
        step = record.step
        nodes[step.name] = Node(
            name=step.name,
            phase=step.phase,
            row=numbers.index(step.iteration),
            column=phases.index(step.phase),
            title=step.type.makes.format(step.iteration),
            key=step.key,
            short=step.key[:_DIGITS],
            there=record.manifest is not None,
            note=_note(report, record),
            best=report.best == step.iteration and step.type.trains_solver,
        )
    model = report.run.spec.model.uri
    links = [(parent, record.step.name) for record in report.steps for parent in _parents(record.step, keys, model)]
    bottom = max(node.row for node in nodes.values())
    return Graph(
        nodes=tuple(nodes.values()),
        edges=tuple(_edges(nodes, links)),
        columns=tuple((LEFT + i * (WIDTH + GAP_X) + WIDTH // 2, PHASES[phase].title) for i, phase in enumerate(phases)),
        rows=tuple(
            (TOP + row * (HEIGHT + GAP_Y) + HEIGHT // 2, str(number) if number else "base")
            for row, number in enumerate(numbers)
        ),
        width=LEFT + len(phases) * (WIDTH + GAP_X) - GAP_X + 8,
        height=TOP + bottom * (HEIGHT + GAP_Y) + HEIGHT + 8,
    )


def _base(report: Report, phases: Sequence[str]) -> Node:
    model = report.run.spec.model
    column = next((n for n, phase in enumerate(phases) if PHASES[phase].trains_solver), 0)
    return Node(
        name=BASE,
        phase=BASE,
        row=0,
        column=column,
        title="Base model",
        key=model.digest or model.uri,
        short=(model.digest or model.uri.rsplit("/", 1)[-1])[:_DIGITS],
        there=True,
        note="",
        best=report.best == 0,
    )


def _fork(report: Report, row: int, base: Node) -> Node:
    """What another run has made of the base, and this one goes on from."""
    asked, start = report.run.spec.fork_from, report.plan.start
    ref = report.plan.solvers[start]
    key = ref.key if isinstance(ref, StepModelRef) else base.key
    return replace(
        base,
        name=FORK,
        row=row,
        title=f"Iteration {start} of run",
        key=key,
        short=(asked.run if asked else "")[:_LETTERS],
        best=report.best == start,
    )


def _note(report: Report, record: StepRecord) -> str:
    step = record.step
    if record.manifest is not None and step.phase == VERIFIER_TRAIN.name and step.iteration:
        return "promoted" if record.manifest.metrics.get(PROMOTED) else "not promoted"
    evaluation = report.iteration(step.iteration).evaluation if step.type.scores else None
    return f"{100 * evaluation.score(report.metric).value:.1f} %" if evaluation else ""


def _parents(step: Step, keys: Collection[str], model: str) -> list[str]:
    """``keys`` are those of the run's own steps, ``model`` is the base's address."""
    refs = [getattr(step.inputs, role) for role in step.type.models]
    # Scores wait for the base's, over which they tell gains; they are not made from it.
    parents = [name for name in step.parents if not PHASES[name.rpartition("-")[0]].scores]
    made = [ref.key for ref in refs if isinstance(ref, StepModelRef)]
    earlier = [getattr(step.inputs, field) for field, phase in step.type.steps if not PHASES[phase].scores]
    elsewhere = any(key is not None and key not in keys for key in (*made, *earlier))
    base = any(isinstance(ref, BaseModelRef) and ref.uri == model for ref in refs)
    return [*[BASE] * base, *[FORK] * elsewhere, *parents]


def _edges(nodes: dict[str, Node], links: list[tuple[str, str]]) -> list[Edge]:
    # Edges to another row leave at the bottom and arrive at the top, side by side and in the order of their other ends.
    down = [(parent, child) for parent, child in links if nodes[parent].row != nodes[child].row]
    leaving: dict[str, list[str]] = defaultdict(list)
    arriving: dict[str, list[str]] = defaultdict(list)
    for parent, child in down:
        leaving[parent].append(child)
        arriving[child].append(parent)
    for names in (*leaving.values(), *arriving.values()):
        names.sort(key=lambda name: nodes[name].column)
    found = []
    for parent, child in links:
        a, b = nodes[parent], nodes[child]
        if a.row == b.row:
            path = _beside(a, b)
        else:
            start = _port(a, leaving[parent].index(child), len(leaving[parent]))
            end = _port(b, arriving[child].index(parent), len(arriving[child]))
            path = _below(start, a.y + HEIGHT, end, b.y)
        found.append(Edge(parent, child, a.phase, path, a.there))
    return found


def _port(node: Node, index: int, count: int) -> int:
    return round(node.x + WIDTH / 2 + (index - (count - 1) / 2) * min(_PORT, (WIDTH - 24) / max(1, count)))


def _below(x0: int, y0: int, x1: int, y1: int) -> str:
    bend = max(20, (y1 - y0) * 2 // 3)
    return f"M{x0} {y0}C{x0} {y0 + bend} {x1} {y1 - bend} {x1} {y1 - 5}"


def _beside(a: Node, b: Node) -> str:
    y = a.y + HEIGHT // 2
    if b.column == a.column + 1:
        return f"M{a.x + WIDTH} {y}H{b.x - 5}"
    # Past the nodes between, underneath.
    low = a.y + HEIGHT + GAP_Y // 2
    x0, x1 = a.x + WIDTH * 3 // 4, b.x + WIDTH // 4
    return f"M{x0} {a.y + HEIGHT}C{x0} {low} {x1} {low} {x1} {b.y + HEIGHT + 5}"
