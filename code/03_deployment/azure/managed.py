"""The web service in Azure as a managed online endpoint, by azure-ai-ml (SDK v2) and the YAML files beside this.

azure-ai-ml and the inference server need different versions of the same packages, so it gets its own environment:

    .venv/bin/python -m venv --upgrade-deps .venv-azure
    .venv-azure/bin/pip install -r code/03_deployment/azure/requirements.txt

    .venv-azure/bin/python code/03_deployment/azure/managed.py check  # the files; no account
    .venv-azure/bin/python code/03_deployment/azure/managed.py deploy blue
    .venv-azure/bin/python code/03_deployment/azure/managed.py traffic blue=90 green=10
    .venv-azure/bin/python code/03_deployment/azure/managed.py fetch isicvision 3  # registered: name and version
    .venv-azure/bin/python code/03_deployment/azure/managed.py release  # deploys, tries, moves the traffic
    .venv-azure/bin/python code/03_deployment/azure/managed.py autoscale blue
    .venv-azure/bin/python code/03_deployment/azure/managed.py list
    .venv-azure/bin/python code/03_deployment/azure/managed.py logs blue
    export ISICVISION_KEY=$(.venv-azure/bin/python code/03_deployment/azure/managed.py key)
    .venv-azure/bin/python code/03_deployment/azure/managed.py renew-keys
    .venv-azure/bin/python code/03_deployment/azure/managed.py delete  # everything; `delete blue` only that

With --dry-run, before or after the command, each prints the calls to Azure that it would make, and makes none; this
also works in the project's own environment. You log in by the variables AZURE_TENANT_ID, AZURE_CLIENT_ID and
AZURE_CLIENT_SECRET, or by `az login`.
"""

import argparse
import ast
import base64
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import yaml

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
import endpoint_state as state  # noqa: E402
from own_answers import own_answers, require_same_answer  # noqa: E402
from rehearsal import Rehearsal  # noqa: E402

from azure_workspace import explain, explained, open_workspace  # noqa: E402
from isicvision.files import PROJECT_ROOT, replacing_folder, sweep, user_path  # noqa: E402

DEPLOYMENTS = ("blue", "green")
ENDPOINT = yaml.safe_load((HERE / "endpoint.yml").read_text())["name"]
DEFAULTS = {"endpoint": ENDPOINT, "bundle": None, "config": ".azureml/config.json", "dry_run": False}
COMMANDS = {
    "check": "check the YAML files, with the bundle that they deploy; needs no account",
    "deploy": "make the endpoint if there is none, and deploy the bundle as blue or green; costs by the hour",
    "traffic": "divide the requests among the deployments",
    "fetch": "download the bundle of a registered model into the folder of --bundle",
    "release": "deploy, compare, move the traffic; go back if anything fails",
    "autoscale": "let the load decide on a deployment's number of machines, by autoscale.yml",
    "list": "list the workspace's endpoints: name, address, traffic, state",
    "logs": "print the end of a deployment's log",
    "key": "print the endpoint's key to another program, never to a screen",
    "renew-keys": "replace both keys of the endpoint",
    "delete": "delete one deployment, or without a name the endpoint with all of them",
}


def run(command, endpoint, bundle, dry_run=False):
    """Run a command, such as ``"deploy blue"``, in the environment .venv-azure, and return what it prints.

    A dry run runs in this environment. RuntimeError holds what a failed command prints.

    >>> print(run("traffic blue=100", "lesions", "outputs/bundle", dry_run=True))
    workspace.online_endpoints.get('lesions')
    ...
    """
    python = sys.executable if dry_run else python_of(".venv-azure")
    options = ["--endpoint", endpoint, "--bundle", str(user_path(bundle)), *["--dry-run"] * dry_run]
    arguments = [str(python), str(HERE / "managed.py"), *options, *shlex.split(command)]
    done = subprocess.run(arguments, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"managed.py {command} failed:\n{done.stderr}")
    return done.stdout


def client(endpoint, bundle):
    """Return a `ServiceClient` of an endpoint with its key, which it never shows."""
    from isicvision import ServiceClient

    addresses = dict(line.split()[:2] for line in run("list", endpoint, bundle).splitlines())
    return ServiceClient(addresses[endpoint], key=run("key", endpoint, bundle))


