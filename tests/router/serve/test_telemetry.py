"""Telemeters of the configuration in use, and their troubles."""

from __future__ import annotations

from typing import Any

import trio

from router.config.load import load_text
from router.config.plugins import Registry
from router.logs.setup import LogSettings
from router.serve.supervisor import Supervisor
from router.spi import Plugin, Telemeter, TelemeterContext

TEXT = """
routers: [{protocol: http, servers: [{port: 0}]}]
telemetry:
- kind: io.l5d.prometheus
  path: /elsewhere
  prefix: lb_
- kind: io.l5d.influxdb
"""


def configured(text: str, extra: Any = None) -> Any:
    loaded = load_text(text, "test.yaml", Registry(extra))
    assert loaded.config is not None, loaded.render()
    return loaded.config.telemeters


async def test_paths_are_those_that_are_configured() -> None:
    supervisor = Supervisor(lambda: None, LogSettings("json", "INFO"), {})  # type: ignore[arg-type, return-value]
    supervisor.metrics.counter("requests").value = 3
    supervisor.telemetry.use(configured(TEXT))
    assert set(supervisor.telemetry.endpoints) == {"/elsewhere", "/admin/metrics/influxdb"}
    assert "lb_requests 3\n" in await supervisor.telemetry.endpoints["/elsewhere"]("here")
    assert "root,host=here requests=3i" in await supervisor.telemetry.endpoints["/admin/metrics/influxdb"]("here")
    supervisor.telemetry.use(configured(TEXT.partition("telemetry")[0]))
    assert supervisor.telemetry.endpoints == {}


async def test_one_that_fails_is_told_and_started_again(autojump_clock: Any, nursery: trio.Nursery) -> None:
    runs: list[str] = []

    def make(config: Any, context: TelemeterContext) -> Telemeter:
        async def run() -> None:
            runs.append(config.name)
            if config.name == "bad":
                raise OSError("collector is gone")
            await trio.sleep_forever()

        return Telemeter(run=run)

    import attrs

    config = attrs.make_class("Config", {"name": attrs.field(type=str, default="bad")}, frozen=True)
    config.__annotations__ = {"name": str}
    plugin = {"telemeter": [Plugin("acme", config, make)]}
    text = TEXT.partition("telemetry")[0] + "telemetry: [{kind: acme, name: NAME}]\n"
    supervisor = Supervisor(lambda: None, LogSettings("json", "INFO"), {})  # type: ignore[arg-type, return-value]
    nursery.start_soon(supervisor.telemetry.run)
    supervisor.telemetry.use(configured(text.replace("NAME", "bad"), plugin))
    await trio.sleep(25)
    assert runs == ["bad", "bad", "bad"]
    assert [event.fields["cause"] for event in supervisor.events.recent] == ["collector is gone"] * 3
    supervisor.telemetry.use(configured(text.replace("NAME", "good"), plugin))
    await trio.sleep(60)
    assert runs == ["bad", "bad", "bad", "good"]
    nursery.cancel_scope.cancel()


def test_what_there_is_not_is_refused_at_its_line() -> None:
    loaded = load_text(TEXT.replace("io.l5d.influxdb", "io.l5d.zipkim"), "test.yaml", Registry())
    assert loaded.config is None
    assert "test.yaml:7:9" in loaded.render()
    assert "did you mean 'io.l5d.zipkin'" in loaded.render()
