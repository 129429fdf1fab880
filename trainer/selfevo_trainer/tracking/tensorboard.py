"""TensorBoard: event files in the run's own store, a folder a step and one of points by iteration."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from selfevo_contract.spec.tracking import TensorboardTracker
from selfevo_store import open_storage
from selfevo_trainer.tracking.base import ITERATIONS, Figures, Job, Sink

EVERY_S = 30.0
"""Between two uploads of a file that grows."""
_ROWS = 100
"""Of a table, which TensorBoard shows as one text."""


class TensorboardSink:
    """Event files on the disk here, each put into the store whole again as it grows."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._store = open_storage(job.storage)
        self._folder = Path(tempfile.mkdtemp(prefix="tensorboard-"))
        self._writer: SummaryWriter | None = None
        self._uploaded = time.monotonic()

    def _steps(self, first: int) -> object:
        if self._writer is None:
            # A resumed attempt repeats the updates since its checkpoint: what was there of them is replaced.
            self._writer = SummaryWriter(self._folder / self._job.step, purge_step=first)
        return self._writer

    def update(self, number: int, figures: Figures) -> None:
        writer = self._steps(number)
        for name, value in figures.items():
            writer.add_scalar(name, value, number)  # type: ignore[attr-defined]
        if time.monotonic() >= self._uploaded + EVERY_S:
            self._upload()

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        lines = ["\t".join(columns), *("\t".join(_one_line(cell) for cell in row) for row in rows[:_ROWS])]
        # Behind four spaces Markdown takes nothing for markup.
        text = "\n".join(f"    {line}" for line in lines)
        self._steps(0).add_text(name, text, 0)  # type: ignore[attr-defined]

    def result(self, iteration: int, figures: Figures) -> None:
        writer = SummaryWriter(self._folder / ITERATIONS, filename_suffix=f".{self._job.step}")
        for name, value in figures.items():
            writer.add_scalar(f"{self._job.phase}/{name}", value, iteration)
        writer.close()

    def _upload(self) -> None:
        if self._writer is not None:
            self._writer.flush()
        place = f"tensorboard/{self._job.namespace}/{self._job.run}"
        for path in sorted(self._folder.rglob("events.*")):
            self._store.put_bytes(f"{place}/{path.relative_to(self._folder)}", path.read_bytes())
        self._uploaded = time.monotonic()

    def close(self, *, ended: bool) -> None:
        self._upload()
        shutil.rmtree(self._folder, ignore_errors=True)


def _one_line(cell: object) -> str:
    return " ".join(str(cell).split())


def open_sink(tracker: TensorboardTracker, job: Job) -> Sink:
    """The sink of kind tensorboard."""
    return TensorboardSink(job)
