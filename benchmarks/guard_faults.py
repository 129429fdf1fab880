"""What goes wrong in a run, as what it does to the quantities that lie under its figures. Pure.

Shares live on the logit scale, other quantities on the log scale. Magnitudes are drawn evenly between two figures,
small ones among them. Ranges and couplings are assumptions, not measured, but for two: what random labels do, and that
a Solver agrees with itself as much more by wrong labels that it believes as by right ones (in frontier.json the arm
no-rule, a tenth of whose labels is right: its consensus rises as main's does, and its score stays).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

SHARES = (
    "skill",
    "distinct",
    "in_band",
    "cut_off",
    "right_labels",
    "no_majority",
    "reward_first",
    "reward_last",
    "equal",
)
SIZES = ("kl", "entropy_first", "entropy_last", "length_first", "length_last")
LENGTH_SPREAD = 0.25
"""Standard deviation of the logarithm of an answer's length within a rollout; assumed."""

State = dict[str, float]


def logit(share: float) -> float:
    """With a share kept off 0 and 1."""
    share = min(max(share, 5e-4), 1 - 1e-3)
    return math.log(share / (1 - share))


def logistic(value: float) -> float:
    """Back to a share."""
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, value))))


@dataclass(frozen=True)
class Fault:
    """What goes wrong. ``act(state, m, since)`` changes the quantities of its ``since``-th iteration in place."""

    low: float
    high: float
    act: Callable[[State, float, int], None]


def _times(state: State, name: str, factor: float) -> None:
    """A quantity is multiplied; a share as a share."""
    if name in SHARES:
        state[name] = logit(logistic(state[name]) * factor)
    else:
        state[name] += math.log(factor)


def _mixed(state: State, name: str, share: float, other: float) -> None:
    """A ``share`` of the cases has ``other`` in place of a share."""
    state[name] = logit((1 - share) * logistic(state[name]) + share * other)


def _longer(state: State, factor: float) -> None:
    """Answers ``factor`` as long: more of them reach the limit, whose place the share so far tells."""
    for name in ("length_first", "length_last"):
        _times(state, name, factor)
    _nearer(state, factor)


def _nearer(state: State, factor: float) -> None:
    normal = statistics.NormalDist()
    place = normal.inv_cdf(1 - min(max(logistic(state["cut_off"]), 1e-4), 0.999))
    beyond = 1 - normal.cdf(place - math.log(factor) / LENGTH_SPREAD)
    # An answer without its end has no box: no vote, no reward. A question has no majority when all of them have none.
    _mixed(state, "no_majority", beyond**4, 1.0)
    _mixed(state, "reward_last", beyond, 0.0)
    state["cut_off"] = logit(beyond)
    state["learns"] *= 1 - beyond


def _ambiguity(state: State, m: float, since: int) -> None:
    share = min(m * since, 0.95)
    band = logistic(state["in_band"])
    unclear = share * 0.7 / (share * 0.7 + (1 - share) * band)
    _mixed(state, "in_band", share, 0.7)  # votes scatter: most of these look uncertain
    _mixed(state, "right_labels", unclear, 0.05)
    _mixed(state, "no_majority", share, 0.15)
    _mixed(state, "reward_last", unclear, 0.4)
    state["learns"] *= 1 - unclear
    state["believed"] = unclear


def _labels(state: State, m: float, since: int) -> None:
    wrong = min(m * since, 0.95)
    _times(state, "right_labels", 1 - wrong)
    state["learns"] *= 1 - 1.2 * wrong
    state["believed"] = wrong


def _collapse(state: State, m: float, since: int) -> None:
    kept = (1 - m) ** since
    _times(state, "entropy_last", kept)
    _times(state, "entropy_first", (1 - m) ** (since - 1))
    _mixed(state, "equal", 1 - kept, 1.0)
    _times(state, "in_band", kept)
    state["learns"] *= kept


def _verbose(state: State, m: float, since: int) -> None:
    _longer(state, m ** (1 if since == 1 else 1.5))
    state["learns"] *= 0.5


def _truncation(state: State, m: float, since: int) -> None:
    _nearer(state, 1 / m)
    state["length_last"] = min(state["length_last"], state["length_first"])


def _repeats(state: State, m: float, since: int) -> None:
    """Questions of earlier iterations again: within a rollout they still differ, and the Solver knows them by now."""
    again = min(m * since, 0.98)
    _times(state, "distinct", 1 - 0.1 * again)
    _times(state, "in_band", 1 - 0.8 * again)
    state["learns"] *= 1 - again
    state["again"] = again


