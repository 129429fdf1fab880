"""A model's files: where they are fetched from, and what is refused. Weights are safetensors only."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from selfevo_contract.artifacts import MANIFEST_NAME, Manifest
from selfevo_contract.digests import model_digest
from selfevo_contract.errors import InputError
from selfevo_contract.phases import BaseModelRef, ModelRef, StepModelRef
from selfevo_contract.spec.storage import Storage
from selfevo_store import ObjectStore, download_tree, fetch, open_store, read_manifest
from selfevo_trainer.context import Context, errors_named_after
from selfevo_trainer.models import adapters
from selfevo_trainer.models.hub import fetch_hub, index_read, pickled, pickles_refused, wanted
from selfevo_trainer.models.loading import first_line
from selfevo_trainer.models.weights import INDEX, indexed


def fetch_model(context: Context, ref: ModelRef, name: str) -> Path:
    """The model's files on this disk, checked.

    Args:
        name: folder of the working directory to put them in, when they are not on this disk already.

    Raises:
        InputError: there is no such model, or it is not one that we load.
        ServiceError: store or hub cannot be reached.
    """
    with context.clock.during("store"):
        if isinstance(ref, StepModelRef):
            return context.once_per_pod(name, lambda dest: _fetch_step(context, ref, dest))
        # Both roles begin with it: it is fetched and checked once.
        return context.once_per_pod("base", lambda dest: _fetch_checked_base(context, ref, dest))


def fetch_reward_model(context: Context, ref: BaseModelRef) -> Path:
    """The files of spec.verifier.model, checked as the base's are.

    Raises:
        InputError: there is no such model, or it is not one that we load.
        ServiceError: store or hub cannot be reached.
    """
    with errors_named_after("spec.verifier.model", "spec.model"), context.clock.during("store"):
        return context.once_per_pod("reward-model", lambda dest: _fetch_checked_base(context, ref, dest))


def _fetch_checked_base(context: Context, ref: BaseModelRef, dest: Path) -> Path:
    path = fetch_base(ref, dest, context.config.storage, context.cache_dir)
    _check_files(path, ref.uri)
    if ref.digest is not None and model_digest(path) != ref.digest:
        raise InputError(
            f"spec.model.digest is {ref.digest[:12]}... and the files at {ref.uri} have "
            f"{model_digest(path)[:12]}...; correct the digest or restore the files"
        )
    return path


def _fetch_step(context: Context, ref: StepModelRef, dest: Path) -> Path:
    prefix, manifest = context.output_of(ref.phase, ref.key, "starts from that model")
    model = fetch(context.store, prefix, manifest, dest, folder="model")
    if adapters.is_adapter(model):
        if context.config.base is None:
            raise InputError(
                f"{context.store.uri_of(prefix)} holds an adapter, and the step's config names no base for it; set "
                "grpo.lora as in the run that made it, or take the merged model (`selfevo artifacts fetch --merge`)"
            )
        adapters.put_on(model, fetch_model(context, context.config.base, "base"))
    return model


def fetch_base(ref: BaseModelRef, dest: Path, storage: Storage, cache_dir: Path) -> Path:
    """A model as its makers left it, or one that a step of some run committed (`selfevo artifacts path`).

    Raises:
        InputError: there is no such model.
        ServiceError: store or hub cannot be reached.
    """
    scheme, _, rest = ref.uri.partition("://")
    if scheme == "hf":
        return fetch_hub(ref.uri, cache_dir)
    folder = Path(rest)
    if scheme == "file" and not folder.is_dir():
        raise InputError(f"spec.model.uri is {ref.uri!r}, and there is no such folder; correct it")
    if scheme == "file" and not (folder / MANIFEST_NAME).is_file():
        return folder
    with errors_named_after("spec.model.uri"):
        store = _base_store(ref, storage, cache_dir)
        manifest = read_manifest(store, "")
        if manifest is not None:
            return fetch(store, "", manifest, dest, folder="model")
        return download_tree(store, "", dest, lambda names: _of_use(ref.uri, names, store))


def _base_store(ref: BaseModelRef, storage: Storage, cache_dir: Path) -> ObjectStore:
    return open_store(
        ref.uri,
        endpoint=storage.endpoint,
        region=storage.region,
        require_conditional_put=False,
        cache_dir=cache_dir,
    )


def committed_base(context: Context, ref: BaseModelRef) -> tuple[ObjectStore, Manifest] | None:
    """Where the base lies, if a step of some run committed it, and its manifest.

    Raises:
        InputError: it cannot be read.
        ServiceError: the store failed.
    """
    if ref.uri.startswith("hf://"):
        return None
    with errors_named_after("spec.model.uri"):
        store = _base_store(ref, context.config.storage, context.cache_dir)
        manifest = read_manifest(store, "")
        return None if manifest is None else (store, manifest)


def _of_use(uri: str, names: list[str], store: ObjectStore) -> list[str]:
    with index_read(uri):
        chosen = wanted(names, lambda: store.read_bytes(INDEX))
    if not any(name.endswith(".safetensors") for name in chosen) and (pickle := pickled(names)):
        raise InputError(pickles_refused(uri, pickle))
    return chosen


def _check_files(path: Path, uri: str) -> None:
    if adapters.is_adapter(path):
        raise InputError(
            f"spec.model.uri is {uri!r}, which is an adapter and no whole model; name the merged model, which "
            "`selfevo artifacts fetch --merge` writes"
        )
    if not (path / "config.json").is_file():
        raise InputError(
            f"spec.model.uri is {uri!r}, which holds no config.json; name a folder with a transformers model"
        )
    weights = sorted(path.glob("*.safetensors"))
    if not weights:
        if pickle := pickled([file.name for file in path.iterdir()]):
            raise InputError(pickles_refused(uri, pickle))
        raise InputError(f"spec.model.uri is {uri!r}, which holds no *.safetensors; name a folder with weights")
    for file in weights:
        try:
            with safe_open(file, framework="numpy"):
                pass
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"spec.model.uri is {uri!r}, whose file {file.name} is not whole ({error}); download it again"
            ) from None
    with index_read(uri):
        named = indexed(path) or set()
    if missing := sorted(named - {file.name for file in weights}):
        raise InputError(f"spec.model.uri is {uri!r}, which lacks {missing[0]}; download it again")
    _check_json(path, uri)


_JSON = ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.json")
_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def _check_json(path: Path, uri: str) -> None:
    """The files that transformers reads are JSON objects, with numbers where it counts on them."""
    for name in _JSON:
        file = path / name
        try:
            content = json.loads(file.read_bytes())
        except FileNotFoundError:
            continue
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(
                f"spec.model.uri is {uri!r}, whose {name} is not JSON ({first_line(error)}); download it again"
            ) from None
        if not isinstance(content, dict):
            raise InputError(f"spec.model.uri is {uri!r}, whose {name} is not a JSON object; download it again")
        if name == "config.json" and content.get("quantization_config"):
            raise InputError(
                f"spec.model.uri is {uri!r}, whose config.json has a quantization_config, and rounded weights "
                "cannot be trained; name the model that they were made from"
            )
        for field in _IDS if name in ("config.json", "generation_config.json") else ():
            value = content.get(field)
            ids = value if isinstance(value, list) else [] if value is None else [value]
            if not all(isinstance(each, int) and not isinstance(each, bool) and each >= 0 for each in ids):
                raise InputError(
                    f"spec.model.uri is {uri!r}, whose {name} has {field} {json.dumps(value)[:100]}; "
                    "write the token's id, a whole number, or a list of them"
                )
