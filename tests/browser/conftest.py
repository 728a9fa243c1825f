"""A real JupyterLab and a real browser: what happens when a person clicks in a notebook.

    def test_a_click_counts(lab):
        lab.show(["...", "..."])        # other cells for the one notebook of all tests, which are run at once
        lab.page.get_by_role("button", name="Next").click()
        lab.wait_for("counter", 1)      # an expression in the notebook's kernel
        lab.reload()                    # or lab.restart(): a new kernel, all cells again

When a test fails, a screenshot of the page is in outputs/browser/.
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from ast import literal_eval
from contextlib import suppress
from pathlib import Path

import nbformat
import psutil
import pytest
import requests
from ipykernel.kernelspec import write_kernel_spec

import isicvision

ROOT = Path(__file__).resolve().parents[2]
AXE = ROOT / ".venv/axe/node_modules/axe-core/axe.min.js"
KERNEL = "under-test"
PATIENCE = 60  # seconds for a page, a kernel or all cells of a notebook; a busy machine needs some of them
FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.hookimpl(tryfirst=True)  # before the choice by -m, and before xdist looks for groups
def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.xdist_group("browser"))  # one process has the server


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Server:
    """JupyterLab of this interpreter, on loopback, with settings and kernels of its own."""

    def __init__(self, folder):
        self.root = folder / "notebooks"
        self.root.mkdir()
        self.url = f"http://127.0.0.1:{free_port()}"
        self.headers = {"Authorization": f"token {(token := secrets.token_hex(16))}"}
        write_kernel_spec(folder / "data" / "kernels" / KERNEL)
        own = {
            "JUPYTER_PATH": folder / "data",  # comes before all other places
            "JUPYTER_DATA_DIR": folder / "data",
            "JUPYTER_CONFIG_DIR": folder / "config",
            "JUPYTER_RUNTIME_DIR": folder / "runtime",
            "JUPYTERLAB_SETTINGS_DIR": folder / "settings",
            "JUPYTERLAB_WORKSPACES_DIR": folder / "workspaces",
            "IPYTHONDIR": folder / "ipython",
            "JUPYTER_TOKEN": token,
            # kernels import what the tests import
            "PYTHONPATH": os.pathsep.join(
                [str(Path(isicvision.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
            ),
        }
        news = folder / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
        news.parent.mkdir(parents=True)
        news.write_text('{"fetchNews": "false", "checkForUpdates": false}', encoding="utf-8")
        command = [
            *[sys.executable, "-m", "jupyterlab", "--no-browser", "--expose-app-in-browser"],
            *["--ServerApp.ip=127.0.0.1", f"--ServerApp.port={self.url.rpartition(':')[2]}"],
            *["--ServerApp.port_retries=0", f"--ServerApp.root_dir={self.root}"],
            *["--LabApp.extension_manager=readonly", "--LabApp.news_url=None"],
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        ]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command.append("--allow-root")
        self.log = folder / "jupyter.log"
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                command,
                env=os.environ | {name: str(value) for name, value in own.items()},
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self._process.poll() is None:
            try:
                if requests.get(f"{self.url}/api/status", headers=self.headers, timeout=5).ok:
                    return
            except requests.ConnectionError:
                time.sleep(0.1)
        pytest.fail(f"JupyterLab did not start:\n{self.log.read_text()[-3000:]}")

    def stop(self):
        """End the server, which ends its kernels first, then what is left."""
        is_running = self._process.poll() is None
        kernels = psutil.Process(self._process.pid).children(recursive=True) if is_running else []
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(15)
        for process in [self._process, *kernels]:
            with suppress(psutil.NoSuchProcess):
                process.kill()


@pytest.fixture(scope="session")
def jupyter(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("jupyter"))
    try:
        server.wait()
        yield server
    finally:
        server.stop()


# Not for the session: while Playwright is there its event loop runs in this thread, and no other test that has one, as
# those that execute notebooks, could run in this process. (The scope needs the package's __init__.py.)
@pytest.fixture(scope="package")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="no Playwright (pip install playwright)")
    with api.sync_playwright() as playwright:
        installed = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
        path = next(filter(None, [*installed, playwright.chromium.executable_path]))
        if not Path(path).exists():
            pytest.skip("no Chromium (apt install chromium, or: playwright install chromium)")
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        # one context, so one cache: JupyterLab loads faster
        yield chromium.new_context(viewport={"width": 1280, "height": 1000})
        chromium.close()


# what the page is asked: `panel` is the notebook on the screen
PANEL = """const panel = [...jupyterapp.shell.widgets("main")].find(widget => widget.sessionContext && widget.context);
    const kernel = panel?.sessionContext.session?.kernel;"""
READY = f"""() => {{
    {PANEL}
    return panel?.context.isReady && kernel?.connectionStatus === "connected" && kernel.status === "idle";
}}"""
CELLS = f"() => {{ {PANEL} return panel.content.model.toJSON().cells }}"
CHANGE = f"""async sources => {{
    {PANEL}
    const cells = sources.map(source => ({{ cell_type: "code", source }}));
    const notebook = panel.content.model.sharedModel, count = notebook.cells.length;
    notebook.insertCells(0, cells);
    notebook.deleteCellRange(cells.length, cells.length + count);
}}"""
COMMAND = f"""async name => {{
    {PANEL}
    jupyterapp.shell.activateById(panel.id);
    await jupyterapp.commands.execute(name);
}}"""
EXECUTE = f"""async code => {{
    {PANEL}
    let printed = "";
    const future = kernel.requestExecute({{ code, store_history: false }});
    future.onIOPub = ({{ header, content }}) => {{
        if (header.msg_type === "stream") printed += content.text;
        if (header.msg_type === "execute_result") printed += content.data["text/plain"];
        if (header.msg_type === "error") printed += content.traceback.join("\\n");
    }};
    const reply = await future.done;
    return [reply.content.status, printed];
}}"""


class Notebook:
    """A notebook open in JupyterLab. `page` is Playwright's page, `folder` the kernel's working directory."""

    def __init__(self, page, server, name):
        self.page = page
        self.folder = server.root / name
        self._address = f"{server.url}/lab/workspaces/{name}/tree/{name}/{name}.ipynb"
        self._server = server
        page.set_default_timeout(PATIENCE * 1000 / 4)

    def open(self):
        token = self._server.headers["Authorization"].split()[1]
        self.page.goto(f"{self._address}?token={token}", wait_until="domcontentloaded")
        self._ready()

    def _ready(self):
        self.page.wait_for_function("() => window.jupyterapp", timeout=PATIENCE * 1000)
        self.page.wait_for_function(READY, timeout=PATIENCE * 1000)

    def command(self, name):
        """Carry out a command of JupyterLab, as its menus do, and wait until it has finished."""
        self._ask(COMMAND, name)

    def _ask(self, function, argument):
        hurry = f"new Promise((_, no) => setTimeout(() => no(new Error('not done in {PATIENCE} s')), {PATIENCE}000))"
        return self.page.evaluate(f"argument => Promise.race([({function})(argument), {hurry}])", argument)

    def show(self, cells):
        """Replace the cells and run them in an empty folder; a cell that raises fails the test with its traceback.

        The kernel stays, with its variables and what it has imported, but without the widgets of earlier cells.
        """
        self.execute("import ipywidgets; ipywidgets.Widget.close_all()")
        for path in self.folder.iterdir():
            if path.is_file() and path.suffix != ".ipynb":
                path.unlink()
        self._ask(CHANGE, cells)
        self.command("notebook:run-all-cells")
        self._check()

    def _check(self):
        outputs = [output for cell in self.page.evaluate(CELLS) for output in cell.get("outputs", [])]
        for output in outputs:
            if output["output_type"] == "error":
                pytest.fail("a cell raised:\n" + "\n".join(output["traceback"]), pytrace=False)

    def execute(self, code):
        """Run code in the notebook's kernel, beside its cells; return what it printed and its value's repr."""
        status, printed = self._ask(EXECUTE, code)
        if status != "ok":
            pytest.fail(f"{code} raised:\n{printed}", pytrace=False)
        return printed

    def occupy(self, seconds):
        """Keep the kernel busy from now on, without waiting for it."""
        self.page.evaluate(f"seconds => void ({EXECUTE})(`import time; time.sleep(${{seconds}})`)", seconds)

    def value(self, expression):
        """Return the value of an expression (of plain Python types) in the notebook's kernel."""
        return literal_eval(self.execute(f"print(repr({expression}))"))

    def wait_for(self, expression, value=True, seconds=10):
        """Wait until the expression in the notebook's kernel has this value."""
        end = time.monotonic() + seconds
        while (found := self.value(expression)) != value:
            if time.monotonic() > end:
                pytest.fail(f"after {seconds} s {expression} is {found!r}, not {value!r}")
            self.page.wait_for_timeout(50)

    def expect(self, part):
        """Return Playwright's assertions on a part of the page: they wait until what the kernel sends is there."""
        from playwright.sync_api import expect

        expect.set_options(timeout=PATIENCE * 1000 / 4)
        return expect(part)

    def reload(self):
        """Save the notebook and load the page anew; the kernel lives on."""
        self.command("docmanager:save")
        self.page.reload(wait_until="domcontentloaded")
        self._ready()

    def restart(self):
        """Restart the kernel and run all cells, confirming as a person would."""
        self.page.evaluate("() => { window.again = jupyterapp.commands.execute('notebook:restart-run-all') }")
        self.page.locator(".jp-Dialog button.jp-mod-accept").click()
        self._ask("() => window.again", None)
        self._check()


