"""From trained runs to files that predict without this program, compared with it before they stay.

A run's networks, their views and means, and the calibration become one ONNX file, one torch.export
archive, and a record that says what goes in and what comes out.
"""

import importlib.metadata
import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from cellline.config import Config, Machine
from cellline.data.competition import Competition
from cellline.errors import UserError, first_line
from cellline.exporting.distilling import TITLE, count_agreement, distill_runs
from cellline.exporting.ensemble import Ensemble, Member
from cellline.host.device import choose_device
from cellline.host.progress import say
from cellline.model.views import choose_views
from cellline.predicting.predict import calibrate, open_models
from cellline.runs.folds import open_folds
from cellline.runs.run import check_trained, open_runs
from cellline.scoring.bootstrap import Estimate
from cellline.scoring.decisions import Correction
from cellline.submitting.blend import blend
from cellline.submitting.decision import HeldOut, cross_fit, hold_out, plain_rule
from cellline.submitting.inference import describe_models, place_network
from cellline.submitting.submission import join_names, write_recorded
from cellline.training.checkpoint import Checkpoint

INPUT, OUTPUT = "images", "probabilities"
# The first with an antialiased Resize, which our networks begin with.
OPSET = 18
# Bytes of weights: protobuf holds 2 GiB, and the graph needs some of them.
LARGEST_ONNX = (2 << 30) - (16 << 20)
PACKAGES = ("onnx", "onnxruntime", "onnxscript")

# Training images that the files are tried on, a few at once: as many views of each are computed.
TRIED, AT_ONCE = 32, 4
# Largest difference from this program's probabilities. Rounding makes 1e-6.
TOLERANCE = 1e-4

# What the pixels of the input mean, for the record.
PIXELS = (
    "0 to 255, as in files of 8 bits. Of files of 16 bits, 255 * (value - low) / (high - low), "
    "rounded and clipped, with the channel's low and high in scales. Files of other sizes are "
    "resized first, antialiased"
)


