"""The base of the errors that only this package raises."""


class IsicVisionError(Exception):
    """Base class of every error that isicvision defines: catch it to catch them all.

    >>> from isicvision.images import ImageError
    >>> issubclass(ImageError, IsicVisionError)
    True
    """
