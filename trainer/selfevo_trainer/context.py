"""What every phase has at hand: its configuration, the store, a place to work, clocks, and the way to commit."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from selfevo_contract import reasons
from selfevo_contract.artifacts import GPU_SECONDS, MANIFEST_NAME, Manifest, ManifestDraft, step_prefix
from selfevo_contract.errors import InputError, SelfevoError, ServiceError
from selfevo_contract.fingerprint import FINGERPRINT_OFF
from selfevo_contract.phases import PHASES, BaseModelRef, StepModelRef
from selfevo_contract.process import CACHE_ENV, GRACE_SECONDS_ENV, WORKDIR_ENV, PhaseConfig, PhaseResult, Progress
from selfevo_contract.sizing.grace import SHARE_OF_GRACE
from selfevo_contract.spec.engines import ServerEngine
from selfevo_contract.spec.grading import Grading
from selfevo_contract.spec.sampling import Sampling
from selfevo_store import CommitResult, ObjectStore, commit, read_manifest, read_own_manifest
from selfevo_trainer.answers.grades import ExactGrader, open_grader
from selfevo_trainer.answers.grading import Grader
from selfevo_trainer.distributed.layout import ALONE, Rank
from selfevo_trainer.engines import Completion, Engine
from selfevo_trainer.process import gpus, progress
from selfevo_trainer.process.clock import Clock
from selfevo_trainer.process.pace import Speed
from selfevo_trainer.process.signals import StopRequest
from selfevo_trainer.process.traces import Trace
from selfevo_trainer.process.versions import versions
from selfevo_trainer.prompts import Messages
from selfevo_trainer.tracking.relay import Tracking

NO_DISTRIBUTION = "probability tensor contains"
"""How torch begins when it is to sample from NaN."""


@dataclass
class _TimedEngine:
    engine: Engine
    clock: Clock

    def generate(
        self,
        prompts: Sequence[Messages],
        sampling: Sampling,
        samples: int,
        seed: int,
        streams: Sequence[int] | None = None,
    ) -> list[list[Completion]]:
        with self.clock.during("generation"):
            try:
                made = self.engine.generate(prompts, sampling, samples, seed, streams)
            except RuntimeError as error:
                if NO_DISTRIBUTION not in str(error):
                    raise
                raise InputError(
                    "the frozen model computes NaN or infinity, from which nothing can be sampled; set "
                    "spec.model.dtype to float32 or bfloat16, or take other weights"
                ) from error
        self.clock.tokens += sum(completion.tokens for group in made for completion in group)
        return made

    def score(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        with self.clock.during("generation"):
            return self.engine.score(rows)

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
    rank: Rank = ALONE
    clock: Clock = field(default_factory=Clock)
    tracking: Tracking = field(default_factory=Tracking)
    """Whoever watches the run elsewhere."""
    resumed_from: int | None = None
    grace_seconds: float | None = None
    """From SIGTERM to SIGKILL; None where nobody kills it."""
    checkpoint_bytes: int | None = None
    """Of a checkpoint, as the preflight expects it; None where it cannot say."""
    _lap: dict[str, float] = field(default_factory=dict)
    _made: dict[str, Path] = field(default_factory=dict)

    @staticmethod
    def cache_dir_from_env() -> Path:
        """The node's content-addressed cache."""
        if CACHE_ENV in os.environ:
            return Path(os.environ[CACHE_ENV])
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "selfevo"

    @classmethod
    def create(
        cls,
        config: PhaseConfig,
        store: ObjectStore,
        stop: StopRequest,
        shard: int | None,
        started: float,
        rank: Rank = ALONE,
        trace: Trace | None = None,
    ) -> Context:
        """Raises InputError when the working directory cannot be written."""
        root = Path(os.environ.get(WORKDIR_ENV, tempfile.gettempdir()))
        try:
            root.mkdir(parents=True, exist_ok=True)
            workdir = Path(tempfile.mkdtemp(prefix=f"{config.step}-", dir=root))
        except OSError as error:
            if error.errno in _FULL:
                raise _disk_full(root) from None
            raise InputError(
                f"{WORKDIR_ENV} is {str(root)!r}, which cannot be written: {error.strerror}; name a folder that can"
            ) from None
        places, grace = (workdir, cls.cache_dir_from_env()), _grace_from_env()
        return cls(config, store, stop, shard, started, *places, rank, Clock(trace), grace_seconds=grace)

    def once_per_pod(self, name: str, make: Callable[[Path], Path]) -> Path:
        """What ``make`` returns, called with a folder of that name by the first of the pod's processes that gets here.

        For what is large and the same for all, such as a model's files. In one process it is made once, too.
        """
        if self.rank.size == 1:
            if name not in self._made:
                self._made[name] = make(self.workdir / name)
            return self._made[name]
        shared = self.workdir.parent  # the launcher's, which removes it
        made = shared / f"{name}.made"
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                made.write_text(str(make(shared / name)))
            return Path(made.read_text())

    def stop_by(self) -> float | None:
        """When this process, which was asked to stop, should have ended, by time.monotonic(): SIGKILL comes soon after.

        None where nobody kills it, or it was not asked.
        """
        if self.grace_seconds is None or self.stop.requested_at is None:
            return None
        return self.stop.requested_at + SHARE_OF_GRACE * self.grace_seconds

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Path]:
        """The working directory, removed afterwards: what matters lies in the store.

        Raises:
            ServiceError: in place of whatever a library raised when the disk filled up.
        """
        try:
            yield self.workdir
        except SelfevoError:
            raise
        except Exception as error:
            if _is_disk_full(error, self.workdir):
                raise _disk_full(self.workdir.parent) from error
            raise
        finally:
            shutil.rmtree(self.workdir, ignore_errors=True)

    def progress(
        self,
        doing: str,
        done: int,
        total: int,
        metrics: Mapping[str, float] | None = None,
        pace: Speed | None = None,
    ) -> None:
        """Say how far the phase is, and how fast where that is counted; of several processes the first one
        does."""
        if not self.rank.first:
            return
        progress.report(
            Progress(
                phase=self.config.inputs.phase,
                step=self.config.step,
                doing=doing,
                done=done,
                total=total,
                metrics=_finite(metrics or {}),
                tokens_per_second=pace.tokens_per_second if pace else None,
                truncated_share=pace.truncated_share if pace else None,
                seconds_left=pace.seconds_left(total - done) if pace else None,
                shard=self.shard,
                resumed_from=self.resumed_from,
            )
        )

    def own_manifest(self, place: str) -> Manifest | None:
        """What this step has committed at ``place``; None when that is nothing.

        Raises:
            InputError: what lies there is another step's, or no manifest, or of a newer selfevo.
        """
        return read_own_manifest(self.store, place, self.config.inputs.phase, self.config.key)

    def output_of(self, phase: str, key: str, use: str) -> tuple[str, Manifest]:
        """Where the step with ``key`` has its output, and its manifest.

        Args:
            use: what this step does with it, for the message.

        Raises:
            InputError: it has none.
        """
        prefix = step_prefix(self.config.namespace, phase, key)
        manifest = read_manifest(self.store, prefix)
        if manifest is None:
            raise InputError(
                f"{self.store.uri_of(prefix)}/{MANIFEST_NAME} does not exist, and this step {use}; run the step that "
                "makes it first"
            )
        return prefix, manifest

    def commit(
        self,
        prefix: str,
        files: Mapping[str, Path],
        metrics: Mapping[str, float] | None = None,
        timings: Mapping[str, float] | None = None,
    ) -> CommitResult:
        """Make ``files`` exist under ``prefix``. Who commits first wins; both end with the winner's manifest.

        ``timings`` are seconds by activity; this process's, since it began, when not given.

        A request to stop that comes meanwhile waits: what took hours is not thrown away while it is being uploaded.
        """
        with self.clock.during("store"), self.stop.deferred():
            return commit(self.store, prefix, files, self.draft(metrics, timings))

    def draft(
        self, metrics: Mapping[str, float] | None = None, timings: Mapping[str, float] | None = None
    ) -> ManifestDraft:
        """All of a manifest but its files, as of now: what a thread commits with, which has no clock of its own."""
        return ManifestDraft(
            key=self.config.key,
            phase=self.config.inputs.phase,
            iteration=self.config.iteration,
            attempt=self.config.attempt,
            metrics={**(metrics or {}), **self._unchecked()},
            timings=self.timings() if timings is None else dict(timings),
            parents=self.parents(),
            inputs=self.config.inputs.wire(),
            versions=versions(),
        )

    def _unchecked(self) -> dict[str, float]:
        engine = self.config.engine
        off = isinstance(engine, ServerEngine) and engine.fingerprint == "off"
        return {FINGERPRINT_OFF: 1.0} if off and not PHASES[self.config.inputs.phase].trains_solver else {}

    def timed_engine(self, engine: Engine) -> Engine:
        """``engine``, its time counted as generation."""
        return _TimedEngine(engine, self.clock)

    def grader(self, grading: Grading) -> Grader | ExactGrader:
        """The comparison of answers that the run asks for, a context manager."""
        return open_grader(grading)

    def timings(self) -> dict[str, float]:
        """Seconds by activity so far, ``total`` since the process began, and by how many GPUs it was."""
        total = time.time() - self.started
        return {
            **{name: round(seconds, 3) for name, seconds in self.clock.seconds.items()},
            "total": round(total, 3),
            GPU_SECONDS: round(total * gpus.seen(self.rank.size), 3),
        }

    def lap(self) -> dict[str, float]:
        """Seconds by activity since the last lap, or since the process began: laps add up to ``timings``."""
        before, self._lap = self._lap, self.timings()
        return {name: round(spent - before.get(name, 0.0), 3) for name, spent in self._lap.items()}

    def parents(self) -> dict[str, str]:
        """Role of each input -> ``<phase>/<key>``, or the base model's URI."""
        found: dict[str, str] = {}
        phase = PHASES[self.config.inputs.phase]
        for role in phase.models:
            ref = getattr(self.config.inputs, role)
            if isinstance(ref, StepModelRef):
                found[role] = f"{ref.phase}/{ref.key}"
            elif isinstance(ref, BaseModelRef):
                found[role] = ref.uri
        keys = {name: (made_by, getattr(self.config.inputs, name)) for name, made_by in phase.steps}
        return found | {name: f"{made_by}/{key}" for name, (made_by, key) in keys.items() if key is not None}

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
            metrics=_finite(metrics),
            timings=_finite(self.timings() if timings is None else timings),
            resumed_from=self.resumed_from,
            # Work is dealt out evenly to processes that share it, and the first of them speaks.
            tokens=self.clock.tokens * self.rank.size or None,
        )


