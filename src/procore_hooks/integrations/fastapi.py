"""The settings page and a dispatcher in a FastAPI app. It needs the extra ``fastapi``.

::

    from procore_hooks.integrations.fastapi import install

    install(app, registry, authorize=may_administer)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from procore_hooks import AsyncHookRegistry, Dispatcher, HookRegistry

from ._extras import without_extra
from ._serving import checked_path, chosen_dispatcher

try:
    from fastapi import FastAPI
    from starlette.applications import Starlette

    from ..web import Authorize, console_app
except ImportError as error:
    raise without_extra("fastapi", error) from error

__all__ = ["install"]


def install(
    app: FastAPI | Starlette,
    registry: HookRegistry | AsyncHookRegistry,
    *,
    authorize: Authorize | None,
    path: str = "/webhooks",
    dispatcher: Dispatcher | bool = True,
) -> None:
    """Mount the settings page, and deliver while the app runs.

    The dispatcher starts once the app has started, in every process that serves it, and stops before the app is shut
    down; what is not sent by then stays queued. It works in a thread of its own, so that neither a busy app nor a busy
    dispatcher holds up the other.

    Args:
        app: a FastAPI app, or one of Starlette.
        registry: whose hooks are shown, and whose deliveries are made.
        authorize: who may open the page, as `console_app` has it. None mounts no page.
        path: where the page is mounted.
        dispatcher: one with settings of its own. True makes one with the defaults; with False, none runs here, and
            another process has to deliver.

    Raises:
        InvalidInput: a value is wrong.
    """
    chosen = chosen_dispatcher(registry, dispatcher)
    if authorize is not None:
        app.mount(checked_path(path), console_app(registry, authorize=authorize))
    if chosen is not None:
        _run_with(app, chosen)


def _run_with(app: FastAPI | Starlette, dispatcher: Dispatcher) -> None:
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[Any]:
        async with inner(app) as state:
            await asyncio.to_thread(dispatcher.start)
            try:
                yield state
            finally:
                await asyncio.to_thread(dispatcher.stop)

    app.router.lifespan_context = lifespan
