"""The end of an attempt is written down before the next one starts.

Else, if its Job goes and the new one is not seen yet, nobody knows of either, and the number of the last one is given
again, beside the new one.
"""

from __future__ import annotations

from datetime import datetime

from selfevo_core.policies.base import Decision, Hold, RunState


def record_first(state: RunState, now: datetime) -> Decision | None:
    recorded = {(step.name, step.key): step.ended for step in state.recorded.steps}
    unwritten = [step for step in state.ready if state.steps[step.name].ended > recorded.get((step.name, step.key), 0)]
    return Decision(holds={step.name: Hold(now, keeps_slot=True) for step in unwritten})
