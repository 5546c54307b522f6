//! Programs whose short flags take a password. Elsewhere `-p` is a port, a path or a pid.

/// One family of programs.
#[derive(Debug)]
pub(super) struct Program {
    names: &'static [&'static str],
    /// Flags whose value is a secret.
    pub(super) secrets: &'static [&'static str],
    /// Flags whose value is a name and a secret.
    pub(super) pairs: &'static [&'static str],
    /// What stands between that name and that secret.
    pub(super) mark: u8,
    /// Whether a value may be glued to its flag, and whether it may be the next word.
    pub(super) glued: bool,
    pub(super) apart: bool,
    /// They take settings as two bare words: `password hunter2`.
    pub(super) bare: bool,
    /// Where else they take one.
    pub(super) also: Also,
}

/// Secrets without a flag of their own, or within the value of one.
#[derive(Debug)]
pub(super) enum Also {
    Nothing,
    /// So many words behind a verb.
    Behind(&'static [(&'static str, usize)]),
    /// `name=secret; name=secret` behind one of these flags; without `=` it is the name of a file.
    Cookies(&'static [&'static str]),
    /// On its standard input, which a script fills by `echo secret |`: always, or with one of these flags. `account` is
    /// whether a name and a colon stand before the secret.
    Fed {
        flags: &'static [&'static str],
        account: bool,
    },
    /// The last word of at least so many, where the flag is given.
    Last {
        least: usize,
        flag: Option<&'static str>,
    },
    /// `-o` with a list in which `user=name%secret` may stand.
    Options,
    /// The word behind a share: `//host/share secret`.
    Share,
}

impl Program {
    /// Whether what is written into it may be a secret.
    pub(super) const fn is_fed(&self) -> bool {
        matches!(self.also, Also::Fed { .. })
    }
}

const fn program(names: &'static [&'static str], secrets: &'static [&'static str]) -> Program {
    Program { names, secrets, pairs: &[], mark: b':', glued: true, apart: true, bare: false, also: Also::Nothing }
}

const fn glued(names: &'static [&'static str], secrets: &'static [&'static str]) -> Program {
    Program { apart: false, ..program(names, secrets) }
}

const fn apart(names: &'static [&'static str], secrets: &'static [&'static str]) -> Program {
    Program { glued: false, ..program(names, secrets) }
}

const fn pairs(names: &'static [&'static str], pairs: &'static [&'static str], mark: u8) -> Program {
    Program { pairs, mark, ..program(names, &[]) }
}

const fn also(also: Also, program: Program) -> Program {
    Program { also, ..program }
}

const fn places(names: &'static [&'static str], also: Also) -> Program {
    Program { also, ..program(names, &[]) }
}

const PROGRAMS: &[Program] = &[
    // A word behind their `-p` is something else: the database, the archive.
    glued(
        &["mysql", "mysqladmin", "mysqlbinlog", "mysqlcheck", "mysqldump", "mysqlimport", "mysqlshow", "mysqlslap"],
        &["-p"],
    ),
    glued(&["mariadb", "mariadb-admin", "mariadb-check", "mariadb-dump", "mariadb-import"], &["-p"]),
    glued(&["7z", "7za", "7zr", "7zz", "rar", "unrar"], &["-p", "-hp"]),
    glued(&["xfreerdp", "xfreerdp3"], &["/p:"]),
    apart(&["crackmapexec", "evil-winrm", "hydra", "netexec", "nxc"], &["-p"]),
    apart(&["atexec.py", "dcomexec.py", "psexec.py", "secretsdump.py", "smbexec.py", "wmiexec.py"], &["-hashes"]),
    apart(&["openssl"], &["-k", "-K"]),
    program(&["mongo", "mongodump", "mongoexport", "mongoimport", "mongorestore", "mongosh"], &["-p"]),
    program(&["cqlsh", "rabbitmqadmin", "rdesktop", "sshpass", "twine", "useradd", "usermod"], &["-p"]),
    // `docker login -p`, `oc login -p` and their like.
    also(Also::Fed { flags: &["--password-stdin", "--with-token"], account: false }, program(&["login"], &["-p"])),
    program(&["bcp", "ipmitool", "isql", "mosquitto_pub", "mosquitto_sub", "sqlcmd", "unzip", "zip"], &["-P"]),
    program(&["ldapadd", "ldapdelete", "ldapmodify", "ldapsearch", "ldapwhoami"], &["-w"]),
    program(&["ldappasswd"], &["-w", "-a", "-s"]),
    program(&["kadmin", "kadmin.local"], &["-w"]),
    program(&["redis-cli"], &["-a"]),
    program(&["snmpbulkwalk", "snmpget", "snmpset", "snmpwalk"], &["-A", "-X", "-c"]),
    program(&["ssh-keygen"], &["-N", "-P"]),
    also(Also::Cookies(&["-b"]), pairs(&["curl"], &["-u", "-U", "--user", "--proxy-user"], b':')),
    pairs(&["http", "https"], &["-a"], b':'),
    pairs(&["rpcclient"], &["-U", "--user"], b'%'),
    also(Also::Share, pairs(&["net", "net.exe", "smbclient"], &["-U", "--user"], b'%')),
    also(Also::Options, pairs(&["mount", "mount.cifs"], &["-o"], b'%')),
    pairs(&["lftp"], &["-u", "--user"], b','),
    // `user/secret@database`, without a flag.
    pairs(&["expdp", "impdp", "rman", "sqlldr", "sqlplus"], &[], b'/'),
    Program { bare: true, ..program(&["aws", "ngrok", "nmcli", "npm", "wpa_cli"], &[]) },
    places(&["bw"], Also::Behind(&[("unlock", 1), ("login", 2)])),
    places(&["vault"], Also::Behind(&[("login", 1)])),
    places(&["htpasswd"], Also::Last { least: 2, flag: Some("-b") }),
    places(&["wpa_passphrase"], Also::Last { least: 2, flag: None }),
    places(&["chpasswd"], Also::Fed { flags: &[], account: true }),
    places(&["cryptsetup"], Also::Fed { flags: &[], account: false }),
    places(&["passwd"], Also::Fed { flags: &["--stdin"], account: false }),
    places(&["sudo"], Also::Fed { flags: &["-S", "--stdin"], account: false }),
];

/// Every name, for the table that the scan looks into at each end of a word.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    PROGRAMS.iter().flat_map(|program| program.names).copied()
}

/// Every program with its family, in the order of the names.
pub(super) struct Programs(Box<[(&'static str, &'static Program)]>);

impl Programs {
    pub(super) fn new() -> Self {
        let all = PROGRAMS.iter().flat_map(|program| program.names.iter().map(move |name| (*name, program)));
        let mut all: Box<[_]> = all.collect();
        all.sort_unstable_by_key(|(name, _)| *name);
        Self(all)
    }

    /// The family of a program called `name`.
    pub(super) fn named(&self, name: &[u8]) -> Option<&'static Program> {
        let found = self.0.binary_search_by_key(&name, |(known, _)| known.as_bytes()).ok()?;
        self.0.get(found).map(|(_, program)| *program)
    }

    /// The family of the executable at `path`.
    pub(super) fn at(&self, path: &str) -> Option<&'static Program> {
        self.named(path.rsplit('/').next()?.as_bytes())
    }
}
