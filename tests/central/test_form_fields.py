"""A schema becomes a form, and what is typed becomes values again, whatever a stranger's schema says."""

from __future__ import annotations

from typing import Any

import pytest

from fednode.central.pages.form_fields import MAX_FIELDS, FormField, element_id, fields_of, is_left_out, value_of
from fednode.core.json import Json
from fednode.errors import BadConfig


def one(told: Any, **defs: Any) -> FormField:
    found = fields_of({"properties": {"x": told}, "$defs": defs}, "task")
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(
    ("told", "kind", "text"),
    [
        ({"type": "integer", "default": 5}, "integer", "5"),
        ({"type": "number", "default": 0.001}, "number", "0.001"),
        ({"type": "string", "default": "a"}, "text", "a"),
        ({"type": "boolean", "default": True}, "flag", "on"),
        ({"enum": ["cnn", 3], "default": 3}, "choice", "3"),
        ({"const": "only"}, "choice", ""),
        ({"type": "array", "items": {"type": "integer"}, "default": [1, 2]}, "list", "1, 2"),
        ({"type": "array", "items": {"type": "string"}, "default": ["a, b"]}, "list", '["a, b"]'),
        ({"type": "object", "default": {"a": 1}}, "json", '{"a": 1}'),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None}, "integer", ""),
        ({"type": ["number", "null"], "default": 2.5}, "number", "2.5"),
        ({"$ref": "#/$defs/Model", "default": "b"}, "choice", '"b"'),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}], "default": 7}, "json", "7"),
        ({"enum": list(range(300)), "default": 3}, "json", "3"),
    ],
)
def test_each_kind_of_setting_has_its_input_with_the_default_in_it(told: Any, kind: str, text: str) -> None:
    field = one(told, Model={"enum": ["a", "b"]})
    assert (field.kind, field.text) == (kind, text)


@pytest.mark.parametrize(
    ("told", "typed", "value"),
    [
        ({"type": "integer"}, " 7 ", 7), ({"type": "integer"}, "1e3", 1000), ({"type": "number"}, "1e-3", 0.001),
        ({"type": "string"}, " as it is ", " as it is "), ({"type": "boolean"}, "", False),
        ({"type": "boolean"}, "on", True), ({"enum": ["1", 1]}, "1", 1), ({"enum": ["1", 1]}, '"1"', "1"),
        ({"type": ["integer", "null"]}, "", None), ({"type": ["string", "null"]}, "", None),
        ({"type": ["boolean", "null"]}, "null", None),
        ({"type": "array", "items": {"type": "integer"}}, "1, 2,3", [1, 2, 3]),
        ({"type": "array", "items": {"type": "string"}}, "a, b", ["a", "b"]),
        ({"type": "array", "items": {"type": "string"}}, '["a, b"]', ["a, b"]),
        ({"type": "object"}, '{"a": [1]}', {"a": [1]}),
    ],
)
def test_what_is_typed_is_read_as_the_schema_has_it(told: Any, typed: str, value: Json) -> None:
    assert value_of(one(told).typed(typed)) == value


@pytest.mark.parametrize(
    ("told", "typed", "fix"),
    [
        ({"type": "integer"}, "five", "digits"), ({"type": "integer"}, "1.5", "digits"),
        ({"type": "integer"}, "9" * 5000, "digits"), ({"type": "number"}, "0,1", "such as 0.1"),
        ({"enum": ["a"]}, '"b"', "one of the list"), ({"type": "object"}, "{", "JSON"),
        ({"type": "array", "items": {"type": "integer"}}, "1, two", "commas"), ({"type": "object"}, "[" * 9999, "JSON"),
        ({"type": "integer", "default": 1}, "", "digits"),
    ],
)
def test_what_cannot_be_read_is_refused_at_its_field_with_an_example(told: Any, typed: str, fix: str) -> None:
    with pytest.raises(BadConfig, match=r"is no|nothing stands here") as caught:
        value_of(one(told).typed(typed))
    assert caught.value.field == "task.x"
    assert fix in caught.value.fix
    assert len(caught.value.message) < 200


def test_an_empty_field_is_left_out_only_where_there_is_no_default() -> None:
    assert is_left_out(one({"type": "integer"}))
    assert not is_left_out(one({"type": "integer", "default": 3}).typed(""))
    assert not is_left_out(one({"type": ["integer", "null"]}))


def test_limits_are_told_and_a_title_that_is_only_the_name_is_not() -> None:
    field = one({"type": "integer", "minimum": 1, "maximum": 10_000, "title": "X"})
    assert (field.label, field.minimum, field.maximum, field.limits) == ("X", "1", "10000", "1 to 10,000")
    assert one({"type": "number", "exclusiveMinimum": 0}).limits == "more than 0"
    assert fields_of({"properties": {"batch_size": {"title": "Batch Size"}}}, "task")[0].label == "Batch size"


@pytest.mark.parametrize(
    "schema",
    [
        {}, {"properties": []}, {"properties": {"x": True}}, {"properties": {"x": None}}, {"properties": {"x": []}},
        {"properties": {"x": {"$ref": "#/properties/x"}}}, {"properties": {"x": {"$ref": "http://a.example/x"}}},
        {"properties": {"x": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"$ref": "#/$defs/A"}}},
        {"properties": {"x": {"anyOf": [{"$ref": "#/$defs/A"}]}}, "$defs": {"A": {"anyOf": [{"$ref": "#/$defs/A"}]}}},
        {"properties": {"x": {"type": {}, "enum": {}, "items": [], "minimum": "a", "title": 3, "description": []}}},
        {"properties": {"x": {"type": ["integer", "string"], "default": {"a": 1}}}, "$defs": 3},
        {"properties": {"": {}, "a b\"'<>": {"type": "integer", "default": "no number"}, "a.b": {"type": "boolean"}}},
    ],
)
def test_an_odd_schema_still_gives_a_form(schema: Any) -> None:
    for field in fields_of(schema, "task"):
        assert field.label is not None
        assert field.kind in ("integer", "number", "text", "flag", "choice", "list", "json")


def test_a_huge_schema_shows_its_first_fields_and_a_long_text_is_cut() -> None:
    schema = {"properties": {f"x{n}": {"type": "integer", "description": "long " * 1000} for n in range(5000)}}
    found = fields_of(schema, "task")
    assert len(found) == MAX_FIELDS
    assert max(len(field.help) for field in found) <= 400


def test_a_name_that_is_no_id_gets_one_of_its_own() -> None:
    assert element_id("task.epochs") == "f-task.epochs"
    assert element_id('task."><b>') == element_id('task."><b>') != element_id("task. x")
    assert " " not in element_id("task. x")
