"""The range test: train with a learning rate that grows from step to step, to see which rates learn."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .batches import Augment, steps
from .settings import Settings
from .training import Training

if TYPE_CHECKING:
    from ..data.cache import Images
    from .network import Network

LOWEST, HIGHEST, STEPS = 1e-6, 1.0, 80
"""Learning rates of the first and the last step, and about how many steps there are."""


@dataclasses.dataclass(frozen=True)
class RangeTest:
    """What a range test found; `plots.learning_rates` draws it.

    `table` has a row a step: learning_rate, loss and smooth_loss (an exponential mean). `suggestion` is a tenth of the
    learning rate where the smooth loss is lowest: there the loss still falls fast.

    >>> RangeTest(pd.DataFrame({"learning_rate": [0.001], "loss": [0.7], "smooth_loss": [0.7]}), 0.0001).suggestion
    0.0001
    """

    table: pd.DataFrame
    suggestion: float


class _Ramp(Settings):
    """Settings whose learning rate grows from `LOWEST` to `HIGHEST` by the same factor each step."""

    def rate(self, epoch, position):
        return LOWEST * (HIGHEST / LOWEST) ** position


def find_learning_rate(
    network: Network,
    images: Images | np.ndarray,
    targets: np.ndarray,
    settings: Settings,
    augment: Augment | None = None,
    seed: int = 0,
    progress: bool = True,
) -> RangeTest:
    """Train `network`, which this spoils, with a rate that grows from step to step until the loss explodes.

    Smith, Cyclical Learning Rates for Training Neural Networks, 2017, section 3.3. The arguments are those of
    `training.train`; learning rate, schedule and epochs of the settings do not matter.
    """
    epochs = -(-STEPS // len(steps(len(targets), settings.batch_size)))
    given = dataclasses.asdict(settings)
    given |= {"epochs": epochs, "learning_rate": 1.0, "schedule": "constant", "freeze_epochs": 0, "ema": None}
    settings = _Ramp(**given | {"keep": "last", "patience": None})
    training = Training(network, images, targets, settings, augment=augment, seed=seed, progress=progress)
    with training.prepared(), contextlib.suppress(FloatingPointError):
        while not training.is_over():
            training.epoch()
    losses = np.array(training.at["step_loss"])
    total = epochs * len(training.plan)
    rates = [settings.rate(0, (number + 0.5) / total) for number in range(len(losses))]
    table = pd.DataFrame({"learning_rate": rates, "loss": losses})
    table["smooth_loss"] = table["loss"].ewm(alpha=0.1).mean()
    lowest = table["smooth_loss"].iloc[min(5, len(table) - 1) :].idxmin()
    exploded = table.index[(table.index > lowest) & (table["smooth_loss"] > 4 * table["smooth_loss"][lowest])]
    table = table[: exploded[0] + 1] if len(exploded) else table
    return RangeTest(table, suggestion=float(f"{table['learning_rate'][lowest] / 10:.1g}"))
