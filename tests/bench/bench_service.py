"""The service beside what a network alone can do, and beside the same server with a script in PyTorch.

Images of 600x450 (the bundled sample) by HTTP on this machine, whose cores the client shares; it is Python's own
http.client with kept connections, and for the row "ServiceClient" that of isicvision. All in turn, in one run; medians
over the rounds. "Alone" is decoding and the forward pass by ONNX Runtime without any server: for the latency in this
process with as many threads as there are cores, for the throughput in a process of one thread for each core.
"""

import argparse
import base64
import http.client
import json
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil

from isicvision import PROJECT_ROOT, build_bundle, deploy_local, images
from isicvision.images import decode

IMAGES = [path.read_bytes() for path in sorted(Path(PROJECT_ROOT, "sample_data/images").iterdir())[:40]]
CORES = os.cpu_count()
NETWORKS = {"efficientnet_lite0": ("imagenet", 2), "resnet18": (None, 1.3)}  # weights, goal against PyTorch
PEER = """
import base64, json, os, sys
sys.path.insert(0, {folder!r})
import numpy as np, torch
from images import decode

def init():
    global network
    torch.set_num_threads(max(1, os.cpu_count() // int(os.environ["WORKER_COUNT"])))
    {build}
    network = network.eval()
    with torch.inference_mode():
        network(torch.zeros(1, 3, 224, 224))

def run(body):
    image = base64.b64decode(json.loads(body)[0]["image_in_base64"])
    array = torch.from_numpy(decode(image, 224)[None].copy()).permute(0, 3, 1, 2)
    with torch.inference_mode():
        scores = network((array.float() - 127) / 128).softmax(1)
    return {{"predictions": [{{"scores": scores[0].tolist()}}]}}
"""
BUILD = {
    "efficientnet_lite0": "import timm; network = timm.create_model('tf_efficientnet_lite0', num_classes=2)",
    "resnet18": "import torchvision; network = torchvision.models.resnet18(num_classes=2)",
}


def peer_bundle(name, folder):
    """Write a folder that deploy_local takes for a bundle, with a script in PyTorch."""
    folder.mkdir()
    (folder / "model.json").write_text('{"version": "peer"}', encoding="utf-8")
    for file in ("images.py", "dicom.py"):  # the decoder
        (folder / file).write_bytes(Path(images.__file__).with_name(file).read_bytes())
    (folder / "score.py").write_text(PEER.format(folder=str(folder), build=BUILD[name]))
    return folder


def as_json(data):
    return json.dumps([{"image_in_base64": base64.b64encode(data).decode()}]).encode()


class Client:
    """Post over one kept connection for each thread."""

    def __init__(self, service, kind, query=""):
        self.address, self.kind, self.local = urlsplit(service.scoring_uri).netloc, kind, threading.local()
        self.path = f"/score{query}"

    def __call__(self, data):
        if not hasattr(self.local, "connection"):
            self.local.connection = http.client.HTTPConnection(self.address)
        body = as_json(data) if self.kind == "application/json" else data
        try:
            response = self._post(body)
        except ConnectionError:  # gunicorn closes a connection that was idle for two seconds
            self.local.connection.close()
            response = self._post(body)
        answer = response.read()
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {answer[:300]}")

    def _post(self, body):
        self.local.connection.request("POST", self.path, body, {"Content-Type": self.kind})
        return self.local.connection.getresponse()


