-- What the house stands against and what trades brought it, for auditors. And the function that lets them see something finds the views by
-- their name from now on, so that the next one need not tell it again.

CREATE VIEW audit_house AS SELECT * FROM house_books;

DO $$
DECLARE
    described record;
BEGIN
    EXECUTE format('COMMENT ON VIEW audit_house IS %L', obj_description('house_books'::regclass, 'pg_class'));
    FOR described IN
        SELECT attname AS name, col_description(attrelid, attnum) AS said
        FROM pg_attribute WHERE attrelid = 'house_books'::regclass AND attnum > 0
    LOOP
        EXECUTE format('COMMENT ON COLUMN audit_house.%I IS %L', described.name, described.said);
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION audit_access() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    seen text;
BEGIN
    BEGIN
        CREATE ROLE auditor NOLOGIN;
    EXCEPTION
        -- unique_violation: another database of this server is doing the same at this moment.
        WHEN duplicate_object OR unique_violation THEN NULL;
        WHEN insufficient_privilege THEN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'auditor') THEN
                RETURN format('the role "auditor" is missing and %I may not make it: let an administrator run '
                    'CREATE ROLE auditor NOLOGIN; and then run `fulcrum migrate` again', current_user);
            END IF;
    END;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO auditor', current_schema());
    FOR seen IN
        SELECT viewname FROM pg_views WHERE schemaname = current_schema() AND viewname LIKE 'audit\_%'
        UNION ALL SELECT 'dead_letters'
    LOOP
        EXECUTE format('GRANT SELECT ON %I TO auditor', seen);
    END LOOP;
    RETURN '';
EXCEPTION
    WHEN insufficient_privilege THEN
        RETURN format('%I may not give the role "auditor" what it is to see (%s): run `fulcrum migrate` as the owner of the tables',
            current_user, SQLERRM);
END
$$;

DO $$
DECLARE
    missing text := audit_access();
BEGIN
    IF missing <> '' THEN
        RAISE WARNING '%', missing;
    END IF;
END
$$;
