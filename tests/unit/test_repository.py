"""The files around the code: they parse, and what they name is there; and the type hints of the code."""

import ast
import csv
import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import isicvision

ROOT = Path(__file__).resolve().parents[2]
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
BOUGHT = {".venv", "outputs", ".git", "shared"}  # folders that are not ours
HOUSE = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in (
        "*.yml",
        "*.yaml",
        "*.cff",
        ".github/**/*.y*ml",
        ".devcontainer/**/*.json",
        "code/**/*.y*ml",
    )
    for path in ROOT.glob(pattern)
    if not BOUGHT & set(path.relative_to(ROOT).parts)
)
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", ".github/*.md", "docs/**/*.md", "code/**/*.md", "sample_data/*.md")
    for path in ROOT.glob(pattern)
)
INVENTED = {"mine.yaml", "file.yaml", "code/0N_folder/NN_name.ipynb"}  # files that the reader is to write
MODULES = sorted(
    path.relative_to(ROOT / "code").as_posix() for path in (ROOT / "code" / "isicvision").rglob("*.py")
)
WORKFLOWS = [name for name in HOUSE if name.startswith(".github/workflows/")]


def read(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    if name.endswith(".json"):
        return json.loads(text)
    return yaml.load(text, Loader=type("Plain", (yaml.SafeLoader,), {"construct_mapping": once}))


def once(loader, node, deep=False):
    """Refuse a key that stands twice, which PyYAML overlooks."""
    keys = [key.value for key, _ in node.value]
    twice = {key for key in keys if keys.count(key) > 1}
    assert not twice, f"{twice} twice in line {node.start_mark.line + 1}"
    return yaml.SafeLoader.construct_mapping(loader, node, deep)


def made(command):
    """Return the targets that a command line makes."""
    targets = []
    for line in re.findall(r"\bmake((?:[ \t]+[^\s&|;`#()]+)+)", command):
        words = [word for word in line.split() if not re.match(r"-|[A-Z_]+=", word)]
        for word in words:
            if not re.fullmatch(r"[a-z]+", word):
                break
            targets.append(word)
    return targets


def files(command):
    """Return the scripts that a command line runs, the tests among them, and the parameter files that it names."""
    scripts = []
    for line in re.findall(r"\b(?:python3?|bash|torchrun|accelerate launch|pytest)\s.*", command):
        words = [word for word in line.split()[1:] if not word.startswith("-")]
        scripts += [
            word for word in words if re.fullmatch(r"[\w./-]+\.(?:py|sh)|\.ci/\w+|tests/[\w./-]+", word)
        ]
    return scripts + re.findall(r"(?:PARAMETERS=|--parameters )([^\s`]+\.ya?ml)", command)


@pytest.mark.parametrize("name", HOUSE)
def test_it_parses(name):
    assert read(name)


def test_the_house_is_complete():
    for name in (
        *("LICENSE", "CONTRIBUTING.md", "CODE_OF_CONDUCT.md", "SECURITY.md", "CHANGELOG.md", "CITATION.cff"),
        *(".github/dependabot.yml", ".github/workflows/ci.yml", ".github/workflows/weekly.yml"),
        *(".github/pull_request_template.md", ".github/ISSUE_TEMPLATE/bug.yml", ".pre-commit-config.yaml"),
        *(".devcontainer/devcontainer.json", ".devcontainer/gpu/devcontainer.json", "environment.yml"),
    ):
        assert (ROOT / name).stat().st_size, name


@pytest.mark.parametrize("name", WORKFLOWS)
def test_commands_of_workflows_name_what_is_there(name):
    workflow = read(name)
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert commands
    for command in commands:
        assert set(made(command)) <= TARGETS, command
        assert all((ROOT / file).is_file() for file in files(command)), command


def test_workflows_bound_their_time_and_may_only_read():
    for name in WORKFLOWS:
        workflow = read(name)
        assert workflow["permissions"] == {"contents": "read"}
        assert all(job["timeout-minutes"] for job in workflow["jobs"].values())


def test_pythons_of_the_workflow_are_the_oldest_and_the_newest_that_doctor_takes():
    sys.path.insert(0, str(ROOT / "code"))
    try:
        import doctor
    finally:
        sys.path.pop(0)
    pythons = [".".join(map(str, each)) for each in (doctor.OLDEST, doctor.NEWEST)]
    assert read(".github/workflows/ci.yml")["jobs"]["test"]["strategy"]["matrix"]["python"] == pythons
    assert f'requires-python = ">={pythons[0]}"' in (ROOT / "pyproject.toml").read_text()
    assert f"python={pythons[0]}" in read("environment.yml")["dependencies"]


def test_the_weekly_parameters_are_of_the_notebooks():
    names = set(read(".github/weekly.yaml"))
    declared = set()
    for path in (ROOT / "code").glob("0*/[0-9]*.ipynb"):
        for cell in json.loads(path.read_text())["cells"]:
            if "parameters" in cell["metadata"].get("tags", []):
                declared |= set(re.findall(r"^([A-Z]\w*) =", "".join(cell["source"]), re.MULTILINE))
    assert names and names <= declared


