"""Every phase, for real and tiny: a model of each architecture goes through a whole iteration."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.chat_standin import content, endpoint
from harness.collector import collecting
from harness.inprocess import Ended, Phases
from harness.tiny import Architecture, make, settings, write_questions
from runs import arithmetic
from selfevo_contract.artifacts import Manifest
from selfevo_contract.phases import input_key, inputs_adapter
from selfevo_contract.rows import CURRICULUM, ORACLE, QUESTIONS, TEXTS, answers_of, texts_of
from selfevo_contract.traces import attempt_span

pytestmark = pytest.mark.slow

STEPS = ("evaluate-0", "challenger-train-1", "solver-rollout-1", "solver-train-1", "evaluate-1")
TRAINED = ("challenger-train-1", "solver-train-1")
TRACED = ("solver-train-1", "evaluate-1")
"""They have a collector; nothing else of them differs."""
ATTEMPT = attempt_span("5f0c2a52-3a3c-4a57-9f0e-0d6f6f3f7b11", "test")
MODEL_FILES = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}

OVER: dict[Architecture, dict[str, Any]] = {
    "qwen3": {"challenger": {"reward": {"mode": "paper"}}, "solver": {"reward": {"mode": "paper"}}},
    # As OctoThinker's base models come: prompts are plain text, and padding is with the end token. Batches are split
    # and graded by math-verify, as the defaults are.
    "llama": {
        "challenger": {"reward": {"mode": "code"}, "engine": {"batchSize": 7}},
        "solver": {"reward": {"mode": "code"}},
        "grading": {"method": "math-verify"},
    },
}


class Pipeline:
    """One architecture's iteration, run once for all tests."""

    def __init__(self, architecture: Architecture, folder: Path) -> None:
        self.folder = folder
        self.base = make(folder / "base", architecture)
        self.questions = write_questions(folder / "heldout.jsonl")
        self.over = OVER[architecture]
        self.phases = self.variant({})
        self.ended: dict[str, list[Ended]] = {}
        with collecting() as self.traces:
            collector = {"OTEL_EXPORTER_OTLP_ENDPOINT": self.traces.address, "TRACEPARENT": ATTEMPT.traceparent}
            for name in STEPS:
                environment = collector if name in TRACED else {}
                shards = range(self.phases.step(name).shards)
                self.ended[name] = [self.phases(name, shard, environment) for shard in shards]

    def variant(self, over: dict[str, Any], task: dict[str, Any] | None = None, keep: str = "sample") -> Phases:
        """The same run with other settings of the rollout and of the held-out task, over the same store."""
        base = {"model": {"uri": f"file://{self.base}", "digest": None}}
        spec = settings(settings(self.over, questions=self.questions) | base)
        spec["rollout"] = spec["rollout"] | over
        spec["evaluation"]["tasks"][0] |= task or {}
        spec["storage"] = {"keepAnswers": keep}
        return Phases(arithmetic(spec, store=self.folder / "store"), self.folder)


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Architecture], Pipeline]:
    made: dict[Architecture, Pipeline] = {}

    def get(architecture: Architecture) -> Pipeline:
        if architecture not in made:
            made[architecture] = Pipeline(architecture, tmp_path_factory.mktemp(architecture))
        return made[architecture]

    return get


@pytest.fixture(params=["qwen3", "llama"])
def pipeline(request: pytest.FixtureRequest, pipelines: Callable[[Architecture], Pipeline]) -> Pipeline:
    return pipelines(request.param)


