"""The folds that samples were dealt into, and the files that record them."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from os.path import normpath
from pathlib import Path
from typing import Any

import numpy as np

from cellline.config import Folders, Reading, describe_differences
from cellline.data.competition import Competition, load_competition
from cellline.data.groups import connect
from cellline.data.ids import are_numbers, to_array
from cellline.data.problems import name_first
from cellline.errors import Caution, UserError
from cellline.host.files import (
    digest_file,
    parse_csv,
    read_json,
    render_csv,
    write_bytes,
    write_json,
)
from cellline.host.locking import one_writer
from cellline.host.progress import say
from cellline.scoring.metrics import METRICS, Metric
from cellline.settings_file import OwnSettings, read_own

FOLDS, PAIRS, RECORD = "folds.csv", "pairs.csv", "folds.json"


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of samples that show one picture; rows number training samples, then test samples."""

    copies: np.ndarray
    """int64 [k, 2]: the first sample of a picture, and an exact copy of it."""
    overlaps: np.ndarray
    """int64 [m, 2]: overlapping crops; of exact copies only the first takes part."""


NO_PAIRS = Pairs(np.empty((0, 2), np.int64), np.empty((0, 2), np.int64))


@dataclass(frozen=True, eq=False)
class Dealt:
    """The fold of each training sample; rows as in the competition (ascending ids)."""

    fold: np.ndarray
    """int64 [n], 0 to n_folds - 1."""
    group: np.ndarray
    """int64 or text [n]: the first id in the sample's group. A group is what pairs and the user's
    groups connect, some of it through test samples: the unit that a bootstrap draws."""
    pairs: Pairs


@dataclass(frozen=True, eq=False)
class Folds(Dealt):
    """The folds of a competition, and where they come from."""

    competition: Competition
    n_folds: int
    digest: str
    """SHA-256 of folds.csv, by which runs and predictions name their folds."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """The content of folds.json."""

    @cached_property
    def picture(self) -> np.ndarray:
        """int64 [n + m]: first row of each training and test sample's picture.

        A picture is what the pairs connect; the user's groups are not among them.
        """
        n = len(self.fold) + len(self.competition.test_ids)
        return connect(n, self.pairs.copies, self.pairs.overlaps)

    @property
    def metric(self) -> Metric:
        """The competition's metric."""
        return METRICS[self.competition.metric]

    @property
    def numbers(self) -> range:
        """The numbers of the folds."""
        return range(self.n_folds)

    def training_rows(self, fold: int) -> np.ndarray:
        """Rows that fold `fold` trains on."""
        return np.flatnonzero(self.fold != fold)

    def held_out_rows(self, fold: int) -> np.ndarray:
        """Rows that fold `fold` predicts."""
        return np.flatnonzero(self.fold == fold)


def record_input(competition: Competition) -> dict[str, Any]:
    """Content of folds.json about the input, besides the training part's digest."""
    reading = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in asdict(competition.reading).items()
    }
    return {
        "reading": reading,
        "scales": {channel: list(scale) for channel, scale in competition.scales.items()},
        "image_shape": list(competition.train_images.shape[1:]),
        "numeric_ids": are_numbers(competition.train_ids),
        "metric": competition.metric,
        "output": competition.output,
        "test_digest": competition.test_digest,
    }


def write_folds(
    oof_dir: Path, competition: Competition, dealt: Dealt, record: dict[str, Any]
) -> None:
    """Write folds.csv, pairs.csv and, last, folds.json: `record`, the input, and digests.

    Raises UserError if runs or a tuning depend on other folds.
    """
    header = (competition.id_column, competition.label_column, "group", "fold")
    labels = [competition.classes[label] for label in competition.labels]
    rows = zip(competition.train_ids, labels, dealt.group, dealt.fold, strict=True)
    data = render_csv(header, rows)
    digest = hashlib.sha256(data).hexdigest()
    path = oof_dir / FOLDS
    present = digest_file(path) if path.exists() else None
    if present != digest:
        used = folds_in_use(oof_dir)
        # What depends on neither these folds nor the present ones has lost its own already. It
        # must not keep others from theirs.
        if used and (present in used.values() or digest not in used.values()):
            raise would_change(oof_dir, [name for name, of in used.items() if of != digest])
        write_bytes(path, data)
    pairs = render_csv(*list_pairs(competition, dealt.pairs))
    write_bytes(oof_dir / PAIRS, pairs)
    digests = {"folds_digest": digest, "pairs_digest": hashlib.sha256(pairs).hexdigest()}
    write_json(oof_dir / RECORD, {**record, **record_input(competition), **digests})


def is_as_written(path: Path, record: Mapping[str, Any]) -> bool:
    """Tell if folds.csv or pairs.csv is the one that folds.json describes."""
    return path.exists() and digest_file(path) == record.get(f"{path.stem}_digest")


