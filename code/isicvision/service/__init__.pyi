from . import azure as azure
from .bundle import build_bundle as build_bundle
from .client import ServiceClient as ServiceClient
from .drift import drift as drift
from .local import LocalService as LocalService
from .local import deploy_local as deploy_local
