"""What makes several processes compute what one computes: rows of each batch, shared statistics of batch norms.

Without it two processes would train another model than one: each batch norm would see half of the batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from accelerate.utils import gather_object
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm

if TYPE_CHECKING:
    from accelerate import Accelerator


def rows(total: int, accelerator: Accelerator) -> slice:
    """Return the rows of a batch that this process computes: slice; together the processes compute all."""
    rank, world = accelerator.process_index, accelerator.num_processes
    return slice(rank * total // world, (rank + 1) * total // world)


def gather(values: torch.Tensor, accelerator: Accelerator) -> torch.Tensor:
    """Concatenate the rows of all processes: tensor on the CPU."""
    return values if accelerator.num_processes == 1 else torch.cat(gather_object([values.cpu()]))


@contextmanager
def shared_batch_norm(network: torch.nn.Module, accelerator: Accelerator) -> Iterator[None]:
    """Let each batch norm take mean and variance over the rows of all processes, within the context.

    torch's own SyncBatchNorm does so on GPUs only, and would drop the activation inside of timm's batch norms.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    if accelerator.num_processes > 1:
        for norm in norms:
            norm.forward = lambda batch, norm=norm: _normalize(norm, batch)
    try:
        yield
    finally:
        for norm in norms:
            vars(norm).pop("forward", None)


def _normalize(norm, batch):
    shape = (1, -1) + (1,) * (batch.dim() - 2)
    if norm.training:
        dims, exact = [0, *range(2, batch.dim())], torch.float64  # as torch's own accumulates on a CPU
        count = torch.tensor([batch.numel() / batch.shape[1]], dtype=exact, device=batch.device)
        sums = all_reduce(torch.cat([batch.sum(dims, dtype=exact), count]))
        count, mean = sums[-1].detach(), sums[:-1] / sums[-1].detach()
        apart = batch.float() - mean.float().view(shape)
        variance = all_reduce((apart * apart).sum(dims, dtype=exact)) / count
        with torch.no_grad():
            norm.num_batches_tracked += 1
            share = norm.momentum if norm.momentum is not None else 1 / norm.num_batches_tracked
            norm.running_mean.lerp_(mean.float(), share)
            norm.running_var.lerp_((variance * count / (count - 1)).float(), share)
    else:
        mean, variance = norm.running_mean, norm.running_var
    scale = torch.rsqrt(variance + norm.eps)
    scale, shift = (scale * norm.weight, norm.bias) if norm.affine else (scale, 0)
    shift = (shift - mean * scale).float().view(shape)
    result = (batch * scale.float().view(shape) + shift).to(batch.dtype)
    for name in ("drop", "act"):  # timm's batch norms have an activation inside
        if hasattr(norm, name):
            result = getattr(norm, name)(result)
    return result
