"""Generation by the real vLLM, of the demo's model: what the interface promises, held against transformers.

All of it is found out by one process of the environment that has vLLM (tests/harness/vllm_session.py).
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest

from harness.vllm import Vllm

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def session(vllm: Vllm, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return vllm.answer("-m", "harness.vllm_session", tmp_path_factory.mktemp("vllm"))


@pytest.fixture(scope="module")
def made(session: Any) -> Any:
    return session["vllm"]


def apart(one: list[list[float]], other: list[list[float]]) -> float:
    pairs = zip(chain(*one), chain(*other), strict=True)
    return max(abs(a - b) for a, b in pairs)


def test_a_seed_means_the_same_texts(made: Any) -> None:
    assert made["again"] == made["whole"] != made["other_seed"]
    assert sum(tokens for group in made["whole"] for _, tokens, _ in group) > 2000


def test_random_streams_belong_to_prompt_and_sample(made: Any) -> None:
    whole = made["whole"]
    assert sum(len({text for text, _, _ in group}) > 1 for group in whole) > 30
    # Fewer samples are the first ones; a part of the prompts, in another order, gets what it got in the whole.
    assert made["fewer"] == [group[:2] for group in whole]
    assert made["part"] == [whole[i] for i in (31, 4, 17)]
    assert made["alone"] == [whole[4]]
    # One prompt under two numbers is asked twice.
    assert made["two_numbers"][0] == whole[4] != made["two_numbers"][1]
    assert made["none"] == []
    assert made["crowd"][35:] == made["of_crowd"], "nor does it matter that not all prompts are taken at once"


def test_greedy_answers_are_those_of_transformers(made: Any, session: Any) -> None:
    # Texts, and that the end token counts and does not show.
    assert made["greedy"] == session["transformers"]["greedy"]
    assert made["top_k_1"] == made["greedy"]


def test_the_whole_vocabulary_is_drawn_from_unless_it_is_limited(made: Any) -> None:
    assert len({text for text, _, _ in made["wild"][0]}) > 10
    assert len({text for text, _, _ in made["wild_2"][0]}) == 2


def test_a_completion_cut_at_its_limit_says_so(made: Any) -> None:
    assert not any(truncated for [[_, _, truncated]] in made["greedy"])
    for [[text, tokens, truncated]], [[whole, length, _]] in zip(made["cut"], made["greedy"], strict=True):
        assert (tokens, truncated) == (min(length, 8), length > 8)
        assert whole.startswith(text)
    assert len({truncated for [[_, _, truncated]] in made["cut"]}) == 2


def test_scores_are_those_of_transformers(made: Any, session: Any) -> None:
    assert [len(row) for row in made["scores"]] == [6, 1, 39]
    assert apart(made["scores"], session["transformers"]["scores"]) < 1e-4


def test_an_adapter_is_served_beside_its_base(session: Any) -> None:
    adapter = session["adapter"]
    assert apart(adapter["scores"], adapter["by_transformers"]) < 1e-4
    assert apart(adapter["scores"], session["vllm"]["scores"]) > 0.1  # not the bare base


def test_a_fingerprint_finds_out_which_weights_vllm_serves(made: Any, session: Any) -> None:
    base, adapter = made["where_wanted"], session["adapter"]["where_wanted"]
    assert base["base"] == adapter["adapter"] == "taken"
    served = "spec.rollout.engine (vllm) serves {} where solver {} was wanted: "
    before = "weights like those that its training began with (the model before)"
    assert base["adapter"].startswith(served.format(before, "adapter"))
    for found in (base, adapter):
        assert found["other"].startswith(served.format("other weights", "other"))
    assert adapter["base"].startswith(served.format("other weights", "base"))


def test_what_it_has_no_room_for_is_refused(made: Any) -> None:
    assert made["room"] == 256
    assert made["too_long"] == (
        "a prompt of 12 tokens and maxCompletionLength 500 are more than the 256 tokens that vLLM has room for; "
        "shorten one of them, or raise engine.maxModelLength where the model and the memory allow it"
    )
    assert made["too_hot"].startswith("temperature is 2.5, and vLLM takes at most 2; ")


def test_the_process_is_left_as_it_was(made: Any) -> None:
    assert made["state_kept"] == [True, True] and made["state_after"]
    assert made["threads_can_be_set"]
    assert made["environment_changed"] == []


def test_it_is_freed_completely_and_another_model_is_served_by_the_next(made: Any, session: Any) -> None:
    assert made["left"] == session["left"] == {"models": 0, "groups": False, "processes": 0}
    assert apart(session["other"]["scores"], session["other"]["by_transformers"]) < 1e-4
    assert apart(session["other"]["scores"], made["scores"]) > 1


def test_one_of_several_processes_has_it_as_a_child_and_keeps_its_own_group(session: Any) -> None:
    several = session["several"]
    assert several["scores"] == session["other"]["scores"]
    assert several["group_works"]
    assert (several["children"], several["children_after"]) == (1, 0)


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("head_dim", "vLLM 0.31.0 does not support the attention heads of the model in .*/narrow, which have 24 elem"),
        ("architecture", "vLLM 0.31.0 does not support the architecture 'Qwen9ForCausalLM'; choose engine.kind 'tr"),
        # It does quantize: what the CPU build lacks is the kernel.
        (
            "fp8",
            r"vLLM 0.31.0 cannot serve the model in .*/base \(RuntimeError: .*fp8_quant.*choose engine.kind 'transf",
        ),
        ("memory", r"the memory is too small for vLLM with engine.gpuMemoryUtilization 0.001 \(Available memory on"),
    ],
)
def test_a_model_that_it_cannot_serve_is_refused_in_one_sentence(session: Any, what: str, sentence: str) -> None:
    import re

    assert re.match(sentence, session[what]), session[what]
