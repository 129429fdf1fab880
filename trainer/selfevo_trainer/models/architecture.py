"""What the sizing formula wants to know of a model's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from selfevo_contract.errors import InputError
from selfevo_contract.phases import Loading
from selfevo_contract.sizing.architecture import KINDS, Architecture
from selfevo_trainer.models import counting
from selfevo_trainer.models.loading import config_of, first_line


def architecture(folder: Path, loading: Loading) -> Architecture:
    """By its config.json: the formula's own, or else counted.

    Raises:
        InputError: neither is possible. What is wrong with a model is reported where it is loaded.
    """
    try:
        return _of(folder, (folder / "config.json").read_text(), loading.trust_remote_code)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"config.json of the model in {folder} cannot be read ({first_line(error)})") from None


@lru_cache(maxsize=4)
def _of(folder: Path, content: str, trust_remote_code: bool) -> Architecture:
    config = json.loads(content)
    if isinstance(config, Mapping) and config.get("model_type") in KINDS:
        return Architecture.of(config)
    found = config_of(folder, trust_remote_code=trust_remote_code)
    return counting.of_config(found, trust_remote_code=trust_remote_code)
