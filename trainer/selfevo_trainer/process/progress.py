"""What a phase says while it runs (JSON lines on standard output) and when it ends (the termination message)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from selfevo_contract.process import TERMINATION_LOG_DEFAULT, TERMINATION_LOG_ENV, PhaseResult, Progress


def report(line: Progress) -> None:
    """Say how far the phase is. Losing a line loses nothing: a closed pipe is ignored."""
    try:
        sys.stdout.write(line.model_dump_json(by_alias=True, exclude_none=True) + "\n")
        sys.stdout.flush()
    except (BrokenPipeError, ValueError):
        pass


def write_result(result: PhaseResult) -> None:
    """Leave the PhaseResult where Kubernetes (or the local runner) picks it up."""
    named = os.environ.get(TERMINATION_LOG_ENV)
    path = Path(named or TERMINATION_LOG_DEFAULT)
    if named is None and not path.exists():
        return
    try:
        path.write_bytes(result.message_bytes())
    except OSError as error:
        # The manifest is the record; a lost message costs a pod start.
        print(f"the result could not be written to {path}: {error.strerror}", file=sys.stderr)
