"""What the site does to pages before they are drawn.

README is its first page, a notebook is a page like the others, and links into the code lead there.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[1]
_ELSEWHERE = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md"}


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Returns a page's text with its links as they are seen from the site."""
    name = page.file.src_uri
    folder = _ROOT / "docs"
    if name in _ELSEWHERE:
        markdown, folder = (_ROOT / _ELSEWHERE[name]).read_text(encoding="utf-8"), _ROOT
    if name == "tutorial.md":
        markdown = _of_notebook(folder / "tutorial.ipynb")
    pages = {file.src_uri for file in files}

    def link(match: re.Match[str]) -> str:
        target = match[1]
        if "://" in target or target.startswith("#"):
            return match[0]
        path = (folder / target).resolve().relative_to(_ROOT)
        inside = path.relative_to("docs").as_posix() if path.parts[0] == "docs" else ""
        moved = {elsewhere: own for own, elsewhere in _ELSEWHERE.items()}.get(path.as_posix(), inside)
        code = f"{config.repo_url.rstrip('/')}/blob/main/{path.as_posix()}"
        return f"]({moved if moved in pages else code})"

    return re.sub(r"\]\(([^)]+)\)", link, markdown)


def _of_notebook(path: Path) -> str:
    """Returns a notebook's text, its code, and what that has printed."""
    parts = [f"*This page is a notebook, which can be [had and run]({path.name}).*"]
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        parts += [f"```text\n{''.join(output['text'])}```" for output in cell.get("outputs", ())]
    title = parts.index(next(part for part in parts if part.startswith("# ")))
    parts.insert(0, parts.pop(title))
    return "\n\n".join(parts)
