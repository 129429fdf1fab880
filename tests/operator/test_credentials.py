"""The session that kopf watches through: one namespace that is refused waits, and holds up no other."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aiohttp import web

from selfevo_operator import credentials


def test_a_watch_that_is_refused_waits_until_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "_ASK_AGAIN_S", 0.01)
    left, told = {"closed": 3, "lab": 0}, []

    async def jobs(request: web.Request) -> web.Response:
        namespace = request.match_info["namespace"]
        left[namespace] -= 1
        if left[namespace] >= 0:
            return web.json_response({"message": f"no watch in {namespace}"}, status=403)
        return web.json_response({})

    async def nothing(_: web.Request) -> web.Response:
        return web.json_response({"message": "no"}, status=403)

    async def scene() -> None:
        app = web.Application()
        app.add_routes([web.get("/apis/batch/v1/namespaces/{namespace}/jobs", jobs), web.get("/apis", nothing)])
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with aiohttp.ClientSession() as session:
            patient = credentials._Patient(session, lambda namespace, words: told.append((namespace, words)))
            assert not patient.closed and patient.headers is session.headers
            for namespace in ("lab", "closed"):
                url = f"{server}/apis/batch/v1/namespaces/{namespace}/jobs?watch=true"
                assert (await patient.request("get", url)).status == 200
            assert (await patient.request("get", f"{server}/apis")).status == 403
        await runner.cleanup()

    asyncio.run(scene())
    assert told == [("closed", "no watch in closed")] * 3 + [("closed", "")]
