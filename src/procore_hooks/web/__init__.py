"""The settings page, an ASGI app to mount in an app of any framework. It needs the extra ``web``.

::

    from procore_hooks.web import console_app

    app.mount("/webhooks", console_app(registry, authorize=may_administer))
"""

try:
    import jinja2 as _jinja2
    import starlette as _starlette
except ImportError as error:
    raise ImportError(
        f"procore_hooks.web needs {error.name}, which is not installed: pip install 'procore-hooks[web]'"
    ) from error

from ._console import Authorize, console_app
from ._scope import console_path

__all__ = ["Authorize", "console_app", "console_path"]

del _jinja2, _starlette
