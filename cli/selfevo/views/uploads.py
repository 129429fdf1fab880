"""What a run publishes, as a line of `selfevo size`."""

from __future__ import annotations

from selfevo.text import count, size
from selfevo_contract.plan import sketch
from selfevo_contract.sizing.architecture import Architecture
from selfevo_contract.sizing.published import published
from selfevo_contract.spec.run import RunSpec


def publish_lines(spec: RunSpec, model: Architecture) -> list[str]:
    """How many models and curricula go to spec.publish.to, and their bytes; nothing of a run that publishes nothing."""
    found = published(spec, sketch(spec), model)
    if spec.publish is None or not found:
        return []
    one = found[0]
    kind = "adapter" if one.adapter else "model"
    curricula, rows = sum(each.curricula for each in found), sum(each.rows for each in found)
    parts = [f"{count(len(found), kind)} of {size(one.model)}{'' if one.adapter else f' in {spec.model.dtype}'}"]
    if curricula:
        noun = "curriculum" if curricula == 1 else "curricula"
        parts.append(f"{curricula} {noun} of at most {size(int(rows / curricula))} each")
    total = sum(each.model for each in found) + rows
    read = sum(each.read for each in found)
    return [
        f"published to {spec.publish.to}: {' and '.join(parts)}, {size(int(total))} in {count(len(found), 'step')} "
        f"when nothing is there yet; {size(int(read))} are read for it"
    ]
