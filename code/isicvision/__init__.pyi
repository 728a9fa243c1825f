from . import audit as audit
from . import augmentation as augmentation
from . import azure as azure
from . import cards as cards
from . import comparison as comparison
from . import datareport as datareport
from . import decisions as decisions
from . import labelissues as labelissues
from . import plots as plots
from . import presets as presets
from . import record as record
from . import saliency as saliency
from . import skintone as skintone
from . import widgets as widgets
from .archive import IsicArchive as IsicArchive
from .augmentation import augment_dataset as augment_dataset
from .bundle import build_bundle as build_bundle
from .classifier import ImageClassifier as ImageClassifier
from .client import ServiceClient as ServiceClient
from .dataset import ImageDataset as ImageDataset
from .deployment import deploy_local as deploy_local
from .evaluation import Evaluation as Evaluation
from .evaluation import evaluate as evaluate
from .monitoring import drift as drift
from .project import PROJECT_ROOT as PROJECT_ROOT
from .project import require as require

__version__: str
