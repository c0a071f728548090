"""Stripe's search language: `email:"a@b.c" AND metadata["fix_id"]:"7" AND -status:"canceled"`.

Search is eventually consistent: an object is found once it has existed for `Settings.search_lag_s`. A change
to an object that is found already shows at once, which is kinder than Stripe.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as BadBase64
from dataclasses import dataclass
from typing import Any

from app.sandbox.stripe.account import Account
from app.sandbox.stripe.errors import InvalidParameter
from app.sandbox.stripe.objects import Object
from app.sandbox.stripe.params import SearchParams
from app.sandbox.stripe.store import Page

_CLAUSE = re.compile(
    r"""\s*(?P<not>-)?(?P<field>[a-z_.]+)(?:\[["'](?P<key>[^"']+)["']\])?\s*"""
    r"""(?P<sign>[:~><]=?|=)\s*(?P<value>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|null|-?\d+)"""
)
_JOIN = re.compile(r"\s+(AND|OR)\s+|\s+|\s*$", re.IGNORECASE)


@dataclass(frozen=True)
class Clause:
    negated: bool
    field: str
    key: str | None
    sign: str
    value: str | int | None

    def holds(self, obj: Object) -> bool:
        return self._matches(obj) != self.negated

    def _matches(self, obj: Object) -> bool:
        found: Any = obj
        for part in [*self.field.split("."), *([self.key] if self.key else [])]:
            found = found.get(part) if isinstance(found, dict) else None
        if self.value is None:
            return found is None
        if found is None:
            return False
        if isinstance(found, bool):
            return str(found).lower() == str(self.value)
        if isinstance(found, int):
            return _compare(found, self.sign, int(self.value))
        text, wanted = str(found).lower(), str(self.value).lower()
        return wanted in text if self.sign == "~" else wanted == text


def _compare(found: int, sign: str, wanted: int) -> bool:
    match sign:
        case ">":
            return found > wanted
        case ">=":
            return found >= wanted
        case "<":
            return found < wanted
        case "<=":
            return found <= wanted
        case _:
            return found == wanted


def parse(query: str) -> tuple[list[Clause], bool]:
    """The clauses of a query, and whether any of them is enough (OR). Raises `InvalidParameter`."""
    clauses: list[Clause] = []
    joins: set[str] = set()
    rest = query
    while rest.strip():
        match = _CLAUSE.match(rest)
        if match is None:
            raise InvalidParameter(f"We were unable to parse your search query: {query}", param="query")
        clauses.append(Clause(bool(match["not"]), match["field"], match["key"], match["sign"], _value(match["value"])))
        rest = rest[match.end() :]
        if rest.strip():
            join = _JOIN.match(rest)
            if join is None:
                raise InvalidParameter(f"We were unable to parse your search query: {query}", param="query")
            joins.add((join[1] or "AND").upper())
            rest = rest[join.end() :]
    if len(joins) > 1:
        raise InvalidParameter("You cannot combine AND and OR in one query.", param="query")
    if not clauses:
        raise InvalidParameter("The query must not be empty.", param="query")
    return clauses, joins == {"OR"}


def _value(text: str) -> str | int | None:
    if text == "null":
        return None
    if text[0] in "\"'":
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    return int(text)


def search(account: Account, kind: str, url: str, params: SearchParams) -> Object:
    """A page of what matches, newest first."""
    clauses, any_is_enough = parse(params.query)
    old_enough = Page(entered_by=account.clock.time() - account.settings.search_lag_s)
    enough = any if any_is_enough else all
    matching = [
        obj
        for obj in account.store.find(kind, account.livemode, {}, old_enough)
        if enough(clause.holds(obj) for clause in clauses)
    ]
    start = _offset(params.page)
    end = start + params.limit
    has_more = len(matching) > end
    return {
        "object": "search_result",
        "data": matching[start:end],
        "has_more": has_more,
        "next_page": urlsafe_b64encode(str(end).encode()).decode() if has_more else None,
        "url": url,
    }


def _offset(page: str | None) -> int:
    if page is None:
        return 0
    try:
        return int(urlsafe_b64decode(page))
    except (BadBase64, ValueError):
        raise InvalidParameter(f"Invalid page: {page}", param="page") from None
