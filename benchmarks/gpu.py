"""Every phase on a model of real shape, on one GPU.

    python benchmarks/gpu.py                          # Qwen3-0.6B's shape, bfloat16; made here, nothing is downloaded
    python benchmarks/gpu.py --shape tiny --out -     # the same on any machine, in minutes: for the script itself
    python benchmarks/gpu.py --parts all              # all that is below
    python benchmarks/gpu.py --folder F --parts vllm  # one part; others go on in the same folder and the same result

Without --parts, each phase is run once, with vLLM (with transformers where that is not installed), which compiles
nothing and does a share of the work: 7 minutes on an H200 by what was measured of its parts, and 8 at most.

Each phase is a process of its own, as in a Job: Challenger training, rollout, Solver training, evaluation, with each
engine that is installed. Written are seconds by activity, generated tokens a second, the device's peak memory (the
process's, on a CPU), and what was checked: names, shapes and types of the weights that were committed, that they are
finite, and that they have moved. Engines are held against the models' fingerprints by the phases themselves: how far
they were from them is written down, too.

    vllm           over as many GPUs as there are and divide its heads; it sleeps while the Challenger is trained
    server         vLLM's own servers write and answer in the rollout, with the Challenger that `vllm` has trained
    transformers   with a share of the work (`less`), as vLLM with --enforce-eager
    vllm-fp8       vLLM with weights in 8 bits scores the base
    training       the Solver is trained on one curriculum in each way that can run here, and by TRL alone
                   (gpu_training.py): seconds by part, and the share of the GPU's peak that updates reach (MFU). One
                   training is stopped by SIGTERM and resumed: whether its weights have the same bytes is written down

The file is written after each phase. What fails, or has not ended within --limit, stands in it with the end of its log,
the engine's steps behind it are left out, and the exit code is 1.

Weights are random, so that a completion ends by itself once in as many tokens as the vocabulary has: all are counted
at their full length. Scores mean nothing here.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import gpu_training
from gpu_phases import (
    FP8,
    PROMPT_WORDS,
    SERVER,
    SIZES,
    Failed,
    check_weights,
    committed_rollout,
    manifest,
    predicted,
    run_step,
    stopped_and_resumed,
)
from machine import provenance
from selfevo_contract.phases import CHALLENGER_TRAIN, SOLVER_ROLLOUT, SolverTrainInputs
from selfevo_contract.plan import Step, plan
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.sizing.architecture import Architecture
from selfevo_trainer.process.versions import installed

TRAINING, ALL = "training", "all"
PARTS = ("vllm", SERVER, "transformers", FP8, TRAINING)
CARD = "141 GB"
"""What `selfevo size` says is for an H200 (`selfevo_contract.sizing.memory.CARDS`)."""
PACKAGES = ("torch", "triton", "transformers", "trl", "accelerate", "peft", "vllm")
"""What computes: a machine may have other versions than constraints.txt."""

Save = Callable[[], None]


def possible() -> list[str]:
    """The parts that this machine can run."""
    vllm = importlib.util.find_spec("vllm") is not None
    missing = {*(() if vllm else ("vllm", SERVER, FP8)), *(() if device()["gpu"] else (FP8,))}
    return [part for part in PARTS if part not in missing]


def chosen(asked: Sequence[str] | None, there: Sequence[str]) -> list[str]:
    """The parts to measure, of those that can run.

    >>> chosen(None, ["vllm", "transformers"]), chosen(None, ["transformers", "training"])
    (['vllm'], ['transformers'])
    >>> chosen(["all"], ["vllm", "training"]), chosen(["server", "vllm"], ["transformers", "vllm"])
    (['vllm', 'training'], ['vllm'])
    """
    if not asked:
        return ["vllm" if "vllm" in there else "transformers"]
    return [part for part in (PARTS if ALL in asked else asked) if part in there]


def steps_of(run: SelfEvolutionRun, engine: str) -> list[Step]:
    """Those that ``engine`` is measured by."""
    steps = list(plan(run.spec).steps)
    if engine == FP8:
        return steps[:1]
    return [step for step in steps if engine != SERVER or step.phase == SOLVER_ROLLOUT.name]


def measure(
    result: dict[str, Any], parts: Sequence[str], shape: str, dtype: str, folder: Path, until: float, save: Save
) -> None:
    """``parts``, into ``result``."""
    from shapes import BOXES, write_model

    base, held_out = folder / "base", folder / "held-out.jsonl"
    if not base.exists():
        # In a process of its own, which takes its memory on the GPU along.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as other:
            result["parameters"] = other.submit(write_model, shape, base, dtype).result()
    rows = [{"question": f"what is v{i} ?", "answer": str(i % BOXES)} for i in range(SIZES[shape]["held_out"])]
    held_out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = Architecture.of(json.loads((base / "config.json").read_bytes()))
    runs = {
        part: manifest(shape, base, held_out, folder / "store", part, dtype, result["enforce_eager"])
        for part in PARTS
        if part != TRAINING
    }
    for engine in [part for part in parts if part != TRAINING]:
        phases = result["engines"].setdefault(engine, {})
        for step in steps_of(runs[engine], engine):
            if "failed" not in phases.get(step.name, {"failed": ""}):
                continue  # an earlier call has measured it
            try:
                at = fresh(folder / engine / step.name)
                found = phases[step.name] = run_step(runs[engine], step, at, len(rows), until)
                found["predicted"] = predicted(runs[engine], step, model, CARD)
                if step.type.trains_solver or step.phase == CHALLENGER_TRAIN.name:
                    found["weights"] = check_weights(runs[engine], step, base, at / "weights")
            except Failed as error:
                phases[step.name] = {**phases.get(step.name, {}), "failed": str(error)}
                break  # what comes behind needs its output
            finally:
                save()
            print(engine, step.name, json.dumps(found), flush=True)
    if TRAINING in parts:
        run = next((runs[each] for each in ("transformers", "vllm") if committed_rollout(runs[each])), None)
        if run is None:
            result[TRAINING] = {"whole": {"failed": "no engine has made a curriculum"}}
        else:
            train_in_each_way(run, model, base, folder, until, result.setdefault(TRAINING, {}), save)


def fresh(folder: Path) -> Path:
    """``folder``, or one beside it where an earlier call has left it."""
    return next(
        at for i in range(1000) if not (at := folder.with_name(f"{folder.name}{f'.{i}' if i else ''}")).exists()
    )


def train_in_each_way(
    run: SelfEvolutionRun,
    model: Architecture,
    base: Path,
    folder: Path,
    until: float,
    found: dict[str, Any],
    save: Save,
) -> None:
    """The Solver's training on the curriculum of ``run``, which is there, and TRL's own on the same, into ``found``.

    What fails stands there in place of what it took.
    """
    import torch

    gpus, peak = torch.cuda.device_count(), gpu_training.peak_flops(device()["gpu"])

    def measured(way: str, took: Callable[[], dict[str, Any]], inputs: SolverTrainInputs, processes: int = 1) -> None:
        if "failed" not in found.get(way, {"failed": ""}):
            return  # an earlier call has measured it
        try:
            flops = gpu_training.model_flops(inputs, model, PROMPT_WORDS)
            found[way] = gpu_training.with_utilization(took(), flops, peak, processes)
        except Failed as error:
            found[way] = {"failed": str(error)}
        save()
        print(way, json.dumps(found[way]), flush=True)

    for way, changes in gpu_training.ways(gpus).items():
        changed = gpu_training.variant(run, way, changes)
        step = plan(changed.spec).by_name["solver-train-1"]
        inputs, processes = step.inputs, gpus if way == "fsdp" else 1
        assert isinstance(inputs, SolverTrainInputs)
        at = fresh(folder / "ways" / way)
        measured(way, lambda: run_step(changed, step, at, 0, until, processes), inputs, processes)  # noqa: B023
        if way == "whole":
            rows = gpu_training.curriculum_of(changed, plan(changed.spec).by_name["solver-rollout-1"])
            alone = fresh(folder / "ways" / "trl")
            measured("trl", lambda: gpu_training.bare(inputs, rows, base, alone), inputs)  # noqa: B023
            if "failed" not in found[way]:
                resumed = fresh(folder / "ways" / "resumed")
                measured("resumed", lambda: stopped_and_resumed(changed, step, resumed, until), inputs)  # noqa: B023


def device() -> dict[str, Any]:
    """The GPU, in its driver's words; None without one."""
    try:
        asked = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
        return {"gpu": subprocess.check_output(asked, text=True).strip()}
    except (OSError, subprocess.CalledProcessError):
        return {"gpu": None}


