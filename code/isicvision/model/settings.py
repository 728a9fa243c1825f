"""The settings of a training, checked when they are made, and the learning rate that follows from them."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

from ..checks import is_number, is_whole, plain
from ..text import near

Function = TypeVar("Function", bound=Callable)
OPTIMIZERS = ("sgd", "adamw")
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda place: 1.0,
    "step": lambda place: 1.0 if place < 0.5 else 0.1 if place < 0.9 else 0.01,
    "cosine": lambda place: (1 + math.cos(math.pi * place)) / 2,
    "one_cycle": lambda place: min(place / 0.25, (1 + math.cos(math.pi * (place - 0.25) / 0.75)) / 2),
}
"""Factor of the learning rate at a position, 0 to 1, of the training. A new schedule is one more line here."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to train; each is an argument of `ImageClassifier.fit`. Raises ValueError if a value is out of range.

    Attributes
    ----------
    epochs, batch_size
        How often each training image is seen; images per step, of all processes together.
    train_image_size
        Side of the training images, in pixels; default: the model's image_size. Three quarters of it take half the time
        and often give the better model (Touvron et al., Fixing the train-test resolution discrepancy, 2019).
    learning_rate
        The highest, or one for each epoch. AdamW needs rates about ten times smaller than SGD.
    schedule
        How a single rate changes from step to step. ``"step"``: a tenth from half way on and a hundredth in the last
        tenth, as in 2018; ``"cosine"``: down to 0 (Loshchilov and Hutter, SGDR, 2017); ``"one_cycle"``: up during the
        first quarter, then down to 0 (Smith and Topin, Super-convergence, 2018).
    optimizer, l2
        ``"sgd"`` with Nesterov momentum 0.9, or ``"adamw"`` (Loshchilov and Hutter, Decoupled Weight Decay
        Regularization, 2019); the weight decay, 0 to below 1.
    freeze_epochs, frozen_stages
        Epochs at the beginning that train the last layer alone; stages of the body, from the input
        (`ImageClassifier.summary` lists them), that keep weights and batch statistics, which saves much of the time.
    body_rate
        Factor of the learning rate for the pretrained body, 0 to 1.
    label_smoothing
        Share of each target that is spread over all labels, 0 to below 1 (Szegedy et al., Rethinking the Inception
        Architecture, 2016).
    class_weight : "balanced" or None
        Weigh each label in the loss by the inverse of its frequency.
    sublabels
        Train to tell apart the finer labels in the dataset's column ``sublabel``, if it has one (`from_csv` keeps there
        what its label_map merges), and add up their scores (Ha, Liu and Liu, Identifying Melanoma Images using
        EfficientNet Ensemble, 2020). The model, `class_weight` and `sampling` still go by its labels.
    sampling : "shuffle" or "balanced"
        Each image once an epoch in random order, or drawn so that each label comes equally often.
    accumulate
        Compute each step in this many parts, one after the other, to need less memory; batch norms see the parts.
    precision
        ``"fp32"``; ``"bf16"`` or ``"fp16"`` (mixed, by torch.autocast); ``"auto"`` times a few steps of each and takes
        another than fp32 if it is clearly faster (`devices.WORTH`).
    compile
        torch.compile the network: a minute or more at the start, for faster steps on a GPU. Needs a C++ compiler.
    ema
        Take a moving average of the weights with this decay, 0 to below 1, as the result (Polyak and Juditsky,
        Acceleration of Stochastic Approximation by Averaging, 1992).
    members
        Train this many networks from the same start and average their scores (Lakshminarayanan, Pritzel and Blundell,
        Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles, 2017).
    keep : "last" or "best"
        Weights of the last epoch, or of the one with the best validation ROC AUC, or loss where that is not defined.
    patience
        Stop when that figure has not improved for this many epochs.

    Examples
    --------
    >>> settings = Settings(epochs=9, learning_rate=0.001, schedule="cosine", optimizer="adamw")
    >>> settings.rate(epoch=4, position=0.5)
    0.0005
    """

    epochs: int = 15
    batch_size: int = 32
    train_image_size: int | None = None
    learning_rate: float | Sequence[float] = 0.01
    schedule: str = "constant"
    optimizer: str = "sgd"
    l2: float = 0.0005
    freeze_epochs: int = 0
    frozen_stages: int = 0
    body_rate: float = 1.0
    label_smoothing: float = 0.0
    class_weight: str | None = None
    sublabels: bool = False
    sampling: str = "shuffle"
    accumulate: int = 1
    precision: str = "auto"
    compile: bool = False
    ema: float | None = None
    members: int = 1
    keep: str = "last"
    patience: int | None = None

    def __post_init__(self):
        for name, value in vars(self).items():
            object.__setattr__(self, name, plain(value))
        for names, is_right, meaning in _RULES:
            for name in names.split():
                self._require(name, is_right(getattr(self, name)), meaning)
        for name, limit in (("freeze_epochs", "epochs"), ("accumulate", "batch_size")):
            most = getattr(self, limit)
            self._require(name, getattr(self, name) <= most, f"at most {limit} ({most})")
        rates = self.learning_rate if isinstance(self.learning_rate, list) else [self.learning_rate]
        if rates is self.learning_rate and len(rates) != self.epochs:
            counts = f"{len(rates)} values for {self.epochs} epochs"
            raise ValueError(f"learning_rate has {counts}; give a number or one for each")
        positive = all(is_number(rate, 0) and rate > 0 for rate in rates)
        self._require("learning_rate", positive, "one or more positive numbers")
        if rates is self.learning_rate and self.schedule != "constant":
            raise ValueError(f"schedule {self.schedule!r} has no effect on a list of rates: give one of them")

    def _require(self, name, is_right, meaning):
        if not is_right:
            raise ValueError(f"{name} is {meaning}, not {getattr(self, name)!r}")

    @classmethod
    def of(cls, defaults: dict, given: dict) -> Settings:
        """Make settings from two dicts, the second of which has precedence; an unknown name raises TypeError."""
        names = [field.name for field in dataclasses.fields(cls)]
        for name in given:
            if name not in names:
                hint = near(name, names) or "."
                raise TypeError(f"unknown training setting {name!r}{hint} There are: {', '.join(names)}")
        if isinstance(plain(given.get("learning_rate")), list):  # it replaces a schedule, too
            defaults = defaults | {"schedule": "constant"}
        return cls(**defaults | given)

    def rate(self, epoch: int, position: float) -> float:
        """Return the learning rate at `position` (0 to 1) of the whole training, in epoch `epoch` (from 0)."""
        if isinstance(self.learning_rate, Sequence):
            return self.learning_rate[epoch]
        return self.learning_rate * SCHEDULES[self.schedule](position)


def spelled_out(function: Function) -> Function:
    """Let help() and completion show the fields of `Settings` in place of a function's ``**settings``."""
    signature = inspect.signature(function)
    fields = inspect.signature(Settings).parameters.values()
    shown = [field.replace(kind=inspect.Parameter.KEYWORD_ONLY) for field in fields]
    kept = [parameter for parameter in signature.parameters.values() if parameter.name != "settings"]
    function.__signature__ = signature.replace(parameters=[*kept, *shown])  # type: ignore[attr-defined]
    return function


