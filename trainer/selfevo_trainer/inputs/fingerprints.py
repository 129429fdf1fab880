"""Frozen models' fingerprints: where they are had from, and what an engine is held against before its answers count."""

from __future__ import annotations

import contextlib
import gc
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from selfevo_contract import reasons
from selfevo_contract.artifacts import Manifest, step_prefix
from selfevo_contract.canonical import digest
from selfevo_contract.digests import model_digest
from selfevo_contract.errors import InputError, SelfevoError
from selfevo_contract.fingerprint import FINGERPRINT, Precision, ProbeRow, Verdict, judge
from selfevo_contract.phases import PHASES, BuiltInputs, Loading, ModelRef, StepModelRef
from selfevo_contract.rows import read_rows, write_rows
from selfevo_contract.spec.engines import Engine as EngineSpec
from selfevo_contract.spec.engines import ServerEngine, TransformersEngine
from selfevo_store import fetch_rows, read_manifest
from selfevo_trainer.context import Context
from selfevo_trainer.engines import Engine, Frozen
from selfevo_trainer.inputs.model_files import committed_base
from selfevo_trainer.inputs.preflight import EXAMPLE, models_of
from selfevo_trainer.prompts import encode, messages

log = logging.getLogger("selfevo")


class Fingerprint:
    """What is known of the model that a phase is about to have served."""

    def __init__(self, rows: Sequence[ProbeRow], before: str = "") -> None:
        self.rows = list(rows)
        self.before = before
        """The model that its training began with, as in `Frozen.name`; empty when it is unknown."""

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max((len(row.tokens) for row in self.rows), default=0)


def fingerprint_of(context: Context, inputs: BuiltInputs, role: str, path: Path) -> Fingerprint | None:
    """The fingerprint of the model that the field ``role`` of ``inputs`` names and whose files are in ``path``.

    A training of ours has committed it with the model, for the dtype of its run. For any other model transformers
    computes it here, in this run's dtype, once for each node's cache. None where nothing would be learnt from it: the
    check is off, or transformers itself serves a model that has none, and would be held against itself.

    Raises:
        InputError: the committed one cannot be read.
        ServiceError: the store failed.
    """
    engine = context.config.engine
    if isinstance(engine, ServerEngine) and engine.fingerprint == "off":
        return None
    ref: ModelRef = getattr(inputs, role)
    with context.clock.during("store"):
        found = _committed(context, ref, inputs.loading)
    if found is not None or isinstance(engine, TransformersEngine):
        return found
    with context.clock.during("load"):
        file = context.once_per_pod(f"{role}.fingerprint", lambda dest: _computed(context, inputs, role, path, dest))
        return Fingerprint(read_rows(file.read_bytes(), FINGERPRINT, str(file.parent)))


def _committed(context: Context, ref: ModelRef, loading: Loading) -> Fingerprint | None:
    if isinstance(ref, StepModelRef):
        prefix = step_prefix(context.config.namespace, ref.phase, ref.key)
        manifest = read_manifest(context.store, prefix)
        place = None if manifest is None else (context.store, manifest)
    else:
        prefix, place = "", committed_base(context, ref)
    if place is None or place[1].file(FINGERPRINT.name) is None:
        return None
    store, manifest = place
    rows = fetch_rows(store, prefix, manifest, FINGERPRINT)
    if {row.dtype for row in rows} != {loading.dtype}:  # of a run whose engines loaded it otherwise
        return None
    return Fingerprint(rows, _began_with(manifest))


def _began_with(manifest: Manifest) -> str:
    """The first of its models is what a training trains."""
    phase = PHASES.get(manifest.phase)
    return manifest.parents.get(phase.models[0], "") if phase is not None and phase.models else ""


