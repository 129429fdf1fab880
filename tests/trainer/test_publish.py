"""Publication: what goes where, that nothing is replaced, and that a second attempt finds what the first has done."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import yaml
from safetensors.numpy import save_file

from harness.artifacts import write_files
from harness.inprocess import Ended, Phases
from harness.runs import DIGEST, RUBRIC, TRIAD, make_run
from harness.writable_hub import WritableHub, writable_hub
from selfevo_contract.artifacts import ManifestDraft
from selfevo_contract.phases import EVALUATE, SOLVER_ROLLOUT, SOLVER_TRAIN, PublishInputs
from selfevo_contract.plan import plan
from selfevo_contract.plan_publish import address_of
from selfevo_contract.rows import CURRICULUM, CurriculumRow
from selfevo_store import commit
from selfevo_trainer.publishing.card import Facts, data_card, model_card

TOKEN = "acme-token"
MODEL, DATA = "models/acme/sums", "datasets/acme/sums"
FILES = {"README.md", "config.json", "model.safetensors", "tokenizer.json"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[WritableHub]:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING_FACE"))]:
        monkeypatch.delenv(name)
    with writable_hub({TOKEN: ("acme",), "other-token": ("other",)}) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        monkeypatch.setenv("SELFEVO_PUBLISH_TOKEN", TOKEN)
        yield running


def make(folder: Path, to: str = "hf://acme/sums", weight: float = 0.5, **changes: Any) -> Phases:
    """A run whose steps are committed, but for its publications; its Solvers are a matrix."""
    publish, rollout = {"to": to, **changes.pop("publish", {})}, changes.pop("rollout", {})
    store = (folder / "store").absolute().as_uri()
    run = make_run(
        **{"spec__storage__uri": store, "spec__publish": publish, "spec__model__dtype": "float32", **changes}
    )
    phases = Phases(run, folder)
    for step in phases.plan.steps:
        work = folder / "made" / step.name
        files: dict[str, Path] = {}
        metrics: dict[str, float] = {}
        if step.phase == SOLVER_TRAIN.name:
            contents = {"config.json": b'{"dtype": "float32", "model_type": "toy"}', "tokenizer.json": b"{}"}
            files = write_files(work, {f"model/{name}": content for name, content in contents.items()})
            files["model/model.safetensors"] = work / "model" / "model.safetensors"
            weights = numpy.full((2, 3), weight + step.iteration, dtype=numpy.float32)
            save_file({"weight": weights}, files["model/model.safetensors"])
        elif step.phase == SOLVER_ROLLOUT.name:
            work.mkdir(parents=True)
            row = CurriculumRow(question=f"{step.iteration} + 1", answer="2", share=0.75)
            files, metrics = CURRICULUM.write(work, [row]), {"kept": 1.0, **rollout}
        elif step.phase == EVALUATE.name:
            files = write_files(work, {"nothing": b""})
            task = step.inputs.tasks[0].name  # type: ignore[union-attr]
            metrics = {f"{task}/mean": 0.5 + step.iteration / 10, f"{task}/mean_stderr": 0.01}
            metrics |= {f"{task}/mean_gain": step.iteration / 10, f"{task}/mean_gain_stderr": 0.005}
        if files:
            draft = ManifestDraft(key=step.key, phase=step.phase, metrics=metrics, versions={"torch": "2.0"})
            commit(phases.store, phases.prefix(step.name), files, draft)
    return phases


def as_adapters(phases: Phases) -> None:
    """Its Solvers are adapters, committed anew."""
    from selfevo_contract.artifacts import step_prefix

    for step in phases.plan.steps:
        if step.phase == SOLVER_TRAIN.name:
            work = phases.folder / "adapters" / step.name
            adapter_config = {"base_model_name_or_path": "hf://tiny/base@v1", "target_modules": ["q"], "r": 4}
            contents = {"config.json": b"{}", "adapter_config.json": json.dumps(adapter_config).encode()}
            files = write_files(work, {f"model/{name}": content for name, content in contents.items()})
            files["model/adapter_model.safetensors"] = work / "model" / "adapter_model.safetensors"
            save_file({"q.lora_A": numpy.ones((4, 2), dtype=numpy.float32)}, files["model/adapter_model.safetensors"])
            phases.store.delete_prefix(step_prefix("default", step.phase, step.key))
            commit(phases.store, phases.prefix(step.name), files, ManifestDraft(key=step.key, phase=step.phase))


def again(phases: Phases, folder: Path, **publish: Any) -> Phases:
    """The same run with other settings of spec.publish, whose steps are other ones."""
    spec = phases.run.spec
    assert spec.publish is not None
    changed = spec.publish.model_copy(update={"curriculum": True, **publish})
    return Phases(phases.run.model_copy(update={"spec": spec.model_copy(update={"publish": changed})}), folder)


def front(card: bytes) -> dict[str, Any]:
    return yaml.safe_load(card.decode().split("---")[1])


def failed(ended: Ended) -> tuple[int, str, str]:
    return ended.code, ended.result.reason, ended.result.message


# --- the hub ----------------------------------------------------------------------------------------------------------


def test_the_best_solver_goes_to_a_private_repository_with_its_curricula_as_a_data_set(
    tmp_path: Path, hub: WritableHub
) -> None:
    phases = make(tmp_path)
    ended = phases("publish-2")
    assert (ended.code, ended.result.outcome) == (0, "committed"), ended.log
    model, data = hub.repositories[MODEL], hub.repositories[DATA]
    assert (model.private, data.private, set(model.files())) == (True, True, FILES)
    trained = phases.read("solver-train-2", "model/model.safetensors")
    assert model.files()["model.safetensors"] == trained
    assert {name: data.files()[name] for name in data.files() if name != "README.md"} == {
        f"curriculum/iteration-{t}.parquet": phases.read(f"solver-rollout-{t}", "curriculum.parquet") for t in (1, 2)
    }
    assert ended.result.metrics["files"] == ended.result.metrics["put"] == 7
    record = json.loads(phases.read("publish-2", "publication.json"))
    assert [each["address"] for each in record] == ["hf://datasets/acme/sums", "hf://acme/sums"]
    assert record[1]["version"] == model.branches["main"].sha("main")
    assert TOKEN not in ended.log + json.dumps(record)


def test_the_card_tells_scores_with_errors_digests_and_lineage_and_no_address_of_ours(
    tmp_path: Path, hub: WritableHub
) -> None:
    phases = make(tmp_path, spec__model={"uri": "hf://tiny/base@v1"}, spec__guards={"kl": {"action": "stop"}})
    assert phases("publish-2").code == 0
    card = hub.repositories[MODEL].files()["README.md"]
    fields = front(card)
    assert (fields["base_model"], fields["base_model_relation"], fields["datasets"]) == (
        "tiny/base", "finetune", ["acme/sums"],
    )  # fmt: skip
    text = card.decode()
    assert "| 50.0 ± 1.0 | 70.0 ± 1.0 | +20.0 ± 0.5 |" in text
    for t in (1, 2):
        assert phases.step(f"solver-train-{t}").key in text and phases.step(f"solver-rollout-{t}").key in text
        stored = phases.committed(f"solver-rollout-{t}").file("curriculum.parquet")
        assert stored is not None and f"| {t} | 1 | `{stored.sha256}` |" in text
    assert "| kl | stop |" in text and "The run never went back." in text and "torch 2.0" in text
    assert str(tmp_path) not in text and "file:" not in text and "s3:" not in text
    about = front(hub.repositories[DATA].files()["README.md"])["configs"]
    assert [split["path"] for split in about[0]["data_files"]] == [
        "curriculum/iteration-1.parquet", "curriculum/iteration-2.parquet",
    ]  # fmt: skip


def test_each_iteration_has_a_branch_of_its_own(tmp_path: Path, hub: WritableHub) -> None:
    phases = make(tmp_path, publish={"what": "each", "curriculum": False})
    assert [phases(f"publish-{t}").code for t in (1, 2)] == [0, 0]
    [(name, model)] = hub.repositories.items()
    assert (name, set(model.branches), model.files()) == (MODEL, {"main", "iteration-1", "iteration-2"}, {})
    for t in (1, 2):
        trained = phases.read(f"solver-train-{t}", "model/model.safetensors")
        assert model.files(f"iteration-{t}")["model.safetensors"] == trained


def test_a_branch_does_not_begin_with_what_the_main_one_has(tmp_path: Path, hub: WritableHub) -> None:
    hub.put(MODEL, "config.json", b"somebody's")
    code, reason, message = failed(make(tmp_path, publish={"what": "each", "curriculum": False})("publish-1"))
    assert (code, reason, set(hub.repositories[MODEL].branches)) == (2, "PublishedOtherwise", {"main"})
    assert "'hf://acme/sums@iteration-1', a branch that is not there and would begin with config.json of" in message


def test_what_is_published_again_is_left_alone_with_the_card_that_a_person_has_written(
    tmp_path: Path, hub: WritableHub
) -> None:
    phases = make(tmp_path)
    assert phases("publish-2").code == 0
    hub.put(MODEL, "README.md", b"my own words")
    hub.put(MODEL, "LICENSE", b"mine")
    asked = len(hub.seen)
    assert phases("publish-2").result.outcome == "found" and len(hub.seen) == asked  # the store knows it
    other = again(phases, tmp_path, private=False)  # another step
    ended = other("publish-2")
    assert (ended.code, ended.result.outcome, ended.result.metrics["put"]) == (0, "committed", 0), ended.log
    assert not any(line.startswith(("POST", "PUT")) for line in hub.seen[asked:])
    assert hub.repositories[MODEL].files()["README.md"] == b"my own words"


@pytest.mark.parametrize("there", [(MODEL, "config.json"), (MODEL, "other.bin"), (DATA, "train.csv")])
def test_a_name_with_other_content_is_refused_before_anything_is_written(
    tmp_path: Path, hub: WritableHub, there: tuple[str, str]
) -> None:
    hub.put(*there, b"somebody's")
    code, reason, message = failed(make(tmp_path)("publish-2"))
    assert (code, reason) == (2, "PublishedOtherwise")
    where = "hf://acme/sums" if there[0] == MODEL else "hf://datasets/acme/sums"
    assert f"spec.publish.to is '{where}', and {there[1]} there is not what this run publishes; nothing is" in message
    assert set(hub.repositories) == {there[0]} and not any(line.startswith("POST") for line in hub.seen)


def test_other_weights_at_the_same_name_are_refused(tmp_path: Path, hub: WritableHub) -> None:
    assert make(tmp_path / "a")("publish-2").code == 0
    before = dict(hub.repositories[MODEL].files())
    code, _, message = failed(make(tmp_path / "b", weight=0.25)("publish-2"))
    assert code == 2 and "model.safetensors there is not what this run publishes" in message
    assert hub.repositories[MODEL].files() == before


def test_a_public_repository_takes_nothing_that_is_to_be_private(tmp_path: Path, hub: WritableHub) -> None:
    hub.put(MODEL, ".gitattributes", b"", private=False)
    phases = make(tmp_path, publish={"curriculum": False})
    code, _, message = failed(phases("publish-2"))
    assert code == 2 and "which is public, and spec.publish.private is true" in message
    assert again(phases, tmp_path, private=False, curriculum=False)("publish-2").code == 0
    assert set(hub.repositories[MODEL].files()) == FILES and not hub.repositories[MODEL].private


def test_a_new_repository_is_public_only_when_it_is_asked_for(tmp_path: Path, hub: WritableHub) -> None:
    assert make(tmp_path, publish={"private": False})("publish-2").code == 0
    assert not hub.repositories[MODEL].private and not hub.repositories[DATA].private


def test_without_a_token_nothing_is_asked(tmp_path: Path, hub: WritableHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SELFEVO_PUBLISH_TOKEN")
    phases = make(tmp_path)
    code, reason, message = failed(phases("publish-2"))
    assert (code, reason, hub.seen) == (2, "NoToken", [])
    assert "spec.publish.to is 'hf://acme/sums', and no token may write there; name a Secret" in message
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert phases("publish-2").code == 0


@pytest.mark.parametrize("token", ["other-token", "expired"])
def test_a_token_that_may_not_write_there_is_reported(
    tmp_path: Path, hub: WritableHub, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("SELFEVO_PUBLISH_TOKEN", token)
    code, reason, message = failed(make(tmp_path)("publish-2"))
    assert (code, reason, hub.repositories) == (2, "NotWritable", {})
    assert "the hub lets this token not write there (403); take a token that may" in message and token not in message


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        {"GET /api/models": [503]},
        {"POST /api/repos/create": [500]},
        {"commit": [500]},
        {"PUT /large": [400]},
    ],
    ids=lambda fault: next(iter(fault)),
)
def test_a_hub_that_fails_is_asked_again_and_no_half_of_a_model_stays(
    tmp_path: Path, hub: WritableHub, fault: dict[str, list[int]]
) -> None:
    hub.refuse = fault
    phases = make(tmp_path)
    first = phases("publish-2")
    assert first.code == 3 and "spec.publish.to is 'hf://" in first.result.message, first.result
    for repository in hub.repositories.values():
        assert len(repository.files()) in (0, 3)  # the curricula and their card, or nothing
    assert phases("publish-2").code == 0
    assert set(hub.repositories[MODEL].files()) == FILES and len(hub.repositories[DATA].files()) == 3


def test_who_writes_at_the_same_time_is_not_written_over(tmp_path: Path, hub: WritableHub) -> None:
    hub.moved = True
    phases = make(tmp_path)
    code, _, message = failed(phases("publish-2"))
    assert code == 3 and "where somebody else wrote at the same time (412)" in message
    hub.moved = False
    assert phases("publish-2").code == 0


def test_an_adapter_is_published_as_one_that_names_its_base_as_the_hub_does(tmp_path: Path, hub: WritableHub) -> None:
    phases = make(tmp_path, spec__model={"uri": "hf://tiny/base@v1"}, publish={"curriculum": False})
    as_adapters(phases)
    assert phases("publish-2").code == 0
    files = hub.repositories[MODEL].files()
    assert set(files) == {"README.md", "config.json", "adapter_config.json", "adapter_model.safetensors"}
    adapter_config = json.loads(files["adapter_config.json"])
    assert (adapter_config["base_model_name_or_path"], adapter_config["revision"], adapter_config["r"]) == (
        "tiny/base",
        "v1",
        4,
    )
    fields = front(files["README.md"])
    assert (fields["base_model"], fields["base_model_relation"], fields["library_name"]) == (
        "tiny/base",
        "adapter",
        "peft",
    )
    assert "datasets" not in fields and "an adapter on it" in files["README.md"].decode()


# --- the card ---------------------------------------------------------------------------------------------------------


def test_a_card_tells_of_the_judge_the_way_back_and_the_run_that_it_went_on_from() -> None:
    spec = make_run(spec__publish={"to": "hf://acme/sums"}, spec__guards={}).spec
    inputs = plan(spec).by_name["publish-2"].inputs
    assert isinstance(inputs, PublishInputs)
    went_back = inputs.model_copy(update={"rollbacks": 2, "origin": "c" * 64, "tasks": [], "scores": None})
    judge = {"promoted": 0.0, "anchors/before": 0.75, "anchors/after": 0.5, "anchors/error": 0.125}
    card = model_card(went_back, Facts(judge=judge))
    assert "was not promoted: the one before stayed. Right on sealed anchors, per cent: 75.0 -> 50.0 (standard" in card
    assert "The run went back 2 times." in card and "This model was not evaluated." in card
    assert f"went on from another run's Solver, `{'c' * 64}`" in card and "paid by a judge's scores" in card
    assert "Judge" not in model_card(went_back, Facts()) and "of the kind `majority`" in model_card(went_back, Facts())
    frozen = model_card(went_back, Facts(judge={"promoted": 1.0, "anchors/after": 0.75}))
    assert "judge that its run began with, which was not trained since. Right on sealed anchors, per cent: 75" in frozen


def inputs_of(**changes: Any) -> PublishInputs:
    inputs = plan(make_run(spec__publish={"to": "hf://acme/sums"}, **changes).spec).by_name["publish-2"].inputs
    assert isinstance(inputs, PublishInputs)
    return inputs


@pytest.mark.parametrize(
    ("changes", "paid", "answers"),
    [
        ({}, "paid by labels of the kind `majority`. It", "the label that training used, and may be wrong"),
        (
            {"spec__solver__reward": {"mode": "confidence"}},
            "paid by agreeing with its own other answers (`confidence`), and by no label. It",
            "a label of the kind `majority`, which training did not use",
        ),
        (
            {"spec__solver__reward": {"mode": "selfCertainty"}},
            "paid by how sure it was of its tokens (`selfCertainty`), and by no label. It",
            "a label of the kind `majority`, which training did not use",
        ),
        (TRIAD, "paid by a judge's scores. It", "They have no answers: a judge paid the Solver's own."),
        (RUBRIC, "paid by a judge's scores by criteria. It", "They have no answers"),
    ],
)
def test_a_card_says_what_paid_the_solver(changes: dict[str, Any], paid: str, answers: str) -> None:
    inputs = inputs_of(**changes)
    card = model_card(inputs, Facts(judge={} if inputs.judge else None))
    assert paid in card and (paid.count("label") or "label" not in card), card
    assert answers in data_card(inputs, [])


@pytest.mark.parametrize(("pairwise", "how"), [(False, "scored its answers"), (True, "compared its answers")])
def test_a_card_names_a_judge_with_criteria_by_model_and_digest(pairwise: bool, how: str) -> None:
    changes = {**RUBRIC, **({"spec__verifier__rubric__pairwise": {}} if pairwise else {})}
    agreed = {"anchors/accuracy": 0.75, "anchors/count": 64.0, "anchors/error": 0.05}
    card = model_card(inputs_of(**changes), Facts(judge=agreed))
    assert f"## Judge\n\n`strong` {how} by written criteria (sha256 `{DIGEST}`). It was not trained. Right on" in card
    assert "per cent: 75.0 ± 5.0 of 64." in card and "https://llm" not in card and "criteria.yaml" not in card


def test_the_agreement_of_a_judge_with_criteria_is_that_of_the_newest_rollout(tmp_path: Path) -> None:
    phases = make(tmp_path, to=f"file://{tmp_path}/out", rollout={"anchors/accuracy": 0.5}, **RUBRIC)
    assert phases("publish-2").code == 0
    assert "Right on pairs of a known order, per cent: 50.0." in (tmp_path / "out" / "README.md").read_text()


def test_what_pays_by_labels_or_by_a_trained_judge_adds_nothing_to_the_key() -> None:
    for changes in ({}, TRIAD):
        assert not {"unlabelled", "rubric"} & inputs_of(**changes).wire().keys()


def test_a_card_leaves_out_guards_that_are_blind_and_actions_that_never_follow() -> None:
    seeing = {each.name: each.action for each in inputs_of(spec__guards={}, spec__iterations=2).guards or []}
    assert not {"labelAccuracy", "similarity"} & seeing.keys() and seeing["truncation"] == "stop"
    once = plan(make_run(spec__publish={"to": "hf://acme/sums"}, spec__guards={}, spec__iterations=1).spec)
    inputs = once.by_name["publish-1"].inputs
    assert isinstance(inputs, PublishInputs)
    card = model_card(inputs, Facts())
    assert "| heldOut | warn |" in card and "| kl |" not in card and "| truncation | stop |" in card


# --- a store ----------------------------------------------------------------------------------------------------------


def test_a_place_in_a_store_holds_plain_files_that_are_a_model(tmp_path: Path) -> None:
    place = tmp_path / "out"
    phases = make(tmp_path, to=f"file://{place}/model", publish={"what": "each"})
    assert [phases(f"publish-{t}").code for t in (1, 2)] == [0, 0]
    found = {str(file.relative_to(place)) for file in place.rglob("*") if file.is_file()}
    curricula = {f"model/iteration-{t}/curriculum/iteration-{n}.parquet" for t, n in ((1, 1), (2, 1), (2, 2))}
    assert found == {f"model/iteration-{t}/{name}" for t in (1, 2) for name in FILES} | curricula
    assert address_of(phases.step("publish-2").inputs) == f"file://{place}/model/iteration-2"


def test_an_attempt_that_was_killed_is_completed_and_other_content_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "out"
    phases = make(tmp_path, to=f"file://{place}")
    assert phases("publish-2").code == 0
    for name in ("README.md", "model.safetensors"):  # as a kill between two files leaves it
        (place / name).unlink()
    other = again(phases, tmp_path, private=False)
    ended = other("publish-2")
    assert (ended.code, ended.result.metrics["put"]) == (0, 2), ended.log
    assert {file.name for file in place.iterdir()} > FILES
    (place / "tokenizer.json").write_bytes(b"[]")
    code, reason, message = failed(again(phases, tmp_path, curriculum=False)("publish-2"))
    assert (code, reason) == (2, "PublishedOtherwise") and f"spec.publish.to is 'file://{place}'" in message
    assert (place / "tokenizer.json").read_bytes() == b"[]"


def test_a_place_that_cannot_be_written_is_named_with_its_field(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    code, _, message = failed(make(tmp_path, to=f"file://{tmp_path}/taken")("publish-2"))
    assert code in (2, 3) and "spec.publish.to" in message and "storage.uri" not in message, message


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_weights_are_cast_to_the_runs_type(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    place = tmp_path / "out"
    phases = make(tmp_path, to=f"file://{place}", spec__model__dtype="bfloat16", weight=1 / 3)
    assert phases("publish-2").code == 0
    weight = load_file(place / "model.safetensors")["weight"]
    assert str(weight.dtype) == "torch.bfloat16" and math.isclose(float(weight[0, 0]), 7 / 3, rel_tol=0.01)
    assert json.loads((place / "config.json").read_bytes())["dtype"] == "bfloat16"
    phases = make(tmp_path / "b", to=f"file://{tmp_path}/b/out", spec__model__dtype="float16", weight=1e30)
    code, _, message = failed(phases("publish-2"))
    assert code == 2 and "spec.model.dtype is 'float16', in which weight of the model to publish is not" in message
