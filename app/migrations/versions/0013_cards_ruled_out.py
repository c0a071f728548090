"""Every card that a hard decline has ruled out for a charge, with the entry of the decline; `charges.refused_method`
had room for one. Workers of the release before go on with that column, and write entries without a card."""

from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.execute("ALTER TABLE charge_entries ADD COLUMN ruled_out text")
    op.execute("ALTER TABLE charge_entries DISABLE TRIGGER USER")  # append-only, but for what this release adds
    op.execute(
        """
        UPDATE charge_entries SET ruled_out = refused_method
        FROM charges
        WHERE charges.id = charge_id AND refused_method IS NOT NULL AND charge_entries.id = (
            SELECT max(last.id) FROM charge_entries last WHERE last.charge_id = charges.id AND last.kind = 'declined')
        """
    )
    op.execute("ALTER TABLE charge_entries ENABLE TRIGGER USER")
