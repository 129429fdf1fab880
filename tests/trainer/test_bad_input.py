"""What people and surroundings get wrong: one sentence, the agreed exit code, no traceback, nothing committed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from harness.curricula import give_curriculum
from harness.inprocess import Ended, Phases
from harness.mounts import fill, tmpfs
from harness.ports import free_port
from harness.tiny import BASE, settings, write_questions
from harness.versitygw import REGION, S3Server
from runs import arithmetic, merged
from selfevo_contract.artifacts import SCHEMA_VERSION, ManifestDraft
from selfevo_contract.errors import DataError, ExitCode, InputError, ServiceError
from selfevo_contract.process import (
    CONFIG_ENV,
    CONFIG_FILE_ENV,
    PREFLIGHT_FILE_ENV,
    SHARD_ENV,
    TERMINATION_LOG_ENV,
    WORKDIR_ENV,
)
from selfevo_contract.rows import CURRICULUM, QUESTIONS
from selfevo_store import commit, fetch_rows, open_store, read_manifest
from selfevo_store.problems import ObjectNotFound

WRITING = Path(__file__).parents[2] / "examples" / "writing"
INPUT, SERVICE, DATA = int(ExitCode.INPUT), int(ExitCode.SERVICE), int(ExitCode.DATA)


class World:
    """A run of which one thing is about to be wrong."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.stack = stack
        self.step = "evaluate-0"
        self.shards = 1
        """Processes to start; the last one's end is checked."""
        self.spec: dict[str, Any] = {"rollout": {"shards": 1}}
        self.environment: dict[str, str] = {}
        self.questions = write_questions(folder / "heldout.jsonl", 4)
        self.store = folder / "store"

    @cached_property
    def base(self) -> Path:
        """A model of its own to break."""
        copy = Path(shutil.copytree(BASE, self.folder / "base"))
        self.over({"model": {"uri": f"file://{copy}", "digest": None}})
        return copy

    def over(self, spec: dict[str, Any]) -> None:
        self.spec = merged(self.spec, spec)

    def phases(self) -> Phases:
        over = settings(merged(settings({}, questions=self.questions), self.spec))
        return Phases(arithmetic(over, store=self.store), self.folder)

    def config(self, **changes: Any) -> None:
        """Tell the process another PhaseConfig: fields by their names on the wire."""
        self.environment[CONFIG_ENV] = json.dumps(
            {**json.loads(self.phases().environment(self.step)[CONFIG_ENV]), **changes}
        )

    def put_manifest(self, text: str) -> None:
        self.phases().store.put_bytes(f"{self.phases().prefix(self.step)}/MANIFEST.json", text.encode())

    def run(self) -> Ended:
        phases = self.phases()
        return [phases(self.step, shard, self.environment) for shard in range(self.shards)][-1]

    def committed(self) -> dict[str, bytes]:
        """The step's manifest, if there is one that can be read."""
        manifest = self.store / self.phases().prefix(self.step) / "MANIFEST.json"
        return {str(manifest): manifest.read_bytes()} if manifest.is_file() else {}


@dataclass(frozen=True)
class Case:
    """One thing that is wrong, and what the message must have."""

    arrange: Callable[[World], Any]
    code: int
    says: list[str]
    """Parts of the message; ``{folder}`` is the test's own folder."""
    reason: str = "InvalidInput"


def check(world: World, ended: Ended, code: int, reason: str, says: list[str]) -> None:
    """The contract of every failure."""
    result = ended.result
    message = result.message
    assert "Traceback" not in ended.log, ended.log
    assert (ended.code, result.exit_code, result.outcome, result.reason) == (code, code, "failed", reason), ended.log
    wanted = [part.format(folder=world.folder) for part in says]
    assert [part for part in wanted if part not in message] == [], message
    # What and which value, then the remedy.
    assert "\n" not in message and "; " in message and not message.endswith("."), message
    assert message.count("; ") <= 2 and len(message) < 700, message
    assert ended.log.strip().endswith(message)
    assert list((world.folder / "work").glob("*-*")) == []


def words_about_model(*says: str) -> list[str]:
    return ["spec.model.uri is 'file://{folder}/base'", *says]


def words_about_data(*says: str) -> list[str]:
    return ["spec.evaluation.tasks[0].data.uri is 'file://{folder}/heldout.jsonl'", *says]


def model_at(path: str) -> Callable[[World], None]:
    return lambda world: world.over({"model": {"uri": f"file://{world.folder}/{path}", "digest": None}})


def rid_of(*names: str) -> Callable[[World], None]:
    return lambda world: [(world.base / name).unlink() for name in names] and None


def pickled(world: World) -> None:
    (world.base / "model.safetensors").rename(world.base / "pytorch_model.bin")


def weights(change: Callable[[bytes], bytes]) -> Callable[[World], None]:
    def arrange(world: World) -> None:
        file = world.base / "model.safetensors"
        file.write_bytes(change(file.read_bytes()))

    return arrange