def main() -> int:
    """Measure, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=list(SIZES), default="qwen3-0.6b")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--parts", nargs="+", choices=(ALL, *PARTS), help="each phase once, when not given")
    parser.add_argument("--enforce-eager", action="store_true", help="vLLM compiles nothing; so without --parts")
    parser.add_argument("--folder", type=Path, help="what is made, kept: a later call with it goes on")
    parser.add_argument("--out", default=str(Path(__file__).parent / "results" / "gpu.json"), help="- for none")
    parser.add_argument(
        "--limit", type=float, help="seconds after which what runs is ended; 900, and 480 without --parts"
    )
    arguments = parser.parse_args()
    parts = chosen(arguments.parts, possible())
    eager, limit = arguments.enforce_eager or not arguments.parts, arguments.limit or (900 if arguments.parts else 480)
    begun = time.perf_counter()
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="selfevo-gpu-")))
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder / "result.json"
        about = {
            **provenance(device()),
            "packages": installed(PACKAGES),
            "shape": arguments.shape,
            "dtype": arguments.dtype,
            "sizes": SIZES[arguments.shape],
            "enforce_eager": eager,
        }
        result: dict[str, Any] = {**about, "seconds": {}, "engines": {}}
        if kept.exists():
            earlier = json.loads(kept.read_text())
            if any(earlier.get(name) != about[name] for name in about if name != "command"):
                sys.exit(f"--folder {folder} is of another commit, machine or shape; name another")
            result = earlier

        def save() -> None:
            result["seconds"][" ".join(parts)] = round(time.perf_counter() - begun, 1)
            text = json.dumps(result, indent=1) + "\n"
            kept.write_text(text)
            if arguments.out != "-":
                Path(arguments.out).write_text(text)

        measure(result, parts, arguments.shape, arguments.dtype, folder, begun + limit, save)
        save()
    measured = [*result["engines"].values(), result.get(TRAINING, {})]
    failed = [phase["failed"] for by in measured for phase in by.values() if "failed" in phase]
    print("\n".join([f"{time.perf_counter() - begun:.0f} seconds", *failed]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
