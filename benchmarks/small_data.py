"""Whether pre-training pays on a few hundred videos, from random weights, on a CPU.

    python benchmarks/small_data.py seeds DATA --out WORK [--seeds 3] [--alone 5] [--jobs 2] [--choose]
    python benchmarks/small_data.py seeds DATA --out LONG --finetune "--run.epochs 125"
    python benchmarks/small_data.py pixels DATA --out WORK
    python benchmarks/small_data.py masks DATA --out WORK
    python benchmarks/small_data.py sources DATA OTHER --out WORK
    python benchmarks/small_data.py folds DATA --out WORK [--folds 5]

``seeds`` fine-tunes from random weights, and after pre-training on the training videos, with the same settings (the
recipes pretrain-small-data and finetune-small-data; the second form fine-tunes longer). With ``--choose`` it leaves
the test videos alone, and measures on the last fifth of each class's training videos, which fine-tuning then does not
see: to choose settings by. ``pixels`` classifies small frames as they are, for comparison.
``masks`` compares tube, random and frame masks at equal steps, ``sources`` pre-training on DATA's own videos and on
OTHER's, both by probes of the features. ``folds`` cross-validates by source (the column "group") with and without
pre-training on all videos unlabelled. Every run is a run directory of ``videomae pretrain`` and ``videomae finetune``
under WORK; the same command goes on where it was stopped.

Videos are first cut to the square around where nearly all of what is not black lies, and made 56 pixels wide and high.
Further options of the two commands follow ``--pretrain`` and ``--finetune`` as one quoted text each.
"""

import argparse
import csv
import dataclasses
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from scipy import stats

from videomae.data.manifest import Manifest, Sample, read_manifest
from videomae.settings import with_recipe
from videomae.training.pretraining import PretrainSettings
from videomae.video.encode import write_video
from videomae.video.reader import VideoReader

SIDE, DARK = 56, 40
MASKS = {
    "tube 0.9": "--mask.name tube --mask.ratio 0.9",
    "tube 0.75": "--mask.name tube --mask.ratio 0.75",
    "random 0.9": "--mask.name random --mask.ratio 0.9",
    "frame 0.75": "--mask.name frame --mask.ratio 0.75",
    "random 0.5": "--mask.name random --mask.ratio 0.5",
}


RECIPE = with_recipe(PretrainSettings(Path(), Path()), "pretrain-small-data")
# A model that starts from random weights has the sizes of the recipe, and learns in all layers alike.
FROM_SCRATCH = [
    *(word for name, value in dataclasses.asdict(RECIPE.model).items() if value is not None
      for word in (f"--model.{name.replace('_', '-')}", str(value))),
    "--optim.layer-decay", "1",
]  # fmt: skip


def cut_blank(data: Path, out: Path) -> Manifest:
    """Write the videos cut to the square around nearly all of what is brighter than DARK, with a manifest."""
    from PIL import Image

    manifest = read_manifest(data)

    def write(sample: Sample) -> None:
        target = (out / sample.path).with_suffix(".mp4")
        if target.exists():
            return
        with VideoReader(sample.file) as reader:
            frames, fps = reader.frames_at(range(reader.num_frames)), reader.fps
        shown = (frames.max(axis=3) > DARK).sum(axis=0)
        (top, bottom), (left, right) = (middle(shown.sum(axis=axis)) for axis in (1, 0))
        half = 1.25 * max(bottom - top, right - left) / 2 + 3
        y, x = (top + bottom) / 2, (left + right) / 2
        box = (round(x - half), round(y - half), round(x + half), round(y + half))
        small = [Image.fromarray(frame).crop(box).resize((SIDE, SIDE), Image.Resampling.BILINEAR) for frame in frames]
        target.parent.mkdir(parents=True, exist_ok=True)
        pictures = np.stack([np.asarray(picture) for picture in small])
        write_video(target, pictures, fps=round(fps), key_frame_distance=1)  # a clip takes every fourth frame

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, manifest))
    rows = [
        Sample(
            str(Path(s.path).with_suffix(".mp4")), (out / s.path).with_suffix(".mp4"), s.label, s.split, group=s.group
        )
        for s in manifest
    ]
    cut = Manifest(tuple(rows), manifest.classes, out)
    cut.to_csv(out / "manifest.csv")
    (out / "statistics.json").write_text(json.dumps(statistics_of(cut)))
    return cut


