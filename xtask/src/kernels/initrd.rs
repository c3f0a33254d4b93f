//! The first and only file system of the virtual machine: busybox, the daemon, three tools, and what they are linked with.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::packages::Kernel;
use crate::command::{command, find, output, run as execute};

const INIT: &str = include_str!("init.sh");
const CONFIG: &str = include_str!("drover.toml");

/// Makes `folder/initrd`, one for all kernels.
pub fn make(folder: &Path, drover: &Path, kernels: &[Kernel]) -> Result<PathBuf> {
    let root = folder.join("root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    for place in ["bin", "sbin", "dev", "proc", "sys", "run", "tmp"] {
        fs::create_dir_all(root.join(place))?;
    }
    fs::write(root.join("drover.toml"), CONFIG)?;
    let init = root.join("init");
    fs::write(&init, INIT)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    for (name, place) in [("busybox", "bin"), ("ip", "sbin"), ("ethtool", "sbin"), ("curl", "sbin")] {
        let program = find(name).with_context(|| format!("no {name} on the search path"))?;
        fs::copy(&program, root.join(place).join(name)).with_context(|| program.display().to_string())?;
        libraries(&program, &root)?;
    }
    // Its debugging symbols are most of it, and the machine would spend its memory on them.
    execute(command("strip").arg("-o").arg(root.join("sbin/drover")).arg(drover))?;
    libraries(drover, &root)?;
    for kernel in kernels {
        let modules = root.join("modules").join(&kernel.release);
        fs::create_dir_all(&modules)?;
        fs::copy(&kernel.veth, modules.join(kernel.veth.file_name().context("a module has a name")?))?;
    }
    pack(&root, &folder.join("initrd"))
}

/// Copies the libraries that a program is linked with to where its loader will look for them.
fn libraries(program: &Path, root: &Path) -> Result<()> {
    // `ldd` fails for a static program, which needs none.
    let printed = output(command("ldd").arg(program)).unwrap_or_default();
    for library in linked(&printed) {
        let copy = root.join(library.trim_start_matches('/'));
        if let Some(folder) = copy.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::copy(library, &copy).with_context(|| library.to_owned())?;
    }
    Ok(())
}

/// The files in what `ldd` prints.
fn linked(printed: &str) -> impl Iterator<Item = &str> {
    printed.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
}

/// Packs what is below `root` as the kernel wants it; not compressed, since an emulated machine is slow to unpack.
fn pack(root: &Path, initrd: &Path) -> Result<PathBuf> {
    let pack = "find . | cpio --quiet --create --format=newc --owner=0:0 >\"$0\"";
    execute(command("sh").arg("-c").arg(pack).arg(initrd).current_dir(root))?;
    Ok(initrd.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_ldd() {
        let printed = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                       \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n\tnot a dynamic executable\n";
        let files: Vec<&str> = linked(printed).collect();
        assert_eq!(files, ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
    }
}