def test_forms_for_issues_have_what_github_asks_for():
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = read(path.relative_to(ROOT).as_posix())
        if path.name == "config.yml":
            continue
        assert form["name"] and form["description"] and form["body"]
        fields = [field for field in form["body"] if field["type"] != "markdown"]
        assert len({field["id"] for field in fields}) == len(fields)
        assert all(field["attributes"]["label"] for field in fields)


@pytest.mark.parametrize("name", [".devcontainer/devcontainer.json", ".devcontainer/gpu/devcontainer.json"])
def test_containers_for_development(name):
    container = read(name)
    assert (
        container["image"].startswith("python:3.11") and set(made(container["postCreateCommand"])) <= TARGETS
    )
    assert ("--gpus=all" in container.get("runArgs", [])) == ("gpu" in name)


def test_the_hook_finds_large_files(tmp_path):
    (hook,) = [h for h in read(".pre-commit-config.yaml")["repos"][0]["hooks"] if h["id"] == "large-files"]
    for name, size in (("small one", 10), ("large one", 1_000_000)):
        (tmp_path / name).write_bytes(bytes(size))
    command = shlex.split(hook["entry"])
    assert subprocess.run([*command, str(tmp_path / "small one")]).returncode == 0
    done = subprocess.run([*command, *map(str, tmp_path.iterdir())], capture_output=True, text=True)
    assert done.returncode == 1 and "large one has" in done.stdout and "small" not in done.stdout


def code_in(text):
    """Return the lines of code blocks and the pieces of inline code of a document."""
    fences = r"^[ ]*(?:[-*\d.]+ )?```[^\n]*\n(.*?)^[ ]*```"
    blocks = re.findall(fences, text, re.MULTILINE | re.DOTALL)
    rest = re.sub(fences, "", text, flags=re.MULTILINE | re.DOTALL)
    inline = [" ".join(piece.split()) for piece in re.findall(r"`([^`]+)`", rest)]
    return [line.split(" #")[0] for block in blocks for line in block.splitlines()] + inline


def paths(command):
    """Return what looks like a file of this repository, as `code/run.py` does, or one of its folders."""
    return re.findall(
        r"^(?:(?:code|docs|tests|sample_data|\.github|\.ci|\.devcontainer)/[\w./-]*\w)", command
    )


