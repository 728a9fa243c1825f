"""The web service in Azure, by azureml-core (SDK v1).

Every function except `open_workspace` and `azure_plan` takes ``dry_run=True``: it then prints the calls to Azure
that it would make, with their arguments, and makes none. That needs azureml-core, but no account, no network and no
workspace (None will do).
The current SDK, azure-ai-ml, is in code/03_deployment/azure.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from ..files import sweep, user_path
from ..text import secret
from .bundle import read_metadata
from .client import ServiceClient
from .rehearsal import Rehearsal

if TYPE_CHECKING:
    from azureml.core import Webservice, Workspace
    from azureml.core.model import Model, ModelPackage

_LOGIN = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")


def _azureml(dry_run=False):
    """Return the parts of azureml-core that call Azure, or what prints these calls."""
    names = ("Model", "Webservice", "AksCompute")
    if dry_run:
        return SimpleNamespace(**{name: Rehearsal(name) for name in names})
    _require_azureml()
    from azureml.core.compute import AksCompute
    from azureml.core.model import Model
    from azureml.core.webservice import Webservice

    return SimpleNamespace(Model=Model, Webservice=Webservice, AksCompute=AksCompute)


def _require_azureml():
    try:
        import azureml.core  # noqa: F401
    except ImportError as error:
        raise ImportError('azureml-core is not installed: pip install -e ".[azure]"') from error


def open_workspace(config: str | Path = ".azureml/config.json") -> Workspace:
    """Open the workspace that a config.json names, and return the `azureml.core.Workspace`.

    It logs in as a service principal if the environment variables AZURE_TENANT_ID, AZURE_CLIENT_ID and
    AZURE_CLIENT_SECRET are set, else as azureml-core does by itself: in a browser.

    Raises
    ------
    FileNotFoundError, ValueError
        If `config` is missing; if it is no workspace's config.json. The message says what to do.
    ImportError
        If azureml-core is not installed.
    """
    where = "Azure portal > your workspace > Download config.json"
    try:
        settings = json.loads(user_path(config).read_text(encoding="utf-8"))
        wanted = ("resource_group", "subscription_id", "workspace_name")
        missing = [name for name in wanted if not settings.get(name)]
    except FileNotFoundError:
        raise FileNotFoundError(f"{config} is missing: get it from {where}") from None
    except (ValueError, AttributeError):
        raise ValueError(f"{config} is no JSON object: get it again from {where}") from None
    if missing:
        raise ValueError(f"{config} has no {', '.join(missing)}: get it again from {where}")
    _require_azureml()
    from azureml.core import Workspace
    from azureml.core.authentication import ServicePrincipalAuthentication

    given = all(os.environ.get(name) for name in _LOGIN)  # one alone may belong to another program
    login = [secret(os.environ[name], name) for name in _LOGIN] if given else []
    return Workspace.from_config(
        str(user_path(config)), auth=ServicePrincipalAuthentication(*login) if given else None
    )


def azure_plan(bundle: str | Path, cluster: str | None = None) -> tuple:
    """Build what describes a service in Azure, as objects of azureml-core; needs no account and no network.

    Returns
    -------
    tuple of (Environment, InferenceConfig, deployment configuration)
        The last is a container instance (ACI) with one core and 2 GB; or, with the name of a Kubernetes
        `cluster` (AKS), one to three such replicas. Both ask for a key.
    """
    bundle = user_path(bundle)
    _require_azureml()
    from azureml.core import Environment
    from azureml.core.model import InferenceConfig
    from azureml.core.webservice import AciWebservice, AksWebservice

    read_metadata(bundle)
    sweep(bundle)
    environment = Environment.from_conda_specification("isicvision-service", str(Path(bundle, "conda.yml")))
    # asked for by Azure's own hosts
    environment.python.conda_dependencies.add_pip_package("azureml-defaults")
    inference = InferenceConfig("score.py", source_directory=str(bundle), environment=environment)
    size = {"cpu_cores": 1, "memory_gb": 2, "auth_enabled": True}
    if cluster:
        scale = {"autoscale_enabled": True, "autoscale_min_replicas": 1, "autoscale_max_replicas": 3}
        return environment, inference, AksWebservice.deploy_configuration(**size, **scale)
    return environment, inference, AciWebservice.deploy_configuration(**size)


def register_bundle(bundle: str | Path, workspace: Workspace | None, dry_run: bool = False) -> Model:
    """Register the bundle's model and environment in a workspace; return the `azureml.core.Model`."""
    environment, _, _ = azure_plan(bundle)
    card = read_metadata(bundle)
    (Rehearsal(f"Environment({environment.name!r})") if dry_run else environment).register(workspace)
    return _azureml(dry_run).Model.register(
        workspace,
        str(user_path(bundle)),
        card["id"],
        tags={"version": card["version"]},
        description=card.get("caveat"),
    )


