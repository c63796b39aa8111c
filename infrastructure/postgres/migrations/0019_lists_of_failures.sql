-- A page of failures reads a page of an index, whose order tells apart what two namespaces have alike.
DROP INDEX failures_last_seen;
-- Serves: GET /v1/failures, those seen last first, of all namespaces.
CREATE INDEX failures_last_seen ON failures (generation, last_seen, namespace, kind, type, fingerprint);
-- Serves: the same, of one namespace.
CREATE INDEX failures_of_namespace ON failures (generation, namespace, last_seen, kind, type, fingerprint);
