"""A curriculum in the store without the rollout that would make it, so that solver-train can be tested alone."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from harness.inprocess import Phases
from selfevo_contract.artifacts import ManifestDraft
from selfevo_contract.rows import CURRICULUM, CurriculumRow
from selfevo_store import commit

ROWS = tuple((f"{a} + {b}", str(a + b)) for a, b in ((3, 4), (12, 30), (8, 8), (25, 31), (6, 9)))
"""Question and label."""


def give_curriculum(phases: Phases, rows: Sequence[tuple[str, str]] = ROWS, iteration: int = 1) -> None:
    """Commit ``rows`` as what solver-rollout of ``iteration`` made."""
    name = f"solver-rollout-{iteration}"
    made = [CurriculumRow(question=question, answer=answer, share=0.5, truth=answer) for question, answer in rows]
    with tempfile.TemporaryDirectory() as folder:
        files = CURRICULUM.write(Path(folder), made)
        draft = ManifestDraft(key=phases.step(name).key, phase="solver-rollout", iteration=iteration)
        commit(phases.store, phases.prefix(name), files, draft)
