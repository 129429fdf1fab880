"""Long lists come in pages, and begin anew when the server has forgotten what it began to tell."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from harness.objects import run_object
from selfevo_operator.kube import PAGE, ApiError, Endpoint, Kube, Page


class Server(Kube):
    """Answers as told; keeps what was asked."""

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