def export_models(config: Config, names: Sequence[str], output: Path, distill: int = 0) -> Path:
    """Write the blend of some runs to `output`, return its record's path.

    With `distill`, one network that has learned from them all takes their place, trained for so
    many epochs. Raises UserError if a run is missing, of other data or not finished, or if torch
    can't export its network; Stopped if distilling was stopped.
    """
    folds = open_folds(config.folders, config.reading, for_training=not distill)
    runs = open_runs(config, names, folds)
    check_trained(runs)
    competition, samples = folds.competition, hold_out([run.oof for run in runs])
    images = competition.train_images
    rows = np.linspace(0, len(images) - 1, min(TRIED, len(images))).astype(int)
    tried, shape = images[rows], images.shape[1:]
    device = choose_device(Machine(device="cpu", precision="float32"))
    members: list[Member] = []
    probs: list[np.ndarray] = []

    def add(checkpoint: Checkpoint, title: str) -> None:
        placed = place_network(checkpoint, shape, device)
        members.append(Member(placed.predictor.network, placed.views))
        probs.append(placed.predict(tried, title))

    described, teachers = [], []
    for run in runs:
        opened = list(open_models(run))
        models = {str(checkpoint.fold): digest for checkpoint, digest in opened}
        views = choose_views(shape, run.config.training.symmetry)
        described.append({**describe_models(run, models), "views": views})
        if distill:
            teachers += opened
        else:
            for checkpoint, _ in opened:
                add(checkpoint, f"{run.name}, fold {checkpoint.fold}")
    name, correction = join_names([run.name for run in runs]), fit_calibration(samples)
    record: dict[str, Any] = {"runs": described}
    of = "out-of-fold samples, each by itself, by its fold's network of every run"
    if distill:
        student = distill_runs(config, runs, teachers, distill)
        add(student, TITLE)
        name, of = f"{name}-distilled", f"not of this network but its teachers: {of}"
        agreement = count_agreement(config, runs, student, correction)
        record["distilled"] = {
            "settings": student.config["settings"],
            "model": student.model_digest(),
            "precision": student.precision,
            **agreement,
        }
    files = render_models(Ensemble(members, correction), shape)
    difference = compare(files, tried, correction.apply(blend(probs)).prob)
    score = score_alone(samples)
    record |= {
        **describe_interface(competition),
        "correction": asdict(correction),
        "oof": describe_score(samples, score, of),
        "largest_difference": difference,
        "input_digest": competition.digest,
        "exported_with": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
    path = write_recorded(output / name, files, record)
    expected = "its teachers have" if distill else "expect"
    say(
        f"{expected} {samples.metric.title} {samples.metric.show(score)} on samples by themselves: "
        f"OOF, {len(samples.labels)} training samples"
    )
    if distill and agreement:
        say(
            f"it gives {agreement['same_class']:.1%} of {agreement['test_samples']} test samples "
            "the class that its teachers give on average"
        )
    say(
        f"both files differ by {difference:.0e} at most from this program's probabilities of "
        f"{len(tried)} training images"
    )
    for suffix, data in files.items():
        say(f"wrote {path.with_suffix(suffix)} ({len(data) / 1e6:.1f} MB)")
    return path


def fit_calibration(samples: HeldOut) -> Correction:
    """The calibration of the runs' mean, as `predict` fits it."""
    return calibrate(blend(samples.prob), samples.labels, samples.metric)


def score_alone(samples: HeldOut) -> Estimate:
    """Score the likeliest classes of samples by themselves, calibrated on the other folds."""
    plain = plain_rule(len(samples.prob))
    decided = cross_fit(lambda others: replace(plain, correction=fit_calibration(others)), samples)
    return samples.metric.estimate(samples.labels, decided, samples.bootstrap)


def describe_score(samples: HeldOut, score: Estimate, of: str) -> dict[str, Any]:
    """A score of `samples`, for the record."""
    return {
        "of": f"{of}; calibrated on the other folds. Interval: 95 %, over groups",
        "metric": samples.metric.name,
        "score": score.value,
        "interval": score.interval,
        "samples": len(samples.labels),
    }


def render_models(ensemble: Ensemble, shape: tuple[int, int, int]) -> dict[str, bytes]:
    """The ONNX file and the torch.export archive, by suffix, for images of `shape`.

    Raises UserError if torch can't export the networks, or if they are too large.
    """
    size = sum(tensor.nbytes for tensor in ensemble.state_dict().values())
    if size > LARGEST_ONNX:
        raise UserError(
            f"all folds' networks have {size / 1e9:.1f} GB of weights, and an ONNX file holds 2.1: "
            "export fewer runs, or one of a smaller network"
        )
    # Two images: torch takes a batch of one for one that is never larger.
    images = torch.zeros((2, *shape), dtype=torch.uint8)
    archive = io.BytesIO()
    try:
        # With gradients, which none of the weights needs, our DenseNet computes as torchvision's.
        # Its own way writes into parts of a tensor, for which ONNX would copy the whole.
        with torch.enable_grad():
            program = torch.export.export(
                ensemble, (images,), dynamic_shapes=({0: torch.export.Dim("n")},)
            )
        converted = torch.onnx.export(
            program,
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=OPSET,
            dynamic_shapes=({0: "n"},),
            external_data=False,
            verbose=False,
        )
        with warnings.catch_warnings():
            # Of a buffer that is a view of another; all of them are on the CPU.
            warnings.filterwarnings("ignore", message="No complete tensor found")
            torch.export.save(program, archive)
    except Exception as error:  # whatever a network's own code, or torch's on it, raises
        why = first_line(error.__cause__ or error)  # the converter's own says what to do next
        raise UserError(f"torch can't export this network: {why}") from error
    assert converted is not None
    return {".onnx": converted.model_proto.SerializeToString(), ".pt2": archive.getvalue()}


def compare(files: Mapping[str, bytes], images: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference of both files' probabilities of images from those expected [n, class].

    Raises RuntimeError as `check` does.
    """
    batches = [images[start : start + AT_ONCE] for start in range(0, len(images), AT_ONCE)]
    session = onnxruntime.InferenceSession(files[".onnx"], providers=["CPUExecutionProvider"])
    prob = [session.run([OUTPUT], {INPUT: batch})[0] for batch in batches]
    of_onnx = check("ONNX file", np.concatenate(prob), expected)
    network = torch.export.load(io.BytesIO(files[".pt2"])).module()
    prob = [network(torch.from_numpy(batch)).numpy() for batch in batches]
    return max(of_onnx, check("torch.export archive", np.concatenate(prob), expected))


def check(what: str, prob: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference between probabilities [n, class] of a file and those expected.

    Raises RuntimeError if it is more than rounding explains: a fault of ours, or of torch's.
    """
    difference = float(np.abs(prob - expected).max())
    if not difference <= TOLERANCE:  # also if it is NaN
        raise RuntimeError(f"the {what} differs by {difference:.1e} from this program's prediction")
    return difference


def describe_interface(competition: Competition) -> dict[str, Any]:
    """The input and output of the files, for the record."""
    reading = competition.reading
    return {
        "classes": competition.classes,
        "channels": competition.channels,
        "files": reading.channels,
        "pixels": PIXELS,
        "scales": {channel: scale._asdict() for channel, scale in competition.scales.items()},
        "resize": reading.resize,
        "opset": OPSET,
        "input": {
            "name": INPUT,
            "dtype": "uint8",
            "shape": ["n", *competition.train_images.shape[1:]],
        },
        "output": {
            "name": OUTPUT,
            "dtype": "float32",
            "shape": ["n", len(competition.classes)],
        },
    }