def jsonl(text: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def names(manifest: Manifest) -> set[str]:
    return {file.name for file in manifest.files}


def test_every_step_commits_and_says_so(pipeline: Pipeline) -> None:
    outcomes = {name: [ended.result.outcome for ended in each] for name, each in pipeline.ended.items()}
    assert outcomes == {
        "evaluate-0": ["committed"],
        "challenger-train-1": ["committed"],
        "solver-rollout-1": ["shard", "committed"],
        "solver-train-1": ["committed"],
        "evaluate-1": ["committed"],
    }
    for name, each in pipeline.ended.items():
        for ended in each:
            assert ended.code == 0 and "Traceback" not in ended.log, ended.log
            assert ended.result.key == pipeline.phases.step(name).key
            assert ended.result.timings["total"] >= ended.result.timings["startup"] > 0
            assert ended.progress and {line.step for line in ended.progress} == {name}


def test_a_trace_has_what_the_timings_name(pipeline: Pipeline) -> None:
    spans = pipeline.traces.spans
    assert {span.trace for span in spans} == {f"{ATTEMPT.trace:032x}"}
    roots = [span for span in spans if span.parent == f"{ATTEMPT.span:016x}"]
    assert [span.attributes["selfevo.step"] for span in roots] == [*TRACED]
    for root, name in zip(roots, TRACED, strict=True):
        timings = pipeline.ended[name][0].result.timings
        mine = [span for span in spans if span.attributes["selfevo.step"] == name and span is not root]
        assert {span.parent for span in mine} <= {root.id, *(span.id for span in mine)}
        assert all(root.start <= span.start <= span.end <= root.end for span in mine)
        assert {span.name for span in mine} <= timings.keys()
        assert root.attributes["selfevo.seconds.total"] == timings["total"]
        assert (root.attributes["selfevo.outcome"], root.attributes["process.exit.code"]) == ("committed", 0)
    assert "training" in {span.name for span in spans}


def test_nothing_is_left_in_the_working_directory(pipeline: Pipeline) -> None:
    assert list((pipeline.folder / "work").iterdir()) == []


@pytest.mark.parametrize("name", STEPS)
def test_a_manifest_says_where_its_step_comes_from(pipeline: Pipeline, name: str) -> None:
    phases, manifest = pipeline.phases, pipeline.phases.committed(name)
    step = phases.step(name)
    made_by = {other: f"{phases.step(other).phase}/{phases.step(other).key}" for other in STEPS}
    base = f"file://{pipeline.base}"
    assert (
        manifest.parents
        == {
            "evaluate-0": {"model": base},
            "challenger-train-1": {"challenger": base, "solver": base},
            "solver-rollout-1": {"challenger": made_by["challenger-train-1"], "solver": base},
            "solver-train-1": {"solver": base, "curriculum": made_by["solver-rollout-1"]},
            "evaluate-1": {"model": made_by["solver-train-1"], "base": made_by["evaluate-0"]},
        }[name]
    )
    assert (manifest.key, manifest.phase, manifest.iteration) == (step.key, step.phase, step.iteration)
    assert manifest.attempt == "test"
    # The key can be computed again from what is stored, years later.
    assert input_key(inputs_adapter.validate_python(manifest.inputs)) == step.key
    assert manifest.versions.keys() >= {"python", "selfevo", "torch", "transformers", "trl"}
    assert manifest.timings["total"] > 0 and manifest.metrics


def test_each_phase_commits_its_files(pipeline: Pipeline) -> None:
    committed = {name: names(pipeline.phases.committed(name)) for name in STEPS}
    model = {f"model/{file}" for file in MODEL_FILES}
    if pipeline.phases.run.spec.solver.reward.mode == "paper":  # the one with a chat template
        model.add("model/chat_template.jinja")
    assert committed == {
        "evaluate-0": {"answers/tiny.parquet", "texts/tiny.parquet"},
        "challenger-train-1": {*model, "metrics.jsonl", "fingerprint.jsonl"},
        "solver-rollout-1": {"curriculum.parquet", "questions.parquet", "texts.parquet"},
        "solver-train-1": {*model, "metrics.jsonl", "fingerprint.jsonl"},
        "evaluate-1": {"answers/tiny.parquet", "texts/tiny.parquet"},
    }


@pytest.mark.parametrize("name", TRAINED)
def test_training_moves_the_weights_and_keeps_the_architecture(pipeline: Pipeline, name: str) -> None:
    import torch
    from safetensors.torch import load, load_file

    before = load_file(pipeline.base / "model.safetensors")
    after = load(pipeline.phases.read(name, "model/model.safetensors"))
    assert {key: (value.shape, value.dtype) for key, value in after.items()} == {
        key: (value.shape, value.dtype) for key, value in before.items()
    }
    assert all(torch.isfinite(value).all() for value in after.values())
    moved = [key for key in before if not torch.equal(before[key], after[key])]
    assert len(moved) == len(before), sorted(set(before) - set(moved))
    kept = ("model_type", "hidden_size", "num_hidden_layers", "vocab_size", "tie_word_embeddings")
    config, base = (
        json.loads(text)
        for text in (pipeline.phases.read(name, "model/config.json"), (pipeline.base / "config.json").read_bytes())
    )
    assert {key: config[key] for key in kept} == {key: base[key] for key in kept}


@pytest.mark.parametrize("name", TRAINED)
def test_training_takes_exactly_its_steps(pipeline: Pipeline, name: str) -> None:
    rows = jsonl(pipeline.phases.read(name, "metrics.jsonl"))
    assert [row["step"] for row in rows] == [1, 2, 3]
    for row in rows:
        for metric in ("reward", "kl", "entropy", "completions/mean_length", "completions/clipped_ratio", "loss"):
            assert isinstance(row[metric], float), metric
        assert row["entropy"] > 0 and 0 < row["completions/mean_length"] <= 32
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-6)  # to the weights that the phase starts from
    assert rows[-1]["kl"] > 0
    manifest = pipeline.phases.committed(name)
    for metric in ("reward", "kl", "entropy"):
        assert manifest.metrics[f"{metric}_first"] == rows[0][metric]
        assert manifest.metrics[f"{metric}_last"] == rows[-1][metric]


