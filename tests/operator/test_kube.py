"""Long lists come in pages, and begin anew when the server has forgotten what it began to tell."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from harness.objects import run_object
from selfevo_operator.api.kube import PAGE, ApiError, Endpoint, Kube, Page


class Server(Kube):
    """Answers as it is set to; keeps what was asked."""

    def __init__(self, *answers: dict[str, Any] | ApiError) -> None:
        super().__init__(None, Endpoint("", None, dict), lambda *call: None)  # type: ignore[arg-type]
        self.answers, self.asked = list(answers), list[str]()

    async def _call(self, verb: str, resource: str, path: str, body: Any = None, **_: Any) -> dict[str, Any]:
        query = parse_qs(urlsplit(path).query)
        assert query["limit"] == [str(PAGE)]
        self.asked.append(query.get("continue", [""])[0])
        answer = self.answers.pop(0)
        if isinstance(answer, ApiError):
            raise answer
        return answer

    def pages(self) -> list[Page]:
        async def read() -> list[Page]:
            return [page async for page in self.list_runs(None)]

        return asyncio.run(read())


def answer(version: int, then: str = "", *names: str) -> dict[str, Any]:
    return {
        "metadata": {"resourceVersion": str(version), "continue": then},
        "items": [run_object(1, name=name) for name in names],
    }


def test_a_list_is_read_in_pages() -> None:
    server = Server(answer(7, "a", "one"), answer(7, "", "two"))
    found = [([run["metadata"]["name"] for run in page.items], page.version, page.first) for page in server.pages()]
    assert found == [(["one"], 7, True), (["two"], 7, False)]
    assert server.asked == ["", "a"]


def test_a_list_that_the_server_has_forgotten_is_read_from_its_beginning() -> None:
    server = Server(answer(7, "a", "one"), ApiError(410, "Expired", "too old"), answer(9, "", "two"))
    assert [(page.version, page.first) for page in server.pages()] == [(7, True), (9, True)]
    assert server.asked == ["", "a", ""]


def test_a_list_that_does_not_begin_is_an_error() -> None:
    with pytest.raises(ApiError, match="too old"):
        Server(ApiError(410, "Expired", "too old")).pages()


class Kueue(Kube):
    """An API server with some versions of Workloads, or none, that lets us read them or not."""

    def __init__(self, served: dict[str, Any], *, reads: bool = True) -> None:
        super().__init__(None, Endpoint("", None, dict), lambda *call: None, workloads=reads)  # type: ignore[arg-type]
        self.served, self.asked = served, list[str]()

    async def _call(self, verb: str, resource: str, path: str, body: Any = None, **_: Any) -> dict[str, Any]:
        version = path.split("/")[3]
        self.asked.append(version)
        assert parse_qs(urlsplit(path).query)["labelSelector"] == ["kueue.x-k8s.io/job-uid=j1"]
        found = self.served.get(version, ApiError(404, "NotFound", "no such path"))
        if isinstance(found, ApiError):
            raise found
        return {"items": found}

    def workloads(self) -> list[dict[str, Any]] | None:
        return asyncio.run(self.list_workloads("lab", "j1"))


@pytest.mark.parametrize(
    ("served", "found", "asked"),
    [
        ({"v1beta2": [{}]}, [{}], ["v1beta2"]),
        ({"v1beta1": []}, [], ["v1beta2", "v1beta1"]),
        ({}, None, ["v1beta2", "v1beta1"]),
        ({"v1beta2": ApiError(403, "Forbidden", "no")}, None, ["v1beta2"]),
    ],
    ids=["there", "of an older Kueue", "no Kueue", "not granted"],
)
def test_workloads_are_read_where_there_are_any_and_where_we_may(served: Any, found: Any, asked: list[str]) -> None:
    kueue = Kueue(served)
    assert (kueue.workloads(), kueue.asked) == (found, asked)
    silent = Kueue(served, reads=False)
    assert (silent.workloads(), silent.asked) == (None, [])
