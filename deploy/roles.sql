-- The roles of a service: who owns its tables, who adds to its log and never changes it, and who only reads.
--
-- Run this once in the service's database, as a superuser (on managed servers: as its administrator), before or after
-- `jobledger migrate`; it may be run any number of times. Then give each role a password, or another way to log in that
-- your server knows:
--
--   ALTER ROLE jobledger_owner PASSWORD '…';
--   ALTER ROLE jobledger_app PASSWORD '…';
--
-- and start the service with jobledger_app in DATABASE_URL and jobledger_owner in MIGRATION_DATABASE_URL. What each role
-- may do with each table stands in infrastructure/postgres/grants.sql; `jobledger migrate` grants it, at each upgrade
-- anew. If the schema was made before by another role, that role stays its owner: let it migrate, once more now.

DO $$
DECLARE
  role text;
BEGIN
  FOREACH role IN ARRAY ARRAY['jobledger_owner', 'jobledger_app', 'jobledger_auditor'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
      EXECUTE format('CREATE ROLE %I LOGIN', role);
    END IF;
    EXECUTE format('ALTER ROLE %I NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS', role);
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), role);
    EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', role);
  END LOOP;
  -- Nobody else gets in, or makes anything here.
  EXECUTE format('REVOKE CONNECT, TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
  REVOKE CREATE ON SCHEMA public FROM PUBLIC;
  GRANT CREATE ON SCHEMA public TO jobledger_owner;
END $$;

-- A write transaction that is left open anywhere holds readers of the whole log back: ours end by themselves. Behind a
-- pooler in transaction mode these are all the limits there are. Migrations of large tables may take longer.
ALTER ROLE jobledger_owner SET idle_in_transaction_session_timeout = '60s';
ALTER ROLE jobledger_app SET idle_in_transaction_session_timeout = '10s';
ALTER ROLE jobledger_app SET statement_timeout = '60s';
ALTER ROLE jobledger_app SET jit = off;
ALTER ROLE jobledger_auditor SET idle_in_transaction_session_timeout = '60s';
ALTER ROLE jobledger_auditor SET statement_timeout = '15min';
ALTER ROLE jobledger_auditor SET default_transaction_read_only = on;
DO $$
BEGIN
  IF current_setting('server_version_num')::integer >= 170000 THEN
    ALTER ROLE jobledger_app SET transaction_timeout = '60s';
  END IF;
END $$;

-- So that /readyz can name the oldest open write transaction, whoever has it; without it, only one of our own.
GRANT pg_read_all_stats TO jobledger_app;
