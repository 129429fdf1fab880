"""What is watched while a run goes on, and what follows when it goes wrong (docs/guards.md)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from selfevo_contract.base import Closed, Whole
from selfevo_contract.rules import Rule

GuardAction = Literal["ignore", "warn", "stop", "rollback", "promoteBest"]
Share = Annotated[float, Field(ge=0, le=1)]
Errors = Annotated[float, Field(ge=0, le=100)]
Ratio = Annotated[float, Field(ge=1, le=1_000_000)]

_WARNS_FIRST = Rule(
    "!has(self.warnAt) || self.warnAt <= self.limit",
    lambda guard: guard.warn_at is None or guard.warn_at <= guard.limit,
    "warnAt is above limit, so it would never be reached first; lower warnAt or raise limit",
    lambda guard: (
        f"warnAt {guard.warn_at} is above limit {guard.limit}, so it would never be reached first; lower "
        "warnAt or raise limit"
    ),
)


class Guard(Closed):
    """A signal that is watched, and what follows when it goes wrong."""

    action: GuardAction = "warn"
    """What follows: `warn` says so; `stop` ends what runs at its checkpoint and fails the run until its spec is
    changed; `rollback` goes back to the last good iteration and on from there with another seed; `promoteBest` ends the
    run with the best Solver; `ignore` switches the guard off."""
    patience: Annotated[Whole, Field(ge=1, le=10)] = 1
    """How many measurements in a row must be beyond the limit before the action is taken; it warns before."""


class _Stops(Guard):
    """A guard that stops the run unless its action is set otherwise."""

    action: GuardAction = "stop"
    """What follows: `warn`, `stop`, `rollback`, `promoteBest` or `ignore`."""


class _WarnsFirst(_Stops):
    """A guard that may warn before its limit."""

    warn_at: Share | None = None
    """Beyond it it warns."""
    limit: Share = 1
    """Beyond it the action is taken."""

    usual: ClassVar[float] = 1
    """Where it warns when nobody says where, unless the limit is lower."""
    rules: ClassVar[tuple[Rule, ...]] = (_WARNS_FIRST,)

    @property
    def warns_from(self) -> float:
        """Beyond this it warns."""
        return min(self.usual, self.limit) if self.warn_at is None else self.warn_at


class HeldOut(Guard):
    """The held-out score falls behind the best iteration's."""

    limit: Errors = 2.5
    """Standard errors of the difference below the best earlier score."""
    patience: Annotated[Whole, Field(ge=1, le=10)] = 2
    """How many evaluations in a row must be beyond the limit before the action is taken; it warns before."""
    action: GuardAction = "promoteBest"
    """What follows: `warn`, `stop`, `rollback`, `promoteBest` or `ignore`."""


class Flips(Guard):
    """More held-out questions that the base answers right are answered wrong now than the other way round."""

    limit: Errors = 2
    """Standard errors, over the questions, of the balance of such flips."""
    action: GuardAction = "rollback"
    """What follows: `warn`, `stop`, `rollback`, `promoteBest` or `ignore`."""


class ConsensusWithoutGain(_Stops):
    """Sampled answers to a held-out question agree more and more, and the score does not rise."""

    limit: Share = 0.04
    """Rise of the share that the largest class of equal answers has, since the score last rose by more than
    standardErrors, beyond which the action is taken."""
    patience: Annotated[Whole, Field(ge=1, le=10)] = 2
    """How many evaluations in a row must be beyond the limit before the action is taken; it warns before."""


class LabelAccuracy(_WarnsFirst):
    """The share of labels that the oracle finds right falls."""

    warn_at: Share | None = None
    """Fall since the first iteration from which it warns, as a share; the limit when not given."""
    limit: Share = 0.7
    """Fall since the first iteration beyond which the action is taken."""


class RewardGap(_Stops):
    """What the Solver's answers earn when its training begins is less than its votes foretell."""

    limit: Share = 0.1
    """By how much the reward at the first update of its training may fall short of the share of answers that equal the
    label by the rollout's votes."""


class Malformed(Guard):
    """Completions of the Challenger that cannot become a question of the curriculum, whatever the band."""

    limit: Share = 0.30
    """Share of them beyond which the action is taken."""
    rise: Share = 0.1
    """Rise since the first iteration beyond which it is taken as well."""


