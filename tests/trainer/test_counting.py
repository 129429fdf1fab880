"""Models of architectures that the formulas are not for: counted without contents, they have what real ones have."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from runs import EXAMPLES
from selfevo_contract.errors import InputError
from selfevo_contract.plan import plan
from selfevo_contract.process import phase_config
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.sizing.architecture import Architecture
from selfevo_contract.spec.lora import Lora

pytestmark = pytest.mark.slow

_WIDTHS = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4}
_SMALL = {**_WIDTHS, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 131, "pad_token_id": 0}
KINDS: dict[str, dict[str, Any]] = {
    "qwen2": {"tie_word_embeddings": False},  # biases
    "gemma3_text": {"head_dim": 32, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"] * 2},
    "phi3": {},  # one matrix for queries, keys and values
    "olmo2": {},  # norms behind the blocks
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    # does not run without contents
    "opt": {"ffn_dim": 96, "word_embed_proj_dim": 64, "num_key_value_heads": None, "head_dim": None},
}
BATCH, TOKENS = 2, 37


def content_of(kind: str) -> dict[str, Any]:
    from transformers import CONFIG_MAPPING

    own: dict[str, Any] = CONFIG_MAPPING[kind](**{**_SMALL, **KINDS.get(kind, {})}).to_dict()
    return own


@pytest.fixture(params=KINDS)
def pair(request: pytest.FixtureRequest) -> tuple[Any, Architecture]:
    """A real model and what was counted for its config.json."""
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    from selfevo_trainer.models.counting import of_content

    content = content_of(request.param)
    real = AutoModelForCausalLM.from_config(CONFIG_MAPPING[request.param].from_dict(dict(content)))  # type: ignore[no-untyped-call]
    return real, of_content(content)


def test_weights_adapters_and_cache_are_those_of_a_real_model(pair: tuple[Any, Architecture]) -> None:
    import torch
    from torch import nn

    from selfevo_trainer.models.adapters import begin

    real, model = pair
    assert model.parameters == sum(weight.numel() for weight in real.parameters())
    assert model.embedding == real.get_input_embeddings().weight.numel()
    with torch.no_grad():
        made = real.generate(
            torch.ones(BATCH, TOKENS - 4, dtype=torch.long),
            attention_mask=torch.ones(BATCH, TOKENS - 4, dtype=torch.long),
            min_new_tokens=5,  # of the last one keys and values are not computed
            max_new_tokens=5,
            return_dict_in_generate=True,
        )
    kept = sum(tensor.nbytes for layer in made.past_key_values.layers for tensor in (layer.keys, layer.values))
    counted = BATCH * TOKENS * model.cached(4, TOKENS)
    windows = [it for it in model.counted.cached if it.window] if model.counted else []
    # A window of n keeps n - 1 tokens and the newest one.
    assert kept <= counted <= kept + BATCH * (4 * sum(it.numbers for it in windows) + TOKENS)
    assert bool(windows) == (real.config.model_type == "gemma3_text")

    linear = [name for name, module in real.named_modules() if isinstance(module, nn.Linear)]
    inner = [name for name in linear if name != "lm_head"]
    for targets in (None, [inner[0].rpartition(".")[2]], [".".join(inner[-1].rsplit(".", 2)[1:])], [inner[3]]):
        lora = Lora(rank=3, targetModules=targets)
        adapted = begin(type(real)(real.config), lora, seed=0)
        assert model.adapter(lora) == sum(it.numel() for it in adapted.parameters() if it.requires_grad) > 0


@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral"])
def test_of_known_kinds_the_formulas_say_the_same(kind: str) -> None:
    from selfevo_trainer.models.counting import of_content

    content = content_of(kind)
    by_formula, counted = Architecture.of(content), of_content(content)
    for targets in (None, ["q_proj", "mlp.up_proj"], ["layers.3.self_attn.k_proj"], ["embed_tokens"]):
        lora = Lora(targetModules=targets)
        assert counted.adapter(lora) == by_formula.adapter(lora) > 0
    for name in ("parameters", "embedding", "in_layers", "q", "k", "tied", "qk_norm"):
        assert getattr(counted, name) == getattr(by_formula, name), name
    assert counted.cached(2) == by_formula.cached(2)
    assert counted.saved_by_a_layer(TOKENS) == by_formula.saved_by_a_layer(TOKENS)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"model_type": "cake"}, ["model_type 'cake', which transformers", "does not know"]),
        ({}, ["model_type None"]),
        ({"model_type": "mamba"}, ["model_type 'mamba' and no num_attention_heads"]),
        ({"model_type": "t5"}, ["model_type 't5', and transformers makes no model of it that writes text"]),
        ({"model_type": "qwen2", "hidden_size": "wide"}, ["model_type 'qwen2', and transformers makes no model of it"]),
        (
            {"model_type": "qwen2", "hidden_size": 64, "num_attention_heads": 0},
            ["model_type 'qwen2', and transformers"],
        ),
    ],
)
def test_what_cannot_be_counted_is_one_sentence(content: dict[str, Any], words: list[str]) -> None:
    from selfevo_trainer.models.counting import of_content

    with pytest.raises(InputError) as refused:
        of_content(content)
    message = str(refused.value)
    assert all(word in message for word in words) and "\n" not in message, message


@pytest.mark.parametrize("error", [TypeError("no such layer"), ValueError("no modules were targeted"), SystemExit(3)])
def test_a_model_that_is_made_and_cannot_be_counted_ends_no_training(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import peft

    from selfevo_contract.phases import Loading
    from selfevo_contract.spec.grpo import Grpo
    from selfevo_trainer.inputs.room import expected_bytes
    from selfevo_trainer.models.architecture import architecture

    def fails(*_: Any) -> None:
        raise error

    monkeypatch.setattr(peft, "get_peft_model", fails)
    (tmp_path / "config.json").write_text(json.dumps(content_of("qwen2")))
    loading = Loading(dtype="float32", trust_remote_code=False)
    with pytest.raises(InputError) as refused:
        architecture(tmp_path, loading)
    message = str(refused.value)
    assert "model_type 'qwen2', and what a model of it has cannot be counted (" in message and "\n" not in message
    assert "cannot be read" not in message
    with caplog.at_level(logging.WARNING, "selfevo"):
        caplog.clear()
        assert expected_bytes(Grpo.model_validate({"lora": {"rank": 2}}), tmp_path, loading) is None
    [warned] = [record.getMessage() for record in caplog.records if record.name == "selfevo"]
    assert warned.startswith("whether a checkpoint has room is not checked, ") and warned.endswith(message)


def test_the_trainer_counts_what_the_formula_does_not_know_and_says_where_it_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from selfevo_trainer.inputs import card

    spec = SelfEvolutionRun.model_validate(yaml.safe_load((EXAMPLES / "qwen3-4b-base.yaml").read_text())).spec
    step = next(step for step in plan(spec).steps if step.phase == "solver-train")
    context: Any = SimpleNamespace(
        config=phase_config(spec, "run", "namespace", step, attempt="test"), rank=SimpleNamespace(size=1)
    )
    inputs: Any = step.inputs
    monkeypatch.setattr(card, "card", lambda: ("NVIDIA T4", 0.01))

    def check(content: Any) -> None:
        (tmp_path / "config.json").write_text(json.dumps(content))
        card.check(context, inputs, tmp_path)

    with pytest.raises(InputError, match=r"\(NVIDIA T4\) has 0.0 GiB, and solver-train takes at least "):
        check(content_of("qwen2"))
    with caplog.at_level(logging.WARNING, "selfevo"):
        caplog.clear()
        check({"model_type": "cake"})
        check([])
    messages = [record.getMessage() for record in caplog.records if record.name == "selfevo"]
    assert len(messages) == 2 and all("whether the GPU's memory suffices is not checked" in it for it in messages)
