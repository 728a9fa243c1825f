"""The web service in Azure as a managed online endpoint, by azure-ai-ml (SDK v2) and the YAML files beside this.

azure-ai-ml and the inference server need different versions of the same packages, so it gets its own environment:

    .venv/bin/python -m venv --upgrade-deps .venv-azure
    .venv-azure/bin/pip install -r code/03_deployment/azure/requirements.txt

    .venv-azure/bin/python code/03_deployment/azure/managed.py check  # the files; no account
    .venv-azure/bin/python code/03_deployment/azure/managed.py deploy blue
    .venv-azure/bin/python code/03_deployment/azure/managed.py traffic blue=90 green=10
    .venv-azure/bin/python code/03_deployment/azure/managed.py autoscale blue
    .venv-azure/bin/python code/03_deployment/azure/managed.py list
    .venv-azure/bin/python code/03_deployment/azure/managed.py logs blue
    export ISICVISION_KEY=$(.venv-azure/bin/python code/03_deployment/azure/managed.py key)
    .venv-azure/bin/python code/03_deployment/azure/managed.py renew-keys
    .venv-azure/bin/python code/03_deployment/azure/managed.py delete  # everything; `delete blue` only that

With --dry-run each prints the calls to Azure that it would make, and makes none; this also works in the project's own
environment. You log in by the variables AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or by `az login`.
"""

import argparse
import ast
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import yaml

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
from isicvision.files import sweep  # noqa: E402
from isicvision.service.rehearsal import Rehearsal  # noqa: E402

DEPLOYMENTS = ("blue", "green")
ENDPOINT = yaml.safe_load((HERE / "endpoint.yml").read_text())["name"]


def check(bundle):
    """Load the YAML files as azure-ai-ml does, and check what it does not check; ValueError names the first fault."""
    from azure.ai.ml import load_online_deployment, load_online_endpoint
    from azure.mgmt.monitor.models import AutoscaleSettingResource

    endpoint = load_online_endpoint(HERE / "endpoint.yml")
    _demand(endpoint.auth_mode == "key", "endpoint.yml: auth_mode must be key")
    for name in DEPLOYMENTS:
        file = f"deployment-{name}.yml"
        deployment = load_online_deployment(HERE / file, params_override=_instead(ENDPOINT, bundle))
        _demand(deployment.name == name, f"{file}: its name is {deployment.name}, not {name}")
        code = deployment.code_configuration
        script = HERE / code.code / code.scoring_script
        tree = ast.parse(script.read_bytes())
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        _demand(functions >= {"init", "run"}, f"{script} has no init() or no run()")
        requests = deployment.request_settings
        _demand(requests.request_timeout_ms <= 180_000, f"{file}: request_timeout_ms is at most 180000")
        workers = deployment.environment_variables["WORKER_COUNT"]
        _demand(
            workers == str(requests.max_concurrent_requests_per_instance),
            f"{file}: WORKER_COUNT is {workers}, not max_concurrent_requests_per_instance",
        )
        print(f"{file}: {deployment.instance_count} x {deployment.instance_type}, {workers} workers each")
    settings = _read_autoscale()
    understood = AutoscaleSettingResource.from_dict(settings).serialize()["properties"]
    _demand(understood == settings, f"autoscale.yml: Azure Monitor understands only {understood}")
    print("endpoint.yml, autoscale.yml: fine")


def connect(config, dry_run=False):
    """Return the objects that talk to the workspace in `config`; with `dry_run` stand-ins that print the calls."""
    if dry_run:
        names = ("workspace", "monitor", "load_online_endpoint", "load_online_deployment")
        return SimpleNamespace(**{name: Rehearsal(name) for name in names}, to_settings=dict)
    if not Path(config).is_file():
        raise SystemExit(
            f"{config} is missing: get it from Azure portal > your workspace > Download config.json"
        )
    from azure.ai.ml import MLClient, load_online_deployment, load_online_endpoint
    from azure.identity import DefaultAzureCredential
    from azure.mgmt.monitor import MonitorManagementClient
    from azure.mgmt.monitor.models import AutoscaleSettingResource

    credential = DefaultAzureCredential()
    workspace = MLClient.from_config(credential, path=config)
    return SimpleNamespace(
        workspace=workspace,
        monitor=MonitorManagementClient(credential, workspace.subscription_id),
        load_online_endpoint=load_online_endpoint,
        load_online_deployment=load_online_deployment,
        to_settings=AutoscaleSettingResource.from_dict,
    )


def deploy(azure, endpoint, name, bundle):
    """Create the endpoint if it does not exist, and create or replace its deployment `name`."""
    sweep(bundle or HERE / yaml.safe_load((HERE / f"deployment-{name}.yml").read_text())["model"]["path"])
    endpoints = azure.workspace.online_endpoints
    if endpoint not in [each.name for each in endpoints.list()]:
        entity = azure.load_online_endpoint(HERE / "endpoint.yml", params_override=[{"name": endpoint}])
        endpoints.begin_create_or_update(entity).result()
    entity = azure.load_online_deployment(
        HERE / f"deployment-{name}.yml", params_override=_instead(endpoint, bundle)
    )
    azure.workspace.online_deployments.begin_create_or_update(entity).result()


