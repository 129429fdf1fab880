"""A run's manifest: read, checked, its places resolved, its inputs pinned by digest.

Everything that a person can get wrong here is one sentence with the file, the line, the value and the remedy.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

import yaml
from pydantic import TypeAdapter, ValidationError

from selfevo.digest_cache import DigestCache
from selfevo.local.workdir import RunFolder
from selfevo_contract.artifacts import MANIFEST_NAME
from selfevo_contract.digests import model_digest
from selfevo_contract.errors import InputError
from selfevo_contract.explain import explain
from selfevo_contract.run import KIND, SelfEvolutionRun, refuse_what_is_not_built
from selfevo_contract.sizing.layout import laid_out
from selfevo_contract.spec.data import Data
from selfevo_contract.spec.model import Model
from selfevo_contract.spec.oracles import DataOracle
from selfevo_contract.spec.run import RunSpec
from selfevo_contract.spec.storage import Storage
from selfevo_contract.spec.verifier import RewardModel, Verifier
from selfevo_contract.uris import StoreUri

AnyModel = TypeVar("AnyModel", Model, RewardModel)
Read = TypeVar("Read")

STDIN = Path("-")
"""Named as a manifest, standard input."""


class _Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it, where PyYAML differs: 1e-6 is a number, a date is a string, no key comes twice."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":float", ":timestamp"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[str, yaml.Node] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    first = seen[key.value].start_mark.line + 1
                    raise yaml.MarkedYAMLError(
                        problem=f"{key.value!r} is here and in line {first}; keep one of them",
                        problem_mark=key.start_mark,
                    )
                seen[key.value] = key
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(\d+\.\d*([eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.\d+([eE][-+]?\d+)?|\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def runs_in(path: Path) -> list[str | None]:
    """Which runs to `load` from a manifest, one after another: their names, or None for the only one.

    Raises:
        InputError: one of several has no name of its own.
    """
    if path == STDIN:  # it can be read once
        return [None]
    runs = [document for document in _documents(path) if _is_run(document[0])]
    if len(runs) < 2:
        return [None]
    names = [_validate(path, document).metadata.name for document in runs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path} holds two runs named {twice}; give each a metadata.name of its own")
    return list(names)


def load(
    path: Path, *, name: str | None = None, storage: str | None = None, cache: Path | None = None
) -> SelfEvolutionRun:
    """The run that the manifest at ``path`` describes.

    ``file:`` URIs are taken from the manifest's folder and made absolute. A model or data file on this machine without
    a digest gets one, so that keys follow the content: an edited file is another input, a moved one is the same. What
    `layout: auto` comes to is filled in.

    Args:
        path: A YAML or JSON file with a SelfEvolutionRun; ``-`` is standard input, in the current folder.
        name: Which one is meant, where the file holds several.
        storage: Replaces ``spec.storage.uri``: a URI, or a path from the current folder.
        cache: The working folder, in which digests of large files are remembered, and what was chosen.

    Raises:
        InputError: one line for each thing that is wrong, or the one that this version cannot do yet.
    """
    run = _validate(path, _only_run(path, _documents(path), name))
    refuse_what_is_not_built(run.spec)
    folder = path.resolve().parent
    digests = DigestCache(cache)
    spec = run.spec
    evaluation = spec.evaluation
    if evaluation is not None:
        tasks = [
            task.model_copy(update={"data": _data(task.data, folder, f"spec.evaluation.tasks[{n}].data", digests)})
            for n, task in enumerate(evaluation.tasks)
        ]
        evaluation = evaluation.model_copy(update={"tasks": tasks})
    finetune = spec.finetune
    if finetune is not None:
        finetune = finetune.model_copy(update={"data": _data(finetune.data, folder, "spec.finetune.data", digests)})
    publish = spec.publish and spec.publish.model_copy(update={"to": _absolute(spec.publish.to, folder)})
    verifier = spec.verifier and _verifier(spec.verifier, folder, digests)
    oracle = spec.rollout.oracle
    if isinstance(oracle, DataOracle):
        oracle = oracle.model_copy(update={"data": _data(oracle.data, folder, "spec.rollout.oracle.data", digests)})
    uri = _absolute(spec.storage.uri, folder) if storage is None else _storage_option(storage)
    changes = {
        "model": _model(spec.model, folder, "spec.model", digests),
        "storage": spec.storage.model_copy(update={"uri": uri}),
        "rollout": spec.rollout.model_copy(update={"oracle": oracle}),
        "evaluation": evaluation,
        "finetune": finetune,
        "publish": publish,
        "verifier": verifier,
        "exclude": [_data(data, folder, f"spec.exclude[{n}]", digests) for n, data in enumerate(spec.exclude)],
    }
    digests.save()
    return _laid_out(run.model_copy(update={"spec": spec.model_copy(update=changes)}), cache)


def _laid_out(run: SelfEvolutionRun, workdir: Path | None) -> SelfEvolutionRun:
    """With `layout: auto` as it is recorded in ``workdir`` of the same model and pods, or chosen now."""
    known = RunFolder(workdir, run.metadata).read() if run.spec.layout and workdir else None
    record = known.status if known is not None and _room_of(known.spec) == _room_of(run.spec) else None
    laid = laid_out(run.model_copy(update={"status": record}))
    return run.model_copy(update={"spec": laid.spec})


def _room_of(spec: RunSpec) -> tuple[object, ...]:
    return spec.model, spec.pods, spec.challenger.pods, spec.solver.pods


def read_document(path: Path) -> dict[str, Any]:
    """The manifest as it is written, when it is right: nothing resolved, pinned or filled in.

    Raises:
        InputError: one line for each thing that is wrong.
    """
    value, node = _only_run(path, _documents(path))
    run = _validate(path, (value, node))
    refuse_what_is_not_built(run.spec)
    document: dict[str, Any] = value
    return document


def read_yaml(text: str) -> Any:
    """A value as it would be read in a manifest.

    Raises:
        ValueError: it is not YAML.
    """
    try:
        return next(_construct(text), None)
    except yaml.YAMLError as error:
        raise ValueError(getattr(error, "problem", None) or str(error).splitlines()[0]) from None


def name_of(path: Path) -> tuple[str, str | None]:
    """The name and, where it is written, the namespace of the manifest's run. Nothing else of it is checked.

    Raises:
        InputError: the file is no manifest of a run.
    """
    value, _ = _only_run(path, _documents(path))
    metadata = value.get("metadata") if isinstance(value, dict) and value.get("kind") == KIND else None
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(metadata, dict) or not isinstance(name, str):
        raise InputError(f"{path} holds no {KIND} with a metadata.name; name the manifest of a run")
    namespace = metadata.get("namespace")
    return name, namespace if isinstance(namespace, str) else None


# --- the file ---------------------------------------------------------------------------------------------------------


def _documents(path: Path) -> list[tuple[Any, yaml.Node | None]]:
    """Every document of the file, with its positions where there are any."""
    try:
        text = sys.stdin.buffer.read().decode() if path == STDIN else path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; name the manifest of a run") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; name the manifest of a run") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not text in UTF-8; name the manifest of a run") from None
    try:
        if path.suffix == ".json":
            return [(json.loads(text, object_pairs_hook=_no_duplicates), None)]
        nodes = list(yaml.compose_all(text, _Loader))
        return [(value, node) for value, node in zip(_construct(text), nodes, strict=True) if value is not None]
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not JSON: {error.msg}; correct it") from None
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        remedy = "" if "; " in str(error.problem) else "; correct the YAML"
        raise InputError(f"{path}{line}: {error.problem}{remedy}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path}: {str(error).splitlines()[0]}; correct it") from None
    except RecursionError:
        raise InputError(f"{path} is nested too deeply; name the manifest of a run") from None


def _construct(text: str) -> Iterator[Any]:
    loader: Any = _Loader(text)
    try:
        while loader.check_data():
            yield loader.get_data()
    finally:
        loader.dispose()


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r} is there twice; keep one of them")
        found[name] = value
    return found


def _is_run(value: Any) -> bool:
    return isinstance(value, dict) and value.get("kind") == KIND


def _only_run(
    path: Path, documents: list[tuple[Any, yaml.Node | None]], name: str | None = None
) -> tuple[Any, yaml.Node | None]:
    if not documents:
        raise InputError(f"{path} is empty; write a {KIND} into it")
    runs = [pair for pair in documents if _is_run(pair[0])]
    if name is not None:
        runs = [pair for pair in runs if pair[0]["metadata"]["name"] == name]
    if len(runs) == 1:
        return runs[0]
    if len(documents) == 1:
        return documents[0]  # validation says what it is instead
    found = "no" if not runs else str(len(runs))
    raise InputError(f"{path} holds {found} {KIND} in {len(documents)} documents; this command takes exactly one")


def _validate(path: Path, document: tuple[Any, yaml.Node | None]) -> SelfEvolutionRun:
    value, node = document
    if not isinstance(value, dict):
        raise InputError(f"{path} holds {type(value).__name__}; write a {KIND}: apiVersion, kind, metadata, spec")
    try:
        return SelfEvolutionRun.model_validate(value)
    except ValidationError as error:
        places = [_line(node, detail["loc"]) for detail in error.errors(include_url=False, include_input=False)]
        sentences = explain(error, SelfEvolutionRun)
        lines = [f"{path}{place}: {sentence}" for place, sentence in zip(places, sentences, strict=True)]
        raise InputError("\n".join(lines)) from None


def _line(node: yaml.Node | None, loc: tuple[int | str, ...]) -> str:
    """``:12``, the line of the innermost part of ``loc`` that the document has."""
    if node is None:
        return ""
    mark = node.start_mark
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            entry = next(((key, value) for key, value in node.value if key.value == part), None)
            if entry is None:
                continue  # a union's tag, or a field that is missing
            mark, node = entry[0].start_mark, entry[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            mark = node.start_mark
    return f":{mark.line + 1}"


# --- places and digests -----------------------------------------------------------------------------------------------


def _absolute(uri: str, folder: Path, *, quoted: bool = True) -> str:
    """``file:base`` -> ``file:///work/examples/base``. Other URIs are as they should be."""
    if not uri.startswith("file:") or uri.startswith("file:///"):
        return uri
    return _file_uri(folder / uri.removeprefix("file:"), quoted=quoted)


