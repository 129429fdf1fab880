"""GRPO and supervised steps on the same labels: the first iteration of examples/frontier.yaml, over seeds.

    python benchmarks/supervised.py --seeds 0 1 2

Of each arm the first curriculum, with its labels, is trained on twice, from the base: by solver-train as the example
has it, and supervised (the control of `spec.finetune`, on the same questions and labels) for so many updates of 32
questions at so high a learning rate. All are scored on the same held-out lines. With the folder of frontier.py, whose
first iterations are the same steps, these are found there.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from frontier import ARMS
from learning import run_step
from machine import provenance
from runs import example, load_heavy_modules, merged
from selfevo_contract.artifacts import Manifest, step_prefix
from selfevo_contract.digests import file_digest
from selfevo_contract.phases import SOLVER_ROLLOUT
from selfevo_contract.plan import plan
from selfevo_contract.rows import CURRICULUM
from selfevo_contract.run import SelfEvolutionRun
from selfevo_store import fetch_rows, open_store, read_manifest

UPDATES, RATES = (10, 30), (3e-4, 1e-3, 3e-3)
BATCH = {"batch": 32, "perDeviceTrainBatchSize": 32, "checkpointEvery": 1000}


def do(run: SelfEvolutionRun, names: list[str], folder: Path) -> dict[str, tuple[str, Manifest]]:
    """Steps of the run, each done unless the store has it: its place there and its manifest, by name."""
    store, found = open_store(run.spec.storage.uri), {}
    for step in plan(run.spec).steps:
        if step.name in names:
            prefix = step_prefix(run.metadata.namespace, step.phase, step.key)
            for shard in range(step.shards) if read_manifest(store, prefix) is None else ():
                run_step(run, step, shard, folder)
            manifest = read_manifest(store, prefix)
            assert manifest is not None
            found[step.name] = (prefix, manifest)
    return found


def run_one(arm: str, seed: int, folder: Path) -> dict[str, float]:
    """Scores by way: the base, GRPO, and the supervised ones; with the labels' number and how many are right."""
    over = merged({"seed": seed, "iterations": 1}, ARMS[arm])
    run = example("frontier", over, store=folder / "store")
    names = ["evaluate-0", "challenger-train-1", "solver-rollout-1", "solver-train-1", "evaluate-1"]
    done = do(run, names, folder)
    prefix, rollout = done[f"{SOLVER_ROLLOUT.name}-1"]
    rows = fetch_rows(open_store(run.spec.storage.uri), prefix, rollout, CURRICULUM)
    data = folder / f"labels-{arm}.jsonl"
    data.write_text("".join(json.dumps({"question": row.question, "answer": row.answer}) + "\n" for row in rows))
    found = {
        "labels": rollout.metrics["kept"],
        "labels_right": rollout.metrics["label_accuracy"],
        "base": done["evaluate-0"][1].metrics["mean"],
        "grpo": done["evaluate-1"][1].metrics["mean"],
    }
    for updates, rate in itertools.product(UPDATES, RATES):
        labelled = {"uri": f"file://{data}", "digest": file_digest(data)}
        settings = {"kind": "sft", "data": labelled, "maxSteps": updates, "learningRate": rate, **BATCH}
        tuned = example("frontier", merged(over, {"finetune": settings}), store=folder / "store")
        scored = do(tuned, ["finetune-0", "finetune-evaluate-0"], folder)["finetune-evaluate-0"][1]
        found[f"sft {updates} x {rate:g}"] = scored.metrics["mean"]
    return {name: round(value, 4) for name, value in found.items()}


def main() -> int:
    """Run what is asked for, writing the result after every run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=sorted(ARMS), default=["main", "own-vote", "no-rule", "truth"])
    parser.add_argument("--folder", type=Path, default=Path("/tmp/selfevo-frontier"), help="stores; kept")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "supervised.json")
    arguments = parser.parse_args()
    load_heavy_modules()
    for phase in ("finetune", "finetune_evaluate"):
        importlib.import_module(f"selfevo_trainer.phases.{phase}")
    runs: dict[str, dict[str, Any]] = {}
    about, begun = provenance(), time.time()
    for seed, arm in itertools.product(arguments.seeds, arguments.arms):
        folder = arguments.folder / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        found = runs.setdefault(arm, {})[str(seed)] = run_one(arm, seed, folder)
        print(f"{time.time() - begun:6.0f} s  seed {seed}  {arm}  {found}", flush=True)
        means = {
            name: {way: round(statistics.fmean(row[way] for row in by_seed.values()), 4) for way in found}
            for name, by_seed in runs.items()
        }
        result = {**about, "means": means, "runs": runs}
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
