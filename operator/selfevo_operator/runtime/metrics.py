"""What Prometheus sees of the operator."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from selfevo_contract.status import RunPhase
from selfevo_operator.observed.figures import Figure

_FAST = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


disable_created_metrics()  # type: ignore[no-untyped-call]  # twice as many series, for a time that nobody asks for


class _Runs(Collector):
    """Counted when asked: a gauge that is kept up to date by hand drifts."""

    def __init__(self, phases: Callable[[], Iterable[str]], jobs: Callable[[], int]) -> None:
        self._phases, self._jobs = phases, jobs

    def collect(self) -> Iterator[Any]:
        runs = GaugeMetricFamily("selfevo_runs", "Runs by phase.", labels=["phase"])
        tally = Tally(self._phases())
        for phase in get_args(RunPhase):
            runs.add_metric([phase], tally[phase])
        yield runs
        yield GaugeMetricFamily("selfevo_jobs", "Jobs of runs that the operator knows of.", value=self._jobs())


class _WentOn(Collector):
    """A series for each run whose steps run: runs that wait, for a queue, a node or a person, are not in it."""

    def __init__(self, went_on: Callable[[], Iterable[tuple[str, str, float]]]) -> None:
        self._went_on = went_on

    def collect(self) -> Iterator[Any]:
        times = GaugeMetricFamily(
            "selfevo_run_went_on_timestamp_seconds",
            "When an attempt of a run whose steps run began or ended last, in seconds since 1970.",
            labels=["run_namespace", "run"],
        )
        for namespace, name, at in self._went_on():
            times.add_metric([namespace, name], at)
        yield times


RUNS_WITH_FIGURES = 200
"""Runs whose figures are exported: of more, the first ones by namespace and name. It bounds a scrape."""
ENDED_RUNS_STAY = timedelta(minutes=15)
"""So long a run that has ended is among them."""

_FIGURES = {
    "selfevo_run_iteration": ("The iteration that a run works on.", ()),
    "selfevo_run_steps_done": ("Steps of a run that are done.", ()),
    "selfevo_run_gpu_seconds": ("GPU seconds that a run has used.", ()),
    "selfevo_run_tokens": ("Tokens that a run has generated.", ()),
    "selfevo_run_score": ("Score of an iteration's Solver; 0 is the base.", ("iteration",)),
    "selfevo_run_figure": ("Another figure of an iteration.", ("iteration", "figure")),
    "selfevo_step_done_ratio": ("How much of a running step is done.", ("step",)),
    "selfevo_step_tokens_per_second": ("Tokens that a running step generates a second.", ("step",)),
    "selfevo_step_figure": ("A figure of a running training's last update.", ("step", "figure")),
}


class _Figures(Collector):
    """Of runs whose steps run or that have just ended, as their statuses have them."""

    def __init__(self, figures: Callable[[], Iterable[tuple[str, str, Sequence[Figure]]]]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Any]:
        families = {
            name: GaugeMetricFamily(name, words, labels=["run_namespace", "run", *labels])
            for name, (words, labels) in _FIGURES.items()
        }
        for namespace, run, figures in self._figures():
            for figure in figures:
                families[figure.metric].add_metric([namespace, run, *figure.labels], figure.value)
        yield from families.values()


class Metrics:
    """The operator's metrics in a registry of their own.

    Args:
        phases: of all runs.
        jobs: how many Jobs there are.
        went_on: namespace and name of each run whose steps run, and when it went on last (seconds since 1970).
        figures: namespace, name and figures of such runs.
    """

    def __init__(
        self,
        phases: Callable[[], Iterable[str]],
        jobs: Callable[[], int],
        went_on: Callable[[], Iterable[tuple[str, str, float]]] = list,
        figures: Callable[[], Iterable[tuple[str, str, Sequence[Figure]]]] = list,
    ) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        registry.register(_Runs(phases, jobs))
        registry.register(_WentOn(went_on))
        registry.register(_Figures(figures))
        self.transitions = Counter(
            "selfevo_transitions", "Transitions of runs, by the reason that their Event gives.", ["reason"],
            registry=registry,
        )  # fmt: skip
        self.reconcile = Histogram(
            "selfevo_reconcile_duration_seconds", "Time of one reconcile of a run, API calls included.", buckets=_FAST,
            registry=registry,
        )  # fmt: skip
        self.errors = Counter(
            "selfevo_reconcile_errors", "Reconciles that failed and are tried again.", registry=registry
        )
        self.depth = Gauge("selfevo_queue_depth", "Runs that wait to be reconciled.", registry=registry)
        self.age = Gauge("selfevo_queue_oldest_seconds", "How long the oldest of them has waited.", registry=registry)
        self.calls = Counter(
            "selfevo_api_calls", "Calls to the API server; code 0 is no answer.", ["verb", "resource", "code"],
            registry=registry,
        )  # fmt: skip
        self.gap = Histogram(
            "selfevo_step_gap_seconds", "From hearing that a step's Job has ended to the next Job's existence.",
            buckets=_FAST, registry=registry,
        )  # fmt: skip
        self.refused = Gauge(
            "selfevo_namespace_refused", "1 while the API server does not let us list or watch this served namespace.",
            ["namespace"], registry=registry,
        )  # fmt: skip
        self.events = Counter("selfevo_watch_events", "Watch events.", ["resource"], registry=registry)
        self.missed = Counter(
            "selfevo_watch_missed", "Objects whose change a list showed and the watch had not.", ["resource"],
            registry=registry,
        )  # fmt: skip

    def called(self, verb: str, resource: str, code: int) -> None:
        self.calls.labels(verb, resource, str(code)).inc()
