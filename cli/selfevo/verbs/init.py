"""`selfevo init`: a manifest for a model on this machine, with what the model's own files say."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from selfevo_contract.errors import InputError

_DTYPES = ("float32", "bfloat16", "float16")
_WINDOW = ("max_position_embeddings", "n_positions", "n_ctx", "seq_length")
_COMPLETION = 1024
"""Tokens of a completion where the window has room for more."""
_LARGE = 3e9
"""Bytes of weights from which on a batch is cut smaller."""

_MANIFEST = """\
# {title}
#
#     selfevo plan {file}      # what would be done
#     selfevo run {file}
#
# `selfevo explain FIELD` says what a field means, e.g. `selfevo explain solver.grpo.learningRate`.
apiVersion: selfevo.dev/v1alpha1
kind: SelfEvolutionRun
metadata:
  name: {name}
spec:
  iterations: 3
  model:
    uri: {uri}
    dtype: {dtype}{dtype_remark}{code}
  storage:
    uri: file:.selfevo/store       # beside this file; or s3://<bucket>/<prefix>

  # Prompts are left out: the defaults are R-Zero's in our words (`selfevo explain challenger.prompt`).
  # {template}
  challenger:
    grpo:
      promptsPerStep: 16
      numGenerations: 4
      perDeviceTrainBatchSize: {batch}   # lower it when memory runs out
      maxCompletionLength: {completion}{window}
      gradientCheckpointing: true
    engine: {{kind: transformers, batchSize: 64}}

  rollout:
    questions: 400                 # the paper: 8000
    samples: 10
    engine: {{kind: transformers, batchSize: 64}}

  solver:
    grpo:
      promptsPerStep: 16
      numGenerations: 4
      perDeviceTrainBatchSize: {batch}
      maxCompletionLength: {completion}
      gradientCheckpointing: true

  # Your own held-out questions, JSON lines with the columns question and answer: without them no iteration has a score,
  # and the last one counts as the best. They are kept out of the curriculum. (`selfevo data ls` lists published ones.)
  # evaluation:
  #   tasks:
  #     - name: held-out
  #       data: {{uri: file:heldout.jsonl}}
"""


@dataclass(frozen=True)
class Found:
    """What a model's folder says."""

    folder: Path
    kind: str
    """``model_type`` of config.json."""
    dtype: str | None
    window: int | None
    """Tokens of prompt and completion together."""
    template: bool
    """Whether there is a chat template."""
    weights: int
    """Bytes."""
    code: bool
    """Whether the model brings code of its own along."""


def init(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder with config.json and *.safetensors.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The manifest to write; standard output by default."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the run; made of the folder's by default.")
    ] = None,
) -> None:
    """Write a manifest for a model on this machine, to be read and changed."""
    if "://" in model:
        raise InputError(f"{model} is an address, and `selfevo init` reads files; download it and name the folder")
    text = manifest_for(read_model_folder(Path(model)), name, output)
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(f"-o {output} is there already; name a new file or remove it") from None
    except OSError as error:
        raise InputError(f"-o {output} cannot be written: {error.strerror}; name a file that you may write") from None
    typer.echo(f"wrote {output}; `selfevo plan {output}` shows what it does")


def read_model_folder(folder: Path) -> Found:
    """What ``folder`` holds.

    Raises:
        InputError: it is no model that this version can train.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; name one with config.json, *.safetensors and a tokenizer")
    config = _json(folder / "config.json")
    if config is None:
        raise InputError(f"{folder} holds no config.json; name a folder with a transformers model")
    weights = [file.stat().st_size for file in folder.glob("*.safetensors")]
    if not weights:
        raise InputError(f"{folder} holds no *.safetensors; save the model with save_pretrained, pickles are refused")
    tokenizer = _json(folder / "tokenizer_config.json") or {}
    text = config.get("text_config")
    inner: Mapping[str, Any] = {**config, **text} if isinstance(text, dict) else config
    window = next((inner[key] for key in _WINDOW if isinstance(inner.get(key), int) and inner[key] > 0), None)
    dtype = str(inner.get("dtype") or inner.get("torch_dtype") or "").removeprefix("torch.")
    return Found(
        folder=folder.resolve(),
        # It goes into a comment: a line end in it would end the comment.
        kind=re.sub(r"[^\w.-]+", "-", str(config.get("model_type") or "unknown"))[:60],
        dtype=dtype if dtype in _DTYPES else None,
        window=window,
        template=bool(tokenizer.get("chat_template")) or (folder / "chat_template.jinja").is_file(),
        weights=sum(weights),
        code="auto_map" in config,
    )


def manifest_for(found: Found, name: str | None, output: Path | None) -> str:
    """The manifest's text. Pure.

    Raises:
        InputError: ``name`` or the folder's path cannot stand in a manifest.
    """
    from pydantic import TypeAdapter, ValidationError

    from selfevo_contract.spec.names import DnsLabel
    from selfevo_contract.uris import ModelUri

    called = _label(found.folder.name) if name is None else name
    uri = f"file://{found.folder}"
    for what, value, kind in (("--name", called, DnsLabel), ("MODEL", uri, ModelUri)):
        try:
            TypeAdapter(kind).validate_python(value)
        except ValidationError as error:
            why = error.errors()[0].get("ctx", {}).get("error") or error.errors()[0]["msg"]
            raise InputError(f"{what} is {value!r}; {why}") from None
    completion = _COMPLETION if found.window is None else max(1, min(_COMPLETION, found.window // 2))
    template = (
        "A chat template is there and is used." if found.template else "No chat template is there: text is plain."
    )
    return _MANIFEST.format(
        title=f"Self-evolution of {found.folder.name}, a {found.kind} model of {found.weights / 1e9:.2g} GB.",
        file=output or "run.yaml",
        name=called,
        uri=json.dumps(uri, ensure_ascii=False),
        dtype=found.dtype or "bfloat16",
        dtype_remark="" if found.dtype else "                # config.json says none; float32 without a GPU",
        code="\n    # It brings code of its own along. Read it, then: trustRemoteCode: true" if found.code else "",
        template=template,
        batch=4 if found.weights > _LARGE else 16,
        completion=completion,
        window="" if found.window is None else f"      # the window is {found.window}",
    )


def _label(text: str) -> str:
    """``Qwen3-4B_Base`` -> ``qwen3-4b-base``."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].strip("-") or "run"


def _json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no JSON"
        raise InputError(f"{path} cannot be read: {why}; mend the model's folder") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no JSON object; mend the model's folder")
    return value
