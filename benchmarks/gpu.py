"""Every phase on a model of real shape, on one GPU, in one command under eight minutes.

    python benchmarks/gpu.py                          # Qwen3-0.6B's shape, bfloat16; made here, nothing is downloaded
    python benchmarks/gpu.py --shape tiny --out -     # the same on any machine, in a minute: for the script itself

Each phase is a process of its own, as in a Job: Challenger training, rollout, Solver training, evaluation, with each
engine that is installed. Written are seconds by activity, generated tokens a second, the device's peak memory (the
process's, on a CPU), and what was checked: names, shapes and types of the weights that were committed, that they are
finite, and that they have moved. Engines are held against the models' fingerprints by the phases themselves: how far
they were from them is written down, too. vLLM comes first, over as many GPUs as there are and divide its heads, and
sleeps while the Challenger is trained. Then transformers; last of the engines, vLLM with weights in fp8 scores the
base. Then the Solver is trained on the same curriculum in each way that can run here, and by TRL alone
(gpu_training.py): seconds by part, and the share of the GPU's peak that updates reach (MFU).

The file is written after each phase. What fails, or has not ended within --limit, stands in it with the end of its log,
the engine's steps behind it are left out, and the exit code is 1.

Weights are random, so that a completion ends by itself once in as many tokens as the vocabulary has: all are counted
at their full length. Scores mean nothing here.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import gpu_training
from machine import commit, machine
from runs import merged, phase_environment
from selfevo_contract.artifacts import Manifest, step_prefix
from selfevo_contract.phases import (
    CHALLENGER_TRAIN,
    ChallengerTrainInputs,
    EvaluateInputs,
    SolverRolloutInputs,
    SolverTrainInputs,
)
from selfevo_contract.plan import Step, plan
from selfevo_contract.process import PROCESSES_ENV, phase_config
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.sizing.architecture import Architecture
from selfevo_store import fetch, open_store, read_manifest

SIZES = {
    "qwen3-0.6b": {
        "prompts": 64,
        "update": 16,
        "questions": 512,
        "length": 256,
        "held_out": 128,
        "batch": 8,
        "rows": 256,
        "less": 4,  # transformers would take most of the time, at a rate that shows with a quarter of the work
    },
    "tiny": {
        "prompts": 4,
        "update": 2,
        "questions": 16,
        "length": 16,
        "held_out": 8,
        "batch": 4,
        "rows": 64,
        "less": 1,
    },
}
FINGERPRINTS = "as its fingerprint has it"
"""Stands in a phase's log beside how far an engine is from it (selfevo_trainer/inputs/fingerprints.py)."""
FP8 = "vllm-fp8"
PROMPT_WORDS = 200
"""Words, each of them a token, that stand before every question."""


def engines() -> list[str]:
    """Those that can run here; FP8 is vLLM with weights of 8 bits, which scores the base alone."""
    vllm = importlib.util.find_spec("vllm") is not None
    return [*(["vllm"] * vllm), "transformers", *([FP8] * (vllm and device()["gpu"] is not None))]


def manifest(shape: str, base: Path, held_out: Path, store: Path, engine: str, dtype: str) -> SelfEvolutionRun:
    """One iteration of the loop with every phase in it; the engine's name is in the seed, so that nothing is shared."""
    size = SIZES[shape]
    less = size["less"] if engine == "transformers" else 1
    by: dict[str, Any] = {"kind": "vllm"}
    if engine == "transformers":
        by = {"kind": engine, "batchSize": size["rows"]}
    elif engine == FP8:
        by["quantization"] = "fp8"
    prompt = {"system": " ".join(["please"] * PROMPT_WORDS)}
    grpo = {
        "maxSteps": 2,
        "promptsPerStep": size["prompts"] // less,
        "promptsPerUpdate": size["update"],
        "perDeviceTrainBatchSize": size["batch"],
        "learningRate": 1e-3 if dtype == "float32" else 1e-5,
        "maxCompletionLength": size["length"],
        "gradientCheckpointing": True,
    }
    spec = {
        "iterations": 1,
        "seed": len(engine),
        "model": {"uri": base.as_uri(), "dtype": dtype},
        "storage": {"uri": store.as_uri()},
        "challenger": {
            "prompt": {**prompt, "user": "ask"},
            "grpo": {**grpo, "numGenerations": 4},
            "reward": {"solverSamples": 10},
            "engine": {**by, **({"enableSleepMode": True} if engine == "vllm" else {})},
        },
        "rollout": {
            "questions": size["questions"] // less,
            "samples": 10,
            "band": {"min": 0.0, "max": 1.0},
            "minCurriculum": 1,
            "engine": by,
        },
        "solver": {"prompt": {**prompt, "user": "{question}"}, "grpo": {**grpo, "numGenerations": 4}},
        "evaluation": {
            "tasks": [{"name": "dice", "data": {"uri": held_out.as_uri()}}],
            "samples": 4,
            "engine": by,
        },
    }
    document = {"apiVersion": "selfevo.dev/v1alpha1", "kind": "SelfEvolutionRun"}
    return SelfEvolutionRun.model_validate(merged(document, {"metadata": {"name": f"gpu-{engine}"}, "spec": spec}))


