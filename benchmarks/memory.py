"""The formula of docs/sizing.md beside torch's own memory tracker, for the examples' real sizes and without a GPU.
Their texts are written by transformers here, which takes the most memory beside what is trained, and eight GPUs train.

    python benchmarks/memory.py                    # the examples of 3B to 8B, whole, in shards, as adapters: an hour
    python benchmarks/memory.py --layers 4 --out - # the same models with four layers each, in two minutes

What runs is torch's and transformers' code on tensors without contents (FakeTensorMode), watched by
torch.distributed._tools.mem_tracker.MemTracker: one pass of training as TRL makes it, of the second update or a later
one, so that gradients and moments are there; and one token of generation on a cache that is as long as it may be.
The two kernels of TRL's output layer are Triton's, which work in place; what takes their place on a CPU does not, and
is therefore left out here. With sharding the process is one of several that are not there (memory_sharded.py).
What the allocator of a GPU adds (fragments, workspaces) no tracker sees.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils.weak import WeakIdKeyDictionary
from transformers import AutoModelForCausalLM, DynamicCache, LlamaConfig, Qwen3Config
from trl.kernels import chunked_logprob
from trl.trainer.utils import add_fused_lm_head

from machine import provenance
from memory_sharded import processes, shard
from runs import by_transformers
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.sizing.architecture import MODELS, Architecture
from selfevo_contract.sizing.memory import GIB, PROMPT_TOKENS, Need, needs
from selfevo_contract.sizing.suggestions import with_settings
from selfevo_contract.spec.challenger import Challenger
from selfevo_contract.spec.engines import TransformersEngine
from selfevo_contract.spec.run import RunSpec
from selfevo_contract.spec.solver import Solver
from selfevo_trainer.grpo import sharding
from selfevo_trainer.models import adapters

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = {
    "qwen3-4b-base": "Qwen3-4B-Base",
    "qwen3-8b-base": "Qwen3-8B-Base",
    "qwen3-4b-lora": "Qwen3-4B-Base",
    "octothinker-3b-hybrid-base": "OctoThinker-3B-Hybrid-Base",
    "octothinker-8b-hybrid-base": "OctoThinker-8B-Hybrid-Base",
}


@dataclass(frozen=True)
class Tracked:
    """GiB of one process of a phase that trains."""

    example: str
    phase: str
    sharded: bool
    layers: int
    formula: float
    """The larger of the formula's two moments, without the reserve and CUDA's own."""
    tracked: float
    """The same by the tracker."""
    formula_pass: float
    tracked_pass: float
    formula_generation: float
    tracked_generation: float

    @property
    def ratio(self) -> float:
        """Formula over tracker."""
        return self.formula / self.tracked


def compare(example: str, spec: RunSpec, model: Architecture, phases: list[str] | None = None) -> Iterator[Tracked]:
    """The formula and the tracker for each phase of ``spec`` that trains."""
    for need in needs(spec, model):
        if need.backward and (phases is None or need.phase in phases):
            moments = need.held + need.backward, need.held + need.generation
            seen = track(spec, model, need)
            yield Tracked(
                example,
                need.phase,
                role_of(spec, need).grpo.sharded,
                model.layers,
                *(round(value / GIB, 2) for value in (max(moments), max(seen))),
                *(round(value / GIB, 2) for pair in zip(moments, seen, strict=True) for value in pair),
            )


def track(spec: RunSpec, model: Architecture, need: Need) -> tuple[int, int]:
    """Bytes at the largest moment of a training pass, and of a token of generation."""
    grpo, dtype = role_of(spec, need).grpo, getattr(torch, spec.model.dtype)
    sequence = PROMPT_TOKENS + grpo.max_completion_length
    with processes(need.gpus, dtype) if grpo.sharded else nullcontext() as sharing, FakeTensorMode():
        policy, frozen = _policy(model, grpo, dtype)
        if sharing:
            policy, frozen = shard(sharing, policy, frozen)
        trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=not sharing)
        for parameter in trained:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        buckets = need.gpus > 1 and not sharing  # DDP's
        beside = [*frozen, *([torch.zeros(sum(p.numel() for p in trained))] if buckets else [])]
        # Sharded weights are gathered in the dtype in which they compute, and nothing runs under autocast.
        computing = torch.float32 if sharing else dtype
        engine, solver = spec.challenger.engine, None
        if need.phase.startswith("challenger") and isinstance(engine, TransformersEngine):
            beside.append(solver := _made(model, dtype).requires_grad_(False))
        gradients = [sharding.own_part(parameter.grad) for parameter in trained]
        with _kernels_in_place():
            tracker = _tracker(policy, optimizer, *beside, *gradients)
            with tracker:
                _pass(policy, grpo.per_device_train_batch_size, sequence, computing)
        a_pass = _peak(tracker)
        # TRL generates when the gradients are gone (zero_grad sets them to none).
        for parameter in trained:
            parameter.grad = None
        del gradients, tracker
        rows = min(grpo.completions_per_step // need.gpus, max(1, grpo.generation_batch_tokens // sequence))
        if sharing:  # a token before it leaves the output layer gathered
            _one_token(policy, model, 1, 2, computing, dtype)
        tracker = _tracker(policy, optimizer, *beside)
        with tracker:
            _one_token(policy, model, rows, sequence, computing, dtype if grpo.lora or sharing else torch.float32)
        generation = _peak(tracker)
        if solver is not None and isinstance(engine, TransformersEngine):
            tracker = _tracker(policy, optimizer, *beside)
            with tracker:
                _one_token(solver, model, engine.sequences(sequence), sequence, dtype, dtype)
            generation = max(generation, _peak(tracker))
        return a_pass, generation


def role_of(spec: RunSpec, need: Need) -> Challenger | Solver:
    """The part of ``spec`` that says how the phase trains."""
    return spec.challenger if need.phase.startswith("challenger") else spec.solver


def _config(model: Architecture) -> Any:
    return (Qwen3Config if model.qk_norm else LlamaConfig)(
        vocab_size=model.vocabulary,
        hidden_size=model.hidden,
        intermediate_size=model.intermediate,
        num_hidden_layers=model.layers,
        num_attention_heads=model.heads,
        num_key_value_heads=model.kv_heads,
        head_dim=model.head_size,
        tie_word_embeddings=model.tied,
        max_position_embeddings=1 << 20,
    )


def _made(model: Architecture, dtype: torch.dtype) -> Any:
    with torch.device("cpu"):
        return AutoModelForCausalLM.from_config(_config(model), dtype=dtype)  # type: ignore[no-untyped-call]


def _policy(model: Architecture, grpo: Any, dtype: torch.dtype) -> tuple[Any, list[Any]]:
    """What is trained, as `load_for_training` and TRL make it, and the reference beside it."""
    policy = _made(model, dtype if grpo.lora else torch.float32)
    # TRL wraps the head before the adapter is on; `begin` is given a model that is already there.
    add_fused_lm_head(policy, temperature=1.0, outputs=("log_probs", "entropy"))
    if grpo.lora:
        # The adapter is made where the model is, in float32; peft moves it there too, which such tensors cannot.
        with mock.patch.object(torch.nn.Module, "to", lambda module, *_, **__: module):
            policy = adapters.begin(policy, grpo.lora, seed=0)
    if grpo.gradient_checkpointing:
        policy.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        policy.enable_input_require_grads()
    policy.train()
    if grpo.beta == 0:
        return policy, []
    if grpo.lora:
        return policy, [torch.zeros_like(p) for p in policy.parameters() if p.requires_grad]
    return policy, [_made(model, torch.float32)]


def _pass(policy: Any, rows: int, sequence: int, dtype: torch.dtype) -> None:
    """Forward and backward over ``rows`` sequences, log-probabilities and entropies as TRL asks for them."""
    ids = torch.ones(rows, sequence, dtype=torch.long)
    mask = torch.ones_like(ids)
    with _autocast(dtype):
        output = policy(input_ids=ids, attention_mask=mask, labels=ids.clone(), fused_lm_head=True, use_cache=False)
    output.log_probs.mean().backward()


def _one_token(
    policy: Any, model: Architecture, rows: int, sequence: int, dtype: torch.dtype, kept: torch.dtype
) -> None:
    """The last token of ``rows`` sequences, whose keys and values are of type ``kept``."""
    cache = DynamicCache()
    for layer in range(model.layers):
        shape = (rows, model.kv_heads, sequence - 1, model.head_size)
        cache.update(torch.zeros(shape, dtype=kept), torch.zeros(shape, dtype=kept), layer)
    ids, mask = torch.ones(rows, 1, dtype=torch.long), torch.ones(rows, sequence, dtype=torch.long)
    policy.eval()
    with torch.no_grad(), _autocast(dtype):
        policy(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True)


def _autocast(dtype: torch.dtype) -> Any:
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype != torch.float32)


class _Tracker(MemTracker):  # type: ignore[no-untyped-call]  # not typed
    """The sum alone: without modules' own peaks, which take most of the time, and without the hooks that name gradients
    and that frozen weights refuse."""

    def _track_module_params_and_buffers(self, module: Any, install_grad_hooks: bool = True) -> Any:
        return super()._track_module_params_and_buffers(module, install_grad_hooks=False)

    def _update_peak_stats(self, peak_state: Any) -> None:
        modules, self.memory_tracking = self.memory_tracking, WeakIdKeyDictionary()
        super()._update_peak_stats(peak_state)
        self.memory_tracking = modules


def _tracker(*what: Any) -> MemTracker:
    tracker = _Tracker()
    tracker.track_external(*what)
    return tracker


def _peak(tracker: MemTracker) -> int:
    snapshot = tracker.get_tracker_snapshot("peak")
    return max(int(kinds["Total"]) for kinds in snapshot.values())


@contextmanager
def _kernels_in_place() -> Iterator[None]:
    """TRL's output layer without the temporaries that only a CPU's way has."""

    def nothing(*arguments: Any, **options: Any) -> None:
        """In place, on what its first argument is."""

    names = ("_forward_tile", "_backward_tile", "_addmm_fp32")
    patches = [mock.patch.object(chunked_logprob, name, nothing) for name in names]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


def variants(examples: list[str], sharding: str | None = None) -> Iterator[tuple[str, RunSpec]]:
    """Each example with its texts by transformers, and one that shards also without."""
    for example in examples:
        spec = SelfEvolutionRun.model_validate(by_transformers(example)).spec
        sharded = spec.solver.grpo.sharded
        if sharded and sharding != "without":
            yield example, spec
        if sharding != "with":
            yield example, with_settings(spec, sharding=None)


def main() -> int:
    """Write the comparison; 1 when the two are more than a tenth apart somewhere."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", nargs="+", choices=list(EXAMPLES), default=list(EXAMPLES))
    parser.add_argument("--sharding", choices=["with", "without"], help="Only so; both where the example shards.")
    parser.add_argument("--layers", type=int, help="So many of each model's layers; all when not given.")
    parser.add_argument("--out", default=str(ROOT / "benchmarks" / "results" / "memory.json"))
    options = parser.parse_args()
    found = []
    for example, spec in variants(options.examples, options.sharding):
        model = MODELS[EXAMPLES[example]]
        if options.layers:
            model = replace(model, layers=options.layers)
        for one in compare(example, spec, model):
            how = " in shards" if one.sharded else ""
            print(
                f"{one.example} {one.phase}{how}: formula {one.formula}, tracker {one.tracked} ({one.ratio:.3f});"
                f" a pass {one.formula_pass} and {one.tracked_pass},"
                f" generation {one.formula_generation} and {one.tracked_generation}",
                flush=True,
            )
            found.append(asdict(one) | {"ratio": round(one.ratio, 3)})
    if options.out != "-" and (out := Path(options.out)).exists():
        now = {(row["example"], row["sharded"]) for row in found}
        kept = [row for row in json.loads(out.read_bytes())["gib"] if (row["example"], row["sharded"]) not in now]
        found = [*kept, *found]
    result = {**provenance(), "torch": torch.__version__, "gib": found}
    if options.out != "-":
        Path(options.out).write_text(json.dumps(result, indent=1) + "\n")
    return int(any(abs(one["ratio"] - 1) > 0.1 for one in found))


if __name__ == "__main__":
    sys.exit(main())