def headings(text):
    """Return the anchors of a document's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    found = []
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        found.append(re.sub(r"[^\w\- ]", "", heading).replace(" ", "-"))
    return found


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_of_documents_name_what_is_there(name):
    for command in code_in((ROOT / name).read_text(encoding="utf-8")):
        assert set(made(command)) <= TARGETS, command
        for file in {*files(command), *paths(command)} - INVENTED:
            assert (ROOT / file).exists() or (ROOT / name).parent.joinpath(file).exists(), command


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_into_a_page_find_their_heading(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    for file, anchor in re.findall(r"\]\(([^)#:\s]*\.md|)#([^)\s]+)\)", text):
        page = (ROOT / name).parent / file if file else ROOT / name
        assert anchor in headings(page.read_text(encoding="utf-8")), f"{file}#{anchor}"


@pytest.mark.parametrize(
    "name", [name for name in DOCUMENTS if name.startswith("docs/") and name.count("/") > 1]
)
def test_links_of_pages_in_folders_of_docs(name):  # those of all other documents: tests/notebooks
    page = ROOT / name
    for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link


def test_every_page_is_in_the_list_of_documents():
    listed = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    for path in (ROOT / "docs").rglob("*.md"):
        if path.name != "README.md":
            assert f"({path.relative_to(ROOT / 'docs').as_posix()})" in listed


def test_what_these_checks_read():
    document = "Say `make no\nsense`.\n\n1. ```\n   python a/b.py   # make words\n   ```\n"
    assert code_in(document) == ["   python a/b.py  ", "make no sense"]
    assert made("make no sense") == ["no", "sense"] and files("   python a/b.py  ") == ["a/b.py"]
    assert paths("code/run.py --source x") == ["code/run.py"] and not paths("outputs/model/")
    assert headings("# What, how?\n```\n# no\n```\n## A [b](c.md)") == ["what-how", "a-b"]
    assert made("make install browser && make doctor") == ["install", "browser", "doctor"]
    assert made("make run SOURCE=isic PARAMETERS=a.yaml   # words") == ["run"]
    assert files(".venv/bin/python -m pytest -n 0 tests/a.py") == ["tests/a.py"]
    assert files("bash .ci/run") == [".ci/run"] and files("make run PARAMETERS=a/b.yaml") == ["a/b.yaml"]


def test_words_are_spelt_right(tmp_path):
    for path in (ROOT / "code").glob("0*/[0-9]*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        (tmp_path / f"{path.stem}.md").write_text(
            "\n".join(line for cell in cells for line in cell["source"])
        )
    (tmp_path / "README.md").write_text("An image w" + "ich nobody rec" + "ieves.")
    command = [sys.executable, "-m", "codespell_lib", *DOCUMENTS, "code", "docs", "tests", str(tmp_path)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    assert len([line for line in found if "README.md:1: " in line]) == 2, "what is wrong is not found"
    assert found[2:] == []


def without_hints(source):
    """Return the public functions and methods in which an argument or the result has no type hint."""
    tree = ast.parse(source)
    found = []
    classes = [each for each in tree.body if isinstance(each, ast.ClassDef) and each.name[0] != "_"]
    for scope in [tree, *classes]:
        for function in (node for node in scope.body if isinstance(node, ast.FunctionDef)):
            if function.name.startswith("_") and function.name not in ("__init__", "__call__"):
                continue
            given = function.args
            arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
            arguments = [each for each in arguments if each and each.arg not in ("self", "cls", "_")]
            bare = any(each.annotation is None for each in arguments)
            if bare or (function.returns is None and function.name != "__init__"):
                found.append(f"{getattr(scope, 'name', '')}.{function.name}".lstrip("."))
    return found


@pytest.mark.parametrize("name", MODULES)
def test_public_names_have_type_hints(name):
    assert not without_hints((ROOT / "code" / name).read_text(encoding="utf-8"))


def test_what_counts_as_a_type_hint():
    whole = "def f(a: int, *b: int, c: int = 1, **d: int) -> int: ..."
    assert not without_hints(whole) and not without_hints("def _f(a): ...")
    for bare in (whole.replace(each, each[0]) for each in ("a: int", "b: int", "c: int", "d: int")):
        assert without_hints(bare) == ["f"]
    assert without_hints(whole.replace(" -> int", "")) == ["f"]
    assert without_hints("class A:\n def __init__(self, a): ...\n def f(self): ...") == ["A.__init__", "A.f"]
    assert not without_hints("class A:\n def __init__(self, a: int): ...\n def f(self) -> int: ...")


def private_names(source):
    """Return what a notebook's code takes from isicvision that its __init__.pyi does not name."""
    source = re.sub(r"^( *)[%!].*", r"\1pass", source, flags=re.MULTILINE)  # no Python
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [each.name for each in node.names if each.name.startswith("isicvision.")]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("isicvision."):
            found.append(node.module)
        elif isinstance(node, ast.ImportFrom) and node.module == "isicvision":
            found += [each.name for each in node.names if each.name not in isicvision.__all__]
        elif isinstance(node, ast.Attribute) and re.match("_[^_]", node.attr):
            found.append(node.attr)
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "code").glob("*/*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_use_public_names_only(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    for cell in cells:
        if cell["cell_type"] == "code":
            assert not private_names("".join(cell["source"]))


def test_what_counts_as_a_public_name():
    assert not private_names("%matplotlib\nfrom isicvision import plots, evaluate\nplots.__doc__, plots.roc")
    for private in (
        "from isicvision import cache",
        "from isicvision.plots import roc",
        "import isicvision.plots",
    ):
        assert private_names(private)
    assert private_names("model._digest") == ["_digest"]


def test_imports_have_no_cycles():
    command = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([command, "--no-cache", "--no-logo"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_type_hints_agree_with_the_code():
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_on_many_images_shows_the_measured_growth():
    page = (ROOT / "docs/howto/many_images.md").read_text(encoding="utf-8")
    with open(ROOT / "docs/measurements/growth.csv", encoding="utf-8") as file:
        rows = [*csv.DictReader(file)]
    assert rows
    for row in rows:
        start = f"| {row['work']} | {int(row['images']):,} | {row['processes']} | "
        figures = [float(row[name]) for name in ("seconds", "per_second", "whole", "memory_mib", "disk_mb")]
        assert start + " | ".join(f"{figure:,.0f}" for figure in figures) + " |" in page, row


def test_links_of_the_tour_lead_to_the_lines_they_name():
    tour = runpy.run_path(str(ROOT / "docs" / "link_lines.py"))
    page = (ROOT / "docs" / "how_it_works.md").read_text(encoding="utf-8")
    assert len(tour["LINK"].findall(page)) > 20
    assert tour["linked"](page) == page, "run python docs/link_lines.py"


def long_functions(source):
    """Return the functions with more than 45 lines of code: docstrings and blank lines do not count."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            lines = set(range(node.lineno, node.end_lineno + 1))
            if ast.get_docstring(node) is not None:
                lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
            if sum(bool(source.splitlines()[line - 1].strip()) for line in lines) > 45:
                found.append(node.name)
    return found


@pytest.mark.parametrize("name", MODULES)
def test_files_and_functions_are_short(name):
    source = (ROOT / "code" / name).read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 450 and not long_functions(source)


def test_the_package_stays_readable():
    assert (
        sum(len((ROOT / "code" / name).read_text(encoding="utf-8").splitlines()) for name in MODULES)
        <= 14_000
    )


def test_what_counts_as_a_long_function():
    body = "    a = 1\n" * 44
    assert not long_functions(f'def f():\n    """Say.\n\n    More.\n    """\n\n{body}')
    assert long_functions(f"def f():\n{body}    a = 2\n") == ["f"]
