from . import cards as cards
from . import record as record
