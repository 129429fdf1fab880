"""Models: where they are fetched from, what is refused, how they are loaded.

Weights are safetensors only. transformers' own messages for broken input are tracebacks; here each is one sentence.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from selfevo_contract.artifacts import MANIFEST_NAME, step_prefix
from selfevo_contract.digests import model_digest
from selfevo_contract.errors import InputError
from selfevo_contract.phases import BaseModelRef, Loading, ModelRef, StepModelRef
from selfevo_trainer.context import Context, held_in
from selfevo_trainer.hub import fetch_hub, index_read, pickled, pickles_refused, wanted
from selfevo_trainer.store import ObjectStore, download_tree, fetch, open_store, read_manifest
from selfevo_trainer.weights import INDEX, indexed


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
            return context.once_a_pod(name, lambda dest: _fetch_step(context, ref, dest))
        # Both roles begin with it: it is fetched and checked once.
        return context.once_a_pod("base", lambda dest: _fetch_checked_base(context, ref, dest))


def _fetch_checked_base(context: Context, ref: BaseModelRef, dest: Path) -> Path:
    path = _fetch_base(context, ref, dest)
    _check_files(path, ref.uri)
    if ref.digest is not None and model_digest(path) != ref.digest:
        raise InputError(
            f"spec.model.digest is {ref.digest[:12]}... and the files at {ref.uri} have "
            f"{model_digest(path)[:12]}...; correct the digest or restore the files"
        )
    return path


def _fetch_step(context: Context, ref: StepModelRef, dest: Path) -> Path:
    prefix = step_prefix(context.config.namespace, ref.phase, ref.key)
    manifest = read_manifest(context.store, prefix)
    if manifest is None:
        raise InputError(
            f"{context.store.uri_of(prefix)}/{MANIFEST_NAME} does not exist, and this step starts from that model; "
            "run the step that makes it first"
        )
    fetch(context.store, prefix, manifest, dest, folder="model")
    return dest / "model"


def _fetch_base(context: Context, ref: BaseModelRef, dest: Path) -> Path:
    """A model as its makers left it, or one that a step of some run committed (`selfevo artifacts path`)."""
    scheme, _, rest = ref.uri.partition("://")
    if scheme == "hf":
        return fetch_hub(ref.uri, context.cache_dir)
    folder = Path(rest)
    if scheme == "file" and not folder.is_dir():
        raise InputError(f"spec.model.uri is {ref.uri!r}, and there is no such folder; correct it")
    if scheme == "file" and not (folder / MANIFEST_NAME).is_file():
        return folder
    storage = context.config.storage
    with held_in("spec.model.uri"):
        store = open_store(
            ref.uri,
            endpoint=storage.endpoint,
            region=storage.region,
            require_conditional_put=False,
            cache_dir=context.cache_dir,
        )
        manifest = read_manifest(store, "")
        if manifest is not None:
            return fetch(store, "", manifest, dest, folder="model")
        return download_tree(store, "", dest, lambda names: _of_use(ref.uri, names, store))


def _of_use(uri: str, names: list[str], store: ObjectStore) -> list[str]:
    with index_read(uri):
        chosen = wanted(names, lambda: store.read_bytes(INDEX))
    if not any(name.endswith(".safetensors") for name in chosen) and (pickle := pickled(names)):
        raise InputError(pickles_refused(uri, pickle))
    return chosen


def _check_files(path: Path, uri: str) -> None:
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
                f"spec.model.uri is {uri!r}, whose {name} is not JSON ({_first_line(error)}); download it again"
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


def device() -> str:
    """Where tensors live in this process."""
    import torch

    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


def load_config(path: Path, loading: Loading) -> Any:
    """What config.json says, as transformers understands it; no weight is read.

    Raises:
        InputError: it cannot be understood.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(str(path), trust_remote_code=loading.trust_remote_code, local_files_only=True)
    except (Exception, SystemExit) as error:  # a model's own code may ask to exit
        raise _not_loaded(path, error) from None


