"""The ways of training that benchmarks/gpu.py compares on one curriculum: the phase solver-train, and TRL alone.

    whole      all weights                      whole with `lora`: an adapter
    fsdp       all weights in shards, one process a GPU; with two GPUs or more
    colocate   all weights, completions by vLLM in the same process; with vLLM and a GPU
    trl        TRL's GRPOTrainer as its documentation has it, with the numbers of `whole`

On a machine without GPUs `whole`, `lora` and `trl` run.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from gpu_phases import Failed
from selfevo_contract.artifacts import step_prefix
from selfevo_contract.phases import SolverTrainInputs
from selfevo_contract.plan import Step
from selfevo_contract.rows import CURRICULUM, CurriculumRow
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.sizing.architecture import Architecture
from selfevo_contract.sizing.speeds import SPEEDS
from selfevo_store import fetch_rows, open_store, read_manifest

LORA = {"rank": 32, "alpha": 32.0}


def ways(gpus: int) -> dict[str, dict[str, Any]]:
    """Those that can run here: what they add to solver.grpo."""
    fsdp = {"fsdp": {"sharding": "fsdp"}} if gpus > 1 else {}
    colocate = {"colocate": {"generation": "vllm"}} if gpus and importlib.util.find_spec("vllm") else {}
    return {"whole": {}, **colocate, **fsdp, "lora": {"lora": LORA}}


def variant(run: SelfEvolutionRun, way: str, changes: dict[str, Any]) -> SelfEvolutionRun:
    """``run`` with its Solver trained in another way, on the same curriculum; its steps are never another way's."""
    document = run.model_dump(mode="json", by_alias=True, exclude_none=True)
    grpo = document["spec"]["solver"]["grpo"]
    grpo |= changes | {"adamEpsilon": 1e-8 * (1 + 1e-3 * (1 + len(way)))}
    document["metadata"] = {"name": f"{run.metadata.name}-{way}"}
    return SelfEvolutionRun.model_validate(document)


def model_flops(inputs: SolverTrainInputs, model: Architecture, prompt: int) -> float:
    """Of the updates of a training, forward and backward, without what is computed a second time
    (PaLM, arXiv 2204.02311, appendix B). An adapter's training leaves the base's gradients out, a third."""
    grpo = inputs.grpo
    sequence = prompt + grpo.max_completion_length
    tokens = grpo.completions_per_step * grpo.max_steps * grpo.num_iterations * sequence
    each = 6 * model.parameters + 12 * model.layers * model.q * sequence
    return tokens * each * (2 / 3 if grpo.lora else 1)


def peak_flops(gpu: str | None) -> float | None:
    """Of a GPU by its name, in 16 bits, as `selfevo size` has it; None of one that is not known."""
    for card in SPEEDS.values():
        if gpu is not None and card.tflops.what.split(",")[0].split()[0] in gpu.replace(",", " ").split():
            return card.tflops.value * 1e12
    return None


def with_utilization(measured: dict[str, Any], flops: float, peak: float | None, gpus: int) -> dict[str, Any]:
    """``measured`` with the share of the GPUs' peak that the updates reach (MFU)."""
    training = measured["timings_s"].get("training", 0.0)
    reached = flops / training if training else 0.0
    mfu = round(reached / (peak * max(1, gpus)), 4) if peak else None
    return measured | {"training_tflops": round(reached / 1e12, 4), "mfu": mfu}


def curriculum_of(run: SelfEvolutionRun, rollout: Step) -> list[CurriculumRow]:
    """What the rollout has committed."""
    store = open_store(run.spec.storage.uri)
    prefix = step_prefix(run.metadata.namespace, rollout.phase, rollout.key)
    manifest = read_manifest(store, prefix)
    assert manifest is not None
    return fetch_rows(store, prefix, manifest, CURRICULUM)


def bare(inputs: SolverTrainInputs, rows: list[CurriculumRow], base: Path, folder: Path) -> dict[str, Any]:
    """TRL alone, in a process of its own.

    Raises:
        Failed: with the end of its log.
    """
    folder.mkdir(parents=True)
    (folder / "inputs.json").write_text(inputs.model_dump_json(by_alias=True))
    (folder / "rows.json").write_text(json.dumps([[row.question, row.answer] for row in rows]))
    begun = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, __file__, str(folder), str(base)], capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise Failed(f"TRL alone ended with {ended.returncode}:\n{ended.stderr[-4000:]}")
    recorded: dict[str, Any] = json.loads((folder / "took.json").read_text())
    return {"wall_s": round(time.perf_counter() - begun, 1), **recorded}


def train_bare(folder: Path, base: Path) -> None:
    """GRPOTrainer with the inputs in ``folder``; writes what it took."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.trainer.grpo_trainer import GRPOTrainer

    from selfevo_trainer.grpo.config import grpo_config
    from selfevo_trainer.grpo.dealing import schedule

    inputs = SolverTrainInputs.model_validate_json((folder / "inputs.json").read_text())
    rows: list[list[str]] = json.loads((folder / "rows.json").read_text())
    chosen = [rows[i] for i in schedule(len(rows), inputs.grpo, inputs.seed)]
    system = inputs.prompt.system or ""

    def reward(completions: list[Any], label: list[str], **_: Any) -> list[float | None]:
        texts = (completion[0]["content"] for completion in completions)
        return [float(f"\\boxed{{{truth}}}" in text) for text, truth in zip(texts, label, strict=True)]

    def prompt(question: str) -> list[dict[str, str]]:
        return [{"role": "system", "content": system}, {"role": "user", "content": question}]

    tokenizer = AutoTokenizer.from_pretrained(str(base), padding_side="left")
    if tokenizer.chat_template is None:  # as the phase joins them
        tokenizer.chat_template = "{% for message in messages %}{{ message['content'] + '\\n' }}{% endfor %}"
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(str(base), dtype="float32"),
        reward_funcs=reward,
        args=grpo_config(inputs.grpo, inputs.loading, inputs.seed, folder / "out"),
        train_dataset=Dataset.from_list([{"prompt": prompt(question), "label": label} for question, label in chosen]),
        processing_class=tokenizer,
    )
    model: Any = trainer.model
    generate, generating = model.generate, [0.0]

    def timed(*args: Any, **kwargs: Any) -> Any:
        begun = time.perf_counter()
        try:
            return generate(*args, **kwargs)
        finally:
            generating[0] += time.perf_counter() - begun

    model.generate = timed
    begun = time.perf_counter()
    trainer.train()
    trainer.save_model(str(folder / "out" / "model"))
    spent = time.perf_counter() - begun
    peak = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None
    timings = {"generation": round(generating[0], 3), "training": round(spent - generating[0], 3)}
    (folder / "took.json").write_text(json.dumps({"timings_s": timings, "peak_allocated_mib": peak}))


if __name__ == "__main__":
    train_bare(Path(sys.argv[1]), Path(sys.argv[2]))
