"""Images per second from 1022x767 files to batches for a network of 224 px: isicvision, fastai and torchvision.

The data path alone, no network: one pass over the files in turn, each as one trains from it at its defaults, up to
normalized float32 on the CPU. isicvision reads its cache, filled before (that is timed apart); fastai does
Resize(224) and aug_transforms; torchvision what its reference training does. Decoding alone is in bench_decode.py.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from isicvision import PROJECT_ROOT, ImageDataset, augmentation
from isicvision.data import cache
from isicvision.model import backbones, inputs
from isicvision.model.settings import Settings

REAL = Path(PROJECT_ROOT).parent / "shared" / "data"
MALIGNANT, BENIGN = ("mel", "bcc", "akiec"), ("nv", "bkl", "df", "vasc")
LABELS = dict.fromkeys(MALIGNANT, "malignant") | dict.fromkeys(BENIGN, "benign")
SIZE, BATCH = 224, 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def require_peers():
    """End the script, as done, where the real images or fastai are not there."""
    if not REAL.is_dir():
        sys.exit(print(f"skipped: there are no real images in {REAL}"))
    try:
        import fastai  # noqa: F401
    except ModuleNotFoundError:
        sys.exit(print('skipped: fastai is not installed: pip install -e ".[bench]"'))


def ham10000():
    """Return the 7,006 images of 200x150."""
    root = REAL / "ham10000_200x150"
    return ImageDataset.from_csv(
        root / "metadata.csv", label_column="dx", group_column="lesion_id", label_map=LABELS
    )


def copies(count, folder):
    """Write `count` files that hold the ten images of 1022x767, no two of them the same bytes."""
    originals = sorted((REAL / "isic_sample").glob("*/*.jpg"))
    for number in range(count):
        original = originals[number % len(originals)]
        target = Path(folder, original.parent.name, f"{original.stem}_{number}.jpg")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(original.read_bytes() + number.to_bytes(4, "big"))  # decoders ignore what follows
    return ImageDataset.from_folder(folder)


def fastai_loaders(dataset, mean=MEAN, std=STD):
    """Return fastai's DataLoaders at their defaults: as many workers as cores, all images for training."""
    from fastai.vision import all as vision

    block = vision.DataBlock(
        (vision.ImageBlock, vision.CategoryBlock),
        get_x=vision.ColReader("path"),
        get_y=vision.ColReader("label"),
        splitter=vision.IndexSplitter([]),
        item_tfms=vision.Resize(SIZE),
        batch_tfms=[*vision.aug_transforms(), vision.Normalize.from_stats(mean, std, cuda=False)],
    )
    return block.dataloaders(dataset.table, bs=BATCH, device=torch.device("cpu"))


class Files(Dataset):
    """Images and labels with the augmentation of torchvision's reference training."""

    def __init__(self, dataset):
        self.paths, labels = dataset.paths, dataset.labels
        self.targets = [labels.index(label) for label in dataset.table["label"]]
        self.transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(SIZE),
                transforms.RandomHorizontalFlip(),
                transforms.PILToTensor(),
                transforms.ConvertImageDtype(torch.float),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, number):
        with Image.open(self.paths[number]) as image:
            return self.transform(image.convert("RGB")), self.targets[number]


def torchvision_loader(dataset, workers):
    return DataLoader(Files(dataset), BATCH, shuffle=True, num_workers=workers)


def isicvision_batches(images, augmenter, workers):
    """Yield the batches of an epoch as the training loop reads them, normalized as its network does."""
    parts = inputs.Parts(images, augmentation.Pipeline(augmenter, 0))
    order = inputs.order_of(range(len(images)), Settings(), 0, 0)
    wanted = [(order[first:last], order[first:last]) for first, last in inputs.steps(len(images), BATCH)]
    network = backbones.get("resnet18")
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (network.mean, network.std))
    for batch in inputs.load(parts, wanted, torch.device("cpu"), workers):
        yield batch.permute(0, 3, 1, 2).float().sub_(mean).div_(std), None


def rate(batches):
    """Return images per second of one pass."""
    started, count = time.perf_counter(), 0
    for images, _ in batches:
        count += len(images)
    return count / (time.perf_counter() - started)


def in_turn(variants, rounds):
    """Call all variants once a round, each round beginning with another one: dict of name to list of results."""
    results = {name: [] for name in variants}
    for turn in range(rounds):
        first = turn % len(variants)
        for name in [*variants][first:] + [*variants][:first]:
            results[name].append(variants[name]())
    return results


def show(rates):
    for name, values in rates.items():
        print(f"  {name}: {statistics.median(values):.1f} images/s ({min(values):.1f} to {max(values):.1f})")


def show_ratio(what, fast, slow, goal):
    """Print the median of the rounds' ratios."""
    ratio = statistics.median(a / b for a, b in zip(fast, slow, strict=True))
    print(f"  {what}: {ratio:.2f} (goal: {goal})", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    require_peers()
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["ISICVISION_CACHE"] = str(Path(temporary, "cache"))
        dataset = copies(arguments.images, Path(temporary, "images"))
        started = time.perf_counter()
        images = cache.Images(dataset.paths, SIZE)
        filled = len(dataset) / (time.perf_counter() - started)
        loaders = fastai_loaders(dataset)
        variants = {
            f"isicvision, {name}, {workers} workers": lambda make=make, workers=workers: isicvision_batches(
                images, make(), workers
            )
            for name, make in (
                ("flip and crop", augmentation.original_2018),
                ("dermoscopy", augmentation.dermoscopy),
            )
            for workers in (0, 2)
        } | {
            f"fastai, {loaders.train.fake_l.num_workers} workers": lambda: loaders.train,
            "torchvision, 0 workers": lambda: torchvision_loader(dataset, 0),
            "torchvision, 2 workers": lambda: torchvision_loader(dataset, 2),
        }
        rates = in_turn(
            {name: lambda make=make: rate(make()) for name, make in variants.items()}, arguments.rounds
        )
    print(f"{len(dataset)} images of 1022x767, the cache filled once at {filled:.0f} images/s")
    show(rates)
    *ours, fastai, plain, with_workers = rates.values()
    crop, dermoscopy, best = (
        [max(pair) for pair in zip(*pairs, strict=True)]
        for pairs in (ours[:2], ours[2:], (plain, with_workers))
    )
    show_ratio("flip and crop, times fastai", crop, fastai, "10 or more")
    show_ratio("flip and crop, times torchvision's better", crop, best, "3 or more")
    show_ratio("dermoscopy, times torchvision's better", dermoscopy, best, "1.5 or more")


if __name__ == "__main__":
    main()
