"""Which weights are served: each model has a fingerprint, and no phase goes on with an engine that serves another."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.curricula import give_curriculum
from harness.inprocess import CONFIG_ENV, Ended, Phases
from harness.tiny import BASE, settings, write_questions
from runs import arithmetic
from selfevo_contract import reasons
from selfevo_contract.artifacts import ManifestDraft
from selfevo_contract.fingerprint import FINGERPRINT, FINGERPRINT_OFF, LIMITS, ProbeRow
from selfevo_contract.phases import Loading
from selfevo_contract.rows import read_rows
from selfevo_contract.spec.engines import TransformersEngine
from selfevo_store import commit, read_manifest

pytestmark = pytest.mark.slow

TRAIN, EVALUATE = "solver-train-1", "evaluate-1"
FLOAT32 = Loading(dtype="float32", trust_remote_code=False)
Serve = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Phases:
    """A Solver that was trained for three steps, and the base's score."""
    folder = tmp_path_factory.mktemp("trained")
    over = {"iterations": 2, "evaluation": {"samples": 1}}
    questions = write_questions(folder / "heldout.jsonl", 2)
    phases = Phases(arithmetic(settings(over, questions=questions), store=folder / "store"), folder)
    give_curriculum(phases)
    for name in ("evaluate-0", TRAIN):
        ended = phases(name)
        assert ended.code == 0, ended.log
    return phases


@pytest.fixture
def phases(trained: Phases, tmp_path: Path) -> Phases:
    """The trained Solver in a store of the test's own."""
    folder = tmp_path / "own"
    shutil.copytree(trained.folder / "store", folder / "store")
    spec = trained.run.spec.model_copy(
        update={"storage": trained.run.spec.storage.model_copy(update={"uri": (folder / "store").as_uri()})}
    )
    return Phases(trained.run.model_copy(update={"spec": spec}), folder)


@pytest.fixture(scope="module")
def model_of(trained: Phases) -> Path:
    """The files of the trained Solver."""
    folder = trained.folder / "model"
    for file in trained.committed(TRAIN).under("model"):
        target = trained.folder / file.name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(trained.read(TRAIN, file.name))
    return folder


