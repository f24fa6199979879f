//! What operators do while phones are in use: certificates renewed, the program restarted.

use crush_tests::phone::Kind;
use crush_tests::process::{eventually, run};
use crush_tests::stage::{Extension, SOON, Stage};
use crush_tests::{Network, skip_unless_possible};

use crate::cast::{call, hang_up, hear_each_other, phone, stage};

/// The subject of the certificate that a TLS listener shows.
fn subject(stage: &Stage, network: Network) -> String {
    let look = format!(
        "openssl s_client -connect {}:5061 </dev/null 2>/dev/null | openssl x509 -noout -subject",
        network.address(1)
    );
    run(&["ip", "netns", "exec", &stage.lab.namespace("sbc"), "sh", "-c", &look]).unwrap_or_default()
}

#[test]
fn certificates_are_renewed_while_calls_run() {
    skip_unless_possible!("baresip", "linphonec", "curl", "openssl");
    let mut stage = stage("renewed");
    let mut one = phone(&mut stage, Kind::Baresip, "a1", "tls");
    let mut other = phone(&mut stage, Kind::Linphone, "c1", "tls");
    call(&mut one, &mut other);
    assert!(subject(&stage, Network::Access).contains("sbc"));
    stage.sbc.renew_certificate("renewed").unwrap();
    stage.sbc.signal("HUP").unwrap();
    for network in [Network::Access, Network::Core] {
        let renewed = || subject(&stage, network).contains("renewed");
        assert!(eventually(SOON, renewed), "{}: {}", network.name(), subject(&stage, network));
    }
    hear_each_other(&mut one, &mut other);
    // The running call's connections are the old ones still.
    hang_up(&mut one, &mut other);
    let mut newcomer = phone(&mut stage, Kind::Baresip, "a2", "tls");
    call(&mut newcomer, &mut other);
    hang_up(&mut other, &mut newcomer);
    stage.close([one, other, newcomer]).unwrap();
}

/// Whether the phone has sent or received a REGISTER after a mark.
fn has_registered_since(phone: &mut Extension, mark: usize) -> bool {
    phone.tap().since(mark).unwrap().iter().any(|packet| packet.payload.starts_with(b"REGISTER"))
}

#[test]
fn phones_are_reached_after_a_restart_without_registering_anew() {
    skip_unless_possible!("baresip", "linphonec", "curl", "openssl");
    let mut stage = stage("restart");
    let mut one = phone(&mut stage, Kind::Baresip, "a1", "udp");
    let mut other = phone(&mut stage, Kind::Linphone, "c1", "udp");
    stage.sbc.eventually_sql("SELECT count(*) FROM binding", "2", SOON).unwrap();
    for is_crash in [false, true] {
        let marks = [one.mark().unwrap(), other.mark().unwrap()];
        if is_crash {
            stage.sbc.kill().unwrap();
        } else {
            stage.sbc.terminate().unwrap();
        }
        stage.sbc.serve(&stage.lab).unwrap();
        let restored = || stage.sbc.metric(&stage.lab, "sbc_bindings").is_ok_and(|bindings| bindings == 2);
        assert!(eventually(SOON, restored), "{}", stage.sbc.output());
        call(&mut one, &mut other);
        hang_up(&mut other, &mut one);
        call(&mut other, &mut one);
        hang_up(&mut one, &mut other);
        let registered =
            [has_registered_since(&mut one, marks[0]), has_registered_since(&mut other, marks[1])];
        assert_eq!(registered, [false, false]);
    }
    stage.close([one, other]).unwrap();
}
