//! glibc's heap keeps what was freed: reading the kernel's type information takes 40 MiB for a moment and leaves 15 of them
//! resident, a baseline of ten thousand processes leaves several more. It can be told otherwise only by variables that it reads
//! before the program begins, so the program begins a second time; what leaves most behind is opened before that.

use std::env;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use procmond::sources::HandedOver;

/// One heap for all threads, so that what one frees another uses; both thresholds as glibc has them at first, which keeps it
/// from raising them with every large block that is freed.
const VARIABLES: [(&str, &str); 3] =
    [("MALLOC_ARENA_MAX", "1"), ("MALLOC_MMAP_THRESHOLD_", "131072"), ("MALLOC_TRIM_THRESHOLD_", "131072")];

/// Says that this is the second time. Without it a program with file capabilities, from whose environment glibc takes the
/// other ones, would begin for ever.
const BEGUN: &str = "DAEMONEYE_HEAP_SET";

/// Returns in a program whose heap gives back what it does not need, or where that cannot be had; `open` is called where it
/// begins once more, and what it opens is there then. Called before there is any thread or open file.
pub(crate) fn tighten(open: impl FnOnce() -> Option<HandedOver>) {
    if env::var_os(BEGUN).is_some() {
        return;
    }
    let Ok(executable) = env::current_exe() else { return };
    let opened = open();
    let lacking: Vec<_> = VARIABLES.into_iter().filter(|(name, _)| env::var_os(name).is_none()).collect();
    if opened.is_none() && lacking.is_empty() {
        return;
    }
    let mut arguments = env::args_os();
    let mut again = Command::new(executable);
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    if let Some(HandedOver { variable: (name, value), .. }) = &opened {
        again.env(name, value);
    }
    // It only comes back when it was refused; a larger heap is no reason to end.
    let _refused = again.args(arguments).envs(lacking).env(BEGUN, "1").exec();
}
