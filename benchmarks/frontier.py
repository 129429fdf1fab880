"""What keeps a loop going beyond what its Solver was taught? examples/frontier.yaml beside its controls, over seeds.

    python benchmarks/frontier.py --seeds 0 1 2 3 4

Arms, alike in everything but the settings named in `ARMS`:
    main         an answer with another number of letters than its question has no vote; a label is the majority of 8
                 answers where that of the Solver before is the same (committee); a band; replay
    own-vote     a label is the majority of the Solver's own 8 answers
    no-rule      every answer in a box has a vote
    one-sample   the rule, but a label is the first well-formed answer, not a vote, and no band filters
    no-filter    a committee's labels of all questions, easy and hard
    hard-only    the harder half of the band
    no-replay    no questions of earlier curricula
    confidence   the questions of own-vote, and no label: an answer is paid for agreeing with its group
    untrained    the Challenger is never trained
    uniform      nor is there a band: whatever the base's Challenger writes
    truth        true labels: the ceiling that better labels could reach
    random       the majority's labels dealt out at random

Of each arm: labels right, by the oracle; and held-out lines of 7 to 18 letters, each length by itself. The frontier is
the last length of an unbroken run from 7 on of which at least half of the sampled answers are right.

Steps with equal inputs are shared by the arms of a seed, as in any store. CPU seconds are those of the steps that an
arm did not find done.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from learning import run_arm, series
from machine import provenance
from runs import arms_parser, earlier, example, load_heavy_modules, merged
from selfevo_contract.artifacts import step_prefix
from selfevo_contract.phases import EVALUATE
from selfevo_contract.plan import plan
from selfevo_contract.rows import answers_of
from selfevo_store import fetch_rows, open_store, read_manifest

OWN = {"labels": "majority"}
ALL = {"band": {"min": 0.0, "max": 1.0}}
ARMS: dict[str, dict[str, Any]] = {
    "main": {},
    "own-vote": {"rollout": OWN},
    "no-rule": {"rollout": {"wellFormed": None}},
    "one-sample": {"rollout": {**OWN, **ALL, "samples": 2}},
    "no-filter": {"rollout": ALL},
    "hard-only": {"rollout": {"band": {"min": 0.25, "max": 0.5}}},
    "no-replay": {"rollout": {"replay": None}},
    "confidence": {"rollout": OWN, "solver": {"reward": {"mode": "confidence"}}},
    "untrained": {"challenger": {"grpo": {"maxSteps": 0}}},
    "uniform": {"rollout": ALL, "challenger": {"grpo": {"maxSteps": 0}}},
    "truth": {"rollout": {"labels": "truth"}},
    "random": {"rollout": {"labels": "random"}},
}
"""`one-sample` asks for two answers, the fewest that there are: of two that differ the first one is the majority, and
the band lets all in."""
HALF = 0.5
TASK = "sorting"


def by_length(over: dict[str, Any], seed: int, folder: Path) -> dict[str, dict[str, float]]:
    """Iteration -> letters -> share of sampled answers that are right, as far as the run came."""
    run = example("frontier", merged(over, {"seed": seed}), store=folder / "store")
    store = open_store(run.spec.storage.uri)
    samples = run.spec.evaluation.samples if run.spec.evaluation else 0
    found: dict[str, dict[str, float]] = {}
    for step in plan(run.spec).steps:
        prefix = step_prefix(run.metadata.namespace, step.phase, step.key)
        manifest = read_manifest(store, prefix) if step.phase == EVALUATE.name else None
        if manifest is None:
            continue
        rows = fetch_rows(store, prefix, manifest, answers_of(TASK))
        right: dict[int, list[float]] = {}
        for row in rows:
            right.setdefault(len(row.question.split()), []).append(row.samples_right / samples)
        found[str(step.iteration)] = {str(n): round(sum(each) / len(each), 4) for n, each in sorted(right.items())}
    return found


def frontier(shares: dict[str, float], level: float = HALF) -> int:
    """The last length of an unbroken run from the shortest on whose share is at least ``level``; one less than the
    shortest when that is below.

    >>> frontier({"7": 0.9, "8": 0.5, "9": 0.4, "10": 0.6})
    8
    """
    lengths = sorted(map(int, shares))
    last = lengths[0] - 1
    for letters in lengths:
        if shares[str(letters)] < level:
            break
        last = letters
    return last


def summarise(runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """By arm and seed, over the iterations."""
    found: dict[str, Any] = {}
    for arm, by_seed in runs.items():
        found[arm] = {
            seed: {
                "mean": series(run["metrics"], "evaluate/mean"),
                "frontier": [frontier(shares) for _, shares in sorted(run["by_length"].items(), key=_number)],
                "label_accuracy": series(run["metrics"], "solver-rollout/label_accuracy"),
                "kept": series(run["metrics"], "solver-rollout/kept"),
                "ended": run["metrics"].get("ended"),
                "cpu_s": run["cpu_s"],
            }
            for seed, run in by_seed.items()
        }
    return found


def _number(item: tuple[str, Any]) -> int:
    return int(item[0])


def main() -> int:
    """Run what is asked for, writing the result after every run; other runs of the same settings stay in it."""
    arguments = arms_parser(__doc__, "frontier", list(ARMS), 10).parse_args()
    load_heavy_modules()
    over = merged(json.loads(arguments.set), {"iterations": arguments.iterations})
    about = {**provenance(), "set": over, "arms": ARMS}
    runs, begun = earlier(arguments.out, about), time.time()
    for seed in arguments.seeds:
        folder = arguments.folder / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        for arm in arguments.arms:
            settings, before = merged(over, ARMS[arm]), os.times()
            metrics = run_arm(settings, seed, folder, "frontier")
            after = os.times()
            spent = after.children_user + after.children_system - before.children_user - before.children_system
            found = {"metrics": metrics, "by_length": by_length(settings, seed, folder), "cpu_s": round(spent, 1)}
            found["command"] = about["command"]
            runs.setdefault(arm, {})[str(seed)] = found
            shown = summarise({arm: {str(seed): found}})[arm][str(seed)]
            print(f"{time.time() - begun:6.0f} s  seed {seed}  {arm:10} {shown}", flush=True)
            result = {**about, "summary": summarise(runs), "runs": runs}
            arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