def middle(counts: np.ndarray) -> tuple[int, int]:
    """Return the positions between which all but 3 % at either end lie."""
    share = counts.cumsum() / max(counts.sum(), 1)
    return int((share < 0.03).sum()), int((share < 0.97).sum())


def statistics_of(manifest: Manifest) -> tuple[float, float]:
    """Return mean and standard deviation of the pixels of the training videos, scaled to 0-1."""
    pixels = []
    for sample in manifest:
        if sample.split in (None, "train"):
            with VideoReader(sample.file) as reader:
                pixels.append(reader.frames_at(range(0, reader.num_frames, 8)) / np.float32(255))
    whole = np.concatenate([frames.ravel() for frames in pixels])
    return round(float(whole.mean()), 4), round(float(whole.std()), 4)


class Runs:
    """Runs commands side by side, each on its share of the cores."""

    def __init__(self, work: Path, options: argparse.Namespace) -> None:
        self.work, self.options = work, options
        self.threads = options.threads or max((os.cpu_count() or 1) // options.jobs, 1)

    def videomae(self, *arguments: object) -> str:
        environment = os.environ | {"OMP_NUM_THREADS": str(self.threads)}
        command = [sys.executable, "-m", "videomae", *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{shlex.join(command)}\n{done.stderr}")
        return done.stdout

    def pretrain(self, name: str, data: Path, seed: int, *extra: str) -> Path:
        """Return the pre-trained model of a run."""
        out = self.work / name
        if not (out / "model").exists():
            self.videomae(
                "pretrain", data, "--out", out, "--recipe", "pretrain-small-data", "--loader.num-workers", 0,
                *statistics_options(data), "--run.seed", seed, *shlex.split(self.options.pretrain), *extra,
            )  # fmt: skip
        return out / "model"

    def finetune(self, name: str, data: Path, seed: int, init: Path | None) -> dict:
        """Return what evaluate says of a fine-tuned model on the split "test"."""
        out = self.work / name
        if not (out / "model").exists():
            start = ["--init", init] if init else [*FROM_SCRATCH, *statistics_options(data)]
            self.videomae(
                "finetune", data, "--out", out, "--recipe", "finetune-small-data", "--loader.num-workers", 0,
                "--run.seed", seed, *start, *shlex.split(self.options.finetune),
            )  # fmt: skip
        result = out / "result.json"
        if not result.exists():
            self.videomae(
                "evaluate", data, "--model", out / "model", "--split", "test", "--views", "3x1",
                "--allow-missing-classes", "--workers", 0, "--json", "--out", out,
            )  # fmt: skip
        return json.loads(result.read_text())

    def probe(self, name: str, data: Path, model: Path) -> dict:
        """Return how well simple classifiers do on a model's features, as `videomae probe` says."""
        out = self.work / name
        self.videomae("embed", data, "--out", out, "--model", model)
        return json.loads(self.videomae("probe", out, "--json", "--c", 0.01))


def held_out(manifest: Manifest) -> Manifest:
    """Return the training videos, of which the last fifth of each class is the split "test"."""
    of_class = defaultdict(list)
    for sample in manifest.split("train"):
        of_class[sample.label].append(sample)
    rows = []
    for samples in of_class.values():
        samples.sort(key=lambda sample: [int(part) for part in re.findall(r"\d+", sample.path)])
        kept = round(0.8 * len(samples))
        rows += samples[:kept] + [dataclasses.replace(sample, split="test") for sample in samples[kept:]]
    return dataclasses.replace(manifest, samples=tuple(rows))


def statistics_options(data: Path) -> list[object]:
    """Return the options that normalise the input with the data's own mean and deviation."""
    mean, std = json.loads((data.parent / "statistics.json").read_text())
    return ["--augment.mean", *[mean] * 3, "--augment.std", *[std] * 3]


def report(title: str, results: list[dict]) -> None:
    tops = [100 * result["top1"] for result in results]
    mean, spread = statistics.mean(tops), statistics.stdev(tops) if len(tops) > 1 else float("nan")
    half = stats.t.ppf(0.975, len(tops) - 1) * spread / len(tops) ** 0.5
    print(
        f"{title:34} top-1 {mean:5.1f} % +- {spread:.1f}, 95 % interval of the mean {mean - half:.1f} to "
        f"{mean + half:.1f}  ({', '.join(f'{t:.1f}' for t in tops)})",
        flush=True,
    )


def right_by_path(folder: Path) -> dict[str, bool]:
    """Return which videos an evaluation found right."""
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return {row["path"]: row["label"] == row["predicted"] for row in csv.DictReader(file)}


def report_difference(before: np.ndarray, after: np.ndarray, *, resamples: int = 10_000) -> None:
    """Print by how much the second way is better, from (S, V) bool of seeds and videos, the same videos in both.

    The interval is that of a bootstrap which draws the seeds of each way and the videos, both with replacement.
    """
    rng = np.random.default_rng(0)
    gains = []
    for _ in range(resamples):
        videos = rng.integers(before.shape[1], size=before.shape[1])
        ways = (way[rng.integers(len(way), size=len(way))][:, videos].mean() for way in (before, after))
        gains.append(-np.subtract(*ways))
    low, high = 100 * np.quantile(gains, [0.025, 0.975])
    gain = 100 * (after.mean() - before.mean())
    print(f"{'difference':34} {gain:+.1f} points, 95 % interval over seeds and videos {low:+.1f} to {high:+.1f}")


def report_by_source(right: dict[str, dict[str, bool]], source_of: dict[str, str], *, resamples: int = 10_000) -> None:
    """Print the accuracy of two ways over all videos, and the difference, with intervals that draw sources anew.

    Videos of one source resemble each other: to draw single ones would make the intervals too narrow.
    """
    before, after = (np.array([way[path] for path in source_of]) for way in right.values())
    sources = {source: number for number, source in enumerate(dict.fromkeys(source_of.values()))}
    member = np.array([sources[source] for source in source_of.values()])
    counts = np.bincount(member)
    rng = np.random.default_rng(0)
    draws = rng.integers(len(sources), size=(resamples, len(sources)))
    totals = counts[draws].sum(axis=1)
    for title, worth in (("alone", before), ("after", after), ("difference", after.astype(int) - before)):
        drawn = np.bincount(member, worth)[draws].sum(axis=1) / totals
        low, high = 100 * np.quantile(drawn, [0.025, 0.975])
        unit = "points" if title == "difference" else f"% ({worth.sum()} of {len(worth)})"
        print(f"{title:34} {100 * worth.mean():.1f} {unit}, 95 % interval over sources {low:.1f} to {high:.1f}")


def report_probe(title: str, result: dict) -> None:
    knn, linear = (
        f"{100 * r['top1']:.1f} % ({100 * r['interval'][0]:.1f} to {100 * r['interval'][1]:.1f})"
        for r in (result["knn"], result["linear"])
    )
    print(f"{title:48} logistic regression {linear}, nearest neighbours {knn}", flush=True)


def seeds(runs: Runs, data: Path, options: argparse.Namespace) -> None:
    cut = cut_blank(data, runs.work / "data")
    everything = labelled = runs.work / "data" / "manifest.csv"
    prefix, number_alone = "", max(options.seeds, options.alone)
    if options.choose:
        prefix, labelled = "choose-", runs.work / "data" / "choose.csv"
        held_out(cut).to_csv(labelled)

    def pretrained(seed: int) -> dict:
        model = runs.pretrain(f"pretrain-{seed}", everything, seed)
        return runs.finetune(f"{prefix}finetune-{seed}", labelled, seed, model)

    def from_scratch(seed: int) -> dict:
        return runs.finetune(f"{prefix}scratch-{seed}", labelled, seed, None)

    with ThreadPoolExecutor(options.jobs) as pool:
        after = [pool.submit(pretrained, seed) for seed in range(options.seeds)]
        alone = [pool.submit(from_scratch, seed) for seed in range(number_alone)]
        report("fine-tuning only", [future.result() for future in alone])
        if not after:
            return
        report("pre-training, then fine-tuning", [future.result() for future in after])
    report_difference(*(
        np.array([list(right_by_path(runs.work / f"{prefix}{name}-{seed}").values()) for seed in range(number)])
        for name, number in (("scratch", number_alone), ("finetune", options.seeds))
    ))  # fmt: skip


def pixels(runs: Runs, data: Path, options: argparse.Namespace) -> None:
    """Print how far a support vector machine gets on small grey frames, for comparison."""
    from PIL import Image
    from sklearn.svm import SVC

    manifest = cut_blank(data, runs.work / "data")

    def clip(sample: Sample, size: int) -> np.ndarray:
        with VideoReader(sample.file) as reader:
            frames = reader.frames_at(np.linspace(0, reader.num_frames - 1, 16).round().astype(int))
        small = [
            Image.fromarray(frame).convert("L").resize((size, size), Image.Resampling.BILINEAR) for frame in frames
        ]
        return np.stack([np.asarray(picture, np.float32) / 255 for picture in small]).ravel()

    for size in (8, 16):
        vectors, labels = {}, {}
        for split in ("train", "test"):
            samples = manifest.split(split)
            vectors[split] = np.stack([clip(sample, size) for sample in samples])
            labels[split] = np.array([sample.label for sample in samples])
        right = SVC(C=10).fit(vectors["train"], labels["train"]).predict(vectors["test"]) == labels["test"]
        print(f"support vector machine on 16 frames of {size} x {size} pixels: top-1 {100 * right.mean():.1f} %")


def masks(runs: Runs, data: Path, options: argparse.Namespace) -> None:
    cut_blank(data, runs.work / "data")
    manifest = runs.work / "data" / "manifest.csv"

    def one(name: str) -> dict:
        folder = name.replace(" ", "-")
        model = runs.pretrain(f"pretrain-{folder}", manifest, 0, *shlex.split(MASKS[name]))
        return runs.probe(f"features-{folder}", manifest, model)

    with ThreadPoolExecutor(options.jobs) as pool:
        for name, result in zip(MASKS, pool.map(one, MASKS), strict=True):
            report_probe(name, result)


def sources(runs: Runs, data: Path, options: argparse.Namespace) -> None:
    folders = {"target": data, "other": options.other}
    for name, folder in folders.items():
        cut = cut_blank(folder, runs.work / name)
        if not cut.splits:
            cut.grouped_split({"train": 0.8, "test": 0.2}, seed=0).to_csv(runs.work / name / "manifest.csv")
    manifests = {name: runs.work / name / "manifest.csv" for name in folders}

    def one(source: str) -> list[dict]:
        model = runs.pretrain(f"pretrain-{source}", manifests[source], 0)
        return [runs.probe(f"features-{target}-after-{source}", manifests[target], model) for target in folders]

    with ThreadPoolExecutor(options.jobs) as pool:
        for source, results in zip(folders, pool.map(one, folders), strict=True):
            for target, result in zip(folders, results, strict=True):
                report_probe(f"pre-trained on {folders[source].name}, probed on {folders[target].name}", result)


def folds(runs: Runs, data: Path, options: argparse.Namespace) -> None:
    cut = cut_blank(data, runs.work / "data")
    everything = runs.work / "data" / "manifest.csv"
    manifests = []
    for number, fold in enumerate(cut.grouped_folds(options.folds, seed=0, held_out="test")):
        manifests.append(runs.work / "data" / f"fold-{number}.csv")
        fold.to_csv(manifests[-1])
    model = runs.pretrain("pretrain", everything, 0)

    def one(job: tuple[int, Path | None]) -> dict:
        number, init = job
        return runs.finetune(f"{'after' if init else 'alone'}-{number}", manifests[number], 0, init)

    with ThreadPoolExecutor(options.jobs) as pool:
        for title, init in {"fine-tuning only": None, "pre-training on all, unlabelled": model}.items():
            report(f"{title}, by folds", list(pool.map(one, [(number, init) for number in range(options.folds)])))

    source_of = {sample.path: sample.group or sample.path for sample in cut}
    right = {}
    for way in ("alone", "after"):
        right[way] = {
            path: is_right
            for number in range(options.folds)
            for path, is_right in right_by_path(runs.work / f"{way}-{number}").items()
        }
    report_by_source(right, source_of)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("seeds", "pixels", "masks", "sources", "folds"))
    parser.add_argument("data", type=Path)
    parser.add_argument("other", type=Path, nargs="?")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--seeds", type=int, default=3, help="of both ways; 0 leaves pre-training out")
    parser.add_argument("--alone", type=int, default=0, help="seeds of fine-tuning only, where more are wanted")
    parser.add_argument("--choose", action="store_true", help="measure on a part of the training videos instead")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side")
    parser.add_argument("--threads", type=int, default=0, help="of each run; by default the cores are shared out")
    parser.add_argument("--pretrain", default="", help="further options of videomae pretrain")
    parser.add_argument("--finetune", default="", help="further options of videomae finetune")
    options = parser.parse_args()
    globals()[options.what](Runs(options.out, options), options.data, options)


if __name__ == "__main__":
    main()
