//! Which names announce a secret: flags, variables, headers, keys of JSON objects. Only the end of a name counts, so
//! `--password-file` and `--token-ttl` announce none.

/// What a name announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    /// A secret whatever it looks like.
    Secret,
    /// A secret, or the path of a file that holds one, which is none.
    SecretOrPath,
    /// `Authorization`: a scheme may stand before the secret.
    Authorization,
    /// `Bearer`: the next word is a secret.
    Bearer,
    /// `--cookie`: pairs, or the name of a file without `=`.
    Cookie,
    /// `IDENTIFIED` of SQL: `BY` and a secret follow.
    Identified,
    /// A secret as a parameter of a URL only.
    Parameter,
    /// Many of them, as an array of JSON only: elsewhere such a name is a number of tokens.
    Several,
}

/// May be glued to a word before them: `dbpassword`, `accesstoken`.
const LOOSE: &[(&str, Name)] = &[
    ("authorization", Name::Authorization),
    ("credential", Name::SecretOrPath),
    ("credentials", Name::SecretOrPath),
    ("keypass", Name::Secret),
    ("passcode", Name::Secret),
    ("passin", Name::Secret),
    ("passout", Name::Secret),
    ("passphrase", Name::Secret),
    ("passwd", Name::Secret),
    ("password", Name::Secret),
    ("passwords", Name::Several),
    ("secret", Name::Secret),
    ("secrets", Name::Several),
    ("storepass", Name::Secret),
    ("token", Name::Secret),
    ("tokens", Name::Several),
];

/// Stand alone or behind a separator: `bypass` is no password.
const STRICT: &[(&str, Name)] = &[
    ("auth", Name::SecretOrPath),
    ("bearer", Name::Bearer),
    ("cookie", Name::SecretOrPath),
    ("identified", Name::Identified),
    ("jwt", Name::SecretOrPath),
    ("pass", Name::Secret),
    ("pin", Name::Secret),
    ("psk", Name::Secret),
    ("pw", Name::Secret),
    ("pwd", Name::Secret),
    ("sig", Name::Parameter),
    ("signature", Name::Parameter),
];

/// Before `key`, with or without a separator. A private key is mostly named by its file.
const KEYS: &[(&str, Name)] = &[
    ("access", Name::Secret),
    ("account", Name::Secret),
    ("api", Name::Secret),
    ("auth", Name::SecretOrPath),
    ("encryption", Name::SecretOrPath),
    ("master", Name::SecretOrPath),
    ("private", Name::SecretOrPath),
    ("secret", Name::Secret),
    ("shared", Name::SecretOrPath),
    ("signing", Name::SecretOrPath),
    ("subscription", Name::Secret),
];

/// Every ending, for the table that the scan looks into at each end of a word.
pub(super) fn endings() -> impl Iterator<Item = &'static str> {
    LOOSE.iter().chain(STRICT).map(|(ending, _)| *ending).chain(["key"])
}

/// What `name`, dashes and all, announces.
pub(super) fn classify(name: &[u8]) -> Option<Name> {
    if name.starts_with(b"--no-") || name.starts_with(b"--ask-") || name == b"PWD" {
        return None;
    }
    if name == b"--cookie" {
        return Some(Name::Cookie);
    }
    let ends = |(ending, _): &&(&str, Name)| before(name, ending).is_some();
    let found = LOOSE.iter().find(ends).or_else(|| {
        let stands_apart = |front: &[u8], ending: &str| {
            let first = name.get(name.len().saturating_sub(ending.len())).is_some_and(u8::is_ascii_uppercase);
            front.last().is_none_or(|last| !last.is_ascii_alphabetic() || (first && last.is_ascii_lowercase()))
        };
        STRICT.iter().find(|(ending, _)| before(name, ending).is_some_and(|front| stands_apart(front, ending)))
    });
    found.map(|(_, kind)| *kind).or_else(|| {
        let front = before(name, "key")?;
        let front = front.strip_suffix(b"-").or_else(|| front.strip_suffix(b"_")).unwrap_or(front);
        KEYS.iter().find(|(kind, _)| before(front, kind).is_some()).map(|(_, kind)| *kind)
    })
}

/// What stands before `ending`, in whatever case.
fn before<'a>(name: &'a [u8], ending: &str) -> Option<&'a [u8]> {
    let (front, back) = name.split_at_checked(name.len().checked_sub(ending.len())?)?;
    back.eq_ignore_ascii_case(ending.as_bytes()).then_some(front)
}
