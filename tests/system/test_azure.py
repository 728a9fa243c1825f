"""Azure, as far as it needs no account: the real libraries' objects and signatures, with nothing behind them."""

import importlib
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import pytest
import yaml
from test_deployment import StandIn, image

from isicvision import PROJECT_ROOT, ImageDataset, build_bundle, deploy_local
from isicvision.service import bundle as bundled

pytest.importorskip("azureml.core")
from azureml.core import Environment, Workspace
from azureml.core.compute import AksCompute
from azureml.core.model import Model, ModelPackage
from azureml.core.webservice import AciWebservice, Webservice
from azureml.exceptions import UserErrorException, WebserviceException

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # azureml's own YAML

FILES = PROJECT_ROOT / "code" / "03_deployment" / "azure"
sys.path.insert(0, str(FILES))
import managed as managed_script  # noqa: E402
import sdk_v1  # noqa: E402

CONFIG = {"subscription_id": "s", "resource_group": "g", "workspace_name": "w"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return build_bundle(StandIn(), tmp_path_factory.mktemp("azure") / "bundle")


@pytest.fixture
def workspace():
    return mock.create_autospec(Workspace, instance=True)


@contextmanager
def answering(*names):
    """Let azureml-core's calls to Azure answer as if there were services of these names; give the classes."""
    services = {name: mock.create_autospec(AciWebservice, instance=True) for name in names}
    for name, service in services.items():
        service.configure_mock(name=name, scoring_uri=f"http://{name}/score")
        service.get_keys.return_value = ["the-primary-key", "the-secondary-key"]

    def find(workspace, name):
        if name not in services:
            raise WebserviceException("WebserviceNotFound")  # as the real one does
        return services[name]

    with (
        mock.patch("azureml.core.model.Model", mock.create_autospec(Model)) as model,
        mock.patch("azureml.core.webservice.Webservice", mock.create_autospec(Webservice)) as webservice,
        mock.patch("azureml.core.compute.AksCompute", mock.create_autospec(AksCompute)) as cluster,
        mock.patch.object(Environment, "register", autospec=True) as register,
    ):
        webservice.side_effect = find
        model.package.return_value = mock.create_autospec(ModelPackage, instance=True)
        yield mock.Mock(
            Model=model, Webservice=webservice, AksCompute=cluster, register=register, services=services
        )


# azureml-core (v1)


def test_plan(bundle):
    environment, inference, container = sdk_v1.azure_plan(bundle)
    conda = environment.python.conda_dependencies
    assert "python=3.11" in list(conda.conda_packages)
    assert {*(bundle / "requirements.txt").read_text(encoding="utf-8").split(), "azureml-defaults"} == set(
        conda.pip_packages
    )
    inference.validate_configuration()
    container.validate_configuration()
    assert (container.cpu_cores, container.memory_gb, container.auth_enabled) == (1, 2, True)

    _, _, replicas = sdk_v1.azure_plan(bundle, cluster="aks")
    replicas.validate_configuration()
    assert type(replicas).__name__ == "AksServiceDeploymentConfiguration"
    assert (replicas.cpu_cores, replicas.memory_gb, replicas.auth_enabled) == (1, 2, True)
    assert (replicas.autoscale_min_replicas, replicas.autoscale_max_replicas) == (1, 3)
    assert not replicas.token_auth_enabled


def test_deploy(bundle, workspace):
    with answering() as azureml:
        service = sdk_v1.deploy_azure(bundle, workspace, "lesions", overwrite=True)
    card = json.loads((bundle / "model.json").read_text(encoding="utf-8"))
    azureml.Model.register.assert_called_once_with(
        workspace,
        str(bundle),
        "isicvision-stand-in",
        tags={"version": card["version"]},
        description=card["caveat"],
    )
    assert azureml.register.call_args.args[0].name == "isicvision-service"
    call = azureml.Model.deploy.call_args
    assert call.args[:3] == (workspace, "lesions", [azureml.Model.register.return_value])
    assert call.args[3].source_directory == str(bundle)
    assert type(call.args[4]).__name__ == "AciServiceDeploymentConfiguration"
    assert call.kwargs == {"deployment_target": None, "overwrite": True}
    service.wait_for_deployment.assert_called_once_with(show_output=True)
    azureml.AksCompute.assert_not_called()


def test_deploy_to_a_cluster(bundle, workspace):
    with answering() as azureml:
        sdk_v1.deploy_azure(bundle, workspace, "lesions", cluster="aks")
    azureml.AksCompute.assert_called_once_with(workspace, "aks")
    call = azureml.Model.deploy.call_args
    assert type(call.args[4]).__name__ == "AksServiceDeploymentConfiguration"
    assert call.kwargs == {"deployment_target": azureml.AksCompute.return_value, "overwrite": False}


@pytest.mark.parametrize("name", ["Lesions", "le", "1esions", "lesions-", "le sions", "l" * 33])
def test_a_bad_name_is_refused_before_the_upload(bundle, workspace, name):
    with answering() as azureml, pytest.raises(ValueError, match=f"'{name}' cannot be a service's name"):
        sdk_v1.deploy_azure(bundle, workspace, name)
    azureml.Model.register.assert_not_called()


def test_update(bundle, workspace):
    with answering("lesions") as azureml:
        service = sdk_v1.update_service(bundle, workspace, "lesions")
    assert service is azureml.services["lesions"]
    call = service.update.call_args
    assert call.kwargs["models"] == [azureml.Model.register.return_value]
    assert call.kwargs["inference_config"].entry_script == "score.py"
    service.wait_for_deployment.assert_called_once_with(show_output=True)


def test_keys_are_used_and_not_shown(workspace, capfd, caplog):
    with answering("lesions"):
        client = sdk_v1.azure_client(workspace, "lesions")
    assert client.scoring_uri == "http://lesions/score"
    request = mock.Mock(headers={})
    assert client._session.auth(request).headers == {"Authorization": "Bearer the-primary-key"}
    assert "the-primary-key" not in "".join(
        [repr(client), str(vars(client)), *capfd.readouterr(), caplog.text]
    )


def test_build_image(bundle, workspace, tmp_path):
    version = json.loads((bundle / "model.json").read_text(encoding="utf-8"))["version"]
    with answering() as azureml:
        package = sdk_v1.build_image(bundle, workspace)
        assert azureml.Model.package.call_args.kwargs == {
            "generate_dockerfile": False,
            "image_name": "isicvision-stand-in",
            "image_label": version,
        }
        package.wait_for_creation.assert_called_once_with(show_output=True)
        package.save.assert_not_called()
        sdk_v1.build_image(bundle, workspace, tmp_path)
    assert azureml.Model.package.call_args.kwargs["generate_dockerfile"] is True
    package.save.assert_called_once_with(str(tmp_path))


def test_a_dry_run_prints_the_calls_and_makes_none(bundle, capsys):
    dry = {"dry_run": True}
    with answering("lesions") as azureml:
        sdk_v1.deploy_azure(bundle, None, "lesions", **dry)
        plan = capsys.readouterr().out
        sdk_v1.deploy_azure(bundle, None, "lesions", cluster="aks", **dry)
        replicas = capsys.readouterr().out
        sdk_v1.update_service(bundle, None, "lesions", **dry)
        sdk_v1.build_image(bundle, None, "folder", **dry)
        rest = capsys.readouterr().out
    for each in (azureml.Model, azureml.Webservice, azureml.AksCompute, azureml.register):
        assert each.mock_calls == []

    assert [line.partition("(")[0] for line in plan.splitlines()] == [
        *("Environment", "Model.register", "Model.deploy", "Model.deploy")
    ]
    assert "Environment('isicvision-service').register(workspace)" in plan
    assert "AciServiceDeploymentConfiguration(cpu_cores=1, memory_gb=2, auth_enabled=True)" in plan
    assert replicas.startswith("AksCompute(workspace, 'aks')\n") and "autoscale_max_replicas=3" in replicas
    for call in (
        "Webservice(…).update(models=[Model.register(…)], inference_config=InferenceConfig(",
        "generate_dockerfile=True, image_name='isicvision-stand-in'",
        "Model.package(…).save('folder')",
    ):
        assert call in rest


def test_open_workspace(tmp_path, monkeypatch):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG), encoding="utf-8")
    login = dict.fromkeys(sdk_v1._LOGIN, "a-secret")
    with (
        mock.patch.object(Workspace, "from_config", autospec=True) as from_config,
        mock.patch("azureml.core.authentication.ServicePrincipalAuthentication", autospec=True) as principal,
    ):
        for name in login:
            monkeypatch.delenv(name, raising=False)
        sdk_v1.open_workspace(config)
        with mock.patch.dict("os.environ", {"AZURE_TENANT_ID": "of something else"}):
            sdk_v1.open_workspace(config)
        assert from_config.call_args_list == [mock.call(str(config), auth=None)] * 2
        with mock.patch.dict("os.environ", login):
            workspace = sdk_v1.open_workspace(config)
    principal.assert_called_once_with("a-secret", "a-secret", "a-secret")
    assert from_config.call_args.kwargs == {"auth": principal.return_value}
    assert workspace is from_config.return_value


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (None, FileNotFoundError, r"config\.json is missing: get it from Azure portal"),
        ("{'a': 1}", ValueError, r"config\.json is damaged, not JSON"),
        ("3", ValueError, "holds no JSON object"),
        ('["subscription_id"]', ValueError, "holds no JSON object"),
        ("{}", UserErrorException, "does not seem to contain the required parameters"),
    ],
)
def test_open_workspace_says_what_is_wrong_with_the_file(tmp_path, content, error, words):
    config = tmp_path / "config.json"
    if content is not None:
        config.write_text(content, encoding="utf-8")
    with pytest.raises(error, match=words):
        sdk_v1.open_workspace(config)


