"""`selfevo logs` in a cluster: the logs of one attempt's trainers, from their pods, or from the store when these are
gone."""

from __future__ import annotations

from collections.abc import Collection

from selfevo.cluster.client import Resource
from selfevo.cluster.connection import connect
from selfevo.cluster.errors import NotFound
from selfevo.cluster.follow import follow_logs
from selfevo.cluster.kept import kept_logs
from selfevo.cluster.pods import missing, newest, prefix, print_line, state
from selfevo.target import ClusterRun
from selfevo_contract import reasons
from selfevo_contract.errors import InputError, SelfevoError
from selfevo_contract.status import AttemptStatus


def show_logs(target: ClusterRun, step: str | None, *, attempt: int | None, follow: bool) -> None:
    """Print the log of the newest attempt at ``step`` (of the run, when not given), shards and nodes with their number.

    Raises:
        InputError: there is no such step or attempt, or its pods are gone.
    """
    cluster = connect(target.access)
    resource = cluster.run(target.name)
    chosen = choose(resource, step, attempt)
    pods = newest(cluster.pods(chosen.name))
    if follow and (pods or chosen.state in ("Running", "Pending")):
        follow_logs(cluster, resource, chosen)
        return
    started = [pod for pod in pods if state(pod) != "Waiting"]
    if not started:
        if pods or not show_kept(resource, chosen):
            raise InputError(missing(chosen, pods), reason=reasons.NO_LOG)
        return
    for pod in started:
        front = prefix(resource, chosen, pod)
        try:
            for line, _ in cluster.log(pod["metadata"]["name"]):
                print_line(front, line)
        except NotFound:
            raise InputError(missing(chosen, []), reason=reasons.NO_LOG) from None


def show_kept(resource: Resource, attempt: AttemptStatus) -> bool:
    """Print what the store has of the attempt's logs; whether it has any.

    Raises:
        InputError: the store cannot be read from here.
    """
    try:
        found = kept_logs(resource, attempt.step, attempt.name)
        logs = [(log, log.lines(found[0])) for log in found[1]] if found else []
    except SelfevoError as error:
        raise InputError(
            f"the pod of {attempt.step}, attempt {attempt.attempt} is gone, and the store, which may have its log, "
            f"cannot be read from here: {error}",
            reason=reasons.NO_LOG,
        ) from None
    for log, lines in logs:
        parts = [f"pod {log.index}"] if len({other.index for other, _ in logs}) > 1 else []
        parts += [] if log.rank is None else [f"rank {log.rank}"]
        parts += ["server"] if log.server else []
        front = " ".join(parts) + " | " if parts else ""
        for line in lines:
            print_line(front, line)
    return bool(logs)


def choose(resource: Resource, step: str | None, attempt: int | None) -> AttemptStatus:
    """The newest attempt that is asked for. Pure."""
    planned = resource.plan
    steps: Collection[str] = planned.by_name if planned else [s.name for s in resource.status.steps]
    if step is not None and step not in steps:
        raise InputError(f"{step!r} is no step of the run; choose one of {', '.join(steps) or 'none: it has none yet'}")
    known = [a for a in resource.status.attempts if step in (None, a.step) and attempt in (None, a.attempt)]
    if known:
        live = [a for a in known if a.state in ("Running", "Pending")]
        return (live or known)[-1]
    what = (step or "the run") + (f", attempt {attempt}" if attempt is not None else "")
    record = next((s for s in resource.status.steps if s.name == step), None)
    if record is not None and record.reused:
        raise InputError(f"{what} has no log: its output was in the store already", reason=reasons.NO_LOG)
    if record is not None and record.attempts:
        raise InputError(f"{what} is not among the attempts that the run's status still names; its pod is gone")
    raise InputError(f"{what} has not begun yet, so there is no log; name another step or wait", reason=reasons.NO_LOG)
