"""One entry point for every phase: a PhaseConfig in, a PhaseResult out, an exit code as agreed.

Nothing heavy is imported before the output is known to be missing: a step that is done already costs half a second.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import logging
import os
import sys
import time
import traceback
from pathlib import Path

from pydantic import ValidationError

from selfevo_contract import reasons
from selfevo_contract.artifacts import SCHEMA_VERSION
from selfevo_contract.errors import ExitCode, InputError, SelfevoError
from selfevo_contract.explain import explain
from selfevo_contract.phases import PHASES, GrpoInputs, input_key
from selfevo_contract.process import CONFIG_ENV, CONFIG_FILE_ENV, SHARD_ENV, PhaseConfig, PhaseResult
from selfevo_store import open_store, probe_conditional_put
from selfevo_trainer import phases
from selfevo_trainer.context import Context
from selfevo_trainer.distributed import root_cause
from selfevo_trainer.distributed.layout import Layout, check_batch, read_layout, read_rank
from selfevo_trainer.grpo import checkpoints
from selfevo_trainer.process import progress
from selfevo_trainer.process.quiet import quieten
from selfevo_trainer.process.signals import Interrupted, StopRequest, die_with_parent

log = logging.getLogger("selfevo")


def read_config() -> PhaseConfig:
    """The PhaseConfig that this process is told by its environment.

    Raises:
        InputError: there is none, it is not valid, or its key is not the digest of its inputs.
    """
    if CONFIG_ENV in os.environ:
        source, text = CONFIG_ENV, os.environ[CONFIG_ENV]
    elif CONFIG_FILE_ENV in os.environ:
        source = os.environ[CONFIG_FILE_ENV]
        try:
            text = Path(source).read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"{CONFIG_FILE_ENV} is {source!r}, which cannot be read: {error.strerror}; name a PhaseConfig"
            ) from None
        except UnicodeDecodeError:
            raise InputError(f"{CONFIG_FILE_ENV} is {source!r}, which is not UTF-8; name a PhaseConfig") from None
    else:
        raise InputError(f"there is no phase to run; set {CONFIG_ENV} or {CONFIG_FILE_ENV} to a PhaseConfig")
    _check_version(text)
    try:
        config = PhaseConfig.model_validate_json(text)
    except ValidationError as error:
        first, *others = explain(error, PhaseConfig)
        more = f" ({len(others)} more are wrong)" if others else ""
        # A person writes no PhaseConfig: what is not known here, or lacks, another version wrote.
        skew = any(detail["type"] in _SKEW for detail in error.errors(include_url=False))
        remedy = f"; {_ours()}, and the operator that wrote it differ, so set spec.pods.image to the operator's version"
        raise InputError(f"{source}: {first}{more}{remedy if skew else ''}") from None
    if config.schema_version == SCHEMA_VERSION and input_key(config.inputs) != config.key:
        raise InputError(
            f"key is {config.key[:12]}... and the digest of inputs is {input_key(config.inputs)[:12]}...; operator and "
            f"trainer are of different versions ({_ours()}), so bring both to the same"
        )
    return config


_SKEW = ("extra_forbidden", "missing", "literal_error", "union_tag_invalid")


def _ours() -> str:
    """This image, as a person knows it."""
    from importlib import metadata

    return f"this trainer's image, selfevo {metadata.version('selfevo')}"


def _check_version(text: str) -> None:
    """First the version: a newer PhaseConfig may have fields that this trainer would call wrong."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return  # validation says what it is
    version = content.get("schemaVersion") if isinstance(content, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise InputError(
            f"schemaVersion is {version} and this trainer knows up to {SCHEMA_VERSION} ({_ours()}); use a newer "
            "spec.pods.image, the operator's version"
        )
    if isinstance(version, int) and version < SCHEMA_VERSION:
        # What it makes would lie under a key that means something else, and be found by whoever asks for that.
        raise InputError(
            f"schemaVersion is {version} and this trainer computes by version {SCHEMA_VERSION} ({_ours()}); use the "
            "trainer of the operator that planned the step, by its digest (spec.pods.image)"
        )


def run_phase(config: PhaseConfig, stop: StopRequest, started: float) -> PhaseResult:
    """Do the phase, or find it done; where several processes train, start them."""
    storage = config.storage
    store = open_store(
        storage.uri,
        endpoint=storage.endpoint,
        region=storage.region,
        require_conditional_put=storage.require_conditional_put,
        checksum=storage.checksum,
        cache_dir=Context.cache_dir_from_env(),
    )
    rank = read_rank(os.environ)
    shard = _shard(config)
    if rank is not None:
        # What is there already, and whether the store can be written, the launcher has seen for all of them.
        context = Context.create(config, store, stop, shard, started, rank)
        with context.workspace():
            return _run_here(context)
    layout = _layout(config)
    context = Context.create(config, store, stop, shard, started)
    with context.workspace():
        found = _found(context)
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
    if importlib.util.find_spec(phases.module_of(config.inputs.phase)) is None:
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
    context.clock.seconds["startup"] = time.time() - context.started
    result: PhaseResult = phase.run(context, inputs)
    if context.rank.size > 1:
        collective.leave()
    return result


def _layout(config: PhaseConfig) -> Layout:
    layout = read_layout(os.environ, config.inputs.phase)
    if layout.size > 1 and isinstance(config.inputs, GrpoInputs):
        check_batch(config.inputs.grpo, layout.size)
    return layout


def _shard(config: PhaseConfig) -> int | None:
    phase = PHASES[config.inputs.phase]
    if not phase.sharded:
        return None
    value = os.environ.get(SHARD_ENV, "0")
    shards: int = getattr(config.inputs, "shards", 1)
    if not value.isdecimal() or int(value) >= shards:
        raise InputError(
            f"{SHARD_ENV} is {value!r}; it must be a whole number below spec.{phase.part}.shards, {shards}"
        )
    return int(value)


def main() -> int:
    """Run the phase; returns the exit code."""
    started = time.time()
    quieten()
    rank = read_rank(os.environ)
    who = "" if rank is None else f"process {rank.number}: "
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format=f"%(asctime)s %(levelname)s {who}%(message)s")
    config: PhaseConfig | None = None
    try:
        die_with_parent()
        stop = StopRequest.install()
        config = read_config()
        try:
            result = run_phase(config, stop, started)
        finally:
            stop.defer()  # it has ended, whichever way: a request changes nothing about how
    except SelfevoError as error:
        result = root_cause.failure(config, error.exit_code, error.reason, str(error))
        if os.environ.get("SELFEVO_DEBUG"):
            traceback.print_exc()
    except Interrupted as error:
        known = root_cause.under_way(error)
        if known is not None:
            result = root_cause.failure(config, known.exit_code, known.reason, str(known))
        else:
            result = root_cause.failure(config, ExitCode.TERMINATED, reasons.TERMINATED, str(error))
    except BaseException as error:
        # Not foreseen: the log gets the whole story, the termination message its first line. Counted and tried again.
        traceback.print_exc()
        text = f"{type(error).__name__}: {error}".strip().splitlines()[0][:500]
        result = root_cause.failure(config, ExitCode.SERVICE, reasons.CRASHED, text)
    if result.message and rank is None:  # the launcher says it of the one that was the cause
        print(f"{result.phase if config else 'selfevo_trainer'}: {result.message}", file=sys.stderr)
    progress.write_result(result)
    return result.exit_code