def deploy_azure(
    bundle: str | Path,
    workspace: Workspace | None,
    name: str,
    cluster: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
) -> Webservice:
    """Register the bundle's model in an `azureml.core.Workspace` and run it there as a web service.

    Parameters
    ----------
    bundle
        Folder made by `build_bundle`.
    name
        The service's: 3 to 32 lower-case letters, digits and dashes, first a letter.
    cluster
        Name of a Kubernetes cluster that is attached to the workspace; without it, a container instance.
    overwrite
        Replace a service of that name.

    Returns
    -------
    azureml.core.Webservice
        It costs money until its ``delete()``; `azure_client` talks to it.
    """
    if not re.fullmatch("[a-z][a-z0-9-]{1,30}[a-z0-9]", name):  # else known only after the upload
        raise ValueError(
            f"{name!r} cannot be a service's name: 3 to 32 lower-case letters, digits and dashes, first a letter"
        )
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
    """Let a running service go on with another bundle, at the same address and with the same keys; return it."""
    _, inference, _ = azure_plan(bundle)
    service = _azureml(dry_run).Webservice(workspace, name)
    service.update(models=[register_bundle(bundle, workspace, dry_run)], inference_config=inference)
    service.wait_for_deployment(show_output=True)
    return service


def list_services(workspace: Workspace | None, dry_run: bool = False) -> list[dict]:
    """Return the workspace's services: list of dict with name, compute (ACI or AKS), state and uri."""
    return [
        {"name": each.name, "compute": each.compute_type, "state": each.state, "uri": each.scoring_uri}
        for each in _azureml(dry_run).Webservice.list(workspace)
    ]


def service_exists(workspace: Workspace | None, name: str, dry_run: bool = False) -> bool:
    """Tell whether the workspace has a service of that name, in whatever state."""
    return any(service["name"] == name for service in list_services(workspace, dry_run))


def azure_client(workspace: Workspace | None, name: str, dry_run: bool = False) -> ServiceClient | None:
    """Return a `ServiceClient` for a service. It holds the service's key, which it shows nowhere."""
    service = _azureml(dry_run).Webservice(workspace, name)
    keys = service.get_keys()
    return None if dry_run else ServiceClient(service.scoring_uri, key=keys[0])


def renew_keys(workspace: Workspace | None, name: str, dry_run: bool = False) -> None:
    """Make both keys of a service invalid and let Azure make new ones; `azure_client` gets them."""
    service = _azureml(dry_run).Webservice(workspace, name)
    for key in ("Primary", "Secondary"):
        service.regen_key(key)


def delete_service(
    workspace: Workspace | None, name: str, missing_ok: bool = False, dry_run: bool = False
) -> None:
    """Delete a service, which ends its costs. Without such a service nothing happens if `missing_ok`."""
    if missing_ok and not service_exists(workspace, name, dry_run) and not dry_run:
        return
    _azureml(dry_run).Webservice(workspace, name).delete()


def build_image(
    bundle: str | Path, workspace: Workspace | None, folder: str | Path | None = None, dry_run: bool = False
) -> ModelPackage:
    """Let Azure build the service's container image, for a host of your own.

    With `folder`, Azure only writes a Dockerfile and what belongs to it, and they are saved there.
    Returns the `azureml.core.model.ModelPackage`; its `location` is the image's address in the workspace's registry.
    """
    _, inference, _ = azure_plan(bundle)
    card = read_metadata(bundle)
    model = register_bundle(bundle, workspace, dry_run)
    package = _azureml(dry_run).Model.package(
        workspace,
        [model],
        inference,
        generate_dockerfile=folder is not None,
        image_name=card["id"],
        image_label=card["version"],
    )
    package.wait_for_creation(show_output=True)
    if folder is not None:
        package.save(str(user_path(folder)))
    return package
