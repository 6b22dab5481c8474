"""Labels that are text like others, and that something on the way may take for more."""

import csv
from pathlib import Path

# As many as there are cell lines. Nothing of them is markup, a formula, a template, a format, a
# path, an option or a number; two differ in the middle alone, and scripts take their own width.
LABELS = (
    "<script>alert(1)</script>",
    '"><img src=http://example.org/x onerror=alert(1)>',
    "{{ 7 * 7 }} & </style> %s {0}",
    r"$\frac{$ $x^2$ \alpha_",
    '=HYPERLINK("http://example.org")',
    "-1, @x; +y 'z'",
    "細胞株 한국어 👩\u200d🔬",
    "x" * 150 + "A" + "x" * 149,
    "x" * 150 + "B" + "x" * 149,
)


def relabel(drawn: Path, folder: Path) -> None:
    """Make `folder` the input of a drawn competition, in which the classes are called so."""
    folder.mkdir()
    for path in drawn.glob("*.tar"):
        (folder / path.name).symlink_to(path)
    names: dict[str, str] = {}
    for name in ("y_train.csv", "sample_submission.csv"):
        with (drawn / name).open(newline="") as file:
            header, *rows = csv.reader(file)
        with (folder / name).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            for sample, label in rows:
                writer.writerow((sample, names.setdefault(label, LABELS[len(names) % len(LABELS)])))
    assert len(names) == len(LABELS)
