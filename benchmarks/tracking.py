"""What trackers cost a training when the server they send to takes every connection and never answers.

    python benchmarks/tracking.py

The same solver-train phase on the same curriculum, with no tracker and with three (W&B, MLflow, trackio) that such a
server on 127.0.0.1 hangs, turn by turn, each in a process forked from one that has torch loaded. Given are the wall
time until the phase has committed, that of the whole phase with the wait for the trackers at its end, and how many
connections the server held.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import provenance
from runs import arithmetic, forked_phase, load_heavy_modules
from selfevo_contract.artifacts import step_prefix
from selfevo_contract.plan import Step, plan
from selfevo_contract.run import SelfEvolutionRun
from selfevo_store import open_store, read_manifest
from silent_server import silent_server

KINDS = ("wandb", "mlflow", "trackio")
TOKENS = {"WANDB_API_KEY": "x" * 40, "TRACKIO_WRITE_TOKEN": "x"}


def run_of(steps: int, round_: int, store: Path, trackers: list[dict[str, str]]) -> SelfEvolutionRun:
    """The demo, one iteration, its Solver trained for ``steps``."""
    over: dict[str, Any] = {
        "iterations": 1,
        "seed": round_,
        "evaluation": None,
        "challenger": {"grpo": {"maxSteps": 0}},
        "rollout": {"questions": 400, "shards": 1, "band": {"min": 0.1, "max": 0.95}},
        "solver": {"grpo": {"maxSteps": steps}},
        **({"tracking": trackers} if trackers else {}),
    }
    return arithmetic(over, store=store)


def phase(run: SelfEvolutionRun, step: Step, folder: Path) -> dict[str, float]:
    """The phase as a Job runs it; wall seconds until it has committed, and of the whole."""
    ended = forked_phase(run, step, folder, environment=TOKENS)
    assert ended.code == 0, f"see {folder}/log.txt"
    manifest = read_manifest(
        open_store(run.spec.storage.uri), step_prefix(run.metadata.namespace, step.phase, step.key)
    )
    assert manifest is not None
    return {"committed_s": round(manifest.timings["total"], 2), "whole_s": round(ended.wall_s, 2)}


def compare(steps: int, round_: int, folder: Path, trackers: list[dict[str, str]]) -> dict[str, Any]:
    """One round: a rollout, then both trainings on what it made."""
    folder.mkdir(parents=True)
    first = run_of(steps, round_, folder / "store", [])
    rollout, training = plan(first.spec).steps
    phase(first, rollout, folder)
    shutil.copytree(folder / "store", folder / "tracked")
    ways = {
        "none": (first, training),
        "hanging": (run_of(steps, round_, folder / "tracked", trackers), training),
    }
    order = list(ways) if round_ % 2 else list(reversed(ways))
    return {name: phase(*ways[name], folder) for name in order}


def main() -> int:
    """Rounds; the median of their ratios is the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "tracking.json")
    arguments = parser.parse_args()
    load_heavy_modules()
    with tempfile.TemporaryDirectory(prefix="selfevo-tracking-") as folder, silent_server() as server:
        trackers = [{"kind": kind, "endpoint": server.address} for kind in KINDS]
        rounds = [
            compare(arguments.steps, round_, Path(folder) / str(round_), trackers) for round_ in range(arguments.rounds)
        ]
        connections = len(server.held)
    assert connections, "nobody asked the server"
    result = {
        **provenance(),
        "steps": arguments.steps,
        "trackers": KINDS,
        "connections": connections,
        **{
            f"{kind}_overhead_percent": round(
                statistics.median(
                    100 * (each["hanging"][f"{kind}_s"] / each["none"][f"{kind}_s"] - 1) for each in rounds
                ),
                2,
            )
            for kind in ("committed", "whole")
        },
        "waited_at_the_end_s": round(
            statistics.median(
                (each["hanging"]["whole_s"] - each["hanging"]["committed_s"])
                - (each["none"]["whole_s"] - each["none"]["committed_s"])
                for each in rounds
            ),
            2,
        ),
        "rounds": rounds,
    }
    print({key: value for key, value in result.items() if key != "rounds"})
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
