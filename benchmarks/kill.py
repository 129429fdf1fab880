"""Kill phases with SIGKILL at random moments of whole runs; every output must be bit-equal to the undisturbed one's.

    python benchmarks/kill.py --kills 100

One undisturbed run is the reference. Then whole runs are made with a process killed at a random moment of every step
(sometimes more than once; of a rollout, which commits chunk by chunk, ROLLOUT_KILLS times), started again and again
until it is done. Runs take turns with SHARDS for a rollout's number of shards, which is in no key. What is compared is
the sha256 of every file whose content is determined: weights, curriculum, questions, answers. The processes are forked
from a server that has torch loaded, so that kills fall on the phase's own work and not on imports.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from machine import provenance
from runs import HEAVY_MODULES, arithmetic, phase_environment
from selfevo_contract.artifacts import step_prefix
from selfevo_contract.plan import Plan, Step, plan
from selfevo_contract.process import phase_config
from selfevo_contract.run import SelfEvolutionRun
from selfevo_store import open_storage, read_manifest
from selfevo_trainer.main import main as trainer_main

SMALL: dict[str, Any] = {
    "iterations": 1,
    "challenger": {"grpo": {"maxSteps": 4, "promptsPerStep": 8, "perDeviceTrainBatchSize": 32}, "checkpointEvery": 1},
    "rollout": {"questions": 160, "samples": 6, "band": {"min": 0.1, "max": 0.95}, "chunkQuestions": 8},
    "solver": {
        "grpo": {"maxSteps": 5, "promptsPerStep": 16, "promptsPerUpdate": 16, "perDeviceTrainBatchSize": 64},
        "checkpointEvery": 2,
    },
    "evaluation": {"samples": 1},
}
SHARDS = (1, 4)
ROLLOUT_KILLS = 20
_FORKSERVER = get_context("forkserver")
_TIMED = "metrics.jsonl"
"""The one file of a step that holds seconds, so that it may differ."""


def preload() -> None:
    """Have the server that processes are forked from load torch and the phases; before the first of them."""
    _FORKSERVER.set_forkserver_preload([*HEAVY_MODULES, "kill"])


def run_phase(environment: dict[str, str], log: str) -> None:
    """In the new process: be the trainer, its output in ``log``."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ |= environment
    sys.exit(trainer_main())


@dataclass
class Outcome:
    """What a killed run did."""

    kills: Counter[str] = field(default_factory=Counter)
    resumed: int = 0
    """Attempts that went on from an intra-phase checkpoint."""
    different: list[str] = field(default_factory=list)


class Runner:
    """Runs the steps of one manifest as processes against one store."""

    def __init__(self, run: SelfEvolutionRun, workdir: Path) -> None:
        self.run = run
        self.plan: Plan = plan(run.spec)
        self.workdir = workdir
        workdir.mkdir(parents=True, exist_ok=True)
        self.result = workdir / "result.json"
        self.log = workdir / "log.txt"

    def start(self, step: Step, shard: int) -> BaseProcess:
        config = phase_config(self.run.spec, self.run.metadata.name, self.run.metadata.namespace, step)
        environment = phase_environment(config.model_dump_json(by_alias=True, exclude_none=True), self.workdir, shard)
        self.result.unlink(missing_ok=True)
        self.log.unlink(missing_ok=True)
        process = _FORKSERVER.Process(target=run_phase, args=(environment, str(self.log)))
        process.start()
        return process

    def finish(self, step: Step, shard: int) -> dict[str, Any]:
        """Run to the end; raises when it fails."""
        process = self.start(step, shard)
        process.join()
        if process.exitcode != 0:
            raise RuntimeError(f"{step.name} ended with {process.exitcode}: {self.log.read_text()[-2000:]}")
        return dict(json.loads(self.result.read_text()))

    def kill_at_random(self, step: Step, shard: int, rng: random.Random, seconds: float) -> bool:
        """Start it and kill it: anywhere in its life, or (mostly) anywhere after its first word of progress.

        Returns:
            whether it was still running.
        """
        process = self.start(step, shard)
        if rng.random() < 0.8:
            while process.is_alive() and not (self.log.exists() and b'"progress"' in self.log.read_bytes()):
                time.sleep(0.01)
        process.join(rng.uniform(0, seconds))
        alive = process.is_alive()
        process.kill()
        process.join()
        return alive

    def digests(self) -> dict[str, str]:
        """sha256 of every determined file, by step and name."""
        store = open_storage(self.run.spec.storage)
        found: dict[str, str] = {}
        for step in self.plan.steps:
            manifest = read_manifest(store, step_prefix(self.run.metadata.namespace, step.phase, step.key))
            assert manifest is not None, f"{step.name} is not committed"
            found |= {f"{step.name}/{file.name}": file.sha256 for file in manifest.files if file.name != _TIMED}
        return found


