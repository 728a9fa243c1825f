"""The web service in Azure, by azureml-core (SDK v1)."""

from pathlib import Path

from .bundle import read_card


def azure_plan(bundle):
    """Build what describes a service in Azure, as objects of azureml-core; needs no account and no network.

    Returns
    -------
    tuple of (Environment, InferenceConfig, AciServiceDeploymentConfiguration)
        The last is a container instance with one core and 2 GB that asks for a key.
    """
    try:
        from azureml.core import Environment
        from azureml.core.model import InferenceConfig
        from azureml.core.webservice import AciWebservice
    except ImportError as error:
        raise ImportError('azureml-core is not installed: pip install -e ".[azure]"') from error
    read_card(bundle)
    environment = Environment.from_conda_specification("isicvision-service", str(Path(bundle, "conda.yml")))
    environment.python.conda_dependencies.add_pip_package(
        "azureml-defaults"
    )  # asked for by Azure's own hosts
    inference = InferenceConfig("score.py", source_directory=str(bundle), environment=environment)
    container = AciWebservice.deploy_configuration(cpu_cores=1, memory_gb=2, auth_enabled=True)
    return environment, inference, container


def deploy_azure(bundle, workspace, name, overwrite=False):
    """Register the bundle's model in an `azureml.core.Workspace` and run it there as a container instance.

    `name` is the service's: 3 to 32 letters, digits and dashes; `overwrite` replaces a service of that name.
    Returns the running `AciWebservice`, which costs money until its ``delete()``; talk to it with
    ``ServiceClient(service.scoring_uri, key=service.get_keys()[0])``.
    """
    _, inference, container = azure_plan(bundle)
    from azureml.core.model import Model

    card = read_card(bundle)
    model = Model.register(workspace, str(bundle), card["id"], tags={"version": card["version"]})
    service = Model.deploy(workspace, name, [model], inference, container, overwrite=overwrite)
    service.wait_for_deployment(show_output=True)
    return service
