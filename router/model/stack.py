"""A stack is a list of modules in request order; the top of the page sees the request first.

Modules are edited by role, checked, described, and then folded over the innermost service, once per target.
What is disabled is absent: a module's ``make`` returns the next service itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from router.model.service import Service


@attrs.frozen
class Module:
    """One layer. ``make(params, next)`` returns a service; ``above`` and ``below`` name roles that must stand on the
    other side of this one, and ``why`` says what breaks otherwise."""

    role: str
    make: Callable[[Any, Service], Service]
    above: frozenset[str] = frozenset()
    below: frozenset[str] = frozenset()
    why: str = ""


class StackError(ValueError):
    """A stack was edited into something that cannot work, or by a role that it does not have."""


@attrs.frozen
class Stack:
    """An immutable sequence of modules, outermost first."""

    modules: tuple[Module, ...] = ()

    @property
    def roles(self) -> list[str]:
        """The roles, outermost first."""
        return [module.role for module in self.modules]

    def _at(self, role: str) -> int:
        for at, module in enumerate(self.modules):
            if module.role == role:
                return at
        raise StackError(f"no module has the role {role!r}; there are {', '.join(self.roles)}")

    def insert_above(self, role: str, module: Module) -> Stack:
        """A stack in which ``module`` sees the request just before ``role`` does."""
        at = self._at(role)
        return Stack((*self.modules[:at], module, *self.modules[at:]))

    def insert_below(self, role: str, module: Module) -> Stack:
        """A stack in which ``module`` sees the request just after ``role`` did."""
        at = self._at(role) + 1
        return Stack((*self.modules[:at], module, *self.modules[at:]))

    def replace(self, role: str, module: Module) -> Stack:
        """A stack with ``module`` in the place of ``role``."""
        at = self._at(role)
        return Stack((*self.modules[:at], module, *self.modules[at + 1 :]))

    def remove(self, role: str) -> Stack:
        """A stack without ``role``."""
        at = self._at(role)
        return Stack((*self.modules[:at], *self.modules[at + 1 :]))

    def check(self) -> Stack:
        """Verify that roles are unique and that every ``above`` and ``below`` holds. Returns the stack itself."""
        place = {role: at for at, role in enumerate(self.roles)}
        if len(place) != len(self.modules):
            raise StackError(f"a role occurs twice in {', '.join(self.roles)}")
        for at, module in enumerate(self.modules):
            wrong = [role for role in module.above if place.get(role, at + 1) < at]
            wrong += [role for role in module.below if place.get(role, at - 1) > at]
            if wrong:
                raise StackError(f"{module.role} is on the wrong side of {', '.join(sorted(wrong))}: {module.why}")
        return self

    def describe(self) -> list[tuple[str, str]]:
        """(role, why it stands where it does), outermost first: the table of the docs and of the admin page."""
        return [(module.role, module.why) for module in self.modules]

    def make(self, params: Any, innermost: Service) -> Service:
        """Fold the modules over ``innermost``."""
        service = innermost
        for module in reversed(self.modules):
            service = module.make(params, service)
        return service