def _file_uri(path: Path, *, quoted: bool) -> str:
    # The store reads %41 as A; models and data are opened by the path as it stands.
    text = str(path.resolve())
    return f"file://{text.replace('%', '%25') if quoted else text}"


def store_of(place: str) -> Storage:
    """The store that stands alone on a command line: s3://, file:///, or a folder that is there.

    Raises:
        InputError: it is none, or there is no such folder.
    """
    uri = _storage_option(place, "STORE")
    if not uri.startswith("file:"):
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return Storage(uri=uri).model_copy(update={"endpoint": endpoint})
    if not Path(unquote(uri.removeprefix("file://"))).is_dir():
        raise InputError(f"STORE is {place!r}, and there is no such folder; correct it")
    return Storage(uri=uri)


def _storage_option(value: str, option: str = "--storage") -> str:
    if not value:
        raise InputError(f"{option} is empty; write it as s3://<bucket>/<prefix>, or as a path")
    uri = value if "://" in value else _file_uri(Path(value.removeprefix("file:")).expanduser(), quoted=True)
    try:
        return TypeAdapter(StoreUri).validate_python(uri)
    except ValidationError as error:
        why = str(error.errors()[0].get("ctx", {}).get("error", "write it as s3://<bucket>/<prefix>, or as a path"))
        raise InputError(f"{option} is {value!r}; {why}") from None


