"""The site of the documents builds strictly and is complete, needs nothing from elsewhere, and has no dead link."""

import re
import subprocess
import sys
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import videomae
from videomae import cli
from videomae.settings import builtin_recipes

ROOT = Path(__file__).parents[2]
LOADED = {("link", "href"), ("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src")}
OUTGOING = (
    "https://arxiv.org/",
    "https://jupytext.readthedocs.io",
    "https://keepachangelog.com/",
    "https://semver.org/",
)  # all else that a page leads to is a page of the site


class Page(HTMLParser):
    """The anchors of a page, where it leads to, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors, self.links, self.loaded = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.anchors |= {found[name] for name in ("id", "name") if found.get(name)}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        self.loaded += [found[name] for kind, name in LOADED if kind == tag and found.get(name)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return the pages of the site, by their path in it, and its folder."""
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    files = [
        file for file in sorted(folder.rglob("*.html")) if file.name != "404.html"
    ]  # which a server shows anywhere
    return {str(file.relative_to(folder)): Page(file.read_text("utf-8")) for file in files}, folder


def test_nothing_is_loaded_from_elsewhere(site):
    pages, folder = site
    assert {url for page in pages.values() for url in page.loaded if urlsplit(url).scheme not in ("", "data")} == set()
    styles = "".join(file.read_text("utf-8") for file in folder.rglob("*.css"))
    assert re.findall(r"url\([\"']?https?:[^)]*", styles) == []


def test_every_link_leads_to_a_page_and_to_a_place_on_it(site):
    pages, folder = site
    broken = defaultdict(list)
    for name, page in pages.items():
        for link in page.links:
            url = urlsplit(link)
            if url.scheme:
                if not link.startswith(OUTGOING):
                    broken[name].append(link)
                continue
            target = (folder / name).parent / unquote(url.path) if url.path else folder / name
            place = str(target.resolve().relative_to(folder.resolve())) if target.exists() else None
            is_there = place is not None and (target.is_file() or (target / "index.html").is_file())
            if not is_there or (url.fragment and place in pages and unquote(url.fragment) not in pages[place].anchors):
                broken[name].append(link)
    assert dict(broken) == {}


def test_every_public_name_has_its_reference(site):
    pages, _ = site
    documented = {anchor for name, page in pages.items() if name.startswith("api/") for anchor in page.anchors}
    assert {f"{videomae._MODULE_OF[name]}.{name}" for name in videomae.__all__} <= documented


def test_every_command_and_recipe_has_its_place(site):
    pages, _ = site
    assert {f"commands/{command}.html" for command in cli.COMMANDS} <= pages.keys()
    assert builtin_recipes().keys() <= pages["recipes.html"].anchors


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_the_page_of_a_command_names_the_options_that_its_help_names(command, site, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        cli.run([command, "--help"])
    known = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9.-]*", re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)))
    page = (site[1] / f"commands/{command}.html").read_text("utf-8")
    named = set(re.findall(r"<td><code>(--[a-z0-9.-]+)</code>", page))
    assert named
    assert named <= known
