//! Foreign bytes as text, within the capture bounds.
//!
//! What the kernel hands out is bytes that any process may choose. Valid UTF-8 is kept as it is; every other byte becomes
//! the four characters `\xNN`. The escape is lossy on purpose (a literal backslash is not doubled): command lines stay
//! readable and greppable, and no byte can make an event unencodable.

use daemoneye_lib::proto::ProcessRecord;
use prost::Message;

/// Bytes of one text field after escaping; the kernel's own limit for a single argument is 128 KiB, for a path 4 KiB.
pub const FIELD_BYTES: usize = 32 * 1024;

/// Bytes of one encoded record: a quarter of the bus frame (1 MiB), so four of the largest still travel in one run.
pub const RECORD_BYTES: usize = 256 * 1024;

/// Bytes of a command line that an event repeats when an earlier one of the same process, or its parent's, has all of it: what
/// any user may cause thousands of times a second must stay small.
pub const REPEATED_BYTES: usize = 1024;

/// Appends `bytes` to `out` as text, until `out` holds `cap` bytes. Returns whether everything fitted.
pub fn push_escaped(out: &mut String, bytes: &[u8], cap: usize) -> bool {
    for chunk in bytes.utf8_chunks() {
        if !push_within(out, chunk.valid(), cap) {
            return false;
        }
        for byte in chunk.invalid() {
            if out.len().saturating_add(4) > cap {
                return false;
            }
            push_hex(out, *byte);
        }
    }
    true
}

/// `bytes` as text of at most [`FIELD_BYTES`], and whether everything fitted.
#[must_use]
pub fn escaped(bytes: &[u8]) -> (String, bool) {
    let mut text = String::with_capacity(bytes.len().min(FIELD_BYTES));
    let whole = push_escaped(&mut text, bytes, FIELD_BYTES);
    (text, whole)
}

/// Arguments joined by one space.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// The text, at most [`FIELD_BYTES`].
    pub text: String,
    /// Bytes of each argument inside the text.
    pub arg_lengths: Vec<u32>,
    /// Whether something was cut.
    pub truncated: bool,
}

impl CommandLine {
    /// Joins and escapes arguments.
    pub fn of<'a>(arguments: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut line = Self::default();
        for argument in arguments {
            if !line.arg_lengths.is_empty() {
                if line.text.len() >= FIELD_BYTES {
                    line.truncated = true;
                    break;
                }
                line.text.push(' ');
            }
            let before = line.text.len();
            let whole = push_escaped(&mut line.text, argument, FIELD_BYTES);
            line.arg_lengths.push(u32::try_from(line.text.len().saturating_sub(before)).unwrap_or(u32::MAX));
            if !whole {
                line.truncated = true;
                break;
            }
        }
        line
    }
}

/// What the link to an executable says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Executable<'a> {
    /// Without the kernel's mark.
    pub path: &'a [u8],
    /// The file is gone.
    pub deleted: bool,
    /// There never was a file.
    pub memfd: bool,
}

impl<'a> Executable<'a> {
    /// Takes the kernel's ` (deleted)` off the link, unless `stands_at` says that the file is really called so.
    pub fn of(link: &'a [u8], stands_at: impl FnOnce(&[u8]) -> bool) -> Self {
        match link.strip_suffix(b" (deleted)") {
            // An executable in memory never had a file that could be deleted.
            Some(path) if path.starts_with(b"/memfd:") => Self { path, deleted: false, memfd: true },
            Some(path) if !stands_at(link) => Self { path, deleted: true, memfd: false },
            _ => Self { path: link, deleted: false, memfd: false },
        }
    }
}

/// A name as one step of an ancestry: a slash inside it would read as another step.
pub fn push_step(out: &mut String, name: &str) {
    out.push('/');
    for (at, part) in name.split('/').enumerate() {
        if at > 0 {
            push_hex(out, b'/');
        }
        out.push_str(part);
    }
}

/// Cuts `text` to `cap` bytes at a character boundary; returns whether it had to.
pub fn cut(text: &mut String, cap: usize) -> bool {
    if text.len() <= cap {
        return false;
    }
    text.truncate(text.floor_char_boundary(cap));
    true
}

/// Brings a record under [`RECORD_BYTES`], largest and least needed fields first, and names them in `truncated`.
pub fn bound(record: &mut ProcessRecord) {
    if record.encoded_len() <= RECORD_BYTES {
        return;
    }
    if record.parent_command_line.take().is_some() {
        mark(record, "parent_command_line");
    }
    if record.encoded_len() > RECORD_BYTES && !record.arg_lengths.is_empty() {
        record.arg_lengths.clear();
        mark(record, "arg_lengths");
    }
}