def generated(step: Step, held_out: int) -> int:
    """Tokens that the phase generates, by the sizes of its inputs: its policy's and its frozen model's."""
    inputs = step.inputs
    if isinstance(inputs, ChallengerTrainInputs):
        written = inputs.grpo.completions_per_step * inputs.grpo.max_steps
        answers = written * inputs.reward.solver_samples * inputs.solver_sampling.max_completion_length
        return written * inputs.grpo.max_completion_length + answers
    if isinstance(inputs, SolverTrainInputs):
        return inputs.grpo.completions_per_step * inputs.grpo.max_steps * inputs.grpo.max_completion_length
    if isinstance(inputs, SolverRolloutInputs):
        answers = inputs.samples * inputs.answer_sampling.max_completion_length
        return inputs.questions * (inputs.question_sampling.max_completion_length + answers)
    if isinstance(inputs, EvaluateInputs):
        return held_out * (1 + inputs.samples) * inputs.sampling.max_completion_length
    return 0


class Memory:
    """The GPUs' peak while they are looked at, in MiB; what was taken before does not count. None without a GPU."""

    def __init__(self) -> None:
        self._found: list[float] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.is_set():
            try:
                asked = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
                self._found.append(sum(map(float, subprocess.check_output(asked, text=True).split())))
            except (OSError, subprocess.CalledProcessError, ValueError):
                return
            self._ended.wait(0.2)

    @property
    def peak_mib(self) -> float | None:
        return max(self._found) - self._found[0] if self._found else None


class Failed(Exception):
    """A phase did not end well, or left what it should not."""


def run_step(
    run: SelfEvolutionRun, step: Step, folder: Path, held_out: int, until: float, processes: int = 1
) -> dict[str, Any]:
    """The phase in a process of its own, or in several that train together, and what it took.

    Args:
        until: when it is ended (`time.perf_counter`).

    Raises:
        Failed: with the end of its log.
    """
    config = phase_config(run.spec, run.metadata.name, run.metadata.namespace, step)
    folder.mkdir(parents=True)
    log = folder / "log.txt"
    environment = os.environ | phase_environment(config.model_dump_json(by_alias=True, exclude_none=True), folder)
    environment |= {PROCESSES_ENV: str(processes)} if processes > 1 else {}
    begun = time.perf_counter()
    with log.open("w") as file, Memory() as memory:
        command = [sys.executable, "-m", "selfevo_trainer"]
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
        stop = threading.Timer(max(0.0, until - begun), os.kill, (process.pid, signal.SIGTERM))
        stop.start()
        _, status, usage = os.wait4(process.pid, 0)
        stop.cancel()
    wall = time.perf_counter() - begun
    if (code := os.waitstatus_to_exitcode(status)) != 0:
        late = " when the time was up" if time.perf_counter() >= until else ""
        raise Failed(f"{step.name} of {run.metadata.name} ended with {code}{late}:\n{log.read_text()[-4000:]}")
    made = committed(run, step)
    seconds = made.timings.get("generation", 0.0)
    tokens = generated(step, held_out)
    return {
        "wall_s": round(wall, 1),
        "timings_s": made.timings,
        "generated_tokens": tokens or None,
        "tokens_per_generation_second": round(tokens / seconds, 1) if tokens and seconds else None,
        "peak_device_mib": memory.peak_mib,
        "peak_process_mib": round(usage.ru_maxrss / 1024, 1),
        "fingerprints": [line for line in log.read_text().splitlines() if FINGERPRINTS in line],
    }


def committed(run: SelfEvolutionRun, step: Step) -> Manifest:
    """The manifest that the step has left."""
    place = step_prefix(run.metadata.namespace, step.phase, step.key)
    found = read_manifest(open_store(run.spec.storage.uri), place)
    assert found is not None, f"{step.name} has ended well and is not committed"
    return found


def check_weights(run: SelfEvolutionRun, step: Step, base: Path, folder: Path) -> dict[str, Any]:
    """Names, shapes, types and values of the trained weights beside the base's.

    Raises:
        Failed: they are not what a trained model's should be.
    """
    import torch
    from safetensors.torch import load_file

    place = step_prefix(run.metadata.namespace, step.phase, step.key)
    fetch(open_store(run.spec.storage.uri), place, committed(run, step), folder, folder="model")
    before: dict[str, torch.Tensor] = {}
    after: dict[str, torch.Tensor] = {}
    for weights, at in ((before, base), (after, folder / "model")):
        for file in sorted(at.glob("*.safetensors")):
            weights |= load_file(file)
    if before.keys() != after.keys():
        raise Failed(f"{step.name}: the weights differ in name: {sorted(before.keys() ^ after.keys())[:4]}")
    shapes = [name for name in before if before[name].shape != after[name].shape]
    broken = [name for name in after if not torch.isfinite(after[name]).all()]
    moved = sum(not torch.equal(before[name].float(), after[name].float()) for name in before)
    if shapes or broken or not moved:
        raise Failed(f"{step.name}: other shapes {shapes[:4]}, not finite {broken[:4]}, {moved} of {len(before)} moved")
    return {"tensors": len(after), "moved": moved, "dtypes": sorted({str(each.dtype) for each in after.values()})}


