//! How often a witness is on a row, estimated: which of several is the rarest decides what is looked for, never what matches.
//!
//! The table is a handful of texts as ordinary hosts have them. A part of one of them is taken for common, however long it is;
//! of anything else the length decides.

use std::collections::HashMap;
use std::sync::LazyLock;

use daemoneye_lib::columns::PROCESS_EVENTS;
use daemoneye_lib::path_test::base_of;

use super::need::Witness;
use super::needles::{WIDTHS, number};

/// Rows, in the unit of all figures here.
pub(super) const MILLION: u64 = 1_000_000;
/// Share of one text of the table: it stands for some hundredth of all rows.
const COMMON: u64 = 12_000;
/// Share of a value of a column that has few.
const ONE_OF_FEW: u64 = 300_000;
/// Share of a text that nobody has heard of.
const UNKNOWN: u64 = 400;

/// Columns with a handful of values on a host.
const FEW_VALUES: &[&str] = &[
    "capture",
    "collector",
    "event_type",
    "hash_algorithm",
    "hash_status",
    "identity",
    "integrity_level",
    "severity",
    "source",
    "start_kind",
    "status",
    "user",
];

/// Values of these columns that nearly every row has which a rule is for.
const ON_MOST_ROWS: &[&str] = &["complete", "exec", "start"];
/// Share of such a value.
const MOST: u64 = 900_000;

/// Columns that are NULL on most rows.
const SELDOM_THERE: &[&str] =
    &["container_id", "exit_code", "modified_fields", "reason", "runtime_ms", "severity", "truncated"];

/// Paths and command lines as they are everywhere, small letters.
const TEXTS: &[&str] = &[
    r"c:\windows\system32\svchost.exe -k netsvcs -p -s schedule",
    r"c:\windows\system32\svchost.exe -k localservicenetworkrestricted",
    r"c:\windows\system32\cmd.exe /c",
    r"c:\windows\system32\cmd.exe /d /s /c",
    r"\??\c:\windows\system32\conhost.exe 0xffffffff -forcev1",
    r"c:\windows\syswow64\cmd.exe /k",
    r"c:\windows\system32\windowspowershell\v1.0\powershell.exe -noprofile -noninteractive -executionpolicy bypass -command",
    r"powershell.exe -nop -w hidden -ep bypass -file c:\users\public\documents\script.ps1",
    r"powershell -command get-process | where-object | select-object -property name",
    r"c:\windows\explorer.exe /factory",
    r"c:\windows\system32\services.exe",
    r"c:\windows\system32\wbem\wmiprvse.exe -secured -embedding",
    r"c:\windows\system32\wbem\wmic.exe process call create",
    r"c:\windows\system32\rundll32.exe c:\windows\system32\shell32.dll,control_rundll",
    r"c:\windows\system32\regsvr32.exe /s /u /i:",
    r"c:\windows\system32\reg.exe add hklm\software\microsoft\windows\currentversion\run /v /t reg_sz /d /f",
    r"c:\windows\system32\reg.exe query hkcu\software",
    r"c:\windows\system32\taskhostw.exe",
    r"c:\windows\system32\schtasks.exe /create /tn /tr /sc /ru system",
    r"c:\windows\system32\net.exe user /domain",
    r"c:\windows\system32\net1.exe localgroup administrators",
    r"c:\windows\system32\whoami.exe /all",
    r"c:\windows\system32\msiexec.exe /i /qn /quiet",
    r"c:\windows\system32\wscript.exe //b",
    r"c:\windows\system32\cscript.exe //nologo",
    r"c:\windows\system32\mshta.exe http://",
    r"c:\windows\system32\backgroundtaskhost.exe -servername:",
    r"c:\windows\system32\runtimebroker.exe -embedding",
    r"c:\windows\system32\dllhost.exe /processid:{}",
    r"c:\windows\system32\searchprotocolhost.exe",
    r"c:\program files (x86)\microsoft\edgeupdate\microsoftedgeupdate.exe /ua /installsource scheduler",
    r"c:\program files\google\chrome\application\chrome.exe --type=renderer --lang=en-us",
    r"c:\program files\microsoft office\root\office16\winword.exe /n",
    r"c:\program files\microsoft office\root\office16\excel.exe /dde",
    r"c:\program files\git\cmd\git.exe status --porcelain",
    r"c:\programdata\microsoft\windows defender\platform\msmpeng.exe",
    r"c:\users\user\appdata\local\temp\setup.exe /silent",
    r"c:\users\user\appdata\roaming\microsoft\teams\current\teams.exe",
    r"c:\users\user\downloads\install.exe",
    r"c:\users\user\desktop\python.exe -m pip install",
    r"nt authority\system",
    r"microsoft corporation",
    r"microsoft windows operating system",
    "/usr/bin/bash -c",
    "/bin/sh -c",
    "/bin/sh /usr/sbin/logrotate /etc/logrotate.conf",
    "-bash",
    "bash --login -i",
    "/usr/lib/systemd/systemd --switched-root --system --deserialize",
    "/usr/lib/systemd/systemd-executor --deserialize 60 --log-level info --log-target auto",
    "/usr/sbin/sshd -d -r",
    "sshd: user [priv]",
    "/usr/sbin/cron -f -p",
    "/usr/bin/python3 -m -u /usr/local/bin/script.py",
    "python3 -c import sys; print(sys.version)",
    "/usr/bin/perl -e",
    "grep -q -e -v",
    "sed -n -i s///",
    "awk {print $1}",
    "cat /proc/meminfo /etc/passwd /etc/os-release",
    "ls -la --color=auto /home/user /root /var/lib",
    "/usr/bin/git status --porcelain --branch",
    "curl -s -o -l https://www.example.org/api/v1/",
    "wget -q -o- http://",
    "/usr/bin/sudo -u root -n -s",
    "/usr/bin/systemctl status restart is-active .service",
    "/usr/bin/apt-get update -y install",
    "/usr/bin/dpkg --print-architecture -l",
    "/usr/bin/find / -name -type f -exec -perm",
    "chmod +x 755 /tmp/ /var/tmp /dev/shm",
    "rm -rf /tmp/ /var/log/",
    "nc -l -e",
    "base64 -d",
    "/usr/bin/docker run --rm exec -it",
    "runc --root /run/containerd --log-format json",
    "node /usr/lib/node_modules/npm index.js",
    "cargo build rustc --crate-name --edition=2021",
    "make -j gcc cc1 as ld -o main.o -i/usr/include",
    "echo test id uname -a hostname date sleep 1 true",
    "ps aux -ef",
    "/usr/bin/tar -xzf",
    "/usr/bin/java -jar -xmx",
    "/snap/ /opt/",
    "root",
];

