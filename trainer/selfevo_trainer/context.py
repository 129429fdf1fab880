"""What every phase has at hand: its configuration, the store, a place to work, clocks, and the way to commit."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Literal

from selfevo_contract.artifacts import Manifest, ManifestDraft
from selfevo_contract.errors import InputError
from selfevo_contract.grpo import Sampling
from selfevo_contract.inputs import BaseModelRef, StepModelRef
from selfevo_contract.phases import CACHE_ENV, WORKDIR_ENV, PhaseConfig, PhaseResult, Progress
from selfevo_trainer import progress
from selfevo_trainer.answers import ExactGrader, open_grader
from selfevo_trainer.engines import Completion, Engine
from selfevo_trainer.grading import Grader
from selfevo_trainer.prompts import Messages
from selfevo_trainer.signals import StopRequest
from selfevo_trainer.store import CommitResult, ObjectStore, commit

_PACKAGES = ("selfevo", "torch", "transformers", "trl", "accelerate", "math-verify")


class Clock:
    """Seconds by activity. Nested activities are not counted twice: the inner one's time is taken from the outer's."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner: list[float] = []

    @contextlib.contextmanager
    def during(self, activity: str) -> Iterator[None]:
        """Count the time inside as ``activity``."""
        begun = time.perf_counter()
        self._inner.append(0.0)
        try:
            yield
        finally:
            spent = time.perf_counter() - begun
            self.seconds[activity] += spent - self._inner.pop()
            if self._inner:
                self._inner[-1] += spent


@dataclass
class _TimedEngine:
    engine: Engine
    clock: Clock

    def generate(
        self, prompts: Sequence[Messages], sampling: Sampling, samples: int, seed: int
    ) -> list[list[Completion]]:
        with self.clock.during("generation"):
            return self.engine.generate(prompts, sampling, samples, seed)

    def close(self) -> None:
        self.engine.close()


@dataclass
class Context:
    """One phase's surroundings."""

    config: PhaseConfig
    store: ObjectStore
    stop: StopRequest
    shard: int | None
    started: float
    """Unix time at which the process began."""
    workdir: Path
    cache_dir: Path
    clock: Clock = field(default_factory=Clock)
    resumed_from: int | None = None

    @staticmethod
    def cache_dir_from_env() -> Path:
        """The node's content-addressed cache."""
        default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "selfevo"
        return Path(os.environ.get(CACHE_ENV, default))

    @classmethod
    def create(
        cls, config: PhaseConfig, store: ObjectStore, stop: StopRequest, shard: int | None, started: float
    ) -> Context:
        """Raises InputError when the working directory cannot be written."""
        root = Path(os.environ.get(WORKDIR_ENV, tempfile.gettempdir()))
        try:
            root.mkdir(parents=True, exist_ok=True)
            workdir = Path(tempfile.mkdtemp(prefix=f"{config.step}-", dir=root))
        except OSError as error:
            raise InputError(f"{WORKDIR_ENV} {root} cannot be written: {error.strerror}; name a writable one") from None
        return cls(config, store, stop, shard, started, workdir, cls.cache_dir_from_env())

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Path]:
        """The working directory, removed afterwards: what matters lies in the store."""
        try:
            yield self.workdir
        finally:
            shutil.rmtree(self.workdir, ignore_errors=True)

    def progress(self, doing: str, done: int, total: int, metrics: Mapping[str, float] | None = None) -> None:
        """Say how far the phase is."""
        progress.report(
            Progress(
                phase=self.config.inputs.phase,
                step=self.config.step,
                doing=doing,
                done=done,
                total=total,
                metrics=dict(metrics or {}),
                shard=self.shard,
                resumed_from=self.resumed_from,
            )
        )

    def check_own(self, manifest: Manifest, place: str) -> None:
        """A manifest under this step's key must be this step's.

        Raises:
            InputError: it is another's.
        """
        if (manifest.key, manifest.phase) != (self.config.key, self.config.inputs.phase):
            raise InputError(
                f"{self.store.uri_of(place)}/MANIFEST.json belongs to {manifest.phase} {manifest.key[:12]}, not to "
                f"{self.config.inputs.phase} {self.config.key[:12]}; remove it or choose another storage.uri",
                reason="ForeignManifest",
            )

    def commit(
        self, prefix: str, files: Mapping[str, Path], metrics: Mapping[str, float] | None = None
    ) -> CommitResult:
        """Make ``files`` exist under ``prefix``. Who commits first wins; both end with the winner's manifest."""
        with self.clock.during("store"):
            draft = ManifestDraft(
                key=self.config.key,
                phase=self.config.inputs.phase,
                iteration=self.config.iteration,
                attempt=self.config.attempt,
                metrics=dict(metrics or {}),
                timings=self.timings(),
                parents=self.parents(),
                inputs=self.config.inputs.wire(),
                versions=versions(),
            )
            return commit(self.store, prefix, files, draft)

    def timed_engine(self, engine: Engine) -> Engine:
        """``engine``, its time counted as generation."""
        return _TimedEngine(engine, self.clock)

    def grader(self) -> Grader | ExactGrader:
        """The comparison of answers that the run asks for, a context manager."""
        return open_grader(self.config.inputs.grading)

    def timings(self) -> dict[str, float]:
        """Seconds by activity so far, and ``total`` since the process began."""
        return {
            **{name: round(seconds, 3) for name, seconds in self.clock.seconds.items()},
            "total": round(time.time() - self.started, 3),
        }

    def parents(self) -> dict[str, str]:
        """Role of each input -> ``<phase>/<key>``, or the base model's URI."""
        found: dict[str, str] = {}
        for role in ("challenger", "solver", "model"):
            ref = getattr(self.config.inputs, role, None)
            if isinstance(ref, StepModelRef):
                found[role] = f"{ref.phase}/{ref.key}"
            elif isinstance(ref, BaseModelRef):
                found[role] = ref.uri
        curriculum = getattr(self.config.inputs, "curriculum", None)
        if curriculum:
            found["curriculum"] = f"solver-rollout/{curriculum}"
        return found

    def result(
        self,
        outcome: Literal["committed", "found", "shard"],
        metrics: Mapping[str, float],
        timings: Mapping[str, float] | None = None,
    ) -> PhaseResult:
        """The report of a phase that ended well."""
        return PhaseResult(
            phase=self.config.inputs.phase,
            key=self.config.key,
            outcome=outcome,
            metrics={name: value for name, value in metrics.items() if math.isfinite(value)},
            timings=dict(self.timings() if timings is None else timings),
            resumed_from=self.resumed_from,
        )


def versions() -> dict[str, str]:
    """Versions of what computed the output."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