def test_the_challenger_is_paid_for_uncertainty_less_repetition(pipeline: Pipeline) -> None:
    mode = pipeline.phases.run.spec.challenger.reward.mode
    for row in jsonl(pipeline.phases.read("challenger-train-1", "metrics.jsonl")):
        assert 0 < row["valid"] <= 1 and 0 < row["distinct"] <= 1 and 1 / 8 <= row["repetition"] <= 1
        paid = row["valid"] * row["uncertainty"]
        if mode == "code":  # nothing is floored, so that the means add up
            assert 0 <= row["uncertainty"] <= 0.5
            assert row["reward"] == pytest.approx(paid - (1 - row["valid"]) - row["repetition"], abs=1e-5)
        else:
            assert max(0, paid - row["repetition"]) - 1e-5 <= row["reward"] <= paid + 1e-5


def test_the_solver_is_paid_for_the_label(pipeline: Pipeline) -> None:
    mode = pipeline.phases.run.spec.solver.reward.mode
    for row in jsonl(pipeline.phases.read("solver-train-1", "metrics.jsonl")):
        if mode == "paper":
            assert row["reward"] == pytest.approx(row["accuracy"], abs=1e-6)
        else:
            boxed = (row["reward"] - 0.9 * row["accuracy"]) / 0.1
            assert row["accuracy"] - 1e-5 <= boxed <= 1 + 1e-5


def test_a_rollout_answers_every_valid_question_and_keeps_the_votes(pipeline: Pipeline) -> None:
    phases = pipeline.phases
    rows = phases.rows("solver-rollout-1", QUESTIONS)
    assert len(rows) == 40
    valid = [row for row in rows if row["question"] is not None]
    assert len(valid) >= 20
    for row in valid:
        assert sum(size for _, size in row["votes"]) <= 4
        assert row["share"] == max([size for _, size in row["votes"]], default=0) / 4
    kept = [row for row in valid if row["dropped"] is None]
    assert phases.rows("solver-rollout-1", CURRICULUM) == [
        {"question": row["question"], "answer": row["majority"], "share": row["share"], "truth": row["truth"]}
        for row in kept
    ]
    metrics = phases.committed("solver-rollout-1").metrics
    assert (metrics["questions"], metrics["valid"], metrics["kept"]) == (40, len(valid), len(kept))
    dropped = Counter(row["dropped"] for row in valid if row["dropped"] is not None)
    assert {name: count for name, count in metrics.items() if name.startswith("dropped_") and count} == {
        f"dropped_{reason}": count for reason, count in dropped.items()
    }


def test_a_tasks_questions_are_in_no_curriculum(tmp_path: Path) -> None:
    def rows(questions: Path) -> list[dict[str, Any]]:
        over = {"challenger": {"grpo": {"maxSteps": 0}}, "rollout": {"shards": 1}}
        spec = settings(over, questions=questions) | {"exclude": []}
        phases = Phases(arithmetic(spec, store=tmp_path / "store"), tmp_path)
        assert phases("solver-rollout-1").code == 0
        assert {"overlap_8", "overlap_13"} <= set(phases.committed("solver-rollout-1").metrics)
        return phases.rows("solver-rollout-1", QUESTIONS)

    before = rows(write_questions(tmp_path / "heldout.jsonl"))
    asked = [row["question"] for row in before if row["dropped"] is None][:3]
    own = tmp_path / "asked.jsonl"
    own.write_text("".join(json.dumps({"question": question, "answer": "1"}) + "\n" for question in asked))
    after = rows(own)
    assert len(asked) == 3
    assert {row["question"]: row["dropped"] for row in after if row["dropped"] == "held_out"} == dict.fromkeys(
        asked, "held_out"
    )