def test_azure_says_what_is_missing(bundle, workspace, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG), encoding="utf-8")
    with mock.patch.dict(sys.modules, {"azureml.core": None}):
        for call in (
            lambda: sdk_v1.azure_plan(bundle),
            lambda: sdk_v1.azure_client(workspace, "lesions"),
            lambda: sdk_v1.open_workspace(config),
        ):
            with pytest.raises(ImportError, match=r'pip install -e "\.\[azure\]"'):
                call()
    with pytest.raises(FileNotFoundError, match="build_bundle"):
        sdk_v1.azure_plan(tmp_path)


# the bundle as a container


def test_the_dockerfile_is_sound(bundle):
    hadolint = shutil.which("hadolint", path=os.path.dirname(sys.executable))
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    command = [hadolint, "--no-color", "--failure-threshold", "warning", bundle / "Dockerfile"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# azure-ai-ml (v2), which needs an environment of its own


def managed(*arguments, python=sys.executable, **options):
    """Run managed.py; return its status and all it prints."""
    options = {"capture_output": True, "text": True, "timeout": 100} | options
    done = subprocess.run([python, FILES / "managed.py", *arguments], **options)
    return done.returncode, (done.stdout or "") + (done.stderr or "")


@pytest.fixture(scope="module")
def own_python(azure_python):
    return azure_python


# the calls that need an account: the operations of the real library, with nothing behind them
CALLS = """
import sys
from types import SimpleNamespace
from unittest.mock import create_autospec

from azure.ai.ml import load_online_deployment, load_online_endpoint
from azure.ai.ml.entities import ManagedOnlineDeployment, ManagedOnlineEndpoint
from azure.ai.ml.operations import OnlineDeploymentOperations, OnlineEndpointOperations
from azure.mgmt.monitor.models import AutoscaleSettingResource
from azure.mgmt.monitor.operations import AutoscaleSettingsOperations

sys.path.insert(0, sys.argv[1])
import managed

endpoints = create_autospec(OnlineEndpointOperations, instance=True)
deployments = create_autospec(OnlineDeploymentOperations, instance=True)
rules = create_autospec(AutoscaleSettingsOperations, instance=True)
azure = SimpleNamespace(
    workspace=SimpleNamespace(
        online_endpoints=endpoints, online_deployments=deployments, resource_group_name="group"
    ),
    monitor=SimpleNamespace(autoscale_settings=rules),
    load_online_endpoint=load_online_endpoint,
    load_online_deployment=load_online_deployment,
    to_settings=AutoscaleSettingResource.from_dict,
)
endpoints.list.return_value = []
managed.deploy(azure, "lesions", "blue", sys.argv[2])
created = endpoints.begin_create_or_update.call_args.args[0]
assert (type(created), created.name, created.auth_mode) == (ManagedOnlineEndpoint, "lesions", "key")
deployed = deployments.begin_create_or_update.call_args.args[0]
assert (type(deployed), deployed.name, deployed.endpoint_name) == (ManagedOnlineDeployment, "blue", "lesions")
assert str(deployed.model.path) == sys.argv[2]

endpoints.list.return_value = [created]  # a second deployment leaves the endpoint and its traffic alone
managed.deploy(azure, "lesions", "green", sys.argv[2])
assert endpoints.begin_create_or_update.call_count == 1
assert deployments.begin_create_or_update.call_args.args[0].name == "green"

endpoints.get.return_value = created
managed.traffic(azure, "lesions", {"blue": 90, "green": 10})
assert endpoints.begin_create_or_update.call_args.args[0].traffic == {"blue": 90, "green": 10}

created.location = "westeurope"
deployed._id = "/subscriptions/s/blue"
deployments.get.return_value = deployed
managed.autoscale(azure, "lesions", "blue")
group, name, settings = rules.create_or_update.call_args.args
settings = settings.serialize()
assert (group, name, settings["location"]) == ("group", "lesions-blue", "westeurope")
properties = settings["properties"]
assert properties["targetResourceUri"] == "/subscriptions/s/blue"
triggers = [rule["metricTrigger"] for rule in properties["profiles"][0]["rules"]]
assert {trigger["metricResourceUri"] for trigger in triggers} == {"/subscriptions/s/blue"}

deployments.get_logs.return_value = "the end of the log"
managed.logs(azure, "lesions", "blue")
managed.list_endpoints(azure)
endpoints.get_keys.return_value = SimpleNamespace(primary_key="the-key")
managed.key(azure, "lesions")
managed.renew_keys(azure, "lesions")
assert [call.kwargs["key_type"] for call in endpoints.begin_regenerate_keys.call_args_list] == [
    *("primary", "secondary")
]
managed.delete(azure, "lesions", "green")
deployments.begin_delete.assert_called_once_with("green", "lesions")
rules.delete.assert_called_once_with("group", "lesions-green")
endpoints.begin_delete.assert_not_called()
managed.delete(azure, "lesions")
endpoints.begin_delete.assert_called_once_with("lesions")
"""


@pytest.mark.xdist_group("azure-ai-ml")  # the environment is made once
def test_the_yaml_files_are_valid(own_python, bundle):
    status, said = managed("--bundle", bundle, "check", python=own_python)
    assert status == 0, said
    assert said.splitlines()[-3:] == [
        "deployment-blue.yml: 1 x Standard_DS3_v2, 2 workers each",
        "deployment-green.yml: 1 x Standard_DS3_v2, 2 workers each",
        "endpoint.yml, autoscale.yml: fine",
    ]
    status, said = managed("--bundle", bundle / "absent", "check", python=own_python)
    assert status == 1 and said.count("\n") == 1 and "absent is not a bundle: `make run`" in said


# the file, what is in it, what takes its place, what check says then
FAULTS = [
    ("endpoint.yml", "auth_mode: key", "auth_mode: aml_token", "auth_mode must be key"),
    ("endpoint.yml", "auth_mode: key", "auth: key", "Unknown field"),
    ("endpoint.yml", "name: isicvision", "name: 1-x", "name"),
    ("deployment-green.yml", "name: green", "name: blue", "its name is blue, not green"),
    ("deployment-green.yml", "instance_count: 1", "instances: 1", "Unknown field"),
    (
        "deployment-green.yml",
        'WORKER_COUNT: "2"',
        'WORKER_COUNT: "3"',
        "WORKER_COUNT is 3, not max_concurrent",
    ),
    ("deployment-green.yml", "timeout_ms: 30000", "timeout_ms: 300000", "at most 180000"),
    ("deployment-green.yml", "script: score.py", "script: images.py", "has no init"),
    ("deployment-green.yml", "script: score.py", "script: absent.py", "absent.py"),
    ("autoscale.yml", "metricName", "metric", "understands only"),
]

CHECK_FAULTS = """
import json
import shutil
import sys
from pathlib import Path

files, copy, bundle, faults = sys.argv[1:]
sys.path.insert(0, files)
import managed

managed.HERE = Path(shutil.copytree(files, copy))
managed.check(bundle)
for name, old, new, words in json.loads(faults):
    path = Path(copy, name)
    text = path.read_text()
    assert old in text, (name, old)
    path.write_text(text.replace(old, new))
    try:
        managed.check(bundle)
    except SystemExit as error:
        assert words in str(error) and "\\n" not in str(error), (name, new, error)
    else:
        raise AssertionError((name, new))
    path.write_text(text)
"""


@pytest.mark.xdist_group("azure-ai-ml")
def test_a_fault_in_a_yaml_file_is_found(own_python, bundle, tmp_path):
    arguments = (FILES, tmp_path / "copy", bundle, json.dumps(FAULTS))
    done = subprocess.run([own_python, "-c", CHECK_FAULTS, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.xdist_group("azure-ai-ml")
def test_the_managed_calls_fit_the_library(own_python, bundle):
    done = subprocess.run([own_python, "-c", CALLS, FILES, bundle], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[-4:] == [
        "the end of the log",
        "lesions None {'blue': 90, 'green': 10} None",
        "the-key",
        "",
    ]


def test_the_yaml_files_name_the_bundle():
    blue, green = (
        yaml.safe_load((FILES / f"deployment-{name}.yml").read_text(encoding="utf-8"))
        for name in ("blue", "green")
    )
    assert blue | {"name": "green"} == green
    paths = (green["model"]["path"], green["code_configuration"]["code"])
    assert {(FILES / path).resolve() for path in paths} == {PROJECT_ROOT / "outputs" / "bundle"}
    assert (FILES / green["environment"]["conda_file"]).resolve() == PROJECT_ROOT / "outputs/bundle/conda.yml"
    assert (
        blue["endpoint_name"] == yaml.safe_load((FILES / "endpoint.yml").read_text(encoding="utf-8"))["name"]
    )


@pytest.mark.parametrize(
    ("command", "calls"),
    [
        (
            "--endpoint lesions deploy blue --bundle BUNDLE",
            [".list()", "load_online_deployment(", "'endpoint_name': 'lesions'"],
        ),
        ("traffic blue=90 green=10", [".traffic = {'blue': 90, 'green': 10}", "begin_create_or_update("]),
        ("autoscale green", ["autoscale_settings.create_or_update(", "'isicvision-green'"]),
        ("list", ["workspace.online_endpoints.list()"]),
        ("logs blue", ["get_logs('blue', 'isicvision', 200)"]),
        ("key", ["get_keys('isicvision')"]),
        ("renew-keys", ["key_type='secondary'"]),
        ("delete green", ["begin_delete('green', 'isicvision')", "'isicvision-green'"]),
        (
            "delete",
            ["online_endpoints.begin_delete('isicvision')", "'isicvision-blue'", "'isicvision-green'"],
        ),
    ],
)
def test_a_managed_dry_run_prints_the_calls(command, calls, bundle):
    words = [str(bundle) if word == "BUNDLE" else word for word in command.split()]
    status, said = managed("--dry-run", *words)
    assert status == 0, said
    assert [call for call in calls if call not in said] == []
    assert managed(*words, "--dry-run") == (status, said)  # after the command, too


@pytest.mark.parametrize("command", ["deploy blue", "release"])
def test_a_bundle_that_is_missing_is_said_before_the_first_call(command, tmp_path):
    status, said = managed("--dry-run", "--bundle", tmp_path / "absent", *command.split())
    assert status == 1 and said.count("\n") == 1 and "absent is not a bundle: `make run`" in said


def test_a_default_bundle_that_is_missing_is_said_before_the_first_call(tmp_path, monkeypatch):
    files = tmp_path / "code" / "03_deployment" / "azure"
    shutil.copytree(FILES, files)
    monkeypatch.setattr(managed_script, "HERE", files)
    azure = managed_script.connect(None, dry_run=True)
    with pytest.raises(SystemExit, match=r"outputs.bundle is not a bundle: `make run`"):
        managed_script.deploy(azure, "lesions", "blue", None)


def test_every_command_and_argument_has_a_line_of_help():
    for action in managed_script._parser()._actions:
        assert action.help or action.dest == "command"
        for name, command in (action.choices or {}).items():
            assert name in managed_script.COMMANDS and all(each.help for each in command._actions)


def test_a_notebook_runs_managed_and_gets_its_client(tmp_path, monkeypatch):
    assert "begin_delete('blue', 'lesions')" in managed_script.run(
        "delete blue", "lesions", "bundle", dry_run=True
    )
    with pytest.raises(RuntimeError, match=r"managed\.py deploy red failed:\n(?s:.)*invalid choice: 'red'"):
        managed_script.run("deploy red", "lesions", "bundle", dry_run=True)
    own_python = tmp_path / ".venv-azure" / "bin" / "python"
    own_python.parent.mkdir(parents=True)
    own_python.write_text(
        "#!/bin/sh\ncase $* in *list) echo lesions http://lesions/score x;; *) echo a-key;; esac\n",
        encoding="utf-8",
    )
    own_python.chmod(0o755)
    monkeypatch.setattr(managed_script, "PROJECT_ROOT", tmp_path)
    client = managed_script.client("lesions", "bundle")
    assert client.scoring_uri == "http://lesions/score"
    assert client._session.auth(mock.Mock(headers={})).headers == {"Authorization": "Bearer a-key"}


def test_managed_says_what_is_wrong(tmp_path):
    config = tmp_path / "config.json"
    for command, words in (
        (["traffic", "blue=90"], "must sum to 100"),
        (["traffic", "red=100"], "'red=100' is not like blue=90"),
        (["deploy", "red"], "invalid choice: 'red'"),
        (["--config", config, "list"], "config.json is missing: get it from Azure portal"),
    ):
        status, said = managed(*command)
        assert status and words in said
    config.write_text(json.dumps(CONFIG), encoding="utf-8")
    for command in ("check", "list"):  # azure-ai-ml is not in this environment
        status, said = managed("--config", config, command)
        assert status == 2 and "say how to install it" in said


def test_git_ignores_the_workspace_and_the_environment():
    private = [".azureml/config.json", ".venv-azure/pyvenv.cfg"]
    command = ["git", "check-ignore", *private]
    assert subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True).stdout.split() == private


def test_the_key_is_not_printed_to_a_person():
    pty = pytest.importorskip("pty", reason="Windows has no pseudo-terminals")
    code = "import sys; sys.path.insert(0, sys.argv[1]); import managed; from unittest import mock; "
    code += "managed.key(mock.Mock(**{'workspace.online_endpoints.get_keys.return_value.primary_key': 'a-key'}), 'x')"
    command = [sys.executable, "-c", code, str(FILES)]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "a-key\n"
    master, terminal = pty.openpty()
    done = subprocess.run(command, stdout=terminal, stderr=subprocess.PIPE, text=True)
    os.close(terminal)
    assert done.returncode == 1 and "export ISICVISION_KEY" in done.stderr
    with pytest.raises(OSError):  # nothing to read
        os.read(master, 100)
    os.close(master)


# jobs and batches: training, and scoring of whole folders

TRAINING = PROJECT_ROOT / "code" / "02_modeling" / "azure"
LOAD = """
import os
import sys

from azure.ai.ml import load_batch_endpoint, load_compute, load_data, load_job
from azure.ai.ml.entities._load_functions import load_model_batch_deployment  # which the CLI calls, too

training, files, bundle = sys.argv[1:]
job = load_job(f"{training}/job.yml")
assert job._validate().passed, job._validate()
assert (job.distribution.type, job.distribution.process_count_per_instance) == ("pytorch", 2)
assert {name: output.mode for name, output in job.outputs.items()} == {
    "results": "rw_mount", "checkpoint": "rw_mount"  # upload would come too late where the machine is taken away
}
data = load_data(f"{training}/data.yml", params_override=[{"path": bundle}])
assert job.inputs["images"].path == f"{data.name}@latest" and data.type == job.inputs["images"].type
endpoint = load_batch_endpoint(f"{files}/batch-endpoint.yml")
model = [{"model.path": os.path.relpath(bundle, files)}]
deployment = load_model_batch_deployment(f"{files}/batch-deployment.yml", params_override=model)
assert deployment.endpoint_name == endpoint.name
workers = deployment.settings.max_concurrency_per_instance
assert deployment.settings.environment_variables["WORKER_COUNT"] == str(workers)
assert not deployment.environment_variables  # they are not sent
for name, user, count in (
    (f"{training}/compute.yml", job.compute, job.resources.instance_count),
    (f"{files}/batch-compute.yml", deployment.compute, deployment.resources["instance_count"]),
):
    compute = load_compute(name)
    assert compute.tier == "low_priority" and compute.min_instances == 0
    assert user == compute.name and count <= compute.max_instances
"""


def load(python, training, files, bundle):
    """Run what is above in the environment that has azure-ai-ml."""
    arguments = map(str, (training, files, bundle))
    return subprocess.run([python, "-c", LOAD, *arguments], capture_output=True, text=True, timeout=300)


@pytest.mark.xdist_group("azure-ai-ml")
def test_the_files_of_jobs_and_batches_are_valid_and_fit_together(own_python, bundle, tmp_path):
    done = load(own_python, TRAINING, FILES, bundle)
    assert done.returncode == 0, done.stderr
    code = shutil.copytree(PROJECT_ROOT / "code", tmp_path / "code")
    copies = [code / path.relative_to(PROJECT_ROOT / "code") for path in (TRAINING, FILES)]
    for name, old, new in (
        ("job.yml", "type: pytorch", "type: pytorc"),
        ("job.yml", "instance_count: 1", "instances: 1"),
        ("job.yml", "mode: rw_mount # written at once", "mode: upload #"),
        ("compute.yml", "tier: low_priority", "tier: dedicated"),
        ("batch-deployment.yml", "mini_batch_size: 64", "mini_batch_size: many"),
        ("batch-deployment.yml", 'WORKER_COUNT: "4"', 'WORKER_COUNT: "3"'),
        ("batch-endpoint.yml", "name: isicvision-batch", "name: another"),
    ):
        (path,) = (folder / name for folder in copies if (folder / name).exists())
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")
        assert load(own_python, *copies, bundle).returncode, (name, new)
        path.write_text(text, encoding="utf-8")


EVERY = """
import re
import sys
from pathlib import Path

from azure.ai import ml
from azure.ai.ml.entities._load_functions import load_model_batch_deployment

loaders = {
    "amlCompute": ml.load_compute,
    "batchEndpoint": ml.load_batch_endpoint,
    "commandComponent": ml.load_component,
    "commandJob": ml.load_job,
    "data": ml.load_data,
    "managedOnlineDeployment": ml.load_online_deployment,
    "managedOnlineEndpoint": ml.load_online_endpoint,
    "modelBatchDeployment": load_model_batch_deployment,
    "pipelineJob": ml.load_job,
}
code = Path(sys.argv[1])
for path in sorted(code.rglob("*.yml")):
    if schema := re.search(r"^[$]schema: .*/(\\w+)[.]schema[.]json$", path.read_text(encoding="utf-8"), re.M):
        entity = loaders[schema[1]](path)
        assert "Job" not in schema[1] and "Component" not in schema[1] or entity._validate().passed, path
        print(path.relative_to(code).as_posix())
"""
READ_OTHERWISE = {  # by conda, by our own scripts, and by azure-mgmt-monitor, see `managed.check`
    *("02_modeling/azure/conda.yml", "03_deployment/conda.yml", "03_deployment/azure/batch/conda.yml"),
    *("02_modeling/azure/parameters.yml", "03_deployment/azure/autoscale.yml"),
}


@pytest.mark.xdist_group("azure-ai-ml")
def test_azure_ai_ml_loads_every_yaml_file(own_python, bundle, tmp_path):
    code = shutil.copytree(PROJECT_ROOT / "code", tmp_path / "code")
    for name in ("bundle", "mlflow", "data/sample"):
        shutil.copytree(bundle, tmp_path / "outputs" / name)
    done = subprocess.run([own_python, "-c", EVERY, code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    files = {path.relative_to(code).as_posix() for path in code.rglob("*.yml")}
    assert {*done.stdout.split()} == files - READ_OTHERWISE and files > READ_OTHERWISE


def test_environments_of_jobs_have_the_tested_versions():
    text = (PROJECT_ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    tested = dict(line.split("==") for line in text if "==" in line)
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    packages = [*project["dependencies"], *project["optional-dependencies"]["serving"]]
    needed = {re.match(r"[\w-]+", each)[0] for each in packages} | {"pyyaml", "mlflow-skinny"}
    for path, names in (
        (TRAINING / "conda.yml", needed),
        (FILES / "batch" / "conda.yml", {*bundled._REQUIREMENTS, "azureml-defaults"}),
    ):
        *_, last = yaml.safe_load(path.read_text(encoding="utf-8"))["dependencies"]
        pins = dict(each.split("==") for each in last["pip"])
        assert {*pins} == names
        tested_here = {name.lower(): version for name, version in tested.items()}
        for name, version in pins.items():
            assert tested_here.get(name.lower(), version) == version


def test_the_training_jobs_command_runs_as_azure_runs_it(tmp_path):
    """In as many processes as the file says, with the variables by which Azure tells them their ranks."""
    sample, images = PROJECT_ROOT / "sample_data", tmp_path / "images"
    table = ImageDataset.from_csv(
        sample / "metadata.csv", images=sample / "images", label_column="diagnosis_1"
    ).table
    for path, label in zip(table["path"], table["label"], strict=True):
        link = images / label / Path(path).name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    job = yaml.safe_load((TRAINING / "job.yml").read_text(encoding="utf-8"))
    parameters = tmp_path / "parameters.yml"
    settings = {"image_size": 64, "epochs": 1, "learning_rate": 0.001}
    quick = {"BACKBONE": "resnet18", "WEIGHTS": None, "PRESET": None, "SETTINGS": settings}
    parameters.write_text(yaml.safe_dump(quick), encoding="utf-8")
    places = {
        "${{inputs.images}}": images,
        "${{inputs.parameters}}": parameters,
        "${{outputs.results}}": tmp_path / "results",
        "${{outputs.checkpoint}}": tmp_path / "checkpoint",
    }
    declared = {f"${{{{{kind}.{name}}}}}" for kind in ("inputs", "outputs") for name in job[kind]}
    assert declared == {*places} == set(re.findall(r"\$\{\{.*?\}\}", job["command"]))
    command = job["command"]
    for name, place in places.items():
        command = command.replace(name, shlex.quote(str(place)))
    code = shutil.copytree((TRAINING / job["code"]).resolve(), tmp_path / "code")  # all that Azure gets
    count = job["distribution"]["process_count_per_instance"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = {
        "WORLD_SIZE": count,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "ACCELERATE_USE_CPU": "true",
    }
    environment = (
        os.environ | job["environment_variables"] | {name: str(value) for name, value in told.items()}
    )
    environment["PATH"] = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
    with ExitStack() as stack:
        processes = []
        for rank in range(count):
            ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            options = {"cwd": code, "env": environment | ranks, "stderr": subprocess.PIPE, "text": True}
            process = stack.enter_context(subprocess.Popen(shlex.split(command), **options))
            stack.callback(process.kill)
            processes.append(process)
        for process in processes:
            _, said = process.communicate(timeout=300)
            assert process.returncode == 0, said[-3000:]
    assert (tmp_path / "results" / "model" / "run.json").exists()
    assert list((tmp_path / "checkpoint").iterdir())


RUN_BATCH = """
import json
import sys

sys.path.insert(0, sys.argv[1])
import batch_score

batch_score.init()
print(json.dumps(batch_score.run(sys.argv[2:])))
"""


def test_a_batch_answers_what_the_service_answers(bundle, tmp_path):
    deployment = yaml.safe_load((FILES / "batch-deployment.yml").read_text(encoding="utf-8"))
    code = FILES / deployment["code_configuration"]["code"]
    images = [tmp_path / f"{number}.jpg" for number in range(11)]
    for number, path in enumerate(images):
        path.write_bytes(b"no image" if number == 3 else image(number))
    mounted = tmp_path / "mounted"
    shutil.copytree(bundle, mounted / "bundle")
    command = [sys.executable, "-c", RUN_BATCH, code, *images]
    environment = os.environ | {"AZUREML_MODEL_DIR": str(mounted)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(row) for row in json.loads(done.stdout.splitlines()[-1])]
    assert [row.pop("image") for row in rows] == [path.name for path in images]
    assert "not an image" in rows[3]["error"]
    with deploy_local(bundle) as service:
        sound = [n for n in range(11) if n != 3]
        answers = [service.score(images[n]) for n in sound]
    assert [rows[n]["scores"] for n in sound] == [answer["scores"] for answer in answers]


def test_a_batch_finds_the_bundle_below_a_link_and_refuses_none_or_two(bundle, tmp_path, monkeypatch):
    code = yaml.safe_load((FILES / "batch-deployment.yml").read_text(encoding="utf-8"))["code_configuration"][
        "code"
    ]
    monkeypatch.setattr(sys, "path", [str(FILES / code), *sys.path])
    batch_score = importlib.import_module("batch_score")
    monkeypatch.setattr(batch_score.importlib, "import_module", lambda _: mock.Mock())
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(mounted))
    with pytest.raises(RuntimeError, match="score.py is in no folder"):
        batch_score.init()
    (mounted / "1").symlink_to(bundle, target_is_directory=True)
    batch_score.init()
    assert sys.path[0] == str(mounted / "1")
    shutil.copytree(bundle, mounted / "2")
    with pytest.raises(RuntimeError, match="score.py is in .*mounted/[12], .*mounted/[12]"):
        batch_score.init()
