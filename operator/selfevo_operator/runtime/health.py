"""/healthz, /readyz and /metrics, served by the event loop that does the work: a stuck loop does not answer."""

from __future__ import annotations

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from selfevo_operator.runtime.errors import OperatorError
from selfevo_operator.runtime.metrics import Metrics
from selfevo_operator.runtime.probes import Probes


async def serve(probes: Probes, metrics: Metrics, host: str, port: int) -> web.AppRunner:
    """Start serving; ``cleanup()`` of what is returned ends it.

    Raises:
        OperatorError: the address is taken.
    """

    async def healthz(_: web.Request) -> web.Response:
        return _verdict(probes.unhealthy())

    async def readyz(_: web.Request) -> web.Response:
        return _verdict(probes.unready() or probes.unhealthy())

    async def show_metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", show_metrics)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        await runner.cleanup()
        raise OperatorError(f"--listen {host}:{port} cannot be had: {error.strerror}; choose another") from None
    return runner


def _verdict(why_not: str) -> web.Response:
    return web.Response(text=f"{why_not or 'ok'}\n", status=503 if why_not else 200)
