"""A run of three small networks, trained for an epoch."""

from pathlib import Path

from cellline.config import Config, Folders, Machine, Training

CONFIG = Config(
    Folders(Path("input")),
    Training(network="densenet_tiny", weights="none", epochs=1, batch_size=16),
    Machine(device="cpu", precision="float32"),
    run="tiny",
)