def test_the_answers_as_they_stand_are_those_that_were_counted(pipeline: Pipeline) -> None:
    phases = pipeline.phases
    questions = phases.rows("solver-rollout-1", QUESTIONS)
    texts = phases.rows("solver-rollout-1", TEXTS)
    asked = [n for n, row in enumerate(questions) if row["question"] is not None and not row.get("too_long")]
    assert [(row["number"], row["sample"]) for row in texts] == [(n, i) for n in asked for i in range(4)]
    for n in asked:
        group = [row for row in texts if row["number"] == n]
        assert {row["question"] for row in group} == {questions[n]["question"]}
        votes = Counter(row["vote"] for row in group if row["vote"] is not None)
        assert [votes[i] for i in range(len(votes))] == [size for _, size in questions[n]["votes"]]
        for row in group:
            assert (row["vote"] is None) == (row["answer"] is None)
            assert row["answer"] is None or f"{{{row['answer']}}}" in row["text"]
        counts = questions[n]["answers"]
        assert counts["truncated"] == sum(row["truncated"] for row in group)
        assert counts["unboxed"] == sum(row["answer"] is None for row in group)
    for name in ("evaluate-0", "evaluate-1"):
        scores, texts = phases.rows(name, answers_of("tiny")), phases.rows(name, texts_of("tiny"))
        assert [(row["number"], row["sample"]) for row in texts] == [(n, i) for n in range(8) for i in (None, 0, 1)]
        for n, score in enumerate(scores):
            greedy, *sampled = texts[3 * n : 3 * n + 3]
            assert (greedy["text"][:4000], greedy["right"]) == (score["greedy"], score["greedy_right"])
            assert sum(row["right"] for row in sampled) == score["samples_right"]
            assert sum(row["tokens"] for row in sampled) / 2 == score["mean_tokens"]


def test_answers_are_kept_as_storage_says(pipelines: Callable[[Architecture], Pipeline]) -> None:
    pipeline = pipelines("qwen3")
    for keep, files in (("votes", {"answers/tiny.parquet"}), ("all", {"answers/tiny.parquet", "texts/tiny.parquet"})):
        phases = pipeline.variant({}, keep=keep)
        assert phases.prefix("evaluate-0") == pipeline.phases.prefix("evaluate-0"), "no other step for it"
        for name in ("evaluate-0", "solver-rollout-1"):
            phases.store.delete_prefix(phases.prefix(name))
        assert phases("evaluate-0").code == 0 and names(phases.committed("evaluate-0")) == files
        assert [phases("solver-rollout-1", shard).code for shard in (0, 1)] == [0, 0]
        assert (phases.committed("solver-rollout-1").file(TEXTS.name) is None) == (keep == "votes")


def test_shards_write_different_questions(pipeline: Pipeline) -> None:
    phases = pipeline.phases
    chunks = [key for key in phases.objects("solver-rollout-1", "chunks") if key.endswith("MANIFEST.json")]
    assert chunks == [
        f"chunks/{kind}/{first:08d}-00000020/MANIFEST.json" for kind in ("answers", "questions") for first in (0, 20)
    ]
    rows = phases.rows("solver-rollout-1", QUESTIONS)
    assert [row["question"] for row in rows[:20]] != [row["question"] for row in rows[20:]]


def test_questions_and_answers_are_those_of_any_other_cut(pipelines: Callable[[Architecture], Pipeline]) -> None:
    pipeline = pipelines("qwen3")
    files = (QUESTIONS.name, CURRICULUM.name, TEXTS.name)
    before = [pipeline.phases.read("solver-rollout-1", file) for file in files]
    phases = pipeline.variant({"shards": 3, "chunkQuestions": 7})
    assert phases.prefix("solver-rollout-1") == pipeline.phases.prefix("solver-rollout-1")
    phases.store.delete_prefix(phases.prefix("solver-rollout-1"))
    assert [phases("solver-rollout-1", index).code for index in range(3)] == [0, 0, 0]
    assert [phases.read("solver-rollout-1", file) for file in files] == before


