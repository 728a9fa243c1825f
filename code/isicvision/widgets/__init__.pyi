from .widgets import AnnotationUI as AnnotationUI
from .widgets import AugmentationUI as AugmentationUI
from .widgets import ConfusionMatrixUI as ConfusionMatrixUI
from .widgets import ParamsUI as ParamsUI
from .widgets import PrecisionRecallUI as PrecisionRecallUI
from .widgets import ResultsUI as ResultsUI
