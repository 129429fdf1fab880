"""Is a model that evolved by itself a better start for training on labelled data? The best Solver beside the base.

    python benchmarks/finetune.py --seeds 5

For each seed, examples/arithmetic.yaml is run; then the best Solver and the base are trained on the same labelled
questions, supervised and for as many updates, and both are scored on the same 500 held-out questions. The labelled
data is worked by columns, as make_base.py's pre-training text is; no held-out question is in it. Learning rate and
updates were chosen on the base alone (1e-4: 75.3 %, 3e-4: 86.2 %, 1e-3: 83.1 % with 300 questions and 30 updates).
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from learning import run_step
from machine import provenance
from runs import EXAMPLES, arithmetic, load_heavy_modules
from selfevo_contract.artifacts import step_prefix
from selfevo_contract.digests import file_digest
from selfevo_contract.plan import plan
from selfevo_core.summary import highest
from selfevo_store import open_store, read_manifest

SETTINGS = {"maxSteps": 30, "batch": 32, "perDeviceTrainBatchSize": 32, "learningRate": 3e-4}


def labelled(rows: int, seed: int, folder: Path) -> Path:
    """So many distinct questions with worked answers, none of them held out."""
    sys.path.insert(0, str(EXAMPLES / "arithmetic"))
    base = importlib.import_module("make_base")
    taken = {base.normalise(question.text) for question in base.make_heldout()}
    source = random.Random(1_000_003 + seed)
    found: list[str] = []
    while len(found) < rows:
        question = base.draw_question(source, source.choices(base.LEVELS, base.SOLVER_WEIGHTS)[0])
        if base.normalise(question.text) not in taken:
            taken.add(base.normalise(question.text))
            answer = f"{base.columns(question)}\\boxed{{{question.answer}}}"
            found.append(json.dumps({"question": question.text, "answer": answer}) + "\n")
    path = folder / f"labelled-{rows}.jsonl"
    path.write_text("".join(found))
    return path


def run_one(rows: int, seed: int, folder: Path, iterations: int) -> dict[str, Any]:
    """One run with its fine-tuning; what is in the store already is not done again."""
    data = labelled(rows, seed, folder)
    over = {
        "seed": seed,
        "iterations": iterations,
        "finetune": {"data": {"uri": f"file://{data}", "digest": file_digest(data)}, **SETTINGS},
    }
    run = arithmetic(over, store=folder / "store")
    store = open_store(run.spec.storage.uri)
    metrics: dict[str, dict[str, float]] = {}

    def do(best: int | None, closing: bool) -> None:
        for step in plan(run.spec, best=best).steps:
            if step.type.closes is not closing:
                continue
            prefix = step_prefix(run.metadata.namespace, step.phase, step.key)
            if read_manifest(store, prefix) is None:
                for shard in range(step.shards):
                    run_step(run, step, shard, folder)
            manifest = read_manifest(store, prefix)
            assert manifest is not None
            metrics[step.name] = manifest.metrics

    do(None, closing=False)
    scores = {number: metrics[f"evaluate-{number}"]["mean"] for number in range(iterations + 1)}
    best = highest(scores)
    assert best is not None
    do(best, closing=True)
    tuned, control = metrics[f"finetune-evaluate-{best}"], metrics["finetune-evaluate-0"]
    return {
        "best": best,
        "base": round(scores[0], 5),
        "best_before": round(scores[best], 5),
        "best_finetuned": round(tuned["mean"], 5),
        "base_finetuned": round(control["mean"], 5),
        "best_finetuned_greedy": round(tuned["greedy"], 5),
        "base_finetuned_greedy": round(control["greedy"], 5),
        "kept": metrics["finetune-0"]["kept"],
    }


def summarise(runs: dict[str, dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Points of the best Solver over the base after fine-tuning, by size of the data and seed."""
    found = {}
    for rows, by_seed in runs.items():
        if not by_seed:
            continue
        points = [100 * (run["best_finetuned"] - run["base_finetuned"]) for run in by_seed.values()]
        error = statistics.stdev(points) / len(points) ** 0.5 if len(points) > 1 else None
        found[rows] = {
            "points_by_seed": [round(each, 2) for each in points],
            "points_mean": round(statistics.fmean(points), 2),
            "points_stderr_over_seeds": None if error is None else round(error, 2),
            "best_wins": sum(each > 0 for each in points),
            "means": {
                name: round(100 * statistics.fmean(run[name] for run in by_seed.values()), 2)
                for name in ("base", "best_before", "base_finetuned", "best_finetuned")
            },
        }
    return found


def main() -> int:
    """Run what is asked for, writing the result after every run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", type=int, nargs="+", default=[30, 300], help="sizes of the labelled data")
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/selfevo-finetune"), help="stores; kept")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "finetune.json")
    arguments = parser.parse_args()
    load_heavy_modules()
    importlib.import_module("selfevo_trainer.phases.finetune")
    importlib.import_module("selfevo_trainer.phases.finetune_evaluate")
    runs: dict[str, dict[str, dict[str, Any]]] = {str(rows): {} for rows in arguments.rows}
    about, begun = {**provenance(), "settings": SETTINGS}, time.time()
    for seed in range(arguments.seeds):
        for rows in arguments.rows:
            folder = arguments.folder / f"seed-{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            found = runs[str(rows)][str(seed)] = run_one(rows, seed, folder, arguments.iterations)
            print(f"{time.time() - begun:6.0f} s  seed {seed}  {rows} rows  {found}", flush=True)
            arguments.out.write_text(json.dumps({**about, "summary": summarise(runs), "runs": runs}, indent=1) + "\n")
    print(json.dumps(summarise(runs), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
