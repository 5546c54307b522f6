//! A result on its way to a person: kept until it is whole, so that reading it slowly holds no query open.

use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::CliError;

/// Text of one result: some hundred thousand lines, more than anybody pages through.
const LIMIT_BYTES: usize = 16 * 1024 * 1024;

#[derive(Debug, Clone, Default)]
pub(super) struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    pub(super) fn take(&self) -> String {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len().saturating_add(bytes.len()) > LIMIT_BYTES {
            return Err(ErrorKind::StorageFull.into());
        }
        kept.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether a result ended because it is longer than what is kept.
pub(super) fn is_full(error: &CliError) -> bool {
    matches!(error, CliError::Output(source) if source.kind() == ErrorKind::StorageFull)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_and_nothing_of_it_is_lost() {
        let mut kept = Kept::default();
        let page = vec![b'x'; LIMIT_BYTES / 2];
        kept.write_all(&page).unwrap();
        kept.write_all(&page).unwrap();
        let full = kept.write_all(b"y").unwrap_err();
        assert!(is_full(&CliError::Output(full)));
        assert_eq!(kept.take().len(), LIMIT_BYTES);
        assert_eq!(kept.take(), "");
    }
}
