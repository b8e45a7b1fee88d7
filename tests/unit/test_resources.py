"""The catalogue of resources: what it lets through, and what it says of what it does not."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import attrs
import pytest

from procore_hooks.exceptions import InvalidInput, UnknownResource, UnsupportedAction
from procore_hooks.resources import PROCORE, Resource, ResourceCatalog

OWN = ResourceCatalog.from_mapping({"Invoices": ["create", "update", "archive"], "Orders": ["delete"]})


def test_procore_has_its_121_resources() -> None:
    """Procore's catalogue is complete: 121 names, two levels, four categories, three actions."""
    assert len(PROCORE) == len({resource.name for resource in PROCORE}) == 121
    assert Counter(resource.level for resource in PROCORE) == {"company": 25, "project": 96}
    assert set(PROCORE.categories) == {"Core", "Project Management", "Construction Financials", "Quality & Safety"}
    assert set().union(*(resource.actions for resource in PROCORE)) == {"create", "update", "delete"}


def test_procore_knows_what_each_resource_supports() -> None:
    """Actions are those of Procore's list: all three, or the part that the resource supports."""
    rfis = {"create", "update", "delete"}
    assert PROCORE.get("RFIs") == Resource("RFIs", "project", "Project Management", frozenset(rfis))
    assert PROCORE.get("Standard Cost Code Lists").actions == {"create"}
    assert PROCORE.get("Timecard Time Types").actions == {"create", "delete"}


def test_procore_is_the_same_object_each_time() -> None:
    """The data is read once."""
    import procore_hooks.resources as module

    assert module.PROCORE is PROCORE


def test_importing_reads_no_file_before_procore_is_used() -> None:
    """The module's import opens nothing of the package's data; the first use of `PROCORE` does."""
    program = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
import procore_hooks.resources as resources
assert not [path for path in opened if path.endswith(".csv")], opened
assert "csv" not in sys.modules
resources.PROCORE
assert [path for path in opened if path.endswith(".csv")], opened
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_other_attributes_are_absent() -> None:
    """The module's lazy attribute does not hide a misspelt one."""
    import procore_hooks.resources as module

    with pytest.raises(AttributeError, match="PROCOR'"):
        _ = module.PROCOR


def test_a_catalogue_is_a_container_of_names() -> None:
    """It iterates over resources in order, has a length, and contains names."""
    assert [resource.name for resource in OWN] == ["Invoices", "Orders"]
    assert len(OWN) == 2
    assert "Orders" in OWN
    assert "orders" not in OWN
    assert repr(OWN) == "ResourceCatalog(2 resources)"


def test_categories_hold_every_resource_once_and_do_not_change() -> None:
    """The categories part the catalogue, in its order, and are read-only."""
    grouped = [resource for members in PROCORE.categories.values() for resource in members]

    assert sorted(grouped, key=lambda r: r.name) == sorted(PROCORE, key=lambda r: r.name)
    assert all(r.category == category for category, members in PROCORE.categories.items() for r in members)
    with pytest.raises(TypeError):
        PROCORE.categories["Core"] = ()  # type: ignore[index]


def test_from_mapping_takes_a_level_and_a_category() -> None:
    """An app's own resources are of one level and category, by default of projects."""
    company = ResourceCatalog.from_mapping({"Plants": {"create"}}, level="company", category="Sites")

    assert company.get("Plants") == Resource("Plants", "company", "Sites", frozenset({"create"}))
    assert {resource.level for resource in OWN} == {"project"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("RFI", "resource: 'RFI' is not in the catalogue; did you mean 'RFIs'?"),
        ("rfis", "resource: 'rfis' is not in the catalogue; did you mean 'RFIs'?"),
        (" RFIs ", "resource: ' RFIs ' is not in the catalogue; did you mean 'RFIs'?"),
        ("*", "resource: '*' is not in the catalogue; none of its 121 names is like it; iterate over it to see them"),
        (
            "a\nb",
            "resource: 'a\\nb' is not in the catalogue; none of its 121 names is like it; iterate over it to see them",
        ),
    ],
)
def test_an_unknown_resource_is_answered_with_the_nearest(name: str, message: str) -> None:
    """An unknown name raises in one line, with the nearest names, whatever their case, where there are any."""
    with pytest.raises(UnknownResource) as caught:
        PROCORE.get(name)
    assert str(caught.value) == message


