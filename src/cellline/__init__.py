"""Cross-validated training on labelled images; `load_run` opens a run that it left."""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from os import PathLike

    from cellline.predicting.trained import TrainedRun


def load_run(
    folder: "str | PathLike[str]",
    *,
    device: str = "auto",
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
) -> "TrainedRun":
    """Load a trained run from its folder, such as oof/mobilenet_v2, to predict images with.

    It needs the OOF folder that the run is in, not the competition's images. `device` is auto
    (CUDA, else Apple's MPS, else the CPU), or a torch device such as cuda:1; `precision` auto means
    the fastest that the device computes in hardware. Nothing is printed or written; on a CPU, the
    process keeps freed memory from then on. Raises `cellline.errors.UserError` if the run is
    missing, damaged or not finished, or for a device that can't be used.
    """
    # Here, so that importing cellline takes no time: this imports torch.
    from cellline.config import Machine
    from cellline.predicting.trained import open_trained

    return open_trained(folder, Machine(device=device, precision=precision))
