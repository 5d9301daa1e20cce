"""The command ``waypost``. Sub-commands import what they need when they run, so that help and checks are quick."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from router import __version__

if TYPE_CHECKING:
    from router.config.load import Loaded
    from router.logs.setup import LogSettings
    from router.serve.remote import Remote

OK, FAILED, USAGE = 0, 1, 2  # good; the file is refused, or the work failed; nothing could be tried
CUT_OFF = 3  # stopped before all calls had ended


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="waypost")
def main() -> None:
    """A multi-protocol request router: HTTP/1.1, HTTP/2 and gRPC, driven by delegation tables."""


def _load(name: str) -> Loaded:
    from router.config.load import load_file
    from router.config.plugins import Registry

    return load_file(name, Registry())


def _load_one(name: str) -> Loaded:
    """Load a file, or tell what is wrong with it and exit."""
    loaded = _load(name)
    if loaded.problems:
        click.echo(loaded.render(), err=True)
    if loaded.config is None:
        sys.exit(FAILED if loaded.readable else USAGE)
    return loaded


def _files_checked(loaded: Loaded) -> Loaded:
    """With what is wrong with the certificates and keys that it names."""
    from router.tls import problems

    return loaded if loaded.config is None else loaded.refused(problems(loaded.config))


@main.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
def check(files: tuple[str, ...]) -> None:
    """Check configuration files, all errors at once. '-' is standard input.

    Exit code 0: all can be run; 1: some cannot; 2: some cannot be read.
    """
    code = OK
    for name in files:
        loaded = _files_checked(_load(name))
        if loaded.problems:
            click.echo(loaded.render(), err=True)
        if loaded.config is None:
            code = max(code, FAILED if loaded.readable else USAGE)
        else:
            count = len(loaded.config.routers)
            click.echo(f"{name}: good, {count} router{'s' if count != 1 else ''}")
    sys.exit(code)


@main.command()
@click.argument("file", metavar="FILE")
@click.option(
    "--log-level", default="info", type=click.Choice(["debug", "info", "warning", "error"]), help="What is logged at least."
)
@click.option("--log-format", default="auto", type=click.Choice(["auto", "text", "json"]), help="auto: text on a terminal.")
@click.option("--watch", is_flag=True, help="Read the file again whenever it changes.")
def run(file: str, log_level: str, log_format: str, watch: bool) -> None:
    """Run the routers of a configuration file until SIGTERM or SIGINT; then drain. SIGHUP reads the file again.

    Exit code 0: everything had ended; 1: it could not start; 2: the file cannot be read; 3: calls were cut off.
    """
    if watch and file == "-":
        raise click.UsageError("standard input cannot be watched")
    from router.logs.setup import chosen, installed
    from router.logs.sinks import ThreadSink

    logs = chosen(log_format, log_level, sys.stderr)
    with installed(logs, ThreadSink(sys.stderr.buffer)):
        sys.exit(_run(file, logs, watch))


def _run(file: str, logs: LogSettings, watch: bool) -> int:
    """The exit code."""
    import trio

    from router.model.events import Events
    from router.serve import announce
    from router.serve.command import supervise
    from router.serve.slot import StartError
    from router.serve.watch import Watch

    def load() -> Loaded:
        return loaded if file == "-" else _files_checked(_load(file))

    watcher = Watch(file) if watch else None
    loaded = _files_checked(_load(file))
    if loaded.config is None:
        announce.problems(Events(), loaded)
        return FAILED if loaded.readable else USAGE
    drained = True
    failures: list[str] = []
    try:
        drained = trio.run(supervise, loaded, load, logs, watcher)
    except* (OSError, StartError) as group:
        failures += [str(error.args[-1]) for error in _leaves(group)]
    for failure in failures:
        Events().fail("start_failed", shown=f"waypost: {failure}", cause=failure)
    return FAILED if failures else OK if drained else CUT_OFF


@main.command()
@click.argument("target", metavar="FILE|URL")
def reload(target: str) -> None:
    """Have the router that runs FILE, or whose admin interface is at URL, read its file again.

    Exit code 0: it serves the new configuration; 1: it serves the old one, and says why; 2: nobody answers.
    """
    from router.serve import remote

    _tell(remote.reload, _remote(target))


@main.command()
@click.argument("target", metavar="FILE|URL")
def healthcheck(target: str) -> None:
    """Ask the router that runs FILE, or whose admin interface is at URL, whether it serves.

    Exit code 0: it does; 1: it does not; 2: nobody answers.
    """
    from router.serve import remote

    _tell(remote.is_ready, _remote(target))


def _remote(target: str) -> Remote:
    from router.serve.remote import Remote, remote_of

    if target.startswith(("http://", "https://")):
        return Remote(target)
    loaded = _load(target)
    if loaded.config is None:
        click.echo(loaded.render(), err=True)
        sys.exit(USAGE if not loaded.readable else FAILED)
    return remote_of(loaded.config.admin)


def _tell(ask: Callable[[Remote], tuple[bool, str]], remote: Remote) -> None:
    """Print what the router says, and exit by it."""
    from router.serve.remote import UnreachableError

    try:
        good, said = ask(remote)
    except UnreachableError as error:
        click.echo(f"waypost: {error}", err=True)
        sys.exit(USAGE)
    click.echo(said, err=not good)
    sys.exit(OK if good else FAILED)


def _leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    """The exceptions of a group, however nested."""
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


@main.command()
@click.argument("file", metavar="FILE")
@click.argument("path", metavar="PATH")
@click.option("--dtab", "local", default="", help="A dtab of the request's own, as in the header l5d-dtab.")
@click.option("--router", "label", default=None, help="The label of the router (default: the first).")
@click.option("--json", "as_json", is_flag=True, help="Print Linkerd's delegation tree as JSON.")
def explain(file: str, path: str, local: str, label: str | None, as_json: bool) -> None:
    """Show how PATH is delegated: each step, with the line of the dentry that made it, and why others did not match."""
    import trio

    from dtab import DtabError

    loaded = _load_one(file)
    try:
        text = trio.run(_explain, loaded, path, local, label, as_json)
    except (DtabError, LookupError) as error:
        click.echo(f"waypost: {error.args[0] if isinstance(error, LookupError) else error}", err=True)
        sys.exit(FAILED)
    click.echo(text)


async def _explain(loaded: Loaded, path: str, local: str, label: str | None, as_json: bool) -> str:
    from router.explain import explain_text

    assert loaded.config is not None
    return await explain_text(loaded.name, loaded.config, path, local, label, as_json)


@main.group()
def dtab() -> None:
    """Read, format and evaluate dtabs. TEXT '-' is standard input."""


def _dtab(text: str) -> Any:
    from dtab import DtabSyntaxError, read_dtab

    if text == "-":
        text = sys.stdin.read()
    try:
        return read_dtab(text)
    except DtabSyntaxError as error:
        click.echo(f"dtab:{error.line}:{error.column}: error\n{error.caret()}", err=True)
        sys.exit(FAILED)


@dtab.command("parse")
@click.argument("text")
def dtab_parse(text: str) -> None:
    """Print the dentries as JSON, or the error with its place."""
    import json

    click.echo(json.dumps(_dtab(text).to_json(), indent=2))


@dtab.command("format")
@click.argument("text")
def dtab_format(text: str) -> None:
    """Print the canonical form, a dentry a line."""
    click.echo("\n".join([dentry.show().replace("=>", " => ", 1) + " ;" for dentry in _dtab(text)]))


@dtab.command("eval")
@click.argument("text")
@click.argument("path")
def dtab_eval(text: str, path: str) -> None:
    """Print what PATH is bound to under the dtab, with the system namers only."""
    import trio

    from dtab import DtabError
    from router.explain import evaluate_text

    table = _dtab(text)
    try:
        click.echo(trio.run(evaluate_text, table, path))
    except DtabError as error:
        click.echo(f"waypost: {error}", err=True)
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
