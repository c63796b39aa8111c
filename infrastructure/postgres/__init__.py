"""The log, its views and its leases on Postgres."""
