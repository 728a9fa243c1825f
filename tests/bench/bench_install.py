"""Seconds of the installation that `make install` makes, by pip and by uv, with an empty cache and with a full one.

It asks the public index, and needs 7 GB of disk for an environment and as much for the caches.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = re.search(r'-e "(\.\[notebooks.*?\])"', (ROOT / "Makefile").read_text())[1].replace("$(,)", ",")


def install(tool, folder):
    """Make an environment and install into it as the Makefile does, with the caches in `folder`; return the seconds."""
    shutil.rmtree(folder / "venv", ignore_errors=True)
    python, uv = folder / "venv" / "bin" / "python", folder / "venv" / "bin" / "uv"
    own = {"PIP_CONFIG_FILE": os.devnull, "PIP_CACHE_DIR": folder / "pip", "UV_CACHE_DIR": folder / "uv"}
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_", "PYTHON"))
    }
    pip = [python, "-m", "pip", "install", "--quiet", "-c", "constraints.txt"]
    lines = [[sys.executable, "-m", "venv", folder / "venv"], [*pip, "-e", EXTRAS]]
    if tool == "uv":
        by_uv = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", python, *pip[-2:]]
        lines[1:] = [[*pip, "uv"], [*by_uv, "-e", EXTRAS]]
    started = time.monotonic()
    for line in lines:
        subprocess.run(line, cwd=ROOT, env=kept | own, check=True)
    return time.monotonic() - started


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for cache in ("empty", "full"):
            pip, uv = (install(tool, Path(folder)) for tool in ("pip", "uv"))
            print(
                f"cache {cache}: pip {pip:.0f} s, uv {uv:.0f} s, ratio {uv / pip:.2f}, goal at most 0.6",
                flush=True,
            )
