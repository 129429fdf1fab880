"""Generation by transformers: what the interface promises, and what transformers' own defaults would break."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.tiny import BASE, HELDOUT
from selfevo_contract.phases import Loading
from selfevo_contract.spec.engines import TransformersEngine
from selfevo_contract.spec.prompts import Prompt
from selfevo_contract.spec.sampling import Sampling
from selfevo_trainer.context import NO_DISTRIBUTION
from selfevo_trainer.prompts import Messages, messages

pytestmark = pytest.mark.slow

LOADING = Loading(dtype="float32", trust_remote_code=False)
BARE = Prompt(user="{question}")


def asks(count: int) -> list[Messages]:
    """Questions of one to four digits: prompts of different lengths."""
    lines = HELDOUT.read_text().splitlines()[:count]
    return [messages(BARE, json.loads(line)["question"]) for line in lines]


def sampling(**settings: Any) -> Sampling:
    return Sampling.model_validate({"topP": 1.0, "maxCompletionLength": 32, **settings})


GREEDY = sampling(temperature=0)
SAMPLED = sampling(temperature=1.0)


def open_at(path: Path) -> Any:
    from selfevo_trainer.engines import Frozen, open_engine

    return open_engine(TransformersEngine(), Frozen(path, LOADING, "base", "model", 0))


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    made = open_at(BASE)
    yield made
    made.close()


@pytest.fixture
def batches_of(engine: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The engine with another batch size."""

    def resized(size: int, tokens: int = 10**9) -> Any:
        monkeypatch.setattr(engine, "settings", TransformersEngine(batchSize=size, batchTokens=tokens))
        monkeypatch.setattr(engine, "halved", False)
        return engine

    return resized


def test_a_seed_means_the_same_texts(engine: Any) -> None:
    import torch

    first = engine.generate(asks(6), SAMPLED, 4, seed=7)
    torch.manual_seed(123)  # the process's random state has no say
    assert engine.generate(asks(6), SAMPLED, 4, seed=7) == first
    assert engine.generate(asks(6), SAMPLED, 4, seed=8) != first


def test_random_streams_belong_to_prompt_and_sample(batches_of: Any) -> None:
    prompts = asks(40)
    whole = batches_of(64).generate(prompts, SAMPLED, 5, seed=7)
    assert sum(completion.tokens for group in whole for completion in group) > 2000
    assert all(len({completion.text for completion in group}) > 1 for group in whole[-5:])
    for size in (1, 3):
        assert batches_of(size).generate(prompts, SAMPLED, 5, seed=7) == whole
    # Fewer samples are the first ones; a part of the prompts, in another order, gets what it got in the whole.
    assert batches_of(7).generate(prompts, SAMPLED, 2, seed=7) == [group[:2] for group in whole]
    some = [31, 4, 17]
    assert batches_of(7).generate([prompts[i] for i in some], SAMPLED, 5, 7, some) == [whole[i] for i in some]
    # One prompt under two numbers is asked twice.
    [one, other] = batches_of(7).generate([prompts[4], prompts[4]], SAMPLED, 5, 7, [4, 5])
    assert one == whole[4] and other != one


@pytest.mark.parametrize("settings", [{}, {"topP": 0.7}, {"topK": 3}, {"temperature": 2.0}], ids=str)
def test_samples_follow_the_distribution(settings: dict[str, Any]) -> None:
    import torch

    from selfevo_trainer.engines.drawing import processors, stream

    chosen = sampling(**{"temperature": 1.0, **settings})
    logits = torch.tensor([2.0, 1.5, -1.0, 1.0, 0.0, -30.0])
    # By hand: temperature, then the k likeliest, then the smallest set that reaches p.
    expected = torch.softmax(logits / chosen.temperature, 0)
    order = expected.argsort(descending=True)
    kept = order[: chosen.top_k or None]
    before = expected[kept].cumsum(0) - expected[kept]
    mask = torch.zeros(6).scatter_(0, kept[before < chosen.top_p], 1.0)
    expected = expected * mask / (expected * mask).sum()
    rows = 20_000
    drawn = processors(chosen, [stream(1, i, 0) for i in range(rows)], 3)
    scores = drawn(torch.zeros(rows, 5, dtype=torch.long), logits.repeat(rows, 1))
    found = torch.bincount(scores.argmax(-1), minlength=6) / rows
    assert (found - expected).abs().max() < 4 * (0.25 / rows) ** 0.5
    assert not found[expected == 0].any()
    with pytest.raises(RuntimeError, match=NO_DISTRIBUTION):
        drawn(torch.zeros(rows, 5, dtype=torch.long), logits.repeat(rows, 1) * torch.nan)


