"""What Azure refuses: each ends managed.py with one sentence that says what to do. Doubles of the real libraries."""

import json
import subprocess

import pytest
from test_deployment import StandIn

from isicvision import PROJECT_ROOT, build_bundle

FILES = PROJECT_ROOT / "code" / "03_deployment" / "azure"
CONFIG = {"subscription_id": "s", "resource_group": "g", "workspace_name": "w"}

pytestmark = pytest.mark.xdist_group("azure-ai-ml")

# runs managed.py once per case, with its client's operations replaced by doubles with the real signatures, one of which
# refuses; prints for each its status, what it says, and the calls by which it would have changed something
REFUSED = """
import contextlib
import io
import json
import sys
import traceback
from unittest.mock import create_autospec, patch

from azure.ai.ml import MLClient
from azure.ai.ml.entities import ManagedOnlineEndpoint
from azure.ai.ml.operations import OnlineDeploymentOperations, OnlineEndpointOperations
from azure.core import exceptions
from azure.core.pipeline.transport import HttpResponse
from azure.identity import CredentialUnavailableError

files, config, bundle, cases = sys.argv[1:]
sys.path.insert(0, files)
import managed


def fail(fault):
    if fault.get("status"):
        response = create_autospec(HttpResponse, instance=True, status_code=fault["status"], reason="reason")
        response.text.return_value = json.dumps({"error": fault["error"]})
        return getattr(exceptions, fault["kind"])(response=response)
    kinds = {"CredentialUnavailableError": CredentialUnavailableError} | vars(exceptions)
    return kinds.get(fault.get("kind"), RuntimeError)("Attempted credentials:\\n\\tmany")


def run(fault):
    operations = {
        "endpoints": create_autospec(OnlineEndpointOperations, instance=True),
        "deployments": create_autospec(OnlineDeploymentOperations, instance=True),
    }
    made = ManagedOnlineEndpoint(name="isicvision", provisioning_state=fault.get("state"))
    operations["endpoints"].list.return_value = [made] if "state" in fault else []
    if "call" in fault:
        where, _, call = fault["call"].partition(".")
        getattr(operations[where], call).side_effect = fail(fault)
    command = fault.get("command", "deploy green").split()
    sys.argv = ["managed.py", "--config", config, "--bundle", bundle, *command]
    said, status = io.StringIO(), 0
    with (
        patch.object(MLClient, "online_endpoints", operations["endpoints"]),
        patch.object(MLClient, "online_deployments", operations["deployments"]),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        try:
            managed.main()
        except SystemExit as end:  # Python prints a text and ends with status 1
            status = end.code if isinstance(end.code, int) else 1
            print("" if isinstance(end.code, int) else end.code)
        except Exception:
            status = 1
            traceback.print_exc()
    calls = [name for each in operations.values() for name, *_ in each.mock_calls]
    return status, said.getvalue(), [name for name in calls if name.startswith("begin_")]


print(json.dumps([run(fault) for fault in json.loads(cases)]))
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return build_bundle(StandIn(), tmp_path_factory.mktemp("refusals") / "bundle")


def detailed(code, text):
    """Write an error as the service of endpoints does: JSON in the message of a detail."""
    detail = json.dumps({"errors": {"Name": [text]}, "title": "One or more errors.", "status": 400})
    return {
        "code": "BadRequest",
        "message": "The request is invalid.",
        "details": [
            {"code": code, "message": f"InferencingClient HttpRequest error, error detail: {detail}"}
        ],
    }


NO_WORKSPACE = (
    "The Resource 'Microsoft.MachineLearningServices/workspaces/w' under resource group 'g' was not found."
)
NO_QUOTA = "Not enough quota available for Standard_DS3_v2 in SubscriptionId s. Current usage/limit: 0/6."
TAKEN = "There is already an endpoint with this name, Endpoint name needs to be unique within a region."
NO_RIGHT = (
    "The client 'c' does not have authorization to perform action 'Microsoft.MachineLearningServices/…/write'"
)


# the fault, words of the sentence, and the calls made until then that change something
CASES = [
    (
        {"call": "endpoints.list", "kind": "CredentialUnavailableError"},
        ["Azure does not know who you are: run `az login`, or set AZURE_TENANT_ID"],
        [],
    ),
    (
        {"call": "endpoints.list", "kind": "ClientAuthenticationError", "status": 401}
        | {"error": {"code": "InvalidAuthenticationTokenTenant", "message": "wrong issuer"}},
        ["run `az login`", "Azure says: wrong issuer"],
        [],
    ),
    (
        {"call": "endpoints.list", "kind": "ServiceRequestError"},
        ["Azure cannot be reached: check the network"],
        [],
    ),
    (
        {"call": "endpoints.list", "kind": "ResourceNotFoundError", "status": 404}
        | {
            "error": {
                "code": "SubscriptionNotFound",
                "message": "The subscription 's' could not be found.",
            }
        },
        ["compare subscription_id in config.json with `az account list`", "could not be found"],
        [],
    ),
    (
        {"call": "endpoints.list", "kind": "ResourceNotFoundError", "status": 404}
        | {"error": {"code": "ResourceNotFound", "message": NO_WORKSPACE}},
        ["There is no such workspace", "Download config.json", "workspaces/w"],
        [],
    ),
    (
        {"call": "endpoints.list", "kind": "HttpResponseError", "status": 403}
        | {"error": {"code": "AuthorizationFailed", "message": NO_RIGHT}},
        ["ask for the role that docs/azure.md names", "…/write"],
        [],
    ),
    (
        {"call": "deployments.begin_create_or_update", "kind": "HttpResponseError", "status": 400}
        | {"state": "Succeeded", "error": detailed("InferencingClientCreateDeploymentFailed", NO_QUOTA)},
        ["request more in the portal (Quotas)", "0/6"],
        ["begin_create_or_update"],
    ),
    (
        {"call": "endpoints.begin_create_or_update", "kind": "HttpResponseError", "status": 400}
        | {"error": detailed("InferencingClientCallFailed", TAKEN)},
        ["name is taken in this region: choose another by --endpoint NAME"],
        ["begin_create_or_update"],
    ),
    (
        {"call": "deployments.begin_create_or_update", "kind": "HttpResponseError", "status": 409}
        | {"state": "Succeeded"}
        | {"error": {"code": "Conflict", "message": "… because it is in Updating provisioning state."}},
        ["still at work on the endpoint", "then repeat the command"],
        ["begin_create_or_update"],
    ),
    ({"state": "Creating"}, ["state Creating: wait until `managed.py list` shows Succeeded"], []),
    ({"state": "Failed"}, ["state Failed: it is half made: delete it", "Nothing was changed"], []),
    (
        {"command": "logs blue", "call": "deployments.get_logs", "kind": "ResourceNotFoundError"}
        | {"status": 404, "error": {"code": "UserError", "message": "Deployment blue is not there."}},
        ["compare the names with `managed.py list`", "Deployment blue is not there"],
        [],
    ),
    (
        {"call": "endpoints.list", "kind": "HttpResponseError", "status": 500}
        | {"error": {"code": "InternalServerError", "message": "An internal error."}},
        ["Azure refuses with status 500: An internal error."],
        [],
    ),
]
OURS = {"call": "endpoints.list"}  # a fault of this program


@pytest.fixture(scope="module")
def answers(azure_python, bundle, tmp_path_factory):
    """What managed.py did in each case, last in that of a fault of its own."""
    config = tmp_path_factory.mktemp("refusals") / "config.json"
    config.write_text(json.dumps(CONFIG), encoding="utf-8")
    faults = json.dumps([*(fault for fault, *_ in CASES), OURS])
    command = [azure_python, "-c", REFUSED, FILES, config, bundle, faults]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("number", range(len(CASES)))
def test_a_refusal_of_azure_is_one_sentence(answers, number):
    _, words, changes = CASES[number]
    status, said, made = answers[number]
    assert status == 1, said
    assert said.count("\n") == 1 and "Traceback" not in said, said
    assert [word for word in words if word not in said] == [], said
    assert made == changes  # no further call after the one that was refused


def test_a_fault_of_our_own_keeps_its_traceback(answers):
    status, said, _ = answers[-1]
    assert status == 1 and "Traceback" in said and "RuntimeError" in said


def test_a_bad_config_is_named(azure_python, tmp_path):
    contents = [None, "{'a': 1}", "3", "[]", json.dumps(CONFIG | {"workspace_name": 3}), "{}"]
    for number, content in enumerate([*contents, "a folder"]):
        config = tmp_path / f"config{number}.json"
        if content == "a folder":
            config.mkdir()
        elif content is not None:
            config.write_text(content, encoding="utf-8")
        command = [azure_python, FILES / "managed.py", "--config", config, "list"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
        assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
        assert f"{config} " in done.stderr and "Download config.json" in done.stderr
