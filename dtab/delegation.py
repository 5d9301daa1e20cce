"""The evaluator: one decision tree, from which a name is bound and by which the binding is explained.

Theory of operation

1. :class:`Evaluation` answers "what happens to this path" for one dtab and one moment, given a ``track`` function that says
   what the namers say. Its result is a tree of *steps*: a step is the look-up of one path at one depth, with a branch for
   each dentry that matched and, where that leaves nothing, the namers' answer.
2. Steps are made on demand and shared: one per (path, depth). Binding follows alternatives only as far as it needs to;
   explaining follows all of them. Depth is bounded by ``max_depth`` look-ups, the number of steps by ``MAX_STEPS``, and their
   work by ``MAX_WORK``, in which a dentry that is compared counts 1 and one that matches 10: since tables come in with
   requests, one name must not take more than about a tenth of a second.
3. Binding folds the steps (:meth:`Evaluation.bind`): look-ups raise the depth, an alternative that is negative gives way,
   one that is pending or failed does not; a union is what its usable branches make of it. Results are shared per
   (step, weight); the size of a tree counts shared parts as often as they occur, and is bounded by ``MAX_TREE``.
4. :class:`Delegator` makes that an activity: it tracks the dtab and each namer's answer that was used, and evaluates again
   when one of them changes. Equal trees do not propagate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import attrs

from dtab.activity import PENDING, Activity, Computed, Failed, Ok, State, Track
from dtab.errors import DelegationError
from dtab.namer import Answer, Bound, Namer, SystemNamers
from dtab.path import Path
from dtab.table import Dentry, Dtab, rewrite
from dtab.tree import NEG, Alt, Leaf, NameTree, Union, Weighted, simplify, union_of

MAX_DEPTH = 100
MAX_STEPS = 1_000
MAX_WORK = 100_000
MAX_TREE = 10_000
MAX_ELEMENTS = 1_000
MAX_FRAMES = 320

BoundTree: TypeAlias = NameTree[Bound]


@attrs.define(eq=False)
class Step:
    """The look-up of ``path``, ``depth`` rewrites from the start.

    ``branches``: what each matching dentry made of the path, the preferred first. ``answer``: what the namers said, where
    no dentry matched, or the only one said ``~``.
    """

    path: Path
    depth: int
    branches: list[tuple[Dentry, NameTree[Path]]]
    answer: State[NameTree[Any]] | None
    results: dict[float | None, State[BoundTree]] = attrs.field(factory=dict)

    @property
    def outcome(self) -> State[NameTree[Any]]:
        """The tree that binding goes on with."""
        if self.answer is not None:
            return self.answer
        trees = [tree for _, tree in self.branches]
        return Ok(trees[0] if len(trees) == 1 else Alt(tuple(trees)))


class Evaluation:
    """One evaluation of names under one dtab. ``ask(path)`` is the namers' answer, as a state."""

    def __init__(self, dtab: Dtab, ask: Callable[[Path], State[NameTree[Any]]], max_depth: int = MAX_DEPTH) -> None:
        self.dtab = dtab
        self.max_depth = max_depth
        self._ask = ask
        self._steps: dict[tuple[Path, int], Step] = {}
        self._work = 0
        self._sizes: dict[int, tuple[Any, int]] = {}

    def step(self, path: Path, depth: int) -> Step:
        """Look ``path`` up. Raises :class:`DelegationError` when that is too deep or too much."""
        step = self._steps.get((path, depth))
        if step is None:
            self._check(path, depth)
            step = self._steps[path, depth] = self._lookup(path, depth)
        return step

    def _check(self, path: Path, depth: int) -> None:
        if depth >= self.max_depth:
            raise DelegationError("max_depth", f"Max recursion level: {self.max_depth} reached in Namer lookup")
        if len(self._steps) >= MAX_STEPS:
            raise DelegationError("too_large", f"more than {MAX_STEPS} look-ups for one name")
        if self._work > MAX_WORK:
            raise DelegationError("too_large", "a name that takes too much work: too many dentries match, too often")
        if len(path) > MAX_ELEMENTS:
            raise DelegationError("too_large", f"a name of more than {MAX_ELEMENTS} elements")

    def _lookup(self, path: Path, depth: int) -> Step:
        branches = [(dentry, rewrite(dentry, path)) for dentry in self.dtab.matching(path)]
        self._work += len(self.dtab) + 10 * len(branches)
        silent = not branches or (len(branches) == 1 and branches[0][1] == NEG)
        return Step(path, depth, branches, self._ask(path) if silent else None)

    # -- binding --------------------------------------------------------------------------------------------

    def bind(self, tree: NameTree[Any]) -> State[BoundTree]:
        """What ``tree`` is bound to now: pending, failed, or a simplified tree without alternatives."""
        state = self._bind(tree, 0, None, 0)
        return Ok(simplify(state.value)) if isinstance(state, Ok) else state

    def _bind(self, tree: NameTree[Any], depth: int, weight: float | None, frames: int) -> State[BoundTree]:
        if frames > MAX_FRAMES:
            return Failed(DelegationError("max_depth", "name trees nested too deeply, or a name that leads back to itself"))
        if isinstance(tree, Leaf):
            value = tree.value
            if isinstance(value, Bound):
                return Ok(tree if weight is None else Leaf(attrs.evolve(value, weight=weight)))
            return self._bind_path(value, depth, weight, frames + 1)
        if isinstance(tree, Alt):
            return self._bind_alt(tree, depth, weight, frames + 1)
        if isinstance(tree, Union):
            return self._bind_union(tree, depth, frames + 1)
        return Ok(tree)

    def _bind_path(self, path: Path, depth: int, weight: float | None, frames: int) -> State[BoundTree]:
        try:
            step = self.step(path, depth)
        except DelegationError as error:
            return Failed(error)
        known = step.results.get(weight)
        if known is None:
            outcome = step.outcome
            known = self._bind(outcome.value, depth + 1, weight, frames) if isinstance(outcome, Ok) else outcome
            step.results[weight] = known
        return known

    def _bind_alt(self, tree: Alt[Any], depth: int, weight: float | None, frames: int) -> State[BoundTree]:
        for part in tree.trees:
            state = self._bind(part, depth, weight, frames)
            if state != Ok(NEG) or len(tree.trees) == 1:
                return state
        return Ok(NEG)

    def _bind_union(self, tree: Union[Any], depth: int, frames: int) -> State[BoundTree]:
        if not tree.branches:
            return Ok(NEG)
        states: list[tuple[float, State[BoundTree]]] = []
        for branch in tree.branches:  # a loop, since a comprehension would be a frame more in a deep recursion
            states.append((branch.weight, self._bind(branch.tree, depth, branch.weight, frames)))  # noqa: PERF401
        if len(states) == 1:
            return states[0][1]
        usable = [Weighted(weight, state.value) for weight, state in states if isinstance(state, Ok)]
        if usable:
            return self._sized(union_of(usable) if len(usable) > 1 else usable[0].tree)
        for _, state in states:
            if isinstance(state, Failed):
                return state
        return PENDING

    def _sized(self, tree: BoundTree) -> State[BoundTree]:
        """The tree, unless it is too large."""
        if isinstance(tree, Union):
            size = sum(self._sizes.get(id(part.tree), (None, 1))[1] for part in tree.branches)
            if size > MAX_TREE:
                return Failed(DelegationError("too_large", f"a name bound to more than {MAX_TREE} branches"))
            self._sizes[id(tree)] = (tree, size)
        return Ok(tree)


