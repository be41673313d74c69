"""What a model can be exported to: one function a kind of file, and their table.

Each takes the module in float32, what the file says of itself, where to write it, and how to quantise it, or None.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from videomae.export.quantize import Calibration, quantize
from videomae.inference.engines.base import METADATA_KEY, ModelCard
from videomae.packages import require

if TYPE_CHECKING:
    import torch

    from videomae.export.module import FramesIn

INPUT = "frames"
OUTPUTS = {"classification": "logits", "encoder": "last_hidden_state"}
LARGEST_ONNX = 1_900_000_000  # bytes of weights in one file; protobuf ends at 2 GiB

Write = Callable[["FramesIn", ModelCard, Path, Calibration | None], None]


def write_program(module: "FramesIn", card: ModelCard, path: Path, calibration: Calibration | None) -> None:
    """Write a program of ``torch.export``."""
    import torch

    torch.export.save(_program(_cast(module, card.precision), card), path, extra_files={METADATA_KEY: card.to_json()})


def write_openvino(module: "FramesIn", card: ModelCard, path: Path, calibration: Calibration | None) -> None:
    """Write OpenVINO's .xml and .bin."""
    import openvino

    # It computes in half precision where it is told to; stored values are compressed when they are saved.
    model = openvino.convert_model(_program(module, card))
    model.reshape([-1, *card.frames_shape])
    model.inputs[0].get_tensor().set_names({INPUT})
    model.outputs[0].get_tensor().set_names({OUTPUTS[card.task]})
    if calibration is not None:
        model = quantize(
            model, calibration, to_input=lambda clip: clip, to_runner=lambda compiled: lambda clip: compiled(clip)[0]
        )
    model.set_rt_info(card.to_json(), METADATA_KEY)
    openvino.save_model(model, path, compress_to_fp16=card.precision == "float16")


def write_onnx(module: "FramesIn", card: ModelCard, path: Path, calibration: Calibration | None) -> None:
    """Write an ONNX file; a model of 2 GB and more has its weights in a second one."""
    import onnx
    import torch

    batch = {0: torch.export.Dim("batch", min=1)}
    module, frames = _cast(module, card.precision), _example(card)
    with torch.no_grad():
        exported: Any = torch.onnx.export(
            module,
            (frames,),
            dynamo=True,
            dynamic_shapes=(batch,),
            input_names=[INPUT],
            output_names=[OUTPUTS[card.task]],
            verbose=False,
        )
    if calibration is None:
        exported.model.metadata_props[METADATA_KEY] = card.to_json()
        exported.save(path, external_data=sum(p.nbytes for p in module.parameters()) > LARGEST_ONNX)
        return
    # NNCF does not find the weights of transposed products in ONNX, which SmoothQuant asks for.
    model = quantize(
        exported.model_proto, calibration, to_input=lambda clip: {INPUT: clip}, to_runner=_onnx_runner, smooth=False
    )
    onnx.helper.set_model_props(model, {METADATA_KEY: card.to_json()})
    onnx.save_model(model, path)


def _onnx_runner(model: Any) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda clip: session.run(None, {INPUT: clip})[0]


TARGETS: dict[str, Write] = {"openvino": write_openvino, "onnx": write_onnx, "torch": write_program}
"""By name of the format, see ``FORMATS`` of `videomae.inference.engines.formats`."""

# Packages that writing needs, besides the engine's, and the extra that brings them.
_WRITERS = {"onnx": (("onnx", "onnxscript"), "onnx")}


def require_writer(name: str, *, quantized: bool) -> None:
    """Make sure that the packages that a target needs are installed.

    Raises:
        MissingPackageError: if one is not.
    """
    packages, extra = _WRITERS.get(name, ((), name))
    for package in (*packages, *(("nncf",) if quantized else ())):
        require(package, extra=extra, purpose=f"exporting to {name} needs {package}")


def _program(module: "FramesIn", card: ModelCard) -> "torch.export.ExportedProgram":
    import torch

    batch = {0: torch.export.Dim("batch", min=1)}
    with torch.no_grad():
        return torch.export.export(module, (_example(card),), dynamic_shapes=(batch,))


def _example(card: ModelCard) -> "torch.Tensor":
    import torch

    return torch.zeros(2, *card.frames_shape, dtype=torch.uint8)  # a batch of one would be taken for a fixed size


def _cast(module: "FramesIn", precision: str) -> "FramesIn":
    """Return the module with its model in a precision; pixels are prepared in float32."""
    import torch

    if precision not in ("float16", "bfloat16"):
        return module
    module = copy.deepcopy(module)
    module.model.to(getattr(torch, precision))
    return module
