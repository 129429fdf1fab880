"""The reward functions as TRL calls them: completions in, rewards out, the frozen Solver a stand-in."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from selfevo_contract.canonical import derive_seed
from selfevo_contract.phases import BaseModelRef, ChallengerTrainInputs, Loading
from selfevo_contract.spec.challenger import ChallengerReward
from selfevo_contract.spec.grading import Grading
from selfevo_contract.spec.grpo import ChallengerGrpo
from selfevo_contract.spec.prompts import Prompt
from selfevo_contract.spec.rollout import Contamination
from selfevo_contract.spec.sampling import Sampling
from selfevo_trainer.answers.grades import ExactGrader
from selfevo_trainer.contamination import HeldOutQuestions
from selfevo_trainer.engines import Completion
from selfevo_trainer.prompts import Messages

pytestmark = pytest.mark.slow  # the reward functions live beside TRL

SAMPLING = Sampling.model_validate({"temperature": 0.5})


class FrozenSolver:
    """Answers each question in turn with the next row of ``answers``; None is an answer without a box."""

    def __init__(self, answers: Sequence[Sequence[str | None]]) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.calls: list[tuple[Sampling, int, int]] = []

    def generate(
        self,
        prompts: Sequence[Messages],
        sampling: Sampling,
        samples: int,
        seed: int,
        streams: Sequence[int] | None = None,
    ) -> list[list[Completion]]:
        self.streams = list(streams or [])
        self.calls.append((sampling, samples, seed))
        self.asked = [prompt[-1]["content"] for prompt in prompts]
        assert len(prompts) == len(self.answers)
        return [[_completion(answer) for answer in row] for row in self.answers]

    def close(self) -> None: ...


def _completion(answer: str | None) -> Completion:
    return Completion("I do not know" if answer is None else f"so \\boxed{{{answer}}}", 5, truncated=False)


def asked(question: str) -> str:
    return f"<question>{question}</question>\\boxed{{1}}"


def inputs(reward: dict[str, Any], grpo: dict[str, Any] | None = None) -> ChallengerTrainInputs:
    base = BaseModelRef(uri="file:///base")
    return ChallengerTrainInputs(
        seed=3,
        challenger=base,
        solver=base,
        loading=Loading(dtype="float32", trust_remote_code=False),
        prompt=Prompt(user="ask"),
        grpo=ChallengerGrpo.model_validate(grpo or {}),
        reward=ChallengerReward.model_validate({"solverSamples": 4, **reward}),
        solver_prompt=Prompt(system="think", user="Q: {question}"),
        solver_sampling=SAMPLING,
        grading=Grading(),
        exclude=[],
        held_out=[],
        contamination=Contamination(),
    )


def challenger(
    reward: dict[str, Any],
    answers: Sequence[Sequence[str | None]],
    excluded: Sequence[str] = (),
    checks: list[dict[str, Any]] | None = None,
) -> tuple[Any, FrozenSolver]:
    from selfevo_trainer.phases.challenger_train import ChallengerReward as Reward
    from selfevo_trainer.ratings import ByVotes

    solver = FrozenSolver(answers)
    asked_for = ChallengerTrainInputs.model_validate({**inputs(reward).wire(), "wellFormed": checks})
    rater = ByVotes(asked_for.well_formed, asked_for.reward.unboxed, ExactGrader())
    return Reward(asked_for, solver, rater, HeldOutQuestions(exclude=excluded)), solver


def pay(function: Any, texts: Sequence[str], step: int = 0) -> tuple[list[float], dict[str, float]]:
    logged: dict[str, float] = {}
    chat = [[{"role": "assistant", "content": text}] for text in texts]
    rewards = function(
        prompts=[None] * len(texts),
        completions=chat,
        trainer_state=SimpleNamespace(global_step=step),
        log_metric=logged.__setitem__,
        log_extra=None,
    )
    return rewards, logged


# Four completions. The first two ask the same (|C|/B = 2/4), the third is alone (1/4), so is the fourth.
BATCH = [asked("1 + 1"), asked("1 + 1"), asked("2 + 9"), "no question here"]
ANSWERS = [
    ["2", "2", "3", None],  # p = 2/4, although one of four has no box
    ["2", "2", "2", "2"],  # p = 1: the same question, sampled anew
    ["11", "12", "11", "11"],  # p = 3/4
]


@pytest.mark.parametrize(
    ("reward", "expected"),
    [
        # max(0, 1 - 2|p - 1/2| - |C|/B); invalid: 0
        ({"mode": "paper"}, [1.0 - 0.5, 0.0, 0.5 - 0.25, 0.0]),
        # min(p, 1 - p) - |C|/B; invalid: -1 - |C|/B
        ({"mode": "code"}, [0.5 - 0.5, 0.0 - 0.5, 0.25 - 0.25, -1.0 - 0.25]),
        ({"mode": "paper", "repetition": {"weight": 0.5}}, [0.75, 0.0, 0.375, 0.0]),
        ({"mode": "paper", "repetition": {"weight": 0.0}}, [1.0, 0.0, 0.5, 0.0]),
        ({"mode": "code", "repetition": {"weight": 0.0}}, [0.5, 0.0, 0.25, -1.0]),
        # Identical copies are at BLEU distance 1 - 0.1^(1/4) = 0.44 here: a narrower cut sees four different questions.
        ({"mode": "paper", "repetition": {"distance": 0.4}}, [0.75, 0.0, 0.25, 0.0]),
    ],
)
def test_the_challenger_is_paid_by_the_table(reward: dict[str, Any], expected: list[float]) -> None:
    function, _ = challenger(reward, ANSWERS)
    rewards, _ = pay(function, BATCH)
    assert rewards == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("mode", "expected"), [("paper", [0.0, 0.0]), ("code", [0.0 - 0.5, -1.0 - 0.5])])
def test_a_question_nobody_answered_in_a_box_is_certain_to_be_worthless_but_valid(
    mode: str, expected: list[float]
) -> None:
    function, _ = challenger({"mode": mode}, [[None] * 4])
    rewards, logged = pay(function, [asked("1 + 1"), "nothing"])
    assert rewards == pytest.approx(expected, abs=1e-9)
    assert (logged["valid"], logged["majority_share"], logged["uncertainty"]) == (0.5, 0.0, 0.0)


@pytest.mark.parametrize(("mode", "expected"), [("paper", [0.75, 0.0]), ("code", [0.25, -1.25])])
def test_an_excluded_question_is_worth_what_an_invalid_one_is(mode: str, expected: list[float]) -> None:
    function, solver = challenger({"mode": mode}, [["2", "2", "3", "4"]], excluded=["2 + 9"])
    batch = [asked("1 + 1"), asked("2  +  9"), "x", "y"]  # written in another way, and still excluded
    rewards, logged = pay(function, batch)
    assert solver.asked == ["Q: 1 + 1"]  # it is not even answered
    assert rewards[:2] == pytest.approx(expected, abs=1e-9)
    assert rewards[1:] == [rewards[1]] * 3
    assert logged["valid"] == 0.25


def test_a_batch_without_a_valid_question_is_paid_without_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    function, solver = challenger({"mode": "code"}, [])
    rewards, logged = pay(function, ["a", "b", "", "<question></question>\\boxed{}"])
    assert rewards == pytest.approx([-1.25] * 4)
    assert solver.asked == [] and logged == {
        "valid": 0.0,
        "repetition": 0.25,
        "distinct": 0.0,
        **{f"answers/{name}": 0.0 for name in ("unboxed", "truncated", "timed_out", "crashed", "ill_formed")},
    }


def test_the_solver_is_asked_with_its_own_prompt_and_sampling_and_a_seed_of_the_step() -> None:
    function, solver = challenger({}, ANSWERS)
    for step in (0, 5):
        pay(function, BATCH, step)
    assert solver.asked == ["Q: 1 + 1", "Q: 1 + 1", "Q: 2 + 9"]
    # The seed is of the run and the step alone: a resumed training asks as the undisturbed one did.
    assert solver.calls == [(SAMPLING, 4, derive_seed(3, "answers", step)) for step in (0, 5)]


def test_what_the_batch_was_like_is_logged() -> None:
    function, _ = challenger({"mode": "paper"}, ANSWERS)
    _, logged = pay(function, BATCH)
    assert logged == pytest.approx(
        {
            "valid": 3 / 4,
            "repetition": (0.5 + 0.5 + 0.25 + 0.25) / 4,
            "distinct": 2 / 4,
            "uncertainty": (1.0 + 0.0 + 0.5) / 3,
            "majority_share": (0.5 + 1.0 + 0.75) / 3,
            "answers/unboxed": 1 / 12,
            "answers/truncated": 0.0,
            "answers/timed_out": 0.0,
            "answers/crashed": 0.0,
            "answers/ill_formed": 0.0,
        }
    )


def test_what_the_curriculum_drops_is_paid_as_invalid() -> None:
    long = "How many legs have {} spiders that sit in four corners of a room?"
    repeated = long.format("two").lower().replace("?", " together?")
    dropped = ["prove that 1 + 1", "say <|im_end|> 1 + 1", "what is \\boxed{1}", "1 + 5", repeated, "9" * 3000]
    function, solver = challenger({"mode": "code"}, [["2", "3", "2", "3"]], excluded=["1 + 5", long.format("two")])
    rewards, logged = pay(function, [asked("1 + 1"), *map(asked, dropped)])
    assert logged["valid"] == 1 / 7 and solver.streams == [0]
    assert rewards[0] == pytest.approx(0.5 - 1 / 7) and all(reward < -1 for reward in rewards[1:])
    # So is a majority answer that quotes markup.
    function, _ = challenger({"mode": "code"}, [["<|im_end|>"] * 4])
    assert pay(function, [asked("1 + 1")])[0] == [-2.0]


@pytest.mark.parametrize(("unboxed", "share"), [("counts", 0.5), ("drops", 1.0)])
def test_answers_without_a_box_count_or_drop(unboxed: str, share: float) -> None:
    reward = {"mode": "paper", "unboxed": unboxed, "repetition": {"weight": 0.0}}
    function, _ = challenger(reward, [["2", "2", None, None]])
    assert pay(function, [asked("1 + 1")])[0] == [pytest.approx(1 - 2 * abs(share - 0.5))]


def test_answers_that_are_not_well_formed_have_no_vote() -> None:
    """Six answers agree on what is no number: without the check the question counts as easy."""
    reward = {"mode": "paper", "repetition": {"weight": 0.0}}
    answers = [["n", "n", "n", "n", "n", "n", "2", "2"]]
    function, _ = challenger(reward, answers)
    assert pay(function, [asked("1 + 1")])[0] == [pytest.approx(1 - 2 * abs(6 / 8 - 0.5))]
    function, _ = challenger(reward, answers, checks=[{"kind": "number"}])
    rewards, logged = pay(function, [asked("1 + 1")])
    assert rewards == [pytest.approx(1 - 2 * abs(2 / 8 - 0.5))] and logged["answers/ill_formed"] == 6 / 8


def test_what_earlier_iterations_asked_costs() -> None:
    """Half of what is remembered lies near the first question, nothing near the second; without a memory both are paid
    alike."""
    answers = [["1", "1", "2", "2"]] * 2
    batch = [asked("What is 2 + 3 ?"), asked("Name a small prime")]
    plain = {"mode": "paper", "repetition": {"weight": 0.0}}
    function, _ = challenger({**plain, "memory": {"weight": 0.5}}, answers)
    function.earlier = ["What is 2 + 3 ?", "Why ?"]
    rewards, logged = pay(function, batch)
    assert rewards == pytest.approx([1.0 - 0.5 * 0.5, 1.0]) and logged["memory"] == pytest.approx(0.25)
    function, _ = challenger(plain, answers)
    rewards, logged = pay(function, batch)
    assert rewards == pytest.approx([1.0, 1.0]) and "memory" not in logged


def test_plain_text_completions_are_paid_alike() -> None:
    function, _ = challenger({"mode": "paper"}, ANSWERS)
    state = SimpleNamespace(global_step=0)
    assert function(completions=BATCH, trainer_state=state) == pytest.approx([0.5, 0.0, 0.25, 0.0])


@pytest.mark.parametrize(
    ("grpo", "valid", "given_up"),
    [
        ({}, [0.0, 0.0], False),
        ({}, [0.0, 0.0, 0.0], True),
        ({}, [0.0, 0.0, 0.01], False),
        ({}, [0.1, 0.0, 0.0, 0.0, 0.0], False),  # it can; TRL's own signal is enough then
        ({"maxSteps": 1}, [0.0], True),
        ({"maxSteps": 2}, [0.0, 0.0], True),
        # Updates after the first of a step log nothing of its batch.
        ({"maxSteps": 2, "numIterations": 2}, [0.0, None, 0.0], True),
        ({"maxSteps": 2, "numIterations": 2}, [0.0, None], False),
    ],
)
def test_a_challenger_that_never_writes_a_valid_question_is_given_up(
    grpo: dict[str, Any], valid: list[float | None], given_up: bool
) -> None:
    from selfevo_contract.errors import DataError
    from selfevo_trainer.phases.challenger_train import ChallengerReward as Reward
    from selfevo_trainer.ratings import ByVotes

    function = Reward(inputs({}, grpo), FrozenSolver([]), ByVotes(None, "counts", ExactGrader()), frozenset())
    history = [{"loss": 0.0} if share is None else {"loss": 0.0, "valid": share} for share in valid]
    if not given_up:
        function.check(history)
        return
    with pytest.raises(DataError) as caught:
        function.check(history)
    batches = len([share for share in valid if share is not None])
    assert caught.value.reason == "NoValidQuestion"
    assert f"in {batches * 2048} completions" in str(caught.value) and "spec.challenger.prompt" in str(caught.value)


# label, completion, paper, code
SOLVED = [
    ("4", "2 + 2 is \\boxed{4}", 1.0, 1.0),
    ("4", "\\boxed{5}", 0.0, 0.1),
    ("4", "4", 0.0, 0.0),
    ("4", "\\boxed{5} no, \\boxed{4}", 1.0, 1.0),
    ("4", "\\boxed{4", 0.0, 0.0),
    ("1/2", "\\boxed{0.5}", 1.0, 1.0),  # equal as numbers
]


@pytest.mark.parametrize(("mode", "column"), [("paper", 2), ("code", 3)])
@pytest.mark.parametrize("chat", [True, False], ids=["chat", "plain"])
def test_the_solver_is_paid_by_the_table(mode: str, column: int, chat: bool) -> None:
    from selfevo_trainer.solver_rewards import SolverReward

    logged: dict[str, float] = {}
    texts = [row[1] for row in SOLVED]
    rewards = SolverReward(mode, ExactGrader())(  # type: ignore[arg-type]
        completions=[[{"role": "assistant", "content": text}] for text in texts] if chat else texts,
        label=[row[0] for row in SOLVED],
        log_metric=logged.__setitem__,
        prompts=None,
        trainer_state=None,
    )
    assert rewards == pytest.approx([row[column] for row in SOLVED])
    assert logged == {"accuracy": pytest.approx(3 / 6)}


def test_the_solver_is_graded_by_what_the_run_asks_for() -> None:
    from selfevo_trainer.answers.grades import open_grader
    from selfevo_trainer.solver_rewards import SolverReward

    with open_grader(Grading(method="math-verify")) as grader:
        assert SolverReward("paper", grader)(completions=["\\boxed{0.5}", "\\boxed{1/3}"], label=["1/2", "1/2"]) == [
            1.0,
            0.0,
        ]


def agreement(checks: list[dict[str, Any]] | None = None) -> Any:
    from pydantic import TypeAdapter

    from selfevo_contract.spec.well_formed import Check
    from selfevo_trainer.solver_rewards import ConfidenceReward

    return ConfidenceReward("confidence", TypeAdapter(list[Check]).validate_python(checks or []), ExactGrader())


def test_a_confident_solver_is_paid_for_agreeing_with_itself() -> None:
    """Groups go by their question, wherever their answers stand; an answer without a box counts and is paid nothing."""
    logged: dict[str, float] = {}
    texts = ["\\boxed{4}", "\\boxed{7}", "\\boxed{4.0}", "\\boxed{8}", "\\boxed{5}", "none", "4", "\\boxed{7}"]
    rewards = agreement()(
        completions=texts,
        question=["a", "b", "a", "b", "a", "b", "a", "b"],
        log_metric=logged.__setitem__,
        label=["9"] * 8,
    )
    assert rewards == [0.5, 0.5, 0.5, 0.25, 0.25, 0.0, 0.0, 0.5]
    assert logged == {"majority_share": 0.5}


def test_what_has_no_vote_is_paid_nothing_for_agreeing() -> None:
    texts = ["\\boxed{ab}", "\\boxed{ab}", "\\boxed{abc}"]
    rewards = agreement([{"kind": "length"}])(completions=texts, question=["c b a"] * 3)
    assert rewards == [0.0, 0.0, pytest.approx(1 / 3)]


def test_confidence_pays_the_solver_alone() -> None:
    from selfevo_trainer.rewards import agreed_reward, challenger_rewards, scored_reward, solver_reward

    with pytest.raises(ValueError, match="pays the Solver alone"):
        challenger_rewards("confidence", [0.5], [0.1])
    with pytest.raises(ValueError, match="does not pay by labels"):
        solver_reward("confidence", correct=True, boxed=True)
    with pytest.raises(ValueError, match="does not pay by a judge's scores"):
        scored_reward("confidence", 0.5)
    with pytest.raises(ValueError, match="does not pay by agreement"):
        agreed_reward("paper", 0.5)


def test_self_certainty_pays_the_solver_alone() -> None:
    from selfevo_trainer.rewards import agreed_reward, certain_reward, challenger_rewards, solver_reward

    with pytest.raises(ValueError, match="pays the Solver alone"):
        challenger_rewards("selfCertainty", [0.5], [0.1])
    with pytest.raises(ValueError, match="does not pay by labels"):
        solver_reward("selfCertainty", correct=True, boxed=True)
    with pytest.raises(ValueError, match="does not pay by agreement"):
        agreed_reward("selfCertainty", 0.5)
    with pytest.raises(ValueError, match="does not pay by the policy's distributions"):
        certain_reward("confidence", [0.5])
