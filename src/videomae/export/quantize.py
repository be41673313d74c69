"""Eight-bit weights and activations, by NNCF: calibrated with clips, and by their labels where these are known."""

import dataclasses
import logging
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """What a model is quantised with.

    Attributes:
        frames: (B, T, H, W, C) uint8 clips, whose activations say which values there are.
        labels: (B,) int64, by which layers that cost accuracy are left in floating point; None leaves none.
        max_drop: of top-1 that is accepted with labels, as a fraction.
    """

    frames: NDArray[np.uint8]
    labels: NDArray[np.int64] | None = None
    max_drop: float = 0.01


def quantize(
    model: Any,
    calibration: Calibration,
    *,
    to_input: Callable[[NDArray[np.uint8]], Any],
    to_runner: Callable[[Any], Callable[[NDArray[np.uint8]], NDArray[np.float32]]],
    smooth: bool = True,
) -> Any:
    """Return a quantised copy of a model of OpenVINO or ONNX.

    Args:
        model: to quantise.
        calibration: clips, and labels or none.
        to_input: from (1, T, H, W, C) frames to what the model takes.
        to_runner: from a quantised model, as NNCF hands it over to be measured, to a function from frames to logits.
        smooth: whether outliers of activations are first moved into the weights (SmoothQuant).
    """
    import nncf

    logging.getLogger("nncf").setLevel(logging.WARNING)
    labels = [None] * len(calibration.frames) if calibration.labels is None else calibration.labels.tolist()
    clips = [(frames[None], label) for frames, label in zip(calibration.frames, labels, strict=True)]
    dataset = nncf.Dataset(clips, lambda clip: to_input(clip[0]))
    options: dict[str, Any] = {"model_type": nncf.ModelType.TRANSFORMER, "subset_size": len(clips)}
    alphas = nncf.AdvancedSmoothQuantParameters() if smooth else nncf.AdvancedSmoothQuantParameters(matmul=-1)
    advanced = nncf.AdvancedQuantizationParameters(smooth_quant_alphas=alphas)
    if calibration.labels is None:
        return nncf.quantize(model, dataset, advanced_parameters=advanced, **options)

    def top1(quantised: Any, clips: Iterable[Any]) -> tuple[float, list[float]]:
        run = to_runner(quantised)
        correct = [float(run(frames).argmax() == label) for frames, label in clips]
        return float(np.mean(correct)), correct

    return nncf.quantize_with_accuracy_control(
        model,
        dataset,
        dataset,
        top1,
        max_drop=calibration.max_drop,
        advanced_quantization_parameters=advanced,
        **options,
    )
