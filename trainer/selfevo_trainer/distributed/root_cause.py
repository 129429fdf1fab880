"""Many processes end, one report is made: which of them was the cause. Pure.

When one process fails, the others fail as a consequence: a collective breaks off, or they are asked to end. So an
error that a process reports goes before what merely happened, and of the latter the earlier before the later.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence

from selfevo_contract import reasons
from selfevo_contract.errors import DataError, ExitCode, InputError, SelfevoError
from selfevo_contract.phases import EVALUATE
from selfevo_contract.process import PhaseConfig, PhaseResult
from selfevo_store.problems import CorruptArtifact, ObjectNotFound


def weight(result: PhaseResult, asked: bool) -> int:
    """How little it explains: 0 is a cause for certain.

    Args:
        asked: SIGTERM had arrived where it ended.
    """
    if result.exit_code in (ExitCode.INPUT, ExitCode.DATA):
        return 0
    if result.exit_code == ExitCode.TERMINATED:
        return 2 if asked and result.reason != reasons.PEER_FAILED else 5
    return {reasons.PROCESS_LOST: 3, reasons.CRASHED: 4}.get(result.reason, 1)


def find(ends: Sequence[tuple[PhaseResult, bool]]) -> int:
    """Index of the end that explains the others.

    Args:
        ends: Results of failure, in order of time, each with whether SIGTERM had arrived there.
    """
    return min(range(len(ends)), key=lambda i: weight(*ends[i]))


def under_way(interruption: BaseException) -> SelfevoError | None:
    """The failure that was on its way out when SIGTERM came, while what it left was being cleared away.

    Only what no further attempt can make good. A file that is not there or is damaged may be an error that somebody was
    dealing with: it is none.
    """
    error = interruption.__context__
    while error is not None:
        if isinstance(error, (InputError, DataError)) and not isinstance(error, (ObjectNotFound, CorruptArtifact)):
            return error
        error = error.__context__
    return None


def silent_end(config: PhaseConfig, who: str, code: int, *, peer_failed: bool, asked: bool) -> PhaseResult:
    """The result of a process that left none.

    Args:
        who: E.g. ``process 1 of 2``.
        code: Its exit code, or the negative number of the signal that ended it.
        peer_failed: It was asked to end, because another had failed.
        asked: It was asked to end, because SIGTERM had arrived.
    """
    if peer_failed or (asked and -code in (signal.SIGTERM, signal.SIGKILL)):
        why = "stopped on request" if asked else "was ended because another process had failed"
        return failure(
            config, ExitCode.TERMINATED, reasons.PEER_FAILED if not asked else reasons.TERMINATED, f"{who} {why}"
        )
    if code < 0:
        remedy = (
            "if the pod ran out of memory, give it more (spec.pods.resources)"
            if -code == signal.SIGKILL
            else "its log may say why"
        )
        return failure(config, ExitCode.SERVICE, reasons.PROCESS_LOST, f"{who} was killed by {_name(-code)}; {remedy}")
    return failure(
        config,
        ExitCode.SERVICE,
        reasons.PROCESS_LOST,
        f"{who} ended with code {code} and left no result; its log may say why",
    )


def failure(config: PhaseConfig | None, code: ExitCode, reason: str, message: str) -> PhaseResult:
    """A result of failure, its message on one line."""
    # Without the surrogates by which Python stands for a file name's odd bytes: no JSON could hold them.
    message = " ".join(message.encode("utf-8", "replace").decode().split())
    return PhaseResult(
        phase=config.inputs.phase if config else EVALUATE.name,
        key=config.key if config else "0" * 64,
        outcome="terminated" if code == ExitCode.TERMINATED else "failed",
        exit_code=int(code),
        reason=reason,
        message=message,
    )


def bystander(config: PhaseConfig, node: int, cause: PhaseResult) -> PhaseResult:
    """What a pod says that ends because pod ``node`` did: 143, for a failure is to be counted once, where it was."""
    return failure(config, ExitCode.TERMINATED, reasons.PEER_FAILED, f"pod {node}: {cause.message}")


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