@contextlib.contextmanager
def errors_named_after(field: str, instead_of: str = "storage.uri") -> Iterator[None]:
    """Within it an input is read: an error then names ``field`` where it would name another one, the store's."""
    try:
        yield
    except SelfevoError as error:
        message = str(error).replace(instead_of, field)
        raise type(error)(message if field in message else f"{field}: {message}", reason=error.reason) from error


def _grace_from_env() -> float | None:
    value = os.environ.get(GRACE_SECONDS_ENV)
    if value is None:
        return None
    if not value.isdecimal():
        raise InputError(f"{GRACE_SECONDS_ENV} is {value!r}; write the pod's grace period in whole seconds")
    return float(value)


def _finite(figures: Mapping[str, float]) -> dict[str, float]:
    # Messages are JSON, which has no NaN; the manifest keeps what a diverged loss was.
    return {name: value for name, value in figures.items() if math.isfinite(value)}


_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_ROOM = 64 << 10


def _is_disk_full(error: BaseException, folder: Path) -> bool:
    """Python, safetensors and torch each say it in another way, torch without a reason."""
    cause: BaseException | None = error
    while cause is not None:
        if (isinstance(cause, OSError) and cause.errno in _FULL) or os.strerror(errno.ENOSPC) in str(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    with contextlib.suppress(OSError):
        return shutil.disk_usage(folder).free < _NO_ROOM
    return False


def _disk_full(folder: Path) -> ServiceError:
    return ServiceError(
        f"{WORKDIR_ENV} is {str(folder)!r}, where the disk is full; free space there or enlarge the volume",
        reason=reasons.DISK_FULL,
    )
