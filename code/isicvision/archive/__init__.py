"""Get images: from the ISIC Archive, the bundled sample, or a server that answers as they do."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
