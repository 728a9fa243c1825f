"""What one has: the data set, its parts, its augmentation, and what there is to know about it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
