"""Bytes on one GPU, by phase.

Sources. Model states: weights, gradients and Adam's two moments, each once (Rajbhandari et al., ZeRO, arXiv 1910.02054,
section 3.1); here all four are float32, which is 16 bytes a parameter (docs/decisions/0003-master-weights.md).
Activations: those that the backward pass of a layer needs, counted as Korthikanti et al. (arXiv 2205.05198, section 4)
do, for the layers of Llama and Qwen3 under autocast. tests/docs/test_sizing.py compares the counts with what torch
saves and what transformers allocates for small models of the same kind, and benchmarks/memory.py the sums with what
torch's memory tracker finds for the examples. No GPU has checked them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from selfevo_contract.phases import CHALLENGER_TRAIN, EVALUATE, FINETUNE, SOLVER_ROLLOUT, SOLVER_TRAIN, VERIFIER_TRAIN
from selfevo_contract.pods import merged
from selfevo_contract.sizing.architecture import Architecture, bytes_in, known
from selfevo_contract.sizing.backward import gathered_bytes, pass_bytes, staged_bytes
from selfevo_contract.spec.engines import Engine, TransformersEngine
from selfevo_contract.spec.grpo import Grpo
from selfevo_contract.spec.names import Quantity
from selfevo_contract.spec.pods import Pods
from selfevo_contract.spec.rewards import SELF_CERTAINTY
from selfevo_contract.spec.run import RunSpec
from selfevo_contract.spec.verifier import Verifier

GIB = 1 << 30

PROMPT_TOKENS = 256
"""Of the Challenger's own prompt, or of a question with its system message. A guess on the large side."""
JUDGED_TOKENS = 16_384
"""Most tokens that a judge reads at once, each answer counted as its batch's longest."""
CERTAINTY_TOKENS = 4096
"""Of the answers of which the policy's distributions are at hand at once, each counted as the longest there may be; of
one answer at least."""
RESERVE = 0.10
"""Share on top, for what no count has: fragments of the allocator, workspaces, the batch itself. A rule of thumb."""
SENT = 2 * GIB
"""Of weights that go to a server, on the first GPU: vLLM's two buffers (vllm.distributed.weight_transfer). Beside them
lies the largest tensor that is gathered, in float32."""
CONTEXT_GIB = 1.0
"""CUDA's own, and NCCL's buffers."""
CARDS = {"24 GB": 22.0, "48 GB": 44.5, "80 GB": 79.0, "141 GB": 139.0, "180 GB": 178.0}
"""Usual GPUs (L4, L40S, H100, H200, B200) and the GiB that a program finds on them."""


@dataclass(frozen=True)
class Need:
    """Bytes on one GPU, of what is there at the same time. The phase takes the largest of its moments."""

    phase: str
    gpus: int
    held: int
    """Weights and optimizer state, through the whole phase."""
    backward: int
    """Gradients and activations of one pass; 0 where nothing is trained."""
    policy: int
    """Keys and values of what a model in training generates at once, and autocast's copies of its weights; or its
    distributions, where they are more. 0 where none generates."""
    in_cpu: int = 0
    """Bytes in CPU memory beside each GPU, with ``grpo.cpuOffload``: weights, reference, optimizer state, gradients."""
    batch: int = 0
    """Keys and values of one batch of the engine that answers for a frozen model."""
    half_batch: int = 0
    """The same of a batch as the engine transformers makes it once memory has run out: half of the sequences."""

    @property
    def generation(self) -> int:
        """Of whichever generates more at once."""
        return max(self.policy, self.batch)

    @property
    def total(self) -> float:
        """GiB on one GPU, with the reserve."""
        return (self.held + max(self.backward, self.generation)) * (1 + RESERVE) / GIB + CONTEXT_GIB

    @property
    def card(self) -> str:
        """The smallest usual GPU that holds it."""
        return next((name for name, room in CARDS.items() if self.total <= room), "none")


