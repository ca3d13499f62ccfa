"""MkDocs hooks: pages from outside docs/ on the site, and links that work there and on GitHub.

README, the configuration's and the executor's README are pages of the site. Another file of the
repository that a page links to gets a page with its text; a folder gets a list of its files.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
NAMED = {"README.md": "index.md", "config/README.md": "configuration.md"}
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
LANGUAGES = {".yaml": "yaml", ".py": "python", ".json": "json", ".cff": "yaml"}
BINARY = (".safetensors", ".pyc")
REMOTE = re.compile(r"<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)=\"?https?://[^>]*>")


def place(path: str) -> str:
    """Where a file or folder of the repository is on the site, by its path from the root."""
    if path in NAMED:
        return NAMED[path]
    inside = path.startswith("docs/")
    at = path.removeprefix("docs/") if inside else f"repository/{path}"
    if (ROOT / path).is_dir():
        return f"{at}/README.md"
    return at if inside or path.endswith(".md") else f"{at}.md"


def targets(path: str, text: str) -> dict[str, str]:
    """Link as it is written -> path from the root, of a page's links to files and folders."""
    written = {match[2] for match in LINK.finditer(text) if ":" not in match[2]}
    folder = path if (ROOT / path).is_dir() else posixpath.dirname(path)
    return {link: landing(posixpath.normpath(posixpath.join(folder, link))) for link in written}


def landing(path: str) -> str:
    """A path, or of a folder that has one its README."""
    return f"{path}/README.md" if (ROOT / path / "README.md").exists() else path


def relinked(path: str, text: str) -> str:
    """A page's text with links from its place on the site to theirs."""
    known, start = targets(path, text), posixpath.dirname(place(path)) or "."

    def link(match: re.Match[str]) -> str:
        if match[2] not in known:
            return match[0]
        to = posixpath.relpath(place(known[match[2]]), start)
        return f"{match[1]}{to}{match[3] or ''}{match[4]}"

    return LINK.sub(link, text)


def page_of(path: str) -> str:
    """Markdown: a page of the repository, a list of a folder's files, or the text of a file."""
    whole = ROOT / path
    if whole.is_dir():
        names = sorted(one.name for one in whole.iterdir() if one.suffix not in BINARY)
        return f"# {path}\n\n" + "".join(f"- [{name}]({name})\n" for name in names)
    text = whole.read_text(encoding="utf-8")
    if path.endswith(".md"):
        return text
    language = LANGUAGES.get(whole.suffix, "text")
    return f"# {path}\n\n````{language}\n{text}\n````\n"


def has_links(path: str) -> bool:
    """Whether a page's text is Markdown of this repository."""
    return path.endswith(".md") or (ROOT / path).is_dir()


def is_file_of_docs(path: str) -> bool:
    """Whether MkDocs copies it as it is: a table, a picture."""
    return path.startswith("docs/") and (ROOT / path).is_file() and not path.endswith(".md")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Rewrite every page's links, and add the pages from outside docs/ that are linked to."""
    todo = [*NAMED, *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    for file in files.documentation_pages():
        files.remove(file)
    done = set[str]()
    while todo:
        path = todo.pop()
        if path in done or is_file_of_docs(path) or not (ROOT / path).exists():
            continue
        done.add(path)
        text = page_of(path)
        if has_links(path):
            todo += targets(path, text).values()
            text = relinked(path, text)
        files.append(File.generated(config, place(path), content=text))
    return files


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Refuse a page that fetches something from elsewhere."""
    if found := REMOTE.search(output):
        raise PluginError(f"{page.file.src_uri}: {found[0][:120]}: expected no other host")
    return output
