"""How a budget of time is shared out between the stages, for a model of one size or another.

Fine-tuning comes first, up to as many clips as it takes a small model to fit its videos. Pre-training gets the rest, if
that is enough for it to help. Videos that take long to decode are first made small. The numbers are those of
docs/small-data.md.
"""

from pathlib import Path
from typing import NamedTuple

from videomae.config import VideoMAEConfig
from videomae.data.audit.check import CheckReport
from videomae.data.manifest import Manifest
from videomae.pipeline import measure
from videomae.pipeline.recipes import Recipes
from videomae.pipeline.settings import TrainSettings
from videomae.processes import processors

TRAINING_FRACTION = 0.95  # of what checking leaves of the budget; the rest is the report, and what takes longer
FINETUNE_CLIPS = 80_000  # until a small model comes to fit its videos
FINETUNE_EPOCHS = (30, 200)  # fewest and most for it
PRETRAIN_CLIPS, PRETRAIN_EPOCHS = 64_000, (30, 1600)  # fewer clips or epochs brought nothing; and the most
LASTING_PRETRAIN_CLIPS = 160_000  # with which the gain outlasts a long fine-tuning
MOST_INIT_EPOCHS = 100  # of fine-tuning a checkpoint
FEWEST_EPOCHS = 2
VIEWS = 3  # of each test video
MEASURED_SECONDS = 10.0  # that timing the steps of one model may take
# Shorter side of a small copy: in sides of the model's frame, so that crops are not stretched; and in pixels.
COPY_SIDE, SMALLEST_COPY = 1.5, 48
COPY_START, COPY_GAIN = 5.0, 1.25  # seconds for processes to start; less gain is not worth the space


class ClipSeconds(NamedTuple):
    """Seconds that one clip takes with a model of one size, in all and for reading alone."""

    finetune: float
    pretrain: float
    test: float
    reading: float


class Allocation(NamedTuple):
    """How a budget is shared out with a model of one size.

    Attributes:
        finetune: epochs.
        pretrain: epochs, 0 for none.
        wanted: epochs of fine-tuning beyond which more is not asked for.
        affordable: epochs of pre-training that fine-tuning leaves the time for, whether they are enough or not.
        clip: what one takes.
        copy_side: shorter side of the small copies that are made first, or None.
        copy_seconds: that they take.
        left: seconds of the budget that remain; negative if what was asked for takes longer.
        is_enough: both stages get what they need.
    """

    finetune: int
    pretrain: int
    wanted: int
    affordable: int
    clip: ClipSeconds
    copy_side: int | None
    copy_seconds: float
    left: float
    is_enough: bool

    def seconds(self, settings: TrainSettings, videos: int) -> dict[str, float]:
        """Return what the steps of each stage may take, what is left among it, where the budget says how many."""
        stages = {
            "pretrain": (self.pretrain, self.clip.pretrain, settings.pretrain_epochs),
            "finetune": (self.finetune, self.clip.finetune, settings.finetune_epochs),
        }
        free = {
            name: epochs * videos * seconds
            for name, (epochs, seconds, given) in stages.items()
            if given is None and epochs > FEWEST_EPOCHS
        }
        total = sum(free.values())
        return {name: part * (1 + max(self.left, 0) / total) for name, part in free.items()}


class Flops(NamedTuple):
    """FLOPs that one clip takes in each stage, and in a test."""

    finetune: float
    pretrain: float
    test: float


