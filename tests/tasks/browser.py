"""A real browser, where one is installed: how it draws a page, and what is in it once it has."""

import shutil
import subprocess
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def drawn(page: Path, folder: Path) -> str:
    """The page's document after the browser, without a network, has drawn it as wide as a phone."""
    assert CHROMIUM is not None, "the test is skipped without one"
    picture = folder / "page.png"
    command = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}",
    ]  # fmt: skip
    photo = [*command, "--window-size=390,2000", f"--screenshot={picture}", page.as_uri()]
    subprocess.run(photo, check=True, capture_output=True, timeout=120)
    assert picture.stat().st_size > 20_000
    dump = [*command, "--dump-dom", page.as_uri()]
    return subprocess.run(dump, check=True, capture_output=True, text=True, timeout=120).stdout
