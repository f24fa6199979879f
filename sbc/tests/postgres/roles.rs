//! Who may do what in the database.

use crate::cluster::Cluster;

/// What each role may do with each relation, with a column's name where it may so with some columns only: r read, a add, w change,
/// d delete, D empty, x call. **A new table stands here, or the test fails**: who may what is decided, never left.
const RIGHTS: &str = "\
_sqlx_migrations: runtime r
binding: operator r, reader r(8), runtime arwd
call: operator r, reader r, runtime arw
call_event: operator r, reader r, runtime ar
call_leg: operator r, reader r, runtime ar
call_path: operator r, reader r
call_policy: operator arwdD, reader r, runtime rd
draft: operator r, reader r
draft_change: operator r, reader r
draft_difference: operator r, reader r
policy_change: operator r, reader r, runtime rd
policy_direct: operator r, reader r
policy_history: operator r, reader r
policy_setting: operator r, reader r
policy_version: operator r, reader r, runtime r
release_outcome: operator rd, reader r, runtime arwd
release_score: operator r, reader r
route: operator arwdD, reader r, runtime r
sbc_actor: operator x, runtime x
sbc_call_id_from: operator x, reader x, runtime x
sbc_call_release: operator x
sbc_draft_activate: operator x
sbc_draft_check: operator x
sbc_draft_discard: operator x
sbc_draft_drop: operator x
sbc_draft_open: operator x
sbc_draft_put: operator x
sbc_draft_rollback: operator x
sbc_make_months: runtime x
sbc_note_direct_change: operator x
sbc_policy_columns: operator x
sbc_policy_row: operator x, reader x
sbc_policy_version: operator x, reader x, runtime x
sbc_set_password: operator x
subscriber: operator awdD r(4), reader r(4), runtime r
trunk: operator arwdD, reader r(10), runtime r
trunk_address: operator arwdD, reader r, runtime r";

const ASKED: &str = "\
WITH granted AS (
    SELECT relname AS what, grantee, string_agg(CASE privilege_type WHEN 'INSERT' THEN 'a' WHEN 'SELECT' THEN 'r' WHEN 'UPDATE' THEN 'w'
        WHEN 'DELETE' THEN 'd' WHEN 'TRUNCATE' THEN 'D' ELSE privilege_type END, '' ORDER BY array_position(
        ARRAY['INSERT', 'SELECT', 'UPDATE', 'DELETE', 'TRUNCATE'], privilege_type)) AS rights
    FROM pg_class, aclexplode(relacl) WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'S') AND NOT relispartition
        AND grantee <> relowner GROUP BY 1, 2
    UNION ALL
    SELECT relname, grantee, 'r(' || count(*) || ')' FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid, aclexplode(attacl)
    WHERE relnamespace = 'public'::regnamespace AND privilege_type = 'SELECT' GROUP BY 1, 2
    UNION ALL
    SELECT proname, grantee, 'x' FROM pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner)))
    WHERE pronamespace = 'public'::regnamespace AND grantee <> proowner
), of_roles AS (
    SELECT what, coalesce(substring(rolname FROM 'sbc_(.*)'), 'everybody') AS who, string_agg(rights, ' ' ORDER BY rights LIKE '%(%') AS rights
    FROM granted LEFT JOIN pg_roles ON pg_roles.oid = grantee GROUP BY 1, 2
)
SELECT what || ': ' || string_agg(who || ' ' || rights, ', ' ORDER BY who) FROM of_roles GROUP BY what ORDER BY what COLLATE \"C\"";

#[tokio::test]
async fn each_role_may_what_its_work_needs_and_no_more() {
    let Some((cluster, _pool)) = Cluster::migrated().await else { return };
    assert_eq!(cluster.psql_as("sbc", ASKED), RIGHTS);
    for (user, allowed) in [
        ("sbc_operator", "SELECT sbc_set_password('example.net', 'alice', 'secret')"),
        ("sbc_operator", "UPDATE subscriber SET enabled = false WHERE username = 'alice'"),
        ("sbc_reader", "SELECT username, enabled FROM subscriber"),
        ("sbc_runtime", "SELECT ha1_md5 FROM subscriber"),
    ] {
        cluster.psql_as(user, allowed);
    }
    for (user, refused) in [
        ("sbc_operator", "SELECT ha1_md5 FROM subscriber"),
        ("sbc_operator", "DELETE FROM call"),
        ("sbc_operator", "CREATE TABLE mine (it text)"),
        ("sbc_reader", "SELECT password FROM trunk"),
        ("sbc_reader", "SELECT record FROM binding"),
        ("sbc_reader", "SELECT sbc_set_password('example.net', 'alice', 'known')"),
        ("sbc_runtime", "SELECT sbc_set_password('example.net', 'alice', 'known')"),
        ("sbc_runtime", "UPDATE call_event SET detail = '{}'"),
        ("sbc_runtime", "DROP TABLE call"),
    ] {
        let said = cluster.asked(user, refused).unwrap_err();
        assert!(
            said.contains("permission denied") || said.contains("must be owner"),
            "{user}, {refused}: {said}"
        );
    }
}

#[tokio::test]
async fn what_runs_with_its_owners_rights_is_not_led_astray_by_a_callers_tables() {
    let Some((cluster, _pool)) = Cluster::migrated().await else { return };
    cluster.psql(
        "CREATE TEMP TABLE subscriber (domain text, username text, ha1_md5 text, ha1_sha256 text, PRIMARY KEY (domain, username));
         CREATE TEMP TABLE policy_change (kind text, key text, username text);
         SELECT sbc_set_password('example.net', 'alice', 'secret')",
    );
    assert_eq!(cluster.psql("SELECT username FROM subscriber"), "alice");
    assert_eq!(cluster.psql("SELECT kind, key, username FROM policy_change"), "subscriber|example.net|alice");
}

#[tokio::test]
async fn who_wants_something_of_a_call_is_a_person_if_he_is_named() {
    let Some((cluster, _pool)) = Cluster::migrated().await else { return };
    let wanted =
        |call: u8| format!("SELECT sbc_call_release('00000000-0000-0000-0000-00000000000{call}', 'anchor')");
    cluster.psql(&wanted(1));
    cluster.psql(&format!("SET sbc.actor = 'j.doe'; {}", wanted(2)));
    assert_eq!(cluster.psql("SELECT changed_by FROM call_policy ORDER BY call"), "sbc_operator\nj.doe");
}

#[tokio::test]
async fn a_server_on_which_the_owner_may_make_no_roles_is_told_of_with_what_to_say() {
    let Some(cluster) = Cluster::start() else { return };
    cluster.psql_as("sbc", "DROP ROLE sbc_reader");
    let said = sbc::store::MIGRATIONS.run(&cluster.pool("sbc_owner")).await.unwrap_err().to_string();
    assert!(said.contains("CREATE ROLE sbc_reader"), "{said}");
    cluster.psql_as("sbc", "CREATE ROLE sbc_reader");
    cluster.migrate().await;
}