def _share(value):
    return is_number(value, 0) and value < 1


def _one_of(names, choices):
    return names, [*choices].__contains__, " or ".join(map(repr, choices))


_RULES = (
    ("epochs batch_size accumulate members", lambda value: is_whole(value, 1), "a whole number of 1 or more"),
    ("freeze_epochs frozen_stages", lambda value: is_whole(value, 0), "a whole number of 0 or more"),
    ("l2", _share, "a weight decay from 0 to below 1"),
    ("label_smoothing", _share, "a share from 0 to below 1"),
    ("body_rate", lambda value: is_number(value, 0) and value <= 1, "a factor from 0 to 1"),
    ("train_image_size patience", lambda n: n is None or is_whole(n, 1), "None or a whole number"),
    ("ema", lambda value: value is None or _share(value), "None or a decay from 0 to below 1"),
    _one_of("schedule", SCHEDULES),
    _one_of("optimizer", OPTIMIZERS),
    _one_of("class_weight", ("balanced", None)),
    _one_of("sampling", ("shuffle", "balanced")),
    _one_of("precision", ("auto", "fp32", "bf16", "fp16")),
    _one_of("compile sublabels", (False, True)),
    _one_of("keep", ("last", "best")),
)
"""Settings, whether a value of them is right, and in words which values are."""