/// Takes out of a record what earlier events have at full length: the parent's command line, and of its own all but
/// [`REPEATED_BYTES`].
pub fn abridge(record: &mut ProcessRecord) {
    record.parent_command_line = None;
    record.truncated.retain(|field| field != "parent_command_line");
    let Some(line) = &mut record.command_line else { return };
    if !cut(line, REPEATED_BYTES) {
        return;
    }
    let mut room = line.len();
    record.arg_lengths.retain_mut(|length| {
        let wanted = usize::try_from(*length).unwrap_or(usize::MAX);
        let fits = room > 0;
        *length = u32::try_from(wanted.min(room)).unwrap_or(u32::MAX);
        // The space behind it.
        room = room.saturating_sub(wanted).saturating_sub(1);
        fits
    });
    mark(record, "command_line");
}

/// Names a field that was cut; once.
pub fn mark(record: &mut ProcessRecord, field: &str) {
    if !record.truncated.iter().any(|known| known == field) {
        record.truncated.push(field.to_owned());
    }
}

fn push_within(out: &mut String, text: &str, cap: usize) -> bool {
    let room = cap.saturating_sub(out.len());
    let fits = text.floor_char_boundary(room.min(text.len()));
    out.push_str(text.get(..fits).unwrap_or_default());
    fits == text.len()
}

fn push_hex(out: &mut String, byte: u8) {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    out.push_str("\\x");
    for nibble in [byte >> 4, byte & 0x0f] {
        out.extend(DIGITS.get(usize::from(nibble)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_that_are_not_utf8_are_escaped_and_the_rest_is_kept() {
        assert_eq!(escaped(b"caf\xc3\xa9 \xff\x00!"), ("café \\xff\0!".to_owned(), true));
    }

    #[test]
    fn a_step_of_an_ancestry_cannot_forge_another_step() {
        let mut path = String::from("/init");
        push_step(&mut path, "a/b");
        assert_eq!(path, "/init/a\\x2fb");
    }

    #[test]
    fn the_mark_of_a_deleted_executable_is_told_from_a_name() {
        let of = |link: &'static str, stands| {
            let found = Executable::of(link.as_bytes(), |_path| stands);
            (std::str::from_utf8(found.path).unwrap(), found.deleted, found.memfd)
        };
        assert_eq!(of("/bin/x", true), ("/bin/x", false, false));
        assert_eq!(of("/bin/x (deleted)", false), ("/bin/x", true, false));
        assert_eq!(of("/bin/x (deleted)", true), ("/bin/x (deleted)", false, false));
        assert_eq!(of("/memfd:x (deleted)", false), ("/memfd:x", false, true));
        assert_eq!(of("/memfd:x", true), ("/memfd:x", false, false));
    }

    #[test]
    fn a_record_above_the_bound_loses_its_parents_command_line_first() {
        let mut record = ProcessRecord {
            parent_command_line: Some("p".repeat(RECORD_BYTES)),
            command_line: Some("c".to_owned()),
            ..Default::default()
        };
        bound(&mut record);
        assert!(record.encoded_len() <= RECORD_BYTES);
        assert_eq!(
            (record.command_line.as_deref(), record.truncated),
            (Some("c"), vec!["parent_command_line".into()])
        );
    }

    #[test]
    fn an_abridged_record_has_the_beginning_of_its_command_line_and_lengths_that_fit_it() {
        let whole = ProcessRecord {
            command_line: Some(format!("a {} c", "b".repeat(REPEATED_BYTES))),
            arg_lengths: vec![1, 1024, 1],
            parent_command_line: Some("p".into()),
            ..Default::default()
        };
        let mut record = whole.clone();
        abridge(&mut record);
        assert_eq!(record.command_line.as_deref().map(str::len), Some(REPEATED_BYTES));
        assert_eq!((record.arg_lengths, record.truncated), (vec![1, 1022], vec!["command_line".to_owned()]));
        assert_eq!(record.parent_command_line, None);
        let short = ProcessRecord { command_line: Some("c".repeat(REPEATED_BYTES)), ..whole };
        let mut record = short.clone();
        abridge(&mut record);
        assert_eq!(record, ProcessRecord { parent_command_line: None, ..short });
    }

    proptest! {
        #[test]
        fn no_bytes_exceed_the_cap_or_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), cap in 0usize..300) {
            let mut text = String::new();
            let whole = push_escaped(&mut text, &bytes, cap);
            prop_assert!(text.len() <= cap);
            if whole {
                prop_assert!(text.len() >= bytes.len());
            }
        }

        #[test]
        fn valid_text_is_never_changed(text in ".{0,200}") {
            prop_assert_eq!(escaped(text.as_bytes()), (text, true));
        }
    }
}
