"""Phased DMD of a network of your own, in a training loop of your own: a minute, on one core.

The network is anything that is called with (x_t, t, condition) and returns eps - x_0. Here it is a
small MLP on eight modes in a ring, first fitted, then distilled to two steps in two phases.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pdmd.flow import RECTIFIED as FLOW
from pdmd.flow import per_sample, renoise
from pdmd.objectives import (
    flow_loss,
    full_like_time,
    generator_gradient,
    subinterval_loss,
    surrogate_loss,
)
from pdmd.phases import split_phases
from pdmd.rollout import exit_steps, simulate_to_end, simulate_to_exit

PHASES = split_phases(steps=2, boundaries=(1, 2), shift=1.0, interval="nested", margin=0.02)
Fake = Callable[..., Tensor]


class Network(nn.Module):
    """Yours: a velocity of points in the plane."""

    def __init__(self, width: int = 96):
        super().__init__()
        inner = [nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()]
        self.layers = nn.Sequential(nn.Linear(3, width), *inner, nn.Linear(width, 2))

    def forward(self, x_t: Tensor, t: Tensor, condition: None = None) -> Tensor:
        """The velocity, (N, 2), of x_t (N, 2) at noise levels t (N,)."""
        return self.layers(torch.cat([x_t, t[:, None]], 1))


def data(count: int) -> Tensor:
    """Draws of eight modes in a ring, (count, 2)."""
    angle = torch.randint(8, (count,)) * (torch.pi / 4)
    return torch.stack([angle.cos(), angle.sin()], 1) * 1.5 + 0.1 * torch.randn(count, 2)


def fit(network: Network, updates: int = 1500, batch: int = 256) -> Network:
    """Fit the teacher by flow matching (Eq. 4)."""
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(updates):
        x_0, eps, t = data(batch), torch.randn(batch, 2), torch.rand(batch)
        x_t = per_sample(FLOW.alpha(t), x_0) * x_0 + per_sample(FLOW.sigma(t), x_0) * eps
        loss = flow_loss(network(x_t, t), x_0, eps).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.requires_grad_(False)


def distill(
    teacher: Network, updates: int = 400, batch: int = 256, fake_loss: Fake = subinterval_loss
) -> list[Network]:
    """One expert a phase, each trained after the earlier ones (sec. 3); five fakes a generator."""
    experts: list[Network] = []
    for phase in PHASES:
        student, fake = (copy.deepcopy(teacher).requires_grad_(True) for _ in range(2))
        optimizers = [torch.optim.Adam(one.parameters(), lr=5e-4) for one in (student, fake)]
        for update in range(6 * updates):
            x = sample(experts, batch)  # at the end of the phases before
            x_s = simulate_to_exit(FLOW, student, phase, x, None, exit_steps(phase, batch, 1)).x_s
            s, t = full_like_time(phase.end, x), phase.renoise_times(torch.rand(batch))
            eps = torch.randn(batch, 2)
            x_t = renoise(FLOW, x_s.detach(), eps, s, t)  # Eq. 2
            if update % 6 < 5:  # the fake score, within the subinterval (Eq. 13)
                loss = fake_loss(FLOW, fake(x_t, t), x_s.detach(), eps, s, t)
            else:  # the generator, by teacher - fake (Eq. 10)
                with torch.no_grad():
                    gradient = generator_gradient(FLOW, teacher(x_t, t), fake(x_t, t), s, t)
                loss = surrogate_loss(x_s, gradient)
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.mean().backward()
            optimizers[update % 6 < 5].step()
        experts.append(student.requires_grad_(False))
    return experts


@torch.no_grad()
def sample(experts: list[Network], count: int) -> Tensor:
    """Draw (count, 2) by the experts of the first phases; of none it is noise."""
    x = torch.randn(count, 2)
    for phase, expert in zip(PHASES, experts, strict=False):
        x = simulate_to_end(FLOW, expert, phase, x, None).x_s
    return x


def off(x: Tensor) -> float:
    """Mean distance of samples (N, 2) from the nearest mode: .125 for the data themselves."""
    angle = torch.arange(8) * (torch.pi / 4)
    modes = torch.stack([angle.cos(), angle.sin()], 1) * 1.5
    return torch.cdist(x, modes).min(1).values.mean().item()


if __name__ == "__main__":
    torch.manual_seed(0)
    teacher = fit(Network())
    experts = distill(teacher)
    print(f"data                          {off(data(4096)):.3f} from the nearest mode")
    print(f"two steps of the teacher      {off(sample([teacher] * 2, 4096)):.3f}")
    print(f"two steps, Phased DMD         {off(sample(experts, 4096)):.3f}")
