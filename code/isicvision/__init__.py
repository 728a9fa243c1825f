"""Thin helpers behind the notebooks: images in, fine-tuned classifier, evaluation, web service out.

The public names are those of __init__.pyi, which type checkers and editors read, too. Each is imported when first used,
so that ``import isicvision`` takes no time and loads neither torch nor azureml.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
