"""The settings page and a dispatcher in an app of FastAPI, Flask or Django.

One module for each: `procore_hooks.integrations.fastapi`, `.flask` and `.django`. None is imported unless the app does,
and each needs the extra of its name.
"""