def reference(folder: Path) -> tuple[dict[str, str], dict[str, float]]:
    """The undisturbed run: digests, and seconds of each step."""
    runner = Runner(arithmetic(SMALL, store=folder / "store"), folder)
    seconds = {}
    for step in runner.plan.steps:
        begun = time.time()
        for shard in range(step.shards):
            runner.finish(step, shard)
        seconds[step.name] = (time.time() - begun) / step.shards
    return runner.digests(), seconds


def disturbed(
    folder: Path, shards: int, expected: dict[str, str], seconds: dict[str, float], kills: int, rng: random.Random
) -> Outcome:
    """One whole run with at most ``kills`` kills, its rollout in so many ``shards``."""
    over = {**SMALL, "rollout": {**SMALL["rollout"], "shards": shards}}
    runner, outcome = Runner(arithmetic(over, store=folder / "store"), folder), Outcome()
    for step in runner.plan.steps:
        for shard in range(step.shards):
            tries, longest = rng.choice((1, 1, 2, 3)), seconds[step.name]
            if step.phase == "solver-rollout":  # each attempt goes on where the one before was killed
                tries = ROLLOUT_KILLS // step.shards
                longest /= ROLLOUT_KILLS
            while tries and outcome.kills.total() < kills:
                tries -= 1
                if runner.kill_at_random(step, shard, rng, longest):
                    outcome.kills[step.phase] += 1
            outcome.resumed += runner.finish(step, shard).get("resumedFrom") is not None
    found = runner.digests()
    outcome.different = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    return outcome


def measure(kills: int, seed: int, folder: Path, say: Any = print) -> dict[str, Any]:
    """Whole runs until ``kills`` processes were killed."""
    rng = random.Random(seed)
    preload()
    expected, seconds = reference(folder / "reference")
    total, runs, resumed, different = Counter[str](), 0, 0, []
    while total.total() < kills:
        shards = SHARDS[runs % len(SHARDS)]
        outcome = disturbed(folder / f"run-{runs}", shards, expected, seconds, kills - total.total(), rng)
        runs, resumed, total = runs + 1, resumed + outcome.resumed, total + outcome.kills
        different += [f"run {runs}: {name}" for name in outcome.different]
        say(f"{total.total()} of {kills} kills in {runs} runs, {resumed} resumed, {len(different)} files differ")
    return {
        "kills": total.total(),
        "kills_by_phase": dict(total),
        "runs": runs,
        "rollout_shards_in_turn": SHARDS,
        "attempts_resumed_from_a_checkpoint": resumed,
        "files_compared": len(expected) * runs,
        "files_different": different,
        "seed": seed,
    }


def main() -> int:
    """Returns 1 when any output differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "kill.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="selfevo-kill-") as folder:
        result = measure(arguments.kills, arguments.seed, Path(folder))
    arguments.out.write_text(json.dumps({**provenance(), **result}, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return 1 if result["files_different"] else 0


if __name__ == "__main__":
    sys.exit(main())
