"""The operator's flags and environment: what they come to, and the sentence for each that is wrong."""

from __future__ import annotations

import pytest

from selfevo_operator.runtime.settings import read_settings


def test_flags() -> None:
    arguments = ["--namespace", "a", "--namespace", "b", "--image", "x:1", "--listen", ":9", "--workers", "3"]
    settings = read_settings(arguments, {})
    assert (settings.namespaces, settings.pods.image, settings.host, settings.port, settings.workers) == (
        ("a", "b"),
        "x:1",
        "0.0.0.0",
        9,
        3,
    )
    assert settings.namespaces == ("a", "b")


def test_what_the_platform_decides_for_all_pods() -> None:
    arguments = [
        "--namespace",
        "a",
        "--image",
        "x",
        "--run-as-user",
        "",
        "--fs-group",
        "7",
        "--gpu-resources",
        "a/b,c/mig-*",
    ]
    pods = read_settings([*arguments, "--pods", '{"serviceAccountName": "trainer"}'], {}).pods
    assert (pods.run_as_user, pods.run_as_group, pods.fs_group) == (None, 10001, 7)
    assert (
        pods.host_network is False and read_settings([*arguments, "--allow-host-network"], {}).pods.host_network is True
    )
    assert (pods.resource_claim_templates, pods.resource_claims) == ((), ())
    claims = ["--allow-resource-claim-templates=gpus-8, team-*", "--allow-resource-claims", "fabric"]
    listed = read_settings([*arguments, *claims], {}).pods
    assert (listed.resource_claim_templates, listed.resource_claims) == (("gpus-8", "team-*"), ("fabric",))
    assert pods.gpu_resources == ("a/b", "c/mig-*") and pods.defaults.service_account_name == "trainer"


def test_the_environment_stands_in_for_flags_and_flags_come_first() -> None:
    environment = {"SELFEVO_OPERATOR_ALL_NAMESPACES": "true", "SELFEVO_OPERATOR_IMAGE": "x:1"}
    assert read_settings([], environment).namespaces == ()
    assert read_settings(["--namespace", "a", "--image", "y"], environment).namespaces == ("a",)
    assert read_settings(["--namespace", "a", "--image", "y"], environment).pods.image == "y"
    some = {**environment, "SELFEVO_OPERATOR_ALL_NAMESPACES": "0", "SELFEVO_OPERATOR_NAMESPACE": "b,c"}
    assert read_settings([], some).namespaces == ("b", "c")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image", "x"], "neither --namespace nor --all-namespaces is given"),
        (["--namespace", "A_b", "--image", "x"], "--namespace is 'A_b'"),
        (["--all-namespaces"], "--image is not given"),
        (["--all-namespaces", "--image", "x", "--listen", "8080x"], "--listen is '8080x'; write it as HOST:PORT"),
        (["--all-namespaces", "--image", "x", "--workers", "0"], "--workers is '0'"),
        (["--all-namespaces", "--image", "x", "--resync-seconds", "soon"], "--resync-seconds is 'soon'"),
    ],
)
def test_what_is_wrong_is_reported_in_a_sentence(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        read_settings(arguments, {})
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
