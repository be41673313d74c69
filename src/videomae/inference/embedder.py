"""An encoder with its processor: a video in, features out.

R rows of a video: clips, windows, time slots or tubelets · D width
"""

import dataclasses
import hashlib
import json
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from videomae.data.manifest import Sample
from videomae.inference.engines.base import Engine, ExportedModel, join
from videomae.inference.engines.formats import EngineName, open_exported
from videomae.inference.engines.pytorch import TorchEngine
from videomae.inference.loading import open_model
from videomae.options import Seconds
from videomae.video.clips import in_batches, read_ahead, slide
from videomae.video.damage import Damage
from videomae.video.reader import VideoReader
from videomae.video.sampling import ClipSampling
from videomae.video.source import refuse_url

if TYPE_CHECKING:
    import torch

    from videomae.models.videomae import VideoMAEModel
    from videomae.video.processors import VideoMAEImageProcessor


# What the encoder's output depends on besides its weights. Those of the classifier and the decoder, and how clips are
# chosen, are not here.
ENCODER_FIELDS = (
    "frame_size",
    "tubelet_shape",
    "num_channels",
    "num_frames",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "layer_norm_eps",
    "qv_bias",
    "use_mean_pooling",
    "position_embedding",
    "position_grid",
)

Per = Literal["clip", "window", "slot", "token"]


@dataclasses.dataclass(frozen=True)
class FeatureKind:
    """Which features of a video."""

    per: Per = "clip"
    """A vector per clip (the middle one), sliding window, time slot of the clip, or token (tubelet)."""

    layer: int = -1
    """-1 is the encoder's output, 0 the input of its first block, k the output of block k."""

    stride: float | None = None
    """Frames from one of the clip to the next; by default as in the model's training."""

    window: Seconds | None = None
    """With --per window: seconds that a window spans, such as 2s or 2, which is the default."""

    hop: Seconds | None = None
    """With --per window: seconds from one window to the next, such as 1s or 1, which is the default."""

    @property
    def step(self) -> dict[str, float]:
        """Seconds of "window" and "hop", for features per window; of others there are none."""
        if self.per != "window":
            return {}
        return {"window": 2.0 if self.window is None else self.window, "hop": 1.0 if self.hop is None else self.hop}


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """The features of one video.

    Attributes:
        starts: (R,) second at which each row begins.
        ends: (R,) the second after it.
        vectors: (R, D) float32.
        damage: stretches of the video that did not decode, as far as they were met.
    """

    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    vectors: NDArray[np.float32]
    damage: tuple[Damage, ...] = ()


