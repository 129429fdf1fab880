"""Hours and GPU hours of a run, step by step, by the figures of `speeds`. Pure.

Sources. A token's time is the time to read weights, keys and values and to multiply, as in Pope et al. (Efficiently
Scaling Transformer Inference, arXiv 2211.05102, section 2), over what of it an engine reaches. A pass of training is
6 P + 12 x layers x q x s FLOPs a token (Chowdhery et al., PaLM, arXiv 2204.02311, appendix B): a third of it forward.
An engine's token and a pass take some time however small the model is, and each attempt starts (`starting`): measured.
Not in it: waiting in queues, the pull of images, attempts that fail, grading, uploads that training waits for.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import ceil

from selfevo_contract.phases import PHASES
from selfevo_contract.plan import Plan, Step
from selfevo_contract.pods import nodes_of
from selfevo_contract.process import judge_server_of
from selfevo_contract.sizing.architecture import Architecture
from selfevo_contract.sizing.memory import CARDS, GIB, PROMPT_TOKENS, gpus_of_pod, judge_model
from selfevo_contract.sizing.speeds import (
    DECODING,
    EAGER_LAYER,
    HOST_LINK,
    LAYER,
    LINK,
    LONGEST,
    MEAN_LENGTH,
    PASS,
    SPEEDS,
    TOKEN,
    TRAINING,
)
from selfevo_contract.sizing.starting import starting_seconds
from selfevo_contract.sizing.work import Asked, Work, work_of
from selfevo_contract.spec.engines import Engine, ServerEngine, TransformersEngine, VllmEngine
from selfevo_contract.spec.grpo import Grpo
from selfevo_contract.spec.run import RunSpec

_POLICY_SEQUENCES = 256
"""Sequences that the policy's own vLLM works on at once: vLLM's default on large cards is more."""


@dataclass(frozen=True)
class Took:
    """What one step takes."""

    step: Step
    gpus: int
    """Of all its pods, servers beside the trainer included."""
    starting: float
    """Hours of an attempt before anything is computed."""
    generating: float
    """Hours in which completions are written."""
    training: float
    """Hours in which weights are trained."""
    tokens: float
    """Generated ones."""

    @property
    def hours(self) -> float:
        return self.starting + self.generating + self.training

    @property
    def gpu_hours(self) -> float:
        return self.hours * self.gpus


@dataclass(frozen=True)
class Lengths:
    """Tokens of completions."""

    mean: int | None = None
    """On average; a share of the longest that there may be when not given."""
    full: bool = False
    """Every completion is as long as it may be."""

    def of(self, longest: int) -> float:
        """On average, where ``longest`` is the limit."""
        if self.full:
            return longest
        return min(longest, self.mean) if self.mean else max(1.0, MEAN_LENGTH.value * longest)


@dataclass(frozen=True)
class Machine:
    """A model on a card."""

    model: Architecture
    card: str
    bytes_each: int = 2
    """Of a weight."""

    def token_seconds(self, sequences: float, context: float, moved: float) -> float:
        """Of one token of each of ``sequences``, at the ideal speed: weights, and ``moved`` bytes for each of the
        ``context`` tokens of a sequence, are read, and multiplied with."""
        speed = SPEEDS[self.card]
        read = self.bytes_each * self.model.parameters + sequences * context * moved
        return read / (speed.bandwidth.value * 1e9) + 2 * self.model.parameters * sequences / self._flops

    def prefill_seconds(self, tokens: float) -> float:
        """Of prompts; as far from the ideal as a pass of training is."""
        return 2 * self.model.parameters * tokens / (self._flops * TRAINING.value)

    def by_transformers(
        self, sequences: int, at_once: int, longest: float, cached: int, *, waiting: float = 0.0
    ) -> float:
        """Seconds of one process. Each batch goes on until its longest completion ends.

        Args:
            cached: bytes of a number in the cache.
            waiting: seconds in which each token's weights come from elsewhere.
        """
        batches = ceil(sequences / max(1, at_once))
        size = sequences / batches if batches else 0
        # At each token the cache is copied to grow by one (read, written), read, repeated for all heads, read.
        repeated = 3 + 2 * self.model.heads / self.model.kv_heads
        moved = self.model.cached(cached) * repeated
        token = self.token_seconds(size, PROMPT_TOKENS + longest / 2, moved) / DECODING.value
        token = max(token, self.model.layers * LAYER.value / 1e3) + waiting
        return batches * longest * token + self.prefill_seconds(sequences * PROMPT_TOKENS)

    def gathering_seconds(self, grpo: Grpo, processes: int) -> float:
        """In which all weights come from the other GPUs, and before that this GPU's share from CPU memory."""
        if not grpo.sharded:
            return 0.0
        gathered = self.bytes_each * self.model.parameters / (LINK.value * 1e9)
        share = (4 if grpo.lora is None else self.bytes_each) * self.model.parameters / processes
        return gathered + (share / (HOST_LINK.value * 1e9) if grpo.offloaded else 0.0)

    def by_vllm(
        self, sequences: int, at_once: int, mean: float, memory: float, cards: int = 1, *, eager: bool = False
    ) -> float:
        """Seconds of one engine on ``cards``. A sequence that ends gives its place to the next.

        Args:
            memory: share of each card's memory that the engine takes.
            eager: it has no CUDA graphs.
        """
        room = memory * CARDS[self.card] * GIB * cards - self.bytes_each * self.model.parameters
        each = self.model.cached(2) * (PROMPT_TOKENS + mean)
        size = min(sequences, at_once, max(1, int(room / each)))
        token = self.token_seconds(size, PROMPT_TOKENS + mean / 2, self.model.cached(2)) / DECODING.value
        token = max(token / cards, TOKEN.value / 1e3, self.model.layers * EAGER_LAYER.value / 1e3 if eager else 0)
        rounds = max(1.0, sequences / size) if sequences else 0
        return rounds * mean * token + self.prefill_seconds(sequences * PROMPT_TOKENS) / cards

    def pass_seconds(self, grpo: Grpo, sequences: int, longest: float) -> float:
        """Seconds of one card to train ``sequences`` that are padded to ``longest`` tokens, once a numIterations."""
        length = PROMPT_TOKENS + longest
        forward = 2 * self.model.parameters + 4 * self.model.layers * self.model.q * length
        passes = 3.0 if grpo.lora is None else 2.0  # there and back; of frozen weights no gradient is worked out
        passes = (passes + grpo.gradient_checkpointing) * grpo.num_iterations
        passes += grpo.beta > 0  # the reference
        passes += grpo.updates_per_step > 1 or grpo.generation == "vllm"  # log-probabilities before the first update
        at_once = ceil(sequences / grpo.per_device_train_batch_size)
        least = at_once * self.model.layers * PASS.value / 1e3
        return passes * max(sequences * length * forward / (self._flops * TRAINING.value), least)

    @property
    def _flops(self) -> float:
        return SPEEDS[self.card].tflops.value * 1e12


