"""The shapes of the keys of an entry of ``datasets:``, before anything reads them."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field, StrictStr, ValidationError

from sftkey.util.errors import UserError

# YAML reads a data set's name or revision such as no, 1 or 2024-01-01 as something else.
_Quoted = Annotated[StrictStr | None, Field(description="a text; put it in quotes")]


class EntryKeys(BaseModel):
    """The shapes of an entry of ``datasets`` or ``test_datasets``."""

    path: _Quoted = None
    name: _Quoted = None
    split: _Quoted = None
    revision: _Quoted = None
    ds_type: _Quoted = None
    data_files: StrictStr | list[StrictStr] | dict[str, StrictStr | list[StrictStr]] | None = Field(
        None, description="a text, a list of texts or a mapping of splits to either"
    )


def check_shapes(shapes: type[BaseModel], values: Mapping[str, Any], where: str = "") -> None:
    """Check that every value is of its key's shape.

    Args:
        shapes: The shape of each key, with its description.
        values: The keys.
        where: Where they stand, for the message.

    Raises:
        UserError: Names the first key whose value isn't.
    """
    try:
        shapes.model_validate(values)
    except ValidationError as error:
        key = str(error.errors()[0]["loc"][0])
        wanted = shapes.model_fields[key].description
        raise UserError(f"{where}{key}: {reprlib.repr(values[key])} is not {wanted}") from error


def check_entry_shapes(entry: Mapping[str, Any], place: str) -> None:
    """Check the shapes of an entry's keys, and that it names rows; `place` is where it stands, such as ``datasets[0]``.

    Raises:
        UserError: Names the key.
    """
    check_shapes(EntryKeys, entry, f"{place}: ")
    if not entry.get("path") and not entry.get("data_files"):
        raise UserError(f"{place}: path: it names no rows; set it to a file, a folder or a data set on the Hub")