class BudgetPlanner:
    """Shares a budget out with a model of one size or another.

    Some steps of training tell how fast this machine is; for a model that takes long this is calculated from its FLOPs
    and the speed of a smaller one. Some videos are decoded, and parts of some made small, to tell what that takes.

    Args:
        settings: what was asked for.
        manifest: the videos with their splits.
        report: what is known of them.
        budget: seconds.
        folder: for the small copies by which copying is timed.
    """

    def __init__(
        self, settings: TrainSettings, manifest: Manifest, report: CheckReport, budget: float, folder: Path
    ) -> None:
        self.settings, self.budget = settings, budget
        self.videos, self.num_tested = manifest.split("train"), len(manifest.split("test"))
        self.uses_pretraining = settings.uses_pretraining
        learnt = {sample.file.resolve() for sample in manifest if sample.split in ("train", "val")}
        facts = {Path(fact.file).resolve(): fact for fact in report.readable}
        self.frames_to_copy = sum(facts[file].num_frames for file in learnt if file in facts)
        self.copying_processes = min(copying_processes(settings.num_workers), len(learnt))
        self._folder = folder
        self._rate = 0.0  # FLOPs a second, of the model that was timed last
        self._copies: dict[int, tuple[float, Manifest] | None] = {}

    def allocate(self, config: VideoMAEConfig, recipes: Recipes) -> Allocation:
        """Return how the budget is spent best: on the videos as they are, or on small copies.

        The model is timed if that takes little, else its speed is taken for that of the one before.

        Args:
            config: of the model.
            recipes: that it is trained with; those of fine-tuning say how clips are read.
        """
        flops = self._flops(config, recipes)
        as_they_are = self._allocate(self._clip_seconds(flops, self.videos, config, recipes))
        videos = len(self.videos)
        clips = (as_they_are.finetune + as_they_are.pretrain) * videos
        if clips * as_they_are.clip.reading < COPY_START:  # whatever copies save, to make them takes longer
            return as_they_are
        side = max(round(COPY_SIDE * min(config.frame_size) / 2) * 2, SMALLEST_COPY)
        if side not in self._copies:
            self._copies[side] = measure.small_copies(self.videos, side, self._folder)
        measured = self._copies[side]
        if measured is None:
            return as_they_are
        seconds_a_frame, copies = measured
        seconds = COPY_START + self.frames_to_copy * seconds_a_frame / self.copying_processes
        copied = self._allocate(self._clip_seconds(flops, copies, config, recipes), side, seconds)
        without, with_copies = (
            videos * (copied.finetune * clip.finetune + copied.pretrain * clip.pretrain)
            for clip in (as_they_are.clip, copied.clip)
        )
        return copied if without > COPY_GAIN * (with_copies + seconds) else as_they_are

    def _flops(self, config: VideoMAEConfig, recipes: Recipes) -> Flops:
        """Count what a clip takes, and time the model if that takes little."""
        cost, pretrain = measure.finetuning_cost(config), 0
        if self.uses_pretraining:
            pretrain = measure.pretraining_flops(config, mask_ratio=recipes.pretrain.mask.ratio)
        if not self._rate or 4 * measure.MEASURED_BATCH * cost.training_flops / self._rate < MEASURED_SECONDS:
            self._rate = measure.training_speed(config, cost, self.settings.device)
        return Flops(cost.training_flops, pretrain, cost.forward_flops)

    def _clip_seconds(self, flops: Flops, read: Manifest, config: VideoMAEConfig, recipes: Recipes) -> ClipSeconds:
        """Return what a clip takes, where some are read from ``read`` to tell what that takes."""
        s = self.settings
        reading = measure.reading_seconds(read, recipes.finetune, config)

        def together(flops: float, reading: float) -> float:
            # Only beside a GPU do the processes that decode take no time from training.
            computing = flops / self._rate
            return max(computing, reading) if measure.decodes_beside(s.device, s.num_workers) else computing + reading

        return ClipSeconds(
            finetune=together(flops.finetune, reading),
            pretrain=together(flops.pretrain, reading / recipes.pretrain.loader.augmentations_per_clip),
            test=flops.test / self._rate + reading,
            reading=reading,
        )

    def _allocate(self, clip: ClipSeconds, copy_side: int | None = None, copy_seconds: float = 0.0) -> Allocation:
        """Return how the budget is spent on clips that take so long, after copies are made."""
        s, videos = self.settings, len(self.videos)
        left = TRAINING_FRACTION * self.budget - copy_seconds - VIEWS * self.num_tested * clip.test
        if s.pretrain_epochs is not None:
            left -= s.pretrain_epochs * videos * clip.pretrain
        wanted = finetuning_wanted(videos) if s.init is None else MOST_INIT_EPOCHS
        finetune = s.finetune_epochs or max(min(int(left / (videos * clip.finetune)), wanted), FEWEST_EPOCHS)
        is_enough = s.finetune_epochs is not None or finetune >= wanted
        left -= finetune * videos * clip.finetune
        affordable, pretrain = 0, s.pretrain_epochs or 0
        if self.uses_pretraining and s.pretrain_epochs is None:
            affordable = max(int(left / (videos * clip.pretrain)), 0)
            is_enough = is_enough and affordable >= pretraining_needed(videos, LASTING_PRETRAIN_CLIPS)
            pretrain = min(affordable, PRETRAIN_EPOCHS[1]) if affordable >= pretraining_needed(videos) else 0
            left -= pretrain * videos * clip.pretrain
        is_enough = is_enough and left >= 0
        return Allocation(
            finetune, pretrain, wanted, affordable, clip, copy_side, copy_seconds, left, is_enough=is_enough
        )


def finetuning_wanted(videos: int) -> int:
    """Return the epochs after which fine-tuning a small model from random weights is not made longer."""
    fewest, most = FINETUNE_EPOCHS
    return min(max(FINETUNE_CLIPS // videos, fewest), most)


def pretraining_needed(videos: int, clips: int = PRETRAIN_CLIPS) -> int:
    """Return the epochs of so many clips; by default those below which pre-training does not help."""
    fewest, most = PRETRAIN_EPOCHS
    return min(max(-(-clips // videos), fewest), most)


def copying_processes(num_workers: int | None) -> int:
    """Return how many processes make small copies."""
    return processors() if num_workers is None else max(num_workers, 1)
