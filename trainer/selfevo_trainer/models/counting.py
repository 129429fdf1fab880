"""What a model of any architecture that transformers knows has, counted on one without contents (torch's meta device):
weights, the matrices that may get an adapter, keys and values. No weight is read and no memory taken.

The formulas of `selfevo_contract.sizing` are for the kinds of its KINDS; of the others they take what is counted here,
and the widths of the config for activations (docs/sizing.md says what is exact).
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from selfevo_contract.errors import InputError
from selfevo_contract.sizing.architecture import Architecture, Cached, Counted, Matrix
from selfevo_trainer.models.loading import first_line

_TOKENS = 8
"""Of the pass that shows the cache; fewer than any window has."""


def of_content(content: Mapping[str, Any]) -> Architecture:
    """Of a config.json, whose kind is one of transformers' own.

    Raises:
        InputError: transformers does not know it, or it is no decoder with attention.
    """
    from transformers import CONFIG_MAPPING, __version__

    kind = content.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise InputError(
            f"config.json has model_type {kind!r}, which transformers {__version__} does not know; take a model of "
            "another architecture, or install a transformers that knows it"
        )
    try:
        config = CONFIG_MAPPING[kind].from_dict(dict(content))
    except Exception as error:  # each kind checks its config in its own way
        raise _not_made(kind, error) from None
    return of_config(config)


def of_config(config: Any, *, trust_remote_code: bool = False) -> Architecture:
    """Of a config as transformers has read it.

    Raises:
        InputError: likewise.
    """
    import torch
    from transformers import AutoModelForCausalLM

    kind = config.model_type
    try:
        with torch.device("meta"):
            made: Any = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                config, dtype=torch.bfloat16, trust_remote_code=trust_remote_code
            )
        model = made.eval()
    except (Exception, SystemExit) as error:  # a model's own code may ask to exit
        raise _not_made(kind, error) from None
    try:
        return _of_model(model, config.get_text_config())
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # peft's, or of the model's own code
        raise InputError(
            f"config.json has model_type {kind!r}, and what a model of it has cannot be counted ({first_line(error)}); "
            "take another model, or measure its memory in a short run"
        ) from None


def _of_model(model: Any, text: Any) -> Architecture:
    rows = model.get_input_embeddings().weight.shape[0]
    parameters, tied = sum(weight.numel() for weight in model.parameters()), _tied(model)
    hidden, heads, layers = (_width(text, name) for name in ("hidden_size", "num_attention_heads", "num_hidden_layers"))
    kv_heads, head_size = _width(text, "num_key_value_heads", heads), _width(text, "head_dim", hidden // heads)
    cached = tuple(_cached(model)) or tuple([Cached(2 * kv_heads * head_size)] * layers)
    return Architecture(
        hidden=hidden,
        intermediate=_intermediate(text, hidden),
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        vocabulary=rows,
        tied=tied,
        qk_norm=any(name.endswith(("q_norm", "q_layernorm")) for name, _ in model.named_modules()),
        counted=Counted(parameters, tuple(_matrices(model)), cached),
    )


def _matrices(model: Any) -> Iterator[Matrix]:
    """All that peft makes adapters for when it is asked for every linear layer (experts too, which are no modules), and
    embeddings. ``model`` has these adapters then."""
    import torch
    from peft import LoraConfig, get_peft_model

    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Embedding):
            yield Matrix(name, sum(module.weight.shape), linear=False)
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of experts' names, which peft looks for in vain
        adapted = get_peft_model(model, LoraConfig(r=1, target_modules="all-linear", task_type="CAUSAL_LM"))
    sides: Counter[str] = Counter()
    for name, weight in adapted.named_parameters():
        if weight.requires_grad:
            module_name = name.partition(".lora_")[0].removesuffix(".base_layer")
            sides[module_name.removeprefix("base_model.model.")] += weight.numel()
    for name, count in sides.items():
        yield Matrix(name, count)


def _cached(model: Any) -> Iterator[Cached]:
    """By what a pass over a few tokens leaves; nothing of a model that does not run without contents."""
    import torch

    for config in (model.config, model.config.get_text_config()):
        config.pad_token_id = None  # which would be looked for in the tokens
    try:
        with torch.no_grad(), torch.device("meta"):
            cache = model(input_ids=torch.ones(1, _TOKENS, dtype=torch.long), use_cache=True).past_key_values
        layers = list(cache.layers)
    except Exception:
        return
    for layer in layers:
        tensors = [getattr(layer, name, None) for name in ("keys", "values")]
        numbers = sum(it.numel() for it in tensors if isinstance(it, torch.Tensor))
        yield Cached(numbers // _TOKENS, getattr(layer, "sliding_window", None))


def _tied(model: Any) -> bool:
    out = model.get_output_embeddings()
    return out is not None and out.weight is model.get_input_embeddings().weight


def _intermediate(text: Any, hidden: int) -> int:
    """Width of what a token passes through in the MLP: of all experts that it is sent to, where there are some."""
    own = _width(text, "intermediate_size", 4 * hidden)
    experts = _width(text, "num_experts_per_tok", 0)
    return experts * _width(text, "moe_intermediate_size", own) if experts else own


def _width(text: Any, name: str, default: int | None = None) -> int:
    found = getattr(text, name, None)
    if isinstance(found, int) and found > 0:
        return found
    if default is None:
        raise InputError(
            f"config.json has model_type {text.model_type!r} and no {name}, by which memory is worked out; take a "
            "model that is a decoder with attention"
        )
    return default


def _not_made(kind: str, error: BaseException) -> InputError:
    return InputError(
        f"config.json has model_type {kind!r}, and transformers makes no model of it that writes text "
        f"({first_line(error)}); correct config.json, or take another model"
    )
