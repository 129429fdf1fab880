"""``python -m selfevo_trainer.process.tied COMMAND...`` becomes COMMAND, which ends with the process that started it.

SELFEVO_PARENT_PID names that process. The kernel keeps its promise (PR_SET_PDEATHSIG) over the exec, also where the
parent is killed and can tell nobody.
"""

from __future__ import annotations

import os
import sys

from selfevo_contract.process import PARENT_ENV
from selfevo_trainer.process.signals import die_with_parent


def main() -> None:
    """Become the command."""
    die_with_parent()
    del os.environ[PARENT_ENV]
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
