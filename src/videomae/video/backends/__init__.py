"""The decoding libraries below `VideoReader`. To add one, write a `Backend` and name it here."""

from videomae.video.backends.base import Backend
from videomae.video.backends.pyav import PyAVDecoder
from videomae.video.backends.torchcodec import TorchCodecDecoder

BACKENDS: dict[str, type[Backend]] = {"pyav": PyAVDecoder, "torchcodec": TorchCodecDecoder}
