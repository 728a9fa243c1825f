import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from isicvision import ImageClassifier, saliency

LABELS = ["benign", "malignant"]


def test_the_map_is_high_where_the_score_comes_from():
    """A network whose last layer adds up one channel of its last places: the map must be that channel."""
    model = ImageClassifier("resnet18", LABELS, weights=None, image_size=96, seed=0)
    images = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), np.uint8)
    with torch.no_grad():
        last = model.network.head[-1]
        last.weight.zero_()
        last.weight[1, 7] = 1.0
    seen = []
    hook = model.network.body.layer4.register_forward_hook(lambda module, _, output: seen.append(output))
    maps = saliency.grad_cam(model, images)
    hook.remove()
    assert maps.shape == (2, 96, 96) and maps.dtype == np.float32
    assert maps.min() >= 0 and maps.max() <= 1 + 1e-6
    channel = seen[-1][0, 7].detach().numpy()  # ReLU came before: none is negative
    peak = np.unravel_index(maps[0].argmax(), maps[0].shape)
    side = 96 / channel.shape[0]
    assert (int(peak[0] // side), int(peak[1] // side)) == np.unravel_index(channel.argmax(), channel.shape)
    assert not saliency.grad_cam(model, images, label="benign").any()  # nothing speaks for it


@pytest.mark.parametrize("name", ["efficientnet_lite0", "alexnet", "densenet121", "convnext_tiny"])
def test_other_networks_have_maps_and_keep_their_weights(name):
    model = ImageClassifier(name, LABELS, weights=None, image_size=96)
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    images = np.random.default_rng(0).integers(0, 256, (1, 96, 96, 3), np.uint8)
    assert saliency.grad_cam(model, images).shape == (1, 96, 96)
    assert all(torch.equal(value, before[key]) for key, value in model.network.state_dict().items())
    laid = saliency.overlay(images[0], np.zeros((96, 96), np.float32))
    assert np.array_equal(laid, images[0])


def test_models_without_places_or_gradient_say_so():
    images = np.zeros((1, 224, 224, 3), np.uint8)
    for name in ("vit_b_16", "swin_t"):
        with pytest.raises(ValueError, match="keeps no places"):
            saliency.grad_cam(ImageClassifier(name, LABELS, weights=None), images)
    model = ImageClassifier("resnet18", LABELS, weights=None, classifier=LogisticRegression())
    with pytest.raises(ValueError, match="no gradient"):
        saliency.grad_cam(model, images)
    with pytest.raises(ValueError, match="unknown label 'wart'"):
        saliency.grad_cam(model, images, label="wart")