def check_written(oof_dir: Path, record: Mapping[str, Any]) -> None:
    """Raise UserError unless folds.csv and pairs.csv are those that folds.json describes."""
    path, pairs_path = oof_dir / FOLDS, oof_dir / PAIRS
    if not (is_as_written(path, record) and is_as_written(pairs_path, record)):
        raise UserError(
            f"{path} and {pairs_path} are not as they were dealt: run `folds` to restore them"
        )


def list_pairs(
    competition: Competition, pairs: Pairs
) -> tuple[Sequence[str], Sequence[Sequence[object]]]:
    """Header and rows of pairs.csv: both samples, each with its part, and what connects them."""
    named = [
        *(("train", sample) for sample in competition.train_ids),
        *(("test", sample) for sample in competition.test_ids),
    ]
    kinds = (("copy", pairs.copies), ("overlap", pairs.overlaps))
    rows = [(*named[a], *named[b], kind) for kind, of_kind in kinds for a, b in of_kind.tolist()]
    return ("part", "id", "other_part", "other_id", "kind"), rows


def read_pairs(path: Path, competition: Competition) -> Pairs:
    """The pairs that pairs.csv lists."""
    rows = parse_csv(path.read_bytes())

    def find(part: str, sample: str) -> np.ndarray:
        found = np.empty(len(rows), np.int64)
        ids, test_ids = competition.train_ids, competition.test_ids
        for name, known, start in (("train", ids, 0), ("test", test_ids, len(ids))):
            there = (rows[part] == name).to_numpy()
            wanted = np.array(rows[sample][there].tolist(), dtype=known.dtype)
            found[there] = start + np.searchsorted(known, wanted)
        return found

    both = np.stack([find("part", "id"), find("other_part", "other_id")], axis=1)
    copied = (rows["kind"] == "copy").to_numpy()
    return Pairs(both[copied], both[~copied])


def read_folds_record(oof_dir: Path) -> dict[str, Any]:
    """The content of folds.json. Raises UserError if nothing has been dealt."""
    path = oof_dir / RECORD
    if not path.exists():
        raise UserError(f"no folds in {oof_dir}: run `folds` first")
    return read_json(path)


def read_reading(record: Mapping[str, Any]) -> Reading:
    """Settings that the input was read with, from folds.json."""
    reading = record["reading"]
    lists = {key: tuple(value) for key, value in reading.items() if isinstance(value, list)}
    return Reading(**{**reading, **lists})


def check_asked(record: Mapping[str, Any], asked: Reading, own: OwnSettings) -> None:
    """Raise UserError for a setting of reading that the folds were not dealt with.

    Verbs after `folds` take these from its record. Those of competition.toml have a Caution.
    """
    usual, of_file = asdict(Reading()), asdict(own.apply(Reading()))
    for name, value in asdict(asked).items():
        if value in (usual[name], of_file[name]):
            continue
        plain = list(value) if isinstance(value, tuple) else value
        then = record["reading"][name]
        if then not in (plain, normpath(str(plain))):
            raise UserError(
                f"--{name.replace('_', '-')} {plain}: the folds were dealt with {then}. To change "
                "that, run `folds` with it"
            )


def open_folds(
    folders: Folders, asked: Reading | None = None, *, for_training: bool = False
) -> Folds:
    """The competition's folds. Raises UserError for bad input and for missing or old folds.

    `for_training`, see `read_folds`.
    """
    record = read_folds_record(folders.oof_dir)
    if "reading" not in record:
        raise UserError(
            f"{folders.oof_dir / FOLDS} was dealt by an earlier version: deal new folds into "
            "another folder (--oof-dir)"
        )
    reading = read_reading(record)
    own = read_own(folders.input_dir)
    check_asked(record, asked or Reading(), own)
    if changes := describe_differences(record.get("settings_file", {}), own.of_reading):
        # Folds and runs stay as they are: the recorded reading made them.
        say(Caution(f"{own.path} has changed: {changes}; run `folds` to read the input anew"))
    competition = load_competition(
        folders.input_dir, folders.cache_dir, reading, record["image_size"]
    )
    return read_folds(folders.oof_dir, competition, for_training)


def read_folds(oof_dir: Path, competition: Competition, for_training: bool = False) -> Folds:
    """The folds of a competition. Raises UserError if they were made from other input.

    `for_training`, the test set may have changed since. The folds then have no pairs.
    """
    record = read_folds_record(oof_dir)
    path, pairs_path = oof_dir / FOLDS, oof_dir / PAIRS
    if record["input_digest"] != competition.digest:
        raise UserError(
            f"{path} was made from other input ({record['input_digest'][:12]}) than the present "
            f"input ({competition.digest[:12]}); put the old input back, or deal new folds into "
            "another folder (--oof-dir)"
        )
    check_written(oof_dir, record)
    pairs = NO_PAIRS
    if record["test_digest"] == competition.test_digest:
        pairs = read_pairs(pairs_path, competition)
    elif not for_training:
        raise UserError(
            f"the test images have changed since {path} was dealt: run `folds` again (trained "
            "folds stay valid)"
        )
    fold, group = read_deal(path, competition)
    return Folds(fold, group, pairs, competition, record["n_folds"], record["folds_digest"], record)


