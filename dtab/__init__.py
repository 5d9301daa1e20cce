"""Delegation tables: how a logical name becomes a set of endpoints.

A *path* (``/svc/users``) is looked up in a *dtab*, a list of *dentries* (``/svc => /host``), and becomes a *name tree* of
further paths, until every leaf is *bound*: an id, a set of addresses that changes with time, and a residual path.

==============  =======================================================================================
``path``        paths, prefixes with ``*``, their canonical text
``pattern``     path patterns with ``{captures}``
``tree``        name trees: leaf, alternatives, weighted unions, negative, fail, empty
``table``       dentries and dtabs: look-up, concatenation, JSON form
``reader``      text to all of these, by ``grammar.lark``; errors with line, column and caret
``activity``    values over time: pending, ok, failed
``namer``       what namers are; addresses; the system namers under ``/$/``
``delegation``  the evaluator: binding a path, and the decision tree that explains it
``explain``     the decision tree for people, as JSON and as text
``errors``      what can go wrong
==============  =======================================================================================

Imports the standard library, attrs and lark; knows no sockets and no scheduler.
"""

from dtab.activity import Activity, Computed, Failed, Ok, Pending, Source, State, constant
from dtab.delegation import Delegator
from dtab.errors import DelegationError, DtabError, DtabSyntaxError
from dtab.namer import Addr, AddrBound, AddrFailed, AddrNeg, AddrPending, Bound, Endpoint, Namer, SystemNamers
from dtab.path import Path, Prefix
from dtab.pattern import PathPattern
from dtab.reader import read_dentry, read_dtab, read_path, read_prefix, read_tree
from dtab.table import Dentry, Dtab
from dtab.tree import EMPTY, FAIL, NEG, Alt, Empty, Fail, Leaf, NameTree, Neg, Union, Weighted

__all__ = [
    "EMPTY", "FAIL", "NEG", "Activity", "Addr", "AddrBound", "AddrFailed", "AddrNeg", "AddrPending", "Alt", "Bound",
    "Computed", "DelegationError", "Delegator", "Dentry", "Dtab", "DtabError", "DtabSyntaxError", "Empty", "Endpoint",
    "Fail", "Failed", "Leaf", "NameTree", "Namer", "Neg", "Ok", "Path", "PathPattern", "Pending", "Prefix", "Source",
    "State", "SystemNamers", "Union", "Weighted", "constant", "read_dentry", "read_dtab", "read_path", "read_prefix",
    "read_tree",
]  # fmt: skip
