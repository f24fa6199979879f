//! Policy in drafts, from the command line: all of a draft comes into force, or nothing, and what was wrong is told.

use crate::cluster::Cluster;
use crate::node::{Program, text};
use crate::opening::Opening;

/// What `sbc policy` says, or what it complains of.
fn policy(program: &Program, actor: &str, words: &[&str]) -> Result<String, String> {
    let output = program.command("policy").args(["--actor", actor]).args(words).output().unwrap();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// A database with two trunks, and the program.
fn desk() -> Option<(Cluster, Program)> {
    let (cluster, program) = Opening::default().made()?;
    cluster.psql("INSERT INTO trunk (name, realm, host) VALUES ('one', 'access', 'one.example'), ('two', 'access', 'two.example')");
    Some((cluster, program))
}

fn sheet(program: &Program, rows: &str) -> String {
    let file = program.directory.path().join("sheet.csv");
    std::fs::write(&file, rows).unwrap();
    file.display().to_string()
}

/// A draft of this name with these routes.
fn drafted(program: &Program, name: &str, rows: &str) {
    policy(program, "ann", &["open", name]).unwrap();
    policy(program, "ann", &["import", name, "route", &sheet(program, rows)]).unwrap();
}

fn routes(cluster: &Cluster) -> String {
    cluster.psql("SELECT string_agg(format('%s%s>%s*%s', from_realm, prefix, trunk, weight), ' ' ORDER BY prefix, trunk) FROM route")
}

#[test]
fn a_sheet_comes_into_force_as_one_version_and_is_taken_back() {
    let Some((cluster, program)) = desk() else { return };
    let said = |words: &[&str]| policy(&program, "ann", words).unwrap();
    drafted(&program, "first", "prefix,trunk,weight\n+49,one,2\n+1,two,\n");
    assert_eq!(routes(&cluster), "", "nothing of a draft is in force");
    let difference = said(&["show", "first"]);
    assert!(
        difference.contains("comes") && difference.contains("(ann)") && difference.contains("2 rows"),
        "{difference}"
    );
    assert!(said(&["check", "first"]).contains("can come into force"));
    assert_eq!(said(&["activate", "first"]), "version 1 is in force\n");
    assert_eq!(routes(&cluster), "+1>two*1 +49>one*2");

    policy(&program, "bob", &["open", "second", "--comment", "cheaper"]).unwrap();
    let gone = sheet(&program, "prefix,trunk\n+1,two\n");
    policy(&program, "bob", &["import", "second", "route", &gone, "--remove"]).unwrap();
    let other = sheet(&program, "prefix,trunk,weight\n+49,one,7\n+44,two,1\n");
    policy(&program, "bob", &["import", "second", "route", &other]).unwrap();
    let listed = said(&["list"]);
    assert!(
        listed.contains("version 1 is in force")
            && listed.contains("draft second, 3 rows")
            && listed.contains("cheaper"),
        "{listed}"
    );
    policy(&program, "bob", &["activate", "second"]).unwrap();
    assert_eq!(routes(&cluster), "+44>two*1 +49>one*7");

    said(&["rollback", "1", "back"]);
    said(&["activate", "back"]);
    assert_eq!(routes(&cluster), "+1>two*1 +49>one*2");
    let history = said(&["history"]);
    let lines: Vec<&str> = history.lines().collect();
    assert_eq!(lines.len(), 3, "{history}");
    assert!(lines[1].contains("by bob") && lines[1].contains("3 rows: cheaper"), "{history}");
    assert!(lines[2].contains("by ann") && lines[2].contains("back to version 1"), "{history}");
}

#[test]
fn a_draft_with_mistakes_stays_a_draft_and_each_is_told() {
    let Some((cluster, program)) = desk() else { return };
    drafted(
        &program,
        "wrong",
        "from_realm,prefix,trunk,weight\n,+1,one,1\n,+2,nobody,1\n,+3,two,0\nnowhere,+4,two,1\n",
    );
    for command in ["check", "activate"] {
        let said = policy(&program, "ann", &[command, "wrong"]).unwrap_err();
        for (row, why) in [
            ("\"+2\"", "nobody"),
            ("\"+3\"", "route_weight_check"),
            ("\"+4\"", "no realm \"nowhere\"; it has: access"),
        ] {
            assert!(said.lines().any(|line| line.contains(row) && line.contains(why)), "{row} {why}: {said}");
        }
        assert!(!said.contains("\"+1\""), "{said}");
    }
    // By SQL, where nobody reads the configuration.
    let said = cluster.asked("sbc_operator", "SELECT sbc_draft_activate('wrong')").unwrap_err();
    assert!(said.contains("has 2 mistakes and stays a draft"), "{said}");
    assert_eq!(routes(&cluster), "");
    assert_eq!(cluster.psql("SELECT count(*) FROM draft_change"), "4");

    let file = sheet(&program, "prefix,trunk,weight\n+1,one,1\n+2,one,heavy\n+1,one,2\n");
    let said = policy(&program, "ann", &["import", "wrong", "route", &file]).unwrap_err();
    for line in ["line 3: weight: \"heavy\"", "line 4: the same as line 2", "nothing was taken"] {
        assert!(said.contains(line), "{line}: {said}");
    }
    for (words, why) in [
        (
            ["import", "nothing", "route", &*sheet(&program, "prefix,trunk\n1,one\n")],
            "there is no draft \"nothing\"",
        ),
        (["import", "wrong", "route", "/nowhere.csv"], "/nowhere.csv: No such file"),
    ] {
        let said = policy(&program, "ann", &words).unwrap_err();
        assert!(said.contains(why), "{said}");
    }
    let said = cluster.asked(
        "sbc_operator",
        r#"SELECT sbc_draft_put('wrong', 'route', '{"prefix": "1", "trunk": "one", "colour": "red"}')"#,
    );
    assert!(said.unwrap_err().contains("no column colour"));
    let reader = program
        .command("policy")
        .args(["--database", &cluster.url("sbc_reader"), "activate", "wrong"])
        .output()
        .unwrap();
    assert!(text(&reader.stderr).contains("sbc_operator"), "{reader:?}");
}

#[test]
fn what_others_have_changed_since_a_draft_was_opened_is_told() {
    let Some((cluster, program)) = desk() else { return };
    drafted(&program, "mine", "prefix,trunk,weight\n+1,one,2\n");
    policy(&program, "bob", &["open", "theirs"]).unwrap();
    let file = sheet(&program, "prefix,trunk,weight\n+1,one,3\n");
    policy(&program, "bob", &["import", "theirs", "route", &file]).unwrap();
    policy(&program, "bob", &["activate", "theirs"]).unwrap();
    let said = policy(&program, "ann", &["activate", "mine"]).unwrap_err();
    assert!(said.contains("bob has changed it in version 1"), "{said}");
    assert_eq!(routes(&cluster), "+1>one*3");
    policy(&program, "ann", &["discard", "mine"]).unwrap();
    assert_eq!(cluster.psql("SELECT count(*) FROM draft_change"), "0");
}

#[test]
fn where_a_second_person_is_asked_for_nobody_is_both_and_nobody_passes_drafts_by() {
    let Some((cluster, program)) = desk() else { return };
    cluster.psql_as("sbc_owner", "UPDATE policy_setting SET second_person = true");
    let said =
        cluster.asked("sbc_operator", "INSERT INTO route (prefix, trunk) VALUES ('1', 'one')").unwrap_err();
    assert!(said.contains("by drafts alone"), "{said}");
    drafted(&program, "new", "prefix,trunk\n1,one\n");
    let said = policy(&program, "ann", &["activate", "new"]).unwrap_err();
    assert!(said.contains("ann has changed this draft: somebody else"), "{said}");
    policy(&program, "bob", &["activate", "new"]).unwrap();
    assert_eq!(routes(&cluster), "1>one*1");
    assert_eq!(cluster.psql("SELECT by, authors FROM policy_version"), "bob|{ann}");
    let said = cluster.asked("sbc_operator", "UPDATE policy_setting SET second_person = false").unwrap_err();
    assert!(said.contains("permission denied"), "{said}");
}

#[test]
fn what_was_changed_directly_is_known_and_not_taken_back_by_guessing() {
    let Some((cluster, program)) = desk() else { return };
    drafted(&program, "first", "prefix,trunk\n1,one\n");
    policy(&program, "ann", &["activate", "first"]).unwrap();
    assert_eq!(cluster.psql("SELECT count(*) FROM policy_direct"), "0");
    cluster.psql("SET sbc.actor = 'ann'; INSERT INTO route (prefix, trunk) VALUES ('2', 'one'); DELETE FROM route WHERE prefix = '2'");
    assert_eq!(cluster.psql("SELECT by FROM policy_direct"), "ann");
    let said = policy(&program, "ann", &["rollback", "1", "back"]).unwrap_err();
    assert!(said.contains("changed directly") && said.contains("by hand"), "{said}");
    let said = policy(&program, "ann", &["rollback", "7", "back"]).unwrap_err();
    assert!(said.contains("there is no version 7"), "{said}");
}
