"""The command `selfevo` with the fake trainer in place of the real one, and short waits between attempts."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import selfevo.local.processes
import selfevo.local.warm
import selfevo.verbs.run
from selfevo.main import main
from selfevo_core.reconcile import Backoff

TRAINER = (sys.executable, str(Path(__file__).with_name("fake_trainer.py")))
WARM = (sys.executable, str(Path(__file__).with_name("fake_warm.py")))
BACKOFF = Backoff(timedelta(milliseconds=50), timedelta(seconds=1))

if __name__ == "__main__":
    selfevo.local.processes.TRAINER = TRAINER
    selfevo.local.warm.COMMAND = WARM
    selfevo.verbs.run.BACKOFF = BACKOFF
    main()
