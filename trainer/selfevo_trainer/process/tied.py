"""``python -m selfevo_trainer.process.tied COMMAND...`` runs COMMAND, which ends with the process that started us.

SELFEVO_PARENT_PID names that process. The kernel tells us of its end (PR_SET_PDEATHSIG), also where it is killed. Then
COMMAND is asked to end, and killed after `GRACE_S`; what it started and left is killed when it has ended, so that this
has to be the first of a process group of its own. A command that the kernel ended by itself might be in the middle of
starting a process, which nobody would end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from types import FrameType

from selfevo_contract.process import PARENT_ENV
from selfevo_trainer.process.signals import die_with_parent

GRACE_S = 30.0
"""From the parent's end to SIGKILL."""
_PARENT_GONE = signal.SIGHUP


class _ParentGone(BaseException):
    """The kernel says so."""


def main() -> None:
    """Run the command, and end as it ends: with its exit code, or by its signal."""
    signal.signal(_PARENT_GONE, _raise)
    child: subprocess.Popen[bytes] | None = None
    try:
        die_with_parent(_PARENT_GONE)
        del os.environ[PARENT_ENV]
        child = subprocess.Popen(sys.argv[1:])
        # Whoever asks for the end asks the whole group: the command, too, and we end when it does. Before it is there,
        # we end at once.
        signal.signal(signal.SIGTERM, lambda *_: None)
        code = child.wait()
        signal.signal(_PARENT_GONE, signal.SIG_IGN)
    except _ParentGone:
        if child is not None:
            child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(GRACE_S)
        os.killpg(0, signal.SIGKILL)
        raise
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


def _raise(_signal: int, _frame: FrameType | None) -> None:
    signal.signal(_PARENT_GONE, signal.SIG_IGN)
    raise _ParentGone


if __name__ == "__main__":
    main()
