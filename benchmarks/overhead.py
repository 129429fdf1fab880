"""What our solver-train phase costs over the same GRPOTrainer called directly: same model, data and settings.

    python benchmarks/overhead.py

Both run in processes forked from one that has torch loaded, turn by turn. «direct» is what a person would write with
TRL: load, train, save. «phase» is the whole phase as a Job runs it: read the curriculum and the model from the store,
train, save checkpoints as the manifest says, commit. The curriculum is one that a rollout made in the same run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import provenance
from runs import arithmetic, forked, forked_phase, load_heavy_modules
from selfevo_contract.artifacts import step_prefix
from selfevo_contract.phases import SolverTrainInputs
from selfevo_contract.plan import plan
from selfevo_contract.rows import CURRICULUM, CurriculumRow
from selfevo_store import fetch_rows, open_store, read_manifest


def over(steps: int, checkpoint_every: int, round_: int) -> dict[str, Any]:
    """The demo, one iteration, its Solver trained for ``steps``; the round is in the seed so that nothing is reused."""
    return {
        "iterations": 1,
        "seed": round_,
        "evaluation": None,
        "challenger": {"grpo": {"maxSteps": 0}},
        "rollout": {"questions": 400, "shards": 1, "band": {"min": 0.1, "max": 0.95}},
        "solver": {"grpo": {"maxSteps": steps}, "checkpointEvery": checkpoint_every},
    }


def direct(inputs: SolverTrainInputs, curriculum: list[CurriculumRow], base: Path, out: Path) -> int:
    """GRPOTrainer as TRL's documentation has it, with the same numbers."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.trainer.grpo_trainer import GRPOTrainer

    from selfevo_trainer.grpo.config import grpo_config
    from selfevo_trainer.grpo.dealing import schedule

    def reward(completions: list[Any], label: list[str], **_: Any) -> list[float | None]:
        texts = (completion[0]["content"] for completion in completions)
        return [float(f"\\boxed{{{truth}}}" in text) for text, truth in zip(texts, label, strict=True)]

    rows = [curriculum[i] for i in schedule(len(curriculum), inputs.grpo, inputs.seed)]
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(str(base), dtype="float32"),
        reward_funcs=reward,
        args=grpo_config(inputs.grpo, inputs.loading, inputs.seed, out),
        train_dataset=Dataset.from_list(
            [{"prompt": [{"role": "user", "content": row.question}], "label": row.answer} for row in rows]
        ),
        processing_class=AutoTokenizer.from_pretrained(str(base), padding_side="left"),
    )
    trainer.train()
    trainer.save_model(str(out / "model"))
    return 0


def compare(steps: int, checkpoint_every: int, round_: int, folder: Path) -> dict[str, Any]:
    """One round: rollout, then both ways of training on its curriculum."""
    folder.mkdir(parents=True)
    run = arithmetic(over(steps, checkpoint_every, round_), store=folder / "store")
    rollout, training = plan(run.spec).steps
    assert forked_phase(run, rollout, folder).code == 0, f"the rollout failed; see {folder}/log.txt"
    store = open_store(run.spec.storage.uri)
    prefix = step_prefix(run.metadata.namespace, rollout.phase, rollout.key)
    manifest = read_manifest(store, prefix)
    assert manifest is not None and isinstance(training.inputs, SolverTrainInputs)
    curriculum = fetch_rows(store, prefix, manifest, CURRICULUM)
    base = Path(run.spec.model.uri.removeprefix("file://"))
    inputs = training.inputs
    ways = {
        "direct": lambda: forked(lambda: direct(inputs, curriculum, base, folder / "direct"), folder / "log.txt"),
        "phase": lambda: forked_phase(run, training, folder),
    }
    order = list(ways) if round_ % 2 else list(reversed(ways))
    ended = {name: ways[name]() for name in order}
    assert all(end.code == 0 for end in ended.values()), f"see {folder}/log.txt"
    cpu, wall = ({name: getattr(end, kind) for name, end in ended.items()} for kind in ("cpu_s", "wall_s"))
    return {
        "cpu_s": {name: round(value, 2) for name, value in cpu.items()},
        "wall_s": {name: round(value, 2) for name, value in wall.items()},
        "cpu_overhead_percent": round(100 * (cpu["phase"] / cpu["direct"] - 1), 2),
        "wall_overhead_percent": round(100 * (wall["phase"] / wall["direct"] - 1), 2),
    }


def main() -> int:
    """Rounds for each checkpoint interval; the median is the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "overhead.json")
    arguments = parser.parse_args()
    load_heavy_modules()
    result: dict[str, Any] = {**provenance(), "steps": arguments.steps}
    with tempfile.TemporaryDirectory(prefix="selfevo-overhead-") as folder:
        for name, every in (("no_checkpoints", 10_000), ("checkpoint_every_2_steps", 2)):
            rounds = [
                compare(arguments.steps, every, round_, Path(folder) / name / str(round_))
                for round_ in range(arguments.rounds)
            ]
            result[name] = {
                kind: statistics.median(each[kind] for each in rounds)
                for kind in ("cpu_overhead_percent", "wall_overhead_percent")
            } | {"rounds": rounds}
            print(name, {key: value for key, value in result[name].items() if key != "rounds"}, flush=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
