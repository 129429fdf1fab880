"""What checkpoints beside the training spare it.

    python benchmarks/checkpoints.py --rounds 3 --steps 6 --delay 0.5

The store is slow: each file of a checkpoint takes ``--delay`` seconds. The Solver is trained with every upload waited
for and with none, side by side. What SIGTERM loses is measured by `sigterm.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine import provenance
from runs import arithmetic, forked, load_heavy_modules, phase_environment
from selfevo_contract.artifacts import ManifestDraft, step_prefix
from selfevo_contract.plan import Step, plan
from selfevo_contract.process import phase_config
from selfevo_contract.rows import CURRICULUM, CurriculumRow
from selfevo_contract.run import SelfEvolutionRun
from selfevo_store import commit, open_store

GRPO = {
    "maxSteps": 6,
    "promptsPerStep": 8,
    "promptsPerUpdate": 4,
    "numGenerations": 4,
    "perDeviceTrainBatchSize": 8,
}


class Training:
    """One solver-train on a curriculum that is given to it."""

    def __init__(self, folder: Path, every: int | str, steps: int) -> None:
        folder.mkdir(parents=True)
        over = {
            "iterations": 1,
            "challenger": {"grpo": {"maxSteps": 0}},
            "solver": {"grpo": {**GRPO, "maxSteps": steps}, "checkpointEvery": every},
            "evaluation": None,
        }
        self.run: SelfEvolutionRun = arithmetic(over, store=folder / "store")
        self.folder, self.store = folder, open_store(self.run.spec.storage.uri)
        steps_of = {step.name: step for step in plan(self.run.spec).steps}
        self.step = steps_of["solver-train-1"]
        rollout = steps_of["solver-rollout-1"]
        rows = [CurriculumRow(question=f"What is {i} + 7?", answer=str(i + 7), share=0.5) for i in range(16)]
        files = CURRICULUM.write(folder, rows)
        draft = ManifestDraft(key=rollout.key, phase=rollout.phase, iteration=1)
        commit(self.store, self._prefix(rollout), files, draft)

    def _prefix(self, step: Step) -> str:
        return step_prefix(self.run.metadata.namespace, step.phase, step.key)

    def environment(self) -> dict[str, str]:
        metadata = self.run.metadata
        config = phase_config(self.run.spec, metadata.name, metadata.namespace, self.step)
        return phase_environment(config.model_dump_json(by_alias=True, exclude_none=True), self.folder)

    def log(self) -> str:
        """The end of the newest process's log."""
        return (self.folder / "log.txt").read_text()[-3000:]

    def result(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "result.json").read_text()))


def trainer(environment: dict[str, str], delay: float, *, waiting: bool = False) -> Callable[[], int]:
    """What a forked process does: be the trainer, with a slow store."""

    def be() -> int:
        from selfevo_store.file import FileStore
        from selfevo_trainer.grpo.uploads import Uploads
        from selfevo_trainer.main import main

        os.environ |= environment
        upload, start = FileStore.upload_file, Uploads.start

        def slowly(self: FileStore, path: Path, key: str) -> Any:
            if "/checkpoints/" in key:
                time.sleep(delay)
            return upload(self, path, key)

        def at_once(self: Uploads, work: Callable[[], None]) -> None:
            start(self, work)
            self.wait()

        patched: Any = FileStore
        patched.upload_file = slowly
        if waiting:
            patched = Uploads
            patched.start = at_once
        code = main()
        sys.stdout.flush()
        return code

    return be


def gain(rounds: int, steps: int, delay: float, folder: Path) -> dict[str, Any]:
    """Seconds of training and of waiting for checkpoints, with one after each step."""
    seconds: dict[str, list[float]] = {"waited for": [], "beside": []}
    for number in range(rounds):
        names = list(seconds) if number % 2 else list(reversed(seconds))
        for name in names:
            training = Training(folder / f"{number}-{name.replace(' ', '-')}", 1, steps)
            ended = forked(
                trainer(training.environment(), delay, waiting=name == "waited for"), training.folder / "log.txt"
            )
            assert ended.code == 0, training.log()
            timings = training.result()["timings"]
            parts = ("training", "generation", "reward", "checkpoint")
            seconds[name].append(sum(timings.get(part, 0.0) for part in parts))
    medians = {name: round(statistics.median(values), 2) for name, values in seconds.items()}
    return {
        "steps": steps,
        "seconds": {name: [round(value, 2) for value in values] for name, values in seconds.items()},
        "median_seconds": medians,
        "ratio": round(medians["waited for"] / medians["beside"], 2),
    }


def main() -> int:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--delay", type=float, default=0.5, help="seconds that a file of a checkpoint takes")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "checkpoints.json")
    arguments = parser.parse_args()
    load_heavy_modules()
    result: dict[str, Any] = {**provenance(), "delay_seconds_per_file": arguments.delay}
    with tempfile.TemporaryDirectory(prefix="selfevo-checkpoints-") as folder:
        result["gain"] = gain(arguments.rounds, arguments.steps, arguments.delay, Path(folder) / "gain")
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
