"""The simulation of the operator over many seeds: `python benchmarks/simulate.py --seeds 10000`.

Each seed is one life of runs in a simulated cluster, through faults and to its end (tests/operator/simulation): of five
in a row, two of plain runs, one with guards that stop, roll back or promote, one of a run and its fork, with a judge or
without, one that is fine-tuned or published; people review, and set and raise budgets in all of them. What is reported
is how many seeds broke a law or ended otherwise than without faults, and how much happened in them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1] / "tests" / "operator"), str(Path(__file__).parents[1] / "tests")]

LIVES = 5_000_000


def seed_of(number: int) -> int:
    """The seed of a life: its kind goes round."""
    from simulation.shapes import FINETUNE_SEEDS, FORK_SEEDS, GUARD_SEEDS

    own = {2: GUARD_SEEDS, 3: FORK_SEEDS, 4: FINETUNE_SEEDS}.get(number % 5)
    return number if own is None else own[number // 5]


def one(number: int) -> dict[str, Any]:
    from simulation.world import simulate

    seed = seed_of(number)
    try:
        report = simulate(seed)
    except AssertionError as error:
        return {"seed": seed, "broken": str(error).splitlines()[0][:300]}
    return {
        "seed": seed,
        "shape": report.shape,
        "looks": report.reconciles,
        "to_the_end": report.reconciles_to_the_end,
        "crashes": report.crashes,
        "writes": sum(report.writes.values()),
        "jobs": report.jobs,
    }


def main() -> None:
    from machine import provenance

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--from", type=int, default=0, dest="first")
    parser.add_argument("--processes", type=int, default=None, help="as many as there are cores by default")
    parser.add_argument("--minutes", type=float, default=1e9, help="end after so many, with those that are done")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "simulate.json")
    options = parser.parse_args()
    if not 0 <= options.first <= LIVES - options.seeds:
        parser.error(f"--from {options.first} --seeds {options.seeds} goes beyond the {LIVES:,} lives; lower --from")
    begun, found = time.monotonic(), []
    with multiprocessing.Pool(options.processes) as pool:
        for outcome in pool.imap_unordered(one, range(options.first, options.first + options.seeds), chunksize=10):
            found.append(outcome)
            if "broken" in outcome:
                print(f"seed {outcome['seed']}: {outcome['broken']}", flush=True)
            if time.monotonic() - begun > 60 * options.minutes:
                break
    whole = [outcome for outcome in found if "broken" not in outcome]
    about = provenance()
    results = {
        **about,
        "seeds": [options.first, options.first + options.seeds],
        "done": len(found),
        "broken": sorted(outcome["seed"] for outcome in found if "broken" in outcome),
        "lives": dict(sorted(Counter(outcome["shape"] for outcome in whole).items())),
        "seconds": round(time.monotonic() - begun),
        **{name: sum(o[name] for o in whole) for name in ("looks", "crashes", "writes", "jobs")},
        "most_looks_to_the_end": max((o["to_the_end"] for o in whole), default=0),
    }
    print(json.dumps({name: value for name, value in results.items() if name not in about}))
    options.output.write_text(json.dumps(results, indent=1) + "\n")
    sys.exit(1 if results["broken"] else 0)


if __name__ == "__main__":
    main()
