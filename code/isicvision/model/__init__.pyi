from . import backbones as backbones
from . import labelissues as labelissues
from . import presets as presets
from . import saliency as saliency
from .backbones import WeightsError as WeightsError
from .classifier import ImageClassifier as ImageClassifier
from .settings import Settings as Settings
