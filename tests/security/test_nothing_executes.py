"""Canaries: code of a stranger that would leave a file behind, wherever this package might run it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import videomae
from videomae.video.synthetic import write_motion_videos

# Names that some process imports sooner or later, by whichever way it is started.
TRAPS = ("videomae", "numpy", "av", "torch", "multiprocessing", "pickle", "concurrent", "sitecustomize", "PIL")
PACKAGES = str(Path(videomae.__file__).parents[1])


@pytest.fixture
def trapped(tmp_path):
    """A folder of videos beside which lie modules that leave a file behind when they are imported."""
    folder = tmp_path / "trapped"
    write_motion_videos(folder, per_class=1, size=16, num_frames=6)
    for name in TRAPS:
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r} + ' ')\n")
    return folder


def ran(folder: Path) -> str:
    found = folder.parent / "ran"
    return found.read_text() if found.exists() else ""


def call(folder: Path, *lines: str) -> None:
    """Run a script that lies elsewhere, as the command does, in the folder."""
    script = folder.parent / "elsewhere" / "script.py"
    script.parent.mkdir()
    script.write_text("\n    ".join(["if __name__ == '__main__':", *lines]))
    environment = os.environ | {"PYTHONPATH": PACKAGES, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


def test_the_traps_work(trapped):
    subprocess.run([sys.executable, "-c", "import av"], cwd=trapped, timeout=100, check=False)
    assert "av" in ran(trapped)


def test_a_check_of_the_current_folder_imports_nothing_from_it(trapped):
    call(trapped, "from videomae.cli import run; assert run(['check', '.', '--workers', '1']) < 2")
    assert ran(trapped) == ""


def test_processes_that_prepare_videos_import_nothing_from_the_current_folder(trapped):
    call(trapped, "from videomae.data.copies import prepare; assert prepare('.', '../small', workers=1).made")
    assert ran(trapped) == ""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_that_load_batches_import_nothing_from_the_current_folder(trapped, method):
    lines = (
        "from videomae.data.dataset import VideoDataset, build_loader",
        "from videomae.data.manifest import read_manifest",
        "from videomae.video.sampling import ClipSampling",
        "data = VideoDataset(read_manifest('.'), clip_frames=4, sampling=ClipSampling(), training=False)",
        f"print(len(list(build_loader(data, batch_size=2, num_workers=1, start_method={method!r}))))",
    )
    call(trapped, *lines)
    assert ran(trapped) == ""


def test_the_package_as_a_program_imports_nothing_from_the_current_folder(trapped):
    for name in ("videomae", "pickle"):  # those that Python itself imports before it comes to the package's first line
        (trapped / f"{name}.py").unlink()
    environment = os.environ | {"PYTHONPATH": PACKAGES}
    command = [sys.executable, "-m", "videomae", "check", ".", "--workers", "1"]
    subprocess.run(command, cwd=trapped, env=environment, capture_output=True, timeout=100, check=False)
    assert ran(trapped) == ""
