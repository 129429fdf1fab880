"""Do the guards notice what goes wrong in real runs? Tiny ones, healthy and with faults put into their processes.

    python benchmarks/guard_runs.py --healthy 20 --faulty 2 --minutes 25

examples/arithmetic.yaml made smaller (`TINY`): three iterations. Of each seed the first is healthy; a faulty run goes
on from it with a fault in iterations 2 and 3, by other inputs or a patch in the phase's own process. The figures
of the manifests then go through the operator's reconcile, as in guards.py. Each run is a row, appended; a call goes on
where the last one ended. `--minutes 0` holds the runs of a result against the guards of today, and `--frontier FILE`
those of frontier.py: ten iterations, and in the arm no-rule a fault as it happens, labels that are wrong and believed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

from frontier import ARMS
from guard_watch import Watch
from guards import with_action
from learning import run_step
from machine import commit, provenance
from runs import example, load_heavy_modules, merged
from selfevo_contract.artifacts import step_prefix
from selfevo_contract.errors import DataError
from selfevo_contract.plan import plan
from selfevo_contract.process import PhaseConfig
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.spec.guards import Guards
from selfevo_store import open_store, read_manifest
from selfevo_trainer import main as trainer
from selfevo_trainer import solver_rewards
from selfevo_trainer.config import read_config
from selfevo_trainer.phases import solver_train
from selfevo_trainer.prompts import completion_text

TINY: dict[str, Any] = {
    "iterations": 3,
    "parallelSteps": 1,
    "challenger": {"grpo": {"maxSteps": 0}},
    "rollout": {"questions": 160, "samples": 6, "shards": 1, "band": {"min": 0.25, "max": 0.9}},
    "solver": {
        "grpo": {
            "maxSteps": 4,
            "promptsPerStep": 32,
            "promptsPerUpdate": 32,
            "perDeviceTrainBatchSize": 256,
            "learningRate": 2e-4,
        },
        "checkpointEvery": 4,
    },
    "evaluation": {"samples": 2},
    "guards": {},
}
STEM = "arithmetic"
BAD_FROM = 2
Fault = Callable[[PhaseConfig], PhaseConfig]
"""Called in the phase's own process; may patch it, and returns the inputs that it works by (the key stays)."""


def _grpo(config: PhaseConfig, **changes: Any) -> PhaseConfig:
    if config.inputs.phase != "solver-train":
        return config
    grpo = config.inputs.grpo.model_copy(update=changes)
    return config.model_copy(update={"inputs": config.inputs.model_copy(update={"grpo": grpo})})


def _pays(reward: Callable[[float, str], float]) -> Fault:
    """The Solver's reward is ``reward(right, completion)``."""

    def fault(config: PhaseConfig) -> PhaseConfig:
        healthy = solver_rewards.SolverReward.__call__

        def call(self: Any, completions: list[Any], label: list[str], log_metric: Any = None, **more: Any) -> Any:
            paid = healthy(self, completions, label, log_metric, **more)
            texts = [completion_text(each) for each in completions]
            return [reward(value, text) for value, text in zip(paid, texts, strict=True)]

        solver_rewards.SolverReward.__call__ = call  # type: ignore[method-assign]
        return config

    return fault


def _trains_on(change: Callable[[list[Any]], list[Any]]) -> Fault:
    """The Solver is trained on ``change(curriculum)``."""

    def fault(config: PhaseConfig) -> PhaseConfig:
        healthy = solver_train.read_curriculum
        solver_train.read_curriculum = lambda context, key: change(healthy(context, key))
        return config

    return fault


def _relabelled(rows: list[Any], by: list[Any]) -> list[Any]:
    return [row.model_copy(update={"answer": other.answer}) for row, other in zip(rows, by, strict=True)]


def _half_wrong(rows: list[Any]) -> list[Any]:
    dealt = random.Random(0).sample(rows, len(rows))
    return [
        each if i % 2 else wrong for i, (each, wrong) in enumerate(zip(rows, _relabelled(rows, dealt), strict=True))
    ]


def _never_stops(config: PhaseConfig) -> PhaseConfig:
    from selfevo_trainer.engines import transformers_engine

    transformers_engine.eos_token_ids = lambda *_: {0}  # type: ignore[attr-defined]
    return config


