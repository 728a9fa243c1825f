"""Try an augmentation or the parameters of a training, and take the line of code with you."""

from __future__ import annotations

import abc
import dataclasses
import inspect
from collections.abc import Callable
from html import escape

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
from imgaug import augmenters as iaa

from .. import plots
from ..data.augmentation import augment_dataset, dermoscopy
from ..data.dataset import ImageDataset
from ..model import backbones
from ..model.presets import PRESETS, VIEWS
from ..model.settings import OPTIMIZERS, SCHEDULES, Settings
from ..plots.style import colors
from .parts import Widget, row, stack


class _Tuning(Widget):
    """Controls, and below them a figure and the code that follow from their values."""

    def _show(self, controls, alt, *above):
        self._alt, self._image, self._code = alt, ipywidgets.HTML(), ipywidgets.HTML()
        for control in controls.values():
            control.observe(lambda _: self._draw(), "value")
        self.view = stack(*above, row(*controls.values()), self._image, self._code)

    @property
    @abc.abstractmethod
    def code(self) -> str:
        """The lines of Python that do the same."""

    def _draw(self):
        try:
            self._drawn = super()._jpeg()
            source = f"data:image/jpeg;base64,{self._drawn}"
            self._image.value = f"<img alt='{self._alt}' src='{source}' style='max-width: 100%'>"
            self._code.value = f"<pre style='white-space: pre-wrap'>{escape(self.code)}</pre>"
        except ValueError as error:  # values that do not go together; the message names the control
            style = "color: var(--jp-error-color1, #b3261e)"
            self._code.value = f"<p role='alert' style='{style}'>{escape(str(error))}</p>"

    def _jpeg(self):
        return self._drawn  # the last values that went together


class AugmentationUI(_Tuning):
    """Change the parameters of an augmentation and see at once how it changes some images: see `plots.augmented`.

    `pipeline` is a function that returns an imgaug augmenter. Each of its parameters gets one of the ``sliders``, and
    needs a default: a number from 0 to 1 or a pair of numbers from 0 to 2.

    >>> ui = AugmentationUI(dataset, images=1, views=1)
    >>> ui.sliders["hair"].value = 1
    >>> ui.code
    'dermoscopy(hair=1.0)'
    """

    def __init__(
        self,
        dataset: ImageDataset,
        pipeline: Callable[..., iaa.Augmenter] = dermoscopy,
        images: int = 2,
        views: int = 6,
    ) -> None:
        self._dataset, self._pipeline, self._shape = dataset, pipeline, (images, views)
        parameters = inspect.signature(pipeline).parameters
        self._defaults = {name: each.default for name, each in parameters.items()}
        self.sliders = {name: _slider(name, default) for name, default in self._defaults.items()}
        self._show(self.sliders, "Images before and after the augmentation")
        self._draw()

    @property
    def parameters(self) -> dict:
        """The parameters that differ from their defaults."""
        values = {name: slider.value for name, slider in self.sliders.items()}
        return {name: value for name, value in values.items() if value != self._defaults[name]}

    @property
    def augmenter(self) -> iaa.Augmenter:
        """The imgaug augmenter with these parameters, for `augment_dataset`."""
        return self._pipeline(**self.parameters)

    @property
    def code(self) -> str:
        """The call that makes `augmenter`."""
        return _call(self._pipeline.__name__, self.parameters)

    def _figure(self):
        return plots.augmented(augment_dataset(self._dataset, self.augmenter), *self._shape)