/// Names of executables in the table.
static BASES: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let words = TEXTS.iter().flat_map(|text| text.split(' '));
    words.map(base_of).filter(|base| base.len() > 1).collect()
});

/// Windows of eight, four and two bytes of the table, and how often each is in it.
static WINDOWS: LazyLock<HashMap<(usize, u64), u32>> = LazyLock::new(|| {
    let mut windows = HashMap::new();
    for width in WIDTHS {
        for window in TEXTS.iter().flat_map(|text| text.as_bytes().windows(width)) {
            *windows.entry((width, number(window))).or_insert(0) += 1;
        }
    }
    windows
});

/// How often a window is in the table.
pub(super) fn times(width: usize, window: u64) -> u32 {
    WINDOWS.get(&(width, window)).copied().unwrap_or(0)
}

/// Estimated share of rows that have it, per million.
pub(super) fn expected(witness: &Witness) -> u64 {
    match witness {
        Witness::Base(_, name) => {
            let known = BASES.iter().filter(|base| **base == base_of(name)).count();
            share(known, UNKNOWN)
        }
        Witness::Exact(column, text) if is_in(FEW_VALUES, *column) => {
            if ON_MOST_ROWS.contains(&&**text) {
                MOST
            } else {
                ONE_OF_FEW
            }
        }
        Witness::Exact(_, text) => share(TEXTS.iter().filter(|known| **known == &**text).count(), UNKNOWN / 2),
        Witness::Needle(_, text) => {
            share(TEXTS.iter().filter(|known| known.contains(&**text)).count(), by_length(text))
        }
        Witness::Present(column) if is_in(SELDOM_THERE, *column) => ONE_OF_FEW,
        Witness::Present(_) => MILLION,
    }
}

fn share(known: usize, otherwise: u64) -> u64 {
    let known = u64::try_from(known).unwrap_or(u64::MAX);
    known.saturating_mul(COMMON).saturating_add(otherwise).min(MILLION)
}

/// Short runs are in many texts by chance.
fn by_length(text: &str) -> u64 {
    match text.len() {
        0..=2 => 150_000,
        3 => 40_000,
        4 => 10_000,
        5 => 3_000,
        6..=8 => 1_000,
        _ => UNKNOWN,
    }
}

fn is_in(columns: &[&str], column: usize) -> bool {
    PROCESS_EVENTS.get(column).is_some_and(|column| columns.contains(&column.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_everybody_has_costs_more_than_what_is_long() {
        let needle = |text: &str| expected(&Witness::Needle(0, text.into()));
        assert!(needle(r"c:\windows\system32\") > needle("-enc") && needle("sekurlsa") < needle("powershell"));
        assert!(
            expected(&Witness::Base(0, "\\cmd.exe".into())) > expected(&Witness::Base(0, "\\certutil.exe".into()))
        );
        assert!(expected(&Witness::Present(0)) > needle("ab") && needle("a") > needle("abc"));
        let event_type = PROCESS_EVENTS.iter().position(|column| column.name == "event_type").unwrap();
        assert!(expected(&Witness::Exact(event_type, "start".into())) > expected(&Witness::Exact(0, "x".into())));
    }
}
