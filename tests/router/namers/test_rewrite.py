"""The plugin around the rewriting namer, whose rules ``tests/dtab`` covers."""

import pytest

from dtab import NEG, Leaf, Ok, read_path
from router.namers.rewrite import PLUGIN


async def test_rewrites_and_refuses(context):
    namer = PLUGIN.make(PLUGIN.config(pattern="/{service}/api", name="/srv/{service}"), context)
    assert namer.lookup(read_path("/foo/api/more")).sample() == Ok(Leaf(read_path("/srv/foo")))
    assert namer.lookup(read_path("/foo")).sample() == Ok(NEG)


@pytest.mark.parametrize("prefix", ["io.l5d.rewrite", "/", "/a//b", ""])
def test_prefix_must_be_a_path(prefix):
    with pytest.raises(ValueError, match=r"prefix must be a path such as /io\.l5d\.fs"):
        PLUGIN.config(pattern="/a", name="/b", prefix=prefix)
