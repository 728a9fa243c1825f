"""`managed.py release`: the next bundle gets the traffic if it answers as the bundle does; else all is as it was."""

import json
import subprocess
import sys

import pytest
from test_deployment import StandIn

from isicvision import PROJECT_ROOT, build_bundle

FILES = PROJECT_ROOT / "code" / "03_deployment" / "azure"
CONFIG = {"subscription_id": "s", "resource_group": "g", "workspace_name": "w"}

# runs managed.py once per case, against an endpoint with deployments and traffic behind doubles with the signatures of
# the real operations; prints for each its status, what it says, and what there is afterwards
DOUBLE = """
import contextlib
import io
import json
import shutil
import signal
import sys
import traceback
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import create_autospec, patch

from azure.ai.ml import MLClient
from azure.ai.ml.entities import ManagedOnlineEndpoint
from azure.ai.ml.operations import ModelOperations, OnlineDeploymentOperations, OnlineEndpointOperations
from azure.core.exceptions import HttpResponseError
from azure.core.polling import LROPoller
from azure.mgmt.monitor.operations import AutoscaleSettingsOperations

files, cases = sys.argv[1:]
sys.path.insert(0, files)
import managed


class Endpoint:
    def __init__(self, fault):
        self.fault, self.traffic, self.asked = fault, fault.get("traffic", {}), []
        self.deployments, self.rules, self.work = [*self.traffic], [*self.traffic], 0
        self.exists = bool(self.deployments)
        self.endpoints = create_autospec(OnlineEndpointOperations, instance=True)
        self.endpoints.list.side_effect = lambda: [self.get()] if self.exists else []
        self.endpoints.get.side_effect = self.get
        self.endpoints.begin_create_or_update.side_effect = self.update
        self.endpoints.invoke.side_effect = self.invoke
        self.operations = create_autospec(OnlineDeploymentOperations, instance=True)
        self.operations.list.side_effect = self.list
        self.operations.begin_create_or_update.side_effect = self.deploy
        self.operations.begin_delete.side_effect = self.delete
        self.operations.get_logs.return_value = "the log of the failed one"
        self.models = create_autospec(ModelOperations, instance=True)
        self.models.download.side_effect = self.download

    def state(self):
        self.work = max(self.work - 1, 0)
        return "Updating" if self.work else self.fault.get("state", "Succeeded")

    def get(self, *_):
        return ManagedOnlineEndpoint(
            name="isicvision", traffic=dict(self.traffic), provisioning_state=self.state()
        )

    def list(self, _):
        return [SimpleNamespace(name=name, provisioning_state=self.state()) for name in self.deployments]

    def interrupt(self, call):
        if self.work:
            raise HttpResponseError("Azure is still at work")
        if self.fault.get("at") == call:
            del self.fault["at"]
            self.work = 3  # Azure goes on with what it began
            signal.raise_signal(getattr(signal, self.fault["by"]))

    def update(self, entity):
        if self.fault.get("back") and self.exists and entity.traffic == self.fault["traffic"]:
            raise HttpResponseError("Azure is away")
        if not self.work:
            self.exists, self.traffic = True, dict(entity.traffic or {})
        self.interrupt("traffic")
        return create_autospec(LROPoller, instance=True)

    def deploy(self, entity):
        if self.fault.get("quota"):
            raise HttpResponseError("Not enough quota available")
        self.deployments = sorted({*self.deployments, entity.name})
        self.interrupt("deployment")
        if self.fault.get("crash"):
            raise HttpResponseError("User container has crashed")
        return create_autospec(LROPoller, instance=True)

    def delete(self, name, _):
        self.interrupt("deletion")
        if self.traffic.get(name):
            raise HttpResponseError("the deployment has traffic")
        self.deployments.remove(name)
        return create_autospec(LROPoller, instance=True)

    def invoke(self, name, *, deployment_name=None, request_file=None):
        self.asked.append(deployment_name or "by traffic")
        assert len(json.loads(Path(request_file).read_text())["images"]) == 4
        answer = json.loads(json.dumps(self.fault["honest"]))
        if self.fault.get("only") in (None, self.asked[-1]):
            self.interrupt("answer")
            if self.fault.get("status"):
                raise HttpResponseError("the container answers 500")
            for prediction in answer["predictions"]:
                prediction["scores"]["benign"] += self.fault.get("shift", 0)
                prediction["scores"] = self.fault.get("scores", prediction["scores"])
            if self.fault.get("rejects"):
                answer["predictions"][0] = {"error": "the image: it is blurred"}
            answer["model"]["version"] = self.fault.get("version", answer["model"]["version"])
        return self.fault.get("text", json.dumps(answer))

    def download(self, name, version, download_path="."):
        shutil.copytree(self.fault["source"], Path(download_path, name, "artifacts", "bundle"))


def run(arguments, fault):
    azure, said, status = Endpoint(fault), io.StringIO(), 0
    sys.argv = ["managed.py", *arguments]
    with (
        patch.object(MLClient, "online_endpoints", azure.endpoints),
        patch.object(MLClient, "online_deployments", azure.operations),
        patch.object(MLClient, "models", azure.models),
        patch("azure.mgmt.monitor.MonitorManagementClient", autospec=True) as monitor,
        patch("time.sleep"),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        monitor.return_value.autoscale_settings = rules = create_autospec(
            AutoscaleSettingsOperations, instance=True
        )
        rules.delete.side_effect = lambda _, rule: azure.rules.remove(rule.removeprefix("isicvision-"))
        try:
            managed.main()
        except SystemExit as end:  # Python prints a text and ends with status 1
            status = end.code if isinstance(end.code, int) else 1
            print("" if isinstance(end.code, int) else end.code)
        except BaseException:
            status = 1
            traceback.print_exc()
    state = {"traffic": azure.traffic, "deployments": azure.deployments, "asked": azure.asked}
    if "delete" in arguments:
        state["rules"] = azure.rules
    return status, said.getvalue(), state


print(json.dumps([run(*case) for case in json.loads(cases)]))
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return build_bundle(StandIn(), tmp_path_factory.mktemp("release") / "bundle")


@pytest.fixture(scope="module")
def honest(bundle):
    """What a service of the bundle answers for the images that `release` sends."""
    paths = sorted((PROJECT_ROOT / "sample_data" / "images").iterdir())[:4]
    code = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); import score; score.init();"
        "print(json.dumps({'predictions': score.predict([open(p, 'rb').read() for p in sys.argv[2:]]),"
        "'model': {'version': score.metadata['version']}}))"
    )
    done = subprocess.run([sys.executable, "-c", code, bundle, *paths], capture_output=True, text=True)
    return json.loads(done.stdout)


def release(python, bundle, folder, *faults, command=("release", "--python", sys.executable)):
    """Return for each fault the status of managed.py, what it says, and what of the endpoint there is afterwards."""
    config = folder / "config.json"
    config.write_text(json.dumps(CONFIG), encoding="utf-8")
    arguments = [str(each) for each in ("--config", config, "--bundle", bundle, *command)]
    cases = json.dumps([(arguments, fault) for fault in faults])
    done = subprocess.run([python, "-c", DOUBLE, FILES, cases], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


in_its_group = pytest.mark.xdist_group("azure-ai-ml")


@in_its_group
def test_the_color_without_traffic_gets_it(azure_python, bundle, honest, tmp_path):
    before = [{}, {"blue": 100}, {"blue": 0, "green": 100}]
    answers = release(
        azure_python, bundle, tmp_path, *({"traffic": each, "honest": honest} for each in before)
    )
    for (status, said, state), name, deployments in zip(
        answers, ("blue", "green", "blue"), (["blue"], ["blue", "green"], ["blue", "green"]), strict=True
    ):
        assert status == 0, said
        assert state == {"traffic": {name: 100}, "deployments": deployments, "asked": [name, "by traffic"]}
        assert f"{name} answers as the bundle does and gets all requests" in said


FAULTS = [
    ({"status": 500}, "the container answers 500", ["green"]),
    ({"shift": 0.001}, "it answers {'benign'", ["green"]),
    ({"rejects": True}, "it answers the image: it is blurred", ["green"]),
    ({"version": "other"}, "model other answers, not", ["green"]),
    ({"quota": True}, "request more in the portal (Quotas)", []),
    ({"crash": True}, "User container has crashed", []),
    ({"shift": 0.001, "only": "by traffic"}, "it answers {'benign'", ["green", "by traffic"]),
    (
        {"scores": dict.fromkeys(["benign", "malignant"], float("nan"))},
        "it answers {'benign': nan",
        ["green"],
    ),
    ({"scores": {"benign": 0.5}}, "it answers {'benign': 0.5}, the bundle {", ["green"]),
    ({"scores": {"nevus": 0.5, "melanoma": 0.5}}, "it answers {'nevus': 0.5", ["green"]),
    ({"scores": {"benign": "0.5", "malignant": "0.5"}}, "it answers {'benign': '0.5'", ["green"]),
    ({"scores": None}, "it answers None, the bundle {", ["green"]),
    ({"text": "null"}, "without predictions and the model's version: null", ["green"]),
    ({"text": "<html>"}, "without predictions and the model's version: <html>", ["green"]),
]


@in_its_group
def test_what_fails_is_taken_back(azure_python, bundle, honest, tmp_path):
    faults = [fault | {"traffic": {"blue": 100}, "honest": honest} for fault, *_ in FAULTS]
    answers = release(azure_python, bundle, tmp_path, *faults)
    for (fault, words, asked), (status, said, state) in zip(FAULTS, answers, strict=True):
        assert status == 1 and "Traceback" not in said, said
        assert words in said and "green was not released, the traffic is as before ({'blue': 100})" in said
        assert state == {"traffic": {"blue": 100}, "deployments": ["blue"], "asked": asked}
        assert ("the log of the failed one" in said) == ("quota" not in fault)  # before the deployment goes


@in_its_group
def test_an_interruption_is_taken_back_after_what_azure_is_at_work_on(azure_python, bundle, honest, tmp_path):
    calls = [("deployment", []), ("answer", ["green"]), ("traffic", ["green"])]
    cases = [(by, at, asked) for by in ("SIGINT", "SIGTERM") for at, asked in calls]
    cases.append(("SIGTERM", "deletion", ["green"]))  # on the way back
    faults = [{"by": by, "at": at, "traffic": {"blue": 100}, "honest": honest} for by, at, _ in cases]
    faults[-1]["shift"] = 0.1
    answers = release(azure_python, bundle, tmp_path, *faults)
    for (_, at, asked), (status, said, state) in zip(cases, answers, strict=True):
        assert status == 1 and "Traceback" not in said, said
        assert (
            "green was not released, the traffic is as before ({'blue': 100}), and green is deleted" in said
        )
        assert ("The reason: it was interrupted" in said) == (at != "deletion"), said
        assert state == {"traffic": {"blue": 100}, "deployments": ["blue"], "asked": asked}


@in_its_group
def test_a_deployment_that_azure_does_not_delete_keeps_its_rule(azure_python, bundle, tmp_path):
    fault = {"traffic": {"blue": 100, "green": 0}}
    delete = [("delete", "blue"), ("delete", "green")]
    live, idle = (release(azure_python, bundle, tmp_path, fault, command=each)[0] for each in delete)
    assert live[0] == 1 and "the deployment has traffic" in live[1]
    assert live[2]["deployments"] == live[2]["rules"] == ["blue", "green"]
    assert idle[0] == 0 and idle[2]["deployments"] == idle[2]["rules"] == ["blue"]


@in_its_group
def test_an_endpoint_that_gets_requests_is_not_to_be_deleted(azure_python, bundle, tmp_path):
    faults = [{"state": state, "traffic": {"blue": 100}} for state in ("Failed", "Canceled")]
    for status, said, _ in release(azure_python, bundle, tmp_path, *faults):
        assert status == 1 and "do not delete it: repeat `managed.py traffic blue=100`" in said


@in_its_group
def test_a_first_release_that_fails_leaves_no_deployment_and_a_way_back_that_fails_is_told(
    azure_python, bundle, honest, tmp_path
):
    fault = {"honest": honest, "shift": 0.1, "only": "by traffic"}
    stuck = fault | {"traffic": {"blue": 100}, "back": True}
    (status, said, state), again = release(azure_python, bundle, tmp_path, fault, stuck)
    assert status == 1 and "as before (none), and blue is deleted" in said
    assert state["traffic"] == {} and state["deployments"] == []
    status, said, state = again
    assert status == 1 and "going back failed, too: look at `managed.py list`" in said
    assert "Azure is away" in said and "it answers {'benign'" in said  # both reasons
    assert "green" in state["deployments"]


@in_its_group
def test_nothing_is_called_where_it_cannot_begin(azure_python, bundle, tmp_path):
    both = {"blue": 90, "green": 10}
    ((status, said, state),) = release(azure_python, bundle, tmp_path, {"traffic": both})
    assert status == 1 and "blue and green both get requests" in said
    assert state == {"traffic": both, "deployments": ["blue", "green"], "asked": []}
    (tmp_path / "note.txt").write_text("no image", encoding="utf-8")
    for options, words in (
        (["--images", tmp_path], "can score no image in"),
        (["--python", tmp_path / "absent"], "give by --python one with its requirements.txt"),
        (["--python", azure_python], "give by --python one with its requirements.txt"),
    ):
        command = ["release", "--python", sys.executable, *options]
        ((status, said, state),) = release(
            azure_python, bundle, tmp_path, {"traffic": {"blue": 100}}, command=command
        )
        assert status == 1 and words in said and "Traceback" not in said, said
        assert state == {"traffic": {"blue": 100}, "deployments": ["blue"], "asked": []}


@in_its_group
def test_the_bundle_of_a_registered_model_is_fetched_whole_or_not_at_all(azure_python, bundle, tmp_path):
    target, fetch = tmp_path / "bundle", ("fetch", "isicvision", "3")
    (tmp_path / "model").mkdir()
    sources = [{"source": str(source)} for source in (bundle, tmp_path / "model")]
    whole, none = release(azure_python, target, tmp_path, *sources, command=fetch)
    assert whole[0] == 0, whole[1]
    assert none[0] == 1 and "isicvision:3 holds 0 bundles, not one" in none[1]
    assert sorted(path.name for path in target.iterdir()) == sorted(path.name for path in bundle.iterdir())
    ((status, said, _),) = release(azure_python, tmp_path, tmp_path, sources[0], command=fetch)
    assert status == 1 and "is not a bundle" in said and (tmp_path / "config.json").exists()


def test_a_dry_run_of_a_release_prints_the_calls(bundle):
    command = [sys.executable, FILES / "managed.py", "--dry-run", "--bundle", bundle, "release"]
    done = subprocess.run([*command, "--python", sys.executable], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    calls = ["deployments.begin_create_or_update", ".invoke('isicvision', deployment_name='blue'"]
    places = [done.stdout.index(call) for call in [*calls, ".traffic = {'blue': 100}"]]
    assert places == sorted(places)
    assert "request_file='request.json'" in done.stdout  # and not the path of a temporary file
    assert "blue answers" not in done.stdout and "would get all requests if it answered" in done.stdout
