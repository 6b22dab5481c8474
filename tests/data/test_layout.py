"""Layouts of public competitions and of a person's own folders: what is worked out from the files.

Each layout is a handful of tiny drawn images, under the names and columns of the real thing.
"""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from layouts import Files, csv, image, images, write
from PIL import Image

from cellline.config import Reading
from cellline.data.competition import Competition, load_competition
from cellline.errors import UserError


def load(files: Files, **settings: object) -> Competition:
    return load_competition(write(files), Path("cache"), Reading(**settings))  # type: ignore[arg-type]


def encode(drawn: Image.Image) -> bytes:
    data = io.BytesIO()
    drawn.save(data, "PNG")
    return data.getvalue()


def label_of(loaded: Competition) -> dict[object, str]:
    """Class by id."""
    pairs = zip(loaded.train_ids.tolist(), loaded.labels, strict=True)
    return {sample: loaded.classes[label] for sample, label in pairs}


def brightness(loaded: Competition) -> list[int]:
    """Numbers that the images of the training and test set were drawn with, by ascending ids."""
    both = np.concatenate([loaded.train_images, loaded.test_images])
    return np.rint(both.mean(axis=(1, 2, 3))).astype(int).tolist()


def refused(files: Files, **settings: object) -> str:
    with pytest.raises(UserError) as raised:
        load(files, **settings)
    return str(raised.value)


TABLE = csv("name,kind", "a,x", "b,y", "c,x", "d,y")
TEST = csv("name,kind", "e,x", "f,x")
TRAIN_IMAGES = images("train/{}.jpg", ["a", "b", "c", "d"])
TEST_IMAGES = images("test/{}.jpg", ["e", "f"], 4)
USUAL: Files = {
    "train.csv": TABLE,
    "sample_submission.csv": TEST,
    **TRAIN_IMAGES,
    **TEST_IMAGES,
}
KINDS = {"a": "x", "b": "y", "c": "x", "d": "y"}

