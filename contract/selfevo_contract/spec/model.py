"""The base model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from selfevo_contract.base import Closed, Sha256
from selfevo_contract.uris import ModelUri

StopToken = Annotated[str, Field(min_length=1, max_length=256)]


class Model(Closed):
    """The base model: both roles start from it, each with weights of its own."""

    uri: ModelUri
    """Where it lies: hf://owner/model@revision, s3://bucket/prefix, file:///path, or file:path beside the manifest."""
    digest: Sha256 | None = None
    """sha256 over the model's files (`selfevo artifacts digest`); when given it is checked, and it identifies the
    model in place of the URI, so that the same weights at another place share every step."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Type of the weights in training and generation."""
    trust_remote_code: bool = False
    """Run Python code that the model's repository brings along."""
    stop_tokens: Annotated[list[StopToken], Field(max_length=16)] | None = None
    """Tokens that end an answer beside those that the model declares, in training, rollout and evaluation. When not
    given, the chat template's end of turn where that is one token: base models often declare the end of a document
    only, and would go on with turns that nobody asked for. An empty list leaves it at what is declared."""
