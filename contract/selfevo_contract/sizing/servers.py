"""What servers beside a trainer take on each of their GPUs: the policy's, with `grpo.vllmMode: server`, and the
judge's, with `verifier.server`. Pure.

They have no reserve of their own: vLLM takes a share of each GPU, and fills it with keys and values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from selfevo_contract.phases import CHALLENGER_TRAIN, PHASES, SOLVER_ROLLOUT, SOLVER_TRAIN
from selfevo_contract.sizing.architecture import Architecture, bytes_in
from selfevo_contract.sizing.memory import GIB, PROMPT_TOKENS, cache_bytes, judge_model
from selfevo_contract.spec.engines import ServerEngine
from selfevo_contract.spec.run import RunSpec


@dataclass(frozen=True)
class Served:
    """A model in a server, on one of its GPUs."""

    phase: str
    whose: str
    """``policy`` or ``judge``."""
    settings: ServerEngine
    field: str
    """Where a person says over how many GPUs it is split, below `spec`."""
    size: int
    """Bytes of its weights, and of keys and values of one sequence."""

    @property
    def gpus(self) -> int:
        """Over which one replica is split."""
        return max(1, self.settings.gpus_of_replica)

    @property
    def gib(self) -> float:
        """GiB on one GPU at least."""
        return self.size / self.gpus / GIB

    @property
    def share(self) -> float:
        """Of each GPU's memory, what it takes."""
        return self.settings.memory_share

    def fits(self, room: float) -> bool:
        """Whether its share of a GPU of ``room`` GiB holds it; on the processors that is not asked."""
        return self.settings.gpus_in_all == 0 or self.gib <= self.share * room


def served(spec: RunSpec, model: Architecture) -> Iterator[Served]:
    """Every server of a policy or a judge that is beside the trainer of a phase, in the order of the phases."""
    verifier = spec.verifier
    for phase, grpo in (
        (CHALLENGER_TRAIN.name, spec.challenger.grpo),
        (SOLVER_ROLLOUT.name, None),
        (SOLVER_TRAIN.name, spec.solver.grpo),
    ):
        if grpo is not None and (policy := grpo.policy_server) is not None:
            field = f"{PHASES[phase].part}.grpo.vllmTensorParallelSize"
            size = _size(spec, model, PROMPT_TOKENS + grpo.max_completion_length)
            yield Served(phase, "policy", policy, field, size)
        if verifier is not None and verifier.server is not None and (grpo is None or grpo.max_steps > 0):
            size = _size(spec, judge_model(verifier, model), verifier.max_length)
            yield Served(phase, "judge", verifier.server.engine, "verifier.server.gpus", size)


def _size(spec: RunSpec, model: Architecture, sequence: int) -> int:
    dtype_bytes = bytes_in(spec.model.dtype)
    return dtype_bytes * model.parameters + sequence * cache_bytes(model, dtype_bytes, sequence)
