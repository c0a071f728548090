"""What the sandbox can be asked: each operation by method and path template, with its parameters' model."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from app.sandbox.stripe.account import Account

P = TypeVar("P", bound=BaseModel)
R = TypeVar("R")


@dataclass(frozen=True)
class Call(Generic[P]):
    """One use of an operation: on which account, with which parameters, about which ids of the path."""

    account: Account
    params: P
    ids: tuple[str, ...]

    @property
    def id(self) -> str:
        """The (first) id in the path."""
        return self.ids[0]


@dataclass(frozen=True)
class Operation(Generic[R]):
    name: str
    params: type[BaseModel]
    run: Callable[[Call[Any]], R]

    @property
    def method(self) -> str:
        return self.name.split(" ")[0]

    @property
    def template(self) -> str:
        return self.name.split(" ")[1]


class Operations(Generic[R]):
    """A group of operations, filled by decorating what runs them."""

    def __init__(self) -> None:
        self.all: list[Operation[R]] = []

    def __call__(self, name: str, params: type[P]) -> Callable[[Callable[[Call[P]], R]], Callable[[Call[P]], R]]:
        """`@operations("POST /v1/customers/{customer}", CustomerUpdate)`"""

        def register(run: Callable[[Call[P]], R]) -> Callable[[Call[P]], R]:
            self.all.append(Operation(name, params, run))
            return run

        return register


class Router(Generic[R]):
    """Finds the operation that a request is for; a path without ids goes before one with them."""

    def __init__(self, groups: Iterable[Operations[R]]) -> None:
        operations = [operation for group in groups for operation in group.all]
        self.names = [operation.name for operation in operations]
        self._fixed = {operation.name: operation for operation in operations if "{" not in operation.name}
        self._patterns = [
            (re.compile(re.sub(r"\{\w+\}", "([^/]+)", operation.name)), operation)
            for operation in operations
            if "{" in operation.name
        ]

    def match(self, method: str, path: str) -> tuple[Operation[R], tuple[str, ...]] | None:
        name = f"{method} {path}"
        if fixed := self._fixed.get(name):
            return fixed, ()
        for pattern, operation in self._patterns:
            if found := pattern.fullmatch(name):
                return operation, found.groups()
        return None
