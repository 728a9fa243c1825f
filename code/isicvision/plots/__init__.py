"""Plots of images, data, trainings and evaluations, by matplotlib.

A plot of one axes takes `ax` and returns it; `grid`, `examples`, `pairs`, `augmented`, `changed`, `measures`, `history`
and `audit` return the figure. A plot takes the dataset or the evaluation, and where that takes long, its result.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
