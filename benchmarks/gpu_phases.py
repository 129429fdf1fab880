"""One phase of benchmarks/gpu.py: its manifest, the process that it runs in, and what that took."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runs import merged, phase_environment
from selfevo_contract.artifacts import MANIFEST_NAME, Manifest, checkpoint_prefix, step_prefix
from selfevo_contract.errors import ExitCode
from selfevo_contract.phases import (
    ChallengerTrainInputs,
    EvaluateInputs,
    SolverRolloutInputs,
    SolverTrainInputs,
)
from selfevo_contract.plan import Step, plan
from selfevo_contract.process import PROCESSES_ENV, phase_config
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.sizing.architecture import Architecture
from selfevo_contract.sizing.hours import Lengths, took
from selfevo_contract.sizing.memory import GIB, needs
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
        "less": 4,  # what compiles nothing would take most of the time, at a rate that shows with a quarter of the work
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
MEMORY = "the GPU's memory: at most"
"""Likewise (selfevo_trainer/process/gpus.py)."""
FP8 = "vllm-fp8"
SERVER = "server"
PROMPT_WORDS = 200
"""Words, each of them a token, that stand before every question."""


def manifest(
    shape: str, base: Path, held_out: Path, store: Path, engine: str, dtype: str, eager: bool = False
) -> SelfEvolutionRun:
    """One iteration of the loop with every phase in it. The engine's name is in the seed, so that engines share nothing
    but the Challenger that SERVER serves, which is vLLM's."""
    size = SIZES[shape]
    less = size["less"] if eager or engine == "transformers" else 1
    plain = {"kind": "vllm", "enforceEager": eager}
    vllm = {**plain, "enableSleepMode": True}
    if engine == "transformers":
        by = beside = {"kind": engine, "batchSize": size["rows"]}
    elif engine == SERVER:
        by, beside = {"kind": "server", "gpuMemoryUtilization": 0.8}, vllm
    else:
        by, beside = {**plain, **({"quantization": "fp8"} if engine == FP8 else {})}, vllm
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
        "seed": len("vllm" if engine == SERVER else engine),
        "model": {"uri": base.as_uri(), "dtype": dtype},
        "storage": {"uri": store.as_uri()},
        "challenger": {
            "prompt": {**prompt, "user": "ask"},
            "grpo": {**grpo, "numGenerations": 4},
            "reward": {"solverSamples": 10},
            "engine": beside,
        },
        "rollout": {
            # One less, or the step would be vLLM's, which is done: what computes it is no part of a step's key.
            "questions": size["questions"] // less - (engine == SERVER),
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


def predicted(run: SelfEvolutionRun, step: Step, model: Architecture, card: str) -> dict[str, float | None]:
    """What `selfevo size` says of the step on ``card``, every completion as long as it may be; its prompts are longer
    than PROMPT_WORDS."""
    estimated = took(step, run.spec, model, card, Lengths(full=True))
    need = next((need for need in needs(run.spec, model) if need.phase == step.phase), None)
    return {
        "startup_s": round(estimated.starting * 3600, 1),
        "generation_s": round(estimated.generating * 3600, 1),
        "tokens_per_generation_second": round(estimated.tokens / estimated.generating / 3600, 1)
        if estimated.generating
        else None,
        "training_s": round(estimated.training * 3600, 1),
        "gib": None if need is None else round((need.held + max(need.backward, need.generation)) / GIB, 1),
    }


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
    """The GPUs' peak while they are polled, in MiB; what was taken before does not count. None without a GPU."""

    def __init__(self) -> None:
        self._found: list[float] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _poll(self) -> None:
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
    ended = _process(run, step, folder, until, processes)
    _expect(ended, run, step, 0, until)
    made = committed(run, step)
    seconds = made.timings.get("generation", 0.0)
    tokens = generated(step, held_out)
    return {
        "wall_s": ended.wall_s,
        "timings_s": made.timings,
        "generated_tokens": tokens or None,
        "tokens_per_generation_second": round(tokens / seconds, 1) if tokens and seconds else None,
        "peak_device_mib": ended.peak_device_mib,
        "peak_process_mib": ended.peak_process_mib,
        "torch": next((line.split("INFO ")[1] for line in ended.log.splitlines() if MEMORY in line), None),
        "fingerprints": [line for line in ended.log.splitlines() if FINGERPRINTS in line],
        "metrics": made.metrics,
    }


def stopped_and_resumed(run: SelfEvolutionRun, step: Step, folder: Path, until: float) -> dict[str, Any]:
    """A training that takes a checkpoint at every step, ended by SIGTERM after the first and begun again, beside the
    same one that was not, which is committed: whether the weights have the same bytes, and what checkpoints cost.

    Raises:
        Failed: it did not end as a process that was asked to stop, or did not end well the second time.
    """
    store = Path(run.spec.storage.uri.removeprefix("file://"))
    own = step_prefix(run.metadata.namespace, step.phase, step.key)
    other = folder / "store"
    # Objects are never changed where they lie, so that a link will do.
    without = lambda at, _: [step.key] if at.endswith(f"/{step.phase}") else []  # noqa: E731
    shutil.copytree(store, other, copy_function=os.link, ignore=without)
    document = run.model_dump(mode="json", by_alias=True, exclude_none=True)
    over = {"spec": {"storage": {"uri": other.as_uri()}, "solver": {"checkpointEvery": 1}}}
    again = SelfEvolutionRun.model_validate(merged(document, over))
    assert isinstance(step.inputs, SolverTrainInputs)
    first = other / checkpoint_prefix(own, step.inputs.grpo.updates_per_step) / MANIFEST_NAME
    stopped = _process(again, step, folder / "stopped", until, stop=first.exists)
    _expect(stopped, again, step, ExitCode.TERMINATED, until)
    took = run_step(again, step, folder / "resumed", 0, until)
    digests = [{file.name: file.sha256 for file in committed(each, step).under("model")} for each in (run, again)]
    return {**took, "wall_s_until_stopped": stopped.wall_s, "same_bytes": digests[0] == digests[1]}


@dataclass(frozen=True)
class _Ended:
    """How a process ended."""

    code: int
    wall_s: float
    peak_device_mib: float | None
    peak_process_mib: float
    log: str


def _process(
    run: SelfEvolutionRun,
    step: Step,
    folder: Path,
    until: float,
    processes: int = 1,
    stop: Callable[[], bool] = lambda: False,
) -> _Ended:
    """The phase's process, sent SIGTERM at ``until``, or as soon as ``stop`` says so."""
    config = phase_config(run.spec, run.metadata.name, run.metadata.namespace, step)
    folder.mkdir(parents=True)
    log = folder / "log.txt"
    environment = os.environ | phase_environment(config.model_dump_json(by_alias=True, exclude_none=True), folder)
    environment |= {PROCESSES_ENV: str(processes)} if processes > 1 else {}
    begun = time.perf_counter()
    done = threading.Event()
    with log.open("w") as file, Memory() as memory:
        command = [sys.executable, "-m", "selfevo_trainer"]
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)

        def watch() -> None:
            while not done.wait(0.05):
                if stop() or time.perf_counter() >= until:
                    os.kill(process.pid, signal.SIGTERM)
                    return

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        _, status, usage = os.wait4(process.pid, 0)
        done.set()
        watcher.join()
    wall = round(time.perf_counter() - begun, 1)
    peak = round(usage.ru_maxrss / 1024, 1)
    return _Ended(os.waitstatus_to_exitcode(status), wall, memory.peak_mib, peak, log.read_text())


def _expect(ended: _Ended, run: SelfEvolutionRun, step: Step, code: int, until: float) -> None:
    if ended.code != code:
        late = " when the time was up" if time.perf_counter() >= until else ""
        raise Failed(f"{step.name} of {run.metadata.name} ended with {ended.code}{late}:\n{ended.log[-6000:]}")


def committed(run: SelfEvolutionRun, step: Step) -> Manifest:
    """The manifest that the step has left."""
    place = step_prefix(run.metadata.namespace, step.phase, step.key)
    found = read_manifest(open_store(run.spec.storage.uri), place)
    assert found is not None, f"{step.name} has ended well and is not committed"
    return found


def committed_rollout(run: SelfEvolutionRun) -> bool:
    """Whether the rollout of ``run`` has ended well."""
    step = plan(run.spec).by_name["solver-rollout-1"]
    place = step_prefix(run.metadata.namespace, step.phase, step.key)
    return read_manifest(open_store(run.spec.storage.uri), place) is not None


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
