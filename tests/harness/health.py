"""Argo CD's and Flux' view of a run: the scripts in deploy/gitops, evaluated as those two evaluate them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import celpy
import yaml
from celpy.adapter import json_to_cel
from celpy.evaluation import CELEvalError
from lupa.lua51 import LuaRuntime

FOLDER = Path(__file__).parents[2] / "deploy" / "gitops"
KIND = {"apiVersion": "selfevo.dev/v1alpha1", "kind": "SelfEvolutionRun"}
Object = dict[str, Any]

_ALLOWED = {"_G", "_VERSION", "package", "table", "os"}
_CLOSED = f"""
for name, value in pairs(_G) do
  if type(value) == "table" and not ({" or ".join(f'name == "{name}"' for name in sorted(_ALLOWED))}) then
    _G[name] = nil
  end
end
os = {{ time = os.time, date = os.date }}
getmetatable("").__index = nil
"""


def argo(run: Object) -> Object:
    """Status and message. Lua 5.1 as Argo CD has it: with the base library, tables, and the time, without strings."""
    lua = LuaRuntime(register_eval=False, unpack_returned_tuples=True)
    lua.execute(_CLOSED)
    lua.globals()["python"] = None
    lua.globals()["obj"] = lua.table_from(run, recursive=True)
    return dict(lua.execute((FOLDER / "argocd-health.lua").read_text()))


class FluxError(Exception):
    """Flux could not evaluate an expression: the check as a whole fails with an error, and that is no state."""


def flux(file: str, run: Object) -> str:
    """InProgress, Failed or Current: the first expression that is true, in this order. Else Flux waits.

    Before any expression, a generation that the status has not observed is InProgress.

    Raises:
        FluxError: an expression fails, as on a field that is not there.
    """
    observed = (run.get("status") or {}).get("observedGeneration")
    if observed is not None and observed != run["metadata"].get("generation"):
        return "InProgress"
    checks = yaml.safe_load((FOLDER / file).read_text())["spec"]["healthCheckExprs"]
    (check,) = [check for check in checks if {name: check[name] for name in KIND} == KIND]
    # The object itself is the input: its fields are the names that an expression knows.
    names = {name: json_to_cel(value) for name, value in run.items()}
    for verdict in ("inProgress", "failed", "current"):
        if verdict in check and _is_true(check[verdict], names):
            return verdict[0].upper() + verdict[1:]
    return "InProgress"


def _is_true(expression: str, names: dict[str, Any]) -> bool:
    try:
        return bool(_program(expression).evaluate(names))
    except CELEvalError as error:
        raise FluxError(f"{expression}: {str(error)[:100]}") from error


@functools.cache
def _program(expression: str) -> celpy.Runner:
    environment = celpy.Environment()
    return environment.program(environment.compile(expression))
