"""The frozen roles of a verifier-train phase, as they are asked to write answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any

from selfevo_contract.canonical import derive_seed
from selfevo_contract.judging import WRITTEN_ANSWERS, WrittenAnswer
from selfevo_contract.phases import VerifierTrainInputs
from selfevo_trainer.context import Context
from selfevo_trainer.engines import Engine
from selfevo_trainer.inputs.frozen import open_frozen
from selfevo_trainer.inputs.model_files import fetch_model
from selfevo_trainer.models.loading import load_tokenizer
from selfevo_trainer.pairs import kept
from selfevo_trainer.pairs.base import Writer
from selfevo_trainer.process.pace import Pace
from selfevo_trainer.prompts import encode, messages


class EngineWriter:
    """See `pairs.base.Writer`."""

    def __init__(
        self, context: Context, inputs: VerifierTrainInputs, role: str, engine: Engine, tokenizer: Any
    ) -> None:
        self.context = context
        self.inputs = inputs
        self.role = role
        self.engine = engine
        self.tokenizer = tokenizer

    def __call__(self, questions: Sequence[str], use: str) -> list[str]:
        """An empty text where the prompt is longer than solver.maxPromptLength."""
        inputs = self.inputs
        prompts = [messages(inputs.solver_prompt, question) for question in questions]
        fit = [i for i, asked in enumerate(prompts) if len(encode(self.tokenizer, asked)) <= inputs.max_prompt_length]
        doing, pace = f"{self.role.replace('_', ' ')} writes ({use})", Pace()
        self.context.progress(doing, 0, len(fit))
        seed = derive_seed(inputs.seed, "pairs", self.role, use)
        made = [c for [c] in self.engine.generate([prompts[i] for i in fit], inputs.answer_sampling, 1, seed, fit)]
        pace.add(made)
        self.context.progress(doing, len(fit), len(fit), pace=pace)
        texts = {i: completion.text for i, completion in zip(fit, made, strict=True)}
        return [texts.get(i, "") for i in range(len(questions))]


@contextmanager
def opened(context: Context, inputs: VerifierTrainInputs, role: str) -> Iterator[EngineWriter]:
    """The model that the field ``role`` of ``inputs`` names, in the engine of the phase."""
    with closing(open_frozen(context, inputs, role, [inputs.answer_sampling], inputs.max_prompt_length)) as engine:
        yield EngineWriter(context, inputs, role, engine, tokenizer_of(context, inputs, role))


def tokenizer_of(context: Context, inputs: VerifierTrainInputs, role: str) -> Any:
    """Of the model that the field ``role`` names."""
    with context.clock.during("load"):
        return load_tokenizer(fetch_model(context, getattr(inputs, role), role), inputs.loading)


@contextmanager
def once_opened(context: Context, inputs: VerifierTrainInputs, role: str) -> Iterator[Writer]:
    """A role that is opened when it is first asked, and stays open."""
    with ExitStack() as stack:
        writers: list[EngineWriter] = []

        def write(questions: Sequence[str], use: str) -> list[str]:
            if not writers:
                writers.append(stack.enter_context(opened(context, inputs, role)))
            return writers[0](questions, use)

        yield write


@dataclass(frozen=True)
class OnceWriter:
    """A role that is opened for each call: two models at most are there at a time."""

    context: Context
    inputs: VerifierTrainInputs
    role: str

    def __call__(self, questions: Sequence[str], use: str) -> list[str]:
        """See `pairs.base.Writer`."""
        with opened(self.context, self.inputs, self.role) as writer:
            return writer(questions, use)


@dataclass(frozen=True)
class KeptWriter:
    """A role whose answers are kept: another attempt writes none of them again."""

    context: Context
    role: str
    writer: Writer

    def __call__(self, questions: Sequence[str], use: str) -> list[str]:
        """See `pairs.base.Writer`."""

        def made() -> kept.Tables:
            texts = self.writer(questions, use)
            return [[WrittenAnswer(question=asked, text=text) for asked, text in zip(questions, texts, strict=True)]]

        def fault(tables: kept.Tables) -> str | None:  # what they are made of was damaged, and written otherwise
            same = [row.question for row in tables[0]] == list(questions)
            return None if same else "it is of other questions"

        [rows] = kept.once(self.context, f"{self.role}-{use}", [WRITTEN_ANSWERS], made, fault)
        return [row.text for row in rows]
