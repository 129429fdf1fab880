"""The engine that asks an OpenAI-compatible server: what it asks, what it makes of the answers, and of wrong ones."""

from __future__ import annotations

import itertools
import json
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from harness.openai_standin import Body, Reply, Standin, openai_server
from harness.ports import free_port
from harness.tiny import BASE, HELDOUT
from selfevo_contract.errors import InputError, SelfevoError, ServiceError
from selfevo_contract.phases import Loading
from selfevo_contract.spec.engines import ServerEngine
from selfevo_contract.spec.prompts import Prompt
from selfevo_contract.spec.sampling import Sampling
from selfevo_trainer.endpoints import client
from selfevo_trainer.engines import Completion, Frozen, open_engine
from selfevo_trainer.prompts import Messages, messages

NAME = "solver-train/abc"
LOADING = Loading(dtype="float32", trust_remote_code=False)


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(client, "LONGEST_WAIT_S", 0.02)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[Standin]:
    with openai_server(NAME) as standin:
        yield standin


def asks(count: int) -> list[Messages]:
    lines = HELDOUT.read_text().splitlines()[:count]
    return [messages(Prompt(user="{question}"), json.loads(line)["question"]) for line in lines]


def sampling(**settings: Any) -> Sampling:
    return Sampling.model_validate({"topP": 1.0, "maxCompletionLength": 32, **settings})


def opened(url: str, *, longest: int = 80, **settings: Any) -> Any:
    endpoint = {"url": url, **settings.pop("endpoint", {})}
    spec = ServerEngine.model_validate({"kind": "server", "startupSeconds": 3, "endpoint": endpoint, **settings})
    return open_engine(spec, Frozen(BASE, LOADING, NAME, "solver", longest))


def refusal(call: Callable[[], Any], kind: type[SelfevoError], *says: str) -> str:
    """The one sentence with which ``call`` ends."""
    with pytest.raises(SelfevoError) as caught:
        call()
    message = str(caught.value)
    assert type(caught.value) is kind, message
    assert [part for part in says if part not in message] == [], message
    assert "; " in message and "\n" not in message and not message.endswith(".") and len(message) < 700, message
    return message


# --- what is asked, and what is made of the answers


def test_a_request_for_each_prompt_and_sample_with_a_seed_of_its_own(server: Standin) -> None:
    engine = opened(server.url)
    made = engine.generate(asks(3), sampling(temperature=0.7, topP=0.9, topK=5), 4, seed=7, streams=[10, 11, 12])
    assert [len(group) for group in made] == [4, 4, 4]
    bodies = server.bodies()
    assert len(bodies) == 12 == len({body["seed"] for body in bodies})
    assert all(0 <= body["seed"] < 2**63 for body in bodies)
    first = bodies[0]
    assert all(isinstance(token, int) for token in first["prompt"])
    wanted = {"model": NAME, "max_tokens": 32, "temperature": 0.7, "top_p": 0.9, "top_k": 5}
    assert {name: first[name] for name in wanted} == wanted
    # what a server would take from the model's own habits
    assert (first["repetition_penalty"], first["min_p"]) == (1.0, 0.0)
    assert engine.tokenizer.eos_token_id in first["stop_token_ids"]
    assert opened(server.url).generate(asks(3), sampling(topK=0), 1, 7) and server.bodies()[-1]["top_k"] == -1
    greedy = opened(server.url).generate(asks(1), sampling(temperature=0), 1, 7)
    assert greedy and server.bodies()[-1]["temperature"] == 0 and "seed" not in server.bodies()[-1]


