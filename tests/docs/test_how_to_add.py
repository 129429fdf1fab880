"""What CONTRIBUTING.md says of adding a thing, tried on a copy of the source: one new file, one place that names it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("contract", "trainer")


class Copy:
    """A copy of contract/ and trainer/ to which files are added."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in PACKAGES:
            # With what is compiled, which stays valid, but not what another process is just writing.
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.pyc.*"))

    def add(self, file: str, text: str) -> None:
        place = self._folder / file
        assert not place.exists(), f"{file} is there already"
        place.write_text(dedent(text))

    def register(self, file: str, old: str, new: str) -> None:
        place = self._folder / file
        text = place.read_text()
        assert text.count(old) == 1, f"{file} has {old!r} {text.count(old)} times"
        place.write_text(text.replace(old, new))

    def run(self, code: str) -> str:
        path = os.pathsep.join(str(self._folder / name) for name in PACKAGES)
        ours = f"import selfevo_contract\nassert {str(self._folder)!r} in selfevo_contract.__file__\n"
        command = [sys.executable, "-c", ours + dedent(code)]
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


def test_a_mode_of_reward(copy: Copy) -> None:
    copy.add(
        "trainer/selfevo_trainer/rewards/flat.py",
        """\
        from selfevo_trainer.rewards.base import ChallengerReward, RewardMode

        def challenger(share, penalty):
            return ChallengerReward(1.0, penalty, 1.0 - penalty, valid=share is not None)

        def solver(correct, boxed):
            return 2.0 * correct

        FLAT = RewardMode("flat", challenger, solver)
        """,
    )
    registry = "trainer/selfevo_trainer/rewards/__init__.py"
    copy.register(registry, "import CODE\n", "import CODE\nfrom selfevo_trainer.rewards.flat import FLAT\n")
    copy.register(
        registry,
        "(PAPER, CODE, JUDGED, CONFIDENCE, SELF_CERTAINTY)",
        "(PAPER, CODE, JUDGED, CONFIDENCE, SELF_CERTAINTY, FLAT)",
    )
    copy.register("contract/selfevo_contract/spec/rewards.py", '"judged"]', '"judged", "flat"]')
    code = """\
        from selfevo_contract.spec.challenger import ChallengerReward
        from selfevo_trainer.rewards import challenger_rewards, solver_reward

        mode = ChallengerReward.model_validate({"mode": "flat"}).mode
        print(challenger_rewards(mode, [0.5], [0.25])[0].total, solver_reward(mode, correct=True, boxed=True))
        """
    assert copy.run(code) == "0.75 2.0"


@pytest.mark.slow
def test_an_engine(copy: Copy) -> None:
    copy.add(
        "contract/selfevo_contract/spec/engines/echo.py",
        """\
        from typing import ClassVar, Literal

        from selfevo_contract.base import Closed

        class EchoEngine(Closed):
            kind: Literal["echo"]
        """,
    )
    registry = "contract/selfevo_contract/spec/engines/__init__.py"
    copy.register(registry, "__all__ =", "from selfevo_contract.spec.engines.echo import EchoEngine\n__all__ =")
    copy.register(registry, "VllmEngine | ServerEngine,", "VllmEngine | ServerEngine | EchoEngine,")
    copy.add(
        "trainer/selfevo_trainer/engines/echo.py",
        """\
        from selfevo_trainer.engines.base import Completion

        class Echo:
            def generate(self, prompts, sampling, samples, seed, streams=None):
                return [[Completion(prompt[-1]["content"], 1, False)] * samples for prompt in prompts]

            def score(self, rows):
                return [[0.0] * (len(row) - 1) for row in rows]

            def close(self): ...

        def open_engine(settings, weights):
            return Echo()
        """,
    )
    line = '"transformers": "selfevo_trainer.engines.transformers_engine",'
    copy.register(
        "trainer/selfevo_trainer/engines/__init__.py", line, f'{line} "echo": "selfevo_trainer.engines.echo",'
    )
    code = """\
        from selfevo_contract.run import refuse_what_is_not_built
        from selfevo_contract.spec.run import RunSpec
        from selfevo_trainer.engines import open_engine

        rollout = {"engine": {"kind": "echo"}}
        places = {"model": {"uri": "file:///model"}, "storage": {"uri": "file:///store"}}
        spec = RunSpec.model_validate({**places, "rollout": rollout})
        refuse_what_is_not_built(spec)
        engine = open_engine(spec.rollout.engine, None)
        (completions,) = engine.generate([[{"role": "user", "content": "hello"}]], None, 2, 0)
        print([completion.text for completion in completions])
        """
    assert copy.run(code) == "['hello', 'hello']"


@pytest.mark.slow
def test_a_phase(copy: Copy) -> None:
    copy.add(
        "contract/selfevo_contract/phases/probe.py",
        """\
        from typing import Literal

        from selfevo_contract.base import Wire
        from selfevo_contract.phases.base import ModelRef, PhaseType

        class ProbeInputs(Wire):
            phase: Literal["probe"] = "probe"
            model: ModelRef

        PROBE = PhaseType(
            inputs=ProbeInputs, part="evaluation", metrics="probe", title="Probe", makes="Probe {}", models=("model",)
        )
        """,
    )
    registry = "contract/selfevo_contract/phases/__init__.py"
    copy.register(registry, "__all__ =", "from selfevo_contract.phases.probe import PROBE, ProbeInputs\n__all__ =")
    copy.register(registry, "            PUBLISH,\n        )", "            PUBLISH,\n            PROBE,\n        )")
    copy.register(registry, "    | PublishInputs\n", "    | PublishInputs | ProbeInputs\n")
    copy.add(
        "trainer/selfevo_trainer/phases/probe.py",
        """\
        def run(context, inputs):
            return f"{inputs.phase} of {inputs.model.uri}"
        """,
    )
    code = """\
        from importlib import import_module

        from selfevo_contract.phases import PHASES, input_key, inputs_adapter
        from selfevo_trainer.phases import module_of

        inputs = inputs_adapter.validate_python({"phase": "probe", "model": {"kind": "base", "uri": "file:///m"}})
        assert len(input_key(inputs)) == 64 and PHASES["probe"].title == "Probe"
        print(import_module(module_of("probe")).run(None, inputs))
        """
    assert copy.run(code) == "probe of file:///m"


