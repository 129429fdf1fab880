"""Simulated runs: what lies under a run's figures, taken from recorded runs, and faults as what they do to it. Pure.

A healthy run is drawn from one recorded run that is healthy by its scores (`healthy_records`). Its quantities in
iterations 1 to 5 are the recorded ones; where three were recorded, 4 and 5 go on with half of the last change, and half
of that. Scores that fell are each other's mean (isotonic regression): the falls of up to 5.5 points in healthy records
are within the errors of their evaluations, which are drawn again. On top come the scatter between runs (a draw for the
run and one for each iteration, each with half of the variance that recorded runs of one arm have in the same iteration,
less what their samples explain) and the scatter of samples, with the sizes that the recorded runs had.

guard_faults.py says what each fault does.
"""

from __future__ import annotations

import json
import math
import random
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scipy.optimize import isotonic_regression

from guard_faults import FAULTS, SHARES, SIZES, State, logistic, logit

RESULTS = Path(__file__).parent / "results"
ITERATIONS = 5
NAMES = {
    "skill": "evaluate/mean",
    "distinct": "solver-rollout/distinct_share",
    "in_band": "solver-rollout/in_band_share",
    "cut_off": "solver-rollout/answers/truncated",
    "right_labels": "solver-rollout/label_accuracy",
    "reward_first": "solver-train/reward_first",
    "reward_last": "solver-train/reward_last",
    "equal": "solver-train/frac_reward_zero_std_last",
    "kl": "solver-train/kl_last",
    "entropy_first": "solver-train/entropy_first",
    "entropy_last": "solver-train/entropy_last",
    "length_first": "solver-train/completions/mean_length_first",
    "length_last": "solver-train/completions/mean_length_last",
}
HEALTHY_ARMS = {"learning.json": ("main", "truth", "on-policy"), "frontier.json": ("main", "truth")}
"""Arms of which every recorded run ends its third iteration ten points above the base or more."""
RECORDED = 3
"""Iterations that every record has."""
CUT_OFF = 0.15
"""Above this share of truncated answers in one of the iterations, which is the literature's limit, a run is not
taken: to notice that is what the guard is for, whatever the score does."""
CONSENSUS, CONSENSUS_SLOPE, CONSENSUS_SCATTER, CONSENSUS_ERROR = 0.68, 0.52, 0.0056, 0.78
"""Mean share of the largest class of equal answers at the base; what it rises for a rise of the score by one; the
scatter around that; and the standard error of its gain, for one of the score's gain of one. Of the twenty healthy runs
of guard_runs.py, whose stores were read on 2026-11-30."""
SIMILAR, SIMILAR_SCATTER = {2: 0.026, 3: 0.070}, 0.4
"""Share of questions that are similar to one of an earlier curriculum, and its scatter on the logit scale; of the same
runs. It grows with what there is to be similar to; 4 and 5 go on as the recorded quantities do."""
GAP = {"learning.json": 0.0, "frontier.json": -0.04}
"""What the votes foretell of the reward at the first update, less that reward, from iteration 2 on; 0 in iteration 1.
Measured in 42 trainings of guard_runs.py and 10 of frontier's arm main, whose stores were read on 2026-11-30. Their
scatter (.08, .07) is that of counting 32 or 64 answers."""
MANY = 1500
"""Above so many, counts are drawn from a normal distribution: of each by itself takes long."""
EQUAL = 0.5
"""Share of groups with equal rewards where a record has none; recorded are .28 to .75 in healthy runs of frontier."""


@dataclass(frozen=True)
class Record:
    """A recorded healthy run: its quantities by iteration, on their scales, the base's skill first."""

    arm: str
    base: float
    path: tuple[State, ...]
    noise: tuple[State, ...]
    """Of counted quantities the variance that comes of counting so few, in the same order."""
    held_out: int
    questions: int
    samples: int