MISMATCH = 0.21
"""Mean difference of log-probabilities between generation and training where all weights are a step old; measured with
the demo's model (docs/engines.md)."""
LARGEST_MISMATCH = 0.05
"""Beyond it a training by vLLM's completions ends: selfevo_trainer.grpo.vllm_policy.LARGEST_DIFFERENCE."""


def ends_itself(fault: str | None, m: float) -> bool:
    """Whether the training phase fails by itself: of weights that are stale it compares log-probabilities."""
    return fault == "stale weights" and MISMATCH * m > LARGEST_MISMATCH


def _stale(state: State, m: float, since: int) -> None:
    """Answers are written with old weights: the update is off-policy, moves further and gains less or nothing."""
    _times(state, "kl", math.exp(3 * m))
    _mixed(state, "reward_last", m, logistic(state["reward_first"]))
    state["learns"] *= 1 - 1.3 * m


def _sign(state: State, m: float, since: int) -> None:
    state["harm"] += m
    state["reward_first"], state["reward_last"] = logit(0.3), logit(0.5)  # logged as it is paid, and that rises
    _times(state, "right_labels", 0.8**since)
    _times(state, "kl", 1 + 3 * m)
    _times(state, "entropy_last", 1 + m)
    state["learns"] = 0.0


def _constant(state: State, m: float, since: int) -> None:
    state["equal"], state["learns"] = logit(1.0), 0.0
    state["reward_first"] = state["reward_last"] = logit(1.0)
    _times(state, "kl", 0.01)
    state["entropy_last"] = state["entropy_first"]


def _off_by_one(state: State, m: float, since: int) -> None:
    """As recorded of random labels: next to no reward, most groups alike in that, and little learnt."""
    state["reward_first"], state["reward_last"] = logit(0.03), logit(0.04)
    state["equal"], state["learns"] = logit(0.97), m
    _times(state, "kl", 0.4)
    state["entropy_last"] = state["entropy_first"]


def _never_stops(state: State, m: float, since: int) -> None:
    """A share of the answers ends only at the limit."""
    for name in ("length_first", "length_last"):
        _times(state, name, 1 + m)
    _mixed(state, "cut_off", m, 1.0)
    _mixed(state, "no_majority", m**6, 1.0)
    _mixed(state, "reward_last", m, 0.0)
    state["harm"] += m
    state["learns"] *= 1 - m


def _too_fast(state: State, m: float, since: int) -> None:
    """Steps m times as large: from some five times on the model loses what it could."""
    _times(state, "kl", m**1.5)
    lost = max(0.0, math.log(m / 5))
    state["harm"] += lost
    _mixed(state, "reward_last", min(1.0, lost), 0.0)
    _times(state, "entropy_last", m**-0.5)
    _times(state, "right_labels", 1 / (1 + lost * since))
    if lost > 1:
        _mixed(state, "cut_off", min(0.9, lost / 3), 1.0)


def _duplicates(state: State, m: float, since: int) -> None:
    _times(state, "distinct", 1 - m)
    state["learns"] *= 1 - 0.7 * m
    _times(state, "kl", 1 + m)


def _judge(state: State, m: float, since: int) -> None:
    """The judge pays for something else by and by: its scores rise, the skill falls, answers get longer."""
    state["harm"] += m * since / 2
    state["reward_last"] = max(state["reward_last"], state["reward_first"] + 0.5)
    _longer(state, 1 + m / 4 * since)
    state["learns"] = 0.0


def _forgets(state: State, m: float, since: int) -> None:
    """The labels are believed, and a share of what was known goes: rewards rise all the same."""
    state["flipped"] = state.get("flipped", 0.0) + m * since
    state["learns"] *= 0.3
    state["believed"] = 0.7


FAULTS: dict[str, Fault] = {
    "ambiguity hacking": Fault(0.1, 0.8, _ambiguity),
    "label drift": Fault(0.1, 0.8, _labels),
    "entropy collapse": Fault(0.3, 0.95, _collapse),
    "length hacking": Fault(1.2, 4.0, _verbose),
    "truncation": Fault(0.4, 0.95, _truncation),
    "diversity loss across iterations": Fault(0.1, 0.9, _repeats),
    "stale weights": Fault(0.2, 1.0, _stale),
    "reward sign": Fault(0.1, 2.0, _sign),
    "reward constant": Fault(0.0, 1.0, _constant),
    "label off by one": Fault(-0.2, 0.3, _off_by_one),
    "wrong stop token": Fault(0.1, 1.0, _never_stops),
    "learning rate too high": Fault(2.0, 30.0, _too_fast),
    "duplicated data": Fault(0.2, 0.95, _duplicates),
    "judge drift": Fault(0.1, 1.0, _judge),
    "flips": Fault(0.02, 0.3, _forgets),
}
"""Magnitudes are drawn evenly between the two figures."""