def _computed(context: Context, inputs: BuiltInputs, role: str, path: Path, dest: Path) -> Path:
    """The file, in the node's cache where that can be written, else at ``dest``."""
    from selfevo_trainer.models.loading import load_tokenizer

    tokenizer = load_tokenizer(path, inputs.loading)
    asks = next(asks for name, _, asks in models_of(inputs) if name == role)
    prompts = [encode(tokenizer, messages(ask.prompt, EXAMPLE)) for ask in asks]
    key = digest({"model": model_digest(path), "loading": inputs.loading.wire(), "prompts": prompts, "version": 1})
    cached = context.cache_dir / "fingerprints" / f"{key}.jsonl"
    with contextlib.suppress(OSError, SelfevoError):  # a damaged file is made anew
        read_rows(cached.read_bytes(), FINGERPRINT, str(cached.parent))
        return cached
    rows = _drawn(path, inputs.loading, tokenizer, prompts)
    with contextlib.suppress(OSError):
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cached.parent) as folder:
            write_rows(Path(folder) / cached.name, rows).replace(cached)
        return cached
    return write_rows(dest / FINGERPRINT.name, rows)


def _drawn(path: Path, loading: Loading, tokenizer: Any, prompts: list[list[int]]) -> list[ProbeRow]:
    """By transformers, on the GPU where there is room, and gone again before an engine takes its memory."""
    import torch

    from selfevo_trainer.engines import probes
    from selfevo_trainer.models.loading import device, eos_token_ids, load_for_generation
    from selfevo_trainer.models.weights import files_of

    where = device()
    if where != "cpu":
        size = sum(file.stat().st_size for file in files_of(path))
        free, _ = torch.cuda.mem_get_info(where)
        where = where if size < free * 0.8 else "cpu"
    model = load_for_generation(path, loading, where)
    rows = probes.draw(
        model, tokenizer, prompts, eos_token_ids(model.generation_config, tokenizer, loading), loading.dtype
    )
    del model
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return rows


def check(context: Context, engine: Engine, weights: Frozen, fingerprint: Fingerprint) -> None:
    """Hold ``engine`` against the fingerprint of what it should serve.

    Trying again would ask the same engine the same, so that all of these are wrong inputs.

    Raises:
        InputError: it serves other weights, or does not say how likely tokens are.
    """
    spec = context.config.engine
    field = f"spec.{PHASES[context.config.inputs.phase].part}.engine"
    scores = engine.score([row.tokens for row in fingerprint.rows])
    try:
        verdict = judge(fingerprint.rows, scores, precision(spec, weights.loading))
    except ValueError as error:
        raise InputError(
            f"{field} ({spec.kind}) gives {error} when it is asked for the fingerprint of {weights.name}, so nothing "
            f"shows which weights it serves; {_remedy(spec, weights.name, silent=True)}",
            reason=reasons.OTHER_WEIGHTS_SERVED,
        ) from None
    if verdict.served != "wanted":
        raise InputError(
            _sentence(field, spec, weights, verdict, fingerprint.before), reason=reasons.OTHER_WEIGHTS_SERVED
        )
    log.info(
        "%s (%s) serves %s as its fingerprint has it: the log-probabilities of %d tokens differ by %.2g on average",
        *(field, spec.kind, weights.name, verdict.tokens, verdict.difference),
    )


def precision(spec: EngineSpec, loading: Loading) -> Precision:
    """What the engine computes in."""
    rounded = getattr(loading, "quantization", None) or getattr(spec, "quantization", None)
    return cast(Precision, rounded or loading.dtype)


def _sentence(field: str, spec: EngineSpec, weights: Frozen, verdict: Verdict, before: str) -> str:
    served = "other weights"
    if verdict.served == "before":
        served = f"weights like those that its training began with{f' ({before})' if before else ''}"
    over = f"the log-probabilities of {verdict.tokens} tokens differ by {verdict.difference:.2g} on average"
    if verdict.difference > verdict.limit:
        over += f", and {verdict.limit:g} is the most that rounding explains"
    return (
        f"{field} ({spec.kind}) serves {served} where {weights.role} {weights.name} was wanted: {over}; "
        f"{_remedy(spec, weights.name)}"
    )


def _remedy(spec: EngineSpec, name: str, silent: bool = False) -> str:
    if isinstance(spec, ServerEngine) and silent:
        return (
            "name a server that gives log-probabilities of prompt tokens, or set engine.fingerprint to off, which the "
            "report will say"
        )
    if isinstance(spec, ServerEngine):
        return f"have the server load {name} anew"
    if isinstance(spec, TransformersEngine):
        return f"check the files of {name} with `selfevo artifacts verify`, and report it if they are whole"
    return "report it; kind 'transformers' goes on meanwhile"