def _counted_among(row: Mapping[str, float]) -> State:
    asked = row["solver-rollout/questions"]
    counted = {"right_labels": row["solver-rollout/kept"], "cut_off": 2 * asked, "reward_first": 64, "reward_last": 64}
    return counted | dict.fromkeys(("distinct", "in_band", "no_majority"), asked)


def _quantities(row: Mapping[str, float]) -> State:
    found = {name: row[key] for name, key in NAMES.items() if key in row}
    found.setdefault("equal", EQUAL)
    found["no_majority"] = row["solver-rollout/dropped_empty_majority"] / row["solver-rollout/questions"]
    for name, of in _counted_among(row).items():
        found[name] = (found[name] * of + 1) / (of + 2)  # 18 right labels of 18 are no share of 1
    return {n: logit(v) if n in SHARES else math.log(max(v, 1e-4)) for n, v in found.items()}


def _noise(row: Mapping[str, float]) -> State:
    """Variances on the logit scale, 1 / (n p (1 - p))."""
    of, found = _counted_among(row), _quantities(row)
    return {n: 1 / ((of[n] + 2) * logistic(found[n]) * (1 - logistic(found[n]))) for n in of}


def healthy_records() -> list[Record]:
    """Of benchmarks/results: every run of `HEALTHY_ARMS` but for those that `CUT_OFF` leaves out."""
    found = []
    for file, arms in HEALTHY_ARMS.items():
        runs = json.loads((RESULTS / file).read_text())["runs"]
        sorting = file == "frontier.json"
        for arm in arms:
            for run in runs[arm].values():
                rows = run["metrics"] if sorting else run
                trained = [rows[str(number)] for number in range(1, ITERATIONS + 1) if str(number) in rows]
                if max(row[NAMES["cut_off"]] for row in trained) > CUT_OFF:
                    continue
                path, noise = tuple(map(_quantities, trained)), tuple(map(_noise, trained))
                for state, skill in zip(path, isotonic_regression([each["skill"] for each in path]).x, strict=True):
                    state["skill"] = float(skill)
                sizes = (300, 600, 8) if sorting else (500, 200, 10)
                found.append(Record(f"{file}/{arm}", logit(rows["0"]["evaluate/mean"]), path, noise, *sizes))
    return found


def scatter(records: Iterable[Record]) -> dict[str, float]:
    """Standard deviation between recorded runs of one arm in the same iteration, pooled, without that of their samples;
    by quantity."""
    by_arm: dict[str, list[Record]] = {}
    for record in records:
        by_arm.setdefault(record.arm, []).append(record)
    found = {}
    for name in (*SHARES, *SIZES):
        more = []
        for group in by_arm.values():
            for i in range(RECORDED) if len(group) > 1 else ():
                between = statistics.variance([record.path[i][name] for record in group])
                more.append(max(0.0, between - statistics.fmean(record.noise[i].get(name, 0.0) for record in group)))
        found[name] = math.sqrt(statistics.fmean(more))
    return found


@dataclass(frozen=True)
class World:
    """One simulated run, healthy where ``fault`` is None."""

    seed: int
    fault: str | None
    start: int
    """The iteration of which the fault is there first."""
    magnitude: float
    oracle: bool
    """Every second run has one; the others have no figure of the labels."""
    size: float = 1.0
    """Times the questions that the recorded run asked."""


def world(seed: int, fault: str | None, sizes: Sequence[float] = (1.0,)) -> World:
    """The one of a seed: start 1 to 3, magnitude over the fault's range, one of the sizes."""
    chance = random.Random(f"world {seed} {fault}")
    low, high = (FAULTS[fault].low, FAULTS[fault].high) if fault else (0.0, 0.0)
    start, magnitude, oracle = chance.randint(1, 3), chance.uniform(low, high), chance.random() < 0.5
    return World(seed, fault, start, magnitude, oracle, chance.choice(sizes))


