"""The proxy before the apiserver does wrong exactly as it is set to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import urllib3

from harness.cluster.client import Api, ApiError
from harness.cluster.controlplane import ControlPlane
from harness.cluster.faults import Answer, BlackHole, Delay, DropAfter, DropBefore, Fault, Request, Truncate, WatchEnds
from harness.cluster.manifests import config_map
from harness.cluster.proxy import FaultProxy, proxied

pytestmark = pytest.mark.slow


class TestFaultProxy:
    @pytest.fixture
    def proxy(self, control_plane: ControlPlane) -> Iterator[FaultProxy]:
        with proxied(control_plane) as proxy:
            yield proxy

    @pytest.fixture
    def api(self, control_plane: ControlPlane, proxy: FaultProxy) -> Api:
        return control_plane.client(control_plane.admin_token, proxy.server)

    def names(self, api: Api, namespace: str) -> list[str]:
        found = api.list("configmaps", namespace, fields="metadata.name!=kube-root-ca.crt")
        return [each["metadata"]["name"] for each in found]

    def test_without_faults_it_passes_everything_on_and_counts(self, api: Api, proxy: FaultProxy, namespace: str):
        api.create(config_map("one"), namespace)
        api.patch("configmaps", "one", {"data": {"a": "1"}}, namespace)
        assert api.get("configmaps", "one", namespace)["data"] == {"a": "1"}
        with pytest.raises(ApiError, match="not found"):
            api.get("configmaps", "two", namespace)
        seen = [(r.verb, r.write, r.code, r.answered) for r in proxy.requests if "configmaps" in r.path]
        assert seen == [
            ("create", 1, 201, 201),
            ("patch", 2, 200, 200),
            ("get", None, 200, 200),
            ("get", None, 404, 404),
        ]

    @pytest.mark.parametrize("code", [409, 410, 429, 500, 503])
    def test_it_answers_in_place_of_the_apiserver(self, api: Api, proxy: FaultProxy, namespace: str, code: int):
        proxy.inject(Answer(code, retry_after=7), verb="create", skip=1)
        for name in ("one", "two", "three"):
            if name != "two":
                api.create(config_map(name), namespace)
                continue
            with pytest.raises(ApiError, match="by the proxy") as refused:
                api.create(config_map(name), namespace)
            assert refused.value.status == code
        assert self.names(api, namespace) == ["one", "three"]

    def test_retry_after_is_a_header(self, proxy: FaultProxy):
        proxy.inject(Answer(429, retry_after=7))
        assert urllib3.request("GET", f"{proxy.server}/version", retries=False).headers["Retry-After"] == "7"

    @pytest.mark.parametrize(("fault", "stored"), [(DropBefore(), []), (DropAfter(), ["one"]), (Truncate(5), ["one"])])
    def test_a_lost_request_is_not_stored_and_a_lost_reply_is(
        self, api: Api, proxy: FaultProxy, namespace: str, fault: Fault, stored: list[str]
    ):
        api.create(config_map("kind-is-known", "default"), "default", dryRun="All")
        proxy.inject(fault, verb="create")
        with pytest.raises(urllib3.exceptions.HTTPError):
            api.create(config_map("one"), namespace)
        assert self.names(api, namespace) == stored

    def test_a_black_hole_never_answers(self, api: Api, proxy: FaultProxy):
        proxy.inject(BlackHole(), path="/version$", times=None)
        with pytest.raises(urllib3.exceptions.ReadTimeoutError):
            api.request("GET", "/version", timeout_s=0.3)
        proxy.clear()
        assert api.request("GET", "/version")["major"] == "1"

    def test_a_delay_only_delays(self, api: Api, proxy: FaultProxy):
        proxy.inject(Delay(0.4), path="/version$")
        with pytest.raises(urllib3.exceptions.ReadTimeoutError):
            api.request("GET", "/version", timeout_s=0.1)
        assert api.request("GET", "/version")["major"] == "1"

    @pytest.mark.parametrize(
        ("how", "heard"), [("drop", ["ADDED", "end"]), ("error", ["ADDED", "ERROR", "end"]), ("hold", ["ADDED"])]
    )
    @pytest.mark.parametrize("by", ["rule", "hand"])
    def test_watches_end_as_set(
        self, control_plane: ControlPlane, api: Api, proxy: FaultProxy, namespace: str, how: str, heard: list, by: str
    ):
        if by == "rule":
            proxy.inject(WatchEnds(how, after=1, code=500), verb="watch")
        version = api.listing("configmaps", namespace)["metadata"]["resourceVersion"]
        watch = api.watch("configmaps", namespace, version=version, fields="metadata.name!=kube-root-ca.crt")
        events: list[str] = []

        def listen() -> None:
            for kind, about in watch:
                events.append(kind)
                assert kind != "ERROR" or about["code"] == 500
            events.append("end")

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        control_plane.admin.create(config_map("one"), namespace)
        eventually(lambda: events)
        if by == "hand":
            assert proxy.end_watches(how, code=500) == 1
        control_plane.admin.create(config_map("two"), namespace)
        if how == "hold":
            listener.join(0.5)
            assert listener.is_alive()
        else:
            listener.join(60)
        assert events == heard
        watch.close()
        eventually(lambda: proxy.watching() == 0)

    @pytest.mark.parametrize(("stage", "stored"), [("before", ["one"]), ("stored", ["one", "two"])])
    def test_a_client_can_be_killed_at_any_stage_of_a_write(
        self, api: Api, proxy: FaultProxy, namespace: str, stage: str, stored: list[str]
    ):
        proxy.hook = lambda now, request: now == stage and request.write == 2
        api.create(config_map("one"), namespace)
        with pytest.raises(urllib3.exceptions.HTTPError):
            api.create(config_map("two"), namespace)
        proxy.hook = lambda *_: None
        assert self.names(api, namespace) == stored
        assert [(r.write, r.answered) for r in proxy.writes] == [(1, 201), (2, None)]

    def test_who_is_cut_off_after_a_reply_writes_nothing_more(
        self, control_plane: ControlPlane, api: Api, proxy: FaultProxy, namespace: str
    ):
        """A slow kill: the client has the reply, and goes on over another connection before it is dead."""
        other = control_plane.client(control_plane.admin_token, proxy.server)
        other.find("configmaps", "none", namespace)
        refused: list[Exception] = []

        def go_on() -> None:
            try:
                other.request("POST", other.path("configmaps", namespace), config_map("three"))
            except urllib3.exceptions.HTTPError as error:
                refused.append(error)

        writer, begun, cut = threading.Thread(target=go_on), threading.Event(), threading.Event()

        def hook(stage: str, request: Request) -> None:
            if (stage, request.write) == ("replied", 2):
                writer.start()
                begun.set()
                time.sleep(0.3)
                proxy.cut_off()
                cut.set()

        proxy.hook = hook
        api.create(config_map("one"), namespace)
        api.create(config_map("two"), namespace)
        assert begun.wait(60)  # the reply is here before the hook that follows it
        writer.join(60)
        assert cut.wait(60)  # what it has still to close is the connection that we would ask over
        assert refused and [request.write for request in proxy.writes] == [1, 2]
        assert self.names(api, namespace) == ["one", "two"]


def eventually(true: Callable[[], Any], limit_s: float = 60.0) -> None:
    deadline = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)
