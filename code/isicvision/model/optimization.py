"""What moves the weights in a training: the optimizer, class weights, seeds and the moving average."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from .network import Network
from .settings import Settings

TORCH_OPTIMIZERS = {
    "sgd": partial(torch.optim.SGD, lr=1, momentum=0.9, nesterov=True, fused=True),
    "adamw": partial(torch.optim.AdamW, lr=1, fused=True),
}
"""Fused: one pass over all weights; a loop over some hundred tensors takes a quarter of a step's time."""


def make_optimizer(network: Network, settings: Settings) -> torch.optim.Optimizer:
    """Return an optimizer of the head and of what is trained of the body, which has a rate of its own."""
    groups = [{"params": [*network.head.parameters()], "factor": 1.0}]
    if body := [weight for weight in network.body.parameters() if weight.requires_grad]:
        groups.insert(0, {"params": body, "factor": settings.body_rate})
    return TORCH_OPTIMIZERS[settings.optimizer](groups, weight_decay=settings.l2)


def class_weights(labels: np.ndarray, count: int, how: str | None) -> torch.Tensor:
    """Return the weight of each of `count` labels in the loss: 1, or the inverse of its frequency."""
    counts = np.bincount(labels, minlength=count) if how == "balanced" else np.zeros(count)
    balanced = len(labels) / (max(1, np.count_nonzero(counts)) * np.maximum(counts, 1))
    return torch.from_numpy(np.where(counts, balanced, 1)).float()


def seed_of(*numbers: int) -> int:
    """Return the seed that follows from whole numbers, such as (seed, step)."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


@torch.no_grad()
def move_average(average: dict[str, torch.Tensor], network: Network, decay: float) -> None:
    """Move an average of the weights towards those of the network, in place."""
    new = network.state_dict()
    real = [name for name, kept in average.items() if kept.is_floating_point()]
    # all at once
    torch._foreach_lerp_([average[name] for name in real], [new[name] for name in real], 1 - decay)
    for name in average.keys() - set(real):  # counts
        average[name].copy_(new[name])