@pytest.mark.slow
def test_answers_are_in_order_and_the_same_whatever_is_under_way_beside_them(server: Standin) -> None:
    prompts = asks(6)
    whole = opened(server.url).generate(prompts, sampling(), 5, seed=7)
    assert len({completion.text for group in whole for completion in group}) > 25
    slow = random.Random(0)

    def in_any_order(_: Body) -> None:
        time.sleep(slow.uniform(0, 0.02))

    server.wrong["/v1/completions"] = in_any_order
    server.most_at_once = 0
    for concurrency in (1, 3, 64):
        engine = opened(server.url, maxConcurrency=concurrency)
        assert engine.generate(prompts, sampling(), 5, seed=7) == whole
        assert server.most_at_once <= concurrency
    assert server.most_at_once > 3
    # A part of the prompts under their own numbers gets what it got in the whole; another seed gets something else.
    assert opened(server.url).generate([prompts[4]], sampling(), 2, 7, [4]) == [whole[4][:2]]
    assert opened(server.url).generate(prompts, sampling(), 5, seed=8) != whole


def test_an_answer_is_decoded_here_and_cut_ones_are_distinguished(server: Standin) -> None:
    engine = opened(server.url)
    digits = engine.tokenizer("85", add_special_tokens=False)["input_ids"]
    end = engine.tokenizer.eos_token_id
    cases: list[tuple[dict[str, Any], Completion]] = [
        ({"token_ids": [*digits, end], "finish_reason": "stop"}, Completion("85", len(digits) + 1, False)),
        ({"token_ids": digits, "finish_reason": "length"}, Completion("85", len(digits), True)),
        # ended at once: an answer of its own, and no fault
        ({"token_ids": [end], "finish_reason": "stop"}, Completion("", 1, False)),
        ({"token_ids": [], "text": "", "finish_reason": "stop"}, Completion("", 0, False)),
        # a server that gives no token ids
        ({"token_ids": None, "text": " 85 ", "finish_reason": "stop"}, Completion(" 85 ", 3, False)),
        ({"token_ids": None, "text": "", "finish_reason": "length"}, Completion("", 3, True)),
    ]
    for choice, wanted in cases:
        content = {"model": NAME, "choices": [{"text": "?", **choice}], "usage": {"completion_tokens": 3}}
        server.wrong["/v1/completions"] = lambda _, content=content: Reply(content=content)
        assert engine.generate(asks(1), sampling(), 1, 7) == [[wanted]]


def test_replicas_share_the_prompts_and_stand_in_for_each_other(server: Standin) -> None:
    with openai_server(NAME) as other, openai_server(NAME) as front:
        listed = {"data": [{"id": NAME, "urls": [server.url, other.url]}]}
        front.wrong["/v1/models"] = lambda _: Reply(content=listed)
        engine = opened(front.url)
        whole = engine.generate(asks(6), sampling(), 3, 7)
        assert (len(server.bodies()), len(other.bodies()), len(front.bodies())) == (9, 9, 0)
        other.wrong["/v1/completions"] = lambda _: Reply(drop=True)
        assert engine.generate(asks(6), sampling(), 3, 7) == whole


def test_scores_by_either_way_that_servers_have(server: Standin) -> None:
    rows = [[5, 6, 7], [9, 8]]
    wanted = [[-0.6, -0.7], [-0.8]]
    engine = opened(server.url)
    assert engine.score(rows) == wanted

    def echo_only(body: Body) -> Reply:
        if "prompt_logprobs" in body:
            return Reply(400, {"error": {"message": "unknown field prompt_logprobs"}})
        values = [None, *(-token / 10 for token in body["prompt"][1:]), -0.5]
        return Reply(content={"model": NAME, "choices": [{"logprobs": {"token_logprobs": values}}]})

    server.wrong["/v1/completions"] = echo_only
    assert engine.score(rows) == wanted


