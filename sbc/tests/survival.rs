//! What a phone was told survives whatever happens to the process in the next moment.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    reason = "a test that fails ends"
)]

mod cluster;
mod node;

use node::{Phone, Program, SOON, within};

#[test]
fn a_process_that_is_killed_right_after_a_200_to_a_register_has_the_binding_when_it_is_back() {
    let Some((cluster, mut program)) = Program::migrated() else { return };
    cluster.psql("SELECT sbc_set_password('example.net', 'alice', 'secret')");
    program.serve_all();
    // Not even the database has it.
    cluster.stop();
    assert_eq!(Phone::new(program.sip).register("secret"), 200);
    program.signal("KILL");
    assert!(within(SOON, || program.has_ended()));
    cluster.start_again();
    assert_eq!(cluster.psql("SELECT count(*) FROM binding"), "0");
    program.serve();
    let has = |line: &str| program.get("/metrics").is_some_and(|page| page.1.contains(line));
    assert!(within(SOON, || has("\nsbc_bindings 1\n")), "{}", program.log());
    assert!(within(SOON, || cluster.psql("SELECT count(*) FROM binding") == "1"), "and then it is a row");
}
