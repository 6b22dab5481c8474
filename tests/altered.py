"""A drawn competition with flaws that the real one may have."""

from pathlib import Path

import numpy as np

from cellline.demo.cells import CELL_LINES, CHANNELS
from cellline.demo.drawing import Drawing, draw_sample, plan_samples, write_competition


def draw_altered(
    folder: Path, drawing: Drawing, mislabelled: float = 0.0, test_gain: float = 1.0
) -> None:
    """Draw with wrong labels, or with test images whose red channel is brighter.

    A share `mislabelled` of the training samples, none that has copies, gets a wrong label.
    """
    samples = plan_samples(drawing)
    fields = [sample.field for sample in samples.values()]
    labels = {i: samples[i].cell_line for i in drawing.train_ids}
    alone = [i for i in labels if fields.count(samples[i].field) == 1]
    rng = np.random.default_rng([drawing.seed, 4])
    for i in rng.choice(alone, round(mislabelled * len(labels)), replace=False).tolist():
        wrong = [name for name in CELL_LINES if name != labels[i]]
        labels[i] = wrong[rng.integers(len(wrong))]
    gain = np.where(np.array(CHANNELS) == "red", test_gain, 1)[:, None, None]
    test = {i: gain * draw_sample(samples[i], drawing) for i in drawing.test_ids}
    write_competition(
        folder,
        ((i, draw_sample(samples[i], drawing)) for i in labels),
        ((i, np.minimum(np.rint(image), 255).astype(np.uint8)) for i, image in test.items()),
        labels,
        drawing.test_ids,
    )
