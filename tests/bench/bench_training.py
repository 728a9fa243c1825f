"""Images per second of one epoch of ResNet-18 at 224 px, batch 32, on a CPU: isicvision, fastai and torchvision.

In turn, on HAM10000 reduced to 200x150 and on files of 1022x767:

* the bare step on images that are decoded, augmented and in memory: plain fp32 as the peers do it, and the network of
  isicvision (channels_last) in fp32 and in the precision that ``precision="auto"`` takes here;
* fastai's Learner at its defaults (Resize(224), aug_transforms, a worker a core, Adam);
* a loop with the defaults of torchvision's reference training (SGD, fp32), with and without workers;
* ``ImageClassifier.fit`` with the augmentation of 2018, its cache filled before (that is timed apart).

No weights are loaded, so nothing is learnt that would be worth a look. That 16 bits lose no accuracy ``--auc`` shows
instead: EfficientNet-Lite0 fine-tuned on HAM10000 in fp32 and bf16, several seeds, tested on other lesions.
"""

import argparse
import dataclasses
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from bench_data_path import (
    BATCH,
    MEAN,
    SIZE,
    STD,
    copies,
    fastai_loaders,
    ham10000,
    in_turn,
    require_peers,
    show,
    show_ratio,
    torchvision_loader,
)
from sklearn.metrics import roc_auc_score
from torch.nn.functional import cross_entropy
from torchvision.models import resnet18

from isicvision import ImageClassifier, augment_dataset, augmentation, record
from isicvision.data import cache
from isicvision.model import devices, training


def processor():
    """Name the processor and what it has for bf16."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return record.machine()["processor"]
    has = ", ".join(f"{name}: {'yes' if name in flags else 'no'}" for name in ("avx512_bf16", "amx_bf16"))
    return f"{record.machine()['processor']}, {torch.get_num_threads()} threads, {has}"


def train(network, optimizer, batches, precision="fp32"):
    """Train for one pass, the shortest way there is; return images per second."""
    network.train()
    started, count = time.perf_counter(), 0
    for images, targets in batches:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = cross_entropy(network(images).float(), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # all loops tell the loss
        count += len(images)
    return count / (time.perf_counter() - started)


def torchvision(batches):
    """Train in the way of torchvision's reference training."""
    network = resnet18(num_classes=2)
    return train(network, torch.optim.SGD(network.parameters(), 0.1, 0.9, weight_decay=1e-4), batches)


def fastai(dataset):
    from fastai.vision.all import CrossEntropyLossFlat, Learner

    loaders = fastai_loaders(dataset)
    learner = Learner(loaders, resnet18(num_classes=2), CrossEntropyLossFlat())
    with learner.no_bar(), learner.no_logging():
        started = time.perf_counter()
        learner.fit(1)
    return loaders.train.n // BATCH * BATCH / (time.perf_counter() - started)  # it drops the rest


@devices.memory_kept()  # the same conditions
def bare(dataset, precision, batches):
    """Make the steps of `ImageClassifier.fit` on batches in memory."""
    network = ImageClassifier("resnet18", dataset.labels, weights=None).network
    optimizer = training.TORCH_OPTIMIZERS["sgd"](network.parameters(), lr=0.01, weight_decay=0.0005)
    return train(network, optimizer, batches, precision)


def fit(dataset, precision):
    model = ImageClassifier("resnet18", dataset.labels, weights=None)
    dataset = augment_dataset(dataset, augmentation.original_2018())
    history = model.fit(dataset, epochs=1, batch_size=BATCH, precision=precision, progress=False)
    return len(dataset) / history.table["seconds"].sum()


