"""The PhaseConfig that a trainer process is given, and what is wrong with one."""

from __future__ import annotations

import json
import os
from pathlib import Path

from pydantic import ValidationError

from selfevo_contract.artifacts import SCHEMA_VERSION
from selfevo_contract.errors import InputError
from selfevo_contract.explain import explain
from selfevo_contract.phases import input_key
from selfevo_contract.process import CONFIG_ENV, CONFIG_FILE_ENV, PhaseConfig

_SKEW = ("extra_forbidden", "missing", "literal_error", "union_tag_invalid")


def read_config() -> PhaseConfig:
    """The PhaseConfig in this process's environment.

    Raises:
        InputError: there is none, it is not valid, or its key is not the digest of its inputs.
    """
    source, text = _source()
    _check_version(text)
    try:
        config = PhaseConfig.model_validate_json(text)
    except ValidationError as error:
        raise _invalid(source, error) from None
    if config.schema_version == SCHEMA_VERSION and input_key(config.inputs) != config.key:
        raise InputError(
            f"key is {config.key[:12]}... and the digest of inputs is {input_key(config.inputs)[:12]}...; operator and "
            f"trainer are of different versions ({_ours()}), so bring both to the same"
        )
    return config


def _source() -> tuple[str, str]:
    """Where the PhaseConfig is from, for messages, and its text."""
    if CONFIG_ENV in os.environ:
        return CONFIG_ENV, os.environ[CONFIG_ENV]
    if CONFIG_FILE_ENV not in os.environ:
        raise InputError(f"there is no phase to run; set {CONFIG_ENV} or {CONFIG_FILE_ENV} to a PhaseConfig")
    source = os.environ[CONFIG_FILE_ENV]
    try:
        return source, Path(source).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{CONFIG_FILE_ENV} is {source!r}, which cannot be read: {error.strerror}; name a PhaseConfig"
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"{CONFIG_FILE_ENV} is {source!r}, which is not UTF-8; name a PhaseConfig") from None


def _invalid(source: str, error: ValidationError) -> InputError:
    first, *others = explain(error, PhaseConfig)
    more = f" ({len(others)} more are wrong)" if others else ""
    # A person writes no PhaseConfig: what is not known here, or lacks, another version wrote.
    skew = any(detail["type"] in _SKEW for detail in error.errors(include_url=False))
    remedy = f"; {_ours()}, and the operator that wrote it differ, so set spec.pods.image to the operator's version"
    return InputError(f"{source}: {first}{more}{remedy if skew else ''}")


def _ours() -> str:
    """This image, as a person knows it."""
    from importlib import metadata

    return f"this trainer's image, selfevo {metadata.version('selfevo')}"


def _check_version(text: str) -> None:
    """First the version: a newer PhaseConfig may have fields that this trainer would call wrong."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return  # validation says what it is
    version = content.get("schemaVersion") if isinstance(content, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise InputError(
            f"schemaVersion is {version} and this trainer knows up to {SCHEMA_VERSION} ({_ours()}); use a newer "
            "spec.pods.image, the operator's version"
        )
    if isinstance(version, int) and version < SCHEMA_VERSION:
        # What it makes would lie under a key that means something else, and be found by whoever asks for that.
        raise InputError(
            f"schemaVersion is {version} and this trainer computes by version {SCHEMA_VERSION} ({_ours()}); use the "
            "trainer of the operator that planned the step, by its digest (spec.pods.image)"
        )
