"""Whether two runs of a sweep publish different Solvers to one place. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from selfevo.sweeps.grid import Cell
from selfevo_contract.errors import InputError
from selfevo_contract.phases import PublishInputs, StepModelRef
from selfevo_contract.plan import sketch
from selfevo_contract.plan_publish import address_of
from selfevo_contract.spec.run import RunSpec


def check_places(cells: Sequence[tuple[Cell, RunSpec]]) -> None:
    """No two runs publish to one place where none of the Solvers that may go there is both runs'.

    Args:
        cells: Each with its spec, which is valid.

    Raises:
        InputError: two do; what is published first is never replaced, so the other run would fail at its end.
    """
    places = Counter(spec.publish.to.rstrip("/") for _, spec in cells if spec.publish is not None)
    seen: dict[object, list[tuple[Cell, frozenset[str]]]] = {}
    for cell, spec in cells:
        if spec.publish is None or places[spec.publish.to.rstrip("/")] < 2:
            continue
        for address, solvers in _published(spec):
            # What a fork begins with is not known here: only forks of the same iteration can be compared.
            others = seen.setdefault((address, spec.fork_from and spec.fork_from.model_dump_json()), [])
            other = next((cell for cell, theirs in others if not theirs & solvers), None)
            if other is not None:
                raise InputError(
                    f"publish.to comes to {address!r} with {other.label} and with {cell.label}, whose Solvers differ, "
                    "and what is published is never replaced; remove spec.publish, and add it to the manifest of the "
                    "run whose Solvers are to be published"
                )
            others.append((cell, solvers))


def _published(spec: RunSpec) -> Iterator[tuple[str, frozenset[str]]]:
    """Each place where the run publishes, with the keys of the Solvers one of which goes there."""
    steps = sketch(spec)
    solvers = frozenset(model.key for model in steps.solvers if isinstance(model, StepModelRef))
    chosen_by_scores = spec.publish is not None and spec.publish.what == "best" and spec.evaluation is not None
    for inputs in (step.inputs for step in steps.steps):
        if isinstance(inputs, PublishInputs) and isinstance(inputs.model, StepModelRef):
            yield address_of(inputs), solvers if chosen_by_scores else frozenset([inputs.model.key])
