"""Samples to look at: likely label errors, confident errors, the hardest pairs of classes."""

from cellline.report.content import Block, Grid, Section
from cellline.report.hard import hardest_pairs, most_confident_errors
from cellline.report.label_errors import LabelErrors, find_label_errors
from cellline.report.tiles import describe_colours, make_tile, whole_percent
from cellline.report.words import count
from cellline.runs.run import Run
from cellline.scoring.metrics import percent, with_interval

# Pictures in a grid: at least two rows of a wide page, and a page below a megabyte.
LABEL_ERRORS, CONFIDENT_ERRORS = 24, 16
PAIRS, EXAMPLES = 4, 8


def samples_section(run: Run) -> Section:
    """Pictures that are worth a look."""
    found = find_label_errors(run.oof.labels, run.oof.prob, run.oof.group)
    summary = describe_label_errors(found, len(run.oof.labels))
    blocks: list[Block] = [describe_colours(run.competition.channels), summary]
    if found.evidence:
        blocks.append(show_label_errors(run, found))
    blocks += [show_confident_errors(run), *show_pairs(run)]
    cautions = [summary] if found.evidence else []
    return Section("samples", "Samples worth a look", blocks, cautions)


def describe_label_errors(found: LabelErrors, n: int) -> str:
    """A sentence on the label errors among `n` labels."""
    if found.evidence:
        return f"About {len(found.rows)} of {n} labels look wrong ({with_interval(found.rate)})."
    return (
        f"No sign of label errors among {n} labels. Up to {percent(found.rate.high)} could be "
        "wrong without showing, and more if all pictures of a group share the error."
    )


def show_label_errors(run: Run, found: LabelErrors) -> Grid:
    """The likeliest label errors."""
    oof = run.oof
    best = list(zip(found.rows, found.suggested, found.score, strict=True))[:LABEL_ERRORS]
    return Grid(
        "Likely label errors",
        "The likeliest first, with the probability that the label is wrong. Compare each with "
        "pictures of both classes before you change a label.",
        [
            make_tile(
                run,
                oof.rows[i],
                f"labelled {run.class_names[oof.labels[i]]}",
                f"looks like {run.class_names[suggested]},",
                whole_percent(score),
            )
            for i, suggested, score in best
        ],
    )


def show_confident_errors(run: Run) -> Block:
    """The samples of which the network is surest, and wrong."""
    oof = run.oof
    errors = most_confident_errors(oof.labels, oof.prob, oof.group, CONFIDENT_ERRORS)
    if len(errors) == 0:
        return "No held-out sample is predicted wrongly."
    return Grid(
        "Most confident errors",
        "One of each group: a wrong label, an empty or blurred picture, or a habit of the network.",
        [
            make_tile(
                run,
                oof.rows[i],
                run.class_names[oof.labels[i]],
                f"taken for {run.class_names[oof.predicted[i]]},",
                whole_percent(oof.prob[i].max()),
            )
            for i in errors
        ],
    )


def show_pairs(run: Run) -> list[Grid]:
    """The pairs of classes that cost the most recall."""
    oof = run.oof
    return [
        Grid(
            f"{run.class_names[pair.label]} taken for {run.class_names[pair.taken_for]}: "
            f"{count(pair.count, 'sample')}, {percent(pair.share)} of the class",
            "The most confident first, one of each group.",
            [
                make_tile(run, oof.rows[i], whole_percent(oof.prob[i].max()))
                for i in pair.rows[:EXAMPLES]
            ],
        )
        for pair in hardest_pairs(oof.labels, oof.prob, oof.group, PAIRS)
    ]