class Delegator:
    """Binds names under a dtab that may change, with namers that are asked below ``/#/`` and the system namers.

    ``namers`` are (prefix, namer) in the order of preference: the first whose answer is not Neg decides.
    """

    def __init__(self, system: SystemNamers, namers: Sequence[tuple[Path, Namer]] = (), max_depth: int = MAX_DEPTH) -> None:
        self._system = system
        self._namers = tuple(namers)
        self._max_depth = max_depth

    def bind(self, dtab: Activity[Dtab] | Dtab, path: Path, local: Dtab | None = None) -> Activity[BoundTree]:
        """What ``path`` is bound to, over time. ``local`` is preferred to ``dtab``."""
        answers: dict[Path, list[Answer]] = {}

        def compute(track: Track) -> State[BoundTree]:
            state = track(dtab) if isinstance(dtab, Activity) else Ok(dtab)
            if not isinstance(state, Ok):
                return state
            table = state.value if local is None else state.value + local
            return self.evaluation(table, track, answers).bind(Leaf(path))

        return Computed(compute)

    def evaluation(self, dtab: Dtab, track: Track, answers: dict[Path, list[Answer]] | None = None) -> Evaluation:
        """An evaluation at this moment. ``answers`` keeps the namers' activities from one evaluation to the next."""
        kept = {} if answers is None else answers
        return Evaluation(dtab, lambda path: self._ask(path, track, kept), self._max_depth)

    def _ask(self, path: Path, track: Track, answers: dict[Path, list[Answer]]) -> State[NameTree[Any]]:
        """Ask the namers whose prefix fits, in order, until one does not say Neg."""
        known = answers.setdefault(path, [])
        for at, ask in enumerate(self._askers(path)):
            try:
                if at == len(known):
                    known.append(ask())
            except Exception as error:  # noqa: BLE001 - a namer's exception is its answer
                return Failed(error)
            state = track(known[at])
            if state != Ok(NEG):
                return state
        return Ok(NEG)

    def _askers(self, path: Path) -> list[partial[Answer]]:
        askers = [partial(namer.lookup, path.drop(len(prefix))) for prefix, namer in self._namers if path.starts_with(prefix)]
        if len(path) > 1 and path[0] == b"$":
            askers.append(partial(self._ask_system, path))
        return askers

    def _ask_system(self, path: Path) -> Answer:
        return self._system.lookup(path) or _NOTHING


_NOTHING: Answer = Computed(lambda track: Ok(NEG))
