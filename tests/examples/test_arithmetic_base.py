"""The arithmetic example: its data, its tokenizer, and the base model that ships with it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from runs import load_script

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "arithmetic"
SCRIPT = EXAMPLE / "make_base.py"
BASE = EXAMPLE / "base"
HELDOUT = EXAMPLE / "heldout.jsonl"


make_base = load_script("arithmetic_make_base", SCRIPT)


def _run_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, env=environment, timeout=900
    )


# --- the questions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "worked", "answer"),
    [
        ((37, "+", 48), "7815 3408", "85"),
        ((57, "+", 48), "7815 5410", "105"),
        ((52, "-", 37), "2715 5301", "15"),
        ((102, "-", 100), "2002 0000 1100", "2"),
        ((100, "-", 100), "0000 0000 1100", "0"),
        ((200, "-", 101), "0119 0019 2100", "99"),
        ((9, "+", 9), "9918", "18"),
    ],
)
def test_columns_carry_and_borrow(question: tuple[int, str, int], worked: str, answer: str) -> None:
    asked = make_base.Question(*question)
    assert (make_base.columns(asked), asked.answer) == (worked, answer)


def test_columns_always_spell_the_answer() -> None:
    for question in make_base.make_heldout():
        *_, last = columns = make_base.columns(question).split(" ")
        digits = "".join(column[3] for column in reversed(columns))
        assert int(last[2] + digits) == int(question.answer)


def test_shipped_heldout_is_what_the_script_generates(tmp_path: Path) -> None:
    again = tmp_path / "heldout.jsonl"
    assert make_base.main(["--heldout", str(again)]) == 0
    assert again.read_bytes() == HELDOUT.read_bytes()


def test_heldout_has_500_distinct_questions_with_right_answers_at_the_stated_levels() -> None:
    rows = [json.loads(line) for line in HELDOUT.read_text(encoding="utf-8").splitlines()]
    levels: Counter[int] = Counter()
    for row in rows:
        assert set(row) == {"question", "answer"}
        x, operator, y = row["question"].split(" ")
        assert len(x) == len(y)
        result = int(x) + int(y) if operator == "+" else int(x) - int(y)
        assert row["answer"] == str(result) and result >= 0
        levels[len(x)] += 1
    assert levels == {1: 40, 2: 185, 3: 185, 4: 90}
    assert len({make_base.normalise(row["question"]) for row in rows}) == len(rows) == 500


@pytest.mark.slow
def test_no_heldout_question_is_in_the_pretraining_text_in_either_role() -> None:
    heldout = make_base.make_heldout()
    excluded = {make_base.normalise(question.text) for question in heldout}
    seen: dict[str, set[str]] = {"solver": set(), "challenger": set()}
    for example in islice(make_base.pretraining_text(make_base.SHIPPED_SEED, heldout), 200_000):
        if example.prompt == make_base.CHALLENGER_PROMPT:
            question = example.completion.removeprefix("<question>").partition("</question>")[0]
            seen["challenger"].add(make_base.normalise(question))
        else:
            seen["solver"].add(make_base.normalise(example.prompt))
    assert len(seen["solver"]) > 10_000 and len(seen["challenger"]) > 1_000  # both roles were checked
    assert not excluded & seen["solver"]
    assert not excluded & seen["challenger"]


def test_pretraining_text_has_the_stated_mixture() -> None:
    heldout = make_base.make_heldout()
    examples = list(islice(make_base.pretraining_text(0, heldout), 20_000))
    asked = [e for e in examples if e.prompt == "ask"]
    solved = [e for e in examples if e.prompt != "ask"]
    assert len(asked) / len(examples) == pytest.approx(0.20, abs=0.02)
    levels = Counter(len(e.prompt.split(" ")[0]) for e in solved)
    for level, weight in zip(make_base.LEVELS, make_base.SOLVER_WEIGHTS, strict=True):
        assert levels[level] / len(solved) == pytest.approx(weight / 100, abs=0.02)
        direct = [e.completion.startswith("\\boxed{") for e in solved if len(e.prompt.split(" ")[0]) == level]
        assert sum(direct) / len(direct) == pytest.approx(make_base.DIRECT_SHARE[level], abs=0.04)


def test_pretraining_text_repeats_by_seed() -> None:
    heldout = make_base.make_heldout()

    def text(seed: int) -> list[Any]:
        return list(islice(make_base.pretraining_text(seed, heldout), 100))

    assert text(0) == text(0) != text(1)


# --- judging ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("7815 3408\\boxed{85}", "85"),
        ("\\boxed{1}\\boxed{2}", "2"),
        ("\\boxed{8", None),
        ("85", None),
        ("85}", None),
    ],
)
def test_boxed_takes_the_last_complete_box(text: str, answer: str | None) -> None:
    assert make_base.boxed(text) == answer


@pytest.mark.parametrize(
    ("answers", "winner"),
    [(["1", "2", "2"], "2"), (["1", None, None], "1"), (["2", "1"], "2"), ([None], None), ([], None)],
)
def test_majority_leaves_out_missing_answers(answers: list[str | None], winner: str | None) -> None:
    assert make_base.majority(answers) == winner


def test_learning_rate_warms_up_and_decays_to_zero() -> None:
    factors = [make_base.learning_rate_factor(step, 1400) for step in range(1401)]
    assert factors[0] == 1 / 50 and factors[50] == 1.0 and factors[1400] == 0.0
    assert factors[:50] == sorted(factors[:50]) and factors[50:] == sorted(factors[50:], reverse=True)


# --- the shipped files ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(BASE, local_files_only=True)


@pytest.mark.slow
def test_shipped_tokenizer_is_what_the_script_builds(tokenizer: Any) -> None:
    built = make_base.build_tokenizer()
    assert tokenizer.get_vocab() == built.get_vocab()
    assert tokenizer.chat_template == built.chat_template
    assert set(tokenizer.all_special_tokens) == set(make_base.SPECIAL_TOKENS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "<question>37 + 48</question>\\boxed{85}",
        "7815 3408\\boxed{85}",
        "  two  spaces, then a\nnewline .",
        "".join(chr(code) for code in range(0x20, 0x7F)),
        "\\boxed",
    ],
)
def test_tokenizer_round_trips(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


@pytest.mark.slow
@pytest.mark.parametrize("markup", ["<question>", "</question>", "\\boxed{"])
def test_markup_is_one_ordinary_token_that_decoding_keeps(tokenizer: Any, markup: str) -> None:
    ids = tokenizer(markup)["input_ids"]
    assert len(ids) == 1
    assert ids[0] not in tokenizer.all_special_ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == markup


@pytest.mark.slow
def test_decoding_drops_the_special_tokens(tokenizer: Any) -> None:
    ids = tokenizer("<|user|>37 + 48<|end|><|pad|>")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "37 + 48"


@pytest.mark.slow
def test_chat_template_renders_every_role(tokenizer: Any) -> None:
    messages = [
        {"role": "system", "content": "Add."},
        {"role": "user", "content": "37 + 48"},
        {"role": "assistant", "content": "\\boxed{85}"},
    ]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False)
    assert rendered == "<|system|>Add.<|end|><|user|>37 + 48<|end|><|assistant|>\\boxed{85}<|end|>"


@pytest.mark.slow
def test_chat_template_adds_the_generation_prompt(tokenizer: Any) -> None:
    message = [{"role": "user", "content": "ask"}]
    rendered = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    assert rendered == "<|user|>ask<|end|><|assistant|>"


@pytest.mark.slow
def test_loss_covers_the_completion_and_its_end_only() -> None:
    pytest.importorskip("transformers")
    tokenizer = make_base.build_tokenizer()
    examples = [make_base.Example("1 + 1", "\\boxed{2}"), make_base.Example("37 + 48", "7815 3408\\boxed{85}")]
    batch = make_base.collate(tokenizer, examples)
    for example, ids, labels, mask in zip(
        examples, batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True
    ):
        assert tokenizer.decode(labels[labels != make_base.IGNORED]) == example.completion + "<|end|>"
        assert tokenizer.decode(ids[mask == 1]).startswith(f"<|user|>{example.prompt}<|end|><|assistant|>")
        assert set(ids[mask == 0].tolist()) <= {tokenizer.pad_token_id}


def test_shipped_weights_are_safetensors_and_small() -> None:
    files = [path for path in BASE.rglob("*") if path.is_file()]
    assert not [path.name for path in files if path.suffix in {".bin", ".pt", ".pth", ".pkl", ".ckpt", ".py"}]
    assert [path.name for path in files if path.suffix == ".safetensors"] == ["model.safetensors"]
    assert sum(path.stat().st_size for path in files) < 2_000_000


@pytest.mark.slow
def test_end_and_padding_are_set_in_tokenizer_model_and_generation_config(tokenizer: Any) -> None:
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|end|>", "<|pad|>")
    for name in ("config.json", "generation_config.json"):
        config = json.loads((BASE / name).read_text(encoding="utf-8"))
        assert (config["eos_token_id"], config["pad_token_id"]) == (tokenizer.eos_token_id, tokenizer.pad_token_id)


def test_generation_config_samples_the_whole_distribution() -> None:
    config = json.loads((BASE / "generation_config.json").read_text(encoding="utf-8"))
    assert (config["do_sample"], config["temperature"], config["top_p"], config["top_k"]) == (True, 1.0, 1.0, 0)


def test_the_command_needs_something_to_write(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        make_base.main([])
    assert "--heldout" in capsys.readouterr().err


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_script_trains_a_loadable_model_and_repeats_itself(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    digests = []
    for name in ("first", "second"):
        done = _run_script("--out", str(tmp_path / name), "--seed", "7", "--steps", "60", "--no-gate")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["steps"] == 60
        digests.append(hashlib.sha256((tmp_path / name / "model.safetensors").read_bytes()).hexdigest())
    assert digests[0] == digests[1]
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "first", local_files_only=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "first", local_files_only=True)
    assert len(make_base.answer_all(model, tokenizer, ["37 + 48"], sample=True)) == 1


@pytest.mark.slow
def test_a_base_outside_the_gate_is_reported_by_the_exit_code(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    done = _run_script("--out", str(tmp_path), "--steps", "2")
    assert done.returncode == 1, done.stderr
    gate = json.loads(done.stdout)["gate"]
    assert not gate["passed"] and "majority_of_8" in gate["failed"]


@pytest.mark.slow
def test_the_shipped_model_passes_the_gate() -> None:
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(BASE, local_files_only=True).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(BASE, local_files_only=True)
    assert model.num_parameters() == 170_336
    gate = make_base.judge(model, tokenizer, make_base.make_heldout()[:200])
    assert gate["passed"], gate
