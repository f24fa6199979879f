//! Compiles `bpf/steer.bpf.c`. Without clang the relay is built all the same, and opens a socket per media port.

#![allow(clippy::print_stdout, reason = "how a build script speaks to cargo")]

use std::env;
use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = "bpf/steer.bpf.c";

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rustc-check-cfg=cfg(steering)");
    let (Some(out), Ok(arch), Ok(system)) =
        (env::var_os("OUT_DIR"), env::var("CARGO_CFG_TARGET_ARCH"), env::var("CARGO_CFG_TARGET_OS"))
    else {
        return;
    };
    if system != "linux" {
        return;
    }
    let object = PathBuf::from(out).join("steer.bpf.o");
    // Debian and Ubuntu keep <asm/types.h> in a folder of the architecture's.
    let headers = format!("/usr/include/{arch}-linux-gnu");
    let result = Command::new(env::var_os("CLANG").unwrap_or_else(|| "clang".into()))
        .args(["-target", "bpf", "-O2", "-g", "-Wall", "-Werror", "-idirafter", &headers, "-c", SOURCE, "-o"])
        .arg(&object)
        .status();
    match result {
        Ok(status) if status.success() => println!("cargo::rustc-cfg=steering"),
        Ok(status) => println!(
            "cargo::error=clang could not compile {SOURCE} ({status}): it needs the kernel's headers (Debian: linux-libc-dev)"
        ),
        Err(error) => println!(
            "cargo::warning=built without port steering, at a socket per media port: clang can't be run ({error}); install it (Debian: clang), or name it by CLANG"
        ),
    }
}
