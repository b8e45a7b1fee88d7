"""What a module says when the packages that it needs are not there."""

from __future__ import annotations

__all__ = ["without_extra"]


def without_extra(extra: str, error: ImportError) -> ImportError:
    """The error to raise instead of `error`: it names the package and the extra that brings it."""
    # That of `procore_hooks.web` names its own extra, and what was missing in its cause.
    missing = error.name or getattr(error.__cause__, "name", None) or "a package"
    return ImportError(
        f"procore_hooks.integrations.{extra} needs {missing}, which is not installed: "
        f"pip install 'procore-hooks[{extra}]'",
        name=missing,
    )
