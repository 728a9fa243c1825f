"""Azure, as far as it needs no account: the real libraries' objects and signatures, with nothing behind them."""

import json
import sys
from contextlib import contextmanager
from unittest import mock

import pytest
from test_deployment import StandIn

from isicvision import azure, build_bundle

pytest.importorskip("azureml.core")
from azureml.core import Environment, Workspace
from azureml.core.compute import AksCompute
from azureml.core.model import Model, ModelPackage
from azureml.core.webservice import AciWebservice, Webservice
from azureml.exceptions import WebserviceException

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # azureml's own YAML

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
        service.configure_mock(
            name=name, compute_type="ACI", state="Healthy", scoring_uri=f"http://{name}/score"
        )
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
        webservice.list.return_value = list(services.values())
        webservice.side_effect = find
        model.package.return_value = mock.create_autospec(ModelPackage, instance=True)
        yield mock.Mock(
            Model=model, Webservice=webservice, AksCompute=cluster, register=register, services=services
        )


# azureml-core (v1)


def test_plan(bundle):
    environment, inference, container = azure.azure_plan(bundle)
    conda = environment.python.conda_dependencies
    assert "python=3.11" in list(conda.conda_packages)
    assert {*(bundle / "requirements.txt").read_text().split(), "azureml-defaults"} == set(conda.pip_packages)
    inference.validate_configuration()
    container.validate_configuration()
    assert (container.cpu_cores, container.memory_gb, container.auth_enabled) == (1, 2, True)

    _, _, replicas = azure.azure_plan(bundle, cluster="aks")
    replicas.validate_configuration()
    assert type(replicas).__name__ == "AksServiceDeploymentConfiguration"
    assert (replicas.cpu_cores, replicas.memory_gb, replicas.auth_enabled) == (1, 2, True)
    assert (replicas.autoscale_min_replicas, replicas.autoscale_max_replicas) == (1, 3)
    assert not replicas.token_auth_enabled


def test_deploy(bundle, workspace):
    with answering() as azureml:
        service = azure.deploy_azure(bundle, workspace, "lesions", overwrite=True)
    card = json.loads((bundle / "model.json").read_text())
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
        azure.deploy_azure(bundle, workspace, "lesions", cluster="aks")
    azureml.AksCompute.assert_called_once_with(workspace, "aks")
    call = azureml.Model.deploy.call_args
    assert type(call.args[4]).__name__ == "AksServiceDeploymentConfiguration"
    assert call.kwargs == {"deployment_target": azureml.AksCompute.return_value, "overwrite": False}


@pytest.mark.parametrize("name", ["Lesions", "le", "1esions", "lesions-", "le sions", "l" * 33])
def test_a_bad_name_is_refused_before_the_upload(bundle, workspace, name):
    with answering() as azureml, pytest.raises(ValueError, match=f"'{name}' cannot be a service's name"):
        azure.deploy_azure(bundle, workspace, name)
    azureml.Model.register.assert_not_called()


def test_update(bundle, workspace):
    with answering("lesions") as azureml:
        service = azure.update_service(bundle, workspace, "lesions")
    assert service is azureml.services["lesions"]
    call = service.update.call_args
    assert call.kwargs["models"] == [azureml.Model.register.return_value]
    assert call.kwargs["inference_config"].entry_script == "score.py"
    service.wait_for_deployment.assert_called_once_with(show_output=True)


def test_list_exists_delete(workspace):
    with answering("lesions") as azureml:
        assert azure.list_services(workspace) == [
            {"name": "lesions", "compute": "ACI", "state": "Healthy", "uri": "http://lesions/score"}
        ]
        assert azure.service_exists(workspace, "lesions")
        assert not azure.service_exists(workspace, "lesion")
        azure.delete_service(workspace, "lesion", missing_ok=True)
        with pytest.raises(WebserviceException):
            azure.delete_service(workspace, "lesion")
        azureml.services["lesions"].delete.assert_not_called()
        azure.delete_service(workspace, "lesions", missing_ok=True)
        azureml.services["lesions"].delete.assert_called_once_with()


