"""What a training and a range test tell."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pandas as pd


@dataclasses.dataclass(frozen=True)
class History:
    """What a training did, epoch by epoch and step by step.

    `table` has a row an epoch, under ``epoch`` (from 1): learning_rate (of the last step), train_loss, train_accuracy,
    seconds and, with validation, validation_loss, validation_accuracy and validation_roc_auc (with more than two labels
    the mean of one against the rest; NaN where it is not defined). With several ``members`` the rows of all follow one
    another, with a column ``network`` (1, 2, …). `step_loss` is that of each step, `precision` what ``"auto"`` took.

    >>> table = pd.DataFrame({"train_loss": [0.7, 0.5]}, index=pd.Index([1, 2], name="epoch"))
    >>> history = History(table, step_loss=[0.8, 0.6, 0.5, 0.5], precision="fp32")
    >>> len(history), len(History.joined([history, history]))
    (2, 4)
    """

    table: pd.DataFrame
    step_loss: list[float]
    precision: str

    def __len__(self) -> int:
        return len(self.table)

    @classmethod
    def joined(cls, histories: Sequence[History]) -> History:
        """Join the histories of several networks; the epochs count on."""
        table = pd.concat([each.table.assign(network=number) for number, each in enumerate(histories, 1)])
        table.index = pd.Index(range(1, len(table) + 1), name="epoch")
        losses = [loss for history in histories for loss in history.step_loss]
        return cls(table, losses, histories[-1].precision)

    def records(self) -> list[dict]:
        """Return the rows of `table`, fit for JSON, which has no NaN."""
        rows = self.table.reset_index().astype(object)
        return rows.where(rows.notna(), None).to_dict("records")


@dataclasses.dataclass(frozen=True)
class RangeTest:
    """What a range test found; `plots.learning_rates` draws it.

    `table` has a row a step: learning_rate, loss and smooth_loss (an exponential mean). `suggestion` is a tenth of the
    learning rate where the smooth loss is lowest: there the loss still falls fast.
    """

    table: pd.DataFrame
    suggestion: float
