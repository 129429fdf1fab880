"""`selfevo explain`: the contract's own words about a field."""

from __future__ import annotations

import pytest

from selfevo.verbs.explain import _paths, _spec, explained
from selfevo_contract.errors import InputError


def test_a_field_is_described_with_its_bounds_and_its_default() -> None:
    head, about = explained("solver.grpo.beta")[:2]
    assert head == "spec.solver.grpo.beta: number from 0 to 10, 0.01 when not given"
    assert about.startswith("Coefficient of the KL divergence")
    assert explained("spec.solver.grpo.beta") == explained("solver.grpo.beta")
    assert explained("model.dtype")[0] == 'spec.model.dtype: float32 or bfloat16 or float16, "bfloat16" when not given'
    assert explained("storage.uri")[0] == "spec.storage.uri: string, has to be given"
    assert "- write it as s3://<bucket>/<prefix> or file:///<absolute path>" in explained("storage.uri")
    assert explained("storage.region")[0] == "spec.storage.region: string, may change after creation"
    assert explained("evaluation.tasks[0].name") == explained("evaluation.tasks.name")


def test_a_mapping_lists_its_fields() -> None:
    lines = explained("")
    assert lines[:2] == ["spec: mapping", "What is asked for."]
    assert any(line.split()[:2] == ["solver", "mapping"] for line in lines)
    inside = explained("storage")
    assert any(line.split()[:5] == ["requireConditionalPut", "true", "or", "false", "true."] for line in inside)
    assert inside[-1] == "`selfevo explain storage.uri` says more of one."
    assert max(map(len, "\n".join(explained("", 60)).splitlines())) <= 60


def test_every_field_has_something_to_say() -> None:
    paths = list(_paths(_spec()))
    assert len(paths) > 100
    for path in paths:
        head, about, *_ = explained(path)
        assert head.startswith(f"spec.{path}: ") and about


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("solver.grpo.betta", "spec.solver.grpo.betta is not a field; did you mean solver.grpo.beta"),
        ("beta", "spec.beta is not a field; did you mean budget or challenger.grpo.beta or solver.grpo.beta?"),
        ("storage.credentials_secret", "spec.storage.credentials_secret is not a field; did you mean storage.cred"),
        ("storage.zzz", "spec.storage.zzz is not a field; choose one of uri, endpoint, "),
        ("seed.x", "spec.seed.x is not a field: spec.seed has none; leave 'x' out"),
    ],
)
def test_an_unknown_field_is_a_sentence_with_near_ones(field: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        explained(field)
    assert str(caught.value).startswith(message)
