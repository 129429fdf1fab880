"""Arguments and options that several verbs have."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

Manifest = Annotated[
    Path, typer.Argument(metavar="MANIFEST", help="A SelfEvolutionRun, in YAML or JSON; - is standard input.")
]
Storage = Annotated[
    str | None,
    typer.Option(metavar="URI", help="Use this object store in place of spec.storage.uri: s3://, file:///, or a path."),
]
Workdir = Annotated[Path, typer.Option(metavar="DIR", help="Where status, logs and caches are kept.")]
DEFAULT_WORKDIR = Path(".selfevo")

Target = Annotated[
    str, typer.Argument(metavar="RUN", help="A manifest, for the run on this machine, or a run's name in a cluster.")
]
Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace", "-n", metavar="NAME", help="The run's namespace in the cluster; the context's by default."
    ),
]
Context = Annotated[
    str | None, typer.Option(metavar="NAME", help="Which context of the kubeconfig; the current one by default.")
]
Kubeconfig = Annotated[Path | None, typer.Option(metavar="FILE", help="In place of KUBECONFIG and ~/.kube/config.")]
InCluster = Annotated[bool, typer.Option("--cluster", help="A manifest's run is meant as it is in the cluster.")]


class Output(StrEnum):
    table = "table"
    json = "json"


OutputOption = Annotated[Output, typer.Option("--output", "-o", help="For people or for programs.")]


class Role(StrEnum):
    solver = "solver"
    challenger = "challenger"
    finetuned = "finetuned"


RoleOption = Annotated[Role, typer.Option(help="Whose model.")]