def check(bundle):
    """Load the YAML files as azure-ai-ml does, and check what it does not check; SystemExit names the first fault."""
    from azure.ai.ml import load_online_deployment, load_online_endpoint
    from azure.mgmt.monitor.models import AutoscaleSettingResource

    endpoint = _load(load_online_endpoint, "endpoint.yml")
    _demand(endpoint.auth_mode == "key", "endpoint.yml: auth_mode must be key")
    for name in DEPLOYMENTS:
        file = f"deployment-{name}.yml"
        _require_bundle(file, bundle)
        deployment = _load(load_online_deployment, file, _instead(ENDPOINT, bundle))
        _demand(deployment.name == name, f"{file}: its name is {deployment.name}, not {name}")
        code = deployment.code_configuration
        script = HERE / code.code / code.scoring_script
        _demand(script.is_file(), f"{file}: {script} is missing")
        tree = ast.parse(script.read_bytes())
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        _demand(functions >= {"init", "run"}, f"{script} has no init() or no run()")
        requests = deployment.request_settings
        _demand(requests.request_timeout_ms <= 180_000, f"{file}: request_timeout_ms is at most 180000")
        workers = deployment.environment_variables.get("WORKER_COUNT")
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
    workspace = open_workspace(config)
    from azure.ai.ml import load_online_deployment, load_online_endpoint
    from azure.identity import DefaultAzureCredential
    from azure.mgmt.monitor import MonitorManagementClient
    from azure.mgmt.monitor.models import AutoscaleSettingResource

    return SimpleNamespace(
        workspace=workspace,
        monitor=MonitorManagementClient(DefaultAzureCredential(), workspace.subscription_id),
        load_online_endpoint=load_online_endpoint,
        load_online_deployment=load_online_deployment,
        to_settings=AutoscaleSettingResource.from_dict,
    )


def deploy(azure, endpoint, name, bundle):
    """Check bundle and file, create the endpoint if it does not exist, create or replace its deployment `name`."""
    file = f"deployment-{name}.yml"
    sweep(_require_bundle(file, bundle))
    deployment = _load(azure.load_online_deployment, file, _instead(endpoint, bundle))
    if found := state.find(azure, endpoint):
        state.require_ready(found)
    else:
        entity = _load(azure.load_online_endpoint, "endpoint.yml", [{"name": endpoint}])
        azure.workspace.online_endpoints.begin_create_or_update(entity).result()
    azure.workspace.online_deployments.begin_create_or_update(deployment).result()


def traffic(azure, endpoint, shares):
    """Divide the requests among the deployments by `shares`, a dict of name to percentage."""
    endpoints = azure.workspace.online_endpoints
    entity = endpoints.get(endpoint)
    entity.traffic = shares
    endpoints.begin_create_or_update(entity).result()


def fetch(azure, name, version, bundle):
    """Download the bundle of a registered model, also one inside an MLflow model, as the folder `bundle`."""
    if bundle.exists() and not (bundle / "model.json").is_file():
        raise SystemExit(f"{bundle} is there and is not a bundle: choose another folder by --bundle")
    if _is_dry(azure):
        azure.workspace.models.download(name, version, download_path="a temporary folder")
        return
    with tempfile.TemporaryDirectory() as folder:
        azure.workspace.models.download(name, version, download_path=folder)
        found = [
            path.parent for path in Path(folder).rglob("score.py") if (path.parent / "model.json").is_file()
        ]
        if len(found) != 1:
            raise SystemExit(
                f"The model {name}:{version} holds {len(found)} bundles, not one: nothing was changed"
            )
        with replacing_folder(bundle) as new:
            shutil.copytree(found[0], new, dirs_exist_ok=True)


