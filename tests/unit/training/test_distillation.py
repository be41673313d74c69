"""Distillation learns few videos from random weights, and leaves an ordinary classifier behind."""

import numpy as np
import pytest
import torch

from training_runs import RECIPE, run, settings, start, weights, write_data
from videomae.config import VideoMAEConfig
from videomae.data.cache import FrameCache
from videomae.data.dataset import VideoDataset
from videomae.data.manifest import Sample, read_manifest
from videomae.errors import CheckpointError
from videomae.models.masking import moving_tubelets
from videomae.models.student import Student
from videomae.models.teacher import LUMA, Teacher, to_grey
from videomae.models.videomae import VideoMAEForVideoClassification
from videomae.training import distillation
from videomae.training.checkpoint import list_steps
from videomae.training.distillation import Distillation, distill, fold
from videomae.training.metrics_log import read_metrics
from videomae.video.augment import AffineCrop, distill_augmentation, normalize, seeded, squeezed_view
from videomae.video.augment_settings import DistillAugmentation
from videomae.video.checkpoint_processor import make_processor
from videomae.video.sampling import ClipSampling
from videomae.video.synthetic import write_motion_videos

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = VideoMAEConfig(
    image_size=16,
    num_frames=8,
    patch_size=8,
    tubelet_size=4,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    num_labels=3,
    use_mean_pooling=True,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("distill"))


def test_the_folded_model_computes_what_the_student_does_on_rgb():
    torch.manual_seed(0)
    student = Student(CONFIG, (4, 8))
    clips = torch.randn(5, 8, 3, 16, 16)
    torch.nn.init.normal_(student.classifier.weight)
    for _ in range(20):
        student(clips + torch.randn_like(clips))
    student.eval()
    ordinary = VideoMAEForVideoClassification(CONFIG).eval()
    ordinary.load_state_dict(fold(student.state_dict()))
    with torch.no_grad():
        wanted, found = student(clips)[0], ordinary(clips).logits
    assert wanted.std() > 0.1
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_grey_pixels_are_what_a_model_makes_of_normalised_ones(data):
    experiment = Distillation(settings("distill", data, "x"))
    experiment.statistics = (0.4, 0.5, 0.6), (0.1, 0.2, 0.3)
    grey = torch.randint(256, (2, 4, 1, 8, 8), dtype=torch.uint8)
    wanted = to_grey(normalize(grey.expand(-1, -1, 3, -1, -1), mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.3)))
    torch.testing.assert_close(experiment.normalized({"pixel_values": grey}), wanted)


def test_the_model_is_an_ordinary_directory_that_transformers_loads(data, tmp_path):
    result = run("distill", data, tmp_path)
    transformers = pytest.importorskip("transformers")
    theirs = transformers.VideoMAEForVideoClassification.from_pretrained(result.model).eval()
    ours = VideoMAEForVideoClassification.from_pretrained(result.model).eval()
    assert ours.config.clip_sampling == "whole"
    assert ours.config.num_channels == 3
    clips = torch.randn(2, ours.config.num_frames, 3, *ours.config.frame_size)
    with torch.no_grad():
        torch.testing.assert_close(theirs(clips).logits, ours(clips).logits, rtol=1e-3, atol=1e-4)
    assert not any(name.startswith(("hints", "batch_norm")) for name in weights(tmp_path))
    with pytest.raises(CheckpointError, match=r"is no model yet: .*batch_norm.* load its folder model/"):
        VideoMAEForVideoClassification.from_pretrained(next((tmp_path / "checkpoints").iterdir()))
    steps = [line["step"] for line in read_metrics(tmp_path / "teacher") if "loss" in line]
    assert steps == [1, 2, 3]  # half of the run's six
    assert not Distillation(settings("distill", data, "x")).checkpoint


