"""The session that kopf watches through: one namespace that is refused waits, and holds up no other."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import kopf
import pytest
from aiohttp import web

from selfevo_core.impersonation import impersonated
from selfevo_operator.api import credentials
from selfevo_operator.api.kube import ApiError, Kube


def test_a_watch_that_is_refused_waits_until_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "_ASK_AGAIN_S", 0.01)
    left, reported = {"closed": 3, "lab": 0}, []

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
            patient = credentials._Patient(session, lambda namespace, words: reported.append((namespace, words)))
            assert not patient.closed and patient.headers is session.headers
            for namespace in ("lab", "closed"):
                url = f"{server}/apis/batch/v1/namespaces/{namespace}/jobs?watch=true"
                assert (await patient.request("get", url)).status == 200
            assert (await patient.request("get", f"{server}/apis")).status == 403
        await runner.cleanup()

    asyncio.run(scene())
    assert reported == [("closed", "no watch in closed")] * 3 + [("closed", "")]


KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: here
contexts: [{{name: here, context: {{cluster: c, user: u}}}}]
clusters: [{{name: c, cluster: {{server: "http://api.example", proxy-url: "{proxy}"}}}}]
users:
  - name: u
    user:
      as: team
      as-uid: "7"
      as-groups: [a, b]
      as-user-extra: {{example.com/x: [y]}}
      exec:
        apiVersion: client.authentication.k8s.io/v1
        command: {folder}/plugin
        interactiveMode: Never
"""
PLUGIN = """#!/bin/sh
echo >> {folder}/calls
n=$(wc -l < {folder}/calls)
echo '{{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",'
echo '"status": {{"token": "token-'$n'"}}}}'
"""


def test_own_calls_go_by_the_proxy_for_whom_kubeconfig_says_with_a_token_that_is_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "_RENEW_AGAIN_S", 0.0)
    monkeypatch.setenv("KUBECONFIG", "")
    plugin = tmp_path / "plugin"
    plugin.write_text(PLUGIN.format(folder=tmp_path))
    plugin.chmod(0o755)
    asked: list[tuple[str, list[str]]] = []
    valid: list[str] = []

    async def proxied(request: web.Request) -> web.Response:
        shown = request.headers
        asked.append((request.headers["Host"], shown.getall("Impersonate-Group", [])))
        assert (shown["Impersonate-User"], shown["Impersonate-Uid"]) == ("team", "7")
        assert shown["Impersonate-Extra-example.com%2Fx"] == "y"
        valid[:] = valid or [shown["Authorization"]]
        if shown["Authorization"] != valid[0]:
            return web.json_response({"message": "who?"}, status=401)
        return web.json_response({"metadata": {}})

    async def scene() -> None:
        app = web.Application()
        app.add_routes([web.route("*", "/{path:.*}", proxied)])
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        config = tmp_path / "config"
        config.write_text(KUBECONFIG.format(proxy=f"http://127.0.0.1:{runner.addresses[0][1]}", folder=tmp_path))

        def login() -> credentials.Connection:
            return credentials.connection(str(config), kopf.OperatorSettings())

        async with Kube.session(20) as session:
            kube = Kube(session, credentials.endpoint(login(), login), lambda *_: None)
            await kube.get_job("lab", "x")
            valid[:] = ["Bearer none that anybody has"]
            with pytest.raises(ApiError) as refused:
                await kube.get_job("lab", "x")
            assert refused.value.status == 401
            tokens = len((tmp_path / "calls").read_text().splitlines())
            valid[:] = [f"Bearer token-{tokens + 1}"]
            await kube.get_job("lab", "x")
            watched = credentials.watching_session(login(), lambda: None, lambda *_: None)
            valid.clear()
            async with watched.aiohttp_session.get("http://api.example/apis") as answer:
                assert answer.status == 200
            await watched.aiohttp_session.close()
        await runner.cleanup()

    asyncio.run(scene())
    assert asked and {(host, *groups) for host, groups in asked} == {("api.example", "a", "b")}


def test_nobody_is_impersonated_where_kubeconfig_does_not_say_so() -> None:
    assert impersonated({"token": "x"}) == ()
