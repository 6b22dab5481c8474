import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cellline.config import Training
from cellline.model.network import build_backbone
from cellline.training.averaging import MovingAverage


class Small(nn.Module):
    """Weights, running statistics, integers that are looked up, and a flag."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("positions", torch.arange(225))
        self.register_buffer("flag", torch.tensor(True))

    def change(self, generator: torch.Generator) -> None:
        for tensor in (*self.parameters(), self.norm.running_mean):
            tensor.detach().add_(torch.randn(tensor.shape, generator=generator))
        self.norm.num_batches_tracked += 1


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 1000), st.integers(1, 30))
def test_floats_are_averaged_as_torch_does_and_integers_are_copied(
    length: float, steps: int
) -> None:
    decay = max(0.0, 1 - 1 / length)
    generator = torch.Generator().manual_seed(steps)
    network = Small()
    average = MovingAverage(network, length)
    expected = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    for step in range(steps):
        network.change(generator)
        average.update()
        expected.update_parameters(network)
        assert average.steps == step + 1
    trained, wanted = network.state_dict(), expected.module.state_dict()
    for name, value in average.network.state_dict().items():
        right = wanted[name] if value.is_floating_point() else trained[name]
        assert torch.equal(value, right), name


def test_what_swin_looks_up_stays_in_its_place() -> None:
    network = build_backbone(Training(network="swin_t")).features[1]  # its first blocks
    average = MovingAverage(network, 1e4)
    for _ in range(50):
        average.update()
    looked_up = {
        name: value
        for name, value in average.network.named_buffers()
        if name.endswith("relative_position_index")
    }
    assert looked_up
    for name, value in looked_up.items():
        assert torch.equal(value, network.get_buffer(name))
    assert isinstance(average.network[0], torchvision.models.swin_transformer.SwinTransformerBlock)
