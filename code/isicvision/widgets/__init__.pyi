from .maps import MapUI as MapUI
from .pages import AnnotationUI as AnnotationUI
from .pages import ConfusionMatrixUI as ConfusionMatrixUI
from .pages import ResultsUI as ResultsUI
from .threshold import PrecisionRecallUI as PrecisionRecallUI
from .tuning import AugmentationUI as AugmentationUI
from .tuning import ParamsUI as ParamsUI
