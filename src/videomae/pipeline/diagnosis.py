"""What is installed, what this machine has, and how fast it is: what `videomae doctor` shows."""

import dataclasses
import os
import platform
import shutil
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from videomae.config import VideoMAEConfig
from videomae.errors import MissingPackageError

DISTRIBUTION = "videomae"
OF_DEVELOPERS = ("dev", "docs", "bench")  # extras that users of the package have no use for
CODECS = ("h264", "hevc", "av1", "vp9", "vp8", "mpeg4", "mpeg2video", "mjpeg", "prores", "theora", "wmv3", "gif")
ENCODER = "libx264"  # writes overlays, and the copies of `prepare`
SHARED_MEMORY = Path("/dev/shm")  # where decoding processes put clips
VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "CUDA_VISIBLE_DEVICES", "HF_HOME", "HF_HUB_OFFLINE", "WORLD_SIZE")
SIZES = {"tiny": 64, "small": 112, "base": 224}  # presets, and the frame sizes that they are for
MEASURED, FRAMES, SIDE = "tiny", 64, 256


@dataclasses.dataclass(frozen=True)
class Package:
    """A package that this one needs.

    Attributes:
        name: by which it is installed.
        needs: the versions that do, such as ">=2.9".
        version: that is installed; None where it is not.
        fits: whether that version does.
    """

    name: str
    needs: str
    version: str | None
    fits: bool


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found.

    Attributes:
        version: of this package.
        system: Python and operating system.
        packages: those that are always needed.
        extras: by extra, the packages that it brings.
        devices: name to what it is.
        engines: name to what it runs on, or why it does not run.
        back_ends: likewise for what decodes videos.
        codecs: name to whether it can be decoded; and the encoder, whether it can be used.
        environment: variables that change what commands do, and how much memory processes can share.
        speed: frames per second of decoding, by their side in pixels, and clips per second of training, by preset and
            side, worked out from the speed of the smallest; empty if not measured.
    """

    version: str
    system: str
    packages: list[Package]
    extras: dict[str, list[Package]]
    devices: dict[str, str]
    engines: dict[str, str]
    back_ends: dict[str, str]
    codecs: dict[str, bool]
    environment: dict[str, str]
    speed: dict[str, float]

    @property
    def problems(self) -> list[str]:
        """What keeps the package from working, each with the next step."""
        found = [
            f"{p.name}{p.needs} is needed, {p.version or 'none'} is installed: pip install '{p.name}{p.needs}'."
            for p in self.packages
            if not p.fits
        ]
        missing = [name for name in ("h264", ENCODER) if not self.codecs[name]]
        return found + [f"FFmpeg has no {name}: install PyAV's own wheel (pip install av)." for name in missing]


def diagnose(*, speed: bool = True) -> Diagnosis:
    """Look at packages, devices, engines and codecs, and measure how fast videos are decoded and models trained.

        >>> from videomae.pipeline.diagnosis import diagnose
        >>> found = diagnose(speed=False)
        >>> found.problems, found.codecs["h264"]
        ([], True)

    Args:
        speed: whether to measure, which takes some seconds.
    """
    packages, extras = _packages()
    return Diagnosis(
        version=metadata.version(DISTRIBUTION),
        system=f"Python {platform.python_version()}, {platform.platform()}",
        packages=packages,
        extras=extras,
        devices=_devices(),
        engines=_engines(),
        back_ends=_back_ends(),
        codecs={name: _has_codec(name, "r") for name in CODECS} | {ENCODER: _has_codec(ENCODER, "w")},
        environment=_environment(),
        speed=_measure() if speed else {},
    )


def _packages() -> tuple[list[Package], dict[str, list[Package]]]:
    """Return what is needed always, and by extra, as the installed package states it."""
    from packaging.requirements import Requirement

    always: list[Package] = []
    extras: dict[str, list[Package]] = {}
    names = metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    for requirement in map(Requirement, metadata.requires(DISTRIBUTION) or []):
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            version = None
        fits = version is not None and requirement.specifier.contains(version, prereleases=True)
        package = Package(requirement.name, str(requirement.specifier), version, fits)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            always.append(package)
            continue
        for name in set(names).difference(OF_DEVELOPERS):
            if requirement.marker.evaluate({"extra": name}):
                extras.setdefault(name, []).append(package)
    return always, dict(sorted(extras.items()))


def _devices() -> dict[str, str]:
    """Return the devices that PyTorch has, the one that commands take first."""
    import psutil
    import torch

    found = {}
    for i in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(i)
        found[f"cuda:{i}"] = (
            f"{about.name}, {about.total_memory / 1e9:.0f} GB, "
            f"{'bf16' if torch.cuda.is_bf16_supported() else 'no bf16'}"
        )
    if torch.backends.mps.is_available():
        found["mps"] = "Apple's GPU"
    memory = psutil.virtual_memory()
    kind = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    found["cpu"] = (
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {memory.available / 1e9:.0f} of "
        f"{memory.total / 1e9:.0f} GB free; PyTorch {torch.__version__} is a {kind} build"
    )
    return found


def _engines() -> dict[str, str]:
    """Return what runs models here."""
    from videomae.inference.engines.formats import FORMATS
    from videomae.packages import require

    found = {}
    for name, kind in FORMATS.items():
        try:
            if kind.package is not None:
                package, extra = kind.package
                require(package, extra=extra, purpose=f"{kind.title} needs {package}")
            found[name] = _devices_of(name)
        except MissingPackageError as error:
            found[name] = str(error)
    return found


def _devices_of(engine: str) -> str:
    """Return the devices of an engine that is installed."""
    if engine == "openvino":
        import openvino

        return ", ".join(openvino.Core().available_devices)
    if engine == "onnx":
        import onnxruntime

        return ", ".join(onnxruntime.get_available_providers())
    return "as PyTorch"


def _back_ends() -> dict[str, str]:
    """Return what decodes videos here."""
    import av

    from videomae.video.backends.torchcodec import decoder_class

    found = {"pyav": f"PyAV {av.__version__} with FFmpeg {av.ffmpeg_version_info}"}
    try:
        decoder_class()
        found["torchcodec"] = f"torchcodec {metadata.version('torchcodec')}"
    except MissingPackageError as error:
        found["torchcodec"] = str(error)
    return found


def _has_codec(name: str, mode: Any) -> bool:
    import av

    try:
        av.Codec(name, mode)
    except ValueError:
        return False
    return True


def _environment() -> dict[str, str]:
    """Return what of the environment changes what commands do."""
    ours = [name for name in os.environ if name.startswith("VIDEOMAE_") and "TOKEN" not in name]
    found = {name: os.environ[name] for name in sorted({*ours, *VARIABLES} & os.environ.keys())}
    if SHARED_MEMORY.is_dir():
        found[str(SHARED_MEMORY)] = f"{shutil.disk_usage(SHARED_MEMORY).free / 1e9:.1f} GB free"
    return found


def _measure() -> dict[str, float]:
    """Return how fast a made video is decoded, and how fast models of some sizes are trained."""
    from videomae.pipeline.measure import finetuning_cost, training_speed

    configs = {name: VideoMAEConfig.preset(name, image_size=size) for name, size in SIZES.items()}
    flops = training_speed(configs[MEASURED], finetuning_cost(configs[MEASURED]), "auto")
    clips = {
        f"training_clips_per_s_{name}_{size}": flops / finetuning_cost(configs[name]).training_flops
        for name, size in SIZES.items()
    }
    return {f"decoding_frames_per_s_{SIDE}": _decoding_speed()} | clips


def _decoding_speed() -> float:
    import numpy as np

    from videomae.video.encode import write_video
    from videomae.video.reader import VideoReader
    from videomae.video.synthetic import motion_video

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "made.mp4"
        write_video(file, motion_video("moving_right", rng=np.random.default_rng(0), num_frames=FRAMES, size=SIDE))
        began = time.perf_counter()
        with VideoReader(file) as reader:
            reader.frames_at(range(FRAMES))
        return FRAMES / (time.perf_counter() - began)
