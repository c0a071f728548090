"""Read a JSON body strictly: what two parsers could read in two ways is refused (failures.md 43)."""

import json
from typing import Any, NoReturn, TypeVar

import orjson
from flask import Response, request
from pydantic import AliasChoices, BaseModel, ValidationError
from pydantic_core import ErrorDetails
from werkzeug.exceptions import ClientDisconnected

from app.intake.problems import Problem

MAX_BYTES = 1024 * 1024

M = TypeVar("M", bound=BaseModel)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise Problem(400, "An object in the body has the same key twice.")
    return made


def _refuse_constant(name: str) -> NoReturn:
    raise Problem(400, f"The body has {name}, which is not JSON.")


def read_body() -> bytes:
    """The request's body, whole; it can still be read as a form.

    Raises:
        Problem: 413 over 1 MiB, 408 it came too slowly or broke off.
    """
    try:
        raw = request.get_data()
    except ClientDisconnected:  # what Werkzeug makes of a time-out, too
        raise Problem(408, "The body did not arrive in time.") from None
    if len(raw) > MAX_BYTES:
        raise Problem(413, f"The body is over {MAX_BYTES} bytes.")
    return raw


def read_json(model: type[M]) -> M:
    """The request's body as a `model`.

    Raises:
        Problem: 415 not JSON by its media type, 400 malformed, 422 does not validate; see `read_body`.
    """
    if request.mimetype != "application/json":
        raise Problem(415, "Send the body as Content-Type: application/json.")
    return parse_json(model, read_body())


def parse_json(model: type[M], raw: bytes) -> M:
    """`raw`, a body that has been read, as a `model`.

    Raises:
        Problem: 400 malformed, 422 does not validate.
    """
    try:
        data = json.loads(raw.decode("utf-8"), object_pairs_hook=_object, parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise Problem(400, "The body is not UTF-8.") from None
    except RecursionError:
        raise Problem(400, "The body is nested too deeply.") from None
    except json.JSONDecodeError as error:
        raise Problem(400, f"The body is not JSON: {error}") from None
    except ValueError:  # from Python, which says how to lift its limit
        raise Problem(400, "The body has an integer of too many digits.") from None
    return validated(model, data, "body")


def idempotency_key() -> str | None:
    """The request's Idempotency-Key, if it has one.

    Raises:
        Problem: 400 it is not of the form that a key has.
    """
    key = request.headers.get("Idempotency-Key")
    if key is not None and not (1 <= len(key) <= 255 and key.isprintable()):
        raise Problem(400, "Idempotency-Key must have 1 to 255 printable characters.")
    return key


def read_query(model: type[M]) -> M:
    """The request's query parameters as a `model`; those that it does not know are ignored.

    Raises:
        Problem: 400 a parameter came twice, 422 does not validate.
    """
    twice = [name for name, values in request.args.lists() if len(values) > 1]
    if twice:
        raise Problem(400, f"The query has {twice[0]} more than once.")
    return validated(model, request.args.to_dict(), "query")


def validated(model: type[M], data: Any, what: str) -> M:
    """`data`, which came as `what`, as a `model`.

    Raises:
        Problem: 422 with each of its errors.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        errors = [
            {"loc": _place(model, data, item["loc"]), "msg": _reason(item)}
            for item in error.errors(include_url=False)
            if item["type"] != "default_factory_not_called"  # only follows from another one
        ]
        raise Problem(422, f"The {what} does not validate: see errors.", errors=errors) from None


def _place(model: type[BaseModel], data: Any, loc: tuple[int | str, ...]) -> list[int | str]:
    """Where an error is, by the name that the sender wrote; of a field that is missing, by the first that it has."""
    field = model.model_fields.get(str(loc[0])) if loc else None
    if field is None or loc[0] in data:
        return list(loc)
    alias = field.validation_alias
    return [str(alias.choices[0] if isinstance(alias, AliasChoices) else alias or loc[0]), *loc[1:]]


def _reason(item: ErrorDetails) -> str:
    """What to change, without what Pydantic says of our own classes and puts before our own words."""
    if item["type"] in ("model_type", "dict_type"):
        return "must be a JSON object"
    return str(item["ctx"]["error"]) if item["type"] == "value_error" else item["msg"]


def reply(body: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """`body` as JSON."""
    return Response(
        orjson.dumps(body.model_dump(mode="json")), status, {"Content-Type": "application/json", **(headers or {})}
    )
