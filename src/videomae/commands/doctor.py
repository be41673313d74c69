"""``videomae doctor``: what is installed, what this machine can do, and how fast it is."""

import dataclasses
from collections.abc import Mapping

from videomae.console import output, print_json, working
from videomae.options import Flag
from videomae.pipeline.diagnosis import Diagnosis, Package, diagnose


@dataclasses.dataclass
class DoctorSettings:
    """Say what is installed, which devices, codecs and engines there are, and how fast this machine is.

    Nothing is fetched, and no file stays. Put what it prints into a report of a fault.
    """

    speed: bool = True
    """Measure how fast a video is decoded and models are trained, which takes some seconds."""

    json: Flag = False
    """Print one JSON object."""


def main(settings: DoctorSettings) -> int:
    """Print what was found; the exit code is 1 if something keeps the package from working."""
    with working("looking", shown=not settings.json):
        found = diagnose(speed=settings.speed)
    if settings.json:
        print_json(dataclasses.asdict(found) | {"problems": found.problems})
    else:
        _print(found)
    return 1 if found.problems else 0


def _print(found: Diagnosis) -> None:
    console = output()
    console.print(f"videomae {found.version}, {found.system}\n", markup=False)
    _print_table("packages", {package.name: _version(package) for package in found.packages})
    _print_table("extras", {name: ", ".join(map(_named_version, packages)) for name, packages in found.extras.items()})
    _print_table("devices", found.devices)
    _print_table("engines", found.engines)
    _print_table("videos", found.back_ends | _codecs(found.codecs))
    _print_table("environment", found.environment)
    _print_table("speed", {name.replace("_", " "): f"{value:.3g}" for name, value in found.speed.items()})
    for problem in found.problems:
        console.print(f"[red]problem:[/red] {problem}")
    if not found.problems:
        console.print("[green]all that is always needed works[/green]")


def _print_table(title: str, rows: Mapping[str, str]) -> None:
    from rich.markup import escape
    from rich.table import Column, Table

    table = Table(Column(title, no_wrap=True), Column("", overflow="fold"))
    for name, value in rows.items():
        table.add_row(escape(name), escape(value))
    if rows:
        output().print(table, soft_wrap=False)


def _version(package: Package) -> str:
    if package.version is None:
        return f"not installed, {package.needs} is needed"
    return package.version if package.fits else f"{package.version}, {package.needs} is needed"


def _named_version(package: Package) -> str:
    return f"{package.name} {_version(package)}"


def _codecs(codecs: Mapping[str, bool]) -> dict[str, str]:
    lists = {"codecs": True, "codecs that FFmpeg lacks": False}
    named = {title: ", ".join(name for name, has in codecs.items() if has is wanted) for title, wanted in lists.items()}
    return {title: names for title, names in named.items() if names}
