"""Stripe's errors: status, type and code of each, and the envelope that they are answered in."""

from typing import Any

Extra = dict[str, Any]


class ApiError(Exception):
    """An answer other than 200.

    `stored` says whether an idempotency key remembers it, `commits` whether what the operation changed
    before it failed is kept (a declined card is on record), `headers` what the answer carries besides.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        stored: bool = True,
        commits: bool = False,
        headers: dict[str, str] | None = None,
        extra: Extra | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.code = code
        self.param = param
        self.stored = stored
        self.commits = commits
        self.headers = headers or {}
        self.extra = extra or {}

    def details(self) -> dict[str, Any]:
        """The error hash itself, as it also stands in `last_payment_error`."""
        body: dict[str, Any] = {"message": self.message, "type": self.kind}
        if self.code:
            body["code"] = self.code
            body["doc_url"] = f"https://stripe.com/docs/error-codes/{self.code.replace('_', '-')}"
        if self.param:
            body["param"] = self.param
        return body | self.extra


class InvalidParameter(ApiError):
    """A parameter that the endpoint refuses before it does anything: no idempotency key remembers it."""

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(400, message, code=code, param=param, stored=False)


class InvalidState(ApiError):
    """A request that is well-formed and cannot be carried out on the object as it is."""

    def __init__(
        self, message: str, *, code: str | None = None, param: str | None = None, extra: Extra | None = None
    ) -> None:
        super().__init__(400, message, code=code, param=param, extra=extra)


class Missing(ApiError):
    """No such object, or one of the other mode (live and test do not see each other)."""

    def __init__(self, kind: str, object_id: str, param: str = "id", in_other_mode: str | None = None) -> None:
        message = f"No such {kind.split('.')[-1].replace(' ', '_')}: '{object_id}'"
        if in_other_mode:
            here = "test" if in_other_mode == "live" else "live"
            message += (
                f"; a similar object exists in {in_other_mode} mode, "
                f"but a {here} mode key was used to make this request."
            )
        # As the subject of the request it is 404; as another object's parameter it is a bad request.
        super().__init__(404 if param == "id" else 400, message, code="resource_missing", param=param)


class Unauthorized(ApiError):
    def __init__(self, message: str) -> None:
        super().__init__(401, message, stored=False)


class KeyReused(ApiError):
    def __init__(self, key: str) -> None:
        super().__init__(
            400,
            "Keys for idempotent requests can only be used with the same parameters they were first used "
            f"with. Try using a key other than '{key}' if you meant to execute a different request.",
            kind="idempotency_error",
            stored=False,
        )


class KeyInUse(ApiError):
    def __init__(self, key: str) -> None:
        super().__init__(
            409,
            f"There is currently another in-progress request using this Idempotent Key: {key}. Please try again later.",
            kind="idempotency_error",
            code="idempotency_key_in_use",
            stored=False,
        )


class RateLimited(ApiError):
    def __init__(self, headers: dict[str, str] | None = None) -> None:
        super().__init__(
            429,
            "Request rate limit exceeded. Learn more about rate limits here https://stripe.com/docs/rate-limits.",
            code="rate_limit",
            stored=False,
            headers={"Stripe-Rate-Limited-Reason": "global-rate"} | (headers or {}),
        )


class LockTimeout(ApiError):
    def __init__(self, headers: dict[str, str] | None = None) -> None:
        super().__init__(
            429,
            "This object cannot be accessed right now because another API request or Stripe process is "
            "currently accessing it.",
            code="lock_timeout",
            stored=False,
            headers={"Stripe-Should-Retry": "true"} | (headers or {}),
        )
