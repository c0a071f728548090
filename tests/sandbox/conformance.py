"""Checks the Stripe sandbox against Stripe's own OpenAPI description, exchange by exchange.

Plugged in as the sandbox's hook, it validates the parameters of every request and every object that is
answered; `check_events` does so for what the events carry. Stricter than the description in one way: an
object may have no field that the description does not name, so that fields Stripe has withdrawn
(`invoice.paid`) cannot come back.
"""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson

from app.sandbox.stripe.api import Exchange

STRIPE = Path(__file__).parents[3] / "shared" / "stripe"
OPENAPI = STRIPE / "openapi.json"
FIXTURES = STRIPE / "fixtures.json"

_DESCRIBING = {"title", "format", "description", "summary"}


@cache
def _description() -> dict[str, Any]:
    document: dict[str, Any] = orjson.loads(OPENAPI.read_bytes())
    return document


@cache
def _schemas() -> dict[str, Any]:
    return {name: _json_schema(schema) for name, schema in _description()["components"]["schemas"].items()}


def _json_schema(schema: Any) -> Any:
    """An OpenAPI 3.0 schema as JSON Schema: `nullable` becomes a type, unnamed properties are refused."""
    if isinstance(schema, list):
        return [_json_schema(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    out = {
        key: _properties(value) if key == "properties" else _json_schema(value)
        for key, value in schema.items()
        if key not in _DESCRIBING and key != "nullable" and not key.startswith("x-")
    }
    if "properties" in out:
        out.setdefault("additionalProperties", False)
    return {"anyOf": [out, {"type": "null"}]} if schema.get("nullable") else out


def _properties(properties: dict[str, Any]) -> dict[str, Any]:
    return {name: _json_schema(schema) for name, schema in properties.items()}


@cache
def _validator(schema: bytes) -> jsonschema_rs.Draft7Validator:
    document = orjson.loads(schema)
    if b"$ref" in schema:
        document["components"] = {"schemas": _schemas()}
    return jsonschema_rs.Draft7Validator(document)


def _problems(schema: bytes, value: Any) -> list[str]:
    return [line for error in _validator(schema).iter_errors(value) for line in _told(error)]


def _component(name: str) -> bytes:
    return orjson.dumps({"$ref": f"#/components/schemas/{name}"})


@cache
def _operation(name: str) -> tuple[dict[str, Any], bytes] | None:
    """The schemas of an operation's parameters and of its answer, or None where Stripe has no such one."""
    method, template = name.split(" ")
    described = _description()["paths"].get(template, {}).get(method.lower())
    if described is None:
        return None
    answer = described["responses"]["200"]["content"]["application/json"]["schema"]
    return _parameters(described), orjson.dumps(_json_schema(answer))


def _told(error: jsonschema_rs.ValidationError) -> list[str]:
    """An error in words. Of several alternatives the one that came nearest speaks: the others differ in
    what kind of thing they are, which is not what went wrong."""
    branches = getattr(error.kind, "context", None)
    if branches:
        nearest = max(branches, key=lambda branch: max(len(list(e.instance_path)) for e in branch))
        deeper = [e for e in nearest if len(list(e.instance_path)) >= len(list(error.instance_path))]
        if nearest and any(len(list(e.instance_path)) > len(list(error.instance_path)) for e in nearest):
            return [line for inner in deeper for line in _told(inner)]
        objects = [branch for branch in branches if all(e.kind.name != "type" for e in branch)]
        if objects:
            return [line for inner in objects[0] for line in _told(inner)]
    where = ".".join(str(part) for part in error.instance_path) or "(itself)"
    return [f"{where}: {error.message[:300]}"]


def _typed(schema: dict[str, Any], value: Any) -> Any:
    """A parameter as its schema would have it: forms carry only strings, and lists with numbered keys."""
    if "anyOf" in schema:
        for choice in schema["anyOf"]:
            typed = _typed(choice, value)
            if not _problems(orjson.dumps(choice), typed):
                return typed
        return _typed(schema["anyOf"][0], value)
    kind = schema.get("type")
    if kind == "array" and isinstance(value, dict):
        return [_typed(schema["items"], item) for item in value.values()]
    if kind == "object" and isinstance(value, dict):
        named, others = schema.get("properties", {}), schema.get("additionalProperties", {})
        return {
            key: _typed(named.get(key) or (others if isinstance(others, dict) else {}), item)
            for key, item in value.items()
        }
    if kind == "integer" and isinstance(value, str) and value.lstrip("-").isdigit():
        return int(value)
    if kind == "number" and isinstance(value, str):
        return float(value)
    if kind == "boolean" and value in ("true", "false"):
        return value == "true"
    return value


class Conformance:
    """The hook. `problems` are what it has found so far, one readable text each."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def __call__(self, exchange: Exchange) -> None:
        described = _operation(exchange.operation)
        if described is None:
            self.problems.append(f"{exchange.operation} is not in Stripe's description")
            return
        parameters, answer = described
        if exchange.status == 200:
            typed = _typed(parameters, exchange.params)
            self._report(f"{exchange.operation} took", _problems(orjson.dumps(parameters), typed))
        found = _problems(answer if exchange.status == 200 else _component("error"), exchange.body)
        self._report(f"{exchange.operation} answered {exchange.status} with", found)

    def check_events(self, events: Iterable[dict[str, Any]]) -> None:
        """Events themselves, and the object that each carries."""
        for event in events:
            self._report(f"event {event['type']}", _problems(_component("event"), event))
            carried = event["data"]["object"]
            name = f"deleted_{carried['object']}" if carried.get("deleted") else carried["object"]
            self._report(f"event {event['type']} carries", _problems(_component(name), carried))

    def _report(self, subject: str, found: list[str]) -> None:
        if found:
            self.problems.append("\n    ".join([f"{subject}:", *found]))


def _parameters(described: dict[str, Any]) -> dict[str, Any]:
    """One schema of all that an operation takes outside of its path, in query or body."""
    content = described.get("requestBody", {}).get("content", {})
    body = content.get("application/x-www-form-urlencoded", {}).get("schema", {})
    query = [param for param in described.get("parameters", []) if param["in"] == "query"]
    properties = {**body.get("properties", {}), **{param["name"]: param["schema"] for param in query}}
    required = [*body.get("required", []), *(param["name"] for param in query if param.get("required"))]
    schema = {"type": "object", "properties": properties, "required": required}
    converted: dict[str, Any] = _json_schema(schema)
    return converted


def fixture(kind: str) -> dict[str, Any]:
    """Stripe's own sample of an object."""
    sample: dict[str, Any] = orjson.loads(FIXTURES.read_bytes())["resources"][kind]
    return sample


def missing_fields(obj: dict[str, Any], kind: str) -> set[str]:
    """The fields that Stripe's sample has and its description still names, and this object lacks."""
    described = _description()["components"]["schemas"][kind]["properties"]
    return {name for name in fixture(kind) if name in described} - set(obj)
