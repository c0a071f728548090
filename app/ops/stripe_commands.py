"""`tallyhook stripe …`: what Stripe has to have before anything can be sold."""

from typing import Annotated

import typer

from app.ops.output import JsonOption, fail, print_json, say
from app.stripe import catalog

stripe_app = typer.Typer(no_args_is_help=True, help="What Stripe has to have.")


@stripe_app.command("sync-catalog")
def sync_catalog(
    transfer: Annotated[
        bool,
        typer.Option("--transfer", help="Replace a price of another amount; subscriptions keep theirs."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make the product and the price of Teams (lookup key teams_monthly) if they are missing.

    Exit status 1 where the price is there and differs from TEAMS_MONTH_CENTS.
    """
    try:
        report = catalog.sync(transfer=transfer)
    except catalog.CatalogDiffers as error:
        raise fail(str(error), 1) from None
    if as_json:
        print_json(report)
    else:
        say(f"{report['done']}: price {report['price']} of product {report['product']}")