@pytest.fixture(scope="module")
def another(model_of: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the same shape with other weights."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("another")
    shutil.copytree(model_of, folder, dirs_exist_ok=True)
    weights = load_file(folder / "model.safetensors")
    moved = {name: value * 1.1 if "mlp" in name else value for name, value in weights.items()}
    save_file(moved, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Makes phases get an engine of this folder's weights, or of what becomes of those that they ask for; returns what
    each engine does."""

    def arrange(
        folder: Path | None = None,
        score: Callable[[Any], Any] = lambda found: found,
        instead: Callable[[Path], Path] = lambda path: path,
    ) -> list[Any]:
        from selfevo_trainer.engines import open_engine
        from selfevo_trainer.inputs import frozen

        done: list[Any] = []

        class Served:
            def __init__(self, engine: Any) -> None:
                self.engine = engine
                self.generate = engine.generate

            def score(self, rows: Sequence[Sequence[int]]) -> Any:
                done.append("score")
                return score(self.engine.score(rows))

            def close(self) -> None:
                done.append("close")
                self.engine.close()

        def opened(spec: Any, weights: Any) -> Any:
            return Served(
                open_engine(TransformersEngine(), dataclasses.replace(weights, path=folder or instead(weights.path)))
            )

        monkeypatch.setattr(frozen, "open_engine", opened)
        return done

    return arrange


def with_engine(phases: Phases, name: str, **engine: Any) -> Ended:
    config = json.loads(phases.environment(name)[CONFIG_ENV])
    return phases(name, environment={CONFIG_ENV: json.dumps({**config, "engine": engine})})


def fingerprint(phases: Phases) -> list[ProbeRow]:
    return read_rows(phases.read(TRAIN, FINGERPRINT.name), FINGERPRINT, "")


def message_of(ended: Ended) -> str:
    assert (ended.code, ended.result.outcome, ended.result.reason) == (2, "failed", reasons.OTHER_WEIGHTS_SERVED)
    return ended.result.message


def test_a_training_commits_what_its_weights_say_of_completions_of_its_own_prompts(
    trained: Phases, model_of: Path
) -> None:
    from selfevo_trainer.engines.probes import ROWS, TOKENS, logprobs
    from selfevo_trainer.models.loading import load_for_generation, load_tokenizer

    rows = fingerprint(trained)
    assert len(rows) == ROWS and len({tuple(row.tokens[: row.prompt]) for row in rows}) > 1
    special = set(load_tokenizer(model_of, FLOAT32).all_special_ids)
    for name, folder in (("logprobs", model_of), ("before", BASE)):
        found = logprobs(load_for_generation(folder, FLOAT32), [row.tokens for row in rows])
        for row, own in zip(rows, found, strict=True):
            completion = row.tokens[row.prompt :]
            assert 1 <= len(completion) <= TOKENS and not special & set(completion)
            assert getattr(row, name) == pytest.approx(own[row.prompt - 1 :], abs=1e-4), name
    assert max(abs(a - b) for row in rows for a, b in zip(row.logprobs, row.before, strict=True)) > 0.01


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_run_in_16_bits_has_the_fingerprint_of_the_weights_that_its_engines_load(model_of: Path, dtype: Any) -> None:
    import torch

    from selfevo_trainer.engines.probes import after_training, draw, logprobs
    from selfevo_trainer.models.loading import load_for_generation, load_for_training, load_tokenizer

    model, tokenizer = load_for_training(model_of, FLOAT32), load_tokenizer(model_of, FLOAT32)
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    drawn = draw(model, tokenizer, [[3, 29, 9, 22, 4]], {tokenizer.eos_token_id}, dtype)
    [*rows] = after_training(model, drawn)
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    loaded = load_for_generation(model_of, FLOAT32.model_copy(update={"dtype": dtype})).float()
    found = logprobs(loaded, [row.tokens for row in rows])
    unrounded = logprobs(model, [row.tokens for row in rows])
    for row, own in zip(rows, found, strict=True):
        assert row.logprobs == row.before == pytest.approx(own[row.prompt - 1 :], abs=1e-5)
    assert (
        max(abs(a - b) for one, other in zip(found, unrounded, strict=True) for a, b in zip(one, other, strict=True))
        > 1e-4
    )


def test_a_fingerprint_for_another_dtype_is_not_held_against(phases: Phases, serve: Serve) -> None:
    base = f"{phases.run.spec.storage.uri}/{phases.prefix(TRAIN)}"
    model = phases.run.spec.model.model_copy(update={"uri": base, "digest": None, "dtype": "bfloat16"})
    other = Phases(
        phases.run.model_copy(update={"spec": phases.run.spec.model_copy(update={"model": model})}), phases.folder
    )
    done = serve()
    assert (other("evaluate-0").code, done) == (0, ["close"])


def test_the_right_weights_are_asked_once_and_served(phases: Phases, serve: Serve) -> None:
    done = serve()
    ended = phases(EVALUATE)
    assert (ended.code, ended.result.outcome) == (0, "committed"), ended.log
    assert done == ["score", "close"]
    assert FINGERPRINT_OFF not in phases.committed(EVALUATE).metrics


def test_the_weights_before_the_training_are_named(phases: Phases, serve: Serve) -> None:
    done = serve(BASE)
    message = message_of(phases(EVALUATE))
    wanted = f"solver-train/{phases.step(TRAIN).key}"
    assert message.startswith(
        "spec.evaluation.engine (transformers) serves weights like those that its training began with "
        f"(file://{BASE}) where model {wanted} was wanted: the log-probabilities of "
    )
    assert message.endswith(
        f"; check the files of {wanted} with `selfevo artifacts verify`, and report it if they are whole"
    )
    assert done == ["score", "close"] and phases.manifest(EVALUATE) is None


@pytest.mark.parametrize("kind", ["transformers", "vllm", "server"])
def test_another_model_is_refused_whatever_the_engine(phases: Phases, serve: Serve, another: Path, kind: str) -> None:
    serve(another)
    message = message_of(with_engine(phases, EVALUATE, kind=kind))
    assert f"spec.evaluation.engine ({kind}) serves other weights where model solver-train/" in message
    assert f"and {LIMITS['float32']:g} is the most that rounding explains; " in message
    if kind == "server":
        assert message.endswith(f"have the server load solver-train/{phases.step(TRAIN).key} anew")


@pytest.mark.parametrize(
    ("score", "says"),
    [
        (lambda found: [], "0 rows of log-probabilities for 8 rows of tokens"),
        (lambda found: [[] for _ in found], r"0 log-probabilities for the \d+ tokens of row 1"),
        (lambda found: [[math.nan] * len(row) for row in found], "nan as a log-probability in row 1"),
        (lambda found: [[-math.inf] * len(row) for row in found], "-inf as a log-probability in row 1"),
    ],
)
def test_an_engine_that_gives_no_numbers_is_refused(
    phases: Phases, serve: Serve, score: Callable[[Any], Any], says: str
) -> None:
    serve(score=score)
    message = message_of(with_engine(phases, EVALUATE, kind="server"))
    assert re.search(f"^spec.evaluation.engine \\(server\\) gives {says} when it is asked for", message), message
    assert message.endswith("or set engine.fingerprint to off, which the report will say")


def test_the_check_can_be_left_out_for_a_server_and_the_manifest_says_so(
    phases: Phases, serve: Serve, another: Path
) -> None:
    done = serve(another)
    ended = with_engine(phases, EVALUATE, kind="server", fingerprint="off")
    assert (ended.code, done) == (0, ["close"]), ended.log
    assert phases.committed(EVALUATE).metrics[FINGERPRINT_OFF] == 1


def test_a_base_is_computed_here_once_for_every_engine_but_transformers(
    phases: Phases, serve: Serve, another: Path
) -> None:
    place = phases.folder / "cache" / "fingerprints"
    phases.store.delete_prefix(phases.prefix("evaluate-0"))
    done = serve()
    assert phases("evaluate-0").code == 0
    assert done == ["close"] and not place.exists()  # it would be held against itself

    phases.store.delete_prefix(phases.prefix("evaluate-0"))
    serve(another)
    message = message_of(with_engine(phases, "evaluate-0", kind="vllm"))
    assert f"serves other weights where model file://{BASE} was wanted" in message
    [file] = place.iterdir()
    made = file.read_bytes()
    assert all(row.before == [] for row in read_rows(made, FINGERPRINT, ""))

    file.write_bytes(made.replace(b"-", b"-9"))  # it is read, and not computed again
    serve()
    message_of(with_engine(phases, "evaluate-0", kind="vllm"))
    file.write_bytes(b"{}")  # what is damaged is
    done = serve()
    ended = with_engine(phases, "evaluate-0", kind="vllm")
    assert (ended.code, done) == (0, ["score", "close"]), ended.log
    assert [each.read_bytes() for each in place.iterdir()] == [made]


def test_a_base_that_a_run_committed_brings_its_fingerprint(phases: Phases, serve: Serve, tmp_path: Path) -> None:
    base = f"{phases.run.spec.storage.uri}/{phases.prefix(TRAIN)}"
    model = phases.run.spec.model.model_copy(update={"uri": base, "digest": None})
    spec = phases.run.spec.model_copy(update={"model": model})
    other = Phases(phases.run.model_copy(update={"spec": spec}), phases.folder)
    serve(BASE)
    assert f"where model {base} was wanted" in message_of(other("evaluate-0"))
    done = serve()
    assert (other("evaluate-0").code, done) == (0, ["score", "close"])


def test_a_model_without_a_fingerprint_is_served_as_a_base_is(phases: Phases, serve: Serve, another: Path) -> None:
    prefix = phases.prefix(TRAIN)
    manifest = read_manifest(phases.store, prefix)
    assert manifest is not None
    files = {file.name: phases.folder / "kept" / file.name for file in manifest.files if file.name != FINGERPRINT.name}
    for name, path in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(phases.read(TRAIN, name))
    phases.store.delete_prefix(prefix)
    draft = manifest.model_dump(exclude={"files", "write_id", "created_at"})
    commit(phases.store, prefix, files, ManifestDraft.model_validate(draft))
    serve(another)
    assert "serves other weights" in message_of(with_engine(phases, EVALUATE, kind="vllm"))
    serve()
    assert with_engine(phases, EVALUATE, kind="vllm").code == 0


def test_a_wrong_adapter_and_a_missing_one_are_refused(tmp_path: Path, serve: Serve) -> None:
    from safetensors.torch import load_file, save_file

    from selfevo_trainer.models.adapters import WEIGHTS, base_of

    questions = write_questions(tmp_path / "heldout.jsonl", 2)
    over = {"evaluation": {"samples": 1}, "solver": {"grpo": {"lora": {"rank": 4}, "learningRate": 0.002}}}
    phases = Phases(arithmetic(settings(over, questions=questions), store=tmp_path / "store"), tmp_path)
    give_curriculum(phases)
    for name in ("evaluate-0", TRAIN):
        ended = phases(name)
        assert ended.code == 0, ended.log

    def turned(path: Path) -> Path:
        shutil.copytree(path, tmp_path / "turned")
        weights = load_file(path / WEIGHTS)
        made = {name: -value if "lora_B" in name else value for name, value in weights.items()}
        (tmp_path / "turned" / WEIGHTS).unlink()
        save_file(made, tmp_path / "turned" / WEIGHTS, {"format": "pt"})
        return tmp_path / "turned"

    serve(instead=turned)
    assert "serves other weights where model solver-train/" in message_of(phases(EVALUATE))
    serve(instead=base_of)
    assert f"serves weights like those that its training began with (file://{BASE})" in message_of(phases(EVALUATE))
    serve()
    assert phases(EVALUATE).code == 0