class ParamsUI(_Tuning):
    """Choose how to train by the ``controls``, beginning with a preset, see the learning rate, and copy the code.

    >>> ui = ParamsUI("fast")
    >>> ui.controls["epochs"].value = 3
    >>> ui.training["epochs"]
    3
    """

    MODEL = ("backbone", "image_size", "dropout", "views")

    def __init__(self, preset: str = "balanced") -> None:
        self.preset = ipywidgets.Dropdown(options=[*PRESETS], value=preset, description="preset")
        whole, choice = ipywidgets.BoundedIntText, ipywidgets.Dropdown
        share, power = ipywidgets.FloatSlider, ipywidgets.FloatLogSlider
        self.controls = {
            "backbone": choice(options=backbones.BACKBONES),
            "image_size": whole(min=32, max=1024),
            "dropout": share(max=0.9, step=0.05),
            "views": choice(options=VIEWS),
            "epochs": whole(min=1, max=200),
            "batch_size": whole(min=1, max=1024),
            "train_image_size": whole(min=32, max=1024),
            "learning_rate": power(min=-5, max=0, step=0.1, readout_format=".2g"),
            "schedule": choice(options=[*SCHEDULES]),
            "optimizer": choice(options=OPTIMIZERS),
            "l2": power(min=-6, max=-0.5, step=0.25, readout_format=".2g"),
            "body_rate": share(max=1, step=0.05),
            "frozen_stages": ipywidgets.IntSlider(max=8),
            "freeze_epochs": whole(max=200),
            "label_smoothing": share(max=0.5, step=0.01),
            # a value of None would show an empty choice
            "class_weight": choice(options=[("balanced", "balanced"), ("None", "")]),
            "members": whole(min=1, max=10),
        }
        for name, control in self.controls.items():
            control.description, control.style.description_width = name, "120px"
        self._show(self.controls, "The learning rate over the training", self.preset)
        self.preset.observe(lambda _: self._take_preset(), "value")
        self._take_preset()

    @property
    def model(self) -> dict:
        """The arguments for `ImageClassifier`, except for the labels."""
        return {name: self.controls[name].value for name in self.MODEL}

    @property
    def training(self) -> dict:
        """The settings for `ImageClassifier.fit`."""
        shown = {name: control.value for name, control in self.controls.items() if name not in self.MODEL}
        shown["class_weight"] = shown["class_weight"] or None
        for name in ("learning_rate", "l2"):  # as the slider shows them, not 0.010000000000000021
            shown[name] = float(f"{shown[name]:.4g}")
        return PRESETS[self.preset.value]["training"] | shown

    @property
    def code(self) -> str:
        """The lines that create and train such a model."""
        model = self.model
        created = _call("ImageClassifier", model, repr(model.pop("backbone")), "dataset.labels")
        train = "augment_dataset(train, [augmentation.dermoscopy()])"  # as `from_preset` does
        return f"model = {created}\n{_call('model.fit', self.training, train)}"

    def _take_preset(self):
        preset = PRESETS[self.preset.value]
        values = {field.name: field.default for field in dataclasses.fields(Settings)}
        values |= {"backbone": "efficientnet_lite0"} | preset["model"] | preset["training"]
        self._is_held = True  # one drawing for all changes
        for name, control in self.controls.items():
            control.value = "" if values[name] is None else values[name]
        self._is_held = False
        self._draw()

    def _draw(self):
        if not self._is_held:
            super()._draw()

    def _figure(self):
        settings = Settings(**self.training)
        figure, ax = plt.subplots(figsize=(6, 2.4), layout="constrained")
        places = np.arange(60 * settings.epochs) / 60
        rates = np.array([settings.rate(int(place), place / settings.epochs) for place in places])
        body = places >= settings.freeze_epochs
        blue, orange = colors(["last layer", "body"]).values()
        ax.plot(places, rates, color=blue, label="last layer")
        if body.any():
            ax.plot(places[body], settings.body_rate * rates[body], "--", color=orange, label="body")
        ax.set(xlabel="epoch", title=f"learning rate, {settings.schedule}")
        ax.legend(frameon=False)
        return figure


def _slider(name, default):
    """Return a slider for a parameter whose default is a number from 0 to 1, or a pair of numbers."""
    options = {"description": name, "step": 0.01, "continuous_update": False, "value": default}
    if isinstance(default, tuple):
        return ipywidgets.FloatRangeSlider(max=max(2, *default), **options)
    if isinstance(default, (int, float)):
        return ipywidgets.FloatSlider(max=max(1, default), **options)
    raise TypeError(f"parameter {name!r} needs a number or a pair of numbers as its default, not {default!r}")


def _call(name, arguments, *before):
    """Write a call as Python code."""
    return f"{name}({', '.join([*before, *(f'{key}={value!r}' for key, value in arguments.items())])})"
