"""A dtab that comes from somewhere and changes: bad text and read errors never take a good table away."""

from __future__ import annotations

from dtab import Dtab, DtabSyntaxError, Failed, Ok, Source, State, read_dtab


class DtabSource:
    """Keeps the last good table. ``activity`` is what interpreters track."""

    def __init__(self) -> None:
        self.activity: Source[Dtab] = Source()

    def put(self, text: str) -> State[Dtab]:
        """New text. Unreadable text keeps a good table, or shows as Failed if there was none."""
        try:
            self.activity.set(Ok(read_dtab(text)))
        except DtabSyntaxError as error:
            self.failed(error)
        return self.activity.state

    def absent(self) -> State[Dtab]:
        """The source says that there is no table: an authoritative, empty one."""
        self.activity.set(Ok(Dtab()))
        return self.activity.state

    def failed(self, error: Exception) -> State[Dtab]:
        """The source could not be read."""
        if not isinstance(self.activity.state, Ok):
            self.activity.set(Failed(error))
        return self.activity.state
