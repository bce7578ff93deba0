"""References between keys: resolved as OmegaConf does, and nothing else is."""

import random

import pytest
from omegaconf import OmegaConf

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.references import check_references, escape, resolve


def resolved(values):
    check_references(values, "f")
    return resolve(values, "f")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"a": "${b.c}", "b": {"c": 5}}, {"a": 5, "b": {"c": 5}}),
        ({"a": {"b": "${.c}", "c": 1, "d": ["${..c}"]}}, {"a": {"b": 1, "c": 1, "d": [1]}}),
        ({"a": "x-${b}-${b}", "b": True}, {"a": "x-True-True", "b": True}),
        ({"a": "${b}", "b": "${c.x}", "c": "${d}", "d": {"x": [1]}}, None),
        ({"a": "${b[1]}", "b": [1, "${b.0}"]}, {"a": 1, "b": [1, 1]}),
        ({"y": {"x": 1}, "x": "${y}", "z": "${x.x}"}, {"y": {"x": 1}, "x": {"x": 1}, "z": 1}),
        ({"a": r"\${b} \\${b}", "b": 1}, {"a": r"${b} \1", "b": 1}),
        ({"a": "$b {c} $ {d}", "b": "\\"}, {"a": "$b {c} $ {d}", "b": "\\"}),
    ],
)
def test_references_are_resolved_as_by_omegaconf(values, expected):
    theirs = OmegaConf.to_container(OmegaConf.create(values), resolve=True)
    assert resolved(values) == theirs
    assert expected is None or theirs == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"a": "${oc.env:HOME}"}, "f: a: ${oc.env:HOME}: resolvers are not allowed"),
        ({"a": "${mine:}"}, "f: a: ${mine:}: resolvers are not allowed"),
        ({"a": {"b": ["x${oc.env:HOME,${c}}"]}}, "f: a.b[0]: ${oc.env:HOME,${c}}: resolvers are not allowed"),
        ({"a": "${${b}:HOME}", "b": "oc.env"}, "f: a: ${${b}:HOME}: resolvers are not allowed"),
        ({"a": "${${b}}", "b": "oc.env:HOME"}, "f: a: ${${b}}: a reference cannot contain another one"),
        ({"a": "${b.${c}}"}, "f: a: ${b.${c}}: a reference cannot contain another one"),
        ({"a": "${"}, "f: a: '${': is no reference to a key"),
        ({"${oc.env:HOME}": 1}, "a key cannot hold ${...}"),
        ({"a": "${b}"}, "f: a: ${b}: there is no such key"),
        ({"a": "${...b}"}, "f: a: ${...b}: there is no such key"),
        ({"a": "${a}"}, "f: a: refers to itself"),
        ({"a": {"b": "${a}"}}, "f: a: refers to itself"),
        ({"a": "${b}", "b": "${a}"}, "f: a: refers to itself"),
        ({"a": "${b.x}", "b": "${a.x}"}, "refers to itself"),
        ({"a": "x ${b}", "b": {}}, "f: a: ${b} is a section or a list, which cannot be part of a text"),
        ({"a0": "x" * 99, **{f"a{n}": f"${{a{n - 1}}}" * 9 for n in range(1, 12)}}, "repeat too much"),
        ({"a": "${" * 5000}, "f: a: "),
        ({"a": "${b}" * 5000}, "f: a: "),
    ],
)
def test_anything_else_is_refused_with_its_key(values, message, monkeypatch):
    monkeypatch.setenv("HOME", "a secret")
    with pytest.raises(UserError) as error:
        resolved(values)
    assert message in str(error.value)
    assert "a secret" not in str(error.value)
    assert len(str(error.value)) < 400


def test_escaped_texts_stand_for_themselves_in_omegaconf_and_here():
    letters = random.Random(0)
    for _ in range(500):
        text = "".join(letters.choices(["$", "{", "\\", "}", "a", ".", ":", "${", "${a}"], k=6))
        assert resolved({"a": escape(text)}) == {"a": text}
        assert OmegaConf.create({"a": escape(text)}).a == text
