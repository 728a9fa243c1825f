import multiprocessing
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import draw

from isicvision.data import cache
from isicvision.images import ImageError, decode


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ISICVISION_CACHE", str(tmp_path / "cache"))


def files():
    return [path for path in cache.folder().rglob("*") if path.is_file() and path.suffix != ".sqlite"]


def no_decoding(*_):
    raise AssertionError("decoded although the cache should hold it")


def test_images_are_decoded_once_and_equal_decode(dataset, monkeypatch):
    first = cache.Images(dataset.paths, 32)[:]
    monkeypatch.setattr(cache, "decode", no_decoding)
    again = cache.Images(dataset.paths, 32)
    assert np.array_equal(again[:], first) and again.shape == (24, 32, 32, 3)
    assert np.array_equal(again[[5, 3]], first[[5, 3]]) and np.array_equal(again[-2:], first[-2:])
    monkeypatch.undo()
    assert np.array_equal(first[7], decode(dataset.paths[7], 32))


def test_the_key_is_the_content_so_a_moved_image_is_known_and_a_changed_one_is_not(tmp_path):
    one = draw(tmp_path / "one.png", (200, 10, 10), 1)
    first = cache.Images([one], 16)
    moved = one.rename(tmp_path / "two.png")
    assert cache.keys([moved]) == first.keys and len(files()) == 1
    status = moved.stat()
    draw(moved, (10, 10, 200), 2)
    os.utime(moved, ns=(status.st_atime_ns, status.st_mtime_ns))  # a tool that hides the change
    assert cache.keys([moved]) != first.keys
    assert cache.Images([moved], 16)[[0]].mean(axis=(0, 1, 2))[2] > 150


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "delete", "longer"])
def test_damaged_files_are_made_again(dataset, damage):
    first = cache.Images(dataset.paths, 32)[:]
    opened = cache.Images(dataset.paths, 32)  # damage comes while the cache is in use, too
    for path in files():
        content = bytearray(path.read_bytes())
        content[100] ^= 255
        new = {"flip": content, "cut": content[:50], "empty": b"", "longer": path.read_bytes() + b"x"}
        path.unlink() if damage == "delete" else path.write_bytes(new[damage])
    assert np.array_equal(opened[:], first)
    assert np.array_equal(cache.Images(dataset.paths, 32)[:], first)
    assert len(files()) == 24 and {path.stat().st_size for path in files()} == {32 * 32 * 3 + 4}


def test_a_damaged_index_of_keys_is_made_again(dataset):
    first = cache.keys(dataset.paths)
    (cache.folder() / "keys.sqlite").write_text("no database" * 1000, encoding="utf-8")
    assert cache.keys(dataset.paths) == first
    assert cache.keys(dataset.paths) == first


def _build(folder, paths, queue):
    os.environ["ISICVISION_CACHE"] = str(folder)
    images = cache.Images(paths, 48, progress=None)
    queue.put(int(images[:].astype(np.int64).sum()))


def test_an_index_that_cannot_be_read_or_replaced_is_done_without(dataset):
    index = cache.folder() / "keys.sqlite"
    index.unlink(missing_ok=True)
    index.mkdir(parents=True)
    try:
        assert None not in cache.keys(dataset.paths)
    finally:
        index.rmdir()
    odd = "\udce9.jpg"  # a name that is no UTF-8
    assert cache.keys([dataset.paths[0], odd]) == [*cache.keys(dataset.paths[:1]), None]


def test_two_runs_may_build_it_at_once(dataset):
    spawn = multiprocessing.get_context("spawn")
    queue = spawn.Queue()
    runs = [spawn.Process(target=_build, args=(cache.folder(), dataset.paths, queue)) for _ in range(2)]
    for run in runs:
        run.start()
    sums = [queue.get(timeout=60) for _ in runs]
    for run in runs:
        run.join(timeout=60)
        assert run.exitcode == 0
    expected = sum(int(decode(path, 48).astype(np.int64).sum()) for path in dataset.paths)
    assert sums == [expected] * 2 and len(files()) == 24


def test_it_stays_within_its_bound_and_gives_up_what_was_not_used_for_longest(dataset, monkeypatch):
    monkeypatch.setenv("ISICVISION_CACHE_GB", str(20 * (32 * 32 * 3 + 4) / 1e9))
    cache.Images(dataset.paths[:12], 32)
    for path in files():
        os.utime(path, (1, 1))
    recent = cache.Images(dataset.paths[12:], 32)
    assert len(files()) == 20
    assert all(recent._arrays.path(key).exists() for key in recent.keys)


