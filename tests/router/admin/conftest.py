"""Levels of loggers that a request has set are those from before at the end."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from router.admin.control import LOGGERS


@pytest.fixture(autouse=True)
def levels() -> Iterator[None]:
    before = [logging.getLogger(name).level for name in LOGGERS]
    yield
    for name, level in zip(LOGGERS, before, strict=True):
        logging.getLogger(name).setLevel(level)