def traffic(azure, endpoint, shares):
    """Divide the requests among the deployments by `shares`, a dict of name to percentage."""
    endpoints = azure.workspace.online_endpoints
    entity = endpoints.get(endpoint)
    entity.traffic = shares
    endpoints.begin_create_or_update(entity).result()


def autoscale(azure, endpoint, name):
    """Let Azure Monitor choose the deployment's number of machines by the rules of autoscale.yml."""
    deployment = azure.workspace.online_deployments.get(name, endpoint)
    settings = _read_autoscale() | {
        "location": azure.workspace.online_endpoints.get(endpoint).location,
        "targetResourceUri": deployment.id,
    }
    for rule in settings["profiles"][0]["rules"]:
        rule["metricTrigger"]["metricResourceUri"] = deployment.id
    azure.monitor.autoscale_settings.create_or_update(
        azure.workspace.resource_group_name, f"{endpoint}-{name}", azure.to_settings(settings)
    )


def list_endpoints(azure):
    """Print the workspace's endpoints with their address and traffic."""
    for each in azure.workspace.online_endpoints.list():
        print(each.name, each.scoring_uri, each.traffic)


def logs(azure, endpoint, name, lines=200):
    """Print the end of a deployment's log."""
    print(azure.workspace.online_deployments.get_logs(name, endpoint, lines))


def key(azure, endpoint):
    """Print the endpoint's first key to another program, never to a terminal."""
    if sys.stdout.isatty() and not isinstance(azure.workspace, Rehearsal):
        raise SystemExit(
            "The key is not shown. Put it where programs find it: export ISICVISION_KEY=$(... key)"
        )
    print(azure.workspace.online_endpoints.get_keys(endpoint).primary_key)


def renew_keys(azure, endpoint):
    """Replace both keys of the endpoint."""
    for kind in ("primary", "secondary"):
        azure.workspace.online_endpoints.begin_regenerate_keys(endpoint, key_type=kind).result()


def delete(azure, endpoint, name=None):
    """Delete one deployment, or the endpoint with all of them, and their autoscale rules."""
    for each in [name] if name else DEPLOYMENTS:
        azure.monitor.autoscale_settings.delete(azure.workspace.resource_group_name, f"{endpoint}-{each}")
    if name:
        azure.workspace.online_deployments.begin_delete(name, endpoint).result()
    else:
        azure.workspace.online_endpoints.begin_delete(endpoint).result()


def _instead(endpoint, bundle):
    """Return the overrides of the files' endpoint and bundle, as azure-ai-ml takes them."""
    changes = [{"endpoint_name": endpoint}]
    if bundle:
        bundle = os.path.relpath(bundle, HERE)  # as seen from the files
        changes += [
            {"model.path": bundle},
            {"code_configuration.code": bundle},
            {"environment.conda_file": f"{bundle}/conda.yml"},
        ]
    return changes


def _read_autoscale():
    return yaml.safe_load((HERE / "autoscale.yml").read_text())


def _demand(true, otherwise):
    if not true:
        raise ValueError(otherwise)


def _share(text):
    """Read blue=90 as ("blue", 90)."""
    name, _, percent = text.partition("=")
    if name not in DEPLOYMENTS or not percent.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not like blue=90")
    return name, int(percent)


def main():
    """Run one command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--endpoint", default=ENDPOINT, help="its name, free in the whole region")
    parser.add_argument("--bundle", help="folder made by build_bundle; default: the files', outputs/bundle")
    parser.add_argument("--config", default=".azureml/config.json", help="the workspace's config.json")
    parser.add_argument("--dry-run", action="store_true", help="print the calls, make none")
    commands = parser.add_subparsers(dest="command", required=True)
    for command in ("check", "list", "key", "renew-keys"):
        commands.add_parser(command)
    for command in ("deploy", "autoscale", "logs", "delete"):
        optional = {"nargs": "?"} if command == "delete" else {}
        commands.add_parser(command).add_argument("deployment", choices=DEPLOYMENTS, **optional)
    commands.add_parser("traffic").add_argument("shares", nargs="+", type=_share, metavar="NAME=PERCENT")
    given = parser.parse_args()

    if given.command == "traffic" and sum(percent for _, percent in given.shares) != 100:
        parser.error("the shares must sum to 100")
    try:
        azure = None if given.command == "check" else connect(given.config, given.dry_run)
        {
            "check": lambda: check(given.bundle),
            "deploy": lambda: deploy(azure, given.endpoint, given.deployment, given.bundle),
            "traffic": lambda: traffic(azure, given.endpoint, dict(given.shares)),
            "autoscale": lambda: autoscale(azure, given.endpoint, given.deployment),
            "list": lambda: list_endpoints(azure),
            "logs": lambda: logs(azure, given.endpoint, given.deployment),
            "key": lambda: key(azure, given.endpoint),
            "renew-keys": lambda: renew_keys(azure, given.endpoint),
            "delete": lambda: delete(azure, given.endpoint, given.deployment),
        }[given.command]()
    except ImportError as error:
        parser.error(f"{error}. The first lines of --help say how to install it")


if __name__ == "__main__":
    main()
