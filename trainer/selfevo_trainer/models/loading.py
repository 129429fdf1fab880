"""Models and tokenizers, loaded from files that are there.

transformers' own messages for broken input are tracebacks; here each is one sentence.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from selfevo_contract.errors import InputError
from selfevo_contract.phases import Loading
from selfevo_contract.spec.lora import Lora
from selfevo_trainer.models import adapters


def device() -> str:
    """Where tensors live in this process."""
    import torch

    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


def load_config(path: Path, loading: Loading) -> Any:
    """What config.json says, as transformers understands it; no weight is read.

    Raises:
        InputError: it cannot be understood.
    """
    return config_of(path, trust_remote_code=loading.trust_remote_code)


def config_of(path: Path, *, trust_remote_code: bool) -> Any:
    """Likewise; of all that says how weights are loaded, a config asks this alone.

    Raises:
        InputError: likewise.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(str(path), trust_remote_code=trust_remote_code, local_files_only=True)
    except (Exception, SystemExit) as error:  # a model's own code may ask to exit
        raise not_loaded(path, error) from None


def positions_of(path: Path, loading: Loading) -> int | None:
    """The longest sequence in tokens that the model was made for (max_position_embeddings); None where it has none."""
    found = getattr(load_config(path, loading).get_text_config(), "max_position_embeddings", None)
    return found if isinstance(found, int) else None


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
            f"the tokenizer in {path} cannot be loaded ({first_line(error)}); save it with save_pretrained"
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


def load_for_generation(path: Path, loading: Loading, where: str | None = None) -> Any:
    """Frozen weights in the run's dtype, on this process's device or on ``where``; an adapter with its base."""
    import torch

    model = _load(adapters.whole(path), loading, getattr(torch, loading.dtype))
    if adapters.is_adapter(path):
        model = adapters.apply(model, path)
    model.requires_grad_(False)
    model = model.to(where or device()).eval()
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
        raise not_finite(path, loading)


def not_finite(path: Path, loading: Loading) -> InputError:
    """What to say of weights that give NaN or infinity for the first few tokens already."""
    other = "float32" if loading.dtype == "bfloat16" else "bfloat16"
    return InputError(
        f"the model in {path} computes NaN or infinity in {loading.dtype}; set spec.model.dtype to {other}, or "
        "take other weights"
    )


def load_for_training(path: Path, loading: Loading, lora: Lora | None = None, seed: int = 0) -> Any:
    """Weights in float32: with bfloat16 ones AdamW's updates at a learning rate of 1e-6 would round to nothing.

    The forward pass runs in the run's dtype by autocast (docs/decisions/0003-master-weights.md). TRL reloads the
    reference model from the path that the model remembers. With ``lora`` the base is frozen and in the run's dtype, the
    adapter in float32, and TRL's reference a copy of the adapter as it begins (docs/decisions/0011-adapters.md).

    Raises:
        InputError: they cannot be loaded, or are an adapter where whole weights are trained.
    """
    import torch

    if lora is None:
        if adapters.is_adapter(path):
            raise InputError(
                "the model to begin with is an adapter and grpo.lora is not given, by which whole weights are trained; "
                "set grpo.lora as it was, or begin from the merged model (`selfevo artifacts fetch --merge`)"
            )
        return _load(path, loading, torch.float32)
    base = _load(adapters.whole(path), loading, getattr(torch, loading.dtype))
    return adapters.go_on(base, path, lora) if adapters.is_adapter(path) else adapters.begin(base, lora, seed)


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
        raise not_loaded(path, error) from None
    model, info = loaded
    # transformers fills what is missing with random numbers and a warning.
    if missing := sorted(info["missing_keys"]):
        raise InputError(
            f"the weights in {path} lack {missing[0]} ({len(missing)} in all) of the model that config.json describes; "
            "download them again or correct config.json"
        )
    _forget_generation_habits(model)
    return model


def not_loaded(path: Path, error: BaseException) -> InputError:
    """What to say of a model that transformers cannot load."""
    if "ignore_mismatched_sizes" in str(error):
        return InputError(
            f"the model in {path} cannot be loaded, for its weights have other shapes than config.json describes (the "
            "log lists them); check config.json, or download both again"
        )
    return InputError(
        f"the model in {path} cannot be loaded ({first_line(error)}); check config.json, the weights, and "
        "spec.model.trustRemoteCode for architectures that bring their own code"
    )


def _forget_generation_habits(model: Any) -> None:
    """Leave of the model's generation_config where answers end, and how it is meant to be sampled.

    generate() takes from there what no argument sets: a repetition penalty or a least length would bend every sample of
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


def first_line(error: BaseException) -> str:
    """What a library's exception says, in one line: the second belongs to a first that ends with a colon."""
    lines = [" ".join(line.split()) for line in f"{type(error).__name__}: {error}".splitlines() if line.strip()]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])[:300]


def end_of_turn(tokenizer: Any) -> int | None:
    """The token with which the chat template ends an assistant's message; None where it is not one token of its own.

    A message is rendered, and the token behind it is taken.
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


def load_generation_config(path: Path, loading: Loading) -> Any:
    """The generation_config that `load_for_generation`'s model has: the file's, else what config.json says of it.

    Raises:
        InputError: config.json cannot be understood.
    """
    from transformers import GenerationConfig

    config = load_config(path, loading)
    try:
        return GenerationConfig.from_pretrained(str(path), local_files_only=True)
    except OSError:  # as transformers does it when a model has no such file
        return GenerationConfig.from_model_config(config)


def eos_token_ids(generation_config: Any, tokenizer: Any, loading: Loading) -> set[int]:
    """Every token that ends an answer: the tokenizer's, the model's generation_config's, and the run's stopTokens.

    Raises:
        InputError: one of stopTokens is not a single token.
    """
    declared = generation_config.eos_token_id
    ids = [] if declared is None else [declared] if isinstance(declared, int) else list(declared)
    return {*ids, tokenizer.eos_token_id, *_stop_tokens(tokenizer, loading.stop_tokens)}
