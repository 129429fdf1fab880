"""Writes the states of a step into docs/states.md, as a diagram and as a table, from the core's transitions.

    python tools/state_reference.py

A test holds the two equal.
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from selfevo_contract.status import StepState
from selfevo_core.transitions import TRANSITIONS, Event

PAGE = Path(__file__).parents[1] / "docs" / "states.md"
BEGIN, END = "<!-- states of a step: made by tools/state_reference.py -->", "<!-- states of a step end -->"
STATES: tuple[StepState, ...] = get_args(StepState)


def diagram() -> list[str]:
    """An arrow for every pair of states that some event leads between; what leads nowhere else is in the table."""
    arrows: dict[tuple[StepState, StepState], list[str]] = {}
    for (state, event), after in TRANSITIONS.items():
        if after != state:
            arrows.setdefault((state, after), []).append(_name(event))
    lines = [f"    {state} --> {after}: {', '.join(events)}" for (state, after), events in arrows.items()]
    return ["```mermaid", "stateDiagram-v2", "    [*] --> Pending: planned", *lines, "```"]


def table() -> list[str]:
    """What each event makes of each state; an empty cell changes nothing."""
    heads = " | ".join(f"from {state}" for state in STATES)
    lines = [f"| event | what is seen of the step | {heads} |", f"|---|---|{'---|' * len(STATES)}"]
    for event in Event:
        cells = [TRANSITIONS.get((state, event), "") for state in STATES]
        lines.append(f"| {_name(event)} | {event.value} | {' | '.join(cells)} |")
    return lines


def _name(event: Event) -> str:
    """As constants of this API are written: FailedTooOften."""
    return event.name.title().replace("_", "")


def page(text: str) -> str:
    """``text`` with the diagram and the table in their place."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return "\n".join([f"{before}{BEGIN}", "", *diagram(), "", *table(), "", f"{END}{after}"])


def main() -> None:
    PAGE.write_text(page(PAGE.read_text()))


if __name__ == "__main__":
    main()