def test_a_token_is_sent_and_no_proxy_is_asked_for_this_machine(
    server: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFEVO_SERVER_TOKEN", "secret")
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    opened(server.url).generate(asks(1), sampling(), 1, 7)
    assert {headers["authorization"] for _, _, headers in server.asked} == {"Bearer secret"}
    refusal(lambda: opened("http://llm.invalid:80", startupSeconds=1), ServiceError, "does not answer")


def test_the_name_of_the_model_is_the_endpoints_own_where_it_has_one() -> None:
    with openai_server("platform/solver") as server:
        engine = opened(server.url, endpoint={"model": "platform/solver"})
        assert engine.generate(asks(1), sampling(), 1, 7)
        assert server.bodies()[0]["model"] == "platform/solver"


# --- what goes wrong and may go well again


def at_first(times: int, reply: Reply) -> Callable[[Body], Reply | None]:
    count = itertools.count()
    return lambda _: reply if next(count) < times else None


@pytest.mark.slow
@pytest.mark.parametrize(
    "reply",
    [
        Reply(429, {"error": {"message": "slow down"}}, {"Retry-After": "0.01"}),
        Reply(500, {"error": {"message": "boom"}}),
        Reply(503),
        Reply(drop=True),
        Reply(content={"choices": [{"text": "half"}]}, cut=True),
        Reply(content=b'{"choices": ['),
        Reply(content={"choices": []}),
        Reply(content={"choices": [{"text": "x", "finish_reason": "abort"}]}),
    ],
    ids=["429", "500", "503", "dropped", "half", "half-json", "no-sample", "aborted"],
)
def test_what_goes_wrong_a_few_times_changes_no_answer(server: Standin, reply: Reply) -> None:
    engine = opened(server.url)
    whole = engine.generate(asks(4), sampling(), 3, 7)
    server.wrong["/v1/completions"] = at_first(5, reply)
    assert engine.generate(asks(4), sampling(), 3, 7) == whole


def test_a_server_that_asks_for_a_pause_gets_it(server: Standin) -> None:
    engine = opened(server.url)
    server.wrong["/v1/completions"] = at_first(1, Reply(429, None, {"Retry-After": "0.5"}))
    begun = time.monotonic()
    assert engine.generate(asks(1), sampling(), 1, 7)
    assert time.monotonic() - begun >= 0.5


def test_a_server_that_is_not_ready_yet_is_waited_for() -> None:
    port = free_port()
    found: list[Any] = []
    waiting = threading.Thread(
        target=lambda: found.append(
            opened(f"http://127.0.0.1:{port}", startupSeconds=60).generate(asks(1), sampling(), 1, 7)
        )
    )
    waiting.start()
    with openai_server(NAME, port=port) as server:
        server.wrong["/v1/models"] = at_first(3, Reply(503, {"error": {"message": "loading"}}))
        waiting.join()
    assert found and len(found[0]) == 1


# --- what ends a phase: one sentence each


def test_a_server_that_never_becomes_ready(server: Standin) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    says = ["engine.endpoint.url", nobody, "does not answer", "Connection refused", "engine.startupSeconds"]
    refusal(lambda: opened(nobody, startupSeconds=1), ServiceError, *says)
    server.wrong["/v1/models"] = lambda _: Reply(503, {"error": {"message": "loading"}})
    refusal(lambda: opened(server.url, startupSeconds=1), ServiceError, "answers 503 (loading)", "startupSeconds")


ENDS: dict[str, tuple[Reply, type[SelfevoError], list[str]]] = {
    "dies": (Reply(drop=True), ServiceError, ["does not answer", "look at its log"]),
    "429": (Reply(429, {"detail": "quota"}, {"retry-after": "9999"}), ServiceError, ["answers 429 (quota)", "for "]),
    "500": (Reply(500, {"error": {"message": "CUDA\x1b[31m\nx."}}), ServiceError, ["500 (CUDA [31m x)", "8 times"]),
    "half": (Reply(content={"a": "b" * 100}, cut=True), ServiceError, ["a part of an answer only", "8 times"]),
    "no JSON": (Reply(content=b"<html>"), ServiceError, ["no JSON ('<html>')", "8 times"]),
    "no samples": (Reply(content={"choices": []}), ServiceError, ["gave 0 samples where 1 was asked for"]),
    "two samples": (Reply(content={"choices": [{}, {}]}), ServiceError, ["gave 2 samples where 1"]),
    "no reason": (Reply(content={"choices": [{"text": ""}]}), ServiceError, ["finish_reason 'None'"]),
    "aborted": (
        Reply(content={"choices": [{"text": "", "finish_reason": "abort"}]}), ServiceError, ["finish_reason 'abort'"],
    ),
    "no text": (Reply(content={"choices": [{"finish_reason": "stop"}]}), ServiceError, ["without its text"]),
    "too long": (
        Reply(content={"choices": [{"token_ids": [5] * 33, "finish_reason": "length"}]}), ServiceError, ["33 tokens"],
    ),
    "a list": (Reply(content=[]), ServiceError, ["without choices"]),
    "another model": (
        Reply(content={"model": "other", "choices": [{}]}),
        InputError, [f"answers as 'other' where '{NAME}' was asked"],
    ),
    "another prompt": (
        Reply(content={"choices": [{"token_ids": [5], "prompt_token_ids": [1, 2], "finish_reason": "stop"}]}),
        InputError, ["answers another prompt than it was given", "tokenizer"],
    ),
    "too long a prompt": (
        Reply(400, {"error": {"message": "This model's maximum context length is 8 tokens."}}),
        InputError, ["has no room for a prompt of", "maxCompletionLength 32", "maximum context length is 8 tokens)"],
    ),
    "400": (Reply(400, {"error": {"message": "text only"}}), InputError, ["400 (text only)", "token ids"]),
    "401": (Reply(401, {"error": "Unauthorized"}), InputError, ["401 (Unauthorized)", "engine.endpoint.tokenSecret"]),
    "403": (Reply(403), InputError, ["answers 403", "SELFEVO_SERVER_TOKEN"]),
    "404": (Reply(404, {"message": "no such model"}), InputError, ["answers 404 (no such model)"]),
    "redirect": (Reply(307, None, {"location": "http://else/"}), InputError, ["redirects (307) to http://else/"]),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDS)
def test_an_answer_that_stays_wrong_is_one_sentence(server: Standin, name: str) -> None:
    reply, kind, says = ENDS[name]
    engine = opened(server.url, startupSeconds=1)
    server.wrong["/v1/completions"] = lambda _: reply
    refusal(lambda: engine.generate(asks(2), sampling(), 2, 7), kind, *says)
    engine.close()


def test_a_request_has_a_deadline(server: Standin) -> None:
    engine = opened(server.url, startupSeconds=1, requestTimeout=1)
    release = threading.Event()
    server.wrong["/v1/completions"] = lambda _: Reply(drop=release.wait(60))
    refusal(lambda: engine.generate(asks(1), sampling(), 1, 7), ServiceError, "no answer within engine.requestTimeout")
    release.set()


def test_a_server_of_another_model_is_reported_by_its_name(server: Standin) -> None:
    listed = {"data": [{"id": "Qwen/Qwen3-8B"}, {"id": "other"}]}
    server.wrong["/v1/models"] = lambda _: Reply(content=listed)
    says = ["serves 'Qwen/Qwen3-8B', 'other'", f"'{NAME}' is wanted as the solver", "engine.endpoint.model"]
    refusal(lambda: opened(server.url), InputError, *says)
    server.wrong["/v1/models"] = lambda _: Reply(content={"models": []})
    refusal(lambda: opened(server.url), ServiceError, "without a list of models")


def test_a_server_with_too_short_a_context_is_found_before_anything_is_generated(server: Standin) -> None:
    server.longest = 79
    refusal(lambda: opened(server.url, longest=80), InputError, "takes 79 tokens", "asked for 80")
    assert server.bodies() == []
    # The model has 512 positions: more than that no server can have, and prompts may be shorter than they are allowed.
    refusal(lambda: opened(server.url, longest=2080), InputError, "takes 79 tokens", "asked for 512")
    server.longest = 512
    opened(server.url, longest=2080).close()


def test_an_adapter_takes_as_many_tokens_as_the_model_that_it_is_for(server: Standin) -> None:
    adapter = {"id": NAME, "parent": "base", "max_model_len": None}  # as vLLM lists it
    listed: list[dict[str, Any]] = [{"id": "other", "max_model_len": 40}, {"id": "base", "max_model_len": 79}, adapter]
    server.wrong["/v1/models"] = lambda _: Reply(content={"data": listed})
    refusal(lambda: opened(server.url, longest=80), InputError, "takes 79 tokens", "asked for 80")
    assert server.bodies() == []
    listed[1]["max_model_len"] = 80
    opened(server.url, longest=80).close()
    listed.pop(1)  # a server that does not list it does not say
    opened(server.url, longest=80).close()


def test_another_tokenizer_is_found_where_the_server_shows_its_own(server: Standin) -> None:
    right = opened(server.url).tokenizer

    def tokenize(body: Body) -> Reply:
        assert body["add_special_tokens"] is False
        return Reply(content={"tokens": right(body["prompt"], add_special_tokens=False)["input_ids"]})

    server.wrong["/tokenize"] = tokenize
    opened(server.url)
    server.wrong["/tokenize"] = lambda _: Reply(content={"tokens": [1, 2, 3]})
    refusal(lambda: opened(server.url), InputError, "the tokenizer of", "3 tokens", "its own tokenizer")
    for none in (Reply(404), Reply(500), Reply(drop=True), Reply(content=b"?"), Reply(content={"tokens": "?"})):
        server.wrong["/tokenize"] = lambda _, none=none: none
        opened(server.url)


def test_scores_that_are_not_to_be_had_or_no_numbers(server: Standin) -> None:
    engine = opened(server.url)
    plain = {"model": NAME, "choices": [{"text": "x", "finish_reason": "length"}]}
    for none in (Reply(content=plain), Reply(400, {"message": "logprobs are off"})):
        server.wrong["/v1/completions"] = lambda _, none=none: none
        refusal(lambda: engine.score([[5, 6]]), InputError, "gives no log-probabilities", "engine.fingerprint to off")
    for value in (float("nan"), float("-inf"), None, "x"):
        entries = [None, {"6": {"logprob": value}}]
        content = {"model": NAME, "choices": [{"prompt_logprobs": entries}]}
        server.wrong["/v1/completions"] = lambda _, content=content: Reply(content=content)
        refusal(lambda: engine.score([[5, 6]]), InputError, "NaN or infinity in float32", "spec.model.dtype")
    nan = Reply(500, {"error": {"message": "Out of range float values are not JSON compliant: nan"}})
    server.wrong["/v1/completions"] = lambda _: nan
    refusal(lambda: engine.score([[5, 6]]), InputError, "NaN or infinity in float32")


def test_who_is_interrupted_waits_for_nobody(server: Standin) -> None:
    engine = opened(server.url)
    release, begun = threading.Event(), threading.Event()

    class Stopped(BaseException):
        pass

    def interrupt(*_: Any) -> None:
        raise Stopped

    def answer(_: Body) -> None:
        begun.set()
        release.wait(60)

    def send() -> None:
        begun.wait(60)
        signal.pthread_kill(main, signal.SIGUSR1)

    main = threading.get_ident()
    before = signal.signal(signal.SIGUSR1, interrupt)
    server.wrong["/v1/completions"] = answer
    sender = threading.Thread(target=send)
    sender.start()
    try:
        with pytest.raises(Stopped):
            engine.generate(asks(8), sampling(), 2, 7)
        assert not release.is_set()
    finally:
        release.set()
        sender.join()
        signal.signal(signal.SIGUSR1, before)