def test_several_near_names_are_all_given() -> None:
    """Up to three near names are given."""
    with pytest.raises(UnknownResource, match=r"did you mean 'Orders 2', 'Orders 1' or 'Orders'\?$"):
        ResourceCatalog.from_mapping({f"Orders{n}": ["create"] for n in ("", " 1", " 2", " 20000")}).get("Orders 22")


def test_a_small_catalogue_names_all_that_it_has() -> None:
    """Where nothing is near, a small catalogue says what there is."""
    with pytest.raises(UnknownResource, match=r"it has 'Invoices' and 'Orders'$"):
        OWN.get("Zzz")


def test_an_endless_name_is_answered_shortly() -> None:
    """A huge name does not fill the message."""
    with pytest.raises(UnknownResource) as caught:
        PROCORE.get("R" * 1_000_000)
    assert len(str(caught.value)) < 300


def test_check_lets_supported_actions_through() -> None:
    """Every action of every resource passes both checks."""
    for resource in PROCORE:
        for action in resource.actions:
            PROCORE.check(resource.name, action)
            PROCORE.check_trigger(resource.name, action)


def test_an_unsupported_action_is_answered_with_the_supported_ones() -> None:
    """The error names what the resource supports, in the usual order, and the nearest of it."""
    with pytest.raises(UnsupportedAction) as caught:
        OWN.check("Invoices", "Updated")
    assert str(caught.value) == (
        "action: 'Updated' is not supported by 'Invoices'; use 'create', 'update' or 'archive'; did you mean 'update'?"
    )
    with pytest.raises(UnsupportedAction, match=r"not supported by 'Orders'; use 'delete'$"):
        OWN.check("Orders", "create")


@pytest.mark.parametrize(("resource", "action"), [("*", "create"), ("Orders", "*"), ("*", "*")])
def test_any_is_for_triggers_alone(resource: str, action: str) -> None:
    """A trigger may say "*" for the resource, the action or both; an event may not."""
    OWN.check_trigger(resource, action)
    with pytest.raises((UnknownResource, UnsupportedAction)):
        OWN.check(resource, action)


@pytest.mark.parametrize(
    ("resource", "action", "error"),
    [
        ("Order", "*", UnknownResource),
        ("Order", "delete", UnknownResource),
        ("Orders", "create", UnsupportedAction),
        ("*", "updat", UnsupportedAction),
    ],
)
def test_a_trigger_that_no_event_can_set_off_is_refused(resource: str, action: str, error: type[InvalidInput]) -> None:
    """The side of a trigger that is not "*" is checked all the same."""
    with pytest.raises(error, match=r"did you mean|use 'delete'"):
        OWN.check_trigger(resource, action)


def test_an_empty_catalogue_answers_too() -> None:
    """Without any resource there is nothing near and nothing supported, and the errors say so."""
    empty = ResourceCatalog([])
    with pytest.raises(UnknownResource, match="none of its 0 names"):
        empty.get("RFIs")
    with pytest.raises(UnsupportedAction, match="the catalogue is empty"):
        empty.check_trigger("*", "create")


def test_a_name_comes_once() -> None:
    """Two resources of one name are refused."""
    twice = Resource("RFIs", "project", "Core", frozenset({"create"}))
    with pytest.raises(InvalidInput, match=r"^resources: 'RFIs' is there twice"):
        ResourceCatalog([twice, twice])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "*"),
        ("name", "a\nb"),
        ("name", 7),
        ("level", "planet"),
        ("category", " "),
        ("actions", "update"),
        ("actions", 7),
        ("actions", []),
        ("actions", ["*"]),
        ("actions", ["create", ""]),
        ("actions", [7]),
    ],
)
def test_each_field_of_a_resource_is_checked(field: str, value: object) -> None:
    """A wrong value is refused by the name of its field; a bare string is not taken for its letters."""
    right = Resource("RFIs", "project", "Core", frozenset({"create"}))
    with pytest.raises(InvalidInput, match=f"^{field}: "):
        attrs.evolve(right, **{field: value})  # type: ignore[arg-type]