def measure(
    shape: str, dtype: str, folder: Path, until: float, save: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """All steps with each engine."""
    from shapes import BOXES, write_model

    base, held_out = folder / "base", folder / "held-out.jsonl"
    result: dict[str, Any] = {"shape": shape, "dtype": dtype, "sizes": SIZES[shape], "engines": {}}
    # In a process of its own, which takes its memory on the GPU along.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as other:
        result["parameters"] = other.submit(write_model, shape, base, dtype).result()
    rows = [{"question": f"what is v{i} ?", "answer": str(i % BOXES)} for i in range(SIZES[shape]["held_out"])]
    held_out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for engine in engines():
        run = manifest(shape, base, held_out, folder / "store", engine, dtype)
        phases = result["engines"].setdefault(engine, {})
        for step in plan(run.spec).steps[: 1 if engine == FP8 else None]:
            try:
                found = phases[step.name] = run_step(run, step, folder / engine / step.name, len(rows), until)
                if step.type.trains_solver or step.phase == CHALLENGER_TRAIN.name:
                    weights = folder / engine / f"{step.name}-weights"
                    found["weights"] = check_weights(run, step, base, weights)
            except Failed as error:
                phases[step.name] = {**phases.get(step.name, {}), "failed": str(error)}
                break  # what comes behind needs its output
            finally:
                save(result)
            print(engine, step.name, json.dumps(found), flush=True)
    run = manifest(shape, base, held_out, folder / "store", "transformers", dtype)
    if "failed" not in result["engines"]["transformers"].get("solver-rollout-1", {"failed": ""}):
        train_in_each_way(run, base, folder, until, result.setdefault("training", {}))
    return result


def train_in_each_way(run: SelfEvolutionRun, base: Path, folder: Path, until: float, found: dict[str, Any]) -> None:
    """The Solver's training on the curriculum of ``run``, which is there, and TRL's own on the same, into ``found``.

    What fails stands there in place of what it took.
    """
    import torch

    gpus = torch.cuda.device_count()
    model = Architecture.of(json.loads((base / "config.json").read_bytes()))
    for way, changes in gpu_training.ways(gpus).items():
        changed = gpu_training.variant(run, way, changes)
        step = plan(changed.spec).by_name["solver-train-1"]
        assert isinstance(step.inputs, SolverTrainInputs)
        processes = gpus if way == "fsdp" else 1
        try:
            took = run_step(changed, step, folder / "ways" / way, 0, until, processes)
        except Failed as error:
            found[way] = {"failed": str(error)}
            continue
        flops = gpu_training.model_flops(step.inputs, model, PROMPT_WORDS)
        peak = gpu_training.peak_flops(device()["gpu"])
        found[way] = gpu_training.with_utilization(took, flops, peak, processes)
        print(way, json.dumps(found[way]), flush=True)
        if way == "whole":
            rows = gpu_training.curriculum_of(changed, plan(changed.spec).by_name["solver-rollout-1"])
            took = gpu_training.bare(step.inputs, rows, base, folder / "ways" / "trl")
            found["trl"] = gpu_training.with_utilization(took, flops, peak, 1)
            print("trl", json.dumps(found["trl"]), flush=True)


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
    parser.add_argument("--out", default=str(Path(__file__).parent / "results" / "gpu.json"), help="- for none")
    parser.add_argument("--limit", type=float, default=465.0, help="seconds after which what runs is ended")
    arguments = parser.parse_args()
    begun = time.perf_counter()

    def save(measured: dict[str, Any]) -> None:
        spent = {"seconds": round(time.perf_counter() - begun, 1)}
        text = json.dumps({"machine": machine() | device(), "commit": commit(), **spent, **measured}, indent=1) + "\n"
        if arguments.out != "-":
            Path(arguments.out).write_text(text)

    with tempfile.TemporaryDirectory(prefix="selfevo-gpu-") as folder:
        measured = measure(arguments.shape, arguments.dtype, Path(folder), begun + arguments.limit, save)
    save(measured)
    failed = [
        phase["failed"]
        for by in [*measured["engines"].values(), measured.get("training", {})]
        for phase in by.values()
        if "failed" in phase
    ]
    print("\n".join([f"{time.perf_counter() - begun:.0f} seconds", *failed]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