def sharded(world: World) -> None:
    (world.base / "model.safetensors").rename(world.base / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (world.base / "model.safetensors.index.json").write_text(json.dumps(index))


def wrong_digest(world: World) -> None:
    world.over({"model": {"uri": f"file://{world.base}", "digest": "d" * 64}})


def questions(text: str | bytes) -> Callable[[World], None]:
    def arrange(world: World) -> None:
        world.questions.write_bytes(text if isinstance(text, bytes) else text.encode())

    return arrange


def no_questions(world: World) -> None:
    world.questions.unlink()


def questions_are_a_folder(world: World) -> None:
    world.questions.unlink()
    world.questions.mkdir()


def questions_of_another_digest(world: World) -> None:
    data = {"uri": f"file://{world.questions}", "digest": "d" * 64}
    world.over({"evaluation": {"tasks": [{"name": "tiny", "data": data}]}})


def foreign_manifest(world: World) -> None:
    """Another step's output lies under this one's key."""
    phases = world.phases()
    give_curriculum(phases)
    text = phases.store.read_bytes(f"{phases.prefix('solver-rollout-1')}/MANIFEST.json").decode()
    world.put_manifest(text)


def configured(text: str) -> Callable[[World], None]:
    return lambda world: world.environment.__setitem__(CONFIG_ENV, text)


def configured_by_file(name: str, content: bytes | None = None) -> Callable[[World], None]:
    def arrange(world: World) -> None:
        if content is not None:
            (world.folder / name).write_bytes(content)
        world.environment[CONFIG_FILE_ENV] = str(world.folder / name)
        world.environment[CONFIG_ENV] = ""  # see `unset`

    return arrange


def in_config(**changes: Any) -> Callable[[World], None]:
    return lambda world: world.config(**changes)


def shard(value: str) -> Callable[[World], None]:
    def arrange(world: World) -> None:
        world.step = "solver-rollout-1"
        world.environment[SHARD_ENV] = value

    return arrange


def below_a_file(world: World) -> str:
    (world.folder / "file").write_text("")
    return f"{world.folder}/file/below"


def workdir_below_a_file(world: World) -> None:
    world.environment[WORKDIR_ENV] = below_a_file(world)


def store_below_a_file(world: World) -> None:
    world.store = Path(below_a_file(world))


def read_only_store(world: World) -> None:
    world.store = world.stack.enter_context(tmpfs(world.folder / "store", "ro,size=1m"))


FAST = {
    # the model
    "the model's folder is missing": Case(
        model_at("absent"), INPUT, ["spec.model.uri is 'file://{folder}/absent'", "no such folder", "correct it"]
    ),
    "the model's folder is a file": Case(
        model_at("heldout.jsonl"), INPUT, ["spec.model.uri is 'file://{folder}/heldout.jsonl'", "no such folder"]
    ),
    "the model's folder has no config.json": Case(
        rid_of("config.json"), INPUT, words_about_model("no config.json", "name a folder with a transformers model")
    ),
    "the weights are pickled": Case(
        pickled, INPUT, words_about_model("pickled (pytorch_model.bin)", "can run code", "save_pretrained")
    ),
    "there are no weights": Case(rid_of("model.safetensors"), INPUT, words_about_model("no *.safetensors")),
    "the weights are cut short": Case(
        weights(lambda data: data[:-1000]),
        INPUT,
        words_about_model("model.safetensors is not whole", "download it again"),
    ),
    "the weights' header is garbage": Case(
        weights(lambda data: data[:8] + b"x" * 200 + data[208:]),
        INPUT,
        words_about_model("model.safetensors is not whole"),
    ),
    "the weights' header is longer than the file": Case(
        weights(lambda data: b"\xff" * 8 + data[8:]), INPUT, words_about_model("model.safetensors is not whole")
    ),
    "the weights' file is empty": Case(
        weights(lambda data: b""), INPUT, words_about_model("model.safetensors is not whole")
    ),
    "a file of the weights is missing": Case(
        sharded, INPUT, words_about_model("lacks model-00002-of-00002.safetensors", "download it again")
    ),
    "the model has another digest": Case(
        wrong_digest, INPUT, ["spec.model.digest is dddddddddddd...", "file://{folder}/base", "correct the digest"]
    ),
    # data
    "the questions are missing": Case(no_questions, INPUT, words_about_data("No such file", "correct it")),
    "the questions are a folder": Case(questions_are_a_folder, INPUT, words_about_data("Is a directory", "correct it")),
    "the questions are not JSON": Case(
        questions('{"question": "1 + 1", "answer": "2"}\nquestion,answer\n'),
        INPUT,
        words_about_data("line 2 is not JSON", "one object a line"),
    ),
    "the questions are not text": Case(questions(b"\xff\xfe\x00\n"), INPUT, words_about_data("line 1 is not JSON")),
    "the questions lack a column": Case(
        questions('{"question": "1 + 1", "answer": "2"}\n{"question": "1 + 1", "label": "2"}\n'),
        INPUT,
        words_about_data("line 2 has no column 'answer'", "add it"),
    ),
    "a row of the questions is no object": Case(
        questions('["1 + 1", "2"]\n'), INPUT, words_about_data("line 1 has no column 'question'")
    ),
    "an answer is null": Case(
        questions('{"question": "1 + 1", "answer": null}\n'),
        INPUT,
        words_about_data("line 1 has null in column 'answer'", "write a string or a number"),
    ),
    "a question is empty": Case(
        questions('{"question": " ", "answer": 2}\n'), INPUT, words_about_data("line 1 has \" \" in column 'question'")
    ),
    "a question is half a character": Case(
        questions('{"question": "\\ud800", "answer": 2}\n'),
        INPUT,
        words_about_data("line 1 has", "in column 'question'"),
    ),
    "the questions are none": Case(
        questions("\n\n"), INPUT, words_about_data("holds no rows", "name a file with at least one")
    ),
    "the questions have another digest": Case(
        questions_of_another_digest,
        INPUT,
        ["spec.evaluation.tasks[0].data.digest is dddddddddddd...", "correct the digest"],
    ),
    # what lies in the store already
    "another step's manifest lies under the key": Case(
        foreign_manifest,
        INPUT,
        ["file://{folder}/store/default/evaluate/", "MANIFEST.json belongs to solver-rollout", "storage.uri"],
        "ForeignManifest",
    ),
    "something else lies under the manifest's name": Case(
        lambda world: world.put_manifest('{"cake": true}'),
        INPUT,
        ["MANIFEST.json", "is not a manifest of selfevo", "move it away"],
        "ForeignManifest",
    ),
    "the manifest is no JSON": Case(
        lambda world: world.put_manifest("\x00" * 100), INPUT, ["is not a manifest of selfevo"], "ForeignManifest"
    ),
    "the manifest is of a newer selfevo": Case(
        lambda world: world.put_manifest('{"schemaVersion": 99, "futureField": 1}'),
        INPUT,
        ["MANIFEST.json", "has schemaVersion 99", f"reads up to {SCHEMA_VERSION}", "upgrade selfevo"],
        "ManifestTooNew",
    ),
    # the configuration of the process
    "the PhaseConfig is of a newer selfevo": Case(
        in_config(schemaVersion=99),
        INPUT,
        ["schemaVersion is 99", f"knows up to {SCHEMA_VERSION}", "selfevo 0.", "spec.pods.image"],
    ),
    "the PhaseConfig is of an older selfevo": Case(
        in_config(schemaVersion=0), INPUT, ["schemaVersion is 0", "computes by version", "by its digest"]
    ),
    "the PhaseConfig is newer and has fields that nobody knows here": Case(
        in_config(schemaVersion=SCHEMA_VERSION + 1, futureField={"a": 1}), INPUT, ["newer spec.pods.image"]
    ),
    "the PhaseConfig has a field that is none": Case(
        in_config(checkpointEvry=3),
        INPUT,
        [CONFIG_ENV, "checkpointEvry is not a field", "'checkpointEvery'", "image, selfevo 0.", "operator"],
    ),
    "the PhaseConfig has a wrong type": Case(
        in_config(checkpointEvery="3"), INPUT, [CONFIG_ENV, 'checkpointEvery is "3"', "a duration such as 10m"]
    ),
    "the key is not that of the inputs": Case(
        in_config(key="a" * 64), INPUT, ["key is aaaaaaaaaaaa...", "digest of inputs", "bring both to the same"]
    ),
    "the PhaseConfig is not JSON": Case(configured("{"), INPUT, [CONFIG_ENV, "JSON"]),
    "the PhaseConfig is empty": Case(configured("{}"), INPUT, [CONFIG_ENV, "is missing"]),
    "the PhaseConfig is a list": Case(configured("[]"), INPUT, [CONFIG_ENV, "the document is []"]),
    "the PhaseConfig's file is missing": Case(
        configured_by_file("absent.json"),
        INPUT,
        [f"{CONFIG_FILE_ENV} is '{{folder}}/absent.json'", "No such file", "name a PhaseConfig"],
    ),
    "the PhaseConfig's file is not text": Case(
        configured_by_file("config.bin", b"\xff\xfe"), INPUT, [f"{CONFIG_FILE_ENV} is", "not UTF-8"]
    ),
    "there is no PhaseConfig": Case(
        lambda world: world.environment.__setitem__(CONFIG_ENV, ""), INPUT, ["no phase to run", CONFIG_ENV, "set"]
    ),
    "the shard is none of the step's": Case(shard("1"), INPUT, [f"{SHARD_ENV} is '1'", "spec.rollout.shards, 1"]),
    "the shard is no number": Case(shard("one"), INPUT, [f"{SHARD_ENV} is 'one'", "whole number"]),
    # disks
    "the working directory cannot be made": Case(
        workdir_below_a_file, INPUT, [f"{WORKDIR_ENV} is '{{folder}}/file/below'", "Not a directory", "name a folder"]
    ),
    "the store's folder cannot be made": Case(
        store_below_a_file, INPUT, ["storage.uri file://{folder}/file/below", "a file, not a folder"], "StoreInvalid"
    ),
    "the store is read-only": Case(
        read_only_store, INPUT, ["storage.uri file://{folder}/store", "read-only", "may write"], "StoreInvalid"
    ),
}


def tokenizer_without_end(world: World) -> None:
    config = json.loads((world.base / "tokenizer_config.json").read_text())
    del config["eos_token"]
    (world.base / "tokenizer_config.json").write_text(json.dumps(config))


def in_model_config(**changes: Any) -> Callable[[World], None]:
    def arrange(world: World) -> None:
        file = world.base / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return arrange


def in_file(name: str, **changes: Any) -> Callable[[World], None]:
    def arrange(world: World) -> None:
        file = world.base / name
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return arrange


def holding(name: str, content: str | bytes) -> Callable[[World], None]:
    def arrange(world: World) -> None:
        (world.base / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return arrange


def template(text: str, system: str = "") -> Callable[[World], None]:
    """The model's chat template, with a system message in the Solver's prompt."""

    def arrange(world: World) -> None:
        (world.base / "chat_template.jinja").write_text(text)
        world.over({"solver": {"prompt": {"system": system}}})

    return arrange


def more_tokens(world: World) -> None:
    file = world.base / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["vocab"]["zebra"] = 104  # vocab_size is 104
    file.write_text(json.dumps(content))


def judge(change: Callable[[Path], Any]) -> Callable[[World], None]:
    """A judge that is named, a copy of the example's, of which one thing is wrong."""

    def arrange(world: World) -> None:
        copy = Path(shutil.copytree(WRITING / "judge", world.folder / "judge"))
        change(copy)
        verifier = {
            "model": {"uri": f"file://{copy}"},
            "anchors": {"data": {"uri": f"file://{WRITING / 'anchors.jsonl'}"}},
            "maxLength": 64,
        }
        reward = {"reward": {"mode": "judged"}}
        world.over({"verifier": verifier, "challenger": reward, "solver": reward, "rollout": {"oracle": None}})
        world.step = "verifier-train-0"

    return arrange


def of_another_tokenizer(judge: Path) -> None:
    """Two tokens more than the 166 of its embedding."""
    content = json.loads((judge / "tokenizer.json").read_text())
    content["model"]["vocab"] |= {"zebra": 166, "okapi": 167}
    (judge / "tokenizer.json").write_text(json.dumps(content))


def another_end_token(judge: Path) -> None:
    file = judge / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "eos_token": "<|new|>"}))


