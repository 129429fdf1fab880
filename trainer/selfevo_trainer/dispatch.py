"""From a PhaseConfig to its phase: what is committed already is found, several processes are started, one phase is run.

Nothing heavy is imported before the output is known to be missing: a step that is done already costs half a second.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os

from selfevo_contract import reasons
from selfevo_contract.errors import InputError, SelfevoError
from selfevo_contract.phases import PHASES, GrpoInputs
from selfevo_contract.process import NODES_ENV, SHARD_ENV, PhaseConfig, PhaseResult
from selfevo_store import open_storage, probe_conditional_put
from selfevo_trainer import phases
from selfevo_trainer.context import Context
from selfevo_trainer.distributed.layout import Layout, check_batch, read_layout, read_rank
from selfevo_trainer.grpo import checkpoints
from selfevo_trainer.process import run_record
from selfevo_trainer.process.signals import StopRequest
from selfevo_trainer.process.traces import Trace
from selfevo_trainer.tracking.relay import tracking


def run_phase(config: PhaseConfig, stop: StopRequest, started: float, trace: Trace | None = None) -> PhaseResult:
    """Do the phase, or find it done; where several processes train, start them."""
    store = open_storage(config.storage, cache_dir=Context.cache_dir_from_env())
    rank = read_rank(os.environ)
    shard = _shard(config)
    if rank is not None:
        # What is there already, and whether the store can be written, the launcher has seen for all of them.
        context = Context.create(config, store, stop, shard, started, rank, trace)
        with context.workspace():
            return _run_here(context)
    layout = _layout(config)
    context = Context.create(config, store, stop, shard, started, trace=trace)
    with context.workspace():
        found = _found(context)
        run_record.leave(os.environ, config, store)
        if found is not None:
            return found
        _check_built(config)
        probe_conditional_put(store)  # a store that cannot be written is found now, not after hours of training
        if layout.size > 1:
            from selfevo_trainer.distributed.launcher import launch  # it imports torch

            return launch(config, layout, context.workdir, stop, lambda: _found(context))
        return _run_here(context)


def _found(context: Context) -> PhaseResult | None:
    """The result that is recorded in the store, if there is one."""
    found = context.own_manifest(context.config.prefix)
    if found is None:
        return None
    with contextlib.suppress(SelfevoError):  # an attempt that was killed right after its commit left them
        checkpoints.clear(context)
    return context.result("found", metrics=found.metrics, timings=found.timings)


def _check_built(config: PhaseConfig) -> None:
    if not phases.is_built(config.inputs.phase):
        raise InputError(
            f"inputs.phase is {config.inputs.phase!r}, which this trainer does not have yet; remove it from the run",
            reason=reasons.NOT_BUILT,
        )


def _run_here(context: Context) -> PhaseResult:
    inputs = context.config.inputs
    phase = importlib.import_module(phases.module_of(inputs.phase))  # torch and its like, for the first time
    if context.rank.size > 1:
        from selfevo_trainer.distributed import collective

        collective.prepare()
    context.clock.started(context.started)
    with tracking(context.config, context.stop, context.workdir, speaks=context.rank.first) as context.tracking:
        result: PhaseResult = phase.run(context, inputs)
        if result.outcome == "committed":
            context.tracking.result(context.config.iteration, result.metrics)
    if context.rank.size > 1:
        collective.leave()
    return result


def _layout(config: PhaseConfig) -> Layout:
    layout = read_layout(os.environ, config.inputs.phase)
    if isinstance(config.inputs, GrpoInputs):
        check_batch(config.inputs.grpo, layout.size)
        if config.policy_server is not None and layout.nodes > 1:
            raise InputError(
                f"grpo.vllmMode is 'server', which is beside one pod, and {NODES_ENV} is {layout.nodes}; train in one "
                "pod, or set grpo.vllmMode to 'colocate'"
            )
    return layout


def _shard(config: PhaseConfig) -> int | None:
    phase = PHASES[config.inputs.phase]
    if not phase.sharded:
        return None
    value = os.environ.get(SHARD_ENV, "0")
    shards: int = getattr(config.inputs, "shards", 1)
    if not value.isdecimal() or int(value) >= shards:
        raise InputError(
            f"{SHARD_ENV} is {value!r}; it must be a whole number below spec.{phase.part}.shards, {shards} in all"
        )
    return int(value)
