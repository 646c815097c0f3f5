"""Takes the README's pictures: python docs/pictures/take.py [FOLDER], or make pictures.

Runs the experiments `tiny_128` and `support_bot` in FOLDER (a new one by default; sweeps that are
done there are only looked at), opens their reports and MLflow's pages in Chromium and writes the
PNG files beside this script. Needs the extra `pictures` and a Chromium or Chrome on the PATH.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient
from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).parent
LABELLED, DEFAULT = "tiny_128", "support_bot"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
STORE = "sqlite:///mlflow.db"
# MLflow's assistant would cover a third of the page.
NO_ASSISTANT = """
localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
localStorage.setItem("mlflow.assistant.panelOpen_v1", "false");
"""
# Shows the runs nested below the first.
EXPANDER = "button[data-component-id*=runnamecellrenderer]"
SETTLED_MS = 5000


def main(folder: Path) -> None:
    """Sweep, serve, look."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"No browser: none of {', '.join(BROWSERS)} is on the PATH. Install one of them.")
    for experiment in (LABELLED, DEFAULT):
        if not (folder / "runs" / experiment / "report.html").is_file():
            command = [sys.executable, "-m", "sweep", f"+experiment={experiment}"]
            subprocess.run(command, cwd=folder, check=True)
    with served(folder) as address, sync_playwright() as driver:
        page = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"]).new_page()
        page.add_init_script(NO_ASSISTANT)
        take_reports(page, folder / "runs")
        take_mlflow(page, address, MlflowClient(f"sqlite:///{folder / 'mlflow.db'}"))


def take_reports(page: Page, runs: Path) -> None:
    """The summary of the default experiment, interactions and curves of the labelled one."""
    shoot(page, f"file://{runs / DEFAULT}/report.html", "report", height=1010)
    labelled = f"file://{runs / LABELLED}/report.html"
    shoot(page, labelled, "report_interactions", height=1240, scroll_to="#pairs")
    shoot(page, labelled, "report_curves", height=1300, scroll_to="#curves")


def take_mlflow(page: Page, address: str, client: MlflowClient) -> None:
    """The default experiment's runs, one below the other, and the sweep's own."""
    experiment = client.get_experiment_by_name(DEFAULT).experiment_id
    (parent,) = client.search_runs([experiment], f"tags.`sweep.study` = '{DEFAULT}'")
    runs = f"{address}/#/experiments/{experiment}/runs"
    shoot(page, runs, "mlflow_runs", height=760, width=1440, click=EXPANDER)
    shoot(page, f"{runs}/{parent.info.run_id}", "mlflow_run", height=1180, width=1440)


def shoot(
    page: Page,
    address: str,
    name: str,
    *,
    height: int,
    width: int = 1280,
    scroll_to: str | None = None,
    click: str | None = None,
) -> None:
    """One picture, once the page has settled."""
    page.set_viewport_size({"width": width, "height": height})
    page.goto("about:blank")
    page.goto(address)
    page.wait_for_timeout(SETTLED_MS)
    if scroll_to:
        page.locator(scroll_to).evaluate("element => element.scrollIntoView()")
    if click:
        page.locator(click).first.click()
    if scroll_to or click:
        page.wait_for_timeout(SETTLED_MS)
    path = HERE / f"{name}.png"
    page.screenshot(path=path)
    print(path)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of an MLflow server over the folder's runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", STORE, "--port", str(port)]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server = subprocess.Popen(command, cwd=folder, env={**os.environ, **quiet}, start_new_session=True)
    try:
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except OSError:
                if server.poll() is not None:
                    sys.exit("MLflow's server ended before it answered; see above.")
                time.sleep(0.5)
        yield address
    finally:
        os.killpg(server.pid, 15)
        server.wait()


if __name__ == "__main__":
    given = sys.argv[1:]
    main(Path(given[0] if given else tempfile.mkdtemp(prefix="sweep-")).resolve())