def judge_with_learned_positions(judge: Path) -> None:
    from transformers import AutoTokenizer, GPT2Config, GPT2ForSequenceClassification

    size = len(AutoTokenizer.from_pretrained(judge))
    shape: dict[str, Any] = {"n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 40, "num_labels": 1}
    GPT2ForSequenceClassification(GPT2Config(vocab_size=size, **shape)).save_pretrained(judge)


def weights_with(value: float, where: slice | int = -1) -> Callable[[World], None]:
    def arrange(world: World) -> None:
        from safetensors.torch import load_file, save_file

        file = world.base / "model.safetensors"
        tensors = load_file(file)
        tensors["model.norm.weight"][where] = value
        save_file(tensors, file, metadata={"format": "pt"})

    return arrange


def rounded(world: World) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    file = world.base / "model.safetensors"
    save_file({name: value.to(torch.int8) for name, value in load_file(file).items()}, file, metadata={"format": "pt"})


def own_code(text: str) -> Callable[[World], None]:
    def arrange(world: World) -> None:
        (world.base / "modeling_own.py").write_text(text)
        world.spec["model"]["trustRemoteCode"] = True
        in_model_config(model_type="own", auto_map={"AutoConfig": "modeling_own.OwnConfig"})(world)

    return arrange


def learned_positions(world: World) -> None:
    """GPT-2 in small: 40 positions. The demo's answers take up to 32."""
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = {"vocab_size": 104, "n_embd": 16, "n_layer": 1, "n_head": 1, "bos_token_id": 1, "eos_token_id": 1}
    GPT2LMHeadModel(GPT2Config(n_positions=40, **shape)).save_pretrained(world.base)


def for_another_phase(world: World) -> None:
    """What only the Challenger's prompt meets, found by the evaluation that `selfevo run` begins with."""
    template("{{ raise_exception('too long') if messages[0].content|length > 100 }}{{ messages[-1].content }}")(world)
    world.over({"challenger": {"prompt": {"user": "Write a question. " * 10}}})
    preflighted(world, "challenger-train-1")


def preflighted(world: World, step: str) -> None:
    """What ``step`` reads is found by the evaluation that `selfevo run` begins with."""
    file = world.folder / "preflight.json"
    file.write_text(json.dumps([world.phases().step(step).inputs.wire()]))
    world.environment[PREFLIGHT_FILE_ENV] = str(file)


def finetune_on_held_out(world: World) -> None:
    world.over({"finetune": {"data": {"uri": f"file://{world.questions}"}}})
    preflighted(world, "finetune-0")


def criteria(text: str, anchors: str) -> Callable[[World], None]:
    """Of a judge with criteria, and its anchors."""

    def arrange(world: World) -> None:
        (world.folder / "criteria.json").write_text(text)
        (world.folder / "anchors.jsonl").write_text(anchors)
        criteria, data = ({"uri": f"file://{world.folder}/{name}"} for name in ("criteria.json", "anchors.jsonl"))
        rubric = {"criteria": [criteria], "model": "strong", "endpoint": {"url": "http://127.0.0.1:1"}}
        verifier = {"kind": "rubric", "rubric": rubric, "anchors": {"data": data}}
        reward = {"reward": {"mode": "judged"}}
        world.over({"verifier": verifier, "challenger": reward, "solver": reward, "rollout": {"oracle": None}})
        preflighted(world, "solver-rollout-1")

    return arrange


def oracle_without_answers(world: World) -> None:
    (world.folder / "oracle.jsonl").write_text('{"question": "1 + 1"}')
    oracle = {"kind": "data", "data": {"uri": f"file://{world.folder}/oracle.jsonl"}}
    world.over({"rollout": {"oracle": None}})
    world.over({"rollout": {"oracle": oracle}})
    preflighted(world, "solver-rollout-1")


def training(phase: str) -> Callable[[World], None]:
    return lambda world: setattr(world, "step", phase)


def exclusion_without_column(world: World) -> None:
    world.step = "challenger-train-1"
    world.questions.write_text('{"text": "1 + 1"}\n')


def damaged_curriculum(world: World) -> None:
    world.step = "solver-train-1"
    phases = world.phases()
    give_curriculum(phases)
    [file] = (world.store / phases.prefix("solver-rollout-1")).glob(f"attempts/*/{CURRICULUM.name}")
    file.write_bytes(file.read_bytes().replace(b"PAR1", b"PAR2"))


def damaged_row(world: World) -> None:
    world.step = "solver-train-1"
    phases = world.phases()
    rows = world.folder / CURRICULUM.lines.name  # as an older version wrote it
    made = ({"question": "1 + 1", "answer": answer, "share": 0.5} for answer in ("2", 3))
    rows.write_text("".join(json.dumps(row) + "\n" for row in made))
    draft = ManifestDraft(key=phases.step("solver-rollout-1").key, phase="solver-rollout", iteration=1)
    commit(phases.store, phases.prefix("solver-rollout-1"), {rows.name: rows}, draft)


def out_of_band(world: World) -> None:
    world.step = "solver-rollout-1"
    world.over({"challenger": {"grpo": {"maxSteps": 0}}, "rollout": {"samples": 7, "band": {"min": 0.99, "max": 0.99}}})


def too_few(world: World) -> None:
    world.step = "solver-rollout-1"
    world.over({"challenger": {"grpo": {"maxSteps": 0}}, "rollout": {"band": {"min": 0.0, "max": 1.0}}})
    world.over({"rollout": {"questions": 40, "minCurriculum": 40, "shards": 1}})


def never_valid(step: str) -> Callable[[World], None]:
    """Asked like a Solver, the model answers, and no question is to be seen."""

    def arrange(world: World) -> None:
        world.step = step
        world.over({"challenger": {"prompt": {"user": "37 + 48"}}})
        if step == "solver-rollout-1":
            world.over({"challenger": {"grpo": {"maxSteps": 0}}, "rollout": {"shards": 2}})
            world.shards = 2

    return arrange


def full_store(world: World) -> None:
    world.store = world.stack.enter_context(tmpfs(world.folder / "store", "size=1m"))
    fill(world.store)


def full_workdir(step: str, room: str, *, filled: bool = False, steps: int | None = None) -> Callable[[World], None]:
    def arrange(world: World) -> None:
        world.step = step
        workdir = world.stack.enter_context(tmpfs(world.folder / "scratch", f"size={room}"))
        world.environment[WORKDIR_ENV] = str(workdir)
        if steps is not None:
            world.over({"solver": {"grpo": {"maxSteps": steps}, "checkpointEvery": 1}})
        if step == "solver-train-1":
            give_curriculum(world.phases())
        if filled:
            (workdir / "somebody's").write_bytes(bytes(3 << 20))
        elif step != "solver-train-1":
            fill(workdir)

    return arrange


FULL = [f"{WORKDIR_ENV} is '{{folder}}/scratch'", "disk is full", "free space there"]

UNUSABLE = "the Challenger in training writes no valid question"

SLOW = {
    "the tokenizer has no end token": Case(
        tokenizer_without_end, INPUT, ["tokenizer in {folder}/base", "no eos_token", "tokenizer_config.json"]
    ),
    "the tokenizer is missing": Case(
        rid_of("tokenizer.json", "tokenizer_config.json"),
        INPUT,
        ["tokenizer in {folder}/base has no vocabulary", "add tokenizer.json"],
    ),
    "the model is an adapter": Case(
        lambda world: (world.base / "adapter_config.json").write_text("{}"),
        INPUT,
        ["spec.model.uri is 'file://{folder}/base', which is an adapter and no whole model", "fetch --merge"],
    ),
    "config.json is no JSON": Case(
        lambda world: (world.base / "config.json").write_text("{"), INPUT, words_about_model("config.json is not JSON")
    ),
    "nobody knows the architecture": Case(
        in_model_config(model_type="cake", architectures=["Cake"]), INPUT, ["{folder}/base", "cannot be loaded"]
    ),
    "the weights have other shapes than config.json says": Case(
        in_model_config(hidden_size=64), INPUT, ["the model in {folder}/base cannot be loaded", "other shapes"]
    ),
    # what a preflight finds, before anything is computed
    "the tokenizer knows more than the embedding": Case(
        more_tokens, INPUT, ["tokenizer in {folder}/base has id 104 ('zebra')", "104 rows", "belongs to the model"]
    ),
    "the end token is beyond the embedding": Case(
        in_file("tokenizer_config.json", eos_token="<|new|>"), INPUT, ["has id 104 (eos_token)", "104 rows"]
    ),
    "a judge of another tokenizer": Case(
        judge(of_another_tokenizer),
        INPUT,
        [
            "spec.verifier.model.uri is 'file://{folder}/judge': the tokenizer in {folder}/judge has id 167 ('okapi')",
            "166 rows",
            "take the tokenizer that belongs to the model",
        ],
    ),
    "a judge whose end token is beyond its embedding": Case(
        judge(another_end_token), INPUT, ["spec.verifier.model.uri is", "has id 166 (eos_token)", "166 rows"]
    ),
    "a judge that has learned too few positions": Case(
        judge(judge_with_learned_positions),
        INPUT,
        ["spec.verifier.model.uri is", "has learned 40 positions", "spec.verifier.maxLength is 64; lower"],
    ),
    "the template takes no system message": Case(
        template("{{ raise_exception('no system') if messages[0].role == 'system' }}{{ messages[0].content }}", "Hi."),
        INPUT,
        ["chat template", "{folder}/base", "(TemplateError: no system)", "move spec.solver.prompt.system into"],
    ),
    "the template leaves the system message out": Case(
        template("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", "Hi."),
        INPUT,
        ["leaves spec.solver.prompt.system out", "move it into spec.solver.prompt.user"],
    ),
    "the template wants alternation": Case(
        template(
            "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
            "{{ raise_exception('roles must alternate') }}{% endif %}{{ m.content }}{% endfor %}",
            "Hi.",
        ),
        INPUT,
        ["roles must alternate", "move spec.solver.prompt.system into spec.solver.prompt.user"],
    ),
    "the template is not Jinja": Case(
        template("{% for m in messages %}{{ m.content }"), INPUT, ["TemplateSyntaxError", "chat_template.jinja"]
    ),
    "the template is not text": Case(
        holding("chat_template.jinja", b"\xff\xfe"), INPUT, ["the tokenizer in {folder}/base cannot be loaded"]
    ),
    "the template renders nothing": Case(
        template("{# nothing #}"), INPUT, ["renders nothing of spec.solver.prompt", "chat_template.jinja"]
    ),
    "the template wants an image": Case(
        template(
            "{% for m in messages %}{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}"
            "{% endfor %}<|assistant|>{% endfor %}"
        ),
        INPUT,
        ["leaves spec.solver.prompt.user out", "takes plain text"],
    ),
    "learned positions are too few": Case(
        learned_positions, INPUT, ["learned 40 positions", "completions of 32 tokens", "lower ", "maxCompletionLength"]
    ),
    "a weight is NaN": Case(
        weights_with(float("nan")), INPUT, ["model.norm.weight in model.safetensors has NaN", "download them again"]
    ),
    "a weight is infinite": Case(weights_with(float("-inf")), INPUT, ["model.norm.weight", "NaN or infinity"]),
    "the end token's id is a string": Case(
        in_file("generation_config.json", eos_token_id="<|end|>"),
        INPUT,
        words_about_model('generation_config.json has eos_token_id "<|end|>"', "whole number"),
    ),
    "config.json's end token is a string": Case(
        in_file("config.json", eos_token_id=["<|end|>"]), INPUT, words_about_model("config.json has eos_token_id")
    ),
    "another phase's prompt cannot be rendered": Case(
        for_another_phase, INPUT, ["cannot render spec.challenger.prompt (TemplateError: too long)"]
    ),
    "labelled data are all held out": Case(
        finetune_on_held_out,
        INPUT,
        ["spec.finetune.data.uri is", "of its 4 rows none is left to train on: 4 repeat a held-out question"],
    ),
    "criteria are no list": Case(
        criteria('{"criteria": 3}', ""),
        INPUT,
        ["spec.verifier.rubric.criteria[0].uri is", "whose criteria are 3; write a list"],
    ),
    "anchors of a judge with criteria are cut short": Case(
        criteria('{"criteria": [{"name": "short", "description": "It is short."}]}', '{"question": "1 + 1"'),
        INPUT,
        ["spec.verifier.anchors.data.uri is", "whose line 1 is not JSON"],
    ),
    "an oracle's data have no answers": Case(
        oracle_without_answers,
        INPUT,
        ["spec.rollout.oracle.data.uri is", "whose line 1 has no column 'answer'; add it"],
    ),
    # siblings
    "generation_config.json is no JSON": Case(
        holding("generation_config.json", "{"), INPUT, words_about_model("generation_config.json is not JSON")
    ),
    "tokenizer_config.json is a list": Case(
        holding("tokenizer_config.json", "[]"), INPUT, words_about_model("tokenizer_config.json is not a JSON object")
    ),
    "tokenizer.json is cut short": Case(
        lambda world: (world.base / "tokenizer.json").write_text((world.base / "tokenizer.json").read_text()[:500]),
        INPUT,
        words_about_model("tokenizer.json is not JSON", "download it again"),
    ),
    "tokenizer.json is of no kind": Case(
        holding("tokenizer.json", '{"model": {"type": "Cake"}}'), INPUT, ["the tokenizer in {folder}/base cannot be"]
    ),
    "the weights are rounded to whole numbers": Case(
        rounded, INPUT, ["quantized: ", "in model.safetensors is of type I8", "that they were made from"]
    ),
    "config.json says that the weights are quantized": Case(
        in_model_config(quantization_config={"quant_method": "fp8"}), INPUT, words_about_model("quantization_config")
    ),
    "the model computes infinity": Case(
        weights_with(3e38, slice(None)),
        INPUT,
        ["{folder}/base computes NaN or infinity in float32", "spec.model.dtype"],
    ),
    "the model computes infinity of some tokens": Case(
        weights_with(3e38), INPUT, ["computes NaN or infinity", "nothing can be sampled", "set spec.model.dtype"]
    ),
    "the model's own code exits": Case(
        own_code("raise SystemExit(0)"), INPUT, ["{folder}/base cannot be loaded (SystemExit: 0)"]
    ),
    "the index is none": Case(
        holding("model.safetensors.index.json", '{"metadata": {}}'), INPUT, words_about_model("is not an index")
    ),
    "config.json has a dtype that is none": Case(
        in_model_config(dtype="float33"), INPUT, ["{folder}/base cannot be loaded", "check config.json"]
    ),
    "config.json has a word for a number": Case(
        in_model_config(num_hidden_layers="two"), INPUT, ["{folder}/base cannot be loaded", "num_hidden_layers", "str"]
    ),
    "config.json has a size that is none": Case(
        in_model_config(num_attention_heads=0), INPUT, ["{folder}/base cannot be loaded", "check config.json"]
    ),
    "config.json has another vocabulary": Case(
        in_model_config(vocab_size=50000), INPUT, ["{folder}/base cannot be loaded", "other shapes"]
    ),
    "config.json has a padding token beyond the vocabulary": Case(
        in_model_config(pad_token_id=104), INPUT, ["{folder}/base cannot be loaded", "check config.json"]
    ),
    "config.json names no architecture": Case(
        in_model_config(model_type=None, architectures=None), INPUT, ["{folder}/base cannot be loaded"]
    ),
    "the model is an encoder": Case(
        in_model_config(model_type="bert", architectures=["BertModel"]), INPUT, ["weights in {folder}/base lack"]
    ),
    "an exclusion lacks its column": Case(
        exclusion_without_column,
        INPUT,
        ["spec.exclude[0].uri is 'file://{folder}/heldout.jsonl'", "line 1 has no column 'question'"],
    ),
    "the curriculum is not there": Case(
        training("solver-train-1"),
        INPUT,
        ["file://{folder}/store/default/solver-rollout/", "MANIFEST.json does not exist", "run the step that makes it"],
    ),
    "the curriculum is damaged": Case(
        damaged_curriculum,
        INPUT,
        ["curriculum.parquet", "is damaged", "expected", "found", "to have it made again"],
        "CorruptArtifact",
    ),
    "a row of the curriculum is damaged": Case(
        damaged_row,
        INPUT,
        [
            "file 'curriculum.jsonl', line 2 has 3 in the field 'answer', which should be a valid string",
            "remove MANIFEST",
        ],
        "CorruptArtifact",
    ),
    "no question is in the band": Case(
        out_of_band,
        DATA,
        [
            "the curriculum is empty",
            "above_band",
            "below_band",
            "spec.rollout.band (0.99..0.99)",
            "spec.rollout.questions",
        ],
        "EmptyCurriculum",
    ),
    "the curriculum is smaller than it may be": Case(
        too_few,
        DATA,
        [
            "the curriculum is too small",
            "fewer than spec.rollout.minCurriculum 40",
            "or lower spec.rollout.minCurriculum",
        ],
        "EmptyCurriculum",
    ),
    UNUSABLE: Case(
        never_valid("challenger-train-1"),
        DATA,
        ["no valid question in 24 completions", "spec.challenger.prompt", "maxCompletionLength"],
        "NoValidQuestion",
    ),
    "the Challenger in a rollout writes no valid question": Case(
        never_valid("solver-rollout-1"),
        DATA,
        ["no valid question in 40 completions", "spec.challenger.prompt", "maxCompletionLength"],
        "NoValidQuestion",
    ),
    "the store's disk is full": Case(
        full_store, SERVICE, ["storage.uri file://{folder}/store", "the disk is full", "free space there"], "DiskFull"
    ),
    "the working directory's disk is full": Case(full_workdir("evaluate-0", "1m"), SERVICE, FULL, "DiskFull"),
    # 700 KB of weights, and 1.4 MB of AdamW's state in the first checkpoint.
    "the disk is too small for a checkpoint": Case(
        full_workdir("solver-train-1", "1500k"),
        INPUT,
        ["{folder}/scratch', on a disk of 0.0015", "a checkpoint of solver-train takes 0.002", "raise pods.scratch"],
        "DiskTooSmall",
    ),
    "the disk has no room for a checkpoint": Case(
        full_workdir("solver-train-1", "4m", filled=True),
        SERVICE,
        [*FULL, "of 0.00419 GB are free, and a checkpoint takes 0.002"],
        "DiskFull",
    ),
    "the disk fills up with a checkpoint's smaller files": Case(
        full_workdir("solver-train-1", "2000k", steps=2), SERVICE, FULL, "DiskFull"
    ),
}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(tmp_path, stack)


@pytest.fixture
def without_config(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty PhaseConfig stands for none: the process's environment is added to, not taken from."""
    import selfevo_trainer.main

    read = selfevo_trainer.main.read_config

    def without_empty() -> Any:
        if os.environ.get(CONFIG_ENV) == "":
            del os.environ[CONFIG_ENV]
        return read()

    monkeypatch.setattr(selfevo_trainer.main, "read_config", without_empty)


def wrong(world: World, case: Case) -> None:
    case.arrange(world)
    before = world.committed()
    ended = world.run()
    check(world, ended, case.code, case.reason, case.says)
    assert world.committed() == before


@pytest.mark.parametrize("name", FAST)
def test_what_is_wrong_is_one_sentence(name: str, world: World, without_config: None) -> None:
    wrong(world, FAST[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_what_is_wrong_and_shows_later_is_one_sentence_too(name: str, world: World) -> None:
    wrong(world, SLOW[name])
    place = world.phases().prefix(world.step) + "/failed"
    manifest = read_manifest(open_store(f"file://{world.store}"), place)
    assert (manifest is not None) == (name == UNUSABLE)
    if manifest is not None:  # what the Challenger wrote is kept for people
        rows = fetch_rows(open_store(f"file://{world.store}"), place, manifest, QUESTIONS)
        assert len(rows) == 8 and all(row.question is None and row.raw for row in rows)


@pytest.mark.slow
def test_what_shows_without_torch_does_not_wait_for_it(tmp_path: Path, world: World) -> None:
    FAST["the model's folder is missing"].arrange(world)
    program = (
        "import sys, selfevo_trainer.main as main; code = main.main();"
        "print(code, sorted({'torch', 'transformers', 'trl', 'boto3'} & set(sys.modules)))"
    )
    environment = {**os.environ, **world.phases().environment(world.step)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "2 []", done.stderr


@pytest.mark.slow
def test_the_process_ends_with_the_exit_code(world: World) -> None:
    environment = {**os.environ, **world.phases().environment(world.step), CONFIG_ENV: "{}"}
    done = subprocess.run([sys.executable, "-m", "selfevo_trainer"], env=environment, capture_output=True, text=True)
    result = json.loads(Path(environment[TERMINATION_LOG_ENV]).read_bytes())
    assert done.returncode == result["exitCode"] == 2
    assert done.stdout == "" and done.stderr.strip().endswith(result["message"])


def test_what_nobody_foresaw_is_reported_in_the_log_and_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    import selfevo_trainer.main

    def fails(*_: Any) -> None:
        raise ZeroDivisionError("a file called \udcff\nand a second line")

    monkeypatch.setattr(selfevo_trainer.main, "run_phase", fails)
    ended = world.run()
    assert (ended.code, ended.result.outcome, ended.result.reason) == (3, "failed", "Crashed")
    assert ended.result.message == "ZeroDivisionError: a file called ?"
    assert "Traceback" in ended.log


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (DataError("the curriculum is empty; widen spec.rollout.band", reason="EmptyCurriculum"), 4, "EmptyCurriculum"),
        (InputError("spec.x is 1; make it 2"), 2, "InvalidInput"),
        # Tried again in any case, or an error that somebody was dealing with.
        (ServiceError("the store does not answer; try again"), 143, "Terminated"),
        (ObjectNotFound("there is no such object"), 143, "Terminated"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_failure_is_reported_as_what_it_is_though_sigterm_comes_while_it_is_cleared_away(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, reason: str
) -> None:
    import selfevo_trainer.main

    def fails(*_: Any) -> None:
        try:
            raise error
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.001)  # where Python checks for it

    monkeypatch.setattr(selfevo_trainer.main, "run_phase", fails)
    ended = world.run()
    assert (ended.code, ended.result.reason) == (code, reason)
    if code != 143:
        assert ended.result.message == str(error)


def test_sigterm_after_the_end_of_a_phase_changes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import selfevo_trainer.main
    from selfevo_trainer.distributed import root_cause

    original = root_cause.failure

    def late(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.001)
        return original(*arguments)

    def fails(*_: Any) -> None:
        raise DataError("the curriculum is empty; widen spec.rollout.band", reason="EmptyCurriculum")

    monkeypatch.setattr(selfevo_trainer.main, "run_phase", fails)
    monkeypatch.setattr(root_cause, "failure", late)
    assert (world.run().code, world.run().result.reason) == (4, "EmptyCurriculum")


# --- an object store on the network -----------------------------------------------------------------------------------


def s3(world: World, server: S3Server, **storage: Any) -> None:
    world.over(
        {"storage": {"uri": "s3://no-such-bucket/runs", "endpoint": server.endpoint, "region": REGION, **storage}}
    )


def test_a_missing_bucket_is_one_sentence(world: World, s3_server: S3Server) -> None:
    s3(world, s3_server)
    says = ["storage.uri s3://no-such-bucket/runs", "no bucket 'no-such-bucket'", s3_server.endpoint, "create it"]
    check(world, world.run(), INPUT, "BucketNotFound", says)


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_are_one_sentence(world: World, s3_server: S3Server, name: str) -> None:
    bucket = s3_server.make_bucket()
    s3(world, s3_server, uri=f"s3://{bucket}/runs")
    world.environment[name] = "mistyped"
    says = [f"storage.uri s3://{bucket}/runs", "refused the credentials", "check AWS_ACCESS_KEY_ID"]
    check(world, world.run(), INPUT, "StoreCredentials", says)
    assert s3_server.client.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_missing_credentials_are_one_sentence(
    world: World, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3(world, s3_server)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    says = ["storage.uri s3://no-such-bucket/runs", "no credentials found", "storage.credentialsSecret"]
    check(world, world.run(), INPUT, "StoreCredentials", says)


@pytest.mark.slow  # a store that does not answer is asked four times
def test_an_unreachable_endpoint_is_one_sentence_and_tried_again(world: World, s3_server: S3Server) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    s3(world, s3_server, endpoint=endpoint)
    says = [f"storage.endpoint {endpoint}", "not reachable", "Connection refused", "check the address"]
    check(world, world.run(), SERVICE, "StoreUnreachable", says)


# --- a model that breaks while it learns ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("error", [None, RuntimeError("probability tensor contains either `inf`, `nan`")])
def test_training_that_ends_in_nan_is_bad_data_however_it_shows(error: Exception | None) -> None:
    from types import SimpleNamespace

    import torch

    from selfevo_contract.errors import DataError
    from selfevo_trainer.grpo.resuming import _train

    model = torch.nn.Linear(2, 2)
    torch.nn.init.constant_(model.bias, float("nan"))

    def train(resume_from_checkpoint: str | None) -> None:
        if error is not None:
            raise error

    with pytest.raises(DataError, match=r"training made bias infinite or NaN; lower learningRate") as caught:
        _train(SimpleNamespace(model=model, train=train), None, SimpleNamespace(stopping=False))
    assert caught.value.reason == "NotFinite"


@pytest.mark.slow
def test_weights_that_become_nan_are_seen_after_that_step(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    steps: list[int] = []

    def diverges(self: Any, closure: Any = None) -> None:
        steps.append(1)
        for group in self.param_groups:
            group["params"][0].data.fill_(float("nan"))

    world.step = "solver-train-1"
    give_curriculum(world.phases())
    monkeypatch.setattr(torch.optim.AdamW, "step", diverges)
    check(world, world.run(), DATA, "NotFinite", ["training made ", "infinite or NaN", "lower learningRate"])
    assert len(steps) == 1  # of three


def test_what_a_later_phase_reads_is_read_by_one_step_of_the_run_until_it_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    from selfevo_trainer.inputs import preflight

    context: Any = SimpleNamespace(cache_dir=tmp_path / "cache")
    monkeypatch.setattr(preflight, "input_key", lambda inputs: inputs)
    asked: list[str] = []

    def look(inputs: Any, what: str, error: Exception | None = None) -> None:
        def check() -> None:
            asked.append(f"{what} of {inputs}")
            if error is not None:
                raise error

        preflight._once(context, inputs, what, check)

    with pytest.raises(InputError):
        look("a", "criteria", InputError("damaged"))
    for _ in range(2):
        look("a", "criteria")
        look("a", "anchors")
        look("b", "criteria")
    assert asked == ["criteria of a", "criteria of a", "anchors of a", "criteria of b"]
