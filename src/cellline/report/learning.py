"""Learning curves, and what choosing the best epoch would have flattered."""

import numpy as np

from cellline.report.content import Columns, Figure, Section, Table, Text
from cellline.report.figures import draw_curves
from cellline.runs.run import Run, best_epoch
from cellline.scoring.metrics import percent


def flattery(run: Run) -> float:
    """The mean over folds of the best epoch's BAC less the last one's."""
    return float(
        np.mean(
            [
                best_epoch(history)["held_out_bac"] - history[-1]["held_out_bac"]
                for history in run.histories.values()
            ]
        )
    )


def learning_section(run: Run) -> Section:
    """Learning curves, and what choosing the best epoch would have flattered."""
    rows = []
    for fold, history in run.histories.items():
        best, last = best_epoch(history), history[-1]
        rows.append(
            (
                f"fold {fold}",
                f"{last['epoch']:.0f}",
                percent(last["held_out_bac"]),
                f"{best['epoch']:.0f}",
                percent(best["held_out_bac"]),
                f"{100 * (best['held_out_bac'] - last['held_out_bac']):+.1f}",
                f"{100 * (last['train_bac'] - last['held_out_bac']):+.1f}",
            )
        )
    return Section(
        "learning",
        "Learning curves",
        [
            Columns(
                [
                    Figure(
                        "Balanced accuracy by epoch",
                        "A curve that still rises at its end asks for more epochs; held out "
                        "falling while training rises is overfitting.",
                        draw_curves("bac", run.histories, "bac", "BAC, %", factor=100),
                    ),
                    Figure(
                        "Loss by epoch",
                        "Held-out loss that turns upward while BAC does not: the network grows "
                        "too sure of itself.",
                        draw_curves("loss", run.histories, "loss", "loss, class-weighted"),
                    ),
                ]
            ),
            Text(
                "The model is the last epoch's averaged weights, whatever the held-out score did. "
                "Choosing the best epoch of each fold would have flattered by "
                f"{100 * flattery(run):+.1f} points of BAC."
            ),
            Table(
                "One view, as scored after each epoch; 'ahead' is training BAC less held-out BAC, "
                "in points: training images are augmented, which makes them harder.",
                (
                    "",
                    "kept epoch",
                    "its BAC",
                    "best epoch",
                    "its BAC",
                    "would flatter by",
                    "training ahead by",
                ),
                rows,
            ),
        ],
    )