def _verifier(verifier: Verifier, folder: Path, digests: DigestCache) -> Verifier:
    model = verifier.model and _model(verifier.model, folder, "spec.verifier.model", digests)
    anchors, rubric = verifier.anchors, verifier.rubric
    if anchors is not None:
        data = _data(anchors.data, folder, "spec.verifier.anchors.data", digests)
        anchors = anchors.model_copy(update={"data": data})
    if rubric is not None:
        field = "spec.verifier.rubric.criteria"
        criteria = [_criteria(data, folder, f"{field}[{n}]", digests) for n, data in enumerate(rubric.criteria)]
        rubric = rubric.model_copy(update={"criteria": criteria})
    return verifier.model_copy(update={"anchors": anchors, "model": model, "rubric": rubric})


def _model(model: AnyModel, folder: Path, field: str, digests: DigestCache) -> AnyModel:
    uri = _absolute(model.uri, folder, quoted=False)
    if not uri.startswith("file://") or model.digest is not None:
        return model.model_copy(update={"uri": uri})
    place = Path(uri.removeprefix("file://"))
    written = f"{field}.uri is {model.uri!r}"
    if not place.is_dir():
        raise InputError(f"{written}{_relative_hint(model.uri)}, and there is no folder {place}; correct it")
    if (place / MANIFEST_NAME).is_file():  # a step's output: its address holds the key of all that made it
        return model.model_copy(update={"uri": uri})
    if not (place / "config.json").is_file():
        raise InputError(f"{written}, and {place} holds no config.json; name a folder with a transformers model")
    return model.model_copy(update={"uri": uri, "digest": _explained(written, lambda: model_digest(place, digests.of))})


def _data(data: Data, folder: Path, field: str, digests: DigestCache) -> Data:
    uri = _absolute(data.uri, folder, quoted=False)
    if not uri.startswith("file://") or data.digest is not None:
        return data.model_copy(update={"uri": uri})
    place = Path(uri.removeprefix("file://"))
    written = f"{field}.uri is {data.uri!r}"
    if not place.is_file():
        raise InputError(f"{written}{_relative_hint(data.uri)}, and there is no file {place}; correct it")
    return data.model_copy(update={"uri": uri, "digest": _explained(written, lambda: digests.of(place))})


def _criteria(data: Data, folder: Path, field: str, digests: DigestCache) -> Data:
    """A file without a digest is parsed; a digest may be of another machine's file, so that one is not."""
    found = _data(data, folder, field, digests)
    if found.digest != data.digest:
        from selfevo_trainer.inputs.criteria import parse_criteria

        written = f"{field}.uri is {data.uri!r}"
        parse_criteria(_explained(written, Path(found.uri.removeprefix("file://")).read_bytes), written)
    return found


def _relative_hint(uri: str) -> str:
    """What to know of a relative path that leads nowhere: the manifest may have been copied without what it names."""
    return "" if uri.startswith("file:///") else ", a path from the manifest's folder"


def _explained(written: str, read: Callable[[], Read]) -> Read:
    try:
        return read()
    except OSError as error:
        raise InputError(f"{written}, and {error.filename} cannot be read: {error.strerror}") from None