def pods_in_all(step: Step, spec: RunSpec) -> int:
    """Shards of the step, or the pods that train together."""
    return nodes_of(spec, step.phase) if step.type.distributed else step.shards


def took(step: Step, spec: RunSpec, model: Architecture, card: str, lengths: Lengths) -> Took:
    """What ``step`` takes on cards of ``card``."""
    settings = getattr(spec, PHASES[step.phase].part)
    engine, here = getattr(settings, "engine", TransformersEngine()), Machine(model, card)
    pods = pods_in_all(step, spec)
    in_pod = gpus_of_pod(spec, settings.pods)
    # A process for each GPU trains; where nothing trains, one process has all GPUs of its pod.
    processes, own = (pods * in_pod, 1) if step.type.distributed else (pods, in_pod)
    servers = engine.gpus_in_all if isinstance(engine, ServerEngine) and step.type.generates else 0
    work = work_of(step.inputs)
    if work.trained is not None and (policy := work.trained.policy_server) is not None:
        servers += policy.gpus_in_all
    judge = judge_server_of(spec, step)
    if judge is not None:
        servers += judge.engine.gpus_in_all
    seconds = sum(_answering(here, part, engine, processes, own, pods, lengths) for part in work.asked)
    passes = 0.0
    if work.trained is not None:
        count = work.given or work.asked[0].sequences
        longest = LONGEST.value * work.trained.max_completion_length
        passes = here.pass_seconds(work.trained, ceil(count / processes), longest)
    judging = here if spec.verifier is None else Machine(judge_model(spec.verifier, model), card)
    if work.scored is not None:  # read as prompts are
        longest = PROMPT_TOKENS + LONGEST.value * work.scored.longest
        readers = processes if judge is None else pods * max(1, judge.engine.gpus_in_all)
        seconds += judging.prefill_seconds(ceil(work.scored.sequences / readers) * longest)
    if work.pairs is not None:  # there and back
        longest = PROMPT_TOKENS + LONGEST.value * work.pairs.longest
        passes += 3 * judging.prefill_seconds(work.pairs.sequences * longest)
    return Took(
        step,
        gpus=pods * (in_pod + servers),
        starting=starting_seconds(step, spec, model) / 3600,
        generating=seconds / 3600,
        training=passes / 3600,
        tokens=sum(part.sequences * lengths.of(part.longest) for part in work.asked),
    )