def _short(config: PhaseConfig) -> PhaseConfig:
    if config.inputs.phase == "solver-rollout":
        sampling = config.inputs.answer_sampling.model_copy(update={"max_completion_length": 10})
        inputs = config.inputs.model_copy(update={"answer_sampling": sampling})
        return config.model_copy(update={"inputs": inputs})
    return _grpo(config, max_completion_length=10)


FAULTS: dict[str, Fault] = {
    "reward sign": _pays(lambda right, _: -right),
    "reward constant": _pays(lambda right, _: 1.0),
    "label off by one": _trains_on(lambda rows: _relabelled(rows, [*rows[1:], rows[0]])),
    "label drift": _trains_on(_half_wrong),
    "length hacking": _pays(lambda right, text: len(text) / 20),
    "entropy collapse": lambda config: _grpo(config, learning_rate=1e-3, beta=0.0, temperature=0.5),
    "learning rate too high": lambda config: _grpo(config, learning_rate=5e-3),
    "wrong stop token": _never_stops,
    "truncation": _short,
    "duplicated data": _trains_on(lambda rows: [rows[0]] * len(rows)),
}


def with_fault(fault: Fault | None) -> None:
    """Put it into this process."""
    if fault is not None:
        trainer.read_config = lambda: fault(read_config())  # type: ignore[attr-defined]


def run_all(run: SelfEvolutionRun, folder: Path, fault: Fault | None, last: int) -> dict[str, Any]:
    """The run until iteration ``last``; its figures by iteration, and how it ended before that, if it did."""
    store = open_store(run.spec.storage.uri)
    rows: dict[str, Any] = {}
    for step in plan(run.spec).steps:
        if step.iteration > last:
            continue
        prefix = step_prefix(run.metadata.namespace, step.phase, step.key)
        if read_manifest(store, prefix) is None:
            bad = fault if step.iteration >= BAD_FROM else None
            try:
                run_step(run, step, 0, folder, partial(with_fault, bad))
            except DataError as error:
                return {**rows, "ended": str(error)[:300]}
        manifest = read_manifest(store, prefix)
        assert manifest is not None
        row = rows.setdefault(str(step.iteration), {})
        row |= {f"{step.phase}/{name}": round(value, 5) for name, value in manifest.metrics.items()}
    return rows


def one(seed: int, fault: str | None, folder: Path) -> dict[str, Any]:
    """The row of one run."""
    before, healthy = os.times(), folder / f"seed-{seed}" / "healthy"
    own = healthy if fault is None else folder / f"seed-{seed}" / fault.replace(" ", "-")
    first = folder / f"seed-{seed}" / "first"
    for each in (first, own):
        each.mkdir(parents=True, exist_ok=True)
    run = example(STEM, {**TINY, "seed": seed}, store=first / "store")
    begun = run_all(run, first, None, BAD_FROM - 1)
    shutil.copytree(first / "store", own / "store", dirs_exist_ok=True)
    run = example(STEM, {**TINY, "seed": seed}, store=own / "store")
    rows = begun if "ended" in begun else run_all(run, own, FAULTS[fault] if fault else None, run.spec.iterations)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return {"seed": seed, "fault": fault, "cpu_s": round(spent, 1), "rows": rows}


def judged(row: dict[str, Any]) -> dict[str, Any]:
    """What the guards say of a row's figures, with their defaults."""
    watch = Watch(example(STEM, {**TINY, "seed": row["seed"]}, store=Path("/tmp/none")))
    for number in sorted(int(name) for name in row["rows"] if name != "ended"):
        if watch.phase not in ("Failed", "Succeeded"):
            watch.measured(number, row["rows"][str(number)])
    return {"alarms": watch.alarms, "acted": watch.acted, "ended": row["rows"].get("ended")}


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """By fault: runs, found (an alarm from its first iteration on, or an end), late, alarms before it; healthy ones."""
    found: dict[str, Any] = {}
    for name in [None, *FAULTS]:
        own = [judged(row) for row in rows if row["fault"] == name]
        if not own:
            continue
        late = [at for each in own if (at := noticed(each)) is not None]
        found[name or "healthy"] = {
            "runs": len(own),
            "found": len(late),
            "late": [at - BAD_FROM for at in late],
            "warned_by": sorted({guard for each in own for guard in each["alarms"]}),
            "alarm_in_iteration_1": sum(min(each["alarms"].values(), default=9) < BAD_FROM for each in own),
            "acted": sum(bool(each["acted"]) for each in own),
            "ended": [each["ended"] for each in own if each["ended"]],
        }
    return found