def test_it_learns_motions_from_random_weights(tmp_path):
    for split, count, seed in (("train", 8, 0), ("val", 4, 1)):
        write_motion_videos(tmp_path / "data" / split, per_class=count, size=32, num_frames=12, seed=seed)
    (tmp_path / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    more = """
        --model.image-size 32 --model.num-frames 8 --model.hidden-size 32 --model.num-attention-heads 4
        --run.epochs 60 --run.batch-size 8 --run.validate-every 60 --optim.lr 2e-3
        --motion.until 0.6 --teacher.steps-fraction 1
    """
    result = run("distill", tmp_path / "data", tmp_path / "run", *more.split())
    assert result.best_score > 0.4  # chance is 0.17, and of 24 videos it gives 10 right once in 300 runs


def test_the_teacher_is_chosen_by_videos_that_it_did_not_learn_and_the_classifier_learns_all(tmp_path, monkeypatch):
    write_motion_videos(tmp_path / "data" / "train", per_class=4, size=16, num_frames=8)
    (tmp_path / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    options = ("--run.validate-every", "1", "--teacher.steps-fraction", "1")
    few = Distillation(settings("distill", tmp_path / "data", "x"))
    assert (few.taught, few.teacher_val) == (24, None)
    monkeypatch.setattr(distillation, "FEWEST_HELD_OUT", 0.25)
    asked = settings("distill", tmp_path / "data", tmp_path / "run", "--teacher.held-out", "0.25", *options)
    experiment = Distillation(asked)
    held = {sample.file for sample in experiment.teacher_val}
    assert len(held) == 6
    assert {sample.file for sample in experiment.samples[: experiment.taught]} | held == {
        sample.file for sample in experiment.train
    }
    assert len(experiment.samples) == 24
    distill(asked)
    lines = read_metrics(tmp_path / "run" / "teacher")
    assert [line["step"] for line in lines if "val_top1" in line] == [4, 8, 12]
    assert not [line for line in read_metrics(tmp_path / "run") if "val_top1" in line]


# A kill in the middle of the teacher's three steps, and one in the middle of the run's own six.
KILL = (
    "import os; from videomae.training.metrics_log import MetricsLog as C; "
    "C.advance = lambda self, step: step == {step} and os.kill(os.getpid(), 9)"
)


@pytest.mark.parametrize(("step", "teacher", "student"), [(2, [1], []), (5, [3], [4])])
def test_a_killed_run_ends_with_the_same_bits(data, tmp_path, step, teacher, student):
    options = ("--run.save-every", "1" if step == 2 else "2", "--run.validate-every", "9")
    run("distill", data, tmp_path / "whole", *options)
    start("distill", data, tmp_path / "killed", *options, line=KILL.format(step=step))
    assert list_steps(tmp_path / "killed" / "teacher" / "checkpoints") == teacher
    assert list_steps(tmp_path / "killed" / "checkpoints")[-1:] == student
    run("distill", data, tmp_path / "killed", *options)
    ours, theirs = weights(tmp_path / "killed"), weights(tmp_path / "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_sigterm_while_the_teacher_learns_ends_the_run_which_goes_on_later(data, tmp_path):
    line = (
        "import os; from videomae.training.metrics_log import MetricsLog as C; "
        "C.advance = lambda self, step: step == 1 and os.kill(os.getpid(), 15)"
    )
    with pytest.raises(AssertionError):  # the exit code is that of SIGTERM
        start("distill", data, tmp_path / "told", line=line)
    assert list_steps(tmp_path / "told" / "teacher" / "checkpoints") == [2]
    assert not (tmp_path / "told" / "checkpoints").exists()
    run("distill", data, tmp_path / "told")
    run("distill", data, tmp_path / "whole")
    ours, theirs = weights(tmp_path / "told"), weights(tmp_path / "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--init", "x"), "starts from random weights"),
        (("--motion.keep", "0"), r"motion\.keep must lie above 0"),
        (("--teacher.answers", "2"), r"teacher\.answers must lie between 0 and 1"),
        (("--clips.method", "dense"), None),
    ],
)
def test_settings_that_make_no_sense_are_refused(data, tmp_path, options, message):
    if message is None:
        assert Distillation(settings("distill", data, tmp_path, *options)).cache() is None  # dense needs the files
        return
    with pytest.raises(ValueError, match=message):
        run("distill", data, tmp_path, *options)


# ---- parts


def test_the_second_stage_of_the_teacher_has_the_grid_of_the_tokens_and_others_are_interpolated():
    clips = torch.randn(2, 16, 3, 64, 64)
    logits, (second, third) = Teacher(5, (4, 8, 8))(clips)
    assert logits.shape == (2, 5)
    assert (second.shape, third.shape) == ((2, 256, 64), (2, 256, 128))
    assert second.mean().abs() < 1e-4
    assert second.std() == pytest.approx(1, abs=0.01)
    _, features = Teacher(5, (8, 4, 4))(clips)
    assert features[0].shape == (2, 128, 64)
    assert not any(feature.requires_grad for feature in features)


