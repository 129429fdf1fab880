"""Libraries that draw progress bars into the log (our own lines say how far a phase is) or report their use."""

from __future__ import annotations

import logging
import os


def quieten() -> None:
    """Before transformers, datasets or the hub are imported. Nothing is told to anybody either."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a store that is gone would be told by a stack of C++ frames
    logging.getLogger("botocore").setLevel(logging.WARNING)  # it tells each client where it found credentials
