"""Pages in a real browser without a window: what it shows, asked by a script that is not the page's own."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_OFFLINE = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
]
# The page stands in a frame of its own, as wide as it is asked to be, as it was written.
_AROUND = """<!doctype html><iframe id="page" width="{width}" height="900" srcdoc="{page}"></iframe><script>
onload = () => {{
  const frame = document.getElementById("page"), page = frame.contentDocument, view = frame.contentWindow
  let said
  try {{ said = (() => {{ {script} }})() }} catch (error) {{ said = String(error) }}
  const answer = document.createElement("pre")
  answer.id = "said"
  answer.textContent = JSON.stringify(said)
  document.body.append(answer)
}}
</script>"""


def ask(page: str, script: str, *, width: int = 800) -> Any:
    """What the body of a function returns that sees the `page`, a document, its window, `view`, and its `frame`."""
    assert BROWSER is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder, "around.html")
        path.write_text(_AROUND.format(width=width, page=html.escape(page), script=script), encoding="utf-8")
        options = [*_OFFLINE, f"--user-data-dir={folder}/profile", "--window-size=1700,1000", "--dump-dom"]
        done = subprocess.run([BROWSER, *options, path.as_uri()], capture_output=True, encoding="utf-8", check=False)
    found = re.search(r'<pre id="said">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None, done.stderr
    return json.loads(html.unescape(found[1]))
