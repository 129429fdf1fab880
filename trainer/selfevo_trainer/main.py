"""One entry point for every phase: a PhaseConfig in, a PhaseResult out, an exit code as agreed."""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback

from selfevo_contract import reasons
from selfevo_contract.errors import ExitCode, SelfevoError
from selfevo_contract.process import PhaseConfig, PhaseResult
from selfevo_traces.base import CLOSING_S
from selfevo_trainer.config import read_config
from selfevo_trainer.dispatch import run_phase
from selfevo_trainer.distributed import root_cause
from selfevo_trainer.distributed.layout import Rank, read_rank
from selfevo_trainer.process import gpus, kept_log, progress
from selfevo_trainer.process.quiet import quieten
from selfevo_trainer.process.signals import Interrupted, StopRequest, die_with_parent
from selfevo_trainer.process.traces import open_trace


def main() -> int:
    """Run the phase; returns the exit code."""
    started = time.time()
    with kept_log.in_pod(os.environ) as log:
        return _main(started, log)


def _main(started: float, log: kept_log.KeptLog | None) -> int:
    quieten()
    rank = read_rank(os.environ)
    number = None if rank is None else rank.number
    log_to_stderr(rank)
    trace = open_trace(os.environ, number, started)
    config: PhaseConfig | None = None
    stop: StopRequest | None = None
    upload: kept_log.Upload | None = None
    try:
        die_with_parent()
        stop = StopRequest.install()
        config = read_config()
        trace.configure(config)
        if log is not None and config.attempt:
            upload = kept_log.Upload(log, config, number, started)
        try:
            result = run_phase(config, stop, started, trace)
        finally:
            stop.defer()  # it has ended, whichever way: a request changes nothing about how
            if (memory := gpus.peak()) is not None:
                logging.getLogger("selfevo").info(memory)
    except BaseException as error:
        result = failure_of(config, error)
    if result.message and rank is None:  # the launcher prints the message of the process that was the cause
        print(f"{result.phase if config else 'selfevo_trainer'}: {result.message}", file=sys.stderr)
    progress.write_result(result)
    trace.ended(result, number)
    if upload is not None:
        upload.close(kept_log.patience(os.environ, stop.requested_at if stop else None))
    trace.close(min(CLOSING_S, kept_log.patience(os.environ, stop.requested_at if stop else None)))
    return result.exit_code


def failure_of(config: PhaseConfig | None, error: BaseException) -> PhaseResult:
    """The result of a process that ``error`` ended; the log gets a traceback where one helps."""
    if isinstance(error, SelfevoError):
        if os.environ.get("SELFEVO_DEBUG"):
            traceback.print_exception(error)
        return root_cause.failure(config, error.exit_code, error.reason, str(error))
    if isinstance(error, Interrupted):
        known = root_cause.under_way(error)
        if known is not None:
            return root_cause.failure(config, known.exit_code, known.reason, str(known))
        return root_cause.failure(config, ExitCode.TERMINATED, reasons.TERMINATED, str(error))
    # Not foreseen: the log gets the whole story, the termination message its first line. Counted and tried again.
    traceback.print_exception(error)
    text = f"{type(error).__name__}: {error}".strip().splitlines()[0][:500]
    return root_cause.failure(config, ExitCode.SERVICE, reasons.CRASHED, text)


def log_to_stderr(rank: Rank | None) -> None:
    """Send log lines there, with the process's number where there are several."""
    process = "" if rank is None else f"process {rank.number}: "
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format=f"%(asctime)s %(levelname)s {process}%(message)s")
