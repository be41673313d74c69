"""The names that a user imports from `videomae`: they are there, they are documented, and type checkers know them."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import videomae

SOURCE = Path(videomae.__file__)


def names_for_type_checkers():
    """Return the names that ``if TYPE_CHECKING:`` imports, by module."""
    body = ast.parse(SOURCE.read_text(encoding="utf-8")).body
    (block,) = (node for node in body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert all(alias.asname == alias.name for node in imports for alias in node.names)  # else they are not exported
    return {alias.name: node.module for node in imports for alias in node.names}


def test_every_public_name_resolves():
    assert all(getattr(videomae, name) is not None for name in videomae.__all__)
    assert videomae.__version__
    with pytest.raises(AttributeError, match="has no attribute 'VideoMAEModels'"):
        videomae.VideoMAEModels  # noqa: B018


def test_type_checkers_see_the_names_that_are_there_when_it_runs():
    assert names_for_type_checkers() == {
        name: videomae._MODULE_OF[name] for name in videomae.__all__ if name != "__version__"
    }


@pytest.mark.parametrize("name", videomae.__all__)
def test_every_public_name_is_documented(name):
    documented = inspect.getdoc(getattr(videomae, name))
    assert documented
    assert not documented.startswith(f"{name}(")  # as dataclasses make one of their own


def test_a_type_checker_knows_the_names_and_refuses_a_misspelt_one(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "user.py").write_text(
        "import videomae\nfrom videomae import VideoReaderr\nreveal_type(videomae.VideoReader)\n"
        "reveal_type(videomae.train)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path), "--follow-imports", "silent", "user.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"MYPYPATH": str(SOURCE.parents[1]), "PATH": ""},
    )
    assert 'has no attribute "VideoReaderr"' in done.stdout, done.stdout + done.stderr
    assert "-> videomae.video.reader.VideoReader" in done.stdout
    assert "-> videomae.pipeline.run.TrainResult" in done.stdout
