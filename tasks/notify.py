"""Telling someone: a JSON message to the web address that R1_NOTIFY_URL names."""

import json
import os
import urllib.error
import urllib.request

TIMEOUT_SECONDS = 10


def notify(title: str, text: str) -> str | None:
    """Send a message. Returns why it could not be sent; None if it was, or if nobody asked for it.

    The body is `{"title": …, "text": …}`, which chat services' incoming web hooks understand.
    """
    url = os.environ.get("R1_NOTIFY_URL")
    if not url:
        return None
    if not url.startswith(("http://", "https://")):
        return f"R1_NOTIFY_URL must be an http or https address, not {url!r}"
    body = json.dumps({"title": title, "text": f"{title}\n{text}"}).encode()
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):  # noqa: S310 - the scheme was checked
            return None
    except (urllib.error.URLError, OSError) as error:
        return f"nobody was told: {url} answered {error}"
