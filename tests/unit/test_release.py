"""What would be uploaded: the version comes from the tag, and the archives hold what they need and nothing else."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = [file for file in (ROOT / "src").rglob("*") if file.is_file() and "__pycache__" not in file.parts]


def build(folder: Path, *, tag: str | None) -> tuple[Path, Path]:
    """Build a copy of the repository that has no history; return the source archive and the wheel."""
    pytest.importorskip("hatch_vcs", reason="needs the extra dev")
    copy = folder / "videomae"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "mkdocs.yml"):
        shutil.copy(ROOT / name, copy / name)
    for name in ("src", "docs", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    variables = {"SETUPTOOLS_SCM_PRETEND_VERSION": tag} if tag else {}
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build"],
        cwd=copy,
        capture_output=True,
        text=True,
        env=os.environ | variables,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (source,), (wheel,) = (copy / "dist").glob("*.tar.gz"), (copy / "dist").glob("*.whl")
    return source, wheel


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return build(tmp_path_factory.mktemp("release"), tag="3.2.1")


def test_the_version_is_the_tag(release):
    assert [file.name for file in release] == ["videomae-3.2.1.tar.gz", "videomae-3.2.1-py3-none-any.whl"]


def test_a_copy_without_a_history_has_a_version_too(tmp_path):
    assert build(tmp_path, tag=None)[1].name == "videomae-0.1.0.dev0-py3-none-any.whl"


def test_the_wheel_holds_the_package_with_recipes_and_templates_and_nothing_else(release):
    with zipfile.ZipFile(release[1]) as wheel:
        names = {name for name in wheel.namelist() if not name.startswith("videomae-3.2.1.dist-info/")}
    assert names == {file.relative_to(ROOT / "src").as_posix() for file in CODE}


def test_the_source_archive_holds_tests_and_documents(release):
    with tarfile.open(release[0]) as archive:
        names = {name.removeprefix("videomae-3.2.1/") for name in archive.getnames()}
    assert {
        "tests/unit/test_release.py",
        "docs/index.md",
        "mkdocs.yml",
        "README.md",
        "CITATION.cff",
        "LICENSE",
    } <= names


def test_what_the_wheel_holds_runs_on_its_own(release, tmp_path):
    with zipfile.ZipFile(release[1]) as wheel:
        wheel.extractall(tmp_path / "installed")
    program = (
        "import sys; from videomae.cli import run; from videomae.settings import builtin_recipes; "
        "from videomae.plots.pages import page_environment as pages; "
        "assert len(builtin_recipes()) > 40 and len(pages().list_templates()) > 1; "
        "run(['--version']); print(sys.modules['videomae'].__file__)"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], cwd=tmp_path, capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.split() == ["videomae", "3.2.1", str(tmp_path / "installed" / "videomae" / "__init__.py")]
