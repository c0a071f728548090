"""`GET /openapi.json` describes the interface from what stands at the views; `GET /docs` shows it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal, TypeVar

from flask import Blueprint, Flask, Response, current_app, jsonify, render_template
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.contracts.http import Problem as ProblemBody

blueprint = Blueprint("openapi", __name__)

View = TypeVar("View", bound=Callable[..., Any])

Answer = type[BaseModel] | Literal["text"] | None
"""What an answer has in it: JSON, plain text or nothing."""

_BODY_PROBLEMS = (400, 408, 413, 415, 422)
_QUERY_PROBLEMS = (400, 422)
_KEY_PROBLEMS = (401, 429)

_TEXT = {"schema": {"type": "string"}}
_HEADERS = {
    "X-Request-Id": {
        "description": "Your own, if it has 1 to 100 letters, digits and _.:-.",
        "schema": {"type": "string"},
    },
    "Retry-After": {"description": "Seconds to wait before you ask again.", "schema": {"type": "integer"}},
    "Location": {"description": "The same as `status_url`.", "schema": {"type": "string"}},
}


@dataclass(frozen=True)
class _Description:
    summary: str
    answers: Mapping[int, Answer]
    body: type[BaseModel] | None
    query: type[BaseModel] | None
    headers: dict[str, str]
    headers_required: bool
    api_key: bool
    database: bool


def describe(
    summary: str,
    *,
    answers: Mapping[int, Answer],
    body: type[BaseModel] | None = None,
    query: type[BaseModel] | None = None,
    headers: dict[str, str] | None = None,
    headers_required: bool = False,
    api_key: bool = False,
    database: bool = True,
) -> Callable[[View], View]:
    """Document a view: it appears in `/openapi.json`. What follows from the other arguments is added to its answers.

    Args:
        api_key: it takes an API key, and counts against the key's limit.
        database: it needs the database, and says 503 while that is away.
    """

    def mark(view: View) -> View:
        said = _Description(summary, answers, body, query, headers or {}, headers_required, api_key, database)
        view.description = said  # type: ignore[attr-defined]
        return view

    return mark


@dataclass
class _Spec:
    app: Flask
    models: set[type[BaseModel]] = field(default_factory=set)

    def _answer(self, status: int, said: Answer) -> dict[str, Any]:
        headers = ["X-Request-Id"]
        if status in (429, 503):
            headers.append("Retry-After")
        answer: dict[str, Any] = {"description": HTTPStatus(status).phrase}
        if said == "text":
            answer["content"] = {"text/plain": _TEXT}
        elif said is not None:
            self.models.add(said)
            media = "application/problem+json" if said is ProblemBody else "application/json"
            answer["content"] = {media: {"schema": {"$ref": f"#/components/schemas/{said.__name__}"}}}
            if "status_url" in said.model_fields:
                headers.append("Location")
        answer["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in headers}
        return answer

    def _operation(self, rule: Any, said: _Description) -> dict[str, Any]:
        problems: dict[int, Answer] = {}
        if said.database:
            problems[503] = ProblemBody
        if said.api_key:
            problems |= dict.fromkeys(_KEY_PROBLEMS, ProblemBody)
        if said.body is not None:
            problems |= dict.fromkeys(_BODY_PROBLEMS, ProblemBody)
        if said.query is not None:
            problems |= dict.fromkeys(_QUERY_PROBLEMS, ProblemBody)
        if rule.arguments:
            problems[404] = ProblemBody
        answers = {**problems, **said.answers}
        parameters: list[dict[str, Any]] = [
            {"name": name, "in": "path", "required": True, "schema": _parameter_schema(rule._converters[name])}
            for name in sorted(rule.arguments)
        ]
        parameters += [
            {
                "name": name,
                "in": "header",
                "required": said.headers_required,
                "description": text,
                "schema": {"type": "string"},
            }
            for name, text in said.headers.items()
        ]
        if said.query is not None:
            schema = said.query.model_json_schema()
            parameters += [
                {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": shape}
                for name, shape in schema["properties"].items()
            ]
        operation: dict[str, Any] = {
            "operationId": rule.endpoint.replace(".", "_"),
            "summary": said.summary,
            "responses": {str(status): self._answer(status, answers[status]) for status in sorted(answers)},
        }
        if parameters:
            operation["parameters"] = parameters
        if said.api_key:
            operation["security"] = [{"ApiKey": []}, {"Bearer": []}]
        if said.body is not None:
            self.models.add(said.body)
            schema = {"$ref": f"#/components/schemas/{said.body.__name__}"}
            operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
        return operation

    def build(self) -> dict[str, Any]:
        paths: dict[str, dict[str, Any]] = {}
        for rule in self.app.url_map.iter_rules():
            said = getattr(self.app.view_functions[rule.endpoint], "description", None)
            if said is None:
                continue
            path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
            for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
                paths.setdefault(path, {})[method.lower()] = self._operation(rule, said)
        models = sorted(self.models, key=lambda model: model.__name__)
        _, schemas = models_json_schema(
            [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
        )
        return {
            "openapi": "3.1.0",
            "info": {
                "title": "Tallyhook",
                "version": "1",
                "description": "Signups, webhooks and phase events in; jobs that are never lost, and charges that"
                " are never made twice, out.",
            },
            "paths": dict(sorted(paths.items())),
            "components": {
                "schemas": schemas["$defs"],
                "headers": {name: {"required": True, **header} for name, header in _HEADERS.items()},
                "securitySchemes": {
                    "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                    "Bearer": {"type": "http", "scheme": "bearer"},
                },
            },
        }


def _parameter_schema(converter: Any) -> dict[str, Any]:
    known: dict[str, dict[str, Any]] = {
        "UUIDConverter": {"type": "string", "format": "uuid"},
        "IntegerConverter": {"type": "integer", "minimum": 0},
        "UnicodeConverter": {"type": "string", "minLength": 1},
    }
    return known[type(converter).__name__]


def specification(app: Flask) -> dict[str, Any]:
    """The OpenAPI 3.1 description of every documented route of `app`."""
    return _Spec(app).build()


@blueprint.get("/openapi.json")
def openapi() -> Response:
    return jsonify(specification(current_app))


@blueprint.get("/docs")
def docs() -> str:
    return render_template("docs.html", spec=specification(current_app))
