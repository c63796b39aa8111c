"""What sets this database apart from others, and what all its servers share."""

from uuid import UUID

from infrastructure.postgres.database import Database


def installation_id(database: Database) -> UUID:
    """The database's own id. Blocks. Raises Unavailable."""
    ((id,),) = database.rows("SELECT id FROM installation")
    return UUID(str(id))


def link_secret(database: Database) -> bytes:
    """What signs links to files, which auditors of the database may not read. Blocks. Raises Unavailable."""
    ((secret,),) = database.rows("SELECT link_secret FROM installation")
    return bytes(secret)
