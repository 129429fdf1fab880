"""The parts of the picture, each as lines. Pure.

Questions and logs hold what a model wrote: nothing of it reaches the terminal but characters that stand for themselves.
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from rich.text import Text

from selfevo.text import percent, printable, seconds
from selfevo.views import narrate
from selfevo.views import steps as step_lines
from selfevo.watching.left import run_left, step_left
from selfevo.watching.scene import Asked, Scene
from selfevo.watching.sparkline import sparkline
from selfevo_contract.process import Progress
from selfevo_contract.status import GuardStatus, RunStatus
from selfevo_core.policies.review import awaited

KEYS = (("s", "suspend"), ("r", "resume"), ("a", "approve"), ("l", "log"), ("n", "questions"), ("q", "quit"))
_PHASE = {"Running": "cyan", "Succeeded": "green", "Failed": "red", "Suspended": "yellow"}
# The signs differ without colours, too.
_LIGHTS = {
    "Passing": ("●", "green"),
    "Warned": ("▲", "yellow"),
    "Tripped": ("✗", "red"),
    "Waiting": ("○", "bright_black"),
}
_BY_ITERATION = (
    ("score", None),
    ("greedy", "evaluation/greedy"),
    ("in band", "rollout/in_band_share"),
    ("labels right", "rollout/label_accuracy"),
)
_CURVES = 8
_FLOWED = 3
"""Lines of a sentence."""


def clean(text: str) -> str:
    """One line of ``text`` without what a terminal obeys, what turns its direction, and what it cannot encode."""
    line = " ".join(printable(text).split())
    line = "".join(char for char in line if unicodedata.category(char) != "Cf")
    return line.encode("utf-8", "replace").decode()


def cut(line: Text, columns: int) -> Text:
    """``line`` in at most ``columns`` cells."""
    line = line.copy()
    line.truncate(columns, overflow="ellipsis")
    return line


def heading(words: str, columns: int) -> Text:
    """``── steps ─────``"""
    line = Text("── ", "bright_black").append(clean(words), "bold")
    return line.append(" " + "─" * max(0, columns - line.cell_len - 1), "bright_black")


def head(scene: Scene, columns: int, now: datetime) -> list[Text]:
    """The run's name, phase and iteration; how much is done, how fast, until when; why it waits."""
    status, plan = scene.status, scene.plan
    title = Text(f"{scene.name}  ", "bold").append(status.phase, _PHASE.get(status.phase, ""))
    if status.iteration and scene.spec is not None:
        title.append(f"  iteration {status.iteration} of {scene.spec.iterations}")
    elif status.iteration:
        title.append(f"  iteration {status.iteration}")
    remark = Text(f"  {clean(scene.remark)}" if scene.remark else "", "bright_black")
    if title.cell_len + remark.cell_len <= columns:
        title.append_text(remark)
    lines = [title, _pace(scene, columns, now)]
    for line in (*narrate.fork_lines(status), _why(scene)):
        lines += _flowed(line, columns, "")
    return lines if plan is not None or status.steps else lines[:1] + lines[2:]


