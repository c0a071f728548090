"""Where the GitHub App is installed."""

from sqlalchemy import Connection, or_
from sqlalchemy.dialects.postgresql import insert as upsert

from app.github.deliveries import Installation
from app.github.tables import github_installations


def keep(db: Connection, said: Installation) -> str:
    """Write how the installation is, unless something newer is known; returns its state by this delivery. One that
    was deleted stays so: GitHub gives its id to no other."""
    seen = said.installation
    suspended = seen.suspended_at is not None
    state = "deleted" if said.action == "deleted" else "suspended" if suspended else "active"
    new = upsert(github_installations).values(
        id=seen.id, github_id=seen.account.id, login=seen.account.login, state=state, changed_at=seen.updated_at
    )
    now = {name: new.excluded[name] for name in ("github_id", "login", "state", "changed_at")}
    newer = or_(new.excluded.state == "deleted", new.excluded.changed_at >= github_installations.c.changed_at)
    kept = new.on_conflict_do_update(
        index_elements=[github_installations.c.id],
        set_=now,
        where=(github_installations.c.state != "deleted") & newer,
    )
    db.execute(kept)
    return state