def recall_folds(oof_dir: Path) -> Folds:
    """The folds without their input: of the competition only what the OOF folder holds.

    It has the training samples' ids and labels, but no image, test sample or pair. Raises UserError
    for missing folds, and for those of an earlier version.
    """
    record = read_folds_record(oof_dir)
    if "image_shape" not in record:
        raise UserError(
            f"{oof_dir / RECORD} was written by an earlier version, without the images' shape: run "
            "`folds` again (trained folds stay valid)"
        )
    check_written(oof_dir, record)
    path = oof_dir / FOLDS
    rows, classes, numeric = parse_csv(path.read_bytes()), record["classes"], record["numeric_ids"]
    label = {name: at for at, name in enumerate(classes)}
    no_images = np.empty((0, *record["image_shape"]), np.uint8)
    competition = Competition(
        reading=read_reading(record),
        metric=record["metric"],
        output=record["output"],
        template_columns=(),
        classes=tuple(classes),
        channels=tuple(record["channels"]),
        train_ids=to_array(rows.iloc[:, 0].tolist(), numeric=numeric),
        labels=np.array([label[name] for name in rows.iloc[:, 1]], dtype=np.int64),
        test_ids=to_array([], numeric=numeric),
        template=(),
        train_images=no_images,
        test_images=no_images,
        digest=record["input_digest"],
        test_digest="",
        warnings=(),
    )
    fold, group = read_deal(path, competition)
    return Folds(
        fold, group, NO_PAIRS, competition, record["n_folds"], record["folds_digest"], record
    )


def read_deal(path: Path, competition: Competition) -> tuple[np.ndarray, np.ndarray]:
    """Fold and group of each training sample in folds.csv, see `Dealt`."""
    rows = parse_csv(path.read_bytes())
    group = np.array(rows.iloc[:, 2].tolist(), dtype=competition.train_ids.dtype)
    return np.array(rows.iloc[:, 3].tolist(), dtype=np.int64), group


def check_data(folds: Folds, record: Mapping[str, Any], made: str, advice: str) -> None:
    """Raise UserError that names both sides if a record has other digests of input or folds."""
    for what, now in (("input", folds.competition.digest), ("folds", folds.digest)):
        then = record[f"{what}_digest"]
        if then != now:
            raise UserError(
                f"{made} on other {what} ({then[:12]}) than the present {what} ({now[:12]}); "
                f"{advice}"
            )


def find_dependents(oof_dir: Path) -> list[str]:
    """Names of the folders in `oof_dir` that depend on its folds: those with a config.json."""
    return sorted(path.parent.name for path in oof_dir.glob("*/config.json"))


def folds_in_use(oof_dir: Path) -> dict[str, str]:
    """The digest of the folds that each of `find_dependents` was made on."""
    names = find_dependents(oof_dir)
    return {name: read_json(oof_dir / name / "config.json")["folds_digest"] for name in names}


@contextmanager
def keep_folds(oof_dir: Path, folds: Folds, wait: float) -> Iterator[None]:
    """Within, `folds` can't be dealt anew; what is to depend on them writes its config.json here.

    Raises UserError if others have been dealt since they were read, or if another process deals or
    begins something for longer than `wait` seconds.
    """
    with one_writer(oof_dir, "beginning to use the folds", wait):
        path = oof_dir / FOLDS
        if path.exists() and digest_file(path) != folds.digest:
            raise UserError(f"{path} has changed since this command read it: give it again")
        yield


def describe_choice(oof_dir: Path, folds: Folds, n_runs: int = 1) -> list[str]:
    """A line if there are more runs with a finished fold of these folds than the `n_runs` shown."""
    n_scored = sum(
        any(path.parent.glob("fold*/oof.npz")) and read_json(path)["folds_digest"] == folds.digest
        for path in oof_dir.glob("*/config.json")
    )
    if n_scored <= n_runs:
        return []
    return [
        f"{n_scored} runs were scored on these folds: if the best is chosen by its score, that "
        "score is a little too high"
    ]


def would_change(oof_dir: Path, dependents: list[str], changes: str = "") -> UserError:
    """The error for folds that something depends on; `changes` follows in the message."""
    return UserError(
        f"{oof_dir / FOLDS} would change{changes}, and {name_first(dependents)} in {oof_dir} "
        "depend on it; keep it, move them away, or deal into another folder (--oof-dir)"
    )