@pytest.mark.parametrize("name", ["evaluate-0", "evaluate-1"])
def test_scores_are_those_of_the_committed_answers(pipeline: Pipeline, name: str) -> None:
    rows = pipeline.phases.rows(name, answers_of("tiny"))
    asked = [json.loads(line) for line in pipeline.questions.read_text().splitlines()]
    assert [(row["question"], row["answer"]) for row in rows] == [(row["question"], row["answer"]) for row in asked]
    metrics = pipeline.phases.committed(name).metrics
    assert metrics["tiny/mean"] == metrics["mean"] == pytest.approx(sum(row["samples_right"] for row in rows) / 16)
    assert metrics["tiny/greedy"] == metrics["greedy"] == sum(row["greedy_right"] for row in rows) / 8


@pytest.mark.parametrize("name", ["evaluate-0", "evaluate-1"])
def test_the_majority_of_the_samples_is_one_of_them_and_graded(pipeline: Pipeline, name: str) -> None:
    rows = pipeline.phases.rows(name, answers_of("tiny"))
    for row in rows:
        votes = dict(row.get("votes", []))
        assert sum(votes.values()) == 2 - row["answers"]["unboxed"]
        assert row.get("majority") == max(votes, key=votes.__getitem__, default=None)
        assert row["majority_right"] == (row.get("majority") == row["answer"])
    metrics = pipeline.phases.committed(name).metrics
    assert metrics["tiny/maj"] == metrics["maj"] == sum(row["majority_right"] for row in rows) / 8
    assert metrics["tiny/pass@2"] == metrics["pass@2"] == sum(row["samples_right"] > 0 for row in rows) / 8


def test_gains_are_over_the_bases_answers_to_the_same_questions(pipeline: Pipeline) -> None:
    before, after = (pipeline.phases.committed(name).metrics for name in ("evaluate-0", "evaluate-1"))
    assert not [name for name in before if "gain" in name]
    for name in ("mean", "greedy", "maj", "pass@2"):
        assert after[f"{name}_gain"] == pytest.approx(after[name] - before[name])
        assert after[f"tiny/{name}_gain_stderr"] >= 0
    asked = [pipeline.phases.rows(name, answers_of("tiny")) for name in ("evaluate-0", "evaluate-1")]
    moved = [(new["samples_right"] - old["samples_right"]) / 2 for old, new in zip(*asked, strict=True)]
    assert after["mean_gain_stderr"] == pytest.approx(statistics.stdev(moved) / 8**0.5)


def test_an_oracle_that_fails_loses_nothing_of_a_rollout(pipelines: Callable[[Architecture], Pipeline]) -> None:
    down = True

    def answer(body: dict[str, Any], number: int) -> tuple[int, Any]:
        return (503, b"") if down else (200, content(rf"\boxed{{{number % 2}}}"))

    with endpoint(answer) as server:
        oracle = {"kind": "endpoint", "url": server.url, "model": "m", "questions": 3, "samples": 1, "patience": 1}
        phases = pipelines("qwen3").variant({"oracle": oracle, "shards": 1})
        failed = phases("solver-rollout-1")
        assert failed.code == 3 and "answers 503" in failed.result.message, failed
        assert phases.manifest("solver-rollout-1") is None
        made = phases.objects("solver-rollout-1", "chunks")
        assert made
        down = False
        again = phases("solver-rollout-1")
    assert again.result.outcome == "committed" and {report.doing for report in again.progress} == {"asking the oracle"}
    assert phases.objects("solver-rollout-1", "chunks/oracle")
    manifest = phases.committed("solver-rollout-1")
    assert manifest.timings["oracle"] > 0  # known from the chunks
    rows = phases.rows("solver-rollout-1", ORACLE)
    kept = {row["question"]: row["answer"] for row in phases.rows("solver-rollout-1", CURRICULUM)}
    assert 1 <= len(rows) <= 3 and all(row["label"] == kept[row["question"]] for row in rows)
    assert manifest.metrics["label_accuracy"] == sum(row["right"] for row in rows) / len(rows)
    assert manifest.metrics["oracle_completion_tokens"] == 5 * len(rows)
    assert all(row["truth"] is None for row in phases.rows("solver-rollout-1", QUESTIONS) if "truth" in row)


