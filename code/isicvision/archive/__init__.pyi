from .client import IsicArchive as IsicArchive
