"""GPU memory of each phase of a run, by formula: the table in docs/sizing.md, or of a manifest.

    python tools/gpu_sizing.py                              # writes the tables of docs/sizing.md anew
    python tools/gpu_sizing.py examples/qwen3-4b-base.yaml  # what this manifest's phases take on one GPU

Sources. Model states: weights, gradients and Adam's two moments, each once (Rajbhandari et al., ZeRO, arXiv 1910.02054,
section 3.1); here all four are float32, which is 16 bytes a parameter (docs/decisions/0003-master-weights.md).
Activations: those that the backward pass of a layer needs, counted as Korthikanti et al. (arXiv 2205.05198, section 4)
do, for the layers of Llama and Qwen3 under autocast. tests/docs/test_sizing.py compares the counts with what torch
saves and what transformers allocates for small models of the same kind. No GPU has checked them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.spec.engines import Engine, TransformersEngine
from selfevo_contract.spec.grpo import Grpo
from selfevo_contract.spec.lora import Lora
from selfevo_contract.spec.pods import Pods
from selfevo_contract.spec.resources import Resources
from selfevo_contract.spec.run import RunSpec

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "sizing.md"
BEGIN, END = "<!-- sizes: made by tools/gpu_sizing.py -->", "<!-- sizes end -->"
GIB = 1 << 30

PROMPT_TOKENS = 256
"""Of the Challenger's own prompt, or of a question with its system message. A guess on the large side."""
RESERVE = 0.10
"""Share on top, for what no count has: fragments of the allocator, workspaces, the batch itself. A rule of thumb."""
CONTEXT_GIB = 1.0
"""CUDA's own, and NCCL's buffers."""
CARDS = {"24 GB": 22.0, "48 GB": 44.5, "80 GB": 79.0, "141 GB": 139.0, "180 GB": 178.0}
"""Usual GPUs (L4, L40S, H100, H200, B200) and the GiB that a program finds on them."""