RECONCILED = """\
    from datetime import UTC, datetime

    from selfevo_contract.plan import plan
    from selfevo_contract.run import SelfEvolutionRun
    from selfevo_core.reconcile import reconcile

    places = {"model": {"uri": "file:///model"}, "storage": {"uri": "file:///store"}}
    run = SelfEvolutionRun.model_validate(
        {"apiVersion": "selfevo.dev/v1alpha1", "kind": "SelfEvolutionRun", "metadata": {"name": "a"}, "spec": places}
    )
    outcome = reconcile(run, plan(run.spec), [], datetime(2026, 1, 1, tzinfo=UTC))
    message = next(c.message for c in outcome.status.conditions if c.type == "Ready")
    print(len(outcome.actions), outcome.status.phase, message)
    """


@pytest.mark.slow
def test_a_guard(copy: Copy) -> None:
    folder = "contract/selfevo_core/policies/guards"
    copy.add(
        f"{folder}/novelty.py",
        """\
        from selfevo_core.policies.guards.base import Guard, of_metric, percent

        NOVELTY = Guard(
            "novelty",
            of_metric(lambda m: m.get("rollout/novel_share")),
            lambda reading: f"{percent(reading.value)} of the questions are new",
            percent,
            below=True,
        )
        """,
    )
    line = "from selfevo_core.policies.guards.zero_spread import ZERO_SPREAD\n"
    new = f"{line}from selfevo_core.policies.guards.novelty import NOVELTY\n"
    copy.register(f"{folder}/__init__.py", line, new)
    copy.register(f"{folder}/__init__.py", "    LENGTH,\n)", "    LENGTH,\n    NOVELTY,\n)")
    spec = "contract/selfevo_contract/spec/guards.py"
    made = 'class Novelty(Guard):\n    """Few."""\n\n    limit: Share = 0.5\n    """Share."""\n\n\n'
    copy.register(spec, "class Guards(Closed):", f"{made}class Guards(Closed):")
    length = "    length: Length = Length()\n"
    copy.register(spec, length, f'    novelty: Novelty = Novelty()\n    """New."""\n{length}')
    code = """\
        from datetime import UTC, datetime

        from selfevo_contract.artifacts import SCHEMA_VERSION
        from selfevo_contract.plan import plan
        from selfevo_contract.run import SelfEvolutionRun
        from selfevo_core.reconcile import reconcile

        spec = {"model": {"uri": "file:///model"}, "storage": {"uri": "file:///store"}}
        spec["guards"] = {"novelty": {"action": "stop"}}
        document = {"apiVersion": "selfevo.dev/v1alpha1", "kind": "SelfEvolutionRun", "metadata": {"name": "a"}}
        steps = plan(SelfEvolutionRun.model_validate({**document, "spec": spec}).spec)
        rollout = steps.by_name["solver-rollout-1"]
        done = {"name": rollout.name, "phase": rollout.phase, "iteration": 1, "key": rollout.key, "state": "Succeeded"}
        status = {"schemaVersion": SCHEMA_VERSION, "steps": [{**done, "metrics": {"novel_share": 0.4}}]}
        run = SelfEvolutionRun.model_validate({**document, "spec": spec, "status": status})
        outcome = reconcile(run, steps, [], datetime(2026, 1, 1, tzinfo=UTC))
        message = next(c.message for c in outcome.status.conditions if c.type == "Ready")
        print(len(outcome.actions), outcome.status.phase, message)
        """
    expected = "0 Failed guard novelty: in iteration 1 40.0 % of the questions are new, below 50.0 %; "
    assert copy.run(code).startswith(expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "decides", "message"),
    [
        ("rule", "not any(step.state == 'Succeeded' for step in state.steps.values())", "nothing was learned"),
        ("deadline", "now > datetime(2025, 12, 31, tzinfo=UTC)", "the time that the run may take is over"),
    ],
)
def test_a_policy_of_ones_own(copy: Copy, name: str, decides: str, message: str) -> None:
    assert copy.run(RECONCILED).startswith("1 Pending")
    copy.add(
        f"contract/selfevo_core/policies/{name}.py",
        f"""\
        from datetime import UTC, datetime

        from selfevo_core.policies.base import Decision

        def {name}(state, now):
            return Decision(phase="Failed", reason="Stopped", message={message!r}) if {decides} else None
        """,
    )
    registry = "contract/selfevo_core/policies/__init__.py"
    copy.register(registry, "__all__ =", f"from selfevo_core.policies.{name} import {name}\n__all__ =")
    copy.register(registry, "    sharing,\n)", f"    sharing,\n    {name},\n)")
    assert copy.run(RECONCILED) == f"0 Failed {message}"
