"""One word per idea: no name of ours is a word that means something else here."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src" / "fednode"
NOT_OUR_WORDS = set("server job trainer aggregator weights session manager handler helper util utils".split())
TERMS_OF_PAPERS = {"server_learning_rate"}      # Reddi et al. 2021


def own_names(tree: ast.Module) -> set[str]:
    """Names that we define: functions, classes, arguments, assigned variables."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.arg):
            names.add(node.arg)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def words(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)}


@pytest.mark.parametrize("path", sorted(SRC.rglob("*.py")), ids=lambda path: path.relative_to(SRC).as_posix())
def test_names_are_words_of_the_house(path: Path) -> None:
    used = {path.stem, *own_names(ast.parse(path.read_text()))} - TERMS_OF_PAPERS
    assert not {name for name in used if words(name) & NOT_OUR_WORDS}


def test_the_glossary_has_every_word_of_the_statuses() -> None:
    from fednode.core import status

    glossary = (ROOT / "docs" / "glossary.md").read_text()
    kinds = (status.RunStatus, status.RoundStatus, status.AssignmentStatus, status.ClientStatus, status.FailureCode)
    missing = {f"{kind.__name__}.{member}" for kind in kinds for member in kind if f"`{member}`" not in glossary}
    assert not missing


def test_nothing_is_left_for_later() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX)\b|NotImplementedError\(\)")
    found = [path.name for path in SRC.rglob("*.py") if marks.search(path.read_text())]
    assert not found