class Diversity(Guard):
    """The Challenger repeats itself within a rollout."""

    limit: Share = 0.5
    """Share of different questions among the completions below which the action is taken."""
    fall: Share = 0.1
    """Fall since the first iteration beyond which it is taken as well."""


class Similarity(Guard):
    """The Challenger writes questions of earlier iterations again, and more of them each time."""

    limit: Share = 0.5
    """Share of its questions that are similar to an earlier one, beyond which the action is taken while it rises."""


class InBand(Guard):
    """Too little of what the Challenger asks is at the edge of what the Solver can do."""

    limit: Share = 0.03
    """Share of the valid questions in the band below which the action is taken."""


class Truncation(_WarnsFirst):
    """Answers of the rollout that end at their length limit, by the reason for which generation ended."""

    warn_at: Share | None = None
    """Share of them from which it warns; 0.15 when not given, or the limit where that is lower."""
    limit: Share = 0.15
    """Share of them beyond which the action is taken."""

    usual: ClassVar[float] = 0.15


class Entropy(Guard):
    """The Solver's answers collapse into one."""

    limit: Share = 0.1
    """Share of the entropy that the first iteration's training began with, below which the action is taken."""


class ZeroSpread(Guard):
    """Groups of answers with equal rewards, from which the Solver learns nothing."""

    limit: Share = 0.9
    """Share of them, at the end of the Solver's training, beyond which the action is taken."""


class Kl(Guard):
    """The Solver moves away from where its training began, and its reward does not rise."""

    limit: Ratio = 5
    """Times the first iteration's KL divergence, at the end of training, beyond which the action is taken."""


class Length(Guard):
    """The Solver's answers become much longer, or much shorter."""

    limit: Ratio = 2.5
    """Times, or parts, of the mean length that the first iteration's training began with."""


class Guards(Closed):
    """What is watched while a run goes on, and what follows when it goes wrong. `{}` is every guard with its defaults;
    one whose signal the run does not have is blind, and `selfevo plan` says so."""

    max_rollbacks: Annotated[Whole, Field(ge=1, le=100)] = 2
    """How often the run goes back, whichever guard asks for it; after that such a guard stops it."""
    standard_errors: Errors = 2
    """By how many of its own standard errors a share must be beyond a limit, summed over the measurements in a row that
    are: a share of few questions or labels is beyond it by chance. The error follows from their number
    (docs/guards.md); 0 takes each share as it was measured."""
    held_out: HeldOut = HeldOut()
    """The held-out score falls behind the best; needs evaluation."""
    flips: Flips = Flips()
    """Held-out questions that were answered right are answered wrong; needs evaluation."""
    consensus_without_gain: ConsensusWithoutGain = ConsensusWithoutGain()
    """Answers to held-out questions agree more, and no more of them are right; needs evaluation with two samples."""
    label_accuracy: LabelAccuracy = LabelAccuracy()
    """Labels become wrong; needs rollout.oracle."""
    reward_gap: RewardGap = RewardGap()
    """The Solver's training begins with less reward than its votes foretell; needs labels that are votes."""
    malformed: Malformed = Malformed()
    """The Challenger writes what is no usable question."""
    diversity: Diversity = Diversity()
    """The Challenger repeats itself."""
    similarity: Similarity = Similarity()
    """The Challenger asks again what earlier iterations asked; needs rollout.replay or challenger.reward.memory."""
    in_band: InBand = InBand()
    """Too few questions are in the band."""
    truncation: Truncation = Truncation()
    """Answers end at their length limit."""
    entropy: Entropy = Entropy()
    """The Solver's answers collapse into one."""
    zero_spread: ZeroSpread = ZeroSpread()
    """Rewards within groups are equal."""
    kl: Kl = Kl()
    """The Solver moves away without gain."""
    length: Length = Length()
    """Answers become much longer, or much shorter."""

    def promote_without_scores(self) -> list[str]:
        """Guards that would promote the best iteration, and work without the evaluation that tells it."""
        of = {field.alias or name: getattr(self, name) for name, field in type(self).model_fields.items()}
        return [name for name in PROMOTING if of[name].action == "promoteBest"]


_SCORED = ("max_rollbacks", "standard_errors", "held_out", "flips", "consensus_without_gain")
"""What is no guard, or blind without evaluation anyway."""
PROMOTING = tuple(field.alias or name for name, field in Guards.model_fields.items() if name not in _SCORED)
"""Names of the guards that a run without evaluation can have."""