def test_the_tubelets_that_move_are_chosen():
    clip = torch.zeros(1, 8, 1, 16, 16)
    clip[0, 5, 0, 8:, 8:] = 1
    chosen = moving_tubelets(clip, (4, 8, 8), num_visible=1, jitter=0, generator=torch.Generator())
    assert chosen.tolist() == [[7]]
    some = moving_tubelets(clip, (4, 8, 8), num_visible=3, generator=torch.Generator().manual_seed(0))
    assert 7 in some[0]
    assert some[0].tolist() == sorted(set(some[0].tolist()))


def test_a_whole_stretch_of_a_video_is_what_is_tested():
    class Longest:
        def uniform(self, low, high):
            return high

    sampling = ClipSampling("whole")
    tested = sampling(50, video_fps=25, clip_frames=16)
    drawn = sampling(50, video_fps=25, clip_frames=16, generator=Longest())
    np.testing.assert_array_equal(drawn, tested)
    assert sampling.config_fields()["clip_sampling"] == "whole"
    views = sampling(200, video_fps=25, clip_frames=4, num_clips=3)
    assert views.tolist() == [[21, 63, 106, 148], [36, 78, 121, 163], [51, 93, 136, 178]]  # 170 frames each
    for seed in range(20):
        steps = np.diff(sampling(400, video_fps=25, generator=np.random.default_rng(seed))[0])
        assert steps.max() - steps.min() <= 1  # an even pace
        assert 0.69 * 400 < steps.sum() * 16 / 15 < 402


@pytest.mark.parametrize("size", [(18, 18), (40, 60), (60, 40)])
def test_a_clip_without_variation_is_that_of_the_test_and_of_the_processor_that_is_saved(size):
    clip = torch.randint(256, (3, 3, *size), dtype=torch.uint8)
    tested = squeezed_view(clip, side=18, image_size=16)[0]
    none = DistillAugmentation(zoom=0, stretch=0, turn=0, shift=0, contrast=0, flip=0)
    learnt = distill_augmentation(none, side=18, image_size=16)(clip)
    luma = torch.tensor(LUMA)[:, None, None]
    assert ((tested * luma).sum(1, keepdim=True) - learnt).abs().max() < 1.5  # grey is rounded down, and before
    processor = make_processor(CONFIG, ((0.0,) * 3, (1 / 255,) * 3), squeezed=18)
    used = processor(list(clip), return_tensors="pt").pixel_values[0]
    assert (used - tested).abs().max() <= 0.51  # as the processor does not round


def test_crops_vary_with_the_seed_only_and_alike_in_all_frames():
    frame = torch.randint(256, (1, 3, 20, 30), dtype=torch.uint8)
    crop = AffineCrop(16, zoom=0.15, stretch=0.1, turn=8, shift=0.07)
    views = []
    for seed in (0, 0, 1):
        with seeded(seed):
            views.append(crop(frame.expand(4, -1, -1, -1)))
    assert torch.equal(views[0], views[1])
    assert not torch.equal(views[0], views[2])
    assert torch.equal(views[0][0], views[0][3])
    assert views[0].shape == (4, 3, 16, 16)


def test_a_cache_keeps_whole_videos_small_and_grey_and_leaves_bad_ones_to_the_reader(data, tmp_path):
    samples = list(read_manifest(data))[:2]
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    bad = Sample(path="bad.mp4", file=str(tmp_path / "bad.mp4"), label=0)
    cache = FrameCache([*samples, bad], side=8, max_frames=6)
    assert cache[0].shape == (6, 8, 8)
    assert cache[2] is None
    assert cache.nbytes == 2 * 6 * 64
    assert FrameCache(samples, side=8, max_bytes=1)[1] is None
    whole = FrameCache(samples, side=16, max_frames=99)
    arguments = {"sampling": ClipSampling("whole"), "training": True, "clip_frames": 4}
    kept, read = VideoDataset(samples, cache=whole, **arguments)[1], VideoDataset(samples, **arguments)[1]
    luma = (read["pixel_values"].float() * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(dim=2)
    assert (kept["pixel_values"][:, :, 0] - luma).abs().max() < 1.1
    with pytest.raises(ValueError, match="a cache keeps evenly spaced frames"):
        VideoDataset(samples, cache=whole, sampling=ClipSampling("dense"), training=True)
