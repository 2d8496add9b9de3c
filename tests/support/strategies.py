"""Any value that a model of pydantic's takes, from its declaration: a field that is added is tried by being there."""

from __future__ import annotations

import types
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

M = TypeVar("M", bound=BaseModel)

_LEAST, _MOST = -(2**63), 2**63 - 1


@lru_cache
def models(model: type[M]) -> st.SearchStrategy[M]:
    fields = {name: _of(field.annotation, field.metadata) for name, field in model.model_fields.items()}
    return st.fixed_dictionaries(fields).map(lambda values: _made(model, values)).filter(lambda made: made is not None)


def _made(model: type[M], values: dict[str, Any]) -> M | None:
    """None: its fields do not fit each other."""
    try:
        return model.model_validate(values)
    except ValidationError:
        return None


def _of(kind: Any, metadata: list[Any]) -> st.SearchStrategy[Any]:  # noqa: C901, PLR0911 - one for each type
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        more = [part for each in arguments[1:] for part in (each.metadata if isinstance(each, FieldInfo) else [each])]
        return _of(arguments[0], [*metadata, *more])
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (Union, types.UnionType):
        return st.one_of(*(_of(each, []) for each in arguments))
    if origin is tuple and arguments[-1] is Ellipsis:
        least = _bound(metadata, "min_length", 0)
        return st.lists(_of(arguments[0], []), min_size=least, max_size=least + 3).map(tuple)
    if origin is tuple:
        return st.tuples(*(_of(each, []) for each in arguments))
    if origin is Mapping:
        return st.dictionaries(_of(arguments[0], []), _of(arguments[1], []), max_size=3)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return models(kind)
    if kind is str:
        pattern = next((each.pattern for each in metadata if getattr(each, "pattern", None)), None)
        texts = st.text(max_size=20) if pattern is None else st.from_regex(pattern.replace("$", r"\Z"), fullmatch=True)
        return texts.filter(lambda text: len(text) <= 200)
    if kind is int:
        return st.integers(_bound(metadata, "ge", _LEAST), _bound(metadata, "lt", _MOST + 1) - 1)
    if kind is bool:
        return st.booleans()
    if kind is type(None):
        return st.none()
    raise TypeError(f"No strategy for {kind!r}.")


def _bound(metadata: list[Any], name: str, default: int) -> int:
    return next((int(getattr(each, name)) for each in metadata if hasattr(each, name)), default)
