"""Everything between images and calibrated probabilities, as one module that torch can trace."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cellline.model.network import Classifier
from cellline.model.views import see
from cellline.scoring.decisions import Correction


class Member(nn.Module):
    """A fold's network, and the views of an image that it sees."""

    def __init__(self, network: Classifier, views: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.views = tuple(views)

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities [n, class], averaged over the views, as `predict_images` computes them."""
        logits = self.network(torch.cat([see(images, view) for view in self.views]))
        of_views: Tensor = torch.softmax(logits, dim=1).unflatten(0, (len(self.views), -1))
        return of_views.mean(dim=0)


class Ensemble(nn.Module):
    """The mean over the folds of all runs, which have equally many, and its correction."""

    offset: Tensor

    def __init__(self, members: Sequence[Member], correction: Correction) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.temperature = correction.temperature
        log_prior = torch.tensor(correction.prior, dtype=torch.float64).log()
        offset = correction.prior_share * log_prior + torch.tensor(correction.bias)
        self.register_buffer("offset", offset.float())
        self.eval().requires_grad_(requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities float32 [n, class] of images uint8 [n, channel, height, width].

        They are those of `Correction.apply`.
        """
        prob = torch.stack([member(images) for member in self.members]).mean(dim=0)
        log_q = prob.clamp(min=torch.finfo(prob.dtype).tiny).log() / self.temperature
        return torch.softmax(log_q + self.offset, dim=1)