def _pace(scene: Scene, columns: int, now: datetime) -> Text:
    status = scene.status
    done = sum(step.state == "Succeeded" for step in status.steps)
    total = len(scene.plan.steps) if scene.plan else 0
    line = Text()
    if total:
        line.append_text(step_lines.bar(done, total, max(5, min(24, columns // 5)))).append(" ")
    line.append(narrate.counts(status, scene.plan))
    speed = _speed(scene)
    parts = [f"{speed:.0f} tokens/s"] if speed is not None else []
    if status.phase == "Running":
        running = {
            step.name: step_left(step, status, _reports(scene, step.name), now)
            for step in status.steps
            if step.state == "Running"
        }
        left = run_left(scene.plan, status, running)
        if left is not None:
            at = (now + timedelta(seconds=left)).astimezone()
            parts.append(f"{seconds(left)} left ({at:{'%H:%M' if left < 72000 else '%a %H:%M'}})")
        else:
            parts += [f"{name} {seconds(of)} left" for name, of in running.items() if of is not None][:1]
    for part in parts:
        if line.cell_len + 2 + len(part) <= columns:
            line.append(f"  {part}")
    return line


def _flowed(words: str, columns: int, style: str) -> list[Text]:
    """``words`` in a few lines."""
    return [Text(line, style) for line in textwrap.wrap(clean(words), columns)[:_FLOWED]]


def _speed(scene: Scene) -> float | None:
    """Tokens a second in all steps that run."""
    found = []
    for step in scene.status.steps:
        if step.state != "Running":
            continue
        reported = [r.tokens_per_second for r in _reports(scene, step.name) if r.tokens_per_second is not None]
        recorded = step.progress.tokens_per_second if step.progress else None
        found += reported or ([recorded] if recorded is not None else [])
    return sum(found) if found else None


def _reports(scene: Scene, step: str) -> Sequence[Progress]:
    return scene.trail.reports if scene.trail.step == step else ()


def _why(scene: Scene) -> str:
    why = narrate.standing(scene.status)
    waits = awaited(scene.spec) if scene.spec is not None and scene.status.phase == "Suspended" else None
    return f"{why} (key a)" if waits is not None and why else why


def steps(scene: Scene, columns: int, room: int, now: datetime) -> list[Text]:
    """A heading, and the steps around those that run, in ``room`` lines in all."""
    status = scene.status
    records = {step.name: step for step in status.steps}
    names = [step.name for step in scene.plan.steps] if scene.plan else list(records)
    shown, before, after = step_lines.around(names, records, max(1, room - 1))
    hidden = [f"{count} {where}" for count, where in ((before, "before"), (after, "after")) if count]
    lines = [heading(", ".join([f"steps ({' and '.join(hidden)} not shown)"] if hidden else ["steps"]), columns)]
    name_width = max((len(name) for name in shown), default=0)
    for name in shown:
        rest = max(1, columns - 2 - name_width - 2 - step_lines.TOOK - 2)
        mark, label, took, remark = step_lines.cells(name, records.get(name), status, _reports(scene, name), rest, now)
        line = Text.assemble(mark, " ", label, " " * (name_width - len(name) + 2), took)
        line.append(" " * max(1, step_lines.TOOK + 2 - took.cell_len))
        lines.append(line + Text(clean(remark.plain), remark.style) if not remark.spans else line + remark)
    return lines


def curves(scene: Scene, columns: int) -> list[Text]:
    """A heading, and a sparkline for each figure: by iteration, then by update of the step that runs."""
    lines = [_curve(name, values, columns, percent) for name, values in _by_iteration(scene.status)]
    updates = [_curve(name, values, columns, _figure) for name, values in _by_update(scene)]
    if lines:
        lines = [heading("curves, by iteration", columns), *lines]
    if updates:
        lines += [heading(f"{scene.trail.step}, by report", columns), *updates]
    return lines


def _by_iteration(status: RunStatus) -> list[tuple[str, list[float | None]]]:
    found = []
    for name, key in _BY_ITERATION:
        values = [line.score if key is None else line.metrics.get(key) for line in status.iterations]
        if any(value is not None for value in values):
            found.append((name, values))
    return found


def _by_update(scene: Scene) -> list[tuple[str, Sequence[float]]]:
    items = [(name, values) for name, values in scene.trail.curves.items() if name != "update" and len(values) > 1]
    return items[:_CURVES]


def _curve(name: str, values: Sequence[float | None], columns: int, say: Callable[[float], str]) -> Text:
    there = [value for value in values if value is not None]
    ends = f"{say(there[0])} -> {say(there[-1])}" if len(there) > 1 else say(there[0])
    label = clean(name.rsplit("/", 1)[-1])[:18].ljust(min(18, max(12, columns // 5)))
    room = max(4, min(60, columns - len(label) - len(ends) - 3))
    bars = sparkline(values, room)
    return Text.assemble(label, " ", (bars, "cyan"), "  ", ends)


def _figure(value: float) -> str:
    return f"{value:.3g}"


def guards(scene: Scene, columns: int) -> list[Text]:
    """A heading and lights; below them what the loud ones say. Nothing of a run without guards."""
    known = scene.status.guards
    if not known:
        return []
    lines, line = [heading("guards", columns)], Text()
    for guard in known:
        light = _light(guard)
        if line.cell_len and line.cell_len + 2 + light.cell_len > columns:
            lines.append(line)
            line = Text()
        line = Text("  ").join([line, light]) if line.cell_len else light
    loud = [guard for guard in known if guard.state in ("Warned", "Tripped")]
    return [*lines, line, *(line for guard in loud for line in _flowed(narrate.guard_line(guard), columns, "yellow"))]


def _light(guard: GuardStatus) -> Text:
    mark, style = _LIGHTS.get(guard.state, ("·", "bright_black"))
    return Text.assemble((mark, style), f" {clean(guard.name)} {guard.state.lower()}")


def has_questions(scene: Scene) -> bool:
    """Whether there is a word to say of questions."""
    return bool(scene.questions.rows or scene.questions.why)


def questions(scene: Scene, columns: int, room: int) -> list[Text]:
    """A heading, and a line for each question: how its answers voted, and its text."""
    known = scene.questions
    lines = [heading(known.title or "questions", columns)]
    if not known.rows:
        lines.append(Text(clean(known.why or "no rollout has answered any yet"), "bright_black"))
    return (lines + [_asked(row) for row in known.rows])[: max(0, room)]


def _asked(row: Asked) -> Text:
    votes = ":".join(map(str, row.votes[:4])) + ("…" if len(row.votes) > 4 else "")
    line = Text.assemble((f"{percent(row.share):>8} ", "green" if not row.dropped else "bright_black"), f"{votes:<10} ")
    if row.dropped:
        line.append(f"{clean(row.dropped)}  ", "yellow")
    return line.append(clean(row.text))


def log(scene: Scene, columns: int, room: int) -> list[Text]:
    """A heading and the newest lines of the log."""
    if room < 2:
        return []
    trail = scene.trail
    title = f"log of {trail.step}, attempt {trail.attempt}" if trail.step else "log"
    words = [Text(clean(line)) for line in trail.words[-(room - 1) :]]
    return [heading(title, columns), *(words or [Text(clean(trail.why or "nothing was logged yet"), "bright_black")])]


def foot(scene: Scene, columns: int) -> list[Text]:
    """What is asked or was answered, and the keys."""
    keys = Text()
    for key, what in KEYS:
        keys.append("  " if keys.cell_len else "").append(key, "bold").append(f" {what}")
    return [*_flowed(scene.note, columns, "yellow"), keys]