@dataclass(frozen=True)
class Architecture:
    """Sizes from a model's config.json. Letters in the formulas: h hidden, f intermediate, q heads x head size,
    k key-value heads x head size, s tokens of a sequence."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    tied: bool
    qk_norm: bool
    """Qwen3 normalises queries and keys, Llama does not."""

    @property
    def q(self) -> int:
        return self.heads * self.head_size

    @property
    def k(self) -> int:
        return self.kv_heads * self.head_size

    @property
    def parameters(self) -> int:
        norms = 2 * self.hidden + (2 * self.head_size if self.qk_norm else 0)
        layer = self.hidden * (2 * self.q + 2 * self.k) + 3 * self.hidden * self.intermediate + norms
        return self.vocabulary * self.hidden * (1 if self.tied else 2) + self.layers * layer + self.hidden

    def adapter(self, lora: Lora) -> int:
        """Parameters of an adapter: rank x (inputs + outputs) of each matrix that has one."""
        h, f, q, k = self.hidden, self.intermediate, self.q, self.k
        sides = {"q_proj": h + q, "k_proj": h + k, "v_proj": h + k, "o_proj": q + h}
        sides |= {"gate_proj": h + f, "up_proj": h + f, "down_proj": f + h}
        chosen = sides if lora.target_modules is None else [name for name in lora.target_modules if name in sides]
        return self.layers * lora.rank * sum(sides[name] for name in chosen)

    def saved_by_a_layer(self, sequence: int) -> int:
        """Bytes for each token that the backward pass of one layer needs, with fused attention.

        26h   two norms in float32 (input and result: 16h), their results cast for q, k, v, gate and up (10h)
        8f    gate, its SiLU, up and the product, in bfloat16
        8q    query, keys and values repeated for all heads, result of attention
        14q+6k, for 8q, where queries and keys are normalised in float32
        4     a head: the log-sum-exp of attention; with norms, a scale for each query and key head as well
        2s    the padding mask of a sequence, in bfloat16
        """
        attention = 8 * self.q + 4 * self.heads
        if self.qk_norm:
            attention += 6 * self.q + 6 * self.k + 4 * (self.heads + self.kv_heads)
        return 26 * self.hidden + 8 * self.intermediate + attention + 2 * sequence + 8

    def cached(self, bytes_each: int) -> int:
        """Bytes of keys and values for one token, in all layers."""
        return self.layers * 2 * self.k * bytes_each


MODELS = {
    "Qwen3-0.6B-Base": Architecture(1024, 3072, 28, 16, 8, 128, 151936, True, True),
    "Qwen3-1.7B-Base": Architecture(2048, 6144, 28, 16, 8, 128, 151936, True, True),
    "Qwen3-4B-Base": Architecture(2560, 9728, 36, 32, 8, 128, 151936, True, True),
    "Qwen3-8B-Base": Architecture(4096, 12288, 36, 32, 8, 128, 151936, False, True),
    "OctoThinker-3B-Hybrid-Base": Architecture(3072, 8192, 28, 24, 8, 128, 128256, True, False),
    "OctoThinker-8B-Hybrid-Base": Architecture(4096, 14336, 32, 32, 8, 128, 128256, False, False),
}
"""The models of the examples and their small siblings. OctoThinker has the sizes of Llama 3.2 3B and Llama 3.1 8B."""


@dataclass(frozen=True)
class Need:
    """Bytes on one GPU, of what is there at the same time. The phase takes the largest of its moments."""

    phase: str
    gpus: int
    held: int
    """Weights and optimizer state, through the whole phase."""
    backward: int
    """Gradients and activations of one pass; 0 where nothing is trained."""
    generation: int
    """Keys and values of what is generated at once."""

    @property
    def total(self) -> float:
        """GiB on one GPU, with the reserve."""
        return (self.held + max(self.backward, self.generation)) * (1 + RESERVE) / GIB + CONTEXT_GIB

    @property
    def card(self) -> str:
        """The smallest usual GPU that holds it."""
        return next((name for name, room in CARDS.items() if self.total <= room), "none")


def training(
    phase: str, model: Architecture, grpo: Grpo, dtype_bytes: int, gpus: int, solver: Engine | None = None
) -> Need:
    """One process of challenger-train or solver-train, data parallel over ``gpus``.

    Args:
        solver: How the frozen Solver answers in the Challenger's training; None where there is none.
    """
    whole, adapted = model.parameters, grpo.lora is not None
    count = model.adapter(grpo.lora) if grpo.lora else whole
    sequence = PROMPT_TOKENS + grpo.max_completion_length
    computed = 2 if dtype_bytes == 2 else 0
    # Weights and moments; the frozen reference, which is loaded as the policy is; DDP's own copy of the gradients.
    held = (4 + 8 + (4 if grpo.beta > 0 else 0) + (4 if gpus > 1 else 0)) * count
    held += dtype_bytes * whole if adapted else 0  # the base under the adapter, in the run's dtype
    at_once = min(_sequences(grpo, gpus) * sequence, max(grpo.generation_batch_tokens, sequence))
    generating = at_once * _cache_bytes(model, dtype_bytes if adapted else 4)
    if isinstance(solver, TransformersEngine):
        held += dtype_bytes * whole
        generating = max(generating, solver.batch_size * sequence * _cache_bytes(model, dtype_bytes))
    tokens = grpo.per_device_train_batch_size * sequence
    layer = model.saved_by_a_layer(sequence)
    # Recomputed, a layer keeps its input only (float32), and one layer at a time is there whole.
    kept = 4 * model.hidden * model.layers + layer if grpo.gradient_checkpointing else layer * model.layers
    # Autocast's copies of the weights live until the pass ends; generation makes them as well.
    return Need(phase, gpus, held + computed * count, 4 * count + tokens * kept, generating)


def generation(phase: str, model: Architecture, engine: Engine, longest: int, dtype_bytes: int) -> Need:
    """One process of solver-rollout or evaluate: one model at a time."""
    batch = engine.batch_size if isinstance(engine, TransformersEngine) else 1
    cache = batch * (PROMPT_TOKENS + longest) * _cache_bytes(model, dtype_bytes)
    return Need(phase, 1, dtype_bytes * model.parameters, 0, cache)


def _sequences(grpo: Grpo, gpus: int) -> int:
    """Completions of a step that one process generates, in parts of generationBatchTokens."""
    return -(-grpo.completions_per_step // gpus)


def _cache_bytes(model: Architecture, bytes_each: int) -> int:
    """Of one token: the cache, and one layer's keys and values repeated for all heads while it is computed.

    Training generates under autocast, where transformers keeps keys and values in float32.
    """
    return model.cached(bytes_each) + 2 * model.q * bytes_each


def needs(spec: RunSpec, model: Architecture) -> Iterator[Need]:
    """What each phase of ``spec`` takes on one GPU."""
    dtype_bytes = 4 if spec.model.dtype == "float32" else 2
    challenger, solver = spec.challenger, spec.solver
    on = _gpus(spec, challenger.pods)
    yield training("challenger-train", model, challenger.grpo, dtype_bytes, on, challenger.engine)
    longest = max(challenger.grpo.max_completion_length, solver.grpo.max_completion_length)
    yield generation("solver-rollout", model, spec.rollout.engine, longest, dtype_bytes)
    yield training("solver-train", model, solver.grpo, dtype_bytes, _gpus(spec, solver.pods))
    if spec.evaluation:
        sampling = spec.evaluation.sampling or solver.grpo.sampling
        longest = sampling.max_completion_length
        yield generation("evaluate", model, spec.evaluation.engine, longest, dtype_bytes)


def _gpus(spec: RunSpec, pods: Pods) -> int:
    """Of all pods that train together."""

    def limit(resources: Resources) -> int:
        return sum(int(count) for name, count in resources.limits.items() if name.endswith("/gpu"))

    return max(1, limit(pods.resources) or limit(spec.pods.resources)) * (pods.nodes or spec.pods.nodes or 1)


def with_settings(spec: RunSpec, **grpo: int | Lora) -> RunSpec:
    """``spec`` with other settings of both roles' training."""

    def changed(part: Grpo) -> Grpo:
        return part.model_copy(update=grpo)

    return spec.model_copy(
        update={
            "challenger": spec.challenger.model_copy(update={"grpo": changed(spec.challenger.grpo)}),
            "solver": spec.solver.model_copy(update={"grpo": changed(spec.solver.grpo)}),
        }
    )


