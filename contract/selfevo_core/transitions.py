"""The states of a step, and all that moves it from one to another.

This table decides: `observe` reduces what is seen of a step to one event, and the state that is recorded is the table's
word. docs/states.md is made from it (`make references`). Pure.
"""

from __future__ import annotations

from enum import Enum
from typing import get_args

from selfevo_contract.status import StepState


class Event(Enum):
    """What one observation of a step comes to. The value is the sentence that docs/states.md has of it."""

    GONE = "no attempt of it is there, and every end is recorded (it was deleted, taken away, lost with its node)"
    WAITS = "an attempt is there and is known to wait for its start (a queue, a node, an image)"
    RUNS = "an attempt is there and is not known to wait"
    COMMITTED = "an attempt ended well, and its result says that the output is in the store"
    RESULT_LOST = "an attempt ended well, and its result did not arrive"
    FIGURES_LOST = "the same, and spec.backoffLimit allows no other attempt"
    SCORE_LOST = "the same, and its score decides which Solver is fine-tuned or published"
    TERMINATED = "an attempt ended because it was asked to: exit code 143, or its Job was deleted (suspended, replaced)"
    FAILED = "an attempt failed in a way that another one may mend: exit code 3, a crash, a signal, a foreign container"
    FAILED_TOO_OFTEN = "the same, more than spec.backoffLimit times"
    INVALID_INPUT = "an attempt failed with exit code 2: its configuration or its input is wrong"
    BAD_DATA = "an attempt failed with exit code 4: the data went bad"
    DEADLINE_EXCEEDED = "an attempt was ended by pods.activeDeadlineSeconds"
    SPEC_CHANGED = "a person has changed the spec since (a new generation)"


TRANSITIONS: dict[tuple[StepState, Event], StepState] = {
    ("Pending", Event.GONE): "Pending",
    ("Pending", Event.WAITS): "Pending",
    ("Pending", Event.RUNS): "Running",
    ("Pending", Event.COMMITTED): "Succeeded",
    ("Pending", Event.RESULT_LOST): "Pending",
    ("Pending", Event.FIGURES_LOST): "Succeeded",
    ("Pending", Event.SCORE_LOST): "Failed",
    ("Pending", Event.TERMINATED): "Pending",
    ("Pending", Event.FAILED): "Pending",
    ("Pending", Event.FAILED_TOO_OFTEN): "Failed",
    ("Pending", Event.INVALID_INPUT): "Failed",
    ("Pending", Event.BAD_DATA): "Failed",
    ("Pending", Event.DEADLINE_EXCEEDED): "Failed",
    ("Running", Event.GONE): "Pending",
    ("Running", Event.WAITS): "Pending",
    ("Running", Event.RUNS): "Running",
    ("Running", Event.COMMITTED): "Succeeded",
    ("Running", Event.RESULT_LOST): "Pending",
    ("Running", Event.FIGURES_LOST): "Succeeded",
    ("Running", Event.SCORE_LOST): "Failed",
    ("Running", Event.TERMINATED): "Pending",
    ("Running", Event.FAILED): "Pending",
    ("Running", Event.FAILED_TOO_OFTEN): "Failed",
    ("Running", Event.INVALID_INPUT): "Failed",
    ("Running", Event.BAD_DATA): "Failed",
    ("Running", Event.DEADLINE_EXCEEDED): "Failed",
    ("Failed", Event.SPEC_CHANGED): "Pending",
}
"""(state, event) -> state. What is not in it changes nothing: a record that is final outweighs what is seen later."""


def next_state(state: StepState, event: Event) -> StepState:
    """The state of a step that was in ``state`` when ``event`` is what is seen of it."""
    return TRANSITIONS.get((state, event), state)


def is_final(state: StepState) -> bool:
    """No attempt moves a step out of ``state`` any more."""
    return state in _FINAL


_FINAL = frozenset(get_args(StepState)) - {state for state, event in TRANSITIONS if event is not Event.SPEC_CHANGED}
