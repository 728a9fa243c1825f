"""The loopback double of the ISIC Archive, in a process of its own: what tests and benchmarks use.

`Double` starts and asks it, `make_archive` makes a folder to serve; archive_double.py is the server, and its
docstring lists faults, records and switches.
"""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import ProxyHandler, Request, build_opener

import numpy as np
from PIL import Image

SERVER = Path(__file__).with_name("archive_double.py")
_OPEN = build_opener(ProxyHandler({})).open  # loopback needs no proxy


class Double:
    """A running double; `stop` ends it, as does the end of this process.

    Parameters
    ----------
    folder : str or pathlib.Path
        As of `SampleArchive` in sample_data/sample_archive.py.
    port, files_port : int
        0: any that is free.
    **switches
        As of `set`.

    Attributes
    ----------
    url, files_url : str
        The archive for `IsicArchive`, and where it says that its files are. Without a slash at the end.
    folder : pathlib.Path
    """

    def __init__(self, folder, port=0, files_port=0, **switches):
        self.folder = Path(folder)
        command = [sys.executable, str(SERVER), "--child", "--folder", str(folder)]
        command += ["--port", str(port), "--files-port", str(files_port)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the double has not started: status {self.process.wait(10)} of {command}")
        addresses = json.loads(line)
        self.url, self.files_url = addresses["api"], addresses["files"]
        if switches:
            self.set(**switches)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def set(self, **order):
        """Send an order to the control path: ``faults=[…], records=[…], latency=0.05, reset=True, clear=True, …``."""
        return self._control(json.dumps(order).encode())

    def reset(self):
        """Forget log, faults, records and switches."""
        self.set(reset=True)

    def log(self, part="", port=None):
        """List the requests whose path and query hold `part`, in the order in which they came.

        Each is a dict of time (seconds since 1970), port ("api", "files"), method, path (with query), headers
        (names in lower case), attempt (from 1, by path, since the faults were set), faults, status, bytes (of
        the body), whole (sent as it should be, headers alone for HEAD), seconds (None while it is answered).
        """
        entries = self._control(query=f"?part={quote(part, safe='')}")["log"]
        return [entry for entry in entries if port in (None, entry["port"])]

    def paths(self, part="", port=None):
        """List the paths of `log`."""
        return [entry["path"] for entry in self.log(part, port)]

    def state(self):
        """Give the switches and counts: requests, bytes_sent, peak, peak_api, peak_files, peak_connections, open."""
        return self._control(query="?log=0")

    def secrets(self):
        """List the requests to the files' host that carried an Authorization or a cookie."""
        return [e for e in self.log(port="files") if {"authorization", "cookie"} & e["headers"].keys()]

    def stop(self):
        """End the process."""
        self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
        self.process.stdout.close()

    def _control(self, body=None, query=""):
        request = Request(f"{self.url}/_control{query}", body, {"Connection": "close"})
        try:
            with _OPEN(request, timeout=60) as response:
                return json.load(response)
        except HTTPError as error:
            raise ValueError(error.read().decode()) from None


def make_archive(folder, images, kilobytes=(100, 300), seed=0):
    """Make a folder of `images` synthetic JPEGs, each with bytes of its own, and metadata.csv; return it.

    Only twelve images of noise are drawn, of sizes between the two of `kilobytes`; a comment inside tells the
    files apart. Half are benign, half malignant, two of each lesion, of three attributions and licenses.
    """
    folder = Path(folder)
    (folder / "images").mkdir(parents=True)
    random, drawn = np.random.default_rng(seed), []
    for size in np.linspace(*kilobytes, 12):
        side = max(
            8, int((size * 1000 / 0.61) ** 0.5) // 8 * 8
        )  # noise takes so many bytes a pixel at quality 75
        buffer = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (side, side, 3), np.uint8)).save(buffer, "JPEG", quality=75)
        drawn.append((side, buffer.getvalue()))
    rows = []
    for number in range(images):
        isic_id = f"ISIC_{9000000 + number * 7919 % 999983:07d}"
        side, data = drawn[number * 5 % 12]
        comment = isic_id.encode()
        marked = data[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + data[2:]
        (folder / "images" / f"{isic_id}.jpg").write_bytes(marked)
        rows.append(
            {
                "isic_id": isic_id,
                "attribution": f"Synthetic Clinic {'ÄBC'[number % 3]}",
                "copyright_license": ("CC-0", "CC-BY", "CC-BY-NC")[number % 3],
                "diagnosis_1": ("Benign", "Malignant")[number % 2],
                "lesion_id": f"IL_{9000000 + number // 4 * 2 + number % 2:07d}",
                "patient_id": f"IP_{9000000 + number // 8:07d}",
                "image_type": "dermoscopic",
                "sex": ("female", "male")[number // 2 % 2],
                "age_approx": number % 18 * 5,
                "pixels_x": side,
                "pixels_y": side,
            }
        )
    with open(folder / "metadata.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder
