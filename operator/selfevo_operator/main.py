"""kopf's wiring, and nothing else: two watch streams into the queue, settings, the process's beginning and end."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import kopf

from selfevo_operator.api.credentials import CredentialsError, connection, endpoint, watching_session
from selfevo_operator.api.kube import JOB_SELECTOR, Kube
from selfevo_operator.runtime.errors import OperatorError
from selfevo_operator.runtime.health import serve
from selfevo_operator.runtime.operator import Operator
from selfevo_operator.runtime.settings import Patience, Settings, read_settings
from selfevo_traces import open_sender
from selfevo_traces.base import NOWHERE, Sender

log = logging.getLogger("selfevo")
_ENDING_S = 1.0
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


class _Nothing(kopf.DiffBaseStorage):
    """kopf keeps a digest of what it handled last; we handle events only, so there is nothing to keep or compare."""

    def build(self, *, body: Any, extra_fields: Any = None) -> Any:
        return {}

    def fetch(self, *, body: Any) -> Any:
        return None

    def store(self, *, body: Any, patch: Any, essence: Any) -> None:
        return None


def forward_and_strip(event: Any, saw: Callable[[str | None, Any], None]) -> None:
    """Pass a watch event on, and let go of the object's bulk: kopf needs its metadata only from here on.

    kopf's views of an object refer to each other, so that all of it would wait for the garbage collector, which walks
    through every dictionary of it and stops the loop meanwhile (docs/lab-notes.md).
    """
    seen = event["object"]
    saw(event["type"], seen)
    for field in ("spec", "status"):
        seen.pop(field, None)
    seen["metadata"].pop("managedFields", None)


def _registry(operator: Operator, settings: Settings) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(settings: kopf.OperatorSettings, **_: Any) -> kopf.AiohttpSession:
        return watching_session(connection(kubeconfig, settings), operator.resync.watch_began, operator.watch_refused)

    @kopf.on.event("selfevo.dev", "v1alpha1", "selfevolutionruns", registry=registry)
    async def on_run(event: Any, **_: Any) -> None:
        forward_and_strip(event, operator.saw_run)

    @kopf.on.event("batch", "v1", "jobs", registry=registry)
    async def on_job(event: Any, **_: Any) -> None:
        forward_and_strip(event, operator.saw_job)

    kubeconfig = settings.kubeconfig
    return registry


def _kopf_settings(patience: Patience) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True  # neither CRDs nor namespaces: no cluster-wide rights for it
    settings.persistence.diffbase_storage = _Nothing()
    settings.watching.inactivity_timeout = patience.watch  # then it is dead, and opened anew
    settings.watching.connect_timeout = 10
    settings.watching.chunk_size = 100
    settings.queueing.idle_timeout = 1  # its task for an object that has gone quiet costs memory
    settings.watching.label_selectors["batch", "v1", "jobs"] = JOB_SELECTOR
    settings.networking.request_timeout = 60
    settings.process.ultimate_exiting_timeout = 20
    return settings


async def run(settings: Settings, sender: Sender = NOWHERE) -> None:
    """Run until a signal ends it.

    Raises:
        OperatorError, CredentialsError: it cannot go on; the message is one sentence.
    """
    kopf_settings = _kopf_settings(settings.patience)
    async with Kube.session(settings.patience.request) as session, contextlib.AsyncExitStack() as stack:
        kube = Kube(
            session,
            endpoint(
                connection(settings.kubeconfig, kopf_settings), lambda: connection(settings.kubeconfig, kopf_settings)
            ),
            lambda *call: called(*call),
            workloads=settings.read_workloads,
        )
        operator = Operator(kube, settings, sender)
        called = operator.called
        runner = await serve(operator.probes, operator.metrics, settings.host, settings.port)
        stack.push_async_callback(lambda: _briefly(runner.cleanup()))
        stop_requested = asyncio.Event()
        others = [
            asyncio.create_task(stop_requested.wait()),
            asyncio.create_task(operator.resync.run(kube)),
            asyncio.create_task(operator.work()),
        ]
        ours = asyncio.all_tasks()
        tasks = await kopf.spawn_tasks(
            registry=_registry(operator, settings),
            settings=kopf_settings,
            standalone=True,
            clusterwide=not settings.namespaces,
            namespaces=settings.namespaces,
        )
        # In place of kopf's own, after which it waits five seconds for whoever is connected to /metrics.
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop_requested.set)
        watching = asyncio.create_task(kopf.run_tasks(tasks, ignored=ours), name="watching")
        try:
            # Of kopf, too: where a watch fails while another is opened, `watching` ends late and without the error.
            done, _ = await asyncio.wait([watching, *others, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                _raise(task)
            if not stop_requested.is_set():
                raise OperatorError("watching ended by itself; starting anew")
        finally:
            # An error in a task that is being cancelled is a consequence, and has no place behind the cause.
            asyncio.get_running_loop().set_exception_handler(lambda *_: None)
            for task in [watching, *others]:
                task.cancel()
            await _briefly(asyncio.gather(watching, *others, return_exceptions=True))


def _collect_seldom() -> None:
    """Let Python collect garbage in cycles less often, and never in what was imported: it stops the loop meanwhile.

    By default it did so for 280 ms at a time, a fifth of the operator's time with 400 runs at once (docs/lab-notes.md).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 20, 50)


def _give_memory_back() -> None:
    """Have the C library return what it has freed: the text of a list is large and short-lived.

    By default it takes the largest block it has seen freed as the measure of what to keep (mallopt(3)).
    """
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        libc = ctypes.CDLL(None)
        for parameter in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            libc.mallopt(parameter, 128 * 1024)


async def _briefly(end: Awaitable[Any]) -> None:
    """Wait for an end, but not for ever: a stream that is dead does not notice that it is closed."""
    with contextlib.suppress(TimeoutError, asyncio.CancelledError):
        await asyncio.wait_for(asyncio.shield(end), _ENDING_S)


def _raise(task: asyncio.Task[Any]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is None or isinstance(error, OperatorError | CredentialsError):
        if error is not None:
            raise error
        return  # a signal
    raise OperatorError(f"watching ended: {type(error).__name__}: {error}; starting anew") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the operator; returns the exit code. Tasks of kopf's may still be there: the process should end at once."""
    settings = read_settings(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if settings.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    if not settings.verbose:
        logging.getLogger("kopf").setLevel(logging.WARNING)
        # Why a watch has failed reaches us as an exception; kopf logs it three times, with tracebacks.
        logging.getLogger("kopf._core.reactor").setLevel(logging.CRITICAL)
    where = ", ".join(settings.namespaces) or "all namespaces"
    log.info("selfevo operator, process %d: runs of %s", os.getpid(), where)
    _collect_seldom()
    _give_memory_back()
    loop = asyncio.new_event_loop()  # not asyncio.run: at its end it waits for every task, however long that takes
    asyncio.set_event_loop(loop)
    sender = open_sender("selfevo-operator", log.warning)
    try:
        loop.run_until_complete(run(settings, sender))
    except (OperatorError, CredentialsError) as error:
        log.error("%s", error)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        sender.close()
    return 0
