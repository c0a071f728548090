"""`GET /openapi.json` describes the interface from what stands at the views; `GET /docs` shows it."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeVar

from flask import Blueprint, Flask, Response, current_app, jsonify, render_template
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.contracts.http import Problem as ProblemBody

blueprint = Blueprint("openapi", __name__)

View = TypeVar("View", bound=Callable[..., Any])

_BODY_PROBLEMS = (400, 408, 413, 415, 422)
_QUERY_PROBLEMS = (400, 422)


@dataclass(frozen=True)
class _Description:
    summary: str
    answers: dict[int, type[BaseModel] | None]
    body: type[BaseModel] | None
    query: type[BaseModel] | None
    headers: dict[str, str]
    api_key: bool


def describe(
    summary: str,
    *,
    answers: dict[int, type[BaseModel] | None],
    body: type[BaseModel] | None = None,
    query: type[BaseModel] | None = None,
    headers: dict[str, str] | None = None,
    api_key: bool = False,
) -> Callable[[View], View]:
    """Document a view: it appears in `/openapi.json`. What every route may answer is added there."""

    def mark(view: View) -> View:
        view.description = _Description(summary, answers, body, query, headers or {}, api_key)  # type: ignore[attr-defined]
        return view

    return mark


@dataclass
class _Spec:
    app: Flask
    models: set[type[BaseModel]] = field(default_factory=set)

    def _answer(self, status: int, model: type[BaseModel] | None) -> dict[str, Any]:
        answer: dict[str, Any] = {"description": HTTPStatus(status).phrase}
        if model is not None:
            self.models.add(model)
            media = "application/problem+json" if model is ProblemBody else "application/json"
            answer["content"] = {media: {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}
        return answer

    def _operation(self, rule: Any, said: _Description) -> dict[str, Any]:
        problems = {429: ProblemBody, 503: ProblemBody}
        if said.api_key:
            problems[401] = ProblemBody
        if said.body is not None:
            problems |= dict.fromkeys(_BODY_PROBLEMS, ProblemBody)
        if said.query is not None:
            problems |= dict.fromkeys(_QUERY_PROBLEMS, ProblemBody)
        if rule.arguments:
            problems[404] = ProblemBody
        answers: dict[int, type[BaseModel] | None] = {**problems, **said.answers}
        parameters: list[dict[str, Any]] = [
            {"name": name, "in": "path", "required": True, "schema": _parameter_schema(rule._converters[name])}
            for name in sorted(rule.arguments)
        ]
        parameters += [
            {"name": name, "in": "header", "required": False, "description": text, "schema": {"type": "string"}}
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
            "responses": {str(status): self._answer(status, model) for status, model in sorted(answers.items())},
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