def load(path: Path) -> SelfEvolutionRun:
    return SelfEvolutionRun.model_validate(yaml.safe_load(path.read_text()))


def tables() -> str:
    """Two tables: the settings of the examples, and smaller ones that fit more."""
    spec = load(ROOT / "examples" / "qwen3-4b-base.yaml").spec
    small = with_settings(spec, max_completion_length=1024, per_device_train_batch_size=1)
    adapted = with_settings(spec, lora=Lora(), per_device_train_batch_size=2, gradient_checkpointing=True)
    return "\n".join(
        [
            "",
            "**With the settings of examples/qwen3-4b-base.yaml** (answers of up to 4,096 tokens, 8 GPUs a training):",
            "",
            *_table(spec),
            "",
            "**With `maxCompletionLength: 1024` and `perDeviceTrainBatchSize: 1`**, all else as above:",
            "",
            *_table(small),
            "",
            "**With `lora: {}`** in both roles, `perDeviceTrainBatchSize: 2` and `gradientCheckpointing: true`:",
            "",
            *_table(adapted),
            "",
        ]
    )


def _table(spec: RunSpec) -> Iterator[str]:
    yield "| model | parameters | challenger-train | solver-rollout | solver-train | evaluate |"
    yield "|---|---|---|---|---|---|"
    for name, model in MODELS.items():
        cells = [f"{need.total:,.0f} GiB ({_card(need)})" for need in needs(spec, model)]
        yield f"| {name} | {model.parameters / 1e9:.2f} billion | {' | '.join(cells)} |"


def _card(need: Need) -> str:
    return "**no card**" if need.card == "none" else f"{need.card} card"


def page(text: str) -> str:
    """``text`` with the tables in their place."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{tables()}{END}{after}"


def main(arguments: list[str]) -> None:
    if not arguments:
        PAGE.write_text(page(PAGE.read_text()))
        return
    for argument in arguments:
        run = load(Path(argument))
        model = next((of for name, of in MODELS.items() if f"/{name}" in run.spec.model.uri), None)
        if model is None:
            sys.exit(f"{argument}: spec.model.uri is {run.spec.model.uri!r}, whose sizes are not in MODELS; add them")
        for need in needs(run.spec, model):
            parts = f"held {need.held / GIB:.0f}, backward {need.backward / GIB:.0f}, cache {need.generation / GIB:.0f}"
            print(f"{need.phase:17} on {need.gpus:2} GPUs: {need.total:6.0f} GiB each ({parts}), card: {need.card}")


if __name__ == "__main__":
    main(sys.argv[1:])
