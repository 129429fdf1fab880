"""The warm parent of fake trainers: the real server, that loads nothing and forks tests/harness/fake_trainer.py.

FAKE_WARM tells it how to misbehave: "dies" ends while it loads, "thread" leaves a thread behind.
"""

import os
import runpy
import signal
import threading
from pathlib import Path

from selfevo_trainer.warm import main


def load() -> None:
    if os.environ.get("FAKE_WARM") == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if os.environ.get("FAKE_WARM") == "thread":
        threading.Thread(target=signal.pause, daemon=True).start()


def run() -> None:
    runpy.run_path(str(Path(__file__).with_name("fake_trainer.py")), run_name="__main__")


if __name__ == "__main__":
    main(load, run)
