"""What is exported runs elsewhere, says the same, and knows by itself what it takes."""

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from classifiers import MOTION_CONFIG, SMALL, save_motions
from videomae import CheckpointError, DataError, VideoClassifier, VideoMAEForVideoClassification, read_manifest
from videomae.errors import ExportError, VideoError
from videomae.export import run as export_module
from videomae.export.run import export
from videomae.export.verify import Tolerance
from videomae.inference.engines.formats import FORMATS
from videomae.inference.evaluate import evaluate
from videomae.inference.protocols import Protocol

PACKAGES = {"openvino": ("openvino", "nncf"), "onnx": ("onnx", "onnxruntime", "onnxscript"), "torch": ()}
INSTALLED = [name for name, packages in PACKAGES.items() if all(map(find_spec, packages))]
needs_nncf = pytest.mark.skipif(find_spec("nncf") is None, reason="needs NNCF")


@pytest.fixture(scope="session", autouse=True)
def few_timings():
    """Time as often as it must be, not for two seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("videomae.export.verify.ENOUGH_SECONDS", 0.0)
        yield


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """A small classifier, and videos with labels."""
    place = save_motions(tmp_path_factory.mktemp("export"))
    config = MOTION_CONFIG.replace(**SMALL)
    torch.manual_seed(0)
    model = VideoMAEForVideoClassification(config)
    torch.nn.init.normal_(model.classifier.weight)
    model.save_pretrained(place / "model")
    return place


@pytest.fixture(scope="session")
def exported(place):
    """The classifier, exported to what is installed, each to a directory of its own."""
    return {name: export(place / "model", name, place / name, allow_slower=True) for name in INSTALLED}


def videos(place, number=3):
    return sorted((place / "videos").rglob("*.mp4"))[:number]


@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.parametrize("options", [{}, {"views": "2x3"}, {"protocol": "k400"}])
def test_an_exported_directory_gives_what_the_checkpoint_gives(place, exported, name, options):
    source = VideoClassifier.from_pretrained(place / "model", device="cpu")
    found = VideoClassifier.from_pretrained(place / name)
    assert found.engine.name == name
    for video in videos(place):
        expected = {p.label: p.score for p in source(video, top_k=6, **options)}
        assert {p.label: p.score for p in found(video, top_k=6, **options)} == pytest.approx(expected, abs=5e-3)


@pytest.mark.parametrize("name", INSTALLED)
def test_labels_sizes_and_the_choice_of_frames_are_inside_the_file(place, exported, name, tmp_path):
    path = exported[name].path
    for file in path.parent.glob(f"{path.stem}*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    alone = VideoClassifier.from_pretrained(tmp_path / path.name)
    source = VideoClassifier.from_pretrained(place / "model", device="cpu")
    assert alone.config == source.config
    assert alone.processor == source.processor
    video = videos(place)[0]
    assert alone(video)[0].label == source(video)[0].label


@pytest.mark.parametrize("name", INSTALLED)
def test_any_number_of_clips_goes_through_at_once(place, exported, name):
    engine = VideoClassifier.from_pretrained(exported[name].path).engine
    frames = np.random.default_rng(0).integers(256, size=(5, 4, 32, 32, 3), dtype=np.uint8)
    one_by_one = np.concatenate([engine(frames[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(engine(frames), one_by_one, atol=1e-3)
    with pytest.raises(ValueError, match=r"takes uint8 frames \(B, 4, 32, 32, 3\), got float32"):
        engine(frames.astype(np.float32))


@pytest.mark.parametrize("name", INSTALLED)
def test_the_report_lies_beside_the_file(exported, name):
    path = exported[name].path
    report = json.loads(path.with_suffix(".report.json").read_text())
    assert report["top1_agreement"] == 1
    assert report["relative_difference"] < 1e-3
    assert min(report[key] for key in ("source_seconds", "exported_seconds", "source_bytes", "exported_bytes")) > 0
    assert "| same best class |" in path.with_suffix(".report.md").read_text()


@pytest.mark.parametrize("name", INSTALLED)
def test_an_encoder_gives_its_tokens(place, name, tmp_path):
    done = export(place / "model", name, tmp_path, task="encoder", allow_slower=True)
    assert done.verification.top1_agreement is None
    assert done.verification.cosine > 0.9999
    with pytest.raises(CheckpointError, match="was exported for encoder, classification is wanted"):
        VideoClassifier.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", INSTALLED)
def test_resizing_and_cropping_can_be_inside_the_file(place, name, tmp_path):
    options = {"agreement": 0.5, "allow_slower": True}  # a model of random weights prefers no class much
    export(place / "model", name, tmp_path, source_size=(40, 80), data=place / "videos", **options)
    source = VideoClassifier.from_pretrained(place / "model", device="cpu")
    found = VideoClassifier.from_pretrained(tmp_path)
    video = videos(place)[0]  # of 40 x 80
    expected = {p.label: p.score for p in source(video)}
    assert {p.label: p.score for p in found(video)} == pytest.approx(expected, abs=5e-3)


HALF = [(n, p) for n in INSTALLED for p in ("float16", "bfloat16") if p in FORMATS[n].files]


@pytest.mark.parametrize(("name", "precision"), HALF)
def test_half_precision_comes_close(place, name, precision, tmp_path):
    shutil.copytree(place / "model", tmp_path / "model")
    torch.manual_seed(0)
    model = VideoMAEForVideoClassification(MOTION_CONFIG)  # of weights that outweigh what surrounds them in a file
    torch.nn.init.normal_(model.classifier.weight)
    model.save_pretrained(tmp_path / "model")
    done = export(
        tmp_path / "model", name, tmp_path / "exported", precision=precision, agreement=0.5, allow_slower=True
    )
    assert 0 < done.verification.relative_difference < 0.1
    assert done.path.name == FORMATS[name].files[precision].split("/")[-1]
    if precision == "float16" or name == "torch":
        assert done.verification.exported_bytes < 0.75 * done.verification.source_bytes


@needs_nncf
@pytest.mark.parametrize("name", [name for name in INSTALLED if "int8" in FORMATS[name].files])
@pytest.mark.parametrize("accuracy_aware", [False, True])
def test_int8_is_calibrated_with_the_videos(place, name, accuracy_aware, tmp_path):
    done = export(
        place / "model",
        name,
        tmp_path,
        precision="int8",
        data=place / "videos",
        accuracy_aware=accuracy_aware,
        agreement=0.5,
        allow_slower=True,
    )
    assert done.verification.cosine > 0.98
    assert done.verification.exported_bytes < 0.5 * done.verification.source_bytes
    report = json.loads(done.path.with_suffix(".report.json").read_text())
    assert report["quantisation"].startswith("accuracy-aware" if accuracy_aware else "post-training")


def test_what_disagrees_is_an_error_and_nothing_is_written(place, tmp_path, monkeypatch):
    with pytest.raises(ExportError, match="differs from its source by"):
        export(place / "model", "torch", tmp_path / "out", tolerance=0.0, precision="bfloat16")
    impossible = dict.fromkeys(("float32", "bfloat16"), Tolerance(1.0, 1.1))
    monkeypatch.setattr(export_module, "TOLERANCES", impossible)
    with pytest.raises(ExportError, match=r"agree on 100\.0% of 6 clips"):
        export(place / "model", "torch", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_is_slower_than_its_source_is_an_error_unless_allowed(place, tmp_path, monkeypatch):
    monkeypatch.setattr("videomae.export.verify.time_in_turns", lambda first, second: (1.0, 4.0, 0.25))
    with pytest.raises(ExportError, match=r"takes 4\.00 times as long as its source"):
        export(place / "model", "torch", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    assert export(place / "model", "torch", tmp_path / "out", allow_slower=True).path.exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"to": "onnxx"}, ValueError, "no target 'onnxx' .did you mean 'onnx'"),
        ({"to": "torch", "precision": "int8"}, ValueError, "has no precision 'int8'"),
        ({"to": "onnx", "precision": "int8"}, DataError, "calibrated with clips"),
        ({"to": "torch", "verified_clips": 0}, ValueError, "at least 1, got 0"),
        ({"to": "torch", "accuracy_aware": True}, DataError, "needs a label"),
    ],
)
def test_what_makes_no_sense_is_refused(place, options, error, message, tmp_path):
    with pytest.raises(error, match=message):
        export(place / "model", out=tmp_path, **options)


def test_an_export_is_never_written_over(place, exported):
    with pytest.raises(CheckpointError, match="exists already"):
        export(place / "model", "torch", place / "torch")


@pytest.mark.parametrize("name", [name for name in INSTALLED if name != "torch"])
def test_the_engine_is_chosen_by_name_and_what_is_missing_is_said(place, exported, name, tmp_path):
    with pytest.raises(CheckpointError, match=f"videomae export .* --to {name}"):
        VideoClassifier.from_pretrained(place / "model", engine=name)
    with pytest.raises(ValueError, match="is for the engine"):
        VideoClassifier.from_pretrained(exported[name].path, engine="torch")
    with pytest.raises(ValueError, match="has no device 'tpu'"):
        VideoClassifier.from_pretrained(place / name, device="tpu")
    with pytest.raises(ValueError, match="image_size cannot be changed in an exported model"):
        VideoClassifier.from_pretrained(place / name, image_size=64)
    broken = tmp_path / exported[name].path.name
    broken.write_text("nothing")
    with pytest.raises(CheckpointError, match="cannot read"):
        VideoClassifier.from_pretrained(broken)


@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_exported_model_is_measured_as_its_checkpoint_is(place, exported, name, num_workers, tmp_path):
    manifest = (place / "videos" / "manifest.csv").read_text().splitlines()
    for file in (place / "videos").rglob("*.mp4"):
        (tmp_path / file.parent.name).mkdir(exist_ok=True)
        (tmp_path / file.parent.name / file.name).symlink_to(file)
    (tmp_path / "moving_up" / "bad.mp4").write_bytes(b"no video")
    (tmp_path / "manifest.csv").write_text("\n".join([*manifest, "moving_up/bad.mp4,moving_up,test"]))
    data = read_manifest(tmp_path / "manifest.csv").split("test")
    source, found = (
        evaluate(
            VideoClassifier.from_pretrained(model, device="cpu"), data, protocol=Protocol("two", num_clips=2),
            on_bad="wrong", allow_missing_classes=True, num_workers=num_workers, batch_size=4,
        )
        for model in (place / "model", exported[name].path)
    )  # fmt: skip
    assert [video.path for video in found.videos] == [video.path for video in source.videos]
    assert (found.num_videos, found.num_unreadable) == (14, 1)
    for ours, theirs in zip(found.videos, source.videos, strict=True):
        assert ours.error == theirs.error
        if ours.error is None:
            np.testing.assert_allclose(ours.scores, theirs.scores, atol=5e-3)
    with pytest.raises(VideoError, match=r"Or remove 'moving_up/bad\.mp4' from the data"):
        evaluate(VideoClassifier.from_pretrained(exported[name].path), data, allow_missing_classes=True)


WITHOUT_TORCH = [name for name in INSTALLED if name != "torch"]


def run_and_tell(code):
    """Run code in a fresh process; return what it printed, and whether PyTorch was imported."""
    code = f"import sys\n{code}\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *printed, last = done.stdout.splitlines()
    return printed, last == "True"


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_the_commands_run_exported_files_without_pytorch(place, exported, name, tmp_path):
    """Its start would cost more than the model."""
    export(place / "model", name, tmp_path, task="encoder", allow_slower=True)
    video, model, data = str(videos(place)[0]), str(place / name), str(place / "videos" / "manifest.csv")
    predict = ["predict", video, "--model", model, "--json"]
    commands = [
        predict,
        [*predict, "--window", "1s"],
        [*predict, "--protocol", "k400"],
        ["evaluate", data, "--model", model, "--json", "--allow-missing-classes", "--workers", "2"],
        ["embed", data, "--model", str(tmp_path), "--out", str(tmp_path / "features")],
    ]
    printed, has_torch = run_and_tell(f"from videomae.cli import run\nprint([run(c) for c in {commands!r}])")
    assert not has_torch
    assert printed[-1] == "[0, 0, 0, 0, 0]"
    assert json.loads(printed[0])["error"] is None


@pytest.mark.skipif(find_spec("uvicorn") is None, reason="needs the extra serve")
@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_exported_files_are_served_without_pytorch(place, exported, name):
    video = str(videos(place)[0])
    code = f"""
from pathlib import Path
from starlette.testclient import TestClient
from videomae.serving.app import make_app
from videomae.serving.limits import Limits
from videomae.serving.model import ServedModel
from videomae.serving.service import Service
import json
model, video = ServedModel.open({str(exported[name].path)!r}), Path({video!r}).read_bytes()
with TestClient(make_app(Service(model, Limits(workers=1)))) as client:
    asked = [client.post(path, content=video) for path in ("/?top_k=6", "/timeline?window=1", "/explain", "/embed")]
    print(json.dumps([answer.json() for answer in asked]))
    print([answer.status_code for answer in asked], client.get("/about").json()["engine"])
"""
    (answers, statuses), has_torch = run_and_tell(code)
    assert statuses == f"[200, 200, 404, 404] {name}"
    assert not has_torch
    classes, timeline, *refused = json.loads(answers)
    expected = {p.label: p.score for p in VideoClassifier.from_pretrained(place / "model")(video, top_k=6)}
    assert {one["label"]: one["score"] for one in classes} == pytest.approx(expected, abs=5e-3)
    assert len(timeline["windows"]) >= 1
    assert all("an exported model gives no" in answer["error"] for answer in refused)
