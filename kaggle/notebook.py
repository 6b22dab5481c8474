# %% [markdown]
# # cellline: folds, train, submit
#
# Attach the competition's data, and the data set made from the zip that `make kaggle` built. To
# resume another session, attach its output as well: its `oof` folder is copied.
# All settings are in the next cell.

# %%
from pathlib import Path

MINUTES = 500  # of training; then it saves and stops, and the notebook submits what is trained
FOLDS = ["--folds", "5"]  # settings of folds.py alone, such as "--overlaps", "off"
# Settings of all verbs, as given to `make kaggle`; don't change them on resume.
ARGS = ["--recipe", "full"]

INPUT = Path("/kaggle/input")  # read-only: the data, the bundle, earlier outputs
DATA = None  # the competition's folder, if other data is attached as well
WORKING = Path("/kaggle/working")  # kept after the session
TEMPORARY = Path("/kaggle/temp")  # deleted after the session

# %% [markdown]
# ## Find what is attached

# %%
import os
import shutil
import subprocess
import sys
import zipfile


def run(script, *arguments):
    """Run a script in the bundle, show its output, and fail if it fails."""
    command = [sys.executable, "-u", str(BUNDLE / "src" / script), *map(str, arguments)]
    # Printed here, because not every notebook shows the output of other processes.
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, **piped, errors="replace", cwd=BUNDLE) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


def the_one(what, folders):
    """Return the only folder; raise an error that names all of them if there is not exactly one."""
    if len(folders) != 1:
        found = ", ".join(map(str, folders)) or "none"
        raise FileNotFoundError(f"attach exactly one {what}; found under {INPUT}: {found}")
    return folders[0]


for folder in (WORKING, TEMPORARY):
    folder.mkdir(parents=True, exist_ok=True)
UNPACKED = TEMPORARY / "bundle"
for path in INPUT.rglob("cellline-kaggle.zip"):  # Kaggle unpacks it, a drive doesn't
    with zipfile.ZipFile(path) as archive:
        archive.extractall(UNPACKED)
BUNDLE = the_one(
    "bundle of `make kaggle`",
    [path.parents[1] for root in (INPUT, UNPACKED) for path in root.rglob("src/environment.py")],
)
# What Kaggle attaches lies in a folder of its own, by kind and owner since 2025.
KINDS = ("competitions", "datasets", "models", "notebooks")
PLACES = ("*", "competitions/*", "datasets/*/*", "notebooks/*/*")
OURS = ("src/environment.py", "oof/folds.json")  # the bundle, an earlier output
WEIGHTS = ("*.pth", "*.pt", "*.safetensors")
DATA = DATA or the_one(
    "folder of a competition, or set DATA to it",
    [
        path
        for place in PLACES
        for path in sorted(INPUT.glob(place))
        if path.is_dir() and path not in [INPUT / kind for kind in KINDS]
        if not any(next(path.rglob(name), None) for name in OURS + WEIGHTS)
    ],
)
earlier = [path.parent for path in INPUT.rglob("oof/folds.json")]
if (WORKING / "oof").exists():
    print("resuming from", WORKING / "oof")
elif earlier:
    copying = WORKING / "oof.copying"
    shutil.copytree(the_one("earlier `oof`", earlier), copying, dirs_exist_ok=True)
    copying.rename(WORKING / "oof")
if not BUNDLE.is_relative_to("/kaggle/input"):  # weights there are found without it
    os.environ["TORCH_HOME"] = str(BUNDLE / "weights")
COMMON = ["--input-dir", DATA, "--oof-dir", WORKING / "oof"]
COMMON += ["--submissions-dir", WORKING / "submissions", "--cache-dir", TEMPORARY / "cache", *ARGS]

# %%
run("environment.py", "--find-links", BUNDLE / "wheels")

# %%
run("folds.py", *COMMON, *FOLDS)

# %%
import torch

GPUS = torch.cuda.device_count()
run("train.py", "--max-minutes", MINUTES, *COMMON, *(["--gpus", GPUS] if GPUS > 1 else []))

# %%
run("submit.py", *COMMON, "--partial")
newest = max((WORKING / "submissions").glob("*.csv"), key=lambda path: path.stat().st_mtime_ns)
shutil.copyfile(newest, WORKING / "submission.csv")
print(WORKING / "submission.csv", "is", newest.name)