def release(azure, endpoint, bundle, images, python):
    """Deploy to the color without traffic, compare its answers with the bundle's own, and give it all traffic.

    If anything fails, or Ctrl-C or SIGTERM ends it, SystemExit tells the reason; the traffic is then as it was, and
    the new deployment is deleted. `python` has the bundle's requirements; it scores images of the folder `images`.
    """
    own = own_answers(_require_bundle("deployment-blue.yml", bundle), images, python)
    found = state.find(azure, endpoint)
    if found:
        state.require_ready(found)
    before = state.shares(found)
    if len(before) > 1:
        raise SystemExit(
            f"{' and '.join(before)} both get requests: give all to one, `managed.py traffic blue=100`"
        )
    name = next(each for each in DEPLOYMENTS if each not in before)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a canceled workflow, as Ctrl-C
    try:
        deploy(azure, endpoint, name, bundle)
        _compare(azure, endpoint, own, name)
        traffic(azure, endpoint, {name: 100})
        _compare(azure, endpoint, own)
    except BaseException as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # GitHub sends it some seconds after Ctrl-C
        print(f"Going back, because {name} was not released ...", file=sys.stderr)  # Azure may need minutes
        outcome = f"the traffic is as before ({before or 'none'}), and {name} is deleted"
        try:
            _go_back(azure, endpoint, name, before)
        except BaseException as another:
            outcome = f"going back failed, too: look at `managed.py list` ({_reason(another)})"
        raise SystemExit(f"{name} was not released, {outcome}. The reason: {_reason(error)}") from error
    if _is_dry(azure):
        print(f"{name} (green if blue has traffic) would get all requests if it answered as the bundle does")
    else:
        print(f"{name} answers as the bundle does and gets all requests. Before: {before or 'none'}")


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
    """Print the workspace's endpoints with their address, traffic and state."""
    for each in azure.workspace.online_endpoints.list():
        print(each.name, each.scoring_uri, each.traffic, each.provisioning_state)


def logs(azure, endpoint, name, lines=200):
    """Print the end of a deployment's log."""
    print(azure.workspace.online_deployments.get_logs(name, endpoint, lines))


def key(azure, endpoint):
    """Print the endpoint's first key to another program, never to a terminal."""
    if sys.stdout.isatty() and not _is_dry(azure):
        raise SystemExit("The key is not shown. Give it to programs: export ISICVISION_KEY=$(... key)")
    print(azure.workspace.online_endpoints.get_keys(endpoint).primary_key)


def renew_keys(azure, endpoint):
    """Replace both keys of the endpoint."""
    for kind in ("primary", "secondary"):
        azure.workspace.online_endpoints.begin_regenerate_keys(endpoint, key_type=kind).result()


def delete(azure, endpoint, name=None):
    """Delete one deployment, or the endpoint with all of them, and their autoscale rules."""
    if name:
        azure.workspace.online_deployments.begin_delete(name, endpoint).result()
    else:
        azure.workspace.online_endpoints.begin_delete(endpoint).result()
    # last, so that a deployment that Azure does not delete keeps its rule
    for each in [name] if name else DEPLOYMENTS:
        azure.monitor.autoscale_settings.delete(azure.workspace.resource_group_name, f"{endpoint}-{each}")


def _compare(azure, endpoint, own, deployment=None):
    """Send images to a deployment, or where the traffic goes; ValueError if it does not answer as the bundle does."""
    version, images, expected = own
    with tempfile.TemporaryDirectory() as folder:
        request = Path(folder, "request.json")
        body = json.dumps({"images": [base64.b64encode(each).decode() for each in images]})
        request.write_text(body, encoding="utf-8")
        sent = request.name if _is_dry(azure) else str(request)
        answer = azure.workspace.online_endpoints.invoke(
            endpoint, deployment_name=deployment, request_file=sent
        )
    if _is_dry(azure):
        return
    require_same_answer(answer, version, expected)


def _go_back(azure, endpoint, name, before):
    """Give the traffic to those that had it, and delete a deployment after its log; its autoscale rules may stay."""
    found = state.settled(lambda: state.find(azure, endpoint))
    if found and state.shares(found) != before:
        traffic(azure, endpoint, before)
    if found and state.settled(lambda: state.find_deployment(azure, endpoint, name)):
        with suppress(Exception):  # there may be no log
            logs(azure, endpoint, name)
        azure.workspace.online_deployments.begin_delete(name, endpoint).result()


def _reason(error):
    if isinstance(error, KeyboardInterrupt):
        return "it was interrupted"
    return explain(error) or (str(error) if isinstance(error, ValueError | SystemExit) else repr(error))


def python_of(environment):
    """Return the Python of an environment in the repository, such as ``".venv-azure"``: pathlib.Path."""
    return PROJECT_ROOT / environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


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


