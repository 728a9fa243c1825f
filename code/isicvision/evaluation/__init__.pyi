from . import audit as audit
from . import comparison as comparison
from . import decisions as decisions
from . import external as external
from .evaluation import Evaluation as Evaluation
from .evaluation import evaluate as evaluate
