"""What the integrations import, and what they say where a package is missing."""

from __future__ import annotations

import pytest

from ..scene import in_fresh_interpreter

# The packages whose absence is told by the name of the extra.
NEEDS = [
    ("fastapi", "fastapi"),
    ("flask", "werkzeug"),
    ("flask", "asgiref"),
    ("flask", "starlette"),
    ("django", "django"),
]
WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
try:
    import procore_hooks.integrations.{module}
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize(("module", "package"), NEEDS)
def test_a_missing_package_names_the_extra(module: str, package: str) -> None:
    """The error of the import says what is missing and which extra brings it, in one line."""
    said = in_fresh_interpreter(WITHOUT.format(module=module, package=package))
    assert said.count("\n") == 1
    assert f"needs {package}, " in said
    assert f"pip install 'procore-hooks[{module}]'" in said


def test_one_framework_does_not_bring_another() -> None:
    """The module of a framework imports that framework and no other."""
    frameworks = {"django", "fastapi", "flask"}
    source = "import sys; import procore_hooks.integrations{}; print(*sys.modules)"
    for module, brings in ((".flask", {"flask"}), (".django", {"django"}), (".fastapi", {"fastapi"})):
        assert frameworks & set(in_fresh_interpreter(source.format(module)).split()) == brings
