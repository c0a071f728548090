"""Parameters as Pydantic models: what an operation takes, and Stripe's words for what it refuses."""

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from app.sandbox.stripe.errors import InvalidParameter
from app.sandbox.stripe.forms import bracketed
from app.sandbox.stripe.objects import Object

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


def _as_list(value: Any) -> Any:
    if isinstance(value, dict) and all(key.isdigit() for key in value):
        return [value[key] for key in sorted(value, key=int)]
    return [] if value == "" else value


def _empty_is_null(value: Any) -> Any:
    return None if value == "" else value


def _bare_is_exact(value: Any) -> Any:
    return {"gte": value, "lte": value} if isinstance(value, str) else value


List = Annotated[list[T], BeforeValidator(_as_list)]
Clearable = Annotated[T | None, BeforeValidator(_empty_is_null)]
Metadata = Annotated[dict[str, str] | None, BeforeValidator(_empty_is_null), Field(default_factory=dict)]


class Strict(BaseModel):
    """A nested parameter: an unknown key within it is refused."""

    model_config = ConfigDict(extra="forbid")


class Params(Strict):
    """What every operation takes."""

    expand: List[str] = []

    def given(self, *except_for: str) -> dict[str, Any]:
        """The parameters that the request named, with nested ones as dicts; `expand` is not among them."""
        return self.model_dump(exclude_unset=True, exclude={"expand", "metadata", *except_for})

    def apply_to(self, obj: Object, *except_for: str) -> Object:
        """The object with the parameters that were given; metadata is merged into what it was."""
        obj |= self.given(*except_for)
        if "metadata" in self.model_fields_set:
            obj["metadata"] = merged(obj["metadata"], self.model_dump(include={"metadata"})["metadata"])
        return obj


class Range(Strict):
    """`created[gte]=…`, or `created=…` for one instant; seconds since 1970."""

    gt: int | None = None
    gte: int | None = None
    lt: int | None = None
    lte: int | None = None


Created = Annotated[Range, BeforeValidator(_bare_is_exact)]


class ListParams(Params):
    """What every list takes; the newest comes first."""

    limit: int = Field(default=10, ge=1, le=100)
    starting_after: str | None = None
    ending_before: str | None = None


class DatedListParams(ListParams):
    """Most lists can also be cut by when their objects were made."""

    created: Created | None = None


class SearchParams(Params):
    query: str
    limit: int = Field(default=10, ge=1, le=100)
    page: str | None = None


class Address(Strict):
    city: Clearable[str] = None
    country: Clearable[str] = None
    line1: Clearable[str] = None
    line2: Clearable[str] = None
    postal_code: Clearable[str] = None
    state: Clearable[str] = None


def merged(metadata: dict[str, str], update: dict[str, str] | None) -> dict[str, str]:
    """Metadata after an update: an empty value takes its key out, an empty hash (`None`) all of them."""
    if update is None:
        return {}
    both = metadata | update
    return {key: value for key, value in both.items() if value != ""}


def validate(model: type[M], tree: dict[str, Any]) -> M:
    """The parameters as the operation's model. Raises `InvalidParameter` with the first thing wrong."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise _refusal(error.errors(include_url=False)[0]) from None


def _refusal(error: ErrorDetails) -> InvalidParameter:
    param = bracketed(error["loc"])
    got, context = error["input"], error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            return InvalidParameter(f"Received unknown parameter: {param}", code="parameter_unknown", param=param)
        case "missing":
            return InvalidParameter(f"Missing required param: {param}.", code="parameter_missing", param=param)
        case "int_parsing" | "int_type" | "int_from_float":
            return InvalidParameter(f"Invalid integer: {got}", code="parameter_invalid_integer", param=param)
        case "greater_than_equal":
            message = f"This value must be greater than or equal to {context['ge']}."
            return InvalidParameter(message, code="parameter_invalid_integer", param=param)
        case "less_than_equal":
            message = f"This value must be less than or equal to {context['le']} (it currently is '{got}')."
            return InvalidParameter(message, code="parameter_invalid_integer", param=param)
        case "bool_parsing" | "bool_type":
            return InvalidParameter(f"Invalid boolean: {got}", param=param)
        case "literal_error":
            return InvalidParameter(f"Invalid {param}: must be one of {context['expected']}", param=param)
        case "list_type":
            return InvalidParameter("Invalid array", param=param)
        case "string_too_long":
            message = f"Invalid string: must be at most {context['max_length']} characters"
            return InvalidParameter(message, code="parameter_invalid_string_empty", param=param)
        case "string_type":
            return InvalidParameter("Invalid string", param=param)
        case _:
            return InvalidParameter(f"Invalid {param}: {error['msg']}", param=param)
