"""What sets this database apart from others, and what all its servers share."""

from uuid import UUID

from msgspec import Struct

from infrastructure.postgres.database import Database

INSTALLATION = "SELECT id, link_secret FROM installation"


class Installation(Struct, frozen=True):
    """The database's own id, and the secret that signs links to files."""

    id: UUID
    link_secret: bytes


def installation(database: Database) -> Installation:
    """Blocks. Raises Unavailable."""
    ((id, secret),) = database.rows(INSTALLATION)
    return Installation(id, bytes(secret))
