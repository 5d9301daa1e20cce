"""Dtabs in headers."""

from __future__ import annotations

import pytest

import dtab as d
from router import dtab_headers


@pytest.mark.parametrize("value", ["L2E==", "L2E===", "L2Zv=", "====", "L2E=L2E=", "L2\nE=", "L2-_"])
def test_base64_with_anything_that_does_not_belong_is_refused(value: str) -> None:
    with pytest.raises(d.DtabError, match="Value not b64-encoded"):
        dtab_headers.read_finagle([(b"x-dtab-00-a", value.encode()), (b"x-dtab-00-b", b"L2I=")])


@pytest.mark.parametrize("value", ["L2E=", "L2E", "L2Zv"])
def test_padding_may_be_left_out(value: str) -> None:
    table = dtab_headers.read_finagle([(b"x-dtab-00-a", value.encode()), (b"x-dtab-00-b", b"L2I=")])
    assert len(table) == 1


def test_what_is_written_is_read_again() -> None:
    table = d.read_dtab("/a => 0.3 * /b & (/c | ~) ; /*/x => !")
    field = dtab_headers.write_linkerd(table)
    assert field is not None
    assert dtab_headers.read_linkerd([field]) == table
