"""Samples worth a look, as pictures: likely label errors, confident errors, the hardest pairs."""

from cellline.report.content import Block, Grid, Section, Text
from cellline.report.hard import hardest_pairs, most_confident_errors
from cellline.report.label_errors import LabelErrors, find_label_errors
from cellline.report.tiles import describe_colours, show, show_errors, whole_percent
from cellline.report.words import count, sentence
from cellline.runs.run import Run
from cellline.scoring.metrics import percent

# Pictures a grid: two rows and more of a wide page, and the whole page stays below a megabyte.
LABEL_ERRORS, CONFIDENT_ERRORS = 24, 16
PAIRS, EXAMPLES = 4, 8


def samples_section(run: Run) -> Section:
    """What is best looked at by eye."""
    found = find_label_errors(run.oof.labels, run.oof.prob, run.oof.group)
    lines = [sentence(line) for line in found.describe(run.oof.ids, run.class_names)]
    return Section(
        "samples",
        "Samples worth a look",
        [
            Text(describe_colours(run.competition.channels)),
            *show_label_errors(run, found, lines),
            *show_confident_errors(run),
            *show_pairs(run),
        ],
        lines[:1] if found.evidence else [],
    )


def show_label_errors(run: Run, found: LabelErrors, lines: list[str]) -> list[Block]:
    """Whether there are label errors, and the likeliest."""
    blocks: list[Block] = [Text(line) for line in lines]
    if found.evidence:
        best = list(zip(found.rows, found.suggested, found.score, strict=True))[:LABEL_ERRORS]
        blocks.append(
            Grid(
                "Likely label errors",
                "The likeliest first, with the probability that the label is wrong: compare each "
                "with pictures of both classes before you change y_train.csv.",
                [
                    show(
                        run,
                        int(run.oof.rows[row]),
                        f"labelled {run.class_names[run.oof.labels[row]]}",
                        f"looks like {run.class_names[suggested]},",
                        whole_percent(score),
                    )
                    for row, suggested, score in best
                ],
            )
        )
    return blocks


def show_confident_errors(run: Run) -> list[Block]:
    """Where the network is surest and wrong."""
    rows = most_confident_errors(run.oof.labels, run.oof.prob, run.oof.group, CONFIDENT_ERRORS)
    if len(rows) == 0:
        return [Text("No held-out sample is predicted wrongly.")]
    return [
        Grid(
            "Most confident errors",
            "One of each group: a label that is wrong, a picture that is empty or out of focus, or "
            "a habit of the network's.",
            show_errors(run, rows),
        )
    ]


def show_pairs(run: Run) -> list[Block]:
    """The classes that are taken for each other most."""
    return [
        Grid(
            f"{run.class_names[pair.label]} taken for {run.class_names[pair.taken_for]}: "
            f"{count(pair.count, 'sample')}, {percent(pair.share)} of the class",
            "The most confident first, one of each group.",
            [
                show(run, int(run.oof.rows[row]), whole_percent(run.oof.prob[row].max()))
                for row in pair.rows[:EXAMPLES]
            ],
        )
        for pair in hardest_pairs(run.oof.labels, run.oof.prob, run.oof.group, PAIRS)
    ]
