"""Interactive widgets for notebooks: pages of images, a threshold, augmentation and training parameters."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
