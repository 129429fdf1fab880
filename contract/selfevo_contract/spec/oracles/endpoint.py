"""A stronger model behind an OpenAI-compatible address."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from selfevo_contract import uris
from selfevo_contract.base import Closed, Whole
from selfevo_contract.rules import Rule
from selfevo_contract.spec.engines.server import TokenSecret
from selfevo_contract.spec.prompts import Prompt

SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."


class EndpointOracle(Closed):
    """A model behind an OpenAI-compatible address, which is asked for the answers to a sample of each curriculum and
    votes. What it says is not the truth, and nothing is trained on it."""

    exact: ClassVar[bool] = False

    kind: Literal["endpoint"]
    """Which oracle."""
    url: uris.Endpoint
    """The server's address; what is asked lies under /v1/chat/completions of it."""
    model: Annotated[str, Field(min_length=1, max_length=1024)]
    """The name by which the server knows the model."""
    token_secret: TokenSecret | None = None
    """Where the token lies that it asks for; on one machine the variable SELFEVO_ORACLE_TOKEN holds it."""
    questions: Annotated[Whole, Field(ge=1, le=1_000_000)] = 200
    """Questions of each curriculum that it is asked, drawn at random; all when there are fewer."""
    samples: Annotated[Whole, Field(ge=1, le=256)] = 4
    """Answers to each of them. A question counts where more than half of them agree."""
    seed: Annotated[Whole, Field(ge=0, le=2**31 - 1)] = 0
    """Draws another sample of questions, and other answers of a server that heeds seeds."""
    prompt: Prompt = Prompt(system=SYSTEM, user="{question}")
    """What it is asked; the answer is read from the last box. For mathematics when not given."""
    max_completion_length: Annotated[Whole, Field(ge=1, le=1_048_576)] = 8192
    """Tokens of an answer at most."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.6
    """Sampling temperature; at 0 one sample says as much as many."""
    request_timeout: Annotated[Whole, Field(ge=1, le=86400)] = 600
    """Seconds for one answer; a request that takes longer is made again."""
    patience: Annotated[Whole, Field(ge=1, le=86400)] = 900
    """Seconds for which one answer is asked for again and again; then the server is taken to be down."""
    max_concurrency: Annotated[Whole, Field(ge=1, le=4096)] = 32
    """Requests under way at once."""
    required: bool = True
    """Whether a rollout fails without it: what was generated is kept, and the step is tried again. When false, label
    accuracy is missing from that iteration and the log says why."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.url) && has(self.model)",
            lambda oracle: True,  # they have no default
            "an endpoint needs url and model; put both",
        ),
        Rule(
            "!has(self.prompt) || self.prompt.user.contains('{question}')",
            lambda oracle: "{question}" in oracle.prompt.user,
            "prompt.user never shows the question; put {question} into it",
        ),
    )
