"""What is wrong with a model for the phase that is about to use it, found in seconds and reported in one sentence.

Without it these show as tracebacks of a library after minutes or hours, and are tried again: token ids beyond the
embedding, a chat template that cannot render the run's prompts, learned positions that are too few, NaN in the weights.

    check(context)     the phase's models, before anything is computed
    CHECKS             pure: (facts of the model, what it is asked) -> what is wrong, or None

`selfevo run` names the inputs of all its phases in PREFLIGHT_FILE_ENV: its first step finds what a later one would.
Every model of a run has the base's tokenizer, template and shapes, so that checking the one at hand is enough.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from selfevo_contract.errors import InputError
from selfevo_contract.phases import (
    PHASES,
    BaseModelRef,
    BuiltInputs,
    ChallengerTrainInputs,
    FinetuneInputs,
    HeldOutInputs,
    Inputs,
    ModelRef,
    SolverRolloutInputs,
    SolverTrainInputs,
    VerifierTrainInputs,
    input_key,
)
from selfevo_contract.process import PREFLIGHT_FILE_ENV
from selfevo_contract.spec.oracles import DataOracle
from selfevo_contract.spec.prompts import Prompt
from selfevo_trainer.context import Context
from selfevo_trainer.inputs import card, room
from selfevo_trainer.inputs.anchors import read_pairs
from selfevo_trainer.inputs.criteria import read_criteria
from selfevo_trainer.inputs.data import ORACLE_FIELD, read_held_out
from selfevo_trainer.inputs.labelled_data import labelled
from selfevo_trainer.inputs.model_files import fetch_model
from selfevo_trainer.models import weights
from selfevo_trainer.models.loading import first_line, load_config, load_tokenizer
from selfevo_trainer.prompts import encode, messages

EXAMPLE = "What is 37 + 48?"
_OTHER = "How many legs do 12 spiders have?"
_CHALLENGER = ("spec.challenger.prompt", "spec.challenger.grpo.maxCompletionLength")
_SOLVER = ("spec.solver.prompt", "spec.solver.grpo.maxCompletionLength")

_LIBRARIES = (
    "torch",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.generation.utils",
    "transformers.modeling_utils",
)
"""What loading a model needs first: imported before it, so that these seconds are startup and not its."""

log = logging.getLogger("selfevo")


@dataclass(frozen=True)
class Ask:
    """One prompt that a phase puts to a model."""

    prompt: Prompt
    field: str
    """Where a person wrote it, e.g. ``spec.solver.prompt``."""
    completion: int
    """Most tokens of an answer."""
    length_field: str
    """Where a person set that."""
    longest_prompt: int | None = None
    """Most tokens of a prompt with a question in it; None: nobody bounds it."""


@dataclass(frozen=True)
class Facts:
    """What is checked of a model."""

    folder: Path
    tokenizer: Any
    rows: int | None
    """Rows of the embedding, as config.json says; None when it does not."""
    learned_positions: int | None
    """Positions of an architecture that has a learned vector for each; None when it computes them."""
    window: int | None
    """max_position_embeddings of config.json."""

    @cached_property
    def plain_ids(self) -> Mapping[str, int]:
        """Token -> id, of what text can hold: special tokens that were added are met by name only."""
        special = {token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special}
        return {token: i for token, i in self.tokenizer.get_vocab().items() if token not in special}


def check(context: Context, inputs: BuiltInputs) -> None:
    """Check every model of the phase.

    Raises:
        InputError: it cannot do what it is asked.
        ServiceError: store or hub cannot be reached.
    """
    others = _run_inputs()
    for _, read in _early(context, inputs):
        read()
    for other in others:
        for what, read in _early(context, other):
            _once(context, other, what, read)
    elsewhere = [ask for other in others for _, _, asks in models_of(other) for ask in asks]
    for name, ref, asks in models_of(inputs):
        folder = fetch_model(context, ref, name)
        with context.clock.during("startup"):  # only now: a missing model fails in half a second
            for library in _LIBRARIES:
                importlib.import_module(library)
        with context.clock.during("load"):
            facts = facts_of(folder, inputs.loading)
            card.check(context, inputs, folder)
            if name == PHASES[inputs.phase].models[0]:
                room.check(context, inputs, folder)
            for ask in {repr(ask): ask for ask in [*asks, *elsewhere]}.values():
                for fault_of in CHECKS:
                    if fault := fault_of(facts, ask):
                        raise InputError(fault)
                if advice := beyond_window(facts, ask):
                    log.warning("%s", advice)
        for other in others:
            if isinstance(other, FinetuneInputs) and other.phase != inputs.phase:
                _once(context, other, "labelled", partial(labelled, context, other, facts.tokenizer))
        with context.clock.during("load"):
            if isinstance(ref, BaseModelRef):  # what a step wrote was finite when it was saved

                def finite(_: Path, path: Path = folder, dtype: str = inputs.loading.dtype) -> Path:
                    return _finite(path, dtype)

                context.once_per_pod("base.finite", finite)


def _early(context: Context, inputs: Inputs) -> Iterator[tuple[str, Callable[[], object]]]:
    """What reads the files that a phase reads for the first time when it has generated, by what they are."""
    if (rubric := getattr(inputs, "rubric", None)) is not None:
        yield "criteria", lambda: read_criteria(context, rubric.criteria)
    if isinstance(inputs, SolverRolloutInputs):
        if (anchors := inputs.anchors) is not None:
            yield "anchors", lambda: read_pairs(context, anchors)
        if isinstance(oracle := inputs.oracle, DataOracle):
            yield "oracle", lambda: read_held_out(context, oracle.data, ORACLE_FIELD)


def _once(context: Context, inputs: Inputs, what: str, check: Callable[[], object]) -> None:
    """``check``, of what a later phase of ``inputs`` reads. Where nothing is wrong that is noted on this machine's
    disk, so that not every step of the run reads it again: that phase does."""
    mark = context.cache_dir / f"{what}-{input_key(inputs)}"
    if not mark.exists():
        check()
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()


def models_of(inputs: Inputs) -> Iterator[tuple[str, ModelRef, list[Ask]]]:
    """Each model of a phase: the name it is fetched by, where it is, what it is asked. Pure."""
    longest = getattr(inputs, "max_prompt_length", None)
    match inputs:
        case ChallengerTrainInputs():
            own = Ask(inputs.prompt, _CHALLENGER[0], inputs.grpo.max_completion_length, _CHALLENGER[1])
            yield "challenger", inputs.challenger, [own]
            answers = inputs.solver_sampling.max_completion_length
            yield "solver", inputs.solver, [Ask(inputs.solver_prompt, _SOLVER[0], answers, _SOLVER[1], longest)]
        case SolverRolloutInputs():
            questions = inputs.question_sampling.max_completion_length
            yield (
                "challenger",
                inputs.challenger,
                [Ask(inputs.challenger_prompt, _CHALLENGER[0], questions, _CHALLENGER[1])],
            )
            answers = inputs.answer_sampling.max_completion_length
            yield "solver", inputs.solver, [Ask(inputs.solver_prompt, _SOLVER[0], answers, _SOLVER[1], longest)]
        case SolverTrainInputs():
            answers = inputs.grpo.max_completion_length
            yield "solver", inputs.solver, [Ask(inputs.prompt, _SOLVER[0], answers, _SOLVER[1], longest)]
        case VerifierTrainInputs():
            answers = inputs.answer_sampling.max_completion_length
            ask = Ask(inputs.solver_prompt, _SOLVER[0], answers, _SOLVER[1], longest)
            # A judge answers nothing, and a reward model may have words of its own.
            if inputs.base is not None and inputs.settings.model is None:
                yield "base", inputs.base, []
            for name in ("solver", "challenger", "earlier_solver"):
                if (ref := getattr(inputs, name)) is not None:
                    yield name, ref, [ask]
        case FinetuneInputs():
            answers = inputs.grpo.max_completion_length
            yield "model", inputs.model, [Ask(inputs.prompt, _SOLVER[0], answers, _SOLVER[1], longest)]
        case HeldOutInputs():
            asks = []
            for index, task in enumerate(inputs.tasks):
                listed = f"spec.evaluation.tasks[{index}]"
                prompt_field = _SOLVER[0] if task.prompt is None else f"{listed}.prompt"
                place = "spec.evaluation" if task.sampling is None else listed
                answers = inputs.sampling_of(task).max_completion_length
                length_field = f"{place}.sampling.maxCompletionLength"
                asks.append(Ask(inputs.prompt_of(task), prompt_field, answers, length_field, longest))
            yield "model", inputs.model, asks


def facts_of(folder: Path, loading: Any) -> Facts:
    """The facts of the model in ``folder``; no weight is read.

    Raises:
        InputError: its files cannot be read, or say what nothing can be made of.
    """
    config = load_config(folder, loading)
    text = config.get_text_config()
    window = getattr(text, "max_position_embeddings", None)
    return Facts(
        folder=folder,
        tokenizer=load_tokenizer(folder, loading),
        rows=_number(getattr(text, "vocab_size", None)),
        learned_positions=_number(window) if weights.has_learned_positions(folder) else None,
        window=_number(window),
    )


# --- the checks -------------------------------------------------------------------------------------------------------


def template_fault(facts: Facts, ask: Ask) -> str | None:
    """The chat template renders the prompt, and what is put into the prompt is to be seen in it."""
    if not facts.tokenizer.chat_template:
        return None
    who = f"the chat template of the model in {facts.folder}"
    mend = "correct it (chat_template.jinja, or chat_template in tokenizer_config.json)"
    try:
        rendered = _ids(facts, ask.prompt)
    except Exception as error:
        why = first_line(error)
        if ask.prompt.system and _renders(facts, ask.prompt.model_copy(update={"system": ""})):
            remedy = f"it takes no system message, so move {ask.field}.system into {ask.field}.user"
        else:
            remedy = mend
        return f"{who} cannot render {ask.field} ({why}); {remedy}"
    if not rendered:
        return f"{who} renders nothing of {ask.field}; {mend}"
    parts = {"system": ask.prompt.system, "user": ask.prompt.user}
    for part, text in parts.items():
        if text and rendered == _ids(facts, ask.prompt.model_copy(update={part: text + _OTHER})):
            remedy = f"move it into {ask.field}.user" if part == "system" else f"{mend}, so that it takes plain text"
            return f"{who} leaves {ask.field}.{part} out of what it renders; {remedy}"
    return None


def vocabulary_fault(facts: Facts, ask: Ask) -> str | None:
    """No token id that can come up is beyond the embedding."""
    return beyond_embedding(facts, _ids(facts, ask.prompt), ask.field)


def beyond_embedding(facts: Facts, prompt: Sequence[int], field: str) -> str | None:
    """Whether an id that text, the end of a text or ``prompt``, which ``field`` makes, has is none of the embedding."""
    if facts.rows is None:
        return None
    tokenizer = facts.tokenizer
    named = {name: getattr(tokenizer, f"{name}_id") for name in ("eos_token", "pad_token", "bos_token")}
    found = max(
        [(max(prompt, default=0), f"a token of {field}"), *((i, repr(token)) for token, i in facts.plain_ids.items())]
        + [(i, name) for name, i in named.items() if i is not None]
    )
    if found[0] < facts.rows:
        return None
    return (
        f"the tokenizer in {facts.folder} has id {found[0]} ({found[1]}), and the model's embedding has {facts.rows} "
        "rows (vocab_size in config.json); take the tokenizer that belongs to the model, or resize the embedding"
    )


def positions_fault(facts: Facts, ask: Ask) -> str | None:
    """Prompt and completion fit into the positions that the model has learned."""
    if facts.learned_positions is None or (longest := _longest(facts, ask)) <= facts.learned_positions:
        return None
    lower = ask.length_field if ask.longest_prompt is None else f"maxPromptLength or {ask.length_field}"
    return (
        f"the model in {facts.folder} has learned {facts.learned_positions} positions, and {ask.field} with "
        f"completions of {ask.completion} tokens takes up to {longest}; lower {lower}"
    )


def beyond_window(facts: Facts, ask: Ask) -> str | None:
    """Positions that are computed have no end; beyond those of its pretraining the model gets worse. Only a warning.

    R-Zero itself runs models with 4,096 positions (Qwen2.5-Math) at completions of 4,096 tokens.
    """
    if facts.window is None or facts.learned_positions is not None or (longest := _longest(facts, ask)) <= facts.window:
        return None
    return (
        f"{ask.field} with completions of {ask.completion} tokens takes up to {longest}, and max_position_embeddings "
        f"of the model in {facts.folder} is {facts.window}: what lies beyond may be poor"
    )


Check = Callable[[Facts, Ask], str | None]
CHECKS: tuple[Check, ...] = (template_fault, vocabulary_fault, positions_fault)
"""In this order: each takes for granted what those before it have found in order."""


def _ids(facts: Facts, prompt: Prompt) -> list[int]:
    return encode(facts.tokenizer, messages(prompt, EXAMPLE))


def _renders(facts: Facts, prompt: Prompt) -> bool:
    try:
        return bool(_ids(facts, prompt))
    except Exception:
        return False


def _longest(facts: Facts, ask: Ask) -> int:
    prompt = len(_ids(facts, ask.prompt))
    if "{question}" in ask.prompt.user and ask.longest_prompt is not None:
        prompt = max(prompt, ask.longest_prompt)
    return prompt + ask.completion


def _finite(folder: Path, dtype: str) -> Path:
    if fault := weights.not_finite(folder, dtype):
        raise InputError(fault)
    return folder


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def _run_inputs() -> list[Inputs]:
    """The inputs of the run's other phases, where whoever started us names them."""
    named = os.environ.get(PREFLIGHT_FILE_ENV)
    if not named:
        return []
    try:
        return TypeAdapter(list[Inputs]).validate_json(Path(named).read_bytes())
    except (OSError, ValidationError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no list of inputs"
        raise InputError(f"{PREFLIGHT_FILE_ENV} is {named!r}, which cannot be read: {why}; unset it") from None
