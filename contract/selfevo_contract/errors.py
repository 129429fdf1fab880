"""Failures have causes: one exception tree, and the exit codes that are a contract with the Job controller.

An error's message is one sentence that names the field or object, its value and the remedy; it is what a person reads
in the terminal, in the Job's termination message and in the run's condition.
"""

from __future__ import annotations

from enum import IntEnum

from selfevo_contract import reasons


class ExitCode(IntEnum):
    """How a phase's process ends (docs/design.md, decision 7)."""

    DONE = 0
    INPUT = 2
    """The configuration or an input is wrong: trying again cannot help (FailJob)."""
    SERVICE = 3
    """An external service failed: try again, counted."""
    DATA = 4
    """The data went bad (empty curriculum, a guard): the run stops with a reason."""
    TERMINATED = 143
    """Stopped by SIGTERM; the next attempt resumes from the last intra-phase checkpoint."""


class SelfevoError(Exception):
    """Base of every error that selfevo raises on purpose.

    ``reason`` is a CamelCase constant for conditions and for programs; the message is for people.
    """

    exit_code: ExitCode = ExitCode.SERVICE
    reason: str = reasons.ERROR

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason


class InputError(SelfevoError):
    """The manifest, the model or the data that a person gave is wrong."""

    exit_code = ExitCode.INPUT
    reason = reasons.INVALID_INPUT


class ServiceError(SelfevoError):
    """Something outside (store, hub, disk, endpoint) failed and may work next time."""

    exit_code = ExitCode.SERVICE
    reason = reasons.SERVICE_FAILED


class DataError(SelfevoError):
    """What the models wrote cannot be trained on."""

    exit_code = ExitCode.DATA
    reason = reasons.BAD_DATA


class Terminated(SelfevoError):
    """SIGTERM arrived; what was done is committed as a checkpoint."""

    exit_code = ExitCode.TERMINATED
    reason = reasons.TERMINATED