def training(
    phase: str,
    model: Architecture,
    grpo: Grpo,
    dtype_bytes: int,
    gpus: int,
    solver: Engine | None = None,
    *,
    judge: Architecture | None = None,
    certain: bool = False,
) -> Need:
    """One process of challenger-train or solver-train, data parallel over ``gpus``, which share what is held out among
    them with ``grpo.sharding``.

    Args:
        solver: How the frozen Solver answers in the Challenger's training; None where there is none.
        judge: The one that is held beside it; None where there is none.
        certain: The policy's distributions pay, of which a pass has all.
    """
    whole, adapted = model.parameters, grpo.lora is not None
    count = model.adapter(grpo.lora) if grpo.lora else whole
    sequence = PROMPT_TOKENS + grpo.max_completion_length
    computed = 2 if dtype_bytes == 2 else 0
    parts = gpus if grpo.sharded else 1
    # Weights and moments; the frozen reference, which is loaded as the policy is; DDP's own copy of the gradients.
    held = (4 + 8 + (4 if grpo.beta > 0 else 0) + (4 if gpus > parts else 0)) * count // parts
    held += dtype_bytes * whole // parts if adapted else 0  # the base under the adapter, in the run's dtype
    gradients = 4 * count // parts
    in_cpu = held + gradients if grpo.offloaded else 0
    if grpo.offloaded:  # no more than what is on its way to the GPU and back
        held, gradients = staged_bytes(model, parts, adapted_in=dtype_bytes if adapted else 0), 0
    at_once = min(_sequences(grpo, gpus), max(1, grpo.generation_batch_tokens // sequence)) * sequence
    generating = at_once * cache_bytes(model, dtype_bytes if adapted or grpo.sharded else 4, sequence)
    if grpo.sharded:
        generating += gathered_bytes(model, dtype_bytes)
    elif not adapted:  # autocast's copies, of all but an embedding that is a table only
        generating += computed * (whole - (0 if model.tied else model.vocabulary * model.hidden))
    held += dtype_bytes * judge.parameters if judge is not None else 0
    if grpo.policy_server is not None:  # which has GPUs of its own; weights go to it in two buffers
        generating = SENT + 4 * model.vocabulary * model.hidden
    elif grpo.colocated:  # vLLM's own weights, and room for one sequence at least
        generating = dtype_bytes * whole + sequence * cache_bytes(model, dtype_bytes, sequence)
        held += 0 if grpo.vllm_enable_sleep_mode else generating
    batch = half_batch = 0
    if isinstance(solver, TransformersEngine):
        held += dtype_bytes * whole
        batch, half_batch = _batches(solver, sequence, model, dtype_bytes)
    if certain:  # as they are computed, and in float32, which autocast hands over
        positions = max(CERTAINTY_TOKENS, grpo.max_completion_length)
        generating = max(generating, positions * model.vocabulary * (4 + computed))
    backward = pass_bytes(
        model,
        grpo.per_device_train_batch_size * sequence,
        sequence,
        checkpointing=grpo.gradient_checkpointing,
        whole=not adapted,
        computed=computed,
        gathered=dtype_bytes if grpo.sharded else 0,
    )
    return Need(phase, gpus, held, gradients + backward, generating, in_cpu, batch, half_batch)


def judge_training(
    model: Architecture, judge: Architecture, verifier: Verifier, longest: int, dtype_bytes: int
) -> Need:
    """The process of verifier-train. Other models are there before and after the training: ``model`` writes the answers
    of pairs."""
    whole, lora = judge.parameters, verifier.lora
    count = judge.adapter(lora) if lora else whole
    sequence = min(verifier.max_length, PROMPT_TOKENS + longest)
    backward = pass_bytes(
        judge,
        2 * verifier.per_device_train_batch_size * sequence,
        sequence,
        checkpointing=True,
        whole=lora is None,
        computed=2 if dtype_bytes == 2 else 0,
    )
    held = 12 * count + (dtype_bytes * whole if lora else 0)
    writing = generation(VERIFIER_TRAIN.name, model, verifier.engine, longest, dtype_bytes)
    writers = 2 if {"role", "temporal"} & set(verifier.pairs) else 1
    held = max(held, writers * writing.held)
    return replace(writing, held=held, backward=4 * count + backward)


def judge_reading(judge: Architecture, verifier: Verifier, longest: int) -> int:
    """Bytes of a judge that scores: its weights, and of a batch keys and values, which its classifier keeps, and what a
    layer computes, as if all of it stayed to the layer's end."""
    sequence = min(verifier.max_length, PROMPT_TOKENS + longest)
    each = judge.cached(2, sequence) + judge.saved_by_a_layer(sequence, autocast=False)
    return 2 * judge.parameters + max(JUDGED_TOKENS, sequence) * each


def generation(
    phase: str,
    model: Architecture,
    engine: Engine,
    longest: int,
    dtype_bytes: int,
    *,
    judge: Architecture | None = None,
) -> Need:
    """One process of solver-rollout or evaluate: one model at a time, and the ``judge`` beside it, if there is one."""
    sequence = PROMPT_TOKENS + longest
    batch, half_batch = _batches(engine, sequence, model, dtype_bytes)
    held = dtype_bytes * (model.parameters + (judge.parameters if judge is not None else 0))
    return Need(phase, 1, held, 0, 0, batch=batch, half_batch=half_batch)


def judge_model(verifier: Verifier, model: Architecture) -> Architecture:
    """Of the trained judge: the first one's, where its name tells, else the base's."""
    named = known(verifier.model.uri) if verifier.model is not None else None
    return named or model


def _batches(engine: Engine, sequence: int, model: Architecture, dtype_bytes: int) -> tuple[int, int]:
    """Keys and values of a batch of sequences of that many tokens, and of half a batch; of one sequence where the
    engine itself decides how many there are."""
    each = sequence * cache_bytes(model, dtype_bytes, sequence)
    sequences = engine.sequences(sequence) if isinstance(engine, TransformersEngine) else 1
    return sequences * each, max(1, sequences // 2) * each


def _sequences(grpo: Grpo, gpus: int) -> int:
    """Completions of a step that one process generates, in parts of generationBatchTokens."""
    return -(-grpo.completions_per_step // gpus)


def cache_bytes(model: Architecture, bytes_each: int, sequence: int) -> int:
    """Of one token of a sequence of that many: the cache, and one layer's keys and values repeated for all heads while
    it is computed.

    Training generates under autocast, where transformers keeps keys and values in float32; sharded weights are gathered
    in the run's dtype, and so are keys and values.
    """
    return model.cached(bytes_each, sequence) + 2 * model.q * bytes_each


def needs(spec: RunSpec, model: Architecture) -> Iterator[Need]:
    """What each phase of ``spec`` takes on one GPU."""
    dtype_bytes = bytes_in(spec.model.dtype)
    challenger, solver = spec.challenger, spec.solver
    verifier, on = spec.verifier, gpus_of(spec, challenger.pods)
    judge = judge_model(verifier, model) if verifier is not None and verifier.is_beside else None
    yield training(CHALLENGER_TRAIN.name, model, challenger.grpo, dtype_bytes, on, challenger.engine, judge=judge)
    longest = max(challenger.grpo.max_completion_length, solver.grpo.max_completion_length)
    yield generation(SOLVER_ROLLOUT.name, model, spec.rollout.engine, longest, dtype_bytes, judge=judge)
    if verifier is not None and verifier.is_trained:
        yield judge_training(model, judge_model(verifier, model), verifier, longest, dtype_bytes)
    certain, on = solver.reward.mode == SELF_CERTAINTY, gpus_of(spec, solver.pods)
    yield training(SOLVER_TRAIN.name, model, solver.grpo, dtype_bytes, on, judge=judge, certain=certain)
    if spec.evaluation:
        sampling = spec.evaluation.sampling or solver.grpo.sampling
        longest = sampling.max_completion_length
        yield generation(EVALUATE.name, model, spec.evaluation.engine, longest, dtype_bytes)
    if spec.finetune:
        by = spec.finetune.training(solver.grpo)
        if spec.finetune.kind == "sft":  # it generates nothing
            by = by.model_copy(update={"generation_batch_tokens": 1})
        yield training(FINETUNE.name, model, by, dtype_bytes, 1)


def gpus_of(spec: RunSpec, pods: Pods) -> int:
    """Of all pods that train together."""
    return gpus_of_pod(spec, pods) * (merged(spec.pods, pods).nodes or 1)


def gpus_of_pod(spec: RunSpec, pods: Pods) -> int:
    """Of one pod; 1 where none are named."""
    return max(1, named_gpus(spec, pods))


def named_gpus(spec: RunSpec, pods: Pods) -> int:
    """Of one pod, by limits and claims of ``pods`` over those of the run."""
    asked = merged(spec.pods, pods)
    by_limits = sum(_whole(count) for name, count in asked.resources.limits.items() if name.endswith("/gpu"))
    return by_limits + sum(claim.gpus or 0 for claim in asked.resource_claims)


def _whole(count: Quantity) -> int:
    """A number of GPUs; 0 of what is written as nobody writes one, which the pods are refused for."""
    return int(count) if str(count).isdecimal() else 0
