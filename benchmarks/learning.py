"""Does it learn, and from what? The demo's run beside its controls, over seeds.

    python benchmarks/learning.py --seeds 5

Arms, alike in everything but one setting of the manifest:
    main        majority labels, trained Challenger
    random      the same labels dealt out at random: what training does without any signal
    truth       true labels: the ceiling that better labels could reach
    untrained   the Challenger is never trained: what its training is worth
    lora        both roles are adapters of rank 8 on the base, at ten times the learning rate
    on-policy   one update a Solver step instead of two: what the off-policy updates of the others are worth

Steps with equal inputs are shared (all but `untrained` start with the same Challenger training), as in any store.
Every phase is a process of its own, forked from one that has torch loaded already.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine import provenance
from runs import example, forked_phase, load_heavy_modules, merged
from selfevo_contract.artifacts import step_prefix
from selfevo_contract.errors import DataError, ExitCode
from selfevo_contract.plan import Step, plan
from selfevo_contract.run import SelfEvolutionRun
from selfevo_store import open_store, read_manifest

ARMS: dict[str, dict[str, Any]] = {
    "main": {},
    "random": {"rollout": {"labels": "random"}},
    "truth": {"rollout": {"labels": "truth"}},
    "untrained": {"challenger": {"grpo": {"maxSteps": 0}}},
    "lora": {
        "challenger": {"grpo": {"lora": {"rank": 8, "alpha": 16.0}, "learningRate": 2e-3}},
        "solver": {"grpo": {"lora": {"rank": 8, "alpha": 16.0}, "learningRate": 1e-3}},
    },
    "on-policy": {"solver": {"grpo": {"promptsPerUpdate": 64}}},
}


def run_step(
    run: SelfEvolutionRun, step: Step, shard: int, folder: Path, prepare: Callable[[], None] = lambda: None
) -> None:
    """One phase in a forked process, in which ``prepare`` is called first.

    Raises:
        DataError: the run ends here for what its models wrote, as the trainer says.
        RuntimeError: it failed otherwise; its log says why.
    """
    log = folder / "log.txt"
    code = forked_phase(run, step, folder, shard, prepare=prepare).code
    if code == ExitCode.DATA:
        raise DataError(f"{step.name}: {log.read_text(errors='replace').strip().splitlines()[-1]}")
    if code != 0:
        raise RuntimeError(f"{step.name} ended with {code}; see {log}")


def run_arm(over: dict[str, Any], seed: int, folder: Path, stem: str = "arithmetic") -> dict[str, Any]:
    """One whole run of the example ``stem``; returns what its manifests say, by iteration.

    Of a run that ends for what its models wrote (exit code 4), what came before, and ``ended`` with its sentence.
    """
    run = example(stem, merged(over, {"seed": seed}), store=folder / "store")
    the_plan = plan(run.spec)
    store = open_store(run.spec.storage.uri)
    rows: dict[int, dict[str, float]] = {}
    ended: dict[str, Any] = {}
    for step in the_plan.steps:
        prefix = step_prefix(run.metadata.namespace, step.phase, step.key)
        manifest = read_manifest(store, prefix)
        if manifest is None:
            try:
                for shard in range(step.shards):
                    run_step(run, step, shard, folder)
            except DataError as error:
                ended = {"ended": str(error)}
                break
            manifest = read_manifest(store, prefix)
        assert manifest is not None
        row = rows.setdefault(step.iteration, {})
        for name, value in manifest.metrics.items():
            row[f"{step.phase}/{name}"] = round(value, 5)
    return {str(iteration): row for iteration, row in sorted(rows.items())} | ended


def series(arm: dict[str, Any], name: str) -> list[float]:
    """A metric over the iterations that have it."""
    rows = ((int(iteration), row) for iteration, row in arm.items() if iteration != "ended")
    return [row[name] for _, row in sorted(rows, key=lambda item: item[0]) if name in row]


def summarise(runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What the question hangs on: gains in points by arm and seed, and whether the controls behave.

    A run that ended early has no final gain: it is named in ``ended`` and left out of the rest.
    """
    early = {
        arm: {seed: run["ended"] for seed, run in by_seed.items() if "ended" in run} for arm, by_seed in runs.items()
    }
    runs = {arm: {seed: run for seed, run in by_seed.items() if "ended" not in run} for arm, by_seed in runs.items()}
    runs = {arm: by_seed for arm, by_seed in runs.items() if by_seed}
    gains = {
        arm: {
            seed: [round(100 * (value - series(run, "evaluate/mean")[0]), 2) for value in series(run, "evaluate/mean")]
            for seed, run in by_seed.items()
        }
        for arm, by_seed in runs.items()
    }
    found: dict[str, Any] = {"gain_points_mean_of_samples": gains}
    found["ended"] = {arm: by_seed for arm, by_seed in early.items() if by_seed}
    for arm, by_seed in gains.items():
        finals = [values[-1] for values in by_seed.values()]
        found[f"{arm}_final_gain_mean"] = round(statistics.fmean(finals), 2)
    if "main" in gains:
        found["main_at_least_5_after_iteration_1"] = sum(values[1] >= 5 for values in gains["main"].values())
        found["main_at_least_15_after_last"] = sum(values[-1] >= 15 for values in gains["main"].values())
        rewards = [
            (series(run, "challenger-train/uncertainty_first")[0], series(run, "challenger-train/uncertainty_last")[0])
            for run in runs["main"].values()
        ]
        found["challenger_uncertainty_first_last_iteration_1"] = rewards
        found["challenger_uncertainty_rose_iteration_1"] = sum(last > first for first, last in rewards)
    if "random" in gains:
        found["random_within_4_points"] = sum(max(map(abs, values)) <= 4 for values in gains["random"].values())
    found["label_accuracy"] = {
        arm: {seed: series(run, "solver-rollout/label_accuracy") for seed, run in by_seed.items()}
        for arm, by_seed in runs.items()
    }
    found["greedy"] = {
        arm: {seed: series(run, "evaluate/greedy") for seed, run in by_seed.items()} for arm, by_seed in runs.items()
    }
    if "untrained" in gains and "main" in gains:
        both = gains["main"].keys() & gains["untrained"].keys()
        found["trained_minus_untrained_final_points"] = {
            seed: round(gains["main"][seed][-1] - gains["untrained"][seed][-1], 2) for seed in sorted(both)
        }
    return found


def main() -> int:
    """Run what is asked for, writing the result after every run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--arms", nargs="+", choices=sorted(ARMS), default=list(ARMS))
    parser.add_argument("--folder", type=Path, default=Path("/tmp/selfevo-learning"), help="stores; kept")
    parser.add_argument("--set", default="{}", help="JSON laid over the manifest's spec, in every arm")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "learning.json")
    arguments = parser.parse_args()
    load_heavy_modules()
    over = json.loads(arguments.set)
    about = {**provenance(), "set": over, "arms": ARMS}
    runs: dict[str, dict[str, Any]] = {arm: {} for arm in arguments.arms}
    begun = time.time()
    for seed in range(arguments.seeds):
        for arm in arguments.arms:
            folder = arguments.folder / f"seed-{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            runs[arm][str(seed)] = run_arm(merged(over, ARMS[arm]), seed, folder)
            means = [round(100 * value, 1) for value in series(runs[arm][str(seed)], "evaluate/mean")]
            early = runs[arm][str(seed)].get("ended", "")
            print(f"{time.time() - begun:6.0f} s  seed {seed}  {arm:10} mean of samples {means} {early}", flush=True)
            result = {**about, "summary": summarise(runs), "runs": runs}
            arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(summarise(runs), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
