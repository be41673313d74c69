"""Canaries: code of a stranger that would leave a file behind, wherever this package might run it."""

import io
import os
import pickle
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import videomae
from training_runs import run, write_data
from videomae.errors import CheckpointError
from videomae.training.checkpoint import _plain_data_only
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


def test_processes_of_ray_import_nothing_from_the_current_folder(trapped):
    pytest.importorskip("ray")
    lines = (
        "from videomae import VideoMAEConfig, VideoMAEModel",
        "from videomae.data.manifest import read_manifest",
        "from videomae.inference.embed import embed",
        "config = VideoMAEConfig.preset('tiny', image_size=32, num_frames=4, num_hidden_layers=1)",
        "VideoMAEModel(config).save_pretrained('../model')",
        "assert embed(read_manifest('.'), '../index', '../model', engine='ray') == {}",
    )
    call(trapped, *lines)
    assert ran(trapped) == ""


class Payload:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


def payloads(file: Path) -> dict[str, bytes]:
    """Return the payload as the content of a file, in the three forms that PyTorch reads."""
    plain, old, new = pickle.dumps(Payload(file)), io.BytesIO(), io.BytesIO()
    torch.save(Payload(file), old, _use_new_zipfile_serialization=False)
    torch.save(Payload(file), new)
    return {"plain": plain, "old": old.getvalue(), "new": new.getvalue()}


# Whatever accelerate, FSDP and DeepSpeed would look for in a checkpoint.
STATES = (
    "custom_checkpoint_0.pkl", "optimizer.bin", "scheduler.bin", "sampler.bin", "scaler.pt", "random_states_0.pkl",
    "pytorch_model.bin", "pytorch_model_fsdp_0/.metadata", "optimizer_0/.metadata", "pytorch_model_fsdp.bin",
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("runs"))


OPTIONS = ("--run.save-every", "1", "--run.steps", "2", "--optim.ema", "0.5")


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    run("pretrain", data, folder, *OPTIONS)
    return folder


@pytest.fixture
def stranger(finished, tmp_path):
    """A run directory that one is given."""
    return shutil.copytree(finished, tmp_path / "run")


@pytest.mark.parametrize("form", ["plain", "old", "new"])
def test_going_on_with_a_strangers_run_executes_nothing(data, stranger, tmp_path, form):
    ran = tmp_path / "ran"
    for step in (stranger / "checkpoints").iterdir():
        for name in STATES:
            (step / name).parent.mkdir(exist_ok=True)
            (step / name).write_bytes(payloads(ran)[form])
    run("pretrain", data, stranger, *OPTIONS)
    assert not ran.exists()
    for step in (stranger / "checkpoints").iterdir():
        (step / "optimizer.safetensors").unlink()
    with pytest.raises(CheckpointError, match="earlier format, whose reading can run code"):
        run("pretrain", data, stranger, *OPTIONS)
    assert not ran.exists()
    pickle.loads(payloads(ran)["plain"]).close()
    assert ran.exists()


@pytest.mark.parametrize("name", ["model", "optimizer", "ema"])
def test_tensors_of_a_checkpoint_that_do_not_fit_are_refused(data, stranger, name):
    file = stranger / "checkpoints" / "step-00000002" / f"{name}.safetensors"
    for change in ("shape", "name"):
        tensors = load_file(file)
        first = next(key for key, tensor in tensors.items() if tensor.ndim)
        tensors[first if change == "shape" else f"x{first}"] = torch.zeros(3)
        if change == "name":
            del tensors[first]
        save_file(tensors, file)
        with pytest.raises(CheckpointError, match="step-00000002"):
            run("pretrain", data, stranger, *OPTIONS)


@pytest.mark.parametrize("value", ["-1", "1e400", "1.5", '"x"', "null", "[]", "true"])
def test_a_state_that_is_no_number_is_refused(data, stranger, value):
    state = stranger / "checkpoints" / "step-00000002" / "state.json"
    state.write_text(state.read_text().replace('"step": 2', f'"step": {value}'))
    with pytest.raises(CheckpointError, match="step"):
        run("pretrain", data, stranger, *OPTIONS)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_deepspeeds_files_are_read_as_plain_data_whoever_reads_them(tmp_path, monkeypatch):
    """DeepSpeed and accelerate call ``torch.load`` themselves; of all classes, DeepSpeed's records alone are let in."""
    records = {}
    for module, name in (
        ("deepspeed.runtime.fp16.loss_scaler", "LossScaler"),
        ("deepspeed.runtime.fp16.loss_scaler", "DynamicLossScaler"),
        ("deepspeed.runtime.zero.config", "ZeroStageEnum"),
        ("deepspeed.utils.tensor_fragment", "fragment_address"),
    ):
        parts = module.split(".")
        for depth in range(1, len(parts) + 1):
            path = ".".join(parts[:depth])
            monkeypatch.setitem(sys.modules, path, sys.modules.get(path) or types.ModuleType(path))
        records[name] = type(name, (), {"__module__": module})
        monkeypatch.setattr(sys.modules[module], name, records[name], raising=False)
    file, harmless = tmp_path / "zero_pp_rank_0_mp_rank_00_optim_states.pt", records["LossScaler"]()
    torch.save({"scaler": harmless, "moments": torch.ones(3)}, file)
    with _plain_data_only():
        found = torch.load(file, weights_only=False)
    assert isinstance(found["scaler"], records["LossScaler"])
    for form, content in payloads(tmp_path / "ran").items():
        file.write_bytes(content)
        with _plain_data_only(), pytest.raises((pickle.UnpicklingError, RuntimeError)):
            torch.load(file, weights_only=False)
        assert not (tmp_path / "ran").exists(), form
