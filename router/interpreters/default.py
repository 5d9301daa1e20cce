"""``default``: names are interpreted in this process, by the router's own dtab and the configured namers."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from dtab import (
    Activity,
    Bound,
    Computed,
    Delegator,
    Dtab,
    Failed,
    Namer,
    NameTree,
    Ok,
    Path,
    Source,
    State,
    SystemNamers,
)
from dtab.explain import Node, explain
from dtab.namer import Answer
from router.spi import Plugin


@attrs.frozen
class Config:
    """Nothing to configure."""


@attrs.frozen
class InterpreterContext:
    """What an interpreter works with: the router's dtab, the system namers, and the namers in order of preference."""

    dtab: Dtab
    system: SystemNamers
    namers: Sequence[tuple[Path, Namer]] = ()


class Interpreter:
    """Binds and explains names. The dtab can be :meth:`replaced <replace>`: what is bound under it follows."""

    def __init__(self, context: InterpreterContext) -> None:
        self.dtab = context.dtab
        self._table: Source[Dtab] = Source()
        self._table.set(Ok(context.dtab))
        self.delegator = Delegator(context.system, context.namers)

    def bind(self, path: Path, local: Dtab | None) -> Activity[NameTree[Bound]]:
        """What ``path`` is bound to, over time, with ``local`` preferred to the router's dtab."""
        return self.delegator.bind(self._table, path, local)

    def replace(self, dtab: Dtab) -> None:
        """From now on names are bound under ``dtab``."""
        self.dtab = dtab
        self._table.set(Ok(dtab))

    def explain(self, path: Path, local: Dtab | None) -> Node:
        """The decision tree of the same evaluator, now. Raises :class:`dtab.DelegationError` for a straight loop.

        Namers are observed for the moment, so that those that know at once (files, literals) say it also for names
        without traffic. What takes longer shows as pending.
        """
        table = self.dtab if local is None else self.dtab + local
        answers: dict[Path, list[Answer]] = {}
        node = Computed(lambda track: Ok(explain(self.delegator.evaluation(table, track, answers), path)))
        states: list[State[Node]] = []
        node.observe(states.append).close()
        state = states[0]
        if isinstance(state, Failed):
            raise state.error
        assert isinstance(state, Ok)
        return state.value


def make(config: Config, context: InterpreterContext) -> Interpreter:
    """The interpreter."""
    return Interpreter(context)


PLUGIN = Plugin("default", Config, make)
