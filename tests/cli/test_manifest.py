"""Manifests: what is read, and the one sentence for everything that is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from harness.cli import Project
from harness.runs import document
from selfevo.manifest import load
from selfevo_contract.digests import file_digest, model_digest
from selfevo_contract.errors import InputError
from selfevo_contract.plan import plan
from selfevo_contract.spec.oracles import DataOracle


def refused(path: Path, **options: str) -> str:
    with pytest.raises(InputError) as error:
        load(path, **options)  # type: ignore[arg-type]
    return str(error.value)


def keys(path: Path) -> list[str]:
    return [step.key for step in plan(load(path).spec).steps]


# --- places and digests -----------------------------------------------------------------------------------------------


def test_file_uris_are_taken_from_the_manifests_folder(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    path = project.evaluated(spec__exclude=[{"uri": "file:heldout.jsonl"}])
    monkeypatch.chdir("/")
    spec = load(path).spec
    assert spec.model.uri == f"file://{project.root}/model"
    assert spec.storage.uri == f"file://{project.root}/store"
    assert spec.evaluation is not None
    data = spec.evaluation.tasks[0].data
    assert data.uri == spec.exclude[0].uri == f"file://{project.root}/heldout.jsonl"
    assert data.digest == file_digest(project.root / "heldout.jsonl")
    assert spec.model.digest == model_digest(project.root / "model")


def test_the_data_of_an_oracle_are_the_manifests_too(project: Project) -> None:
    def asked(uri: str) -> Path:
        return project.evaluated(spec__rollout__oracle={"kind": "data", "data": {"uri": uri}})

    oracle = load(asked("file:heldout.jsonl")).spec.rollout.oracle
    assert isinstance(oracle, DataOracle)
    file = project.root / "heldout.jsonl"
    assert (oracle.data.uri, oracle.data.digest) == (f"file://{file}", file_digest(file))
    assert refused(asked("file:gone.jsonl")) == (
        "spec.rollout.oracle.data.uri is 'file:gone.jsonl', a path from the manifest's folder, and there is no file "
        f"{project.root}/gone.jsonl; correct it"
    )


JUDGED = {f"spec__{role}__reward": {"mode": "judged"} for role in ("challenger", "solver")}


def test_a_verifiers_places_are_the_manifests_too(project: Project) -> None:
    verifier = {"model": {"uri": "file:model"}, "anchors": {"data": {"uri": "file:heldout.jsonl"}}}
    path = project.write(**JUDGED, spec__verifier=verifier)
    spec = load(path).spec.verifier
    assert spec is not None and spec.model is not None
    assert spec.model.uri == f"file://{project.root}/model" and spec.model.digest == model_digest(
        project.root / "model"
    )
    assert spec.anchors is not None
    data = spec.anchors.data
    assert (data.uri, data.digest) == (
        f"file://{project.root}/heldout.jsonl",
        file_digest(project.root / "heldout.jsonl"),
    )
    for name, field in (("model", "model"), ("anchors", "anchors.data")):
        absent = verifier | (
            {"model": {"uri": "file:no"}} if name == "model" else {"anchors": {"data": {"uri": "file:no"}}}
        )
        refusal = refused(project.write(**JUDGED, spec__verifier=absent))
        assert refusal.startswith(
            f"spec.verifier.{field}.uri is 'file:no', a path from the manifest's folder, and there is"
        )


def test_criteria_lie_beside_the_manifest_and_their_content_is_known(project: Project) -> None:
    def judged(uri: str) -> Path:
        rubric = {"criteria": [{"uri": uri}], "model": "strong", "endpoint": {"url": "http://llm"}}
        return project.write(**JUDGED, spec__verifier={"kind": "rubric", "rubric": rubric})

    file = project.root / "criteria.yaml"
    file.write_text("criteria: [{name: short, description: It is short.}]")
    spec = load(judged("file:criteria.yaml")).spec.verifier
    assert spec is not None and spec.rubric is not None
    [data] = spec.rubric.criteria
    assert data.uri == f"file://{file}" and data.digest == file_digest(file)
    file.write_text("criteria: {")
    assert refused(judged("file:criteria.yaml")).startswith(
        "spec.verifier.rubric.criteria[0].uri is 'file:criteria.yaml', which is neither JSON nor YAML ("
    )
    assert refused(judged("file:no")).startswith("spec.verifier.rubric.criteria[0].uri is 'file:no', a path from the")
    # With a digest it is meant for where the steps are done, where another file may lie.
    pinned = {"uri": file.as_uri(), "digest": "0" * 64}
    rubric = {"criteria": [pinned], "model": "strong", "endpoint": {"url": "http://llm"}}
    spec = load(project.write(**JUDGED, spec__verifier={"kind": "rubric", "rubric": rubric})).spec.verifier
    assert spec is not None and spec.rubric is not None
    assert [data.model_dump() for data in spec.rubric.criteria] == [pinned]


def test_keys_follow_content_not_places(project: Project, tmp_path: Path) -> None:
    before = keys(project.evaluated())
    other = Project(tmp_path / "elsewhere")
    assert keys(other.evaluated()) == before
    (other.root / "model" / "README.md").write_text("not part of the model")
    assert keys(other.root / "run.yaml") == before
    (other.root / "heldout.jsonl").write_text('{"question": "1 + 2", "answer": "3"}\n')
    assert not set(keys(other.root / "run.yaml")) & set(before)  # what is held out decides what may be asked
    (other.root / "heldout.jsonl").write_text((project.root / "heldout.jsonl").read_text())
    assert keys(other.root / "run.yaml") == before
    (other.root / "model" / "config.json").write_text('{"a": 1}')
    assert not set(keys(other.root / "run.yaml")) & set(before)


def test_a_given_digest_is_left_for_the_trainer_to_check(project: Project) -> None:
    path = project.write(spec__model={"uri": "file:/not-here".replace("/", ""), "digest": "a" * 64})
    assert load(path).spec.model.digest == "a" * 64


def test_large_files_are_digested_once(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = project.root / "model" / "model.safetensors"
    weights.write_bytes(b"\0" * (17 << 20))
    project.workdir.mkdir()
    load(project.root / "run.yaml", cache=project.workdir)
    asked: list[Path] = []

    def counted(path: Path) -> str:
        asked.append(path)
        return file_digest(path)

    monkeypatch.setattr("selfevo.digest_cache.file_digest", counted)
    first = load(project.root / "run.yaml", cache=project.workdir).spec.model.digest
    assert weights not in asked
    weights.write_bytes(b"\1" * (17 << 20))
    assert load(project.root / "run.yaml", cache=project.workdir).spec.model.digest != first
    (project.workdir / "digests.json").write_text("[broken")
    assert load(project.root / "run.yaml", cache=project.workdir).spec.model.digest != first


@pytest.mark.parametrize(
    ("option", "uri"),
    [
        ("s3://bucket/prefix", "s3://bucket/prefix"),
        ("file:///somewhere/store", "file:///somewhere/store"),
        ("store", "file://{cwd}/store"),
        ("../store", "file://{parent}/store"),
        ("file:store", "file://{cwd}/store"),
        ("/absolute", "file:///absolute"),
    ],
)
def test_the_storage_option_takes_uris_and_paths(
    project: Project, monkeypatch: pytest.MonkeyPatch, option: str, uri: str
) -> None:
    monkeypatch.chdir(project.root)
    run = load(project.root / "run.yaml", storage=option)
    assert run.spec.storage.uri == uri.format(cwd=project.root, parent=project.root.parent)


@pytest.mark.parametrize("option", ["gs://bucket", "s3:///x", "file://host/x"])
def test_a_storage_option_that_is_none_is_refused(project: Project, option: str) -> None:
    expected = refused(project.root / "run.yaml", storage=option)
    assert expected.startswith(f"--storage is {option!r}; write it as s3://<bucket>/<prefix>")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"spec__model": {"uri": "file:nowhere"}},
            "spec.model.uri is 'file:nowhere', a path from the manifest's folder, and there is no folder "
            "{root}/nowhere; correct it",
        ),
        (
            {"spec__model": {"uri": "file:orders"}},
            "spec.model.uri is 'file:orders', and {root}/orders holds no config.json; "
            "name a folder with a transformers model",
        ),
        (
            {"spec__exclude": [{"uri": "file:gone.jsonl"}]},
            "spec.exclude[0].uri is 'file:gone.jsonl', a path from the manifest's folder, and there is no file "
            "{root}/gone.jsonl; correct it",
        ),
        (
            {"spec__evaluation": {"tasks": [{"name": "a", "data": {"uri": "file:gone.jsonl"}}]}},
            "spec.evaluation.tasks[0].data.uri is 'file:gone.jsonl', a path from the manifest's folder, and there is "
            "no file {root}/gone.jsonl; correct it",
        ),
    ],
    ids=["no model", "not a model", "no excluded data", "no task data"],
)
def test_what_is_missing_on_disk_is_named(project: Project, changes: dict[str, object], sentence: str) -> None:
    assert refused(project.write(**changes)) == sentence.format(root=project.root)


# --- the file ---------------------------------------------------------------------------------------------------------


def written(tmp_path: Path, text: str, name: str = "run.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


GOOD = yaml.safe_dump(document(spec__model={"uri": "hf://owner/model@main"}, spec__evaluation=None))


def test_numbers_are_read_as_kubernetes_reads_them(tmp_path: Path) -> None:
    text = GOOD.replace("maxSteps: 2", "maxSteps: 2\n      learningRate: 1e-6")
    assert load(written(tmp_path, text)).spec.solver.grpo.learning_rate == 1e-6


def test_json_is_read_too(tmp_path: Path) -> None:
    text = json.dumps(yaml.safe_load(GOOD))
    assert load(written(tmp_path, text, "run.json")) == load(written(tmp_path, GOOD))
    assert load(written(tmp_path, text, "run.yaml")) == load(written(tmp_path, GOOD))


def test_other_documents_beside_the_run_are_left_alone(tmp_path: Path) -> None:
    text = f"kind: Namespace\nmetadata: {{name: x}}\n---\n{GOOD}---\n---\nkind: Secret\n"
    assert load(written(tmp_path, text)).metadata.name == "demo"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ": is empty".replace(":", "") + "; write a SelfEvolutionRun into it"),
        ("just words", " holds str; write a SelfEvolutionRun: apiVersion, kind, metadata, spec"),
        (f"{GOOD}---\n{GOOD}", " holds 2 SelfEvolutionRun in 2 documents; this command takes exactly one"),
        ("kind: A\n---\nkind: B\n", " holds no SelfEvolutionRun in 2 documents; this command takes exactly one"),
        ("a: 1\nb: 2\na: 3\n", ":3: 'a' is here and in line 1; keep one of them"),
        ("a: [1, 2\n", ":2: expected ',' or ']', but got '<stream end>'; correct the YAML"),
        ("a: !!python/object:os.system {}\n", ":1: could not determine a constructor for the tag"),
        ("a: \0b", ": unacceptable character"),
        ("{" * 3000, " is nested too deeply; name the manifest of a run"),
    ],
    ids=["empty", "words", "two runs", "no run", "twice", "broken", "python tag", "NUL", "deep"],
)
def test_a_file_that_is_no_manifest_is_one_sentence(tmp_path: Path, text: str, expected: str) -> None:
    path = written(tmp_path, text)
    message = refused(path)
    assert message.startswith(f"{path}{expected}")
    assert len(message.splitlines()) == 1


def test_files_that_cannot_be_read_are_one_sentence(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.yaml").endswith("none.yaml does not exist; name the manifest of a run")
    assert refused(tmp_path).endswith("cannot be read: Is a directory; name the manifest of a run")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert refused(tmp_path / "binary.yaml").endswith("is not text in UTF-8; name the manifest of a run")
    assert refused(written(tmp_path, '{"a": 1, "a": 2}', "x.json")).endswith(
        "'a' is there twice; keep one of them; correct it"
    )
    assert ":1: not JSON: " in refused(written(tmp_path, "{", "x.json"))


def test_every_mistake_is_a_sentence_with_its_line(tmp_path: Path) -> None:
    text = """apiVersion: selfevo.dev/v1alpha1
kind: SelfEvolutionRun
metadata: {name: demo}
spec:
  iterations: three
  qeue: team-a
  model: {uri: hf://owner/model}
  storage: {uri: s3://bucket/x}
  rollout:
    band:
      min: 0.8
      max: 0.2
    samples: 1
  exclude:
    - uri: s3://bucket/a
    - url: s3://bucket/b
"""
    path = written(tmp_path, text)
    assert refused(path).splitlines() == [
        f'{path}:5: spec.iterations is "three"; it must be a whole number',
        f"{path}:13: spec.rollout.samples is 1; it must be at least 2",
        f"{path}:10: spec.rollout.band: min 0.8 is above max 0.2; no question could enter, so swap or widen them",
        f"{path}:16: spec.exclude[1].uri is missing; add it",
        f"{path}:16: spec.exclude[1].url is not a field; did you mean 'uri'?",
        f"{path}:6: spec.qeue is not a field; did you mean 'queue'?",
    ]
