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
}

const fn program(names: &'static [&'static str], secrets: &'static [&'static str]) -> Program {
    Program { names, secrets, pairs: &[], mark: b':', glued: true, apart: true, bare: false }
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
    program(&["login"], &["-p"]),
    program(&["bcp", "ipmitool", "isql", "mosquitto_pub", "mosquitto_sub", "sqlcmd", "unzip", "zip"], &["-P"]),
    program(&["ldapadd", "ldapdelete", "ldapmodify", "ldapsearch", "ldapwhoami"], &["-w"]),
    program(&["ldappasswd"], &["-w", "-a", "-s"]),
    program(&["kadmin", "kadmin.local"], &["-w"]),
    program(&["redis-cli"], &["-a"]),
    program(&["snmpbulkwalk", "snmpget", "snmpset", "snmpwalk"], &["-A", "-X", "-c"]),
    pairs(&["curl"], &["-u", "-U", "--user", "--proxy-user"], b':'),
    pairs(&["http", "https"], &["-a"], b':'),
    pairs(&["net", "rpcclient", "smbclient"], &["-U", "--user"], b'%'),
    pairs(&["lftp"], &["-u", "--user"], b','),
    // `user/secret@database`, without a flag.
    pairs(&["expdp", "impdp", "rman", "sqlldr", "sqlplus"], &[], b'/'),
    Program { bare: true, ..program(&["aws", "nmcli", "npm", "wpa_cli"], &[]) },
];

/// Every name, for the table that the scan looks into at each end of a word.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    PROGRAMS.iter().flat_map(|program| program.names).copied()
}

/// The family of a program called `name`.
pub(super) fn named(name: &[u8]) -> Option<&'static Program> {
    PROGRAMS.iter().find(|program| program.names.iter().any(|known| known.as_bytes() == name))
}

/// The family of the executable at `path`.
pub(super) fn at(path: &str) -> Option<&'static Program> {
    named(path.rsplit('/').next()?.as_bytes())
}