def noticed(each: dict[str, Any]) -> int | None:
    """The first iteration from `BAD_FROM` on of which a guard that was silent before says that something is wrong."""
    later = [at for at in each["alarms"].values() if at >= BAD_FROM]
    return min(later, default=BAD_FROM if each["ended"] else None)


def judge_anew(out: Path) -> None:
    """What the guards say now of the runs of a result; what they were run by stays."""
    result = json.loads(out.read_text())
    result["judged_anew"] = {"commit": commit(), "guards": Guards().model_dump(by_alias=True)}
    result["summary"] = summarise(result["runs"])
    out.write_text(json.dumps(result, indent=1) + "\n")


def judge_frontier(path: Path) -> None:
    """Print which guards warn, with their defaults, and in which iteration first, of each run of frontier.py; and the
    first action that they would have taken, with the score of that iteration, the best until then, and the last."""
    for arm, by_seed in json.loads(path.read_text())["runs"].items():
        for seed, row in by_seed.items():
            warns, acts = (
                Watch(
                    example("frontier", merged({"seed": int(seed), "guards": guards}, ARMS[arm]), store=Path("/none"))
                )
                for guards in (with_action({}, "warn"), {})
            )
            scores: list[float] = []
            ended = ""
            for number in sorted(int(name) for name in row["metrics"] if name != "ended"):
                warns.measured(number, row["metrics"][str(number)])
                scores.append(row["metrics"][str(number)]["evaluate/mean"])
                if not acts.acted:
                    acts.measured(number, row["metrics"][str(number)])
                    if acts.acted:
                        ended = f"  acts {acts.acted}: {scores[-1]:.2f}, best {max(scores):.2f}"
            print(f"{arm:10} {seed}  {warns.alarms}{ended}  last {scores[-1]:.2f}")


def main() -> int:
    """Run what is missing, for so long."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--healthy", type=int, default=20, help="seeds")
    parser.add_argument("--faulty", type=int, default=2, help="seeds of each fault")
    parser.add_argument("--first", type=int, default=0, help="of the seeds")
    parser.add_argument(
        "--minutes", type=float, default=25, help="of the clock, after which no run begins; 0 judges OUT's anew"
    )
    parser.add_argument("--frontier", type=Path, help="a result of frontier.py, whose runs are held against the guards")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/selfevo-guards"), help="stores")
    parser.add_argument("--rows", type=Path, default=Path("/tmp/selfevo-guards/rows.jsonl"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "guard_runs.json")
    arguments = parser.parse_args()
    if arguments.frontier:
        judge_frontier(arguments.frontier)
        return 0
    if arguments.minutes == 0:
        judge_anew(arguments.out)
        return 0
    load_heavy_modules()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    lines = arguments.rows.read_text().splitlines() if arguments.rows.exists() else []
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    first: int = arguments.first
    healthy: list[tuple[int, str | None]] = [(seed, None) for seed in range(first, first + arguments.healthy)]
    faulty = [(seed, fault) for seed in range(first, first + arguments.faulty) for fault in FAULTS]
    wanted = [one for both in zip_longest(healthy, faulty) for one in both if one is not None]
    begun = time.time()
    for seed, fault in wanted:
        if time.time() - begun > 60 * arguments.minutes:
            break
        if not any(row["seed"] == seed and row["fault"] == fault for row in rows):
            rows.append(one(seed, fault, arguments.folder))
            with arguments.rows.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(f"{time.time() - begun:6.0f} s  {seed} {fault} {rows[-1]['cpu_s']} {judged(rows[-1])}", flush=True)
    result = {
        **provenance(),
        "settings": TINY,
        "cpu_s": round(sum(row["cpu_s"] for row in rows)),
        "summary": summarise(rows),
        "runs": rows,
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
