"""The house keeps its layout: who imports whom, what a process loads, how files are named and how long they grow."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("alcore", "annotator", "config", "benchmarks", "tests")
LONGEST_FILE = 450
# A name that says nothing collects everything.
EMPTY_NAMES = {"utils", "helpers", "common", "base", "core", "services"}
# CSP forbids what is inline; these would be ignored by the browser, silently.
INLINE = {
    "style attribute": re.compile(r"<[^>]*\sstyle\s*=", re.IGNORECASE),
    "style element": re.compile(r"<style\b", re.IGNORECASE),
    "script without src": re.compile(r"<script\b(?![^>]*\bsrc\s*=)(?![^>]*\btype\s*=\s*[\"']application/json)", re.I),
    "event handler": re.compile(r"<[^>]*\son[a-z]+\s*=", re.IGNORECASE),
    "javascript: address": re.compile(r"[\"']\s*javascript:", re.IGNORECASE),
    "htmx handler": re.compile(r"<[^>]*\s(?:data-)?hx-(?:on|vals\s*=\s*[\"']js:)", re.IGNORECASE),
}
LOAD_THE_WEB = """
import sys
import config.wsgi
from django.urls import get_resolver

def resolve(resolver):
    for pattern in resolver.url_patterns:
        if hasattr(pattern, "url_patterns"):
            resolve(pattern)

resolve(get_resolver())
print(" ".join(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def python_files() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def templates() -> list[Path]:
    return sorted((ROOT / "templates").rglob("*.html"))


def inline_code(html: str) -> list[str]:
    """Return what the page asks the browser to do inline."""
    without_comments = re.sub(r"\{#.*?#\}|<!--.*?-->", "", html, flags=re.DOTALL)
    return [name for name, pattern in INLINE.items() if pattern.search(without_comments)]


def test_imports_keep_to_the_contracts() -> None:
    command = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    assert command is not None
    done = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_web_process_loads_neither_torch_nor_alcore(tmp_path: Path) -> None:
    environment = {"FORESIGHT_DATA": str(tmp_path), "DJANGO_SETTINGS_MODULE": "config.settings"}
    command = [sys.executable, "-c", LOAD_THE_WEB]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert {"django", "annotator", "celery"} <= loaded
    assert loaded & {"torch", "torchvision", "alcore", "sklearn", "scipy"} == set()


def test_no_file_has_a_name_that_says_nothing() -> None:
    assert [path for path in python_files() if path.stem in EMPTY_NAMES or path.parent.name in EMPTY_NAMES] == []


def test_no_file_grows_beyond_its_subject() -> None:
    files = [path for path in python_files() if path.parent.name != "migrations"]
    files += [
        path for path in (ROOT / "static").rglob("*") if path.suffix in (".js", ".css") and "vendor" not in path.parts
    ]
    assert len(files) > 50
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def test_templates_hold_no_inline_script_or_style() -> None:
    found = {str(path.relative_to(ROOT)): inline_code(path.read_text()) for path in templates()}
    assert found
    assert {name: inline for name, inline in found.items() if inline} == {}


@pytest.mark.parametrize(
    ("html", "named"),
    [
        ('<p style="color: red">', "style attribute"),
        ("<style>p {}</style>", "style element"),
        ("<script>alert(1)</script>", "script without src"),
        ('<button\n  onclick="go()">', "event handler"),
        ('<a href="javascript:go()">', "javascript: address"),
        ('<div hx-on:click="go()">', "htmx handler"),
    ],
)
def test_the_search_for_inline_code_finds_it(html: str, named: str) -> None:
    assert inline_code(html) == [named]


@pytest.mark.parametrize(
    "html",
    [
        '<script src="/static/annotate.js" defer></script>',
        '<script type="application/json" id="chart">{}</script>',
        '<meter value="3" max="9" class="style"></meter>',
        "{# style=... is forbidden #}<p>on a lease, style = none</p>",
        '<form hx-post="/answer/" hx-swap="outerHTML" data-once="1">',
    ],
)
def test_the_search_for_inline_code_finds_nothing_else(html: str) -> None:
    assert inline_code(html) == []


def test_browser_tests_are_marked_so_that_they_run_apart() -> None:
    files = sorted((ROOT / "tests" / "e2e").glob("test_*.py"))
    assert files
    marked = re.compile(r"^pytestmark = .*pytest\.mark\.e2e\b", re.MULTILINE)
    unmarked = [path.name for path in files if not marked.search(path.read_text())]
    assert unmarked == []


def test_nothing_here_names_a_path_of_one_machine() -> None:
    here = re.compile(rf"{re.escape(str(ROOT))}/|/home/[a-z]|/Users/")
    found = [
        str(path.relative_to(ROOT))
        for path in [*python_files(), *templates(), *(ROOT / "script").iterdir(), *(ROOT / "docs").rglob("*.md")]
        if path != Path(__file__) and here.search(path.read_text())
    ]
    assert found == []