def _answering(
    here: Machine, part: Asked, engine: Engine, processes: int, own: int, pods: int, lengths: Lengths
) -> float:
    """Seconds in which ``part`` is written by ``processes``, each with ``own`` GPUs, in ``pods``."""
    mean, longest = lengths.of(part.longest), LONGEST.value * part.longest
    full = PROMPT_TOKENS + part.longest
    share = ceil(part.sequences / processes)
    if part.policy is not None and (server := part.policy.policy_server) is not None:
        over = server.gpus_of_replica
        return here.by_vllm(part.sequences, _POLICY_SEQUENCES, mean, server.memory_share, over)
    if part.policy is not None and part.policy.colocated:
        return here.by_vllm(share, _POLICY_SEQUENCES, mean, part.policy.vllm_gpu_memory_utilization)
    if part.policy is not None:
        a_step = ceil(part.policy.completions_per_step / processes)
        at_once = min(a_step, max(1, part.policy.generation_batch_tokens // full))
        steps = part.sequences // part.policy.completions_per_step
        cached = 4 if part.policy.lora is None and not part.policy.sharded else 2
        waiting = here.gathering_seconds(part.policy, processes)
        return steps * here.by_transformers(a_step, at_once, longest, cached, waiting=waiting)
    match engine:
        case TransformersEngine():
            return here.by_transformers(share, engine.sequences(full), longest, 2)
        case VllmEngine():
            over = engine.tensor_parallel_size or own
            memory, eager = engine.gpu_memory_utilization, engine.enforce_eager
            return here.by_vllm(share, engine.max_sequences, mean, memory, over, eager=eager)
        case ServerEngine():
            # An endpoint's size nobody knows here: it counts as one card.
            replicas = 1 if engine.endpoint is not None else pods * (engine.replicas or 1)
            over = 1 if engine.endpoint is not None else max(1, engine.gpus_of_replica)
            at_once = ceil(engine.max_concurrency * processes / replicas)
            return here.by_vllm(ceil(part.sequences / replicas), at_once, mean, engine.memory_share, over)


def estimate(
    spec: RunSpec, steps: Plan, model: Architecture, card: str, lengths: Lengths, done: Collection[str] = ()
) -> list[Took]:
    """What each step takes that is not ``done``, in the order of the plan; none of a phase that is not built."""
    return [
        took(step, spec, model, card, lengths)
        for step in steps.steps
        if step.name not in done and work_of(step.inputs) != Work(())
    ]


def wall_hours(steps: Sequence[Took], slots: int) -> float:
    """Hours from the first step's start to the last one's end, where ``slots`` steps may be at work at once: in the
    plan's order, as `reconcile` starts them."""
    waiting, running, now = list(steps), dict[str, float](), 0.0
    while waiting or running:
        left = {one.step.name for one in waiting} | set(running)
        for one in list(waiting):
            if len(running) < slots and left.isdisjoint(one.step.parents):
                running[one.step.name] = now + one.hours
                waiting.remove(one)
        now = min(running.values())
        running = {name: end for name, end in running.items() if end > now}
    return now
