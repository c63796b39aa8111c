-- A worker's key may be limited to any namespace, the default one too.
ALTER TABLE keys DROP CONSTRAINT keys_of_admins_see_all;
ALTER TABLE keys ADD CONSTRAINT keys_of_admins_see_all CHECK (namespace IS NULL OR role <> 'admin');