# Layouts of the same six samples: the files, and what Reading must say.
SAME: dict[str, tuple[Files, dict[str, object]]] = {
    "usual": (USUAL, {"labels": "train.csv", "train_images": "train", "test_images": "test"}),
    "tabs": (
        {
            "train.tsv": TABLE.replace(",", "\t"),
            "sample_submission.csv": TEST,
            **TRAIN_IMAGES,
            **TEST_IMAGES,
        },
        {"labels": "train.tsv"},
    ),
    "one folder": (
        {
            "train.csv": TABLE,
            "sample_submission.csv": TEST,
            **images("images/{}.jpg", ["a", "b", "c", "d", "e", "f"]),
        },
        {"train_images": "images", "test_images": "images"},
    ),
    "nested": (
        {f"comp/{name}": data for name, data in USUAL.items()},
        {"labels": "comp/train.csv", "train_images": "comp/train", "test_images": "comp/test"},
    ),
    "one zip of all": (
        {f"comp.zip/{name}": data for name, data in USUAL.items()},
        {"labels": "comp.zip/train.csv", "train_images": "comp.zip/train"},
    ),
    "zips": (
        {
            "train.csv.zip/train.csv": TABLE,
            "sample_submission.csv.zip/sample_submission.csv": TEST,
            **images("train.zip/train/{}.jpg", ["a", "b", "c", "d"]),
            **images("test.tar/{}.jpg", ["e", "f"], 4),
        },
        {"train_images": "train.zip", "test_images": "test.tar"},
    ),
    "in parts": (
        {
            "meta.csv": TABLE,
            "sample_submission.csv": TEST,
            **images("images_part_1/{}.jpg", ["a", "b"]),
            **images("images_part_2.zip/{}.jpg", ["c", "d"], 2),
            **TEST_IMAGES,
            **images("extra/{}.jpg", ["notes"]),
        },
        {"labels": "meta.csv", "train_images": "."},
    ),
    "more columns": (
        {
            **USUAL,
            "train.csv": csv(
                ",age,name,kind,sex", "0,7,a,x,f", "1,8,b,y,m", "2,7,c,x,f", "3,9,d,y,m"
            ),
            "test.csv": csv("name,age", "e,7", "f,8"),
        },
        {"id_column": "name", "label_column": "kind"},
    ),
    "other names": (
        {
            **USUAL,
            "train.csv": csv("file,class", "a.png,x", "b.png,y", "c.png,x", "d.png,y"),
            "sample_submission.csv": csv("Id,Predicted", "e,y", "f,x"),
        },
        {"id_column": "file", "label_column": "class"},
    ),
    "columns of other kinds": (
        {
            **USUAL,
            "train.csv": csv("name,place,kind", "a,p,x", "b,q,y", "c,q,x", "d,p,y"),
            "sample_submission.csv": csv("name,answer", "e,x", "f,x"),
        },
        {"label_column": "kind"},
    ),
    "one-hot": (
        {
            **USUAL,
            "train.csv": csv("name,x,y", "a,1,0", "b,0,1", "c,1.0,0.0", "d,0,1"),
            "sample_submission.csv": csv("name,x,y", "e,0.5,0.5", "f,0.5,0.5"),
        },
        {"output": "probabilities", "metric": "log_loss"},
    ),
    "a column for each class": (
        {**USUAL, "sample_submission.csv": csv("name,y,x", "e,0.5,0.5", "f,0.5,0.5")},
        {"label_column": "kind", "output": "probabilities"},
    ),
    "folders": (
        {
            **images("train/{}.jpg", ["x/a", "y/b", "x/c", "y/d"]),
            **TEST_IMAGES,
            "sample_submission.csv": csv("file,kind", "e.jpg,x", "f.jpg,x"),
        },
        {"labels": "train", "train_images": "train", "label_column": "kind"},
    ),
    "folders in a zip": (
        {
            **images("data.zip/data/train/{}.jpg", ["x/a", "y/b", "x/c", "y/d"]),
            **images("data.zip/data/test/{}.jpg", ["e", "f"], 4),
            "submission_format.csv": csv("file,kind", "e.jpg,x", "f.jpg,x"),
        },
        {"labels": "data.zip/train"},
    ),
    "a template of another name": (
        {**{k: v for k, v in USUAL.items() if "sample" not in k}, "example.csv": TEST},
        {"template": "example.csv"},
    ),
    "a template whose ids come last": (
        {**USUAL, "sample_submission.csv": csv("answer,image", "x,e.jpg", "x,f.jpg")},
        {"template_id_column": "image", "label_column": "kind"},
    ),
    "one-hot labels, one column to fill in": (
        {**USUAL, "train.csv": csv("name,x,y", "a,1,0", "b,0,1", "c,1,0", "d,0,1")},
        {"id_column": "name", "output": "label"},
    ),
    "a folder in a folder of its name": (
        {f"ds/ds/{name}": data for name, data in USUAL.items()},
        {"labels": "ds/ds/train.csv", "train_images": "ds/ds/train"},
    ),
    "folders in a folder of its name": (
        {
            **images("ds/ds/train/{}.jpg", ["x/a", "y/b", "x/c", "y/d"]),
            **images("ds/ds/test/{}.jpg", ["e", "f"], 4),
            "test.csv": csv("file", "e.jpg", "f.jpg"),
        },
        {"labels": "ds/ds/train", "template": "test.csv"},
    ),
    "folders with masks": (
        {
            **images("train/{}.jpg", ["x/a", "y/b", "x/c", "y/d"]),
            **images("train/{}_mask.jpg", ["x/a", "y/b", "x/c", "y/d"], 50),
            **images("train/{}_mask_1.jpg", ["x/a", "y/d"], 50),
            **images("train/{}.jpg", ["x/masks/a", "y/masks/b"], 60),
            **TEST_IMAGES,
            "sample_submission.csv": TEST,
        },
        {"labels": "train"},
    ),
    "paths of another machine": (
        {
            **USUAL,
            "train.csv": csv(
                "image,kind",
                "/kaggle/input/x/train/a.jpg,x",
                "./train/b.jpg,y",
                "../data/c.jpg,x",
                "C:\\data\\d.jpg,y",
            ),
        },
        {"id_column": "image"},
    ),
    "a copy of a folder in itself": (
        {
            **images("cells/{}.jpg", ["x/a", "y/b", "x/c", "y/d"]),
            **images("cells/cells/{}.jpg", ["x/a", "y/b", "x/c", "y/d"]),
        },
        {"labels": "cells"},
    ),
    "one-hot without a template": (
        {
            "truth.csv": csv(
                "name,x,y,z", "a,1.0,0.0,0.0", "b,0.0,1.0,0.0", "c,1.0,0.0,0.0", "d,0.0,1.0,0.0"
            ),
            **TRAIN_IMAGES,
            **TEST_IMAGES,
            "test.csv": csv("name", "e", "f"),
        },
        {"labels": "truth.csv", "output": "label"},
    ),
    "zips beside what was in them": (
        {
            **USUAL,
            **images("train.zip/{}.jpg", ["a", "b", "c", "d"], 70),
            "train.csv.zip/train.csv": TABLE,
        },
        {"labels": "train.csv", "train_images": "train"},
    ),
    "letters of another composition": (
        {
            "labels.csv": csv("file,kind", "\u00e9a,x", "\u00e9b,y", "\u00e9c,x", "\u00e9d,y"),
            **images("photos/e\u0301{}.jpg", ["a", "b", "c", "d"]),
            **TEST_IMAGES,
        },
        {},
    ),
    "images beside others of the same samples": (
        {**USUAL, **images("train/{}_mask.jpg", ["a", "b", "c", "d"], 90)},
        {"channels": ("",)},
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_layouts_of_the_same_samples(name: str) -> None:
    files, expected = SAME[name]
    loaded = load(files)
    assert {str(sample)[-1]: kind for sample, kind in label_of(loaded).items()} == KINDS
    if loaded.template:
        assert loaded.test_ids.tolist() == ["e", "f"]
    assert brightness(loaded) == [0, 1, 2, 3, 4, 5][: 4 + len(loaded.test_ids)]
    assert {key: getattr(loaded.reading, key) for key in expected} == expected
    # A later verb starts from what was worked out, and reads no image again.
    again = load_competition(Path("input"), Path("cache"), loaded.reading)
    assert again.reading == loaded.reading
    assert again.digest == loaded.digest
    assert again.test_digest == loaded.test_digest
    assert again.template == loaded.template


def test_ids_with_folders_in_them() -> None:
    files = {
        "train.csv": csv("path,kind", "u/1.jpg,x", "u/2.jpg,y", "v/1.jpg,y", "v/2.jpg,x"),
        "sample_submission.csv": csv("path,kind", "u/3.jpg,x", "w/1.jpg,x"),
        **images("photos/{}.jpg", ["u/1", "u/2", "v/1", "v/2", "u/3", "w/1"]),
    }
    loaded = load(files)
    assert label_of(loaded) == {"u/1": "x", "u/2": "y", "v/1": "y", "v/2": "x"}
    assert loaded.template == ("u/3.jpg", "w/1.jpg")
    assert brightness(loaded) == [0, 1, 2, 3, 4, 5]


def test_train_and_test_may_number_their_images_alike() -> None:
    files = {
        "train_labels.csv": csv("name,kind", "1,x", "2,y", "3,x", "4,y"),
        "sample_submission.csv": csv("name,kind", "1,x", "2,x"),
        **images("train/{:03d}.png", range(1, 5)),
        **images("test/{:03d}.png", range(1, 3), 4),
    }
    loaded = load(files)
    assert label_of(loaded) == {1: "x", 2: "y", 3: "x", 4: "y"}
    assert brightness(loaded) == [0, 1, 2, 3, 4, 5]


def test_no_sample_is_in_both_parts_of_one_folder() -> None:
    files = {
        "train.csv": TABLE,
        "sample_submission.csv": TEST + csv("d,x"),
        **images("images/{}.jpg", ["a", "b", "c", "d", "e", "f"]),
    }
    assert "sample_submission.csv: 1 id in train.csv as well: d" in refused(files)


def test_labels_in_file_names() -> None:
    files = {
        **images("train/{}.jpg", ["cat.0", "cat.1", "dog.0", "dog.1"]),
        **images("test/{}.jpg", [1, 2], 4),
        "sample_submission.csv": csv("id,label", "1,0.5", "2,0.5"),
    }
    told = refused(files)
    assert "asks for one probability a sample, of class 'cat' or 'dog'" in told
    assert "--positive" in told
    loaded = load(files, positive="dog")
    assert label_of(loaded) == {"cat.0": "cat", "cat.1": "cat", "dog.0": "dog", "dog.1": "dog"}
    assert (loaded.output, loaded.metric) == ("probability", "roc_auc")
    assert brightness(loaded) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("labels", [("cat.", "dog."), ("a549_", "a431_"), ("type1-", "type2-")])
def test_labels_in_file_names_may_have_digits(labels: tuple[str, str]) -> None:
    names = [f"{label}{number}" for label in labels for number in range(12)]
    loaded = load(images("train/{}.jpg", names))
    assert loaded.classes == tuple(sorted(label[:-1] for label in labels))
    assert len(set(label_of(loaded).items())) == 24


def test_row_numbers_are_no_ids() -> None:
    files = {
        "labels.csv": csv("row,file,kind", "0,3.png,x", "1,2.png,y", "2,1.png,x", "3,0.png,y"),
        **images("photos/{}.png", range(4)),
    }
    assert label_of(load(files)) == {0: "y", 1: "x", 2: "y", 3: "x"}
    files["labels.csv"] = csv("row,number,kind", "0,3,x", "1,2,y", "2,1,x", "3,0,y")
    assert "could be column 'number' or column 'row'" in refused(files)
    assert label_of(load(files, id_column="number")) == {0: "y", 1: "x", 2: "y", 3: "x"}


def test_a_table_that_may_be_the_labels_is_not_passed_over() -> None:
    files = {
        "labels.csv": csv("image,kind", *(f"{name}.dcm,x" for name in "pqrs")),
        **images("photos/{}.jpg", ["one/p", "one/q", "two/r", "two/s"]),
    }
    assert "labels: could be folders and names in photos or labels.csv" in refused(files)
    assert load(files, labels="photos").classes == ("one", "two")


def test_groups_in_a_table_of_their_own() -> None:
    rows = ("a.jpg,1", "b.jpg,1", "c.jpg,2", "d.jpg,3", "e.jpg,3", "z.jpg,4")
    files = {**USUAL, "patients.csv": csv("file,patient", *rows, "y.jpg,4", "x.jpg,5", "w.jpg,5")}
    groups = load(files, group_column=("patient",), id_column="name").own_group
    assert groups is not None
    assert groups[0] == groups[1]
    assert groups[3] == groups[4]
    assert len(set(groups.tolist())) == 4
    files["patients.csv"] = csv("file,patient", "p.jpg,1", "q.jpg,1")
    told = refused(files, group_column=("patient",))
    assert "patients.csv: no column of ids beside 'patient'" in told


def test_two_folders_of_an_archive_are_two_sets_of_images() -> None:
    small = images("data.zip/small/{}.jpg", ["a", "b", "c", "d"])
    large = images("data.zip/large/{}.jpg", ["a", "b", "c", "d"], 100)
    files = {"labels.csv": TABLE, **small, **large}
    first = brightness(load(files, train_images="data.zip/small"))
    second = brightness(load(files, train_images="data.zip/large/"))
    assert (first, second) == ([0, 1, 2, 3], [100, 101, 102, 103])


def test_each_part_has_ids_of_its_own_kind() -> None:
    files = {
        **images("train/{}.jpg", ["cat/a", "cat/b", "dog/c", "dog/d"]),
        **images("test/{:03d}.jpg", [0, 1], 4),
        "sample_submission.csv": csv("id,label", "0,cat", "1,cat"),
    }
    loaded = load(files)
    assert loaded.train_ids.tolist() == ["a", "b", "c", "d"]
    assert loaded.test_ids.tolist() == [0, 1]
    assert brightness(loaded) == [0, 1, 2, 3, 4, 5]


def test_classes_that_are_called_like_a_part() -> None:
    files = images("train/{}.jpg", ["bus/a", "bus/b", "car/c", "train/d"])
    told = refused(files)
    assert "folders bus, car, train: not taken for classes" in told
    assert "--labels" in told
    assert load(files, labels="train").classes == ("bus", "car", "train")


def test_a_metric_of_probabilities_needs_no_template() -> None:
    files = {"labels.csv": TABLE, **images("photos/{}.jpg", ["a", "b", "c", "d"])}
    assert load(files, metric="roc_auc").metric == "roc_auc"


def test_five_labels() -> None:
    files = {**USUAL, "sample_submission.csv": csv("name,kind", "e,y x", "f,x y")}
    loaded = load(files)
    assert (loaded.output, loaded.metric) == ("top5", "map5")


@pytest.mark.parametrize(
    ("files", "place"),
    [
        ({"labels.csv": TABLE, **images("photos/{}.jpg", ["a", "b", "c", "d"])}, "photos"),
        ({f"train/{k}/{i}.jpg": image(at) for at, (i, k) in enumerate(KINDS.items())}, "train"),
        ({f"{k}/{i}.jpg": image(at) for at, (i, k) in enumerate(KINDS.items())}, "."),
        ({f"{k}/s/{i}.jpg": image(at) for at, (i, k) in enumerate(KINDS.items())}, "."),
    ],
    ids=["table", "train", "folders", "folders in folders"],
)
def test_no_test_set(files: Files, place: str) -> None:
    loaded = load(files)
    assert label_of(loaded) == KINDS
    assert loaded.reading.train_images == place
    assert loaded.template == loaded.template_columns == ()
    assert len(loaded.test_ids) == 0
    assert loaded.test_images.shape == (0, *loaded.train_images.shape[1:])
    assert brightness(loaded) == [0, 1, 2, 3]


def test_groups_of_the_users_columns() -> None:
    files = {
        **USUAL,
        "train.csv": csv(
            "name,kind,patient,site", "a,x,1,p", "b,y,1,q", "c,x,,r", "d,y,2,", "a,x,3,"
        ),
        "test.csv": csv("name,patient", "e,2", "f,9"),
    }
    loaded = load(files, group_column=("patient",))
    assert loaded.own_group is not None
    a, b, c, d, e, f = loaded.own_group.tolist()
    assert a == b
    assert d == e
    assert len({a, c, d, f}) == 4
    more = load(files, group_column=("patient", "site")).own_group
    assert more is not None
    assert len(set(more.tolist())) == 4
    assert "repeat a sample with the same label (1)" in loaded.warnings[-2]
    assert loaded.warnings[-1].startswith("1 training samples have no value in patient")
    assert "owner: not a column of any table" in refused(files, group_column=("owner",))


def test_folds_of_the_users_column() -> None:
    files = {**USUAL, "train.csv": csv("name,kind,fold", "a,x,10", "b,y,9", "c,x,10", "d,y,2")}
    folds = load(files, folds_column="fold").own_fold
    assert folds is not None
    assert folds.tolist() == [2, 1, 2, 0]
    files = {**USUAL, "train.csv": csv("name,kind,fold", "a,x,10", "b,y,", "c,x,10", "d,y,2")}
    assert "train.csv: 1 sample without a fold in fold: b" in refused(files, folds_column="fold")


GRADES = csv("name,kind", "a,10", "b,9", "c,0", "d,9")


def test_classes_of_a_metric_of_grades_are_in_their_order() -> None:
    files = {**USUAL, "train.csv": GRADES, "sample_submission.csv": csv("name,kind", "e,0", "f,0")}
    assert load(files).classes == ("0", "10", "9")
    assert load(files, metric="quadratic_kappa").classes == ("0", "9", "10")
    assert "Quadratic kappa needs" in refused(USUAL, metric="quadratic_kappa")


def test_a_table_and_folders_that_tell_different_labels_are_a_doubt() -> None:
    files = {
        "metadata.csv": csv(
            "file,site", "a.jpg,north", "b.jpg,south", "c.jpg,south", "d.jpg,north"
        ),
        **images("train/{}.jpg", ["x/a", "y/b", "x/c", "y/d"]),
    }
    assert "labels: could be metadata.csv or the folders in train" in refused(files)
    assert load(files, labels="metadata.csv").classes == ("north", "south")
    assert load(files, labels="train", group_column=("site",)).classes == ("x", "y")


def test_images_without_a_row_may_be_omitted() -> None:
    files = {**USUAL, "train/z.jpg": image(9)}
    assert "give --extra-images omit" in refused(files)
    assert brightness(load(files, extra_images="omit")) == [0, 1, 2, 3, 4, 5]
    # The images are decoded now, but the setting is not kept.
    assert "give --extra-images omit" in refused(files)


def test_images_that_are_not_used_are_named() -> None:
    nested = images("train/{}.jpg", ["x/p/a", "y/b", "x/q/c", "y/d"])
    cautions = load({**nested, **images("val/{}.jpg", ["x/v", "y/w"])}).warnings
    assert "not used: val (2 images)" in cautions
    deeper = {f"data/{name}": data for name, data in nested.items()}
    more = {**deeper, **images("data/val/{}.jpg", ["x/v", "y/w", "x/w_mask"])}
    Path("input").rename("before")
    assert "not used: data/val (3 images)" in load(more).warnings
    Path("input").rename("again")
    parted = csv("name,kind,split", "a,x,train", "b,y,train", "c,x,test", "d,y,test")
    *_, caution = load({**USUAL, "train.csv": parted}).warnings
    assert "a column 'split' ('train' 2, 'test' 2)" in caution
    assert any("such as those in x, are not told apart" in line for line in cautions)


def test_a_folder_of_test_images_is_no_class() -> None:
    files = {
        **images("{}.jpg", ["x/a", "y/b", "x/c", "y/d"]),
        **images("test/{}.jpg", ["e", "f"], 4),
        "sample_submission.csv": TEST,
    }
    assert load(files).classes == ("x", "y")


# What is wrong, or in doubt: a change of the usual files, and what must be said.
Change = Callable[[dict[str, bytes | str]], object]
WRONG: dict[str, Change] = {
    "labels: could be more.csv or train.csv\nSay which with --labels.": (
        lambda files: files.update({"more.csv": TABLE})
    ),
    "template: could be sample_submission.csv or submission2.csv\nSay which with --template.": (
        lambda files: files.update({"submission2.csv": TEST})
    ),
    "train images: could be train or train_big\nSay which with --train-images.": (
        lambda files: files.update(images("train_big/{}.jpg", ["a", "b", "c", "d"]))
    ),
    "train.csv: labels: could be column 'p' or column 'q'\nSay which with --label-column.": (
        lambda files: files.update(
            {
                "train.csv": csv("name,p,q", "a,1,x", "b,2,y", "c,1,x", "d,2,y"),
                "sample_submission.csv": csv("name,kind", "e,?", "f,?"),
            }
        )
    ),
    "train.csv: without a header: 'a.jpg' in its first row names an image": (
        lambda files: files.update({"train.csv": csv("a.jpg,x", "b.jpg,y", "c.jpg,x", "d.jpg,y")})
    ),
    "train.csv: 4 rows without images in train: k, l, m, n": (
        lambda files: files.update({"train.csv": TABLE + csv("k,x", "l,x", "m,y", "n,y")})
    ),
    "train: 1 sample without a row in train.csv: z": (
        lambda files: files.update({"train/z.jpg": image(9)})
    ),
    "sample_submission.csv: 2 rows without images in test: k, l": (
        lambda files: files.update({"sample_submission.csv": TEST + csv("k,x", "l,x")})
    ),
    "train.csv: labels are numbers with decimals: '0.5', '1.25'": (
        lambda files: files.update({"train.csv": TABLE.replace("x", "0.5").replace("y", "1.25")})
    ),
    "train.csv: 2 ids without a label (empty or nan): a, b": (
        lambda files: files.update({"train.csv": csv("name,kind", "a,NaN", "b,", "c,x", "d,y")})
    ),
    "train.csv: labels are several classes at once: 'x y'": (
        lambda files: files.update({"train.csv": csv("name,kind", "a,x y", "b,y", "c,x", "d,y")})
    ),
    "train.csv: 2 ids not of exactly one class: 'a', 'd'": (
        lambda files: files.update(
            {
                "train.csv": csv("name,x,y", "a,1,1", "b,0,1", "c,1,0", "d,0,0"),
                "sample_submission.csv": csv("name,x,y", "e,0.5,0.5", "f,0.5,0.5"),
            }
        )
    ),
    "sample_submission.csv: without a column for 1 of the classes: 'y'": (
        lambda files: files.update(
            {"sample_submission.csv": csv("name,x,z", "e,0.5,0.5", "f,0.5,0.5")}
        )
    ),
    "sample_submission.csv: neither one column to fill in nor one for each class: age, sex": (
        lambda files: files.update({"sample_submission.csv": csv("name,age,sex", "e,1,f", "f,2,m")})
    ),
    "train.csv: every sample has a label of its own": (
        lambda files: files.update({"train.csv": csv("name,kind", "a,p", "b,q", "c,r", "d,s")})
    ),
    "sample_submission.csv: 2 ids in several rows: e, f": (
        lambda files: files.update({"sample_submission.csv": TEST + csv("e.jpg,x", "f,x")})
    ),
    "sample_submission.csv: separates labels by spaces, which classes have as well: 'x z'": (
        lambda files: files.update(
            {
                "train.csv": TABLE.replace(",x", ",x z"),
                "sample_submission.csv": csv("name,kind", "e,y y", "f,y y"),
            }
        )
    ),
    "sample_submission.csv: asks for numbers such as '38.1'": (
        lambda files: files.update({"sample_submission.csv": csv("name,kind", "e,38.1", "f,38.1")})
    ),
    "test images: not found: all ids of sample_submission.csv are training ids": (
        lambda files: (
            files.update({"sample_submission.csv": csv("name,kind", "a,x", "b,x")}),
            [files.pop(name) for name in TEST_IMAGES],
        )
    ),
    "train.7z: an archive of a kind that can't be read": (
        lambda files: (
            [files.pop("train.csv"), files.update({"train.7z": b"7z"})]
            and [files.pop(name) for name in TRAIN_IMAGES]
        )
    ),
}


@pytest.mark.parametrize("expected", WRONG)
def test_what_is_wrong_or_in_doubt_is_said(expected: str) -> None:
    files = dict(USUAL)
    WRONG[expected](files)
    line, _, advice = expected.partition("\n")
    told = refused(files)
    assert f"  {line}" in told
    assert advice in told


def test_settings_that_name_nothing() -> None:
    told = refused(USUAL, label_column="Kind")
    assert "train.csv: has no column 'Kind'; its columns are name, kind" in told
    assert "pictures: missing\n--labels names it." in refused(USUAL, labels="pictures")
    assert "pictures: missing\n--train-images" in refused(USUAL, train_images="pictures")


def test_a_template_that_matches_nothing() -> None:
    files = {**USUAL, "sample_submission.csv": csv("name,kind", "p,x", "q,x")}
    told = refused(files)
    assert "sample_submission.csv: 2 rows without images in test: p, q" in told
    assert "test: 2 samples without a row in sample_submission.csv: e, f" in told


def test_a_column_of_the_template_that_training_lacks() -> None:
    files = {**USUAL, "sample_submission.csv": csv("name,x,y,z", "e,0,0,0", "f,0,0,0")}
    *_, warning = load(files).warnings
    assert "classes that training lacks" in warning
    assert "'z'" in warning


def test_test_images_of_another_kind_leave_the_training_part_as_it_is() -> None:
    gray, colour = (Image.new(mode, (12, 9), 7) for mode in ("L", "RGB"))
    files = {**USUAL, **{name: encode(gray) for name in [*TRAIN_IMAGES, *TEST_IMAGES]}}
    before = load_competition(write(files), Path("cache"), image_size=32)
    write({name: encode(colour.resize((40, 30))) for name in TEST_IMAGES})
    after = load_competition(Path("input"), Path("cache"), image_size=32)
    assert after.digest == before.digest
    assert after.test_digest != before.test_digest
    assert before.test_images.shape == after.test_images.shape == (2, 1, 9, 12)
    assert not after.resized


def test_the_images_of_the_training_set_decide_the_stored_size() -> None:
    sizes = {name: Image.new("L", (40 + at, 30), 9) for at, name in enumerate(TRAIN_IMAGES)}
    files = {**USUAL, **{name: encode(drawn) for name, drawn in sizes.items()}}
    loaded = load_competition(write(files), Path("cache"), image_size=16)
    assert loaded.resized
    assert loaded.train_images.shape[1:] == loaded.test_images.shape[1:] == (1, 16, 16)
