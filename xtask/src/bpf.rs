//! Builds the object of the kernel's programs from `bpf/procmond.bpf.c`. It is committed, so that nobody needs clang to build
//! the product; another version of clang gives another object, hence the pinned one.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::workspace;

const CLANG: &str = "14.0.6";

const OBJECT: &str = "procmond.bpf.o";

/// Without a neutral compilation directory the object would name that of the checkout.
const ARGUMENTS: &[&str] =
    &["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Wextra", "-Werror", "-fdebug-compilation-dir=.", "-c"];

/// Writes the object.
pub(crate) fn write() -> anyhow::Result<()> {
    if !is_pinned() {
        bail!(
            "the object is built with clang {CLANG} and its llvm-strip; `apt-get install clang llvm` on Debian 12 has them"
        );
    }
    let directory = workspace::root()?.join("bpf");
    build(&directory, &directory.join(OBJECT))
}

/// One line when the committed object is not what the source gives. Nothing can be said without the pinned clang, which is
/// itself a fault where it is `required`.
pub(crate) fn differences(required: bool) -> anyhow::Result<Vec<String>> {
    if !is_pinned() {
        if required {
            return Ok(vec![format!("not compared: clang {CLANG} with its llvm-strip is required and not installed")]);
        }
        println!("bpf: not compared, clang {CLANG} is not installed");
        return Ok(Vec::new());
    }
    let directory = workspace::root()?.join("bpf");
    let built = std::env::temp_dir().join(format!("{}-{OBJECT}", std::process::id()));
    build(&directory, &built)?;
    let same = std::fs::read(&built)? == std::fs::read(directory.join(OBJECT))?;
    std::fs::remove_file(&built)?;
    Ok(if same { Vec::new() } else { vec![format!("bpf/{OBJECT} is out of date; run `cargo xtask bpf`")] })
}

fn is_pinned() -> bool {
    let prints_it = |program: &str| {
        let output = Command::new(program).arg("--version").output();
        output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(CLANG))
    };
    prints_it("clang") && prints_it("llvm-strip")
}

fn build(directory: &Path, object: &Path) -> anyhow::Result<()> {
    let mut compile = Command::new("clang");
    compile.current_dir(directory).args(ARGUMENTS).args(["procmond.bpf.c", "-o"]).arg(object);
    let mut strip = Command::new("llvm-strip");
    strip.arg("-g").arg(object);
    for command in [&mut compile, &mut strip] {
        let status = command.status().with_context(|| format!("start {command:?}"))?;
        if !status.success() {
            bail!("{command:?} failed");
        }
    }
    Ok(())
}
