"""Checkpoints beside the training: what they spare it, and SIGTERM at random moments.

    python benchmarks/checkpoints.py --rounds 3 --moments 200

The store is slow: each file of a checkpoint takes ``--delay`` seconds. First the Solver is trained with every upload
waited for and with none, side by side. Then it is trained anew for each moment: SIGTERM comes at a random time after
its first word of progress, and again after each restart with some chance. The process must have ended within the grace,
what was committed must still be there or be outdone, and the end must be bit-equal to the undisturbed training's.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine import machine
from runs import arithmetic, begun, forked, load_heavy_modules, phase_environment
from selfevo_contract.artifacts import ManifestDraft, step_prefix
from selfevo_contract.plan import Step, plan
from selfevo_contract.process import GRACE_SECONDS_ENV, phase_config
from selfevo_contract.rows import CURRICULUM, CurriculumRow
from selfevo_contract.run import SelfEvolutionRun
from selfevo_store import commit, open_store, read_manifest

GRPO = {
    "maxSteps": 6,
    "promptsPerStep": 8,
    "promptsPerUpdate": 4,
    "numGenerations": 4,
    "perDeviceTrainBatchSize": 8,
}
_TIMED = "metrics.jsonl"


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

    def environment(self, grace: float | None = None) -> dict[str, str]:
        metadata = self.run.metadata
        config = phase_config(self.run.spec, metadata.name, metadata.namespace, self.step)
        environment = phase_environment(config.model_dump_json(by_alias=True, exclude_none=True), self.folder)
        return environment if grace is None else {**environment, GRACE_SECONDS_ENV: f"{grace:.0f}"}

    def committed(self) -> list[int]:
        """Updates with a committed checkpoint."""
        keys = [info.key for info in self.store.list(f"{self._prefix(self.step)}/checkpoints")]
        found = (re.search(r"/checkpoints/(\d{8})/MANIFEST.json$", key) for key in keys)
        return sorted(int(match[1]) for match in found if match)

    def log(self) -> str:
        """The end of the newest process's log."""
        return (self.folder / "log.txt").read_text()[-3000:]

    def result(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "result.json").read_text()))

    def digests(self) -> dict[str, str]:
        manifest = read_manifest(self.store, self._prefix(self.step))
        assert manifest is not None, self.log()
        return {file.name: file.sha256 for file in manifest.files if file.name != _TIMED}


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

        def at_once(self: Uploads, work: Callable[[], int]) -> None:
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


def stopped_at_random(training: Training, rng: random.Random, delay: float, grace: float, over: float) -> float | None:
    """Seconds from SIGTERM to the end; None where it had ended before."""
    environment, log = training.environment(grace), training.folder / "log.txt"
    log.unlink(missing_ok=True)
    pid = begun(trainer(environment, delay), log)
    while b'"progress"' not in (log.read_bytes() if log.exists() else b""):
        if os.waitpid(pid, os.WNOHANG)[0]:
            return None
        time.sleep(0.01)
    until = time.monotonic() + rng.uniform(0, over)
    while time.monotonic() < until:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return None
        time.sleep(0.005)
    before = training.committed()
    since = time.monotonic()
    os.kill(pid, 15)
    _, status = os.waitpid(pid, 0)
    spent = time.monotonic() - since
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 143), training.log()
    after = training.committed()
    lost = before and max(after, default=0) < max(before)
    assert code == 0 or not lost, f"the checkpoint of update {max(before)} is gone: {after}"
    return spent


def moments(count: int, seed: int, delay: float, grace: float, folder: Path) -> dict[str, Any]:
    """SIGTERM until it came so often."""
    rng = random.Random(seed)
    reference = Training(folder / "reference", 1, 6)
    begun = time.monotonic()
    assert forked(trainer(reference.environment(), delay), reference.folder / "log.txt").code == 0, reference.log()
    whole, expected = time.monotonic() - begun, reference.digests()
    spent: list[float] = []
    trainings = different = resumed = 0
    while len(spent) < count:
        training = Training(folder / str(trainings), rng.choice((1, 2, "1ms", "10m")), 6)
        trainings += 1
        for _ in range(rng.choice((1, 2, 4, 8))):
            took = stopped_at_random(training, rng, delay, grace, whole)
            if took is None:
                break
            spent.append(took)
        assert forked(trainer(training.environment(), delay), training.folder / "log.txt").code == 0, training.log()
        resumed += training.result().get("resumedFrom") is not None
        different += training.digests() != expected
        print(f"{len(spent)} of {count} moments, longest {max(spent, default=0):.1f} s, {different} differ", flush=True)
    return {
        "moments": len(spent),
        "trainings": trainings,
        "went_on_from_a_checkpoint": resumed,
        "trainings_with_different_files": different,
        "grace_seconds": grace,
        "seconds_to_the_end": {"median": round(statistics.median(spent), 2), "longest": round(max(spent), 2)},
        "beyond_the_grace": sum(each > grace for each in spent),
        "seed": seed,
    }


def main() -> int:
    """Returns 1 when an end came too late, or any output differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--moments", type=int, default=200)
    parser.add_argument("--delay", type=float, default=0.5, help="seconds that a file of a checkpoint takes")
    parser.add_argument("--grace", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "checkpoints.json")
    arguments = parser.parse_args()
    load_heavy_modules()
    result: dict[str, Any] = {"machine": machine(), "delay_seconds_per_file": arguments.delay}
    with tempfile.TemporaryDirectory(prefix="selfevo-checkpoints-") as folder:
        if arguments.rounds:
            result["gain"] = gain(arguments.rounds, arguments.steps, arguments.delay, Path(folder) / "gain")
        if arguments.moments:
            result["sigterm"] = moments(
                arguments.moments, arguments.seed, arguments.delay, arguments.grace, Path(folder) / "sigterm"
            )
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    stops = result.get("sigterm", {})
    return 1 if stops.get("beyond_the_grace") or stops.get("trainings_with_different_files") else 0


if __name__ == "__main__":
    sys.exit(main())
