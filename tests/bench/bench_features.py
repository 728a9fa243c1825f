"""Images per second from files to the features of a network at 224 px on a CPU: isicvision against fastai.

``ImageClassifier.featurize`` with an empty cache, decoding and the export to ONNX included, and fastai's
``Learner.get_preds`` at its defaults, in turn, on the same HAM10000 files (200x150) and with the same weights.

``--all``: the features of all 7,006 images, and how long a second call takes that finds them in the cache.
``--memory``: the peak of memory of a training with all 7,006 images, EfficientNet-Lite0, 224 px, batches of 32. One
epoch of the last layer alone reads them all, which takes minutes; then a few steps train the whole network.
"""

import argparse
import copy
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from bench_data_path import SIZE, fastai_loaders, ham10000, in_turn, require_peers, show, show_ratio
from bench_dataset import measured, peak

from isicvision import ImageClassifier, augment_dataset, augmentation

GOALS = {"efficientnet_lite0": ("imagenet", "3 or more"), "resnet18": (None, "1.5 or more")}


def featurize(model, paths):
    """Compute features with an empty cache; return images per second and the features."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ["ISICVISION_CACHE"] = cache
        started = time.perf_counter()
        features = model.featurize(paths)
        return len(paths) / (time.perf_counter() - started), features


def get_preds(learner, paths):
    """Let fastai compute them."""
    from fastai.vision.all import noop

    with learner.no_bar():
        started = time.perf_counter()
        features, _ = learner.get_preds(dl=learner.dls.test_dl(paths, bs=64), act=noop)
        return len(paths) / (time.perf_counter() - started), features.numpy()


def learner_of(model, dataset):
    """Give fastai the network as it came, not reordered to channels_last."""
    from fastai.vision.all import CrossEntropyLossFlat, Learner

    backbone = model.backbone
    mean, std = ([value / 255 for value in values] for values in (backbone.mean, backbone.std))
    body = copy.deepcopy(model.network.body).to(memory_format=torch.contiguous_format)
    return Learner(fastai_loaders(dataset, mean, std), body, CrossEntropyLossFlat())


def compare(name, dataset, rounds):
    weights, goal = GOALS[name]
    model = ImageClassifier(name, dataset.labels, weights=weights)
    learner = learner_of(model, dataset)
    from isicvision.model import onnx as export

    started = time.perf_counter()
    export.Compiled(model.scoring_module(), SIZE)
    print(f"{name}, {len(dataset)} images; the first export takes {time.perf_counter() - started:.1f} s")
    results = in_turn(
        {
            "isicvision": lambda: featurize(model, dataset.paths),
            "fastai": lambda: get_preds(learner, dataset.paths),
        },
        rounds,
    )
    ours, theirs = (values[0][1] for values in results.values())
    alike = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    rates = {key: [rate for rate, _ in values] for key, values in results.items()}
    show(rates)
    show_ratio("isicvision, times fastai", rates["isicvision"], rates["fastai"], goal)
    started = time.perf_counter()
    export.Compiled(model.scoring_module(), SIZE)
    print(
        f"  the export, part of it from 500 images on, takes {time.perf_counter() - started:.1f} s; "
        f"the features are the same but for the resizing: cosine {alike.mean():.3f}",
        flush=True,
    )


def again(dataset, cache):
    """Print the time of a second call."""
    os.environ["ISICVISION_CACHE"] = cache
    model = ImageClassifier("efficientnet_lite0", dataset.labels)
    seconds = []
    for _ in range(4):
        started = time.perf_counter()
        model.featurize(dataset)
        seconds.append(time.perf_counter() - started)
    print(
        f"features of {len(dataset)} images: {seconds[0]:.1f} s, from the cache "
        f"{statistics.median(seconds[1:]):.2f} s (goal: less than 1)",
        flush=True,
    )


def train(cache, images, few, precision):
    """Train the last layer, then the whole network; return the peak of memory in between, in MiB."""
    os.environ["ISICVISION_CACHE"] = cache
    dataset = augment_dataset(ham10000().sample(images, balanced=True), augmentation.dermoscopy())
    model = ImageClassifier("efficientnet_lite0", dataset.labels)
    settings = {"epochs": 1, "batch_size": 32, "optimizer": "adamw", "learning_rate": 0.001}
    settings |= {"precision": precision, "progress": False}
    model.fit(dataset, freeze_epochs=1, **settings)
    frozen = peak()
    model.fit(augment_dataset(ham10000().sample(few, balanced=True), augmentation.dermoscopy()), **settings)
    return frozen


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--images", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--all", action="store_true", help="time a second call instead")
    parser.add_argument("--memory", action="store_true", help="measure the memory of a training instead")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"), help="of that training")
    parser.add_argument("--all-images", type=int, default=7006, help="how many that are, for a quick look")
    arguments = parser.parse_args()
    require_peers()
    if not arguments.all and not arguments.memory:
        for name in GOALS:
            compare(name, ham10000().sample(arguments.images, balanced=True), arguments.rounds)
    with tempfile.TemporaryDirectory() as cache:
        if arguments.memory:
            images = arguments.all_images
            frozen, whole = measured(train, cache, images, min(320, images), arguments.precision)
            print(
                f"peak of memory with {images} images in {arguments.precision}: "
                f"{frozen / 1024:.2f} GiB training the last layer, {whole / 1024:.2f} GiB the whole network "
                "(goal: 3 or less)"
            )
        if arguments.all:
            again(ham10000().sample(arguments.all_images, balanced=True), str(Path(cache, "features")))


if __name__ == "__main__":
    main()