def _load(load, file, changes=None):
    """Load a YAML file by a function of azure-ai-ml; SystemExit says what its schema refuses."""
    try:
        return load(HERE / file, params_override=changes)
    except Exception as error:
        refused = getattr(error.__context__, "messages", None)  # those of marshmallow
        if not isinstance(refused, dict):
            raise
        said = "; ".join(f"{name}: {' '.join(map(str, texts))}" for name, texts in refused.items())
        raise SystemExit(f"{file}: azure-ai-ml refuses {said[:400]}") from error


def _require_bundle(file, bundle):
    """Return `bundle`, or if it is None the one that a deployment's file names; SystemExit if it is not there."""
    bundle = Path(bundle or (HERE / yaml.safe_load((HERE / file).read_text())["model"]["path"]).resolve())
    _demand((bundle / "model.json").is_file(), f"{bundle} is not a bundle: `make run` makes outputs/bundle")
    return bundle


def _is_dry(azure):
    return isinstance(azure.workspace, Rehearsal)


def _read_autoscale():
    return yaml.safe_load((HERE / "autoscale.yml").read_text())


def _demand(true, otherwise):
    if not true:
        raise SystemExit(otherwise)


def _share(text):
    """Read blue=90 as ("blue", 90)."""
    name, _, percent = text.partition("=")
    if name not in DEPLOYMENTS or not percent.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not like blue=90")
    return name, int(percent)


def _parser():
    """Return the parser of the command line; what all commands take may stand before or after the command."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--endpoint", help=f"its name, free in the whole region; default: {ENDPOINT}")
    common.add_argument("--bundle", help="folder made by build_bundle; default: the files', outputs/bundle")
    common.add_argument("--config", help=f"the workspace's config.json; default: {DEFAULTS['config']}")
    common.add_argument("--dry-run", action="store_true", help="print the calls to Azure, make none")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, parents=[common]
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    own = {
        name: commands.add_parser(name, help=text, description=text, parents=[common])
        for name, text in COMMANDS.items()
    }
    for name in ("deploy", "autoscale", "logs", "delete"):
        optional = {"nargs": "?"} if name == "delete" else {}
        own[name].add_argument("deployment", choices=DEPLOYMENTS, help="which deployment", **optional)
    own["traffic"].add_argument(
        "shares", nargs="+", type=_share, metavar="NAME=PERCENT", help="such as blue=90 green=10; sum 100"
    )
    own["fetch"].add_argument("name", help="name of the registered model, such as isicvision")
    own["fetch"].add_argument("version", help="its version, such as 3")
    images, python = PROJECT_ROOT / "sample_data" / "images", python_of(".venv")
    own["release"].add_argument(
        "--images", default=images, help="folder of images to compare by; default: those of the sample"
    )
    own["release"].add_argument(
        "--python", default=python, help="a Python with the bundle's requirements.txt; default: that of .venv"
    )
    return parser


def main():
    """Run one command."""
    parser = _parser()
    given = parser.parse_args(namespace=argparse.Namespace(**DEFAULTS))
    if given.command == "traffic" and sum(dict(given.shares).values()) != 100:
        parser.error("the shares must sum to 100, each deployment once")
    if given.command in ("fetch", "release"):
        given.bundle = given.bundle or PROJECT_ROOT / "outputs" / "bundle"
    try:
        with explained():
            _dispatch(given)
    except ImportError as error:
        parser.error(f"{error}. The first lines of --help say how to install it")


def _dispatch(given):
    azure = None if given.command == "check" else connect(given.config, given.dry_run)
    {
        "check": lambda: check(given.bundle),
        "deploy": lambda: deploy(azure, given.endpoint, given.deployment, given.bundle),
        "traffic": lambda: traffic(azure, given.endpoint, dict(given.shares)),
        "fetch": lambda: fetch(azure, given.name, given.version, Path(given.bundle).resolve()),
        "release": lambda: release(azure, given.endpoint, given.bundle, given.images, given.python),
        "autoscale": lambda: autoscale(azure, given.endpoint, given.deployment),
        "list": lambda: list_endpoints(azure),
        "logs": lambda: logs(azure, given.endpoint, given.deployment),
        "key": lambda: key(azure, given.endpoint),
        "renew-keys": lambda: renew_keys(azure, given.endpoint),
        "delete": lambda: delete(azure, given.endpoint, given.deployment),
    }[given.command]()


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a log may have letters that a file on Windows does not know
    main()
