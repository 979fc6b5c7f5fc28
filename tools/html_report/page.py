"""The page as one HTML file that needs no other: template, style, scripts and content."""

import html
import json
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
SCRIPTS = ("charts.js", "spectrogram.js", "utterances.js")


def render(title: str, content: dict[str, Any]) -> str:
    """Render the page.

    Args:
        title: its title.
        content: from :func:`html_report.content.make_content`. In HTML a script ends at ``</script``, whatever is
            around it, so ``<`` is escaped.
    """
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    parts = {
        "title": html.escape(title),
        "style": _read("page.css"),
        "script": "\n".join(map(_read, SCRIPTS)),
        "content": text.replace("<", r"\u003c"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], _read("page.html"))


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")
