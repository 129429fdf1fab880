"""Which processes train together: the environment of a pod, and what each of its processes is. Pure.

One process is the usual case, and nothing of this is set then. Otherwise the process that the pod starts launches the
others (launcher.py); those are ranks, numbered over all pods.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from selfevo_contract.errors import InputError
from selfevo_contract.phases import PHASES, Phase
from selfevo_contract.process import (
    JOIN_SECONDS_DEFAULT,
    JOIN_SECONDS_ENV,
    MASTER_ADDR_ENV,
    MASTER_PORT_DEFAULT,
    MASTER_PORT_ENV,
    NODE_RANK_ENV,
    NODES_ENV,
    PARENT_ENV,
    PROCESSES_ENV,
    PROCESSES_MAX,
    TERMINATION_LOG_ENV,
    WORKDIR_ENV,
)
from selfevo_contract.spec.grpo import Grpo

LAUNCHED_ENV = "SELFEVO_LAUNCHED"
"""Set for the processes that our own launcher starts, and for no other."""


@dataclass(frozen=True)
class Layout:
    """How many processes train together, and where this pod stands among the pods."""

    processes: int = 1
    """In each pod."""
    nodes: int = 1
    node: int = 0
    master: str = "127.0.0.1"
    """Where pod 0 is reached."""
    port: int = MASTER_PORT_DEFAULT
    join_s: float = JOIN_SECONDS_DEFAULT

    @property
    def size(self) -> int:
        """Processes over all pods."""
        return self.processes * self.nodes


@dataclass(frozen=True)
class Rank:
    """One process among those that train together."""

    number: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether it is the one that commits and reports."""
        return self.number == 0


ALONE = Rank()


def read_layout(environment: Mapping[str, str], phase: Phase) -> Layout:
    """The layout that the pod's environment names.

    Raises:
        InputError: it makes no sense, or the phase runs in one process only.
    """
    processes = _number(environment, PROCESSES_ENV, 1, 1, PROCESSES_MAX)
    nodes = _number(environment, NODES_ENV, 1, 1, PROCESSES_MAX)
    if not PHASES[phase].distributed:
        for name, value in ((PROCESSES_ENV, processes), (NODES_ENV, nodes)):
            if value > 1:
                raise InputError(f"{name} is {value}, and {phase} runs in one process; unset it")
        return Layout()
    if processes * nodes == 1:
        if _number(environment, "WORLD_SIZE", 1, 1, None) > 1:
            raise InputError(
                f"WORLD_SIZE is {environment['WORLD_SIZE']}, and this process was not started by selfevo_trainer's own "
                f"launcher; start one process for each pod, without torchrun, and set {PROCESSES_ENV} and {NODES_ENV}"
            )
        return Layout()
    if nodes == 1:
        return Layout(processes)
    if not environment.get(MASTER_ADDR_ENV):
        raise InputError(f"{NODES_ENV} is {nodes} and {MASTER_ADDR_ENV} is not set; set it to where pod 0 is reached")
    if NODE_RANK_ENV not in environment:
        raise InputError(f"{NODES_ENV} is {nodes} and {NODE_RANK_ENV} is not set; run the pods as an Indexed Job")
    return Layout(
        processes,
        nodes,
        node=_number(environment, NODE_RANK_ENV, 0, 0, nodes - 1),
        master=environment[MASTER_ADDR_ENV],
        port=_number(environment, MASTER_PORT_ENV, MASTER_PORT_DEFAULT, 1, 65535),
        join_s=_number(environment, JOIN_SECONDS_ENV, JOIN_SECONDS_DEFAULT, 1, None),
    )


def read_rank(environment: Mapping[str, str]) -> Rank | None:
    """What this process is, when our launcher started it."""
    if LAUNCHED_ENV not in environment:
        return None
    return Rank(int(environment["RANK"]), int(environment["WORLD_SIZE"]))


def rank_environment(*, parent: int, workdir: str, result: str) -> dict[str, str]:
    """The variables of a rank that we set, beside the pod's and those of torch's elastic agent.

    Args:
        result: File for its PhaseResult.
    """
    return {
        LAUNCHED_ENV: "1",
        PARENT_ENV: str(parent),
        WORKDIR_ENV: workdir,
        TERMINATION_LOG_ENV: result,
    }


def check_batch(grpo: Grpo, processes: int) -> None:
    """Raises InputError when an update's completions do not divide over the processes, or there is nothing to shard
    over."""
    if grpo.sharded and processes == 1:
        raise InputError(
            "grpo.sharding is 'fsdp', and one process alone trains here; give the phase's pods two GPUs or more, or "
            "remove grpo.sharding"
        )
    if not grpo.divides_over(processes):
        raise InputError(
            f"perDeviceTrainBatchSize {grpo.per_device_train_batch_size} x {processes} processes does not divide the "
            f"{grpo.completions_per_update} completions of an update; choose another perDeviceTrainBatchSize"
        )


def _number(environment: Mapping[str, str], name: str, default: int, least: int, most: int | None) -> int:
    text = environment.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdecimal()) or int(text) < least or (most is not None and int(text) > most):
        span = f"from {least} to {most}" if most is not None else f"of {least} or more"
        raise InputError(f"{name} is {text!r}; set it to a whole number {span}")
    return int(text)
