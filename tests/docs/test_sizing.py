"""The GPU memory in docs/sizing.md: the page is what the formula says, and the formula is what torch does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.tools import tool
from runs import by_transformers
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.sizing import memory as sizing
from selfevo_contract.sizing.architecture import MODELS, Architecture
from selfevo_contract.sizing.backward import gathered_bytes
from selfevo_contract.spec.engines import TransformersEngine
from selfevo_contract.spec.grpo import ChallengerGrpo, Grpo
from selfevo_contract.spec.lora import Lora

ROOT = Path(__file__).resolve().parents[2]


page = tool("gpu_sizing")
QWEN = MODELS["Qwen3-4B-Base"]
SMALL = {
    "qwen3": Architecture(64, 96, 4, 4, 2, 16, 131, True, True),
    "llama": Architecture(192, 288, 4, 6, 3, 32, 131, False, False),
}


def test_the_page_has_the_tables_that_the_formula_makes() -> None:
    text = page.PAGE.read_text()
    assert page.page(text) == text, "run `python tools/gpu_sizing.py`"


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("SmolLM2-135M-Instruct", 0.1345),
        ("Qwen3-0.6B-Base", 0.596),
        ("Qwen3-1.7B-Base", 1.721),
        ("Qwen3-4B-Base", 4.022),
        ("Qwen3-8B-Base", 8.191),
        ("OctoThinker-3B-Hybrid-Base", 3.213),
        ("OctoThinker-8B-Hybrid-Base", 8.030),
    ],
)
def test_parameters_are_as_many_as_published(name: str, billions: float) -> None:
    assert MODELS[name].parameters / 1e9 == pytest.approx(billions, abs=0.0006)


@pytest.mark.parametrize(
    ("change", "bytes_a_parameter"),
    [
        ({"gpus": 1, "beta": 0.0}, 12),  # weights 4, moments 8; gradients and autocast's copies are the pass's own
        ({"gpus": 8, "beta": 0.0}, 16),  # and DDP's copy of the gradients
        ({"gpus": 8, "beta": 0.01}, 20),  # and the reference
        ({"gpus": 8, "beta": 0.01, "solver": True}, 22),  # and the frozen Solver, in bfloat16
    ],
)
def test_what_is_held_through_training(change: dict[str, Any], bytes_a_parameter: int) -> None:
    grpo = Grpo(beta=change["beta"])
    solver = TransformersEngine(batchSize=64) if change.get("solver") else None
    need = sizing.training("solver-train", QWEN, grpo, 2, change["gpus"], solver)
    assert need.held == bytes_a_parameter * QWEN.parameters


def test_what_is_held_is_shared_out_and_a_pass_gathers_a_few_layers() -> None:
    alone, shared = (
        sizing.training("solver-train", QWEN, Grpo(gradientCheckpointing=True, sharding=sharding), 2, 8)
        for sharding in (None, "fsdp")
    )
    assert shared.held == (4 + 8 + 4) * QWEN.parameters // 8  # and no copy of the gradients
    layer = (QWEN.parameters - QWEN.vocabulary * QWEN.hidden) // QWEN.layers
    assert gathered_bytes(QWEN, 2) == pytest.approx(2 * (QWEN.vocabulary * QWEN.hidden + 3 * layer), rel=1e-3)
    assert shared.backward < alone.backward - 4 * QWEN.parameters // 2


def test_the_policys_distributions_are_counted_where_they_pay() -> None:
    """Of 4,096 positions, or of one answer that is longer, 2 and 4 bytes a word of the vocabulary."""
    by = {"numGenerations": 2, "promptsPerStep": 1, "perDeviceTrainBatchSize": 1, "lora": Lora()}
    for longest, positions in ((64, 4096), (8192, 8192)):
        labels, certain = (
            sizing.training("solver-train", QWEN, Grpo(maxCompletionLength=longest, **by), 2, 1, certain=certain)
            for certain in (False, True)
        )
        assert certain.generation == positions * QWEN.vocabulary * 6 > labels.generation
        assert (certain.held, certain.backward) == (labels.held, labels.backward)


def test_what_makes_a_phase_smaller() -> None:
    def total(gpus: int = 8, **grpo: Any) -> float:
        return sizing.training(
            "challenger-train", QWEN, ChallengerGrpo(**{"promptsPerStep": 16, **grpo}), 2, gpus
        ).total

    assert total(gradientCheckpointing=True) < total()
    assert total(perDeviceTrainBatchSize=1) < total()
    assert total(maxCompletionLength=1024) < total()
    many = {"gradientCheckpointing": True, "promptsPerStep": 512}
    assert total(generationBatchTokens=16_384, **many) < total(**many)
    assert total(gpus=16, **many) == total(**many)  # each generates fewer, and as many at once
    assert total(lora=Lora(), **many) < total(**many)
    assert total(sharding="fsdp", **many) < total(**many)
    assert total(sharding="fsdp", gpus=16, **many) < total(sharding="fsdp", **many)
    assert total(gpus=1, beta=0.0) < total(gpus=1)


def test_a_manifest_is_read_with_its_gpus_and_nodes() -> None:
    run = SelfEvolutionRun.model_validate(by_transformers("qwen3-4b-base"))
    needs = {need.phase: need for need in sizing.needs(run.spec, QWEN)}
    assert {name: need.gpus for name, need in needs.items()} == {
        "challenger-train": 8,
        "solver-rollout": 1,
        "solver-train": 8,
        "evaluate": 1,
    }
    pods = run.spec.solver.pods.model_copy(update={"nodes": 2})
    doubled = run.spec.model_copy(update={"solver": run.spec.solver.model_copy(update={"pods": pods})})
    assert [need.gpus for need in sizing.needs(doubled, QWEN)] == [8, 1, 16, 1]


def test_a_card_is_the_smallest_that_holds_it() -> None:
    def card(gib: float) -> str:
        held = int((gib - sizing.CONTEXT_GIB) * sizing.GIB / (1 + sizing.RESERVE))
        return sizing.Need("evaluate", 1, held, 0, 0).card

    assert [card(gib) for gib in (10, 22.5, 79.0, 79.2, 200)] == ["24 GB", "48 GB", "80 GB", "141 GB", "none"]


def _config(kind: str, model: Any) -> Any:
    from transformers import LlamaConfig, Qwen3Config

    return (Qwen3Config if kind == "qwen3" else LlamaConfig)(
        vocab_size=model.vocabulary,
        hidden_size=model.hidden,
        intermediate_size=model.intermediate,
        num_hidden_layers=model.layers,
        num_attention_heads=model.heads,
        num_key_value_heads=model.kv_heads,
        head_dim=model.head_size,
        tie_word_embeddings=model.tied,
    )


def _made(kind: str, model: Any, where: str = "cpu") -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device(where):
        return AutoModelForCausalLM.from_config(_config(kind, model), dtype=torch.float32)


BATCH, TOKENS = 2, 37


def _saved(model: Any, *, checkpointing: bool) -> int:
    """Bytes that the backward pass would need, besides weights and their copies."""
    import torch

    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    shapes = {shape for p in model.parameters() for shape in (tuple(p.shape), tuple(p.shape[::-1]))}
    kept: dict[int, Any] = {}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        copy_of_weight = tensor.dtype == torch.bfloat16 and tuple(tensor.shape) in shapes
        if storage.data_ptr() not in own and not copy_of_weight:
            kept[storage.data_ptr()] = (storage, tensor)
        return tensor

    ids = torch.randint(0, 131, (BATCH, TOKENS))
    mask = torch.ones_like(ids)
    mask[0, :3] = 0  # left padding, as in training
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", dtype=torch.bfloat16):
        output = model.model(input_ids=ids, attention_mask=mask, use_cache=False)
    assert output.last_hidden_state.requires_grad
    return sum(storage.nbytes() for storage, _ in kept.values())


@pytest.mark.slow
@pytest.mark.parametrize("kind", SMALL)
def test_torch_has_as_many_parameters_and_saves_as_many_bytes_as_the_formula_says(kind: str) -> None:
    model = SMALL[kind]
    assert sum(p.numel() for p in _made(kind, model, "meta").parameters()) == model.parameters
    deep, flat = (_made(kind, replace(model, layers=layers)) for layers in (4, 2))
    layer = (_saved(deep, checkpointing=False) - _saved(flat, checkpointing=False)) / 2 / (BATCH * TOKENS)
    assert layer == pytest.approx(model.saved_by_a_layer(TOKENS), rel=0.01)
    layer = (_saved(deep, checkpointing=True) - _saved(flat, checkpointing=True)) / 2 / (BATCH * TOKENS)
    assert layer == 4 * model.hidden


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "own", "share"),
    [
        ("qwen2", {}, 1.0),
        ("phi3", {}, 0.93),
        ("gemma3_text", {"layer_types": ["full_attention"] * 4}, 1.28),
        ("qwen3_moe", {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 128}, 1.51),
    ],
)
def test_of_other_kinds_a_layer_saves_about_as_much(kind: str, own: dict[str, Any], share: float) -> None:
    """As docs/sizing.md has it."""
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    from selfevo_trainer.models.counting import of_config

    sizes = {"hidden_size": 128, "intermediate_size": 384, "num_attention_heads": 8, "num_key_value_heads": 4}
    sizes |= {"head_dim": 16, "vocab_size": 131, "pad_token_id": 0}

    def config(layers: int) -> Any:
        types = {name: value[:layers] for name, value in own.items() if isinstance(value, list)}
        return CONFIG_MAPPING[kind](**sizes, **{**own, **types}, num_hidden_layers=layers)

    saved = [
        _saved(AutoModelForCausalLM.from_config(config(layers), dtype="float32"), checkpointing=False)
        for layers in (4, 2)
    ]
    layer = (saved[0] - saved[1]) / 2 / (BATCH * TOKENS)
    assert layer / of_config(config(2)).saved_by_a_layer(TOKENS) == pytest.approx(share, abs=0.006)


@pytest.mark.slow
@pytest.mark.parametrize(
    "targets",
    [
        None,
        ["q_proj", "down_proj", "self_attn.q_proj", "proj"],
        ["layers.2.self_attn.k_proj", "model.layers.1.mlp.up_proj", "3.mlp.gate_proj"],
        ["embed_tokens"],
    ],
)
@pytest.mark.parametrize("kind", SMALL)
def test_an_adapter_is_as_large_as_pefts(kind: str, targets: list[str] | None) -> None:
    from selfevo_trainer.models.adapters import begin

    model, lora = SMALL[kind], Lora(rank=3, targetModules=targets)
    adapted = begin(_made(kind, model), lora, seed=0)
    assert sum(p.numel() for p in adapted.parameters() if p.requires_grad) == model.adapter(lora)
    need = sizing.training("solver-train", model, Grpo(lora=lora), 2, 1)
    assert need.held == 2 * model.parameters + (4 + 8 + 4) * model.adapter(lora)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SMALL)
def test_transformers_keeps_keys_and_values_as_the_formula_says(kind: str) -> None:
    import torch
    from transformers import DynamicCache

    def cached(network: Any) -> int:
        cache = DynamicCache()
        with torch.no_grad():
            network(torch.ones(BATCH, TOKENS, dtype=torch.long), past_key_values=cache, use_cache=True)
        return sum(tensor.nbytes for layer in cache.layers for tensor in (layer.keys, layer.values))

    network = _made(kind, SMALL[kind])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert cached(network) == BATCH * TOKENS * SMALL[kind].cached(4)  # training generates like this
    assert cached(network.to(torch.bfloat16)) == BATCH * TOKENS * SMALL[kind].cached(2)
