"""Many small networks of one shape, trained at once: what takes an hour one by one takes minutes in one tensor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from networks import uci_net
from torch import Tensor, nn


@dataclass(frozen=True)
class Hyper:
    """Of one network of Gal & Ghahramani 2016."""

    dropout: float
    tau: float  # precision of the noise, in the target's own unit
    length_scale: float = 1e-2

    def l2(self, rows: int) -> float:
        """The weight decay that their prior comes to."""
        return self.length_scale**2 * (1 - self.dropout) / (2 * rows * self.tau)


class ManyNetworks(nn.Module):
    """G networks with one hidden layer and dropout before both layers, as `uci_net` is one: [G, N, D] → [G, N, 1]."""

    def __init__(self, features: int, hypers: list[Hyper], hidden: int = 50) -> None:
        super().__init__()
        count = len(hypers)
        self.first, self.last = (nn.Parameter(_glorot(count, *shape)) for shape in ((features, hidden), (hidden, 1)))
        self.first_bias = nn.Parameter(torch.zeros(count, 1, hidden))
        self.last_bias = nn.Parameter(torch.zeros(count, 1, 1))
        self.keep: Tensor
        self.register_buffer("keep", torch.tensor([1 - hyper.dropout for hyper in hypers])[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """With dropout in training mode."""
        hidden = torch.relu(torch.baddbmm(self.first_bias, self._dropped(x), self.first))
        return torch.baddbmm(self.last_bias, self._dropped(hidden), self.last)

    def _dropped(self, x: Tensor) -> Tensor:
        return x * (torch.rand_like(x) < self.keep) / self.keep if self.training else x

    def squared_weights(self) -> Tensor:
        """Σ w² of every network [G], biases apart."""
        return self.first.square().sum((1, 2)) + self.last.square().sum((1, 2))

    def one(self, place: int, dropout: float) -> nn.Sequential:
        """One of them, as the network that poolscore runs."""
        features, hidden = self.first.shape[1:]
        made = uci_net(features, dropout, hidden)
        weights = {
            "first.weight": self.first[place].T,
            "first.bias": self.first_bias[place, 0],
            "last.weight": self.last[place].T,
            "last.bias": self.last_bias[place, 0],
        }
        made.load_state_dict({name: value.detach() for name, value in weights.items()})
        return made.eval()


def train_many(x_SND: Tensor, y_SN1: Tensor, hypers: list[list[Hyper]], epochs: int, batch: int) -> ManyNetworks:
    """For each of S training sets of N rows the networks of its hypers (as many for all), with Adam on the mean squared
    error; every row once an epoch. They come in the order of the sets."""
    sets, rows, features = x_SND.shape
    flat = [hyper for of_set in hypers for hyper in of_set]
    each = len(flat) // sets
    model = ManyNetworks(features, flat)
    l2_G = torch.tensor([hyper.l2(rows) for hyper in flat])
    optimizer = torch.optim.Adam(model.parameters())
    of_set = torch.arange(sets)[:, None]
    for _ in range(epochs):
        order_SN = torch.rand(sets, rows).argsort(1)
        for places in order_SN.split(batch, 1):
            x, y = (of[of_set, places].repeat_interleave(each, 0) for of in (x_SND, y_SN1))
            optimizer.zero_grad()
            errors_G = (model(x) - y).square().mean((1, 2))
            (errors_G + l2_G * model.squared_weights()).sum().backward()
            optimizer.step()
    return model


@torch.no_grad()
def passes(model: ManyNetworks, x_GND: Tensor, count: int) -> Tensor:
    """Outputs with dropout on [T, G, N]."""
    model.train()
    return torch.stack([model(x_GND)[..., 0] for _ in range(count)])


def log_likelihood(y_TGN: Tensor, truth_GN: Tensor, tau_G: Tensor) -> Tensor:
    """Mean over rows of log mean_t N(truth; y_t, 1/tau), in the target's own unit [G]: the paper's formula."""
    tau = tau_G[:, None]
    inside = -0.5 * tau * (truth_GN - y_TGN).square()
    count = torch.tensor(float(len(y_TGN)))
    density = inside.logsumexp(0) - count.log() + 0.5 * (tau / (2 * torch.pi)).log()
    mean: Tensor = density.mean(1)
    return mean


def _glorot(count: int, inputs: int, outputs: int) -> Tensor:
    bound = (6 / (inputs + outputs)) ** 0.5
    return torch.empty(count, inputs, outputs).uniform_(-bound, bound)
