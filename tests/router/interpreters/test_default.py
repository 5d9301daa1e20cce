"""The in-process interpreter: binding follows the namers, and explaining says the same."""

import pytest

from dtab import (
    NEG,
    AddrBound,
    Bound,
    DelegationError,
    Leaf,
    Ok,
    Source,
    SystemNamers,
    constant,
    read_dtab,
    read_path,
)
from router.interpreters.default import PLUGIN, InterpreterContext

TABLE = read_dtab("/svc => /#/files; /loop => /loop")


class Files:
    """A namer with one source per name, which counts who is started."""

    def __init__(self):
        self.trees = {}
        self.started = 0

    def lookup(self, path):
        if path not in self.trees:
            bound = Bound(read_path("/#/files").join(path), constant(AddrBound()))
            self.trees[path] = Source(start=lambda: self._start(path, bound), stop=self._stop)
        return self.trees[path]

    def _start(self, path, bound):
        self.started += 1
        self.trees[path].set(Ok(Leaf(bound)))

    def _stop(self):
        self.started -= 1


@pytest.fixture
def files():
    return Files()


@pytest.fixture
def interpreter(files):
    system = SystemNamers(lambda host, port, fixed: constant(AddrBound()))
    return PLUGIN.make(PLUGIN.config(), InterpreterContext(TABLE, system, [(read_path("/#/files"), files)]))


def ids(state):
    assert isinstance(state, Ok)
    return state.value.value.id if isinstance(state.value, Leaf) else state.value


def test_binds_by_the_routers_table_and_follows_the_namer(interpreter, files):
    states = []
    observation = interpreter.bind(read_path("/svc/web"), None).observe(states.append)
    assert [ids(state) for state in states] == [read_path("/#/files/web")]
    files.trees[read_path("/web")].set(Ok(NEG))
    assert states[-1] == Ok(NEG)
    observation.close()
    assert files.started == 0


def test_the_local_table_is_preferred(interpreter):
    local = read_dtab("/svc/web => /$/inet/127.1/80")
    states = []
    interpreter.bind(read_path("/svc/web"), local).observe(states.append).close()
    interpreter.bind(read_path("/svc/other"), local).observe(states.append).close()
    assert [ids(state) for state in states] == [read_path("/$/inet/127.1/80"), read_path("/#/files/other")]


def test_explaining_asks_the_namers_and_lets_them_go(interpreter, files):
    node = interpreter.explain(read_path("/svc/web"), read_dtab("/svc/web => /$/nil | /svc/other"))
    assert files.started == 0
    assert node.kind == "alt"

    def leaves(node):
        return [node.bound.id] if node.bound else [leaf for _, part in node.parts for leaf in leaves(part)]

    assert read_path("/#/files/web") in leaves(node)
    assert read_path("/#/files/other") in leaves(node)


def test_explaining_a_loop_raises(interpreter):
    with pytest.raises(DelegationError, match="Max recursion level"):
        interpreter.explain(read_path("/loop"), None)
