"""Which dentries led an exchange to its client: asked of the evaluator that bound it, once for each name and client.

Bound: ``KEPT`` answers; then all are forgotten, as they are when the dtab is replaced.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from dtab import Bound, DelegationError, Dtab
from dtab.explain import Node
from router.interpreters.default import Interpreter
from router.model.exchange import Routed

KEPT = 1000


class Routes:
    """The answers under one interpreter's dtab."""

    def __init__(self, interpreter: Interpreter) -> None:
        self.interpreter = interpreter
        self._dtab: Dtab | None = None
        self._version = ""
        self._known: dict[int, tuple[Bound, Routed]] = {}

    def of(self, path: Any, local: Any, bound: Any) -> Routed:
        """What is to be told of the way of an exchange. Looked up by the identity of what it was bound to, which is one for all
        exchanges with a name as long as its tree stays; ``table`` is the beginning of the SHA-256 of the dtab's text."""
        dtab = self.interpreter.dtab
        if dtab is not self._dtab or len(self._known) >= KEPT:
            self._dtab, self._known = dtab, {}
            self._version = sha256(dtab.show().encode()).hexdigest()[:12]
        if bound is None:
            return Routed(path, local, self._version)
        known = self._known.get(id(bound))
        if known is not None and known[0] is bound:
            routed = known[1]
            if (routed.path is path or routed.path == path) and (routed.local is local or routed.local == local):
                return routed
        routed = Routed(path, local, self._version, bound, self._find(path, local, bound))
        self._known[id(bound)] = (bound, routed)
        return routed

    def _find(self, path: Any, local: Any, bound: Any) -> list[dict[str, Any]]:
        try:
            tree = self.interpreter.explain(path, local)
        except DelegationError:
            return []
        theirs = set() if local is None else {id(dentry) for dentry in local}
        return [
            {"dentry": dentry.show(), "line": None if id(dentry) in theirs else dentry.line}
            for dentry in _way(tree, bound.id) or ()
        ]


def _way(node: Node, wanted: Any) -> list[Any] | None:
    """The dentries from the root to the first leaf that is bound to ``wanted``."""
    here = [] if node.dentry is None else [node.dentry]
    if node.bound is not None and node.bound.id == wanted:
        return here
    for _, part in node.parts:
        rest = _way(part, wanted)
        if rest is not None:
            return here + rest
    return None
