"""The bundle in an environment of its own: requirements.txt, and nothing else, serves the model."""

import os
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np
import onnxruntime
import pytest
from conftest import environment_with
from test_deployment import image

from isicvision import ImageClassifier, build_bundle, deploy_local
from isicvision.images import decode

SIZE, MEGABYTES = 96, 400


@pytest.fixture(scope="module")
def model():
    return ImageClassifier("resnet18", ["benign", "malignant"], weights=None, image_size=SIZE)


@pytest.fixture(scope="module")
def bundle(model, tmp_path_factory):
    return build_bundle(model, tmp_path_factory.mktemp("fresh") / "bundle")


@pytest.fixture(scope="module")
def own_python(bundle, tmp_path_factory):
    return environment_with(bundle / "requirements.txt", tmp_path_factory.mktemp("service"))


@pytest.mark.xdist_group("service-python")  # the environment is made once
def test_the_bundle_needs_only_its_requirements(model, bundle, own_python, tmp_path):
    names = ("torch", "timm", "sklearn", "isicvision")
    code = f"import importlib.util as i; print([name for name in {names} if i.find_spec(name)])"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    found = subprocess.run(
        [own_python, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert found.stdout == "[]\n", found.stdout + found.stderr
    files = [
        path for path in Path(own_python).parents[1].rglob("*") if path.is_file() and not path.is_symlink()
    ]
    size = sum(path.stat().st_size for path in files) / 1e6
    assert size < MEGABYTES

    data = image(3, (400, 300))
    path = tmp_path / "image.jpg"
    path.write_bytes(data)
    started = time.monotonic()
    with (
        mock.patch.object(sys, "executable", str(own_python)),
        mock.patch.dict(os.environ, environment, clear=True),
        deploy_local(bundle, workers=2) as service,
    ):
        scores = [*service.score(data)["scores"].values()]
        seconds = time.monotonic() - started
        command = Path(f"/proc/{service._process.pid}/cmdline")
        if command.exists():  # on Linux
            assert command.read_bytes().startswith(os.fsencode(own_python))
    print(f"{size:.0f} MB installed, {seconds:.1f} s from the start to the first answer")

    session = onnxruntime.InferenceSession(bundle / "model.onnx")
    by_onnx = session.run(["scores"], {"images": decode(data, SIZE, model.metadata["interpolation"])[None]})[
        0
    ][0]
    np.testing.assert_allclose(scores, by_onnx, atol=1e-4)
    np.testing.assert_allclose(scores, model.predict_proba([path])[0], atol=1e-4)
