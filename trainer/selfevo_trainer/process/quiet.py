"""Libraries that draw progress bars into the log (our own lines say how far a phase is), report their use, or load more
than is needed."""

from __future__ import annotations

import logging
import os
import sys
from types import ModuleType
from typing import cast

TRACKERS = ("mlflow", "wandb", "trackio")


def hide_trackers() -> None:
    """Before TRL is imported, which imports each of these that it finds; trackers have processes of their own here.

    They take two seconds of a core, and start threads, after which no process may be forked.
    """
    for name in TRACKERS:
        sys.modules.setdefault(name, cast(ModuleType, None))  # so importlib.util.find_spec finds none


def quieten() -> None:
    """Call it before transformers, datasets or the hub are imported. Telemetry is off, too."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a lost store would log a stack of C++ frames
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it has a line for each request
    logging.getLogger("botocore").setLevel(logging.WARNING)  # it tells each client where it found credentials
