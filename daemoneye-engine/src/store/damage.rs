//! A damaged `state.redb` as an error with a remedy: redb answers some damage with an error, some with a panic.

use std::any::Any;
use std::cell::Cell;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Once;

use super::StoreError;

thread_local! {
    /// Whether a panic on this thread is caught and told as an error, so that its own words would only confuse.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}
static HOOK: Once = Once::new();

/// Opens and first reads the database at `path`, whatever its bytes are.
pub(super) fn guarded<T>(path: &Path, open: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |panicked| {
            if !QUIET.get() {
                usual(panicked);
            }
        }));
    });
    let before = QUIET.replace(true);
    // Nothing that the closure touched is used after a panic: it owns all of it, and redb writes nothing while unwinding.
    let opened = panic::catch_unwind(AssertUnwindSafe(open));
    QUIET.set(before);
    match opened {
        Ok(Err(StoreError::IoState(error))) => Err(told(path, error)),
        Ok(result) => result,
        Err(panicked) => Err(damaged(path, &words(panicked.as_ref()))),
    }
}

/// Whether reading failed because of what was read.
pub(super) fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof)
}

fn told(path: &Path, error: Box<redb::Error>) -> StoreError {
    match *error {
        redb::Error::Io(source) if !is_damage(&source) => StoreError::IoState(Box::new(redb::Error::Io(source))),
        redb::Error::PreviousIo => StoreError::IoState(error),
        other => damaged(path, &other.to_string()),
    }
}

fn damaged(path: &Path, what: &str) -> StoreError {
    let what = what.lines().next().unwrap_or_default().to_owned();
    StoreError::CorruptDatabase { path: path.to_owned(), what }
}

fn words(panicked: &(dyn Any + Send)) -> String {
    let text = panicked.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panicked.downcast_ref::<&str>().copied());
    text.map_or_else(
        || "its pages do not fit together".to_owned(),
        |text| format!("its pages do not fit together ({text})"),
    )
}
