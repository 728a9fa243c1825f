from . import cards as cards
from . import record as record
from . import summary as summary
from .evaluation import write_evaluation as write_evaluation
from .evaluation import write_results as write_results