def compare(dataset, rounds):
    """Print the rates of all on one dataset."""
    started = time.perf_counter()
    images = cache.Images(dataset.paths, SIZE)
    print(f"  the cache filled once at {len(dataset) / (time.perf_counter() - started):.0f} images/s")
    # batches of one label only would make gradients too small for normal numbers, and steps 80 times as long
    order = np.random.default_rng(0).permutation(len(dataset))
    decoded = torch.from_numpy(images[order])
    targets = torch.tensor([dataset.labels.index(label) for label in dataset.table["label"]])[order]
    in_memory = [*zip(decoded.split(BATCH), targets.split(BATCH), strict=True)]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    floats = [((x.permute(0, 3, 1, 2) / 255 - mean) / std).contiguous() for x, _ in in_memory]
    floats = [*zip(floats, targets.split(BATCH), strict=True)]

    with devices.memory_kept():
        seconds = devices.time_precisions(
            ImageClassifier("resnet18", dataset.labels, weights=None).network.train(), *in_memory[0]
        )
    auto = "bf16" if seconds["fp32"] / seconds["bf16"] >= devices.WORTH else "fp32"
    times = ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items())
    print(f"  a step takes {times}: auto is {auto}", flush=True)

    precisions = [*dict.fromkeys(["fp32", auto])]
    variants = {"bare step, plain fp32": lambda: torchvision(floats)}
    for precision in precisions:
        variants |= {
            f"bare step, isicvision {precision}": lambda p=precision: bare(dataset, p, in_memory),
            f"isicvision {precision}": lambda p=precision: fit(dataset, p),
        }
    variants |= {
        "fastai": lambda: fastai(dataset),
        "torchvision, 0 workers": lambda: torchvision(torchvision_loader(dataset, 0)),
        "torchvision, 2 workers": lambda: torchvision(torchvision_loader(dataset, 2)),
    }
    rates = in_turn(variants, rounds)
    show(rates)
    for precision in precisions:
        whole, step = rates[f"isicvision {precision}"], rates[f"bare step, isicvision {precision}"]
        show_ratio(f"{precision}: time of an epoch to that of its bare steps", step, whole, "1.05 or less")
    best = [max(pair) for pair in zip(*[rates[f"torchvision, {n} workers"] for n in (0, 2)], strict=True)]
    ours = rates[f"isicvision {auto}"]
    show_ratio("isicvision auto, times fastai", ours, rates["fastai"], "2.5 or more with native bf16")
    show_ratio("isicvision auto, times torchvision's better", ours, best, "2.3 or more with native bf16")
    show_ratio("isicvision fp32, times fastai", rates["isicvision fp32"], rates["fastai"], "none")


def compare_aucs(images, size, epochs, seeds):
    """Print the ROC AUC of trainings in fp32 and bf16 on the same split."""
    train_part, test = ham10000().split(0.7, 0.3)
    # random rows: sample() would take as many of each label
    few = train_part.table.sample(min(images, len(train_part)), random_state=0)
    train_part = dataclasses.replace(train_part, table=few)
    train_part = augment_dataset(train_part, augmentation.original_2018())
    targets = (test.table["label"] == "malignant").to_numpy()
    aucs = {"fp32": [], "bf16": []}
    for seed in range(seeds):
        for precision, values in aucs.items():
            model = ImageClassifier(
                "efficientnet_lite0", test.labels, image_size=size, dropout=0.2, seed=seed
            )
            model.fit(
                train_part,
                epochs=epochs,
                batch_size=BATCH,
                learning_rate=0.002,
                schedule="one_cycle",
                optimizer="adamw",
                body_rate=0.5,
                class_weight="balanced",
                precision=precision,
                progress=False,
            )
            values.append(roc_auc_score(targets, model.predict_proba(test)[:, 1]))
            print(f"  seed {seed}, {precision}: ROC AUC {values[-1]:.4f}", flush=True)
    lost = [full - half for full, half in zip(*aucs.values(), strict=True)]
    print(
        f"  fp32 {statistics.mean(aucs['fp32']):.4f}, bf16 {statistics.mean(aucs['bf16']):.4f}; lost by bf16, by "
        f"seed: {', '.join(f'{value:+.4f}' for value in lost)}; between seeds fp32 varies by "
        f"{max(aucs['fp32']) - min(aucs['fp32']):.4f}"
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--images", type=int, default=320, help="in an epoch, a multiple of 32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--auc", action="store_true", help="compare accuracies instead")
    parser.add_argument("--auc-images", type=int, default=1500, help="to train with")
    parser.add_argument("--auc-size", type=int, default=96, help="pixels")
    parser.add_argument("--auc-epochs", type=int, default=3)
    parser.add_argument("--auc-seeds", type=int, default=3)
    arguments = parser.parse_args()
    require_peers()
    print(processor())
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["ISICVISION_CACHE"] = str(Path(temporary, "cache"))
        if arguments.auc:
            compare_aucs(arguments.auc_images, arguments.auc_size, arguments.auc_epochs, arguments.auc_seeds)
            return
        sets = {
            "200x150": ham10000().sample(arguments.images, balanced=True),
            "1022x767": copies(arguments.images, Path(temporary, "images")),
        }
        for name, dataset in sets.items():
            print(f"{len(dataset)} images of {name}")
            compare(dataset, arguments.rounds)


if __name__ == "__main__":
    main()
