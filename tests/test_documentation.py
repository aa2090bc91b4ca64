"""The documentation site builds without a warning, offline; its snippets are Python, its commands exist."""

import html
import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OFFLINE = """
import socket
def refuse(*arguments, **options):
    raise OSError("the site opens a network connection")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
"""
PAGES = sorted((ROOT / "docs").rglob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built where no connection can be opened."""
    if not os.environ.get("CI"):  # there it is installed, or the extra `dev` is wrong
        pytest.importorskip("mkdocs")
    directory = tmp_path_factory.mktemp("site")
    (directory / "sitecustomize.py").write_text(OFFLINE)
    path = os.pathsep.join([str(directory), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", directory / "site"]
    environment = {**os.environ, "PYTHONPATH": path, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return directory / "site"


def test_every_page_is_there(site):
    for page in PAGES:
        assert (site / page.relative_to(ROOT / "docs").with_suffix(".html")).exists()


def test_tables_are_tables(site):
    """What GitHub takes for a table and the site does not: inside `<details>`, or in a list less than four deep."""
    for page in site.rglob("*.html"):
        assert not re.search(r"^ *\|[ :]*---", page.read_text(encoding="utf-8"), re.MULTILINE), page


def test_every_page_is_in_the_navigation(site):
    index = (site / "index.html").read_text(encoding="utf-8")
    for page in PAGES:
        assert f'href="{page.relative_to(ROOT / "docs").with_suffix(".html")}"' in index, page


def test_reference_pages_hold_signatures(site):
    for page in (ROOT / "docs" / "reference").glob("*.md"):
        names = re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        built = (site / "reference" / page.with_suffix(".html").name).read_text(encoding="utf-8")
        assert names and built.count('<div class="doc doc-object') >= len(names)


def test_tutorials_show_the_examples(site):
    for name, line in (
        ("any_denoiser", "DDPMScheduler(100"),
        ("your_robot", "class Cart"),
        ("your_robot", "class Robot"),
    ):
        page = (site / "tutorials" / f"{name}.html").read_text(encoding="utf-8")
        text = html.unescape(re.sub(r"<[^>]*>", "", page))  # each token has a tag of its own
        assert line in text and "--8<--" not in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT / "docs")))
def test_snippets_are_python(page):
    for snippet in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        compile(textwrap.dedent(snippet), str(page), "exec")


def test_commands_have_the_keys_of_their_verbs():
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.types import RunMode

    from specpolicy.cli.application import read_overrides
    from specpolicy.cli.configuration import compose_verb
    from specpolicy.cli.options import parse_options

    found = 0
    for page in (*PAGES, ROOT / "README.md"):
        for block in re.findall(r"```(?:bash)?\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                words = re.sub(r"^( *[A-Z_]+=\S+)+ ", "", line.partition(" #")[0])
                if words.startswith("specpolicy "):
                    _, verb, *rest = shlex.split(words)
                    options = parse_options(rest)
                    jobs = [options.overrides]
                    if options.multirun:
                        keys = read_overrides(verb, [key for key in jobs[0] if key[:5] != "hydra"], RunMode.MULTIRUN)
                        (jobs,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(keys), None)
                        assert len(jobs) > 1
                    for keys in jobs:
                        compose_verb(verb, keys)
                    found += 1
    assert found > 30
