"""Large collections: a table of 500,000 rows, a folder of 100,000 files, near-duplicates among 100,000 hashes.

Each measurement has a process of its own, for its peak memory; peers do the same work in another. Files are empty and
lie in a temporary folder; making them takes most of a minute.
"""

import multiprocessing
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

ROWS, FILES, HASHES, THRESHOLD = 500_000, 100_000, 100_000, 4


def measured(function, *arguments):
    """Run in a fresh process; return what it returns and its peak memory in MiB.

    A process starts with its parent's peak, so this one does nothing large itself.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        result = pool.submit(function, *arguments).result()
        return result, pool.submit(peak).result()


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def timed(function, *arguments, **keywords):
    started = time.perf_counter()
    result = function(*arguments, **keywords)
    return result, time.perf_counter() - started


def collection(root, n, per_folder=5000):
    """Write `n` empty images in subfolders of two labels, and a metadata.csv with about two images a lesion."""
    random = np.random.default_rng(0)
    labels = np.where(random.random(n) < 0.2, "malignant", "benign")
    for number in range(n):
        folder = root / labels[number] / f"{number // per_folder:03d}"
        if number % per_folder == 0:
            for label in ("benign", "malignant"):
                (root / label / folder.name).mkdir(parents=True)
        (folder / f"ISIC_{number:07d}.jpg").touch()
    pd.DataFrame(
        {
            "image_id": [f"ISIC_{number:07d}" for number in range(n)],
            "lesion_id": [f"L{lesion:07d}" for lesion in random.integers(0, n, n)],
            "age": random.integers(1, 18, n) * 5,
            "sex": random.choice(["male", "female", ""], n),
            "diagnosis": labels,
        }
    ).to_csv(root / "metadata.csv", index=False)


def table(root):
    from isicvision import ImageDataset

    dataset, read = timed(ImageDataset.from_csv, root / "metadata.csv", label_column="diagnosis")
    _, summary = timed(dataset.summary)
    parts, split = timed(dataset.split, 0.6, 0.2, 0.2)
    assert sum(map(len, parts)) == len(dataset) == ROWS
    return {"from_csv": read, "summary": summary, "split": split}


def peers_of_split(root):
    """Let scikit-learn make the nearest things to split: one part of 20 %, and five folds; ours beside them."""
    from sklearn.model_selection import GroupShuffleSplit, StratifiedGroupKFold

    from isicvision import ImageDataset

    frame = pd.read_csv(root / "metadata.csv")
    frame = pd.DataFrame(
        {"path": frame["image_id"], "label": frame["diagnosis"], "group": frame["lesion_id"]}
    )
    dataset = ImageDataset(frame)
    arguments = frame["path"], frame["label"], frame["group"]
    # its time grows with groups times folds times labels in Python: a tenth of the table is enough to see
    few = frame[: len(frame) // 10]
    few_arguments = few["path"], few["label"], few["group"]
    return {
        "ours, 80/20": timed(dataset.split, 0.8, 0.2)[1],
        "GroupShuffleSplit, not stratified": timed(
            lambda: next(GroupShuffleSplit(1, test_size=0.2, random_state=0).split(*arguments))
        )[1],
        "ours, five folds of a tenth": timed(ImageDataset(few).folds, 5)[1],
        "StratifiedGroupKFold of a tenth": timed(
            lambda: list(StratifiedGroupKFold(5, shuffle=True, random_state=0).split(*few_arguments))
        )[1],
    }


def folder(root):
    from isicvision import ImageDataset

    dataset, seconds = timed(ImageDataset.from_folder, root)
    assert len(dataset) == FILES
    return seconds


def hashes():
    """Draw hashes, a fifth of them a few bits off another."""
    random = np.random.default_rng(0)
    drawn = random.integers(0, 2**64, HASHES, dtype=np.uint64)
    near = HASHES // 5
    drawn[-near:] = drawn[:near]
    for _ in range(THRESHOLD):
        drawn[-near:] ^= np.uint64(1) << random.integers(0, 64, near).astype(np.uint64)
    return drawn


def near(crowd):
    from isicvision.data.duplicates import near_pairs

    drawn = hashes()
    if crowd:
        drawn[1000:6000] = drawn[0]
    (first, _, _), seconds = timed(near_pairs, drawn, THRESHOLD)
    return len(first), seconds


def brute_force():
    """Compare each hash with all that follow, in numpy."""
    drawn = hashes()

    def compare():
        return sum(
            int((np.bitwise_count(drawn[n + 1 :] ^ drawn[n]) <= THRESHOLD).sum()) for n in range(len(drawn))
        )

    return timed(compare)


def imagehash_loop(n=1000):
    """Compare `n` hashes pair by pair with ImageHash's own distance; return seconds for all of them."""
    import imagehash

    few = [imagehash.hex_to_hash(f"{value:016x}") for value in hashes()[:n]]
    _, seconds = timed(lambda: [a - b <= THRESHOLD for i, a in enumerate(few) for b in few[i + 1 :]])
    return seconds * (HASHES / n) ** 2


def main():
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        measured(collection, root, ROWS)
        seconds, memory = measured(table, root)
        steps = ", ".join(f"{step} {took:.1f} s" for step, took in seconds.items())
        total = sum(seconds.values())
        print(f"table of {ROWS:,} rows: {steps}; {total:.1f} s of 20 s, peak {memory:.0f} MiB of 1536 MiB")
        peers, _ = measured(peers_of_split, root)
        for step, took in peers.items():
            print(f"  {step}: {took:.2f} s")
        ours, theirs, our_folds, their_folds = peers.values()
        print(f"  ratios: {theirs / ours:.2f} and {their_folds / our_folds:.1f}")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        measured(collection, root, FILES)
        seconds, memory = measured(folder, root)
        print(f"folder of {FILES:,} files: {seconds:.1f} s of 15 s, peak {memory:.0f} MiB")
    for crowd, what in ((False, "random"), (True, "5,000 of them equal")):
        (pairs, seconds), memory = measured(near, crowd)
        print(f"{HASHES:,} hashes, {what}: {pairs:,} pairs, {seconds:.2f} s of 60 s, peak {memory:.0f} MiB")
        if not crowd:
            ours, expected = seconds, pairs
    (found, theirs), _ = measured(brute_force)
    print(
        f"  all pairs in numpy: {theirs:.1f} s, {theirs / ours:.0f} times; of its pairs found: {expected / found:.1%}"
    )
    theirs, _ = measured(imagehash_loop)
    print(f"  ImageHash in a loop, from 1,000: {theirs / 3600:.1f} hours")


if __name__ == "__main__":
    main()
