"""Products: what prices are prices of."""

from pydantic import Field

from app.sandbox.stripe.account import Account
from app.sandbox.stripe.errors import InvalidState
from app.sandbox.stripe.objects import Object, new_id
from app.sandbox.stripe.operations import Call, Operations
from app.sandbox.stripe.params import Clearable, DatedListParams, List, Metadata, Params, SearchParams
from app.sandbox.stripe.search import search

operations: Operations[Object] = Operations()


class ProductFields(Params):
    active: bool = True
    default_price: str | None = None
    description: Clearable[str] = None
    images: List[str] = Field(default_factory=list)
    metadata: Metadata
    name: str | None = None
    statement_descriptor: str | None = None
    tax_code: Clearable[str] = None
    unit_label: Clearable[str] = None
    url: Clearable[str] = None


class ProductCreate(ProductFields):
    id: str | None = None
    name: str


class ProductList(DatedListParams):
    active: bool | None = None
    ids: List[str] | None = None


def make_product(account: Account, name: str, product_id: str | None = None) -> Object:
    """A new product, with the id given or one of its own. Raises `InvalidState` for an id that is taken."""
    if product_id and account.store.get(product_id):
        raise InvalidState("Product already exists.", code="resource_already_exists", param="id")
    now = account.now()
    return {
        "id": product_id or new_id("prod", 14),
        "object": "product",
        "active": True,
        "created": now,
        "default_price": None,
        "description": None,
        "images": [],
        "livemode": account.livemode,
        "marketing_features": [],
        "metadata": {},
        "name": name,
        "package_dimensions": None,
        "shippable": None,
        "statement_descriptor": None,
        "tax_code": None,
        "unit_label": None,
        "updated": now,
        "url": None,
    }


@operations("POST /v1/products", ProductCreate)
def create(call: Call[ProductCreate]) -> Object:
    product = make_product(call.account, call.params.name, call.params.id)
    return call.account.add(call.params.apply_to(product, "id"), "product.created")


@operations("GET /v1/products/{id}", Params)
def retrieve(call: Call[Params]) -> Object:
    return call.account.get("product", call.id, deleted=True)


@operations("POST /v1/products/{id}", ProductFields)
def update(call: Call[ProductFields]) -> Object:
    account = call.account
    product = call.params.apply_to(account.get("product", call.id))
    return account.save(product | {"updated": account.now()}, "product.updated")


@operations("DELETE /v1/products/{id}", Params)
def delete(call: Call[Params]) -> Object:
    account = call.account
    product = account.get("product", call.id)
    if account.find("price", 1, product=product["id"]):
        raise InvalidState("This product cannot be deleted because it has one or more user-created prices.")
    account.emit("product.deleted", product)
    return account.save({"id": product["id"], "object": "product", "deleted": True})


@operations("GET /v1/products", ProductList)
def list_all(call: Call[ProductList]) -> Object:
    filters = {"active": call.params.active, "id": call.params.ids}
    return call.account.list("product", "/v1/products", call.params, **filters)


@operations("GET /v1/products/search", SearchParams)
def search_all(call: Call[SearchParams]) -> Object:
    return search(call.account, "product", "/v1/products/search", call.params)