class VideoEmbedder:
    """An encoder with its processor: a video in, features out.

        >>> embed = VideoEmbedder.from_pretrained("run/model")
        >>> embed("clip.mp4").vectors.shape  # of the middle clip
        (1, 192)
        >>> windows = embed("long.mp4", per="window", window=2.0, hop=1.0)
        >>> windows.vectors.shape, windows.starts.tolist()
        ((3, 192), [0.0, 1.0, 2.0])

    Args:
        model: the encoder, on the device where it should run; or an exported one.
        processor: turns frames into its input.
        dtype: of the parameters, where it was asked for; with None a CUDA GPU computes in bfloat16 where it has that.
    """

    def __init__(
        self,
        model: "VideoMAEModel | ExportedModel",
        processor: "VideoMAEImageProcessor",
        *,
        dtype: "torch.dtype | str | None" = None,
    ) -> None:
        self.model, self.processor = model, processor
        self.engine: Engine = model if isinstance(model, ExportedModel) else TorchEngine(model, processor, dtype=dtype)

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | Path,
        *,
        engine: EngineName | None = None,
        device: "torch.device | str | None" = None,
        dtype: "torch.dtype | str | None" = None,
    ) -> Self:
        """Load the encoder of a checkpoint of any family, pre-trained or fine-tuned, or an exported one.

        Arguments and errors are those of `VideoClassifier.from_pretrained`.
        """
        exported = open_exported(path_or_id, "encoder", engine, device=device, dtype=dtype)
        if exported is not None:
            return cls(exported, exported.processor)
        from videomae.models.videomae import VideoMAEModel

        opened = open_model(path_or_id, VideoMAEModel, device=device, dtype=dtype)
        return cls(opened.model, opened.processor, dtype=dtype)

    def __call__(
        self,
        video: str | Path | Sample,
        *,
        per: Per = "clip",
        layer: int = -1,
        stride: float | None = None,
        window: float | None = None,
        hop: float | None = None,
        batch_size: int = 8,
    ) -> Features:
        """Return the features of one video.

        Args:
            video: a file, or a sample of a manifest, whose stretch counts.
            per: "clip" is the mean over all tokens of the middle clip; "window" likewise for windows that slide over
                the whole video; "slot" is the mean over each time slot of the middle clip; "token" is every tubelet.
            layer: -1 is the encoder's output, 0 the input of its first block, k the output of block k.
            stride: frames from one of the middle clip to the next; by default they are chosen as in the model's
                training.
            window: with "window", seconds that a window spans; None is 2.
            hop: with "window", seconds from one window to the next; None is 1.
            batch_size: clips that go through the model at once.

        Raises:
            VideoError: if the video cannot be read.
            ValueError: if a number is out of its range.
        """
        kind = FeatureKind(per, layer, stride, window, hop)
        self.check(kind, batch_size)
        if not isinstance(video, Sample):
            refuse_url(video)
        sample = video if isinstance(video, Sample) else Sample(str(video), Path(video))

        def embed(reader: VideoReader) -> Features:
            found = []
            # A batch at a time, so that pixels do not add up; meanwhile the next one is decoded.
            with closing(read_ahead(in_batches(self.clips(reader, sample, kind), batch_size))) as batches:
                for batch in batches:
                    tokens = self.encode([pixels for _, _, pixels in batch], layer)
                    found.append(self.rows([clip[:2] for clip in batch], tokens, per))
            names = ("starts", "ends", "vectors")
            starts, ends, vectors = (np.concatenate([getattr(part, name) for part in found]) for name in names)
            return Features(starts, ends, vectors)

        features, damage = sample.read(embed)
        return dataclasses.replace(features, damage=tuple(damage))

    def rows(self, spans: Sequence[tuple[float, float]], tokens: NDArray[np.float32], per: Per) -> Features:
        """Turn the tokens of a video's clips, (clips, N, D), into its rows."""
        if per in ("clip", "window"):
            starts, ends = (np.array(times, dtype=np.float64) for times in zip(*spans, strict=True))
            return Features(starts, ends, tokens.mean(axis=1))
        slots = self.model.config.grid[0]
        by_slot = tokens[0].reshape(slots, -1, tokens.shape[-1])  # (slots, H/p * W/p, D)
        edges = np.linspace(*spans[0], slots + 1)
        if per == "slot":
            return Features(edges[:-1], edges[1:], by_slot.mean(axis=1))
        starts, ends = (np.repeat(times, by_slot.shape[1]) for times in (edges[:-1], edges[1:]))
        return Features(starts, ends, tokens[0])

    def fingerprint(self) -> str:
        """Return a checksum of the weights, of what the config does with them, and of the processor."""
        if isinstance(self.model, ExportedModel):
            return self.model.fingerprint()
        digest = hashlib.sha256(json.dumps(self.processor.to_dict(), sort_keys=True).encode())
        config = {name: getattr(self.model.config, name) for name in ENCODER_FIELDS}
        digest.update(json.dumps(config, sort_keys=True).encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
        return digest.hexdigest()[:32]

    def clips(
        self, reader: VideoReader, sample: Sample, kind: FeatureKind
    ) -> Generator[tuple[float, float, Any], None, None]:
        """Yield start, end and pixels, as the engine takes them, of a video's clips: one, or its windows."""
        num_frames = self.model.config.num_frames
        views = self.engine.views(1, "processor", self.model.config.frame_size, self.processor)
        times = reader.times
        stretch = sample.some_frames_of(times)
        if kind.per == "window":
            inside = reader.frames(stretch.start, stretch.stop)
            form: dict[str, Any] = {**kind.step, "num_frames": num_frames}
            for start, clip in slide(inside, **form, is_gap=reader.is_gap, shrink=views.shrink):
                yield start, start + kind.step["window"], views(clip)
            return
        sampling = ClipSampling.of_model(self.model.config, stride=kind.stride)
        chosen = stretch.start + sampling(len(stretch), video_fps=reader.fps, clip_frames=num_frames)[0]
        frames = reader.frames_at(chosen, shrink=views.shrink)
        if sampling.is_of_whole_video:
            seconds = len(stretch) / reader.fps / num_frames
        else:
            seconds = sampling.stride / (sampling.fps or reader.fps)
        end = min(float(times[chosen[-1]]) + seconds, reader.end)
        yield float(times[chosen[0]]), end, views(list(frames))

    def check(self, kind: FeatureKind, batch_size: int) -> None:
        """Raise a ValueError if the model has no such features, or a number is out of its range."""
        depth = self.model.config.num_hidden_layers
        if kind.layer != -1 and isinstance(self.model, ExportedModel):
            raise ValueError(
                f"an exported encoder has only its output, layer -1, got {kind.layer}: use the checkpoint."
            )
        if not -1 <= kind.layer <= depth:
            raise ValueError(f"layer must be -1 (the output) or from 0 to {depth}, got {kind.layer}.")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        if kind.per != "window" and not (kind.window is None and kind.hop is None):
            raise ValueError(
                f"window and hop must be those of per='window', got {kind.per!r}: add --per window, or leave them out."
            )
        if not all(0 < seconds < np.inf for seconds in kind.step.values()):
            window, hop = kind.step.values()
            raise ValueError(f"window and hop must be above 0 and finite, got {window} and {hop} seconds.")

    def encode(self, clips: Sequence[Any], layer: int) -> NDArray[np.float32]:
        """Return the tokens, (clips, N, D), of a layer for clips as `clips` prepares them."""
        pixels = join(clips)
        if layer == -1 or not isinstance(self.engine, TorchEngine):
            return self.engine(pixels)
        with self.engine.computing():
            pixels = pixels.to(self.engine.model.device, self.engine.model.dtype)
            outputs: Any = self.engine.model(pixels, output_hidden_states=True, return_dict=True)
        return outputs.hidden_states[layer].float().cpu().numpy()
