"""Who asks for pods while others do shares their LIST, and gets its own pods only."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from selfevo_operator.api.kube import ApiError
from selfevo_operator.api.pod_lists import CONTROLLER_UID, PodLists


class Server:
    """Answers when its event is set."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[str], bool]] = []
        self.answer = asyncio.Event()
        self.error: ApiError | None = None

    async def ask(self, namespace: str, uids: Sequence[str], cached: bool) -> list[dict[str, Any]]:
        self.asked.append((namespace, list(uids), cached))
        await self.answer.wait()
        if self.error is not None:
            raise self.error
        pods = [{"metadata": {"name": f"{uid}-{n}", "labels": {CONTROLLER_UID: uid}}} for uid in uids for n in (0, 1)]
        return list(reversed(pods))


def names(pods: list[dict[str, Any]]) -> list[str]:
    return sorted(pod["metadata"]["name"] for pod in pods)


async def asking(server: Server, *asks: tuple[str, str, bool]) -> list[Any]:
    lists = PodLists(server.ask)
    tasks = []
    for namespace, uid, cached in asks:
        tasks.append(asyncio.create_task(lists.of(namespace, uid, cached=cached)))
        await asyncio.sleep(0.001)
    server.answer.set()
    return await asyncio.gather(*tasks, return_exceptions=True)


def test_who_comes_later_shares_the_next_list() -> None:
    async def run() -> None:
        server = Server()
        found = await asking(server, *[("lab", f"job{n}", False) for n in range(6)], ("lab", "job4", False))
        assert server.asked == [("lab", ["job0"], False), ("lab", ["job1", "job2", "job3", "job4", "job5"], False)]
        assert [names(pods) for pods in found] == [[f"job{n}-0", f"job{n}-1"] for n in (0, 1, 2, 3, 4, 5, 4)]

    asyncio.run(run())


def test_namespaces_and_demands_are_not_mixed() -> None:
    async def run() -> None:
        server = Server()
        places = [("lab", True), ("lab", False), ("other", True)]
        await asking(server, *[(namespace, f"job{n}", cached) for n in range(4) for namespace, cached in places])
        assert len(server.asked) == 6
        for namespace, cached in places:
            mine = [uids for where, uids, how in server.asked if (where, how) == (namespace, cached)]
            assert mine == [["job0"], ["job1", "job2", "job3"]]

    asyncio.run(run())


def test_one_list_does_not_become_too_long() -> None:
    async def run() -> None:
        server = Server()
        found = await asking(server, *[("lab", f"job{n}", True) for n in range(120)])
        assert [len(uids) for _, uids, _ in server.asked] == [1, 50, 50, 19]
        assert all(names(pods) == [f"job{n}-0", f"job{n}-1"] for n, pods in enumerate(found))

    asyncio.run(run())


def test_an_error_reaches_everybody_who_shares_it_and_nobody_later() -> None:
    async def run() -> None:
        server = Server()
        server.error = ApiError(429, "TooManyRequests", "later")
        found = await asking(server, *[("lab", f"job{n}", True) for n in range(5)])
        assert found == [server.error] * 5
        server.error = None
        assert names(await PodLists(server.ask).of("lab", "job9", cached=True)) == ["job9-0", "job9-1"]

    asyncio.run(run())


def test_who_gives_up_leaves_the_others_their_list() -> None:
    async def run() -> None:
        server = Server()
        lists = PodLists(server.ask)
        first, second = (asyncio.create_task(lists.of("lab", "job0", cached=True)) for _ in range(2))
        await asyncio.sleep(0.01)
        first.cancel()
        server.answer.set()
        assert names(await second) == ["job0-0", "job0-1"]
        with pytest.raises(asyncio.CancelledError):
            await first
        assert names(await lists.of("lab", "job1", cached=True)) == ["job1-0", "job1-1"]

    asyncio.run(run())
