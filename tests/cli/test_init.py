"""`selfevo init`: a manifest that holds what a model's files say, and that `selfevo plan` takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.cli import Project


def model(folder: Path, config: Any = None, **files: str) -> Path:
    """A model's folder; files by name without ``.json``."""
    folder.mkdir(parents=True)
    if config is not None:
        (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    for name, text in {"tokenizer_config": "{}", **files}.items():
        (folder / f"{name}.json").write_text(text)
    (folder / "model.safetensors").write_bytes(b"1" * 1000)
    return folder


@pytest.mark.parametrize(
    ("config", "files", "dtype", "completion", "message"),
    [
        (
            {"model_type": "qwen3", "torch_dtype": "bfloat16", "max_position_embeddings": 32768},
            {"tokenizer_config": json.dumps({"chat_template": "{{ messages }}"})},
            "bfloat16",
            1024,
            "A chat template is there and is used.",
        ),
        ({"model_type": "gpt2", "dtype": "float32", "n_positions": 512}, {}, "float32", 256, "No chat template"),
        ({}, {}, "bfloat16", 1024, "config.json says none"),
        ({"text_config": {"dtype": "float16", "max_position_embeddings": 100}}, {}, "float16", 50, "window is 100"),
        ({"auto_map": {"AutoModel": "code.Model"}}, {}, "bfloat16", 1024, "trustRemoteCode: true"),
        ({"model_type": "a\nspec: {seed: 7}"}, {}, "bfloat16", 1024, ", a a-spec-seed-7- model of"),
    ],
    ids=["chat", "base", "silent", "nested", "code", "hostile"],
)
def test_a_manifest_holds_what_config_json_says_and_can_be_planned(
    project: Project, config: dict[str, Any], files: dict[str, str], dtype: str, completion: int, message: str
) -> None:
    folder = model(project.root / "My Models" / "Tiny_1.5B", config, **files)
    shown = project.invoke("init", str(folder), "-o", "mine.yaml")
    assert (shown.returncode, shown.stderr) == (0, "")
    text = (project.root / "mine.yaml").read_text()
    assert message in text
    made = yaml.safe_load(text)
    assert made["metadata"]["name"] == "tiny-1-5b"
    assert made["spec"]["model"] == {"uri": f"file://{folder}", "dtype": dtype}
    assert made["spec"]["solver"]["grpo"]["maxCompletionLength"] == completion
    planned = project.invoke("plan", "mine.yaml")
    assert (planned.returncode, planned.stderr) == (0, "")
    assert planned.stdout.endswith("0 of 9 steps are in the store\n")
    assert project.invoke("init", str(folder)).stdout == text.replace("mine.yaml", "run.yaml")


def test_a_file_that_is_there_stays(project: Project) -> None:
    folder = model(project.root / "tiny", {})
    before = (project.root / "run.yaml").read_text()
    shown = project.invoke("init", str(folder), "-o", "run.yaml")
    assert shown.returncode == 2
    assert shown.stderr == "selfevo: -o run.yaml is there already; name a new file or remove it\n"
    assert (project.root / "run.yaml").read_text() == before


def test_what_is_no_model_is_a_sentence(project: Project) -> None:
    folder = model(project.root / "broken", "{")
    (project.root / "pickled").mkdir()
    (project.root / "pickled" / "config.json").write_text("{}")
    for args, message in (
        (["nowhere"], "nowhere is no folder; name one with config.json"),
        (["orders"], "orders holds no config.json; name"),
        (["pickled"], "pickled holds no *.safetensors; save the model"),
        ([folder.name], "broken/config.json cannot be read: it is no JSON; mend"),
        (["hf://Qwen/Qwen3-4B-Base"], "hf://Qwen/Qwen3-4B-Base is an address, and"),
    ):
        shown = project.invoke("init", *args)
        assert (shown.returncode, shown.stdout) == (2, "")
        assert shown.stderr.startswith(f"selfevo: {message}") and shown.stderr.count("\n") == 1
    named = project.invoke("init", str(model(project.root / "tiny", {})), "--name", "My Run")
    assert named.returncode == 2 and "--name is 'My Run'; write it as lower-case letters" in named.stderr