def test_keys_are_used_and_not_shown(workspace, capfd, caplog):
    with answering("lesions") as azureml:
        client = azure.azure_client(workspace, "lesions")
        azure.renew_keys(workspace, "lesions")
    assert client.scoring_uri == "http://lesions/score"
    request = mock.Mock(headers={})
    assert client._session.auth(request).headers == {"Authorization": "Bearer the-primary-key"}
    regenerated = azureml.services["lesions"].regen_key.call_args_list
    assert regenerated == [mock.call("Primary"), mock.call("Secondary")]
    assert "the-primary-key" not in "".join(
        [repr(client), str(vars(client)), *capfd.readouterr(), caplog.text]
    )


def test_build_image(bundle, workspace, tmp_path):
    version = json.loads((bundle / "model.json").read_text())["version"]
    with answering() as azureml:
        package = azure.build_image(bundle, workspace)
        assert azureml.Model.package.call_args.kwargs == {
            "generate_dockerfile": False,
            "image_name": "isicvision-stand-in",
            "image_label": version,
        }
        package.wait_for_creation.assert_called_once_with(show_output=True)
        package.save.assert_not_called()
        azure.build_image(bundle, workspace, tmp_path)
    assert azureml.Model.package.call_args.kwargs["generate_dockerfile"] is True
    package.save.assert_called_once_with(str(tmp_path))


def test_a_dry_run_prints_the_calls_and_makes_none(bundle, capsys):
    dry = {"dry_run": True}
    with answering("lesions") as azureml:
        azure.deploy_azure(bundle, None, "lesions", **dry)
        plan = capsys.readouterr().out
        azure.deploy_azure(bundle, None, "lesions", cluster="aks", **dry)
        replicas = capsys.readouterr().out
        azure.update_service(bundle, None, "lesions", **dry)
        azure.list_services(None, **dry)
        azure.service_exists(None, "lesions", **dry)
        assert azure.azure_client(None, "lesions", **dry) is None
        azure.renew_keys(None, "lesions", **dry)
        azure.delete_service(None, "lesions", missing_ok=True, **dry)
        azure.build_image(bundle, None, "folder", **dry)
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
        "Webservice.list(workspace)",
        "Webservice(…).get_keys()",
        "Webservice(…).regen_key('Secondary')",
        "Webservice(…).delete()",
        "generate_dockerfile=True, image_name='isicvision-stand-in'",
        "Model.package(…).save('folder')",
    ):
        assert call in rest


def test_open_workspace(tmp_path, monkeypatch):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG))
    login = dict.fromkeys(azure._LOGIN, "a-secret")
    with (
        mock.patch.object(Workspace, "from_config", autospec=True) as from_config,
        mock.patch("azureml.core.authentication.ServicePrincipalAuthentication", autospec=True) as principal,
    ):
        for name in login:
            monkeypatch.delenv(name, raising=False)
        azure.open_workspace(config)
        from_config.assert_called_once_with(str(config), auth=None)
        with mock.patch.dict("os.environ", login):
            workspace = azure.open_workspace(config)
    principal.assert_called_once_with("a-secret", "a-secret", "a-secret")
    assert from_config.call_args.kwargs == {"auth": principal.return_value}
    assert workspace is from_config.return_value


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (None, FileNotFoundError, r"config\.json is missing: get it from Azure portal"),
        ("{'a': 1}", ValueError, r"config\.json is no JSON object"),
        ("3", ValueError, "is no JSON object"),
        ('["subscription_id"]', ValueError, "is no JSON object"),
        (json.dumps(CONFIG | {"resource_group": ""}), ValueError, "has no resource_group: get it again"),
        ("{}", ValueError, "has no resource_group, subscription_id, workspace_name"),
    ],
)
def test_open_workspace_says_what_is_wrong_with_the_file(tmp_path, content, error, words):
    config = tmp_path / "config.json"
    if content is not None:
        config.write_text(content)
    with pytest.raises(error, match=words):
        azure.open_workspace(config)


def test_azure_says_what_is_missing(bundle, workspace, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG))
    with mock.patch.dict(sys.modules, {"azureml.core": None}):
        for call in (
            lambda: azure.azure_plan(bundle),
            lambda: azure.list_services(workspace),
            lambda: azure.open_workspace(config),
        ):
            with pytest.raises(ImportError, match=r'pip install -e "\.\[azure\]"'):
                call()
    with pytest.raises(FileNotFoundError, match="build_bundle"):
        azure.azure_plan(tmp_path)
