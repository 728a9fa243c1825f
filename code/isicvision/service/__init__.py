"""Put a model behind a web service: the bundle, a local server, a client."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
