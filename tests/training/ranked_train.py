"""`src/train.py`, with a network that has no batch normalization, and a rank that may be killed.

`DYING` in the environment names a file that is not there: once history.csv is, rank 1 makes it and
kills itself. `MORE_FOR_RANK_1` are further arguments that it gets.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2] / "src"


def register() -> None:
    """Make the network `plain` one that torchvision knows."""
    import torchvision
    from torch import nn

    def plain(weights: None = None) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(200, 1000)
        )

    plain.__module__ = "torchvision.models.plain"
    if "plain" not in torchvision.models.list_models():
        torchvision.models._api.register_model()(plain)


def die(marker: Path) -> None:
    while not Path("oof/two/fold0/history.csv").exists():
        time.sleep(0.001)
    marker.touch()
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    marker = Path(os.environ.get("DYING", "."))
    if os.environ.get("RANK") == "1":
        if not marker.exists():
            threading.Thread(target=die, args=[marker], daemon=True).start()
        sys.argv += os.environ.get("MORE_FOR_RANK_1", "").split()
    sys.path.insert(0, str(SOURCES))
    if "TORCHELASTIC_RUN_ID" in os.environ:
        register()
    # Not runpy, which would make that script the one that torchrun starts.
    import train

    train.run_verb(train.main, train.TrainConfig)
