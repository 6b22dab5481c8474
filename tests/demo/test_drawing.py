import csv
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cellline.audit.groups import audit_copies
from cellline.data.competition import load_competition
from cellline.demo.cells import CELL_LINES
from cellline.demo.drawing import Drawing, draw_competition, draw_sample, plan_samples

FILES = ("images_train.tar", "images_test.tar", "y_train.csv", "sample_submission.csv")
DRAWING = Drawing(120, 36)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "input"
    truth = draw_competition(folder, DRAWING)
    assert truth == {i: plan_samples(DRAWING)[i].cell_line for i in DRAWING.test_ids}
    return folder


def test_layout_is_the_competitions(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    for part, ids in (("images_train", range(1, 121)), ("images_test", range(121, 157))):
        with tarfile.open(folder / f"{part}.tar") as archive:
            members = archive.getmembers()
        wanted = [f"{part}/{i:05d}_{c}.png" for i in ids for c in ("blue", "red", "yellow")]
        assert [member.name for member in members] == wanted
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}
    train, template = (
        list(csv.reader((folder / name).read_text().splitlines())) for name in FILES[2:]
    )
    assert train[0] == template[0] == ["file_id", "cell_line"]
    assert [row[0] for row in train[1:]] == [str(i) for i in range(1, 121)]
    assert template[1:] == [[str(i), "A549"] for i in range(121, 157)]
    counts = Counter(label for _, label in train[1:])
    assert set(counts) == set(CELL_LINES)
    assert 2.5 < max(counts.values()) / min(counts.values()) < 3.5


def test_planted_copies_and_overlaps_are_what_the_audit_finds(folder: Path) -> None:
    competition = load_competition(folder, Path("cache"))
    audit = audit_copies(competition, Path(), n_folds=5)
    plan = plan_samples(DRAWING)
    fields = np.array([sample.field for sample in plan.values()])
    same_group = audit.group[:, None] == audit.group
    np.testing.assert_array_equal(same_group, fields[:, None] == fields)
    assert audit.counts.conflicts == ()
    counts = audit.counts
    assert min(counts.copies, counts.overlapping, counts.test_copies) > 0
    assert len({sample.view for sample in plan.values()}) > 1
    alone = plan_samples(Drawing(90, 36, copies=0, overlaps=0))
    assert len({sample.field for sample in alone.values()}) == 126


def test_same_seed_same_bytes_other_seed_other_bytes() -> None:
    for name, seed in (("a", 1), ("again", 1), ("b", 2)):
        draw_competition(Path(name), Drawing(18, 9, size=32, seed=seed))
    for name in FILES:
        assert Path("a", name).read_bytes() == Path("again", name).read_bytes()
    for name in FILES[:3]:
        assert Path("a", name).read_bytes() != Path("b", name).read_bytes()
    sample = plan_samples(Drawing(9, 9))[1]
    one, other = (draw_sample(sample, Drawing(9, 9, seed=seed)) for seed in (0, 1))
    assert not np.array_equal(one, other)