def alone(bundle, threads):
    """Return a function that decodes and scores an image in this process."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(bundle / "model.onnx", options, ["CPUExecutionProvider"])
    return lambda data: session.run(["scores"], {"images": decode(data, 224)[None]})


def milliseconds(function, count):
    """Return the median of so many calls, one after the other."""
    seconds = []
    for index in range(count + 3):
        started = time.perf_counter()
        function(IMAGES[index % len(IMAGES)])
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds[3:])


def rate(function, count, connections=8):
    """Return images per second, `connections` at a time."""
    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(function, IMAGES[: 2 * connections]))
        started = time.perf_counter()
        list(pool.map(function, (IMAGES * (count // len(IMAGES) + 1))[:count]))
        return count / (time.perf_counter() - started)


def rate_alone(bundle, seconds):
    """Return images per second of this process with one thread, for so many seconds."""
    score, done = alone(bundle, 1), 0
    score(IMAGES[0])
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        score(IMAGES[done % len(IMAGES)])
        done += 1
    return done / (time.perf_counter() - started)


def show(words, values, goal=""):
    print(
        f"  {words:<58}{np.median(values):>8.2f}  ({min(values):.2f} to {max(values):.2f}){goal}", flush=True
    )


def show_ratio(words, ours, theirs, goal):
    show(words, [a / b for a, b in zip(ours, theirs, strict=True)], f"  goal {goal}")


def latency(bundle, rounds, count):
    times = {"alone": [], "raw bytes": [], "JSON": [], "ServiceClient": []}
    forward = alone(bundle, CORES)
    with deploy_local(bundle) as service:
        posts = {
            "alone": forward,
            "raw bytes": Client(service, "image/jpeg"),
            "JSON": Client(service, "application/json"),
            "ServiceClient": service.score,
        }
        for _ in range(rounds):
            for name, post in posts.items():
                times[name].append(milliseconds(post, count))
    print("latency, one request at a time, 1 worker, ms")
    for name, values in times.items():
        show(name, values)
    show_ratio("raw bytes / alone", times["raw bytes"], times["alone"], "at most 1.25")
    show_ratio("JSON / alone", times["JSON"], times["alone"], "at most 1.35")


def throughput(bundle, peer, rounds, count, goal):
    rates = {"alone, a process for each core": [], "raw bytes": [], "JSON": [], "PyTorch, JSON": []}
    spawned = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    with (
        deploy_local(bundle, workers=2) as service,
        deploy_local(peer, workers=2) as other,
        ProcessPoolExecutor(CORES, spawned) as pool,
    ):
        posts = (
            Client(service, "image/jpeg"),
            Client(service, "application/json"),
            Client(other, "application/json"),
        )
        for _ in range(rounds):
            found = [sum(pool.map(rate_alone, [bundle] * CORES, [2] * CORES))]
            found += [rate(post, each) for post, each in zip(posts, (count, count, count // 2), strict=True)]
            for values, value in zip(rates.values(), found, strict=True):
                values.append(value)
    print("throughput, 8 requests at a time, 2 workers of 1 thread, images/s")
    for name, values in rates.items():
        show(name, values)
    show_ratio(
        "raw bytes / alone", rates["raw bytes"], rates["alone, a process for each core"], "at least 0.75"
    )
    show_ratio("JSON / PyTorch", rates["JSON"], rates["PyTorch, JSON"], f"at least {goal}")


def footprint(bundle, peer, rounds):
    """Compare start and resident memory of one worker, after some requests."""
    starts, memory = ([], []), ([], [])
    for _ in range(rounds):
        for index, folder in enumerate((bundle, peer)):
            started = time.perf_counter()
            with deploy_local(folder) as service:
                post = Client(service, "application/json")
                post(IMAGES[0])
                starts[index].append(time.perf_counter() - started)
                rate(post, 40, 2)
                master = psutil.Process(service._process.pid)
                family = [master, *master.children()]
                memory[index].append(sum(each.memory_info().rss for each in family) / 2**20)
    print("one worker")
    for words, (ours, theirs), goal in (
        ("start to first answer, s", starts, "at most 0.25"),
        ("resident memory, MiB", memory, "at most 0.33"),
    ):
        show(words, ours)
        show(f"{words}, PyTorch", theirs)
        show_ratio("ratio", ours, theirs, goal)


def neighbors(rounds, count):
    """Compare two bundles of one model, without and with the 7,006 images of HAM10000 as neighbors."""
    from bench_data_path import ham10000
    from sklearn.linear_model import LogisticRegression

    from isicvision import ImageClassifier, Neighbors

    dataset = ham10000()
    model = ImageClassifier("efficientnet_lite0", dataset.labels, classifier=LogisticRegression(C=0.003))
    model.fit(dataset)
    with tempfile.TemporaryDirectory() as temporary:
        plain = build_bundle(model, Path(temporary, "plain"))
        more = build_bundle(model, Path(temporary, "more"), Neighbors(model, dataset))
        sizes = [sum(file.stat().st_size for file in folder.iterdir()) / 1e6 for folder in (plain, more)]
        print(f"bundle without and with {len(dataset):,} neighbors: {sizes[0]:.2f} and {sizes[1]:.2f} MB")
        ways = ("without", "with, not asked for", "neighbors=3", "neighbors=20")
        times = {way: [] for way in ways}
        with deploy_local(plain) as one, deploy_local(more) as other:
            posts = [Client(one, "image/jpeg"), Client(other, "image/jpeg")]
            posts += [Client(other, "image/jpeg", f"?neighbors={each}") for each in (3, 20)]
            for index in range(rounds * count):  # request by request, since the machine's speed changes
                for way, post in zip(ways, posts, strict=True):
                    started = time.perf_counter()
                    post(IMAGES[index % len(IMAGES)])
                    times[way].append(1000 * (time.perf_counter() - started))
    for way in ways:
        each = np.array(times[way][3:])
        print(f"  {way:<22} ms: median {np.median(each):.2f}, first decile {np.quantile(each, 0.1):.2f}")
    for name, share in (("medians", 0.5), ("first deciles", 0.1)):
        few, many = (np.quantile(times[way][3:], share) for way in ("without", "neighbors=3"))
        print(f"  neighbors=3 / without, {name}: {many / few:.3f}, goal at most 1.1")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", choices=NETWORKS, help="default: both, one after the other")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=40, help="in a round of the latency")
    parser.add_argument("--neighbors", action="store_true", help="what neighbors cost, and nothing else")
    options = parser.parse_args()
    if options.neighbors:
        return neighbors(options.rounds, options.requests)
    for name in [options.network] if options.network else NETWORKS:
        from isicvision import ImageClassifier

        weights, goal = NETWORKS[name]
        with tempfile.TemporaryDirectory() as temporary:
            model = ImageClassifier(name, ["benign", "malignant"], weights=weights, image_size=224)
            bundle = build_bundle(model, Path(temporary, "bundle"))
            peer = peer_bundle(name, Path(temporary, "peer"))
            print(f"{name}, {CORES} cores")
            latency(bundle, options.rounds, options.requests)
            throughput(bundle, peer, options.rounds, 5 * options.requests, goal)
            footprint(bundle, peer, min(3, options.rounds))


if __name__ == "__main__":
    main()