def load_tokenizer(path: Path, loading: Loading) -> Any:
    """The tokenizer, with an end and a padding token.

    A tokenizer without a padding token is padded with its end token, as TRL does; masks keep it out of every sum.

    Raises:
        InputError: it cannot be loaded, or has no end token.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(path), trust_remote_code=loading.trust_remote_code, padding_side="left", local_files_only=True
        )
    except Exception as error:
        raise InputError(
            f"the tokenizer in {path} cannot be loaded ({_first_line(error)}); save it with save_pretrained"
        ) from None
    # Of a folder without a vocabulary transformers makes a tokenizer that knows no words.
    if not tokenizer("1 + 1", add_special_tokens=False)["input_ids"]:
        raise InputError(f"the tokenizer in {path} has no vocabulary; add tokenizer.json, or what its kind has instead")
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"the tokenizer in {path} has no eos_token, so no answer would ever end; "
            "set eos_token in tokenizer_config.json"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_for_generation(path: Path, loading: Loading) -> Any:
    """Frozen weights in the run's dtype, on this process's device."""
    import torch

    model = _load(path, loading, getattr(torch, loading.dtype))
    model.requires_grad_(False)
    model = model.to(device()).eval()
    _check_logits(model, path, loading)
    return model


def _check_logits(model: Any, path: Path, loading: Loading) -> None:
    """Finite weights may still overflow on their way, those trained in bfloat16 in float16 above all.

    Raises:
        InputError: the first few tokens give NaN or infinity already.
    """
    import torch

    rows = model.get_input_embeddings().weight.shape[0]
    with torch.inference_mode():
        logits = model(input_ids=torch.arange(min(8, rows), device=model.device)[None]).logits
    if not torch.isfinite(logits).all():
        other = "float32" if loading.dtype == "bfloat16" else "bfloat16"
        raise InputError(
            f"the model in {path} computes NaN or infinity in {loading.dtype}; set spec.model.dtype to {other}, or "
            "take other weights"
        )


def load_for_training(path: Path, loading: Loading) -> Any:
    """Weights in float32: with bfloat16 ones AdamW's updates at a learning rate of 1e-6 would round to nothing.

    The forward pass runs in the run's dtype by autocast (docs/decisions/0003-master-weights.md). TRL reloads the
    reference model from the path that the model remembers.
    """
    import torch

    return _load(path, loading, torch.float32)


def _load(path: Path, loading: Loading, dtype: Any) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            str(path),
            dtype=dtype,
            trust_remote_code=loading.trust_remote_code,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except (Exception, SystemExit) as error:  # a model's own code may ask to exit
        raise _not_loaded(path, error) from None
    model, info = loaded
    # transformers fills what is missing with random numbers and a warning.
    if missing := sorted(info["missing_keys"]):
        raise InputError(
            f"the weights in {path} lack {missing[0]} ({len(missing)} in all) of the model that config.json describes; "
            "download them again or correct config.json"
        )
    _forget_generation_habits(model)
    return model


def _not_loaded(path: Path, error: BaseException) -> InputError:
    if "ignore_mismatched_sizes" in str(error):
        return InputError(
            f"the model in {path} cannot be loaded, for its weights have other shapes than config.json describes (the "
            "log lists them); check config.json, or download both again"
        )
    return InputError(
        f"the model in {path} cannot be loaded ({_first_line(error)}); check config.json, the weights, and "
        "spec.model.trustRemoteCode for architectures that bring their own code"
    )


def _forget_generation_habits(model: Any) -> None:
    """Leave of the model's generation_config where answers end, and how it is meant to be sampled.

    generate() takes what it is not told from there: a repetition penalty or a least length would bend every sample of
    training, rollout and evaluation, and no manifest would say so. Sampling settings without do_sample, which some
    published models have, would make save_pretrained fail after hours of training.
    """
    from transformers import GenerationConfig

    own = model.generation_config
    tokens = {name: getattr(own, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    sampling = {name: getattr(own, name) for name in ("temperature", "top_p", "top_k")}
    sampled = any(value is not None for value in sampling.values())
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        **tokens, **sampling, do_sample=True if sampled else None
    )


def _first_line(error: BaseException) -> str:
    """What a library's exception says, in one line: the second belongs to a first that ends with a colon."""
    lines = [" ".join(line.split()) for line in f"{type(error).__name__}: {error}".splitlines() if line.strip()]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])[:300]


def end_of_turn(tokenizer: Any) -> int | None:
    """The token with which the chat template ends an assistant's message; None where it is not one token of its own.

    A message is rendered, and what follows it is looked at.
    """
    if not tokenizer.chat_template:
        return None
    probe = "\ue000"
    turns = [{"role": "user", "content": "1 + 1"}, {"role": "assistant", "content": probe}]
    try:
        after = tokenizer.apply_chat_template(turns, tokenize=False).rpartition(probe)[2].strip()
    except Exception:  # no turn of the assistant can be rendered: the preflight judges what is needed
        return None
    ids = tokenizer(after, add_special_tokens=False)["input_ids"]
    return ids[0] if ids and ids[0] in tokenizer.added_tokens_decoder else None


def _stop_tokens(tokenizer: Any, wanted: list[str] | None) -> set[int]:
    if wanted is None:
        found = end_of_turn(tokenizer)
        return set() if found is None else {found}
    stops: set[int] = set()
    for text in wanted:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            raise InputError(
                f"spec.model.stopTokens has {text!r}, which is {len(ids)} tokens for this tokenizer; name single tokens"
            )
        stops.add(ids[0])
    return stops


def eos_token_ids(model: Any, tokenizer: Any, loading: Loading) -> set[int]:
    """Every token that ends an answer: the tokenizer's, the model's generation_config's, and the run's stopTokens.

    Raises:
        InputError: one of stopTokens is not a single token.
    """
    declared = model.generation_config.eos_token_id
    ids = [] if declared is None else [declared] if isinstance(declared, int) else list(declared)
    return {*ids, tokenizer.eos_token_id, *_stop_tokens(tokenizer, loading.stop_tokens)}
