//! Strangers do all their worst at once, at a tenth of their rates for a moment, and no call is lost. `make attack` has the rest.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a laboratory that fails ends its test")]

use std::path::Path;
use std::process::Command;

#[test]
fn no_call_is_lost_while_strangers_try_everything_at_once() {
    let programs = Path::new(env!("CARGO_BIN_EXE_callers")).parent().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let out = std::env::temp_dir().join(format!("attack-{}.json", std::process::id()));
    let run = Command::new("python3")
        .arg(root.join("bench/attack.py"))
        .args(["--only", "all_at_a_third", "--seconds", "4", "--scale", "0.3", "--tail", "5", "--verbose"])
        .arg("--programs")
        .arg(programs)
        .arg("--out")
        .arg(&out)
        .output()
        .unwrap();
    // Its own bounds are for the release build on processors of its own.
    let told = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    let text = std::fs::read_to_string(&out).unwrap_or_else(|error| panic!("no result: {error}\n{told}"));
    let _ = std::fs::remove_file(&out);
    let rows: serde_json::Value = serde_json::from_str(&text).unwrap();
    let row = rows.get(0).unwrap();
    let figure = |name: &str| row.get(name).and_then(serde_json::Value::as_f64).unwrap_or(f64::NAN);
    assert!(figure("calls") > 50.0, "{told}");
    assert!(figure("offered_per_s") > 1000.0, "{told}");
    assert!(figure("calls_lost") < 1.0, "{told}");
    assert!(figure("octets_out_per_in") <= 2.0, "{told}");
    assert!(figure("memory_mib") <= 256.0, "{told}");
}
