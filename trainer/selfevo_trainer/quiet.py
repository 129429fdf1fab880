"""Libraries that draw progress bars into the log: our own lines say how far a phase is."""

from __future__ import annotations

import os


def quieten() -> None:
    """Before transformers, datasets or the hub are imported."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