@dataclass
class Simulation:
    """The figures of a world's run, by iteration, and again after rollbacks with other draws."""

    world: World
    records: list[Record]
    spread: Mapping[str, float]

    def __post_init__(self) -> None:
        own = random.Random(f"run {self.world.seed}")
        recorded = own.choice(self.records)
        self.record = replace(recorded, questions=max(8, round(recorded.questions * self.world.size)))
        self.offset = {name: own.gauss(0, sd / math.sqrt(2)) for name, sd in self.spread.items()}
        self.same_questions = own.gauss(0, 1)
        self.skill: dict[int, float] = {0: self.record.base + self.offset["skill"]}
        self.greedy_wrong = 0.0
        self.agreed = 0.0

    def healthy(self, iteration: int, draw: random.Random) -> State:
        """The quantities that lie under an iteration of the run without a fault."""
        path = self.record.path
        state = {}
        for name in (*SHARES, *SIZES):
            at = path[min(iteration, len(path)) - 1][name]
            if iteration > len(path):
                at += (1 - 0.5 ** (iteration - len(path))) * (path[-1][name] - path[-2][name])
            state[name] = at + self.offset[name] + draw.gauss(0, self.spread[name] / math.sqrt(2))
        state |= {"learns": 1.0, "harm": 0.0}
        return state

    def gain(self, iteration: int) -> float:
        """What the recorded run's score rises in an iteration, on the logit scale."""
        path = [self.record.base, *(state["skill"] for state in self.record.path)]
        beyond = max(0, iteration - len(path) + 1)
        return (path[iteration - beyond] - path[iteration - beyond - 1]) * 0.5**beyond

    def rows(self, iteration: int, ways: int = 0) -> dict[str, float]:
        """What an iteration measures, after so many rollbacks; with the first one the fault is gone."""
        draw = random.Random(f"iteration {self.world.seed} {iteration} {ways}")
        own = random.Random(f"consensus {self.world.seed} {iteration} {ways}")
        if iteration == 0:
            return self.scores(0, draw, own)
        state = self.healthy(iteration, draw)
        paid, name = logistic(state["reward_first"]), self.world.fault
        if name and iteration >= self.world.start and ways == 0:
            FAULTS[name].act(state, self.world.magnitude, iteration - self.world.start + 1)
        self.skill[iteration] = self.skill[iteration - 1] + self.gain(iteration) * state["learns"] - state["harm"]
        self.greedy_wrong = min(0.9, state.get("flipped", 0.0))
        self.agreed += (
            state.get("believed", 0.0)
            * CONSENSUS_SLOPE
            * (logistic(self.skill[iteration - 1] + self.gain(iteration)) - logistic(self.skill[iteration - 1]))
        )
        found = figures(state, self.record, draw, oracle=self.world.oracle)
        found |= self.expected(iteration, paid) | self.similar(iteration, ways, state.get("again", 0.0))
        return {**self.scores(iteration, draw, own), **found}

    def expected(self, iteration: int, paid: float) -> dict[str, float]:
        """What the votes foretell of the reward, which is ``paid`` where no fault lies between them."""
        gap = GAP[self.record.arm.split("/")[0]] if iteration > 1 else 0.0
        return {"solver-rollout/expected_accuracy": min(1.0, max(0.0, paid + gap))}

    def similar(self, iteration: int, ways: int, again: float) -> dict[str, float]:
        """The share of similar questions, of which ``again`` are those of earlier iterations on purpose."""
        if iteration == 1:
            return {}
        draw = random.Random(f"similar {self.world.seed} {iteration} {ways}")
        b, c = (logit(SIMILAR[number]) for number in (2, 3))
        at = b if iteration == 2 else c + {3: 0.0, 4: 0.5, 5: 0.75}[iteration] * (c - b)
        share = (1 - again) * logistic(at + draw.gauss(0, SIMILAR_SCATTER)) + again
        return {"solver-rollout/similar_share": _counted(draw, share, self.record.questions)}

    def score(self, iteration: int) -> float:
        """The true score."""
        return logistic(self.skill[iteration]) * (1 - self.greedy_wrong)

    def scores(self, iteration: int, draw: random.Random, own: random.Random) -> dict[str, float]:
        """Of the held-out questions, which are the same in every iteration: most of the error is theirs."""
        n, true = self.record.held_out, self.score(iteration)
        error = 0.54 * math.sqrt(max(true * (1 - true), 0.01) / n)  # .0124 at n 500, p .51, 8 samples
        error = error if n == 500 else error * 1.75  # .0239 at n 300, p .25, 2 samples
        mean = true + error * (0.87 * self.same_questions + 0.5 * draw.gauss(0, 1))
        mean = min(max(mean, 0.0), 1.0)
        found = {"evaluate/mean": mean, "evaluate/mean_stderr": error}
        if iteration:
            found |= {"evaluate/mean_gain": mean - logistic(self.skill[0])}  # told to nobody but for its error
            found["evaluate/mean_gain_stderr"] = 0.71 * error  # .55 to .86 of it in frontier, more from run to run
            found["evaluate/consensus_gain_stderr"] = CONSENSUS_ERROR * 0.71 * error
            found |= self.flips(draw, n, logistic(self.skill[0]), logistic(self.skill[iteration]))
        rise = CONSENSUS_SLOPE * (true - logistic(self.skill[0])) + self.agreed if iteration else 0.0
        noise = CONSENSUS_SCATTER * error / 0.0124  # measured where that was the score's
        found["evaluate/consensus"] = min(1.0, CONSENSUS + rise + own.gauss(0, noise))
        return found

    def flips(self, draw: random.Random, n: int, before: float, after: float) -> dict[str, float]:
        """Greedy answers against the base's: gains and losses beside a churn of .05 each way, as frontier recorded."""
        lost = 0.05 + max(0.0, before - after) + before * self.greedy_wrong
        won = 0.05 + max(0.0, after - before)
        each = [draw.random() for _ in range(n)]
        up, down = sum(x < won for x in each) / n, sum(won <= x < won + lost for x in each) / n
        gain = up - down
        error = math.sqrt(max(up + down - gain**2, 1 / n) / n)
        return {"evaluate/greedy_gain": gain, "evaluate/greedy_gain_stderr": error}


