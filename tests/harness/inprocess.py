"""Runs a trainer phase in this process as its own process would run: environment in; exit code, result, and log out.

One pytest process so imports torch once for all phases. What a phase does to its process (environment, signal handlers,
logging) is put back.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runs import phase_environment
from selfevo_contract.artifacts import Manifest
from selfevo_contract.plan import Plan, Step, plan
from selfevo_contract.process import CONFIG_ENV, TERMINATION_LOG_ENV, PhaseConfig, PhaseResult, Progress, phase_config
from selfevo_contract.rows import METRICS, RowFile
from selfevo_contract.run import SelfEvolutionRun
from selfevo_store import ObjectStore, fetch_rows, open_store, read_file, read_manifest


@dataclass(frozen=True)
class Ended:
    """How a phase ended."""

    code: int
    result: PhaseResult
    """What it left in the termination file."""
    log: str
    """Its standard error."""
    progress: list[Progress] = field(default_factory=list)


def run_main(environment: Mapping[str, str]) -> Ended:
    """``python -m selfevo_trainer`` with ``environment`` over this process's own."""
    from selfevo_trainer.main import main

    out, err = io.StringIO(), io.StringIO()
    termination = Path(environment[TERMINATION_LOG_ENV])
    termination.unlink(missing_ok=True)
    with process_state(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        os.environ |= dict(environment)
        code = main()
    reports = [Progress.model_validate_json(line) for line in out.getvalue().splitlines()]
    return Ended(code, PhaseResult.model_validate_json(termination.read_bytes()), err.getvalue(), reports)


@contextlib.contextmanager
def process_state() -> Iterator[None]:
    environment = dict(os.environ)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    root = logging.getLogger()
    logging_before, root.handlers, level = root.handlers, [], root.level  # so that main() sets up logging as it does
    try:
        yield
    finally:
        root.handlers, root.level = logging_before, level
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.environ.clear()
        os.environ |= environment


def sigterm() -> None:
    """To this process, as a kubelet sends it."""
    os.kill(os.getpid(), signal.SIGTERM)


def crash() -> None:
    """As of a machine."""
    raise OSError("the node lost its memory")


class Phases:
    """The steps of one run, in this process, against the run's store."""

    def __init__(self, run: SelfEvolutionRun, folder: Path) -> None:
        self.run = run
        self.plan: Plan = plan(run.spec)
        self.folder = folder
        (folder / "work").mkdir(parents=True, exist_ok=True)

    def step(self, name: str) -> Step:
        return self.plan.by_name[name]

    def config(self, name: str) -> PhaseConfig:
        metadata = self.run.metadata
        return phase_config(self.run.spec, metadata.name, metadata.namespace, self.step(name), attempt="test")

    def environment(self, name: str, shard: int = 0) -> dict[str, str]:
        config = self.config(name).model_dump_json(by_alias=True, exclude_none=True)
        return phase_environment(config, self.folder, shard)

    def __call__(self, name: str, shard: int = 0, environment: Mapping[str, str] | None = None) -> Ended:
        """Run the step. The value of CONFIG_ENV and all else can be replaced by ``environment``."""
        return run_main({**self.environment(name, shard), **(environment or {})})

    @property
    def store(self) -> ObjectStore:
        storage = self.run.spec.storage
        return open_store(storage.uri, endpoint=storage.endpoint, region=storage.region)

    def prefix(self, name: str) -> str:
        return self.config(name).prefix

    def manifest(self, name: str) -> Manifest | None:
        return read_manifest(self.store, self.prefix(name))

    def committed(self, name: str) -> Manifest:
        manifest = self.manifest(name)
        assert manifest is not None, f"{name} is not committed"
        return manifest

    def read(self, name: str, file: str) -> bytes:
        """A committed file of the step."""
        return read_file(self.store, self.prefix(name), self.committed(name), file)

    def rows(self, name: str, file: RowFile[Any]) -> list[dict[str, Any]]:
        """The rows of a committed file of the step, as JSON has them."""
        rows = fetch_rows(self.store, self.prefix(name), self.committed(name), file)
        return [json.loads(json.dumps(row.wire(), default=lambda inner: inner.wire())) for row in rows]

    def digests(self, name: str) -> dict[str, str]:
        """Of every committed file of the step that holds no seconds."""
        return {file.name: file.sha256 for file in self.committed(name).files if file.name != METRICS.name}

    def outcome(self, name: str) -> dict[str, Any]:
        """The same of a training, and its metrics.jsonl by all figures but seconds."""
        lines = map(json.loads, self.read(name, METRICS.name).splitlines())
        rows = [{figure: value for figure, value in line.items() if "time" not in figure} for line in lines]
        return {**self.digests(name), "rows": rows}

    def checkpoints(self, name: str) -> list[int]:
        """Optimizer updates with a committed checkpoint."""
        found = (re.fullmatch(r"checkpoints/(\d+)/MANIFEST.json", key) for key in self.objects(name, "checkpoints"))
        return sorted(int(match[1]) for match in found if match)

    def objects(self, name: str, below: str = "") -> list[str]:
        """Keys of the store below the step's prefix, relative to it."""
        prefix = self.prefix(name)
        found = self.store.list(f"{prefix}/{below}" if below else prefix)
        return [info.key.removeprefix(f"{prefix}/") for info in found]


__all__ = ["CONFIG_ENV", "Ended", "Phases", "run_main"]
