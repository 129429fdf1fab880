"""`selfevo size`: the formula of docs/sizing.md for a manifest, and what would make it fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from typer.testing import CliRunner

from harness.tools import tool
from runs import EXAMPLES, by_transformers, merged
from selfevo.local.workdir import RunFolder
from selfevo.main import app
from selfevo.manifest import load
from selfevo.views import size
from selfevo.views.uploads import publish_lines
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.sizing.architecture import MODELS
from selfevo_contract.sizing.speeds import Origin
from selfevo_contract.status import Layout, RoleLayout, RunStatus


def sized(*arguments: str) -> tuple[int, str]:
    ended = CliRunner().invoke(app, ["size", *arguments])
    return ended.exit_code, ended.output + (str(ended.exception or "") if ended.exit_code == 1 else "")


def manifest(folder: Path, **model: str) -> Path:
    document = by_transformers("qwen3-4b-base")
    document["spec"]["model"] |= model
    document["spec"]["model"].pop("digest", None)
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def written(path: Path, stem: str) -> str:
    """The example ``stem``, all of it by transformers, as a file."""
    path.write_text(yaml.safe_dump(by_transformers(stem)))
    return str(path)


def test_what_does_not_fit_says_what_would(tmp_path: Path) -> None:
    document = by_transformers("qwen3-4b-base")
    for role in ("challenger", "solver"):
        del document["spec"][role]["grpo"]["sharding"]
    (alone := tmp_path / "alone.yaml").write_text(yaml.safe_dump(document))
    document["spec"]["solver"]["pods"]["resources"]["limits"] = {"nvidia.com/gpu": 1}
    (on_one := tmp_path / "on-one.yaml").write_text(yaml.safe_dump(document))
    for path, last in ((alone, "sharding:"), (on_one, "lora:")):  # one GPU has nobody to share with
        code, output = sized(str(path), "--card", "80")
        assert code == 2, output
        assert output.startswith("4.02 billion parameters, on cards of 80 GB")
        lines = output.splitlines()
        tried = [line.split()[1] for line in lines if line.startswith("with ")]
        assert tried[-1] == last and lines[-1].endswith("every phase fits")
        assert not any(line.endswith("every phase fits") for line in lines[:-1])
    code, output = sized(written(tmp_path / "shared.yaml", "qwen3-4b-base"), "--card", "80")
    assert (code, output.splitlines()[-1]) == (0, "every phase fits")


def test_a_grace_in_which_no_checkpoint_is_uploaded_is_named_and_stops_nobody(tmp_path: Path) -> None:
    document = yaml.safe_load((EXAMPLES / "qwen3-4b-base.yaml").read_text())
    assert "terminationGracePeriodSeconds" not in sized(str(EXAMPLES / "qwen3-4b-base.yaml"), "--card", "80")[1]
    document["spec"]["pods"] = {"terminationGracePeriodSeconds": 30}  # of which .9 count, for 48.3 GB
    document["spec"]["solver"]["grpo"]["sharding"] = "none"
    (path := tmp_path / "run.yaml").write_text(yaml.safe_dump(document))
    short = "solver-train: a checkpoint of 48.27 GB takes 48 s to upload at 1 GB/s, and pods.terminationGracePeriod"
    (line,) = [line for line in sized(str(path), "--card", "180")[1].splitlines() if "terminationGrace" in line]
    assert line.startswith(short) and line.endswith("raise it to 55 or more")  # the Challenger's is in shares
    planned = CliRunner().invoke(app, ["plan", str(path), "--storage", f"file://{tmp_path}/store", "-o", "json"])
    assert planned.exit_code == 0, planned.output
    assert json.loads(planned.output)["shortGraces"] == [line]


def test_the_server_of_a_policy_has_gpus_of_its_own(tmp_path: Path) -> None:
    document = by_transformers("qwen3-4b-base")
    alone = sized(written(tmp_path / "alone.yaml", "qwen3-4b-base"), "--card", "80")[1]
    grpo = document["spec"]["solver"]["grpo"]
    grpo |= {"generation": "vllm", "vllmMode": "server"}
    (path := tmp_path / "run.yaml").write_text(yaml.safe_dump(document))
    code, output = sized(str(path), "--card", "80")
    assert code == 0 and output.splitlines()[-1] == "every phase fits"
    assert "solver-train has 1 GPU more in its pod for the policy's server, which takes 8.2 GiB of each at " in output
    rows = [line.split() for text in (alone, output) for line in text.splitlines() if line.startswith("solver-train ")]
    # Of the memory, and of the hours; the server's sentence between them.
    assert [row[1] for row in rows] == ["8", "8", "8", "has", "9"]
    assert float(rows[4][2]) < float(rows[1][2]) / 4
    shape = {"hidden_size": 5120, "num_hidden_layers": 40, "intermediate_size": 17408, "vocab_size": 151_936}
    heads = {"num_attention_heads": 40, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": False}
    (large := tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3", **shape, **heads}))
    code, output = sized(str(path), "--card", "24", "--config", str(large))
    assert (
        code == 2
        and "solver-train's server of the policy does not fit: raise solver.grpo.vllmTensorParallelSize" in output
    )
    grpo["vllmTensorParallelSize"] = 2
    path.write_text(yaml.safe_dump(document))
    output = sized(str(path), "--card", "24", "--config", str(large))[1]
    assert "solver-train has 2 GPUs more" in output and "does not fit" not in output


def test_the_server_of_a_judge_has_gpus_of_its_own_and_takes_the_judge_off_the_trainers(tmp_path: Path) -> None:
    document, path = by_transformers("qwen3-4b-base"), tmp_path / "run.yaml"
    spec = document["spec"]
    for part in ("oracle", "band"):
        spec["rollout"].pop(part, None)
    spec["challenger"]["reward"] = spec["solver"]["reward"] = {"mode": "judged"}
    judge = {"uri": "hf://owner/Qwen3-8B-Base@main"}
    spec["verifier"] = {"model": judge, "anchors": {"data": {"uri": "s3://bucket/anchors.jsonl"}}, "maxLength": 4096}

    def figures() -> tuple[str, dict[str, list[list[str]]]]:
        path.write_text(yaml.safe_dump(document))
        output = sized(str(path), "--card", "180")[1]
        rows = [line.split() for line in output.splitlines()]
        phases = ("challenger-train", "solver-rollout", "verifier-train", "solver-train")
        return output, {phase: [row for row in rows if row[:1] == [phase] and row[1] != "has"] for phase in phases}

    beside, before = figures()
    spec["verifier"]["server"] = {"gpus": 2, "replicas": 2}
    output, after = figures()
    assert "judge's server" not in beside
    for phase in ("challenger-train", "solver-rollout", "solver-train"):
        more = (
            f"{phase} has 4 GPUs more in its pod for the judge's server, which takes 7.9 GiB of each at least, and 90%"
        )
        assert more in output
        (memory, hours), (memory_before, hours_before) = after[phase], before[phase]
        assert memory[1] == memory_before[1]
        assert float(memory_before[3]) - float(memory[3]) == pytest.approx(15.3, abs=0.11)  # the judge's 8B
        pods = spec["rollout"]["shards"] if phase == "solver-rollout" else 1
        assert int(hours[1]) - int(hours_before[1]) == 4 * pods
    assert after["verifier-train"][0] == before["verifier-train"][0]
    spec["verifier"]["server"] = {"gpuMemoryUtilization": 0.05}
    output, _ = figures()
    assert "challenger-train's server of the judge does not fit: raise verifier.server.gpus" in output


def test_what_lies_in_cpu_memory_is_reported(tmp_path: Path) -> None:
    document = by_transformers("qwen3-8b-base")
    example = written(tmp_path / "example.yaml", "qwen3-8b-base")
    code, output = sized(example, "--card", "24")
    tried = [line for line in output.splitlines() if line.startswith("with ")]
    assert code == 2 and "with cpuOffload: true in challenger.grpo and solver.grpo: " in output
    assert output.splitlines()[-1].startswith("challenger-train takes 23.1 GiB, and no setting of these makes it fit: ")
    document["spec"]["solver"]["grpo"]["cpuOffload"] = True
    (path := tmp_path / "run.yaml").write_text(yaml.safe_dump(document))
    offloaded = sized(str(path), "--card", "80")[1]
    assert "solver-train keeps 153 GiB in the CPU memory of each pod (cpuOffload); " in offloaded
    assert "challenger-train keeps" not in offloaded and not any("lora" in line for line in tried[:-1])

    def row(table: str, start: str) -> list[str]:
        return [line for line in table.splitlines() if line.startswith("solver-train ") and len(line.split()) > 6][
            ["GPUs", "hours"].index(start)
        ].split()

    before = sized(example, "--card", "80")[1]
    assert float(row(offloaded, "GPUs")[2]) < float(row(before, "GPUs")[2]) - 8
    assert float(row(offloaded, "hours")[2]) > float(row(before, "hours")[2])


def test_hours_are_shown_with_what_they_go_by(tmp_path: Path) -> None:
    example = written(tmp_path / "example.yaml", "qwen3-4b-base")
    code, output = sized(example, "--card", "180", "--figures")
    lines = output.splitlines()
    assert code == 0, output
    table = lines[lines.index(next(line for line in lines if line.split()[:3] == ["phase", "GPUs", "hours"])) :]
    phases = ["challenger-train", "solver-rollout", "solver-train", "evaluate"]
    assert [line.split("  ")[0] for line in table[1:7]] == [*phases, "iteration 3", "the run"]
    rows = [line.replace(",", "").split() for line in table[1:5]]
    assert [row[1] for row in rows] == ["8", "8", "8", "1"]
    for _, gpus, hours, starting, generating, training, gpu_hours, *_ in rows:
        assert 0.01 < float(starting) < 0.1
        assert float(starting) + float(generating) + float(training) == pytest.approx(float(hours), abs=0.11)
        assert float(gpus) * float(hours) == pytest.approx(float(gpu_hours), rel=0.02)
    iteration = float(table[5].split()[3])
    assert iteration == pytest.approx(sum(float(row[6]) for row in rows), rel=0.01)
    assert "10 measured, 4 published, 7 guessed" in output
    assert "starting is one attempt's" in output
    figures = [line for line in lines if line.startswith("  ")]
    assert len(figures) == 21 and all(sum(f"({kind}: " in line for kind in get_args(Origin)) == 1 for line in figures)
    document = yaml.safe_load(Path(example).read_text())
    document["spec"]["rollout"]["engine"] = {"kind": "vllm"}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(document))
    rollouts = [
        float(
            next(
                line for line in sized(str(tmp_path / "run.yaml"), *more)[1].splitlines()[6:] if "rollout" in line
            ).split()[2]
        )
        for more in ([], ["--answer-tokens", "300"])
    ]
    assert rollouts[1] < rollouts[0] < float(rows[1][2])
    assert "with every completion as long as it may be: " in sized(str(tmp_path / "run.yaml"))[1]
    assert sized(example, "--answer-tokens", "0")[0] == 2


def test_budgets_that_do_not_suffice_are_reported(tmp_path: Path) -> None:
    document = by_transformers("qwen3-4b-base")
    for role in ("challenger", "solver"):
        document["spec"][role]["reward"] = {"mode": "judged"}
    endpoint = {"url": "https://llm.example.com", "maxTokens": 500_000_000}
    rubric = {"criteria": [{"uri": "s3://bucket/criteria.yaml"}], "model": "strong", "endpoint": endpoint}
    document["spec"] |= {"verifier": {"kind": "rubric", "rubric": rubric}, "budget": {"tokens": 10**9, "gpuHours": 9}}
    document["spec"]["publish"] = {"to": "s3://releases/sums"}
    (path := tmp_path / "run.yaml").write_text(yaml.safe_dump(document))
    code, output = sized(str(path), "--card", "80")
    assert code == 0, output
    warnings = [line for line in output.splitlines() if line.startswith("warning: ")]
    assert [line.split()[1:4] for line in warnings] == [
        ["spec.budget.gpuHours", "is", "9"],  # the run's own tokens fit
        ["spec.verifier.rubric.endpoint.maxTokens", "is", "500,000,000,"],
    ]
    assert warnings[0].endswith("it would stop with BudgetExceeded before its end; raise it, or make the run smaller")
    assert "challenger-train-1 may ask the judge for about 600,000,000 tokens in 307,200 calls" in warnings[1]
    assert "\nasks the judge    answers " in output and "\npublished to s3://releases/sums: 1 model of 8.0 GB" in output


def planned(path: Path, *arguments: str) -> str:
    ended = CliRunner().invoke(app, ["plan", str(path), "--workdir", str(path.parent / "work"), *arguments])
    assert ended.exit_code == 0, ended.output
    return ended.output


@pytest.mark.slow
def test_a_plan_sets_the_estimate_beside_the_budget(tmp_path: Path) -> None:
    document = by_transformers("qwen3-4b-base")
    document["spec"]["storage"] = {"uri": f"file://{tmp_path / 'store'}"}

    def written(**spec: Any) -> Path:
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump(merged(document, {"spec": spec})))
        return path

    budget = {"wallTime": "10m", "gpuHours": 1000, "tokens": 10**9, "dollars": 3000, "dollarsPerGpuHour": 2}
    output = planned(written(budget=budget))
    assert (
        "budget: wallTime 10m, gpuHours 1000 GPU hours, tokens 1,000,000,000 tokens, dollars 3000 dollars\n" in output
    )
    [line] = [line for line in output.splitlines() if line.startswith("estimate: ")]
    assert line.endswith("for the 13 steps not in the store, on cards of 80 GB; rough, `selfevo size` says more")
    found = json.loads(planned(written(budget=budget), "-o", "json"))["estimate"]
    assert found["card"] == "80 GB" and found["tokens"] == pytest.approx(804e6, rel=0.01)
    for share in (
        f"({found['hours'] * 6:,.0%} of budget.wallTime)",
        f"({found['gpuHours'] / 1000:.0%} of budget.gpuHours)",
        "(80% of budget.tokens)",
        f"({found['gpuHours'] * 2 / 3000:.0%} of budget.dollars)",
    ):
        assert share in line, share
    # Larger GPUs take less time, and a run without a budget is estimated, too.
    larger = json.loads(planned(written(pods={"gpuMemory": "180Gi"}), "-o", "json"))["estimate"]
    assert larger["card"] == "180 GB" and larger["gpuHours"] < found["gpuHours"] * 0.6
    assert "budget." not in planned(written()) and "estimate: about " in planned(written())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"model": {"uri": "hf://somebody/something@main"}}, "the sizes of hf://somebody/something@main are not known"),
        ({"model": {"dtype": "float32"}}, "spec.model.dtype is float32"),
        ({role: {"pods": None} for role in ("challenger", "rollout", "solver")}, "no pods name GPUs"),
    ],
)
def test_a_plan_with_a_budget_says_why_there_is_no_estimate(tmp_path: Path, spec: Any, why: str) -> None:
    document = by_transformers("qwen3-4b-base")
    over = {"spec": {**spec, "storage": {"uri": f"file://{tmp_path / 'store'}"}}}
    path = tmp_path / "run.yaml"
    document["spec"]["storage"] = {}
    path.write_text(yaml.safe_dump(merged(document, over)))
    assert "estimate" not in planned(path)
    assert json.loads(planned(path, "-o", "json"))["estimate"] is None
    path.write_text(yaml.safe_dump(merged(merged(document, over), {"spec": {"budget": {"wallTime": "90m"}}})))
    assert f"budget: wallTime 90m\nestimate: none, {why}" in planned(path)


def test_no_hours_are_made_up_for_other_types(tmp_path: Path) -> None:
    code, output = sized(str(EXAMPLES / "smollm2-135m-instruct.yaml"), "--card", "24")
    assert code == 0 and "no hours are worked out for spec.model.dtype float32" in output
    assert "GPU hours" not in output


def test_sizes_come_from_the_models_own_configuration(tmp_path: Path) -> None:
    code, output = sized(str(EXAMPLES / "arithmetic.yaml"), "--card", "24")
    config = json.loads((EXAMPLES / "arithmetic" / "base" / "config.json").read_text())
    assert code == 0 and config["model_type"] == "qwen3"
    assert output.startswith("0.00 billion parameters, on cards of 24 GB")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    code, output = sized(str(manifest(tmp_path, uri="hf://somebody/something@main")), "--config", str(path))
    assert code == 0, output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "arguments", "words"),
    [
        (None, ["--card", "81"], ["--card is '81'", "24, 48, 80, 141, 180"]),
        (None, [], ["hf://somebody/something@main", "--config"]),
        ("{", ["--config", "config.json"], ["is not JSON"]),
        ("[]", ["--config", "config.json"], ["is not a JSON object"]),
        ('{"model_type": "cake"}', ["--config", "config.json"], ["model_type 'cake'", "transformers", "does not know"]),
        ('{"model_type": ["llama"]}', ["--config", "config.json"], ["model_type ['llama']", "does not know"]),
        (
            '{"model_type": "llama", "num_attention_heads": 0}',
            ["--config", "config.json"],
            ["has num_attention_heads 0, which is no whole number of 1 or more"],
        ),
        ('{"model_type": "llama"}', ["--config", "config.json"], ["has no num_attention_heads"]),
        (None, ["--config", "elsewhere.json"], ["cannot be read"]),
    ],
)
def test_what_cannot_be_sized_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, arguments: list[str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    _, output = sized(str(manifest(tmp_path, uri="hf://somebody/something@main")), *arguments)
    assert all(word in output for word in words), output


QWEN25_7B: dict[str, Any] = {"model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18_944}
QWEN25_7B |= {"num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4}
QWEN25_7B |= {"vocab_size": 152_064, "tie_word_embeddings": False}


@pytest.mark.slow
def test_an_architecture_without_a_formula_is_counted_where_transformers_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (config := tmp_path / "config.json").write_text(json.dumps(QWEN25_7B))
    path = manifest(tmp_path, uri="hf://Qwen/Qwen2.5-7B@main")
    code, output = sized(str(path), "--config", str(config))
    assert code == 0 and output.startswith("7.62 billion parameters, on cards of 80 GB"), output
    monkeypatch.setattr(size, "find_spec", lambda _: None)
    code, output = sized(str(path), "--config", str(config))
    assert code != 0 and "model_type 'qwen2'; without transformers only llama, qwen3, mistral are worked out" in output
    assert "install selfevo[trainer]" in output


tables = tool("gpu_sizing")


def test_examples_of_models_that_a_person_knows_have_a_table() -> None:
    assert {path.stem for path in tables.examples()} == {
        "octothinker-3b-hybrid-base",
        "octothinker-8b-hybrid-base",
        "qwen3-4b-base",
        "qwen3-4b-lora",
        "qwen3-8b-base",
        "smollm2-135m-instruct",
    }


@pytest.mark.slow
@pytest.mark.parametrize("path", tables.examples(), ids=lambda path: path.stem)
def test_the_table_in_an_examples_header_is_what_the_command_says(path: Path) -> None:
    assert tables.header(path) == path.read_text(), "run `make references`"
    document = yaml.safe_load(tables.header(path))
    assert document["metadata"]["name"] == path.stem
    assert "\n# every phase fits\napiVersion:" in tables.header(path)


def test_a_layout_is_chosen_and_shown_and_the_manifest_stays(tmp_path: Path) -> None:
    document = by_transformers("qwen3-4b-base")
    for role in ("challenger", "solver"):
        del document["spec"][role]["grpo"]["sharding"]
    document["spec"] |= {"layout": "auto", "pods": {"gpuMemory": "80Gi"}}
    (path := tmp_path / "run.yaml").write_text(written := yaml.safe_dump(document))
    code, output = sized(str(path), "--card", "80")
    assert code == 0 and path.read_text() == written
    lines = [line for line in output.splitlines() if line.startswith("layout of ")]
    assert [line.split(":")[0] for line in lines] == ["layout of challenger", "layout of solver"]
    assert all("all weights, shared out over 8 GPUs" in line for line in lines)


def test_a_layout_that_is_recorded_on_this_machine_stays_while_model_and_pods_do(tmp_path: Path) -> None:
    document = by_transformers("qwen3-4b-lora")
    document["spec"] |= {"layout": "auto", "pods": {"gpuMemory": "80Gi"}}
    for role in ("challenger", "solver"):
        del document["spec"][role]["grpo"]["lora"]
    (path := tmp_path / "run.yaml").write_text(yaml.safe_dump(document))
    work = tmp_path / "work"
    run = load(path, cache=work)
    assert run.spec.has_adapters
    whole = RoleLayout(gradient_checkpointing=True)
    other = RunStatus(layout=Layout(challenger=whole, solver=whole))
    (folder := RunFolder(work, run.metadata)).make()
    folder.write(run.model_copy(update={"status": other}))
    assert not load(path, cache=work).spec.has_adapters
    assert load(path).spec.has_adapters  # nothing is known elsewhere
    document["spec"]["pods"] = {"gpuMemory": "79Gi"}
    path.write_text(yaml.safe_dump(document))
    assert load(path, cache=work).spec.has_adapters


@pytest.mark.parametrize(
    ("publish", "line"),
    [
        (
            {},
            "1 model of 8.0 GB in bfloat16 and 3 curricula of at most 8.2 MB each, 8.1 GB in 1 step when nothing is "
            "there yet; 16.1 GB are read for it",
        ),
        (
            {"what": "each"},
            "3 models of 8.0 GB in bfloat16 and 6 curricula of at most 8.2 MB each, 24.2 GB in 3 steps when nothing is "
            "there yet; 48.3 GB are read for it",
        ),
    ],
)
def test_what_is_published_is_reported(publish: dict[str, str], line: str) -> None:
    document = by_transformers("qwen3-4b-base")
    document["spec"]["publish"] = {"to": "s3://releases/sums", **publish}
    spec = SelfEvolutionRun.model_validate(document).spec
    assert publish_lines(spec, MODELS["Qwen3-4B-Base"]) == [f"published to s3://releases/sums: {line}"]
    assert publish_lines(spec.model_copy(update={"publish": None}), MODELS["Qwen3-4B-Base"]) == []