def _counted(draw: random.Random, share: float, of: int) -> float:
    if of > MANY:
        return min(1.0, max(0.0, round(draw.gauss(share * of, math.sqrt(share * (1 - share) * of))) / of))
    return sum(draw.random() < share for _ in range(of)) / of


def figures(state: State, record: Record, draw: random.Random, *, oracle: bool) -> dict[str, float]:
    """The figures of rollout and Solver training: counts among as many questions, answers, groups as recorded."""
    share = {name: logistic(state[name]) for name in SHARES}
    size = {name: math.exp(state[name]) for name in SIZES}
    n = record.questions
    in_band = _counted(draw, share["in_band"], n)
    kept = max(4, round(0.9 * in_band * n * share["distinct"]))
    # Answers to one question are alike: as if there were two of them.
    found: dict[str, Any] = {
        "solver-rollout/questions": n,
        "solver-rollout/valid": n * _counted(draw, 0.98, n),
        "solver-rollout/kept": kept,
        "solver-rollout/distinct_share": _counted(draw, share["distinct"], n),
        "solver-rollout/in_band_share": in_band,
        "solver-rollout/answers/truncated": _counted(draw, share["cut_off"], 2 * n),
        "solver-rollout/dropped_empty_majority": n * _counted(draw, share["no_majority"], n),
        "solver-train/frac_reward_zero_std_last": _counted(draw, share["equal"], 32),
        "solver-train/reward_first": _counted(draw, share["reward_first"], 64),
        "solver-train/reward_last": _counted(draw, share["reward_last"], 64),
        "solver-train/kl_last": size["kl"],
        "solver-train/entropy_first": size["entropy_first"],
        "solver-train/entropy_last": size["entropy_last"],
        "solver-train/completions/mean_length_first": size["length_first"],
        "solver-train/completions/mean_length_last": size["length_last"],
    }
    if oracle:
        found["solver-rollout/label_accuracy"] = _counted(draw, share["right_labels"], kept)
    return found