@pytest.fixture(scope="package")
def lab(browser, jupyter):
    """The notebook that all tests share: see `Notebook`."""
    (jupyter.root / "notebook").mkdir()
    written = nbformat.v4.new_notebook()
    written.metadata["kernelspec"] = {"name": KERNEL, "display_name": KERNEL, "language": "python"}
    nbformat.write(written, jupyter.root / "notebook" / "notebook.ipynb")
    opened = Notebook(browser.new_page(), jupyter, "notebook")
    opened.open()
    yield opened
    opened.page.close()


@pytest.fixture(scope="session")
def axe():
    """A function that returns the serious and critical faults that axe-core finds in a page: list of str."""
    if not AXE.exists():
        pytest.skip("no axe-core (`make browser` installs it where there is npm)")
    source = AXE.read_text(encoding="utf-8")

    def faults(page, part="html"):
        page.evaluate(source)
        found = page.evaluate("part => axe.run(part, {resultTypes: ['violations']})", part)["violations"]
        bad = [each for each in found if each["impact"] in ("serious", "critical")]
        return [f"{each['help']}: {node['html'][:200]}" for each in bad for node in each["nodes"]]

    return faults


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    lab = getattr(item, "funcargs", {}).get("lab")
    if report.when == "call" and report.failed and lab:
        path = ROOT / "outputs" / "browser" / f"{item.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        lab.page.screenshot(path=path)
        report.sections.append(("the page", str(path)))
    return report
