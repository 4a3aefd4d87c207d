"""Alive, ready, metrics: on a listener of their own, for the operator."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from bridge.config import HealthConfig


class HealthServer:
    """``/health/live`` answers while the process runs; ``/health/ready`` 200 or 503 with what is missing;
    ``/metrics`` in Prometheus' text form. ``ready`` returns None or a reason."""

    def __init__(
        self, config: HealthConfig, ready: Callable[[], str | None], metrics: Callable[[], Awaitable[str]]
    ) -> None:
        self._config, self._is_ready, self._text = config, ready, metrics
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.add_routes(
            [
                web.get("/health/live", self._live),
                web.get("/health/ready", self._ready),
                web.get("/metrics", self._metrics),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._config.hostname, self._config.port).start()

    async def close(self) -> None:
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def _live(self, _: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def _ready(self, _: web.Request) -> web.Response:
        reason = self._is_ready()
        return web.json_response({"ready": reason is None, "reason": reason}, status=200 if reason is None else 503)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(text=await self._text(), content_type="text/plain", charset="utf-8")