def test_the_process_random_state_stays_as_it_was(engine: Any) -> None:
    import torch

    torch.manual_seed(5)
    before = torch.get_rng_state()
    engine.generate(asks(3), SAMPLED, 2, seed=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_samples_differ_among_each_other(engine: Any) -> None:
    [group] = engine.generate([messages(Prompt(user="ask"))], SAMPLED, 16, seed=0)
    assert len({completion.text for completion in group}) > 8


@pytest.mark.parametrize("size", [1, 5, 12, 64])
def test_each_prompt_gets_its_samples_whatever_the_batch_size(batches_of: Any, size: int) -> None:
    groups = batches_of(size).generate(asks(4), SAMPLED, 3, seed=0)
    assert [len(group) for group in groups] == [3, 3, 3, 3]


def test_no_prompts_are_no_completions(engine: Any) -> None:
    assert engine.generate([], SAMPLED, 3, seed=0) == []


def test_completions_belong_to_their_prompts_in_order(engine: Any) -> None:
    # Sorting by length must not show. The worked answers begin with the last digits of both operands.
    prompts = asks(40)
    for prompt, [completion] in zip(prompts, engine.generate(prompts, GREEDY, 1, seed=0), strict=True):
        left, _, right = prompt[-1]["content"].split(" ")
        if not completion.text.startswith("\\boxed{"):
            assert completion.text.startswith(left[-1] + right[-1])


def test_greedy_answers_are_those_of_each_prompt_alone(batches_of: Any) -> None:
    prompts = asks(40)
    together = batches_of(64).generate(prompts, GREEDY, 1, seed=0)
    alone = batches_of(1).generate(prompts, GREEDY, 1, seed=99)
    assert together == alone


@pytest.mark.parametrize("picky", [sampling(topK=1), sampling(topP=1e-6)], ids=["topK", "topP"])
def test_sampling_among_one_token_is_greedy(engine: Any, picky: Sampling) -> None:
    prompts = asks(10)
    assert engine.generate(prompts, picky, 1, seed=3) == engine.generate(prompts, GREEDY, 1, seed=0)


def test_top_k_0_leaves_the_whole_vocabulary(engine: Any) -> None:
    # transformers' own default is 50, and would cut the distribution that training is about.
    wild = sampling(temperature=10.0, maxCompletionLength=1)
    [group] = engine.generate(asks(1), wild, 1000, seed=0)
    assert len({completion.text for completion in group}) > 60
    [few] = engine.generate(asks(1), wild.model_copy(update={"top_k": 5}), 1000, seed=0)
    assert len({completion.text for completion in few}) <= 5


def test_a_completion_cut_at_its_limit_says_so(engine: Any) -> None:
    whole = engine.generate(asks(20), GREEDY, 1, seed=0)
    lengths = [group[0].tokens for group in whole]
    assert not any(group[0].truncated for group in whole)
    limit = sorted(lengths)[10]
    cut = engine.generate(asks(20), sampling(temperature=0, maxCompletionLength=limit), 1, seed=0)
    for [completion], [before], length in zip(cut, whole, lengths, strict=True):
        assert completion.truncated == (length > limit)
        assert completion.tokens == min(length, limit)
        # The end token counts and does not show.
        assert before.text.startswith(completion.text) and len(before.text) >= len(completion.text)


@pytest.fixture
def widths(engine: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Sequences and longest prompt of each batch that was generated."""
    real, seen = engine._generate_batch, []

    def watched(ids: list[list[int]], *rest: Any) -> Any:
        made = real(ids, *rest)
        seen.append((len(ids), max(map(len, ids))))
        return made

    monkeypatch.setattr(engine, "_generate_batch", watched)
    return seen


def test_a_batch_keeps_to_its_tokens(batches_of: Any, widths: list[tuple[int, int]]) -> None:
    prompts = asks(40)
    whole = batches_of(64).generate(prompts, SAMPLED, 5, seed=7)
    assert [size for size, _ in widths] == [64, 64, 64, 8]
    widths.clear()
    longest_prompt = max(len(row) for row in _encoded(batches_of(64), prompts))
    budget = 16 * (longest_prompt + 32)
    assert batches_of(64, budget).generate(prompts, SAMPLED, 5, seed=7) == whole
    assert widths[0] == (16, longest_prompt)
    assert all(size * (longest + 32) <= budget for size, longest in widths)
    assert max(size for size, _ in widths) > 16, "shorter prompts share a larger batch"
    widths.clear()
    assert batches_of(64, 1).generate(prompts[:2], SAMPLED, 5, seed=7) == whole[:2]
    assert {size for size, _ in widths} == {1}


def _encoded(engine: Any, prompts: list[Messages]) -> list[list[int]]:
    from selfevo_trainer.prompts import encode_all

    found: list[list[int]] = encode_all(engine.tokenizer, prompts)
    return found


OUT_OF_MEMORY = [
    "CUDA out of memory. Tried to allocate 2.00 GiB",
    "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to ...",
]


@pytest.mark.parametrize("message", OUT_OF_MEMORY, ids=["cuda", "cpu"])
def test_batches_are_halved_once_when_memory_runs_out(
    message: str, batches_of: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import torch

    from selfevo_contract.errors import InputError

    engine = batches_of(64)
    prompts = asks(40)
    whole = engine.generate(prompts, SAMPLED, 5, seed=7)
    real, sizes, room = engine._generate_batch, [], 40

    def small(ids: list[list[int]], *rest: Any) -> Any:
        if len(ids) > room:
            raise (torch.OutOfMemoryError if "CUDA" in message else RuntimeError)(message)
        sizes.append(len(ids))
        return real(ids, *rest)

    monkeypatch.setattr(engine, "_generate_batch", small)
    assert engine.generate(prompts, SAMPLED, 5, seed=7) == whole
    assert sizes == [32] * 6 + [8]
    [line] = [record.getMessage() for record in caplog.records if record.name == "selfevo"]
    assert line.startswith("memory ran out for a batch of 64 sequences of up to ") and "batchSize" in line
    # It stays so: the next call does not try the larger batch again.
    engine.generate(prompts[:10], SAMPLED, 5, seed=7)
    assert sizes[7:] == [32, 18] and len(caplog.records) == 1
    room = 20
    with pytest.raises(InputError, match=r"a batch of 32 sequences .*lower engine.batchSize or engine.batchTokens"):
        engine.generate(prompts, SAMPLED, 5, seed=7)
    room = 0
    with pytest.raises(InputError, match="a batch of 1 sequences"):
        batches_of(1).generate(prompts, SAMPLED, 1, seed=7)


def test_another_error_is_not_taken_for_memory(batches_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("shapes do not fit")

    engine = batches_of(64)
    monkeypatch.setattr(engine, "_generate_batch", broken)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        engine.generate(asks(3), SAMPLED, 2, seed=7)
    assert not engine.halved


@pytest.fixture
def base_copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BASE, tmp_path / "base"))


def test_any_of_the_declared_end_tokens_ends_an_answer(base_copy: Path) -> None:
    # Chat models declare more ends in generation_config.json than their tokenizer has.
    config = json.loads((base_copy / "generation_config.json").read_text())
    brace = json.loads((base_copy / "tokenizer.json").read_text())["model"]["vocab"]["}"]
    (base_copy / "generation_config.json").write_text(json.dumps({**config, "eos_token_id": [brace]}))
    engine = open_at(base_copy)
    assert engine.eos == {brace, engine.tokenizer.eos_token_id}
    for [completion] in engine.generate(asks(10), GREEDY, 1, seed=0):
        assert completion.text.endswith("}") and not completion.truncated
        assert completion.text.count("}") == 1
    engine.close()


def test_the_models_own_generation_settings_have_no_say(base_copy: Path, engine: Any) -> None:
    config = json.loads((base_copy / "generation_config.json").read_text())
    hostile = {"temperature": 0.01, "top_k": 1, "repetition_penalty": 5.0, "max_new_tokens": 2, "min_new_tokens": 30}
    (base_copy / "generation_config.json").write_text(json.dumps({**config, **hostile}))
    other = open_at(base_copy)
    assert other.generate(asks(5), SAMPLED, 3, seed=2) == engine.generate(asks(5), SAMPLED, 3, seed=2)
    other.close()


def test_weights_are_frozen(engine: Any) -> None:
    assert not engine.model.training
    assert not any(parameter.requires_grad for parameter in engine.model.parameters())


def test_the_engines_of_the_contract_are_those_of_the_registry():
    from selfevo_contract.spec.engines import ENGINES
    from selfevo_trainer.engines import MODULES

    assert tuple(MODULES) == tuple(ENGINES)
