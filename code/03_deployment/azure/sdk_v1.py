"""The web service in Azure by azureml-core (SDK v1), whose support ended in June 2026: for services that exist.

managed.py has the current library.
With ``dry_run=True`` a function prints the calls that it would make to Azure. It needs no account and no workspace.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from rehearsal import Rehearsal

from isicvision import ServiceClient
from isicvision.files import read_json, sweep, user_path
from isicvision.service.bundle import read_metadata
from isicvision.text import secret

if TYPE_CHECKING:
    from azureml.core import Webservice, Workspace
    from azureml.core.model import Model, ModelPackage

_LOGIN = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")


def _azureml(dry_run=False):
    """Return the classes of azureml-core that call Azure, or stand-ins that print these calls."""
    try:
        from azureml.core import Workspace
        from azureml.core.compute import AksCompute
        from azureml.core.model import Model
        from azureml.core.webservice import Webservice
    except ImportError as error:
        raise ImportError('azureml-core is not installed: pip install -e ".[azure]"') from error
    real = {"AksCompute": AksCompute, "Model": Model, "Webservice": Webservice, "Workspace": Workspace}
    return SimpleNamespace(**{name: Rehearsal(name) if dry_run else each for name, each in real.items()})


def open_workspace(config: str | Path = ".azureml/config.json") -> Workspace:
    """Open the workspace that a config.json names; ValueError if that file is damaged.

    It logs in as a service principal if the environment variables AZURE_TENANT_ID, AZURE_CLIENT_ID and
    AZURE_CLIENT_SECRET are set, otherwise in a browser.
    """
    azureml = _azureml()
    from azureml.core.authentication import ServicePrincipalAuthentication

    config, login = user_path(config), None
    if not config.is_file():
        hint = "get it from Azure portal > your workspace > Download config.json"
        raise FileNotFoundError(f"{config} is missing: {hint}")
    read_json(config)  # azureml-core does not name a damaged file
    if all(os.environ.get(name) for name in _LOGIN):  # one alone may belong to another program
        login = ServicePrincipalAuthentication(*[secret(os.environ[name], name) for name in _LOGIN])
    return azureml.Workspace.from_config(str(config), auth=login)


def azure_plan(bundle: str | Path, cluster: str | None = None) -> tuple:
    """Describe a service in azureml-core's objects: (Environment, InferenceConfig, deployment configuration).

    The last is a container instance (ACI) with one core and 2 GB, or one to three such replicas on the Kubernetes
    `cluster` (AKS) of that name. Both require a key.
    """
    bundle = user_path(bundle)
    _azureml()
    from azureml.core import Environment
    from azureml.core.model import InferenceConfig
    from azureml.core.webservice import AciWebservice, AksWebservice

    read_metadata(bundle)
    sweep(bundle)
    environment = Environment.from_conda_specification("isicvision-service", str(bundle / "conda.yml"))
    environment.python.conda_dependencies.add_pip_package("azureml-defaults")  # Azure's own hosts need it
    inference = InferenceConfig("score.py", source_directory=str(bundle), environment=environment)
    size = {"cpu_cores": 1, "memory_gb": 2, "auth_enabled": True}
    if cluster:
        scale = {"autoscale_enabled": True, "autoscale_min_replicas": 1, "autoscale_max_replicas": 3}
        return environment, inference, AksWebservice.deploy_configuration(**size, **scale)
    return environment, inference, AciWebservice.deploy_configuration(**size)


def register_bundle(bundle: str | Path, workspace: Workspace | None, dry_run: bool = False) -> Model:
    """Register the bundle's model and environment in a workspace."""
    metadata, environment = read_metadata(bundle), azure_plan(bundle)[0]
    (Rehearsal(f"Environment({environment.name!r})") if dry_run else environment).register(workspace)
    about = {"tags": {"version": metadata["version"]}, "description": metadata.get("caveat")}
    return _azureml(dry_run).Model.register(workspace, str(user_path(bundle)), metadata["id"], **about)


def deploy_azure(
    bundle: str | Path,
    workspace: Workspace | None,
    name: str,
    cluster: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
) -> Webservice:
    """Register the bundle's model in a workspace and run it there as a web service, which costs money until deleted.

    Its `name` has 3 to 32 lower-case letters, digits and dashes, starting with a letter. `cluster` names a Kubernetes
    cluster attached to the workspace; without it, it is a container instance. `overwrite` replaces such a service.
    """
    if not re.fullmatch("[a-z][a-z0-9-]{1,30}[a-z0-9]", name):  # Azure checks it only after the upload
        rule = "use 3 to 32 lower-case letters, digits and dashes, a letter first"
        raise ValueError(f"{name!r} cannot be a service's name: {rule}")
    azureml = _azureml(dry_run)
    _, inference, configuration = azure_plan(bundle, cluster)
    target = azureml.AksCompute(workspace, cluster) if cluster else None
    model = register_bundle(bundle, workspace, dry_run)
    service = azureml.Model.deploy(
        workspace, name, [model], inference, configuration, deployment_target=target, overwrite=overwrite
    )
    service.wait_for_deployment(show_output=True)
    return service


def update_service(
    bundle: str | Path, workspace: Workspace | None, name: str, dry_run: bool = False
) -> Webservice:
    """Replace the bundle of a running service, which keeps its address and keys."""
    _, inference, _ = azure_plan(bundle)
    service = _azureml(dry_run).Webservice(workspace, name)
    service.update(models=[register_bundle(bundle, workspace, dry_run)], inference_config=inference)
    service.wait_for_deployment(show_output=True)
    return service


def azure_client(workspace: Workspace, name: str) -> ServiceClient:
    """Return a `ServiceClient` with the service's key, which it never shows."""
    service = _azureml().Webservice(workspace, name)
    return ServiceClient(service.scoring_uri, key=service.get_keys()[0])


def build_image(
    bundle: str | Path, workspace: Workspace | None, folder: str | Path | None = None, dry_run: bool = False
) -> ModelPackage:
    """Let Azure build the service's container image for a host of your own; `location` is its address.

    With `folder`, Azure only writes a Dockerfile and what belongs to it, which are saved there.
    """
    _, inference, _ = azure_plan(bundle)
    metadata, model = read_metadata(bundle), register_bundle(bundle, workspace, dry_run)
    name = {"image_name": metadata["id"], "image_label": metadata["version"]}
    package = _azureml(dry_run).Model.package(
        workspace, [model], inference, generate_dockerfile=folder is not None, **name
    )
    package.wait_for_creation(show_output=True)
    if folder is not None:
        package.save(str(user_path(folder)))
    return package
