"""The machine under a training: its device, which precision is faster there, and its memory."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import os
import time
from collections.abc import Iterator
from typing import Any

import accelerate
import torch
from accelerate.utils import parse_flag_from_env
from torch import nn
from torch.nn import functional

from .settings import Settings

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
WORTH = 1.3
"""How many times as fast as fp32 another precision must be for ``"auto"`` to take it."""


def default_device() -> torch.device:
    """Return the GPU of this process if there is one, else the CPU: torch.device."""
    return accelerate.PartialState(cpu=on_cpu()).device


def on_cpu() -> bool:
    """Say whether to stay off GPUs; without being told, Accelerate would see no other processes then."""
    return parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()


def time_precisions(network: nn.Module, batch: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
    """Time a few training steps of a copy of the network in each precision that this device has.

    The batch is uint8 (n, height, width, 3), the targets int64 (n,). Returns seconds a step by precision, "fp32" first.
    """
    device = batch.device
    half = "bf16" if device.type != "cuda" or torch.cuda.is_bf16_supported(False) else "fp16"
    trial = copy.deepcopy(network)
    weights = [weight for weight in trial.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=1e-9, momentum=0.9, nesterov=True, fused=True)
    times = {"fp32": [], half: []}
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        for number in range(4):  # the first of each only warms up
            for name in times:
                started = time.perf_counter()
                with torch.autocast(device.type, DTYPES.get(name), enabled=name in DTYPES):
                    loss = functional.cross_entropy(trial(batch, merged=False), targets)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                loss.item()  # waits for a GPU
                times[name] += [time.perf_counter() - started] * (number > 0)
    return {name: min(values) for name, values in times.items()}


@contextlib.contextmanager
def memory_kept() -> Iterator[None]:
    """Have glibc keep freed memory for the next tensors; give it back at the end.

    The system would clear every page of each new block over 32 MB: half of a step's time at 192 px (`man mallopt`).
    """
    trim_threshold, mmap_threshold, mmap_max = -1, -3, -4
    libc: Any = ctypes.CDLL(None) if os.name == "posix" else None
    if not (hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim")):
        yield
        return
    libc.mallopt(mmap_max, 0)
    libc.mallopt(trim_threshold, 2**31 - 1)
    try:
        yield
    finally:
        libc.mallopt(mmap_max, 65536)  # the default, and below what glibc adapts its thresholds to by itself
        libc.mallopt(mmap_threshold, 2**25)
        libc.mallopt(trim_threshold, 2**26)
        libc.malloc_trim(0)


@contextlib.contextmanager
def memory_explained(settings: Settings) -> Iterator[None]:
    """Say which batch size to try when memory runs out."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch raises the first, on a GPU and on the CPU
        words = ("out of memory", "can't allocate memory", "not enough memory")
        if not isinstance(error, MemoryError) and not any(word in str(error) for word in words):
            raise
        size, parts = settings.batch_size, settings.accumulate
        half = max(1, size // parts // 2)
        advice = f"batch_size={half}, or accumulate={-(-size // half)}: each batch in parts of {half}"
        advice = "a smaller image_size or network" if size == parts else advice
        raise MemoryError(f"memory ran out with {size // parts} images at a time: try {advice}") from error
