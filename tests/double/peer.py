"""The two clients that the benchmarks run beside each other, each in a process of its own: isicvision and isic-cli."""

import os
import socket
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ISIC_CLI = "isic-cli==12.4.0"
PORT = 8000  # the only place on loopback where isic-cli looks for an archive
_OURS = """
import json, sys
from pathlib import Path
from isicvision import IsicArchive
url, folder, connections, timeout = sys.argv[1:]
archive = IsicArchive(url)
if float(timeout):
    archive.session.timeout = (5, float(timeout), 600)
report = archive.download(folder, connections=int(connections), progress=False)
stems = lambda paths: [Path(path).stem for path in paths]
print(json.dumps({"fetched": stems(report.fetched), "present": stems(report.present),
                  "failed": report.failed, "skipped": report.skipped}))
"""


def ours(url, folder, connections, timeout=0):
    """Give the command that downloads all of `url` with isicvision and prints its report as JSON.

    `timeout` is how many seconds it waits for the next bytes, 0 its default.
    """
    return [sys.executable, "-c", _OURS, url, str(folder), str(connections), str(timeout)]


def isic_cli(folder):
    """Give the command that downloads all of 127.0.0.1:8000 with isic-cli; RuntimeError says why there is none.

    It is installed once, into an environment of its own in the folder for temporary files.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError as error:
            raise RuntimeError(f"isic-cli needs port {PORT}: {error}") from None
    home = Path(tempfile.gettempdir()) / f"isicvision-bench-{ISIC_CLI.replace('==', '-')}"
    program = home / "bin" / "isic"
    if not program.exists():
        venv.create(home, with_pip=True)
        result = subprocess.run(
            [home / "bin" / "python", "-m", "pip", "install", "--quiet", ISIC_CLI],
            capture_output=True,
            text=True,
        )
        if result.returncode:
            raise RuntimeError(f"{ISIC_CLI} cannot be installed: {result.stderr.strip()[-300:]}")
    return [str(program), "--dev", "--guest", "--no-version-check", "image", "download", str(folder)]


def environment():
    """Give the environment for both: loopback needs no proxy."""
    return {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