def test_more_than_its_bound_is_decoded_anew_with_a_warning(dataset, monkeypatch):
    monkeypatch.setenv("ISICVISION_CACHE_GB", str(5 * (32 * 32 * 3 + 4) / 1e9))
    with pytest.warns(UserWarning, match="ISICVISION_CACHE_GB"):
        images = cache.Images(dataset.paths, 32)
    assert len(files()) in (5, 6)  # two threads may both take the last place
    assert np.array_equal(images[[20]][0], decode(dataset.paths[20], 32))


@pytest.mark.parametrize("value", ["much", "nan", "inf"])
def test_a_bound_that_is_no_number_is_named(dataset, monkeypatch, value):
    monkeypatch.setenv("ISICVISION_CACHE_GB", value)
    with pytest.raises(ValueError, match=f"ISICVISION_CACHE_GB is a number of GB, such as 20, not '{value}'"):
        cache.Images(dataset.paths, 32)


def test_a_full_disk_is_warned_of_once_and_nothing_is_lost(dataset, monkeypatch):
    real, left = os.replace, iter(range(7))

    def replace(*names):
        if next(left, None) is None:
            raise OSError(28, "No space left on device")
        real(*names)

    monkeypatch.setattr(os, "replace", replace)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        images = cache.Images(dataset.paths, 32)
    assert 1 <= len(seen) <= 2 and "No space left on device" in str(
        seen[0].message
    )  # two threads may both see it
    assert len(files()) == 7 and not images.broken
    assert np.array_equal(images[:][11], decode(dataset.paths[11], 32))


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a small disk needs root"
)
def test_on_a_real_disk_that_is_full_training_data_still_come(dataset, tmp_path, monkeypatch):
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=64k tmpfs {disk} 2>/dev/null"):
        pytest.skip("this machine lets nobody mount a disk")
    try:
        monkeypatch.setenv("ISICVISION_CACHE", str(disk))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            images = cache.Images(dataset.paths, 64)
            assert np.array_equal(images[:][23], decode(dataset.paths[23], 64))
        assert not [path for path in disk.rglob(".*") if path.is_file()]  # no halves left over
    finally:
        os.system(f"umount {disk}")


def test_broken_images_are_reported_by_name(dataset, tmp_path):
    text = tmp_path / "text.jpg"
    text.write_text("no image", encoding="utf-8")
    images = cache.Images([*dataset.paths, text, tmp_path / "absent.jpg"], 32)
    assert [Path(path).name for path in images.broken] == ["text.jpg", "absent.jpg"]
    with pytest.raises(ImageError, match=r"(?s)2 of 26.*dataset\.measure\(\).*text\.jpg.*absent\.jpg"):
        images.require_all()


def test_vectors_are_computed_once_for_each_content(dataset):
    images, asked = cache.Images(dataset.paths, 16), []

    def compute(numbers):
        asked.extend(numbers)
        return np.arange(len(numbers) * 4, dtype=np.float32).reshape(-1, 4)

    first = cache.through("vectors", 4, images, compute)
    assert np.array_equal(cache.through("vectors", 4, images, compute), first) and asked == list(range(24))
    (cache.Arrays("vectors", (4,), np.float32).path(images.keys[2])).write_bytes(b"damaged")
    cache.through("vectors", 4, images, compute)
    assert asked[24:] == [2]


def test_memory_stays_flat(dataset):
    """Reading batch after batch must not add up to the size of the cache."""
    import psutil

    images = cache.Images(dataset.paths, 1024)  # 3 MB each
    process = psutil.Process()
    images[[0]]
    before = process.memory_info().rss
    for number in range(24):
        images[[number]]
    assert process.memory_info().rss - before < 20e6


def test_clear_deletes_it(dataset):
    cache.Images(dataset.paths, 16)
    cache.clear()
    assert not cache.folder().exists()


def test_files_of_the_users_in_its_folder_stay(dataset, monkeypatch):
    photo = cache.folder() / "photos" / "ab" / "mine.jpg"
    photo.parent.mkdir(parents=True)
    photo.write_bytes(b"mine" * 1000)
    monkeypatch.setenv("ISICVISION_CACHE_GB", "0.000001")
    with pytest.warns(UserWarning, match="ISICVISION_CACHE_GB"):
        cache.Images(dataset.paths, 32)
    monkeypatch.delenv("ISICVISION_CACHE_GB")
    cache.Images(dataset.paths, 32)
    cache.clear()
    assert [path for path in cache.folder().rglob("*") if path.is_file()] == [photo]


def test_a_cache_that_is_anothers_is_read_all_the_same(dataset, monkeypatch):
    first = cache.Images(dataset.paths, 32)[:]

    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    with monkeypatch.context() as patch:
        patch.setattr(cache, "decode", None)
        assert np.array_equal(cache.Images(dataset.paths, 32)[:], first)
    monkeypatch.setenv("ISICVISION_CACHE_GB", "0.000001")
    with pytest.warns(UserWarning, match="ISICVISION_CACHE_GB"):  # nothing there may be deleted
        cache.Images(dataset.paths, 16)
