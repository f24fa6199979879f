//! What a phone was told survives whatever happens to the process in the next moment.

use crate::node::{Phone, SOON, within};
use crate::opening::Opening;

#[test]
fn a_process_that_is_killed_right_after_a_200_to_a_register_has_the_binding_when_it_is_back() {
    let Some((cluster, mut program)) = Opening::with_subscriber().serving() else { return };
    // Not even the database has it.
    cluster.stop();
    assert_eq!(Phone::new(program.sip).register("secret"), 200);
    program.signal("KILL");
    assert!(within(SOON, || program.has_ended()));
    cluster.start_again();
    assert_eq!(cluster.psql("SELECT count(*) FROM binding"), "0");
    program.serve();
    program.comes_to_show("sbc_bindings 1");
    assert!(within(SOON, || cluster.psql("SELECT count(*) FROM binding") == "1"), "and then it is a row");
}
