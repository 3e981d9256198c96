//! Compiles the BPF objects and generates the Rust types they share with user space.
//!
//! `CLANG` names the compiler (default `clang`); any version from 16 on.

use std::env;
use std::path::{Path, PathBuf};

use libbpf_cargo::SkeletonBuilder;

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    println!("cargo:rerun-if-changed=bpf");
    println!("cargo:rerun-if-changed=tests/bpf");
    println!("cargo:rerun-if-env-changed=CLANG");
    for name in [
        "socket",
        "programs",
        "ends",
        "holders",
        "retire",
        "release",
        "adopt",
        "earlier",
        "keepalive",
        "splice",
        "threads",
        "tidy",
        "setsockopt",
        "probe",
    ] {
        build("bpf", name, &out);
    }
    // What only tests load.
    for name in ["wrong", "other"] {
        build("tests/bpf", name, &out);
    }
    SkeletonBuilder::new()
        .obj(out.join("socket.bpf.o"))
        .generate(out.join("socket.skel.rs"))
        .unwrap_or_else(|error| panic!("cannot generate types from socket.bpf.o: {error:#}"));
}

fn build(dir: &str, name: &str, out: &Path) {
    let source = format!("{dir}/{name}.bpf.c");
    let mut builder = SkeletonBuilder::new();
    builder
        .source(&source)
        .obj(out.join(format!("{name}.bpf.o")))
        .clang_args(["-Wall", "-Wextra", "-Werror", "-mcpu=v3"]);
    if let Some(clang) = env::var_os("CLANG") {
        builder.clang(clang);
    }
    builder
        .build()
        .unwrap_or_else(|error| panic!("cannot build {source}: {error:#}"));
}
