from .bundle import build_bundle as build_bundle
from .client import ServiceClient as ServiceClient
from .local import LocalService as LocalService
from .local import deploy_local as deploy_local
