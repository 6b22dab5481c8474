"""A picture that explains one sample: its channels, and where its network looked in each."""

import hashlib
import io
import warnings
from pathlib import Path

import numpy as np

from cellline.data.colours import colour
from cellline.data.images import name_channel
from cellline.host.files import write_bytes
from cellline.host.locking import one_writer
from cellline.report.explanations import share_channels, smooth
from cellline.report.svg import STYLE
from cellline.report.tiles import whole_percent
from cellline.runs.run import Run
from cellline.submitting.submission import check_unedited, join_names

# Inches of a panel, and of the titles above it.
PANEL, TITLES = 2.6, 0.6


def write_picture(run: Run, row: int, attribution: np.ndarray, folder: Path) -> Path:
    """Write the picture of a training sample as a PNG; return its path.

    Its name has the beginning of its digest, so that no other picture is overwritten. Raises
    UserError if a person has changed it.
    """
    data = draw_picture(run, row, attribution)
    digest = hashlib.sha256(data).hexdigest()
    sample = str(run.competition.train_ids[row])
    plain = "".join(one if one.isalnum() or one in "._-" else "_" for one in sample)
    path = folder / f"{join_names([run.name, plain])}-{digest[:8]}.png"
    with one_writer(folder, "writing pictures", wait=10):
        check_unedited(path, digest)
        write_bytes(path, data)
    return path


def draw_picture(run: Run, row: int, attribution: np.ndarray) -> bytes:
    """The sample, then each channel in grey, covered red for and blue against the prediction."""
    # Imported here because it takes a second.
    import matplotlib
    from matplotlib.figure import Figure

    image, channels = run.competition.train_images[row], run.competition.channels
    at = int(np.searchsorted(run.oof.rows, row))
    label, predicted = (run.class_names[of[at]] for of in (run.oof.labels, run.oof.predicted))
    sure = whole_percent(run.oof.prob[at].max())
    with matplotlib.rc_context(fname=STYLE), warnings.catch_warnings():
        # Of ids and classes in other scripts; it draws boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        panels = 1 + len(channels)
        figure = Figure(figsize=(PANEL * panels, PANEL + TITLES), facecolor="white")
        sample = run.competition.train_ids[row]
        figure.suptitle(
            f"{sample}: {label}, predicted {predicted} ({sure}). Red spots are for it, blue against"
        )
        first, *others = figure.subplots(1, panels)
        first.imshow(colour(image, channels), cmap="gray", vmin=0, vmax=255)
        for axes, name, plane, share, seen in zip(
            others,
            map(name_channel, channels),
            image,
            share_channels(attribution),
            smooth(attribution),
            strict=True,
        ):
            axes.imshow(plane, cmap="gray")
            # The square leaves the channel visible where little counted.
            axes.imshow(seen, cmap="bwr", vmin=-1, vmax=1, alpha=0.8 * seen**2)
            axes.set_title(f"{name}, {whole_percent(share)}")
        for axes in (first, *others):
            axes.set_axis_off()
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
