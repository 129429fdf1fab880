"""What makes a curriculum of a rollout's answers, one way a file: votes, or a judge's scores."""

from __future__ import annotations

from selfevo_contract.phases import SolverRolloutInputs
from selfevo_trainer.labelling.base import Labelling, Marked, Marker
from selfevo_trainer.labelling.scores import Scored
from selfevo_trainer.labelling.votes import Voted

__all__ = ["Labelling", "Marked", "Marker", "labelling_of"]


def labelling_of(inputs: SolverRolloutInputs) -> Labelling:
    """That of the run: by scores where it has a judge."""
    return Scored(inputs) if inputs.is_judged else Voted(inputs)