def test_a_task_has_samples_sampling_and_prompt_of_its_own(pipelines: Callable[[Architecture], Pipeline]) -> None:
    pipeline = pipelines("qwen3")
    greedy = {"temperature": 0.0, "maxCompletionLength": 12}
    prompt = {"user": "Solve it: {question}", "system": ""}
    usual = pipeline.phases.rows("evaluate-0", answers_of("tiny"))
    other = pipeline.variant({}, {"samples": 3, "sampling": greedy, "answers": "number"})
    assert other("evaluate-0").result.outcome == "committed"
    rows = other.rows("evaluate-0", answers_of("tiny"))
    assert [row["answers"]["answers"] for row in rows] == [3] * 8
    assert all(row["mean_tokens"] <= 12 and len(row.get("votes", [])) <= 1 for row in rows)  # three times the same
    assert other.committed("evaluate-0").metrics["tiny/pass@3"] == other.committed("evaluate-0").metrics["tiny/mean"]
    asked = pipeline.variant({}, {"prompt": prompt})
    assert asked("evaluate-0").result.outcome == "committed"
    assert [row["greedy"] for row in asked.rows("evaluate-0", answers_of("tiny"))] != [row["greedy"] for row in usual]


@pytest.mark.parametrize("name", STEPS)
def test_a_step_that_is_done_is_found(pipeline: Pipeline, name: str) -> None:
    before = pipeline.phases.objects(name)
    again = pipeline.phases(name)
    assert (again.code, again.result.outcome) == (0, "found")
    manifest = pipeline.phases.committed(name)
    assert again.result.metrics == manifest.metrics and again.result.timings == manifest.timings
    assert pipeline.phases.objects(name) == before


def test_checkpoints_go_when_the_step_is_committed(pipeline: Pipeline) -> None:
    for name in TRAINED:
        assert pipeline.phases.objects(name, "checkpoints") == []


def test_what_a_killed_attempt_left_behind_its_commit_goes_when_the_step_is_found(pipeline: Pipeline) -> None:
    phases = pipeline.phases
    phases.store.put_bytes(f"{phases.prefix('solver-train-1')}/checkpoints/00000002/attempts/x/file", b"left")
    assert phases("solver-train-1").result.outcome == "found"
    assert phases.objects("solver-train-1", "checkpoints") == []


def test_random_labels_are_the_majority_answers_dealt_anew(pipelines: Callable[[Architecture], Pipeline]) -> None:
    pipeline = pipelines("qwen3")
    phases = pipeline.variant({"labels": "random"})
    assert [phases("solver-rollout-1", shard).result.outcome for shard in (0, 1)] == ["shard", "committed"]
    majority = pipeline.phases.rows("solver-rollout-1", CURRICULUM)
    dealt = phases.rows("solver-rollout-1", CURRICULUM)
    # The same questions are written and answered; only labels are another matter, and so is what they will pay.
    before, after = (each.committed("solver-rollout-1").metrics for each in (pipeline.phases, phases))
    assert before.keys() - after.keys() == {"expected_accuracy"}
    assert [row["question"] for row in dealt] == [row["question"] for row in majority]
    assert Counter(row["answer"] for row in dealt) == Counter(row["answer"] for row in majority)
    assert [row["answer"] for row in dealt] != [row["answer"] for row in majority]


def test_true_labels_are_true(pipelines: Callable[[Architecture], Pipeline]) -> None:
    phases = pipelines("qwen3").variant({"labels": "truth", "shards": 1})
    assert phases("solver-rollout-1").result.outcome == "committed"
    rows = phases.rows("solver-rollout-1", CURRICULUM)
    assert rows
    for row in rows:
        left, sign, right = row["question"].split(" ")
        assert row["answer"] == row["truth"] == str(int(left) + (1 if sign == "+" else -1) * int(right))
    assert phases.committed("solver-rollout-1").metrics["label_accuracy"] == 1


def test_a_shard_that_is_there_is_not_made_again(pipelines: Callable[[Architecture], Pipeline]) -> None:
    phases = pipelines("qwen3").variant({"questions": 6, "shards": 3})
    assert phases("solver-rollout-1", 1).result.outcome == "shard"
    made = phases.objects("solver-rollout-1", "chunks")
    assert phases("solver-rollout-1", 1).result.outcome == "shard"
    assert phases.objects("solver-rollout-1", "chunks") == made
    assert phases.manifest("solver-rollout-1") is None
    # Whoever sees all shards makes the whole, in whatever order they come.
    assert [phases("solver-rollout-1", index).result.outcome for index in (2, 0)] == ["shard", "committed"]
