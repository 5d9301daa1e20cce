"""Every vector of the file named by DTAB_VECTORS (default: the copy in tests/data), one test each.

A category that is not known here fails: vectors must never be skipped silently.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path as FilePath
from typing import Any

import pytest

sys.path.insert(0, str(FilePath(__file__).parent))
import vector_checks

DEFAULT = FilePath(__file__).parents[1] / "data" / "dtab.json"
VECTORS: dict[str, Any] = json.loads(FilePath(os.environ.get("DTAB_VECTORS", str(DEFAULT))).read_text("utf-8"))
CASES = [(category, vector) for category, vectors in VECTORS.items() if category != "_meta" for vector in vectors]


@pytest.mark.parametrize(("category", "vector"), CASES, ids=[vector["id"] for _, vector in CASES])
def test_vector(category: str, vector: dict[str, Any]) -> None:
    check = vector_checks.CHECKS.get(category)
    assert check is not None, f"nothing here knows vectors of the category {category!r}"
    check(vector)


def test_the_file_is_not_empty() -> None:
    assert len(CASES) > 400
