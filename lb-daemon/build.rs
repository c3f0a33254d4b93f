//! Compiles the XDP program and hands its object to the crate, which embeds it.
//!
//! The program is for another target and needs `core` built from source, so it is a cargo run of its own, in a target
//! directory of its own (the outer cargo holds the lock on the usual one).

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// `v3` has 32-bit arithmetic and jumps (kernel 5.3). Packets are read by words wherever they
/// lie, which the verifier allows on machines that can do so.
const RUSTFLAGS: &str = "-C debuginfo=2 -C target-cpu=v3 -C link-arg=--btf \
                         -C link-arg=--cpu-features=+allows-misaligned-mem-access";

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let variable = |name: &str| std::env::var(name).map_err(|error| format!("{name}: {error}"));
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("..");
    let target_dir = PathBuf::from(variable("OUT_DIR")?).join("ebpf");
    for watched in
        ["lb-ebpf/src", "lb-ebpf/Cargo.toml", "lb-common/src", "lb-common/Cargo.toml", "Cargo.lock"]
    {
        println!("cargo:rerun-if-changed={}", root.join(watched).display());
    }
    let triple = match variable("CARGO_CFG_TARGET_ENDIAN")?.as_str() {
        "big" => "bpfeb-unknown-none",
        _ => "bpfel-unknown-none",
    };
    let status = Command::new(variable("CARGO")?)
        .current_dir(&root)
        .args([
            "build",
            "--package",
            "lb-ebpf",
            "--release",
            "-Z",
            "build-std=core",
            "--target",
            triple,
            "--target-dir",
        ])
        .arg(&target_dir)
        // The outer build's settings (clippy's wrapper, its flags) are not for this target.
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", RUSTFLAGS)
        .status()
        .map_err(|error| format!("cannot run cargo for the XDP program: {error}"))?;
    if !status.success() {
        return Err("the XDP program does not build; `cargo xtask setup` installs what it needs".to_owned());
    }
    let objects = target_dir.join(triple).join("release");
    export("DROVER_OBJECT", &objects.join("drover"));
    export("DROVER_BENCH_OBJECT", &objects.join("bench"));
    Ok(())
}

fn export(name: &str, path: &Path) {
    println!("cargo:rustc-env={name}={}", path.display());
}
