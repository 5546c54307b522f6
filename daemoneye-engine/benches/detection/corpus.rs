//! Generated rules and events in the shape of the public corpora of process rules: how many values a rule asks for, how they
//! are combined, how many hold a backslash, and how often an ordinary event matches. The same seed makes the same corpus.
//!
//! The names are of everyday programs and made-up ones: nothing is taken from anybody's rules.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Fields by Sigma's name, and the columns that they are here.
pub(crate) const FIELDS: &[(&str, &str)] = &[
    ("Image", "executable_path"),
    ("CommandLine", "command_line"),
    ("ParentImage", "parent_executable_path"),
    ("ParentCommandLine", "parent_command_line"),
    ("User", "user"),
    ("CurrentDirectory", "cwd"),
];

pub(crate) const IMAGE: usize = 0;
pub(crate) const COMMAND: usize = 1;
pub(crate) const PARENT: usize = 2;
pub(crate) const PARENT_COMMAND: usize = 3;
pub(crate) const USER: usize = 4;
pub(crate) const DIRECTORY: usize = 5;

/// One event: values by field.
pub(crate) type Event = BTreeMap<usize, String>;

/// SplitMix64.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    /// A standard normal, as the sum of twelve.
    fn normal(&mut self) -> f64 {
        let sum: u32 = (0..12).map(|_| u32::try_from(self.below(1_000_000)).unwrap()).sum();
        f64::from(sum) / 1_000_000.0 - 6.0
    }
}

/// How the values of an item are asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    Contains,
    ContainsAll,
    Ends,
    Equal,
    Expression,
    Starts,
}

pub(crate) struct Item {
    pub(crate) field: usize,
    pub(crate) ask: Ask,
    pub(crate) values: Vec<String>,
}

/// Its items are an AND.
pub(crate) type Selection = Vec<Item>;

pub(crate) struct Rule {
    pub(crate) id: String,
    /// All of them, or with `any` one of them.
    pub(crate) selections: Vec<Selection>,
    pub(crate) any: bool,
    /// None of them.
    pub(crate) filters: Vec<Selection>,
}

/// What a host is made of.
pub(crate) struct World {
    windows: bool,
    /// Base names, the first ones everyday.
    programs: Vec<String>,
    flags: Vec<String>,
    directories: Vec<String>,
    /// What the words of events are made of.
    syllables: &'static [&'static str],
}

const WINDOWS_PROGRAMS: &[&str] = &[
    "cmd.exe",
    "powershell.exe",
    "svchost.exe",
    "conhost.exe",
    "rundll32.exe",
    "regsvr32.exe",
    "wscript.exe",
    "cscript.exe",
    "mshta.exe",
    "schtasks.exe",
    "net.exe",
    "net1.exe",
    "reg.exe",
    "sc.exe",
    "wmic.exe",
    "certutil.exe",
    "bitsadmin.exe",
    "msiexec.exe",
    "explorer.exe",
    "services.exe",
    "winword.exe",
    "excel.exe",
    "outlook.exe",
    "chrome.exe",
    "msedge.exe",
    "python.exe",
    "git.exe",
    "node.exe",
    "tasklist.exe",
    "whoami.exe",
    "ping.exe",
    "ipconfig.exe",
    "findstr.exe",
    "robocopy.exe",
    "xcopy.exe",
    "icacls.exe",
    "vssadmin.exe",
    "netsh.exe",
    "dllhost.exe",
    "taskhostw.exe",
];
const LINUX_PROGRAMS: &[&str] = &[
    "bash",
    "sh",
    "python3",
    "perl",
    "grep",
    "sed",
    "awk",
    "cat",
    "ls",
    "find",
    "curl",
    "wget",
    "ssh",
    "sshd",
    "cron",
    "sudo",
    "systemctl",
    "systemd",
    "git",
    "make",
    "gcc",
    "tar",
    "chmod",
    "chown",
    "crontab",
    "base64",
    "nc",
    "docker",
    "kubectl",
    "node",
];
const WINDOWS_DIRECTORIES: &[&str] = &[
    r"C:\Windows\System32\",
    r"C:\Windows\SysWOW64\",
    r"C:\Windows\",
    r"C:\Program Files\",
    r"C:\Program Files (x86)\",
    r"C:\ProgramData\",
    r"C:\Users\Public\",
    r"\AppData\Local\Temp\",
    r"\AppData\Roaming\",
    r"\Downloads\",
    r"C:\Temp\",
    r"\Desktop\",
];
const LINUX_DIRECTORIES: &[&str] = &[
    "/usr/bin/",
    "/usr/sbin/",
    "/bin/",
    "/usr/lib/",
    "/opt/",
    "/tmp/",
    "/var/tmp/",
    "/dev/shm/",
    "/home/user/",
    "/var/lib/",
    "/etc/",
    "/root/",
];
const COMMON_FLAGS: &[&str] = &[
    "/c ",
    " -e ",
    "/create",
    " -c ",
    "http",
    "add ",
    "query",
    "/s ",
    " user ",
    "-enc",
    "copy ",
    "delete",
    "-w hidden",
    "bypass",
    ".ps1",
    ".dll",
    "import",
    "install",
    "get-",
    "--type=",
];
const SYLLABLES: &[&str] = &[
    "ba", "cro", "dem", "fin", "gar", "hul", "jix", "kel", "lom", "nav", "por", "qua", "rem", "sti", "tor", "vex",
    "wyn", "zup", "ack", "ith",
];

/// As many, of a host whose words no rule has heard of.
const OTHER_SYLLABLES: &[&str] = &[
    "ze", "bru", "ped", "lun", "mok", "gif", "dax", "rov", "tyl", "sed", "hob", "jea", "nil", "uct", "wim", "kez",
    "fop", "yag", "eld", "osk",
];

fn word(random: &mut Random, syllables: usize) -> String {
    word_of(SYLLABLES, random, syllables)
}

fn word_of(from: &[&str], random: &mut Random, syllables: usize) -> String {
    (0..syllables).map(|_| random.pick(from)).collect()
}

impl World {
    pub(crate) fn new(windows: bool, random: &mut Random) -> Self {
        let (everyday, places) =
            if windows { (WINDOWS_PROGRAMS, WINDOWS_DIRECTORIES) } else { (LINUX_PROGRAMS, LINUX_DIRECTORIES) };
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let (mut programs, mut flags, mut directories) = (owned(everyday), owned(COMMON_FLAGS), owned(places));
        let ending = if windows { ".exe" } else { "" };
        programs.extend((0..400).map(|_| word(random, 3) + ending));
        flags.extend((0..3_000).map(|_| flag(random, windows)));
        directories.extend((0..200).map(|_| {
            if windows {
                format!(r"\{}\{}\", word(random, 3), word(random, 2))
            } else {
                format!("/{}/{}/", word(random, 2), word(random, 2))
            }
        }));
        Self { windows, programs, flags, directories, syllables: SYLLABLES }
    }

    /// The same world where the arguments of ordinary events are not made of the words that rules ask for: programs, directories and flags
    /// stay. Of ten thousand rules nearly every word of the others is some rule's.
    pub(crate) fn elsewhere(self) -> Self {
        Self { syllables: OTHER_SYLLABLES, ..self }
    }

    /// Everyday ones are asked about more often than the others.
    fn program(&self, random: &mut Random) -> &str {
        let everyday = if self.windows { WINDOWS_PROGRAMS.len() } else { LINUX_PROGRAMS.len() };
        let bound = if random.chance(60) { everyday } else { self.programs.len() };
        &self.programs[random.below(bound)]
    }

    fn flag(&self, random: &mut Random) -> &str {
        let bound = if random.chance(1) { COMMON_FLAGS.len() } else { self.flags.len() };
        &self.flags[random.below(bound)]
    }

    fn directory(&self, random: &mut Random) -> &str {
        let bound = if random.chance(50) { 12 } else { self.directories.len() };
        &self.directories[random.below(bound)]
    }

    fn separator(&self) -> char {
        if self.windows { '\\' } else { '/' }
    }

    /// Rule number `at`: some fourteen values, seldom more than 35.
    pub(crate) fn rule(&self, at: usize, random: &mut Random) -> Rule {
        let wanted = (11.6 * (0.67 * random.normal()).exp()).round().clamp(2.0, 120.0);
        let wanted = (0_usize..=120).find(|count| f64::from(u32::try_from(*count).unwrap()) >= wanted).unwrap();
        let mut left = wanted;
        let any = random.chance(12);
        let mut selections = vec![self.selection(random, &mut left)];
        while left > 0 && selections.len() < 3 && random.chance(55) {
            selections.push(self.selection(random, &mut left));
        }
        let mut filters = Vec::new();
        while left > 2 && filters.len() < 4 && random.chance(60) {
            filters.push(self.filter(random, &mut left));
        }
        // What is left over makes the lists longer.
        if let Some(item) = selections.last_mut().and_then(|selection| selection.last_mut()) {
            while left > 0 && item.ask != Ask::Expression {
                item.values.push(self.value(item.field, item.ask, random));
                left -= 1;
            }
        }
        Rule { id: format!("00000000-0000-4000-8000-{at:012x}"), selections, any, filters }
    }

    fn selection(&self, random: &mut Random, left: &mut usize) -> Selection {
        let mut items = Vec::new();
        let first = [(IMAGE, Ask::Ends), (COMMAND, Ask::Contains), (PARENT, Ask::Ends)][random.below(10) / 4 % 3];
        self.item(first.0, first.1, random, left, &mut items);
        // Who only asks for a program finds it everywhere; few rules do.
        if random.chance(97) {
            let ask = match random.below(20) {
                0..=5 => Ask::ContainsAll,
                6 => Ask::Expression,
                7 => Ask::Ends,
                _ => Ask::Contains,
            };
            self.item(COMMAND, ask, random, left, &mut items);
        }
        if random.chance(8) {
            self.item(USER, Ask::Contains, random, left, &mut items);
        }
        items
    }

    fn filter(&self, random: &mut Random, left: &mut usize) -> Selection {
        let mut items = Vec::new();
        let (field, ask) = [
            (IMAGE, Ask::Starts),
            (PARENT, Ask::Ends),
            (COMMAND, Ask::Contains),
            (DIRECTORY, Ask::Starts),
            (IMAGE, Ask::Equal),
            (PARENT_COMMAND, Ask::Contains),
        ][random.below(6)];
        self.item(field, ask, random, left, &mut items);
        items
    }

    fn item(&self, field: usize, ask: Ask, random: &mut Random, left: &mut usize, items: &mut Selection) {
        if items.iter().any(|item| item.field == field && item.ask == ask) {
            return;
        }
        let count = match ask {
            Ask::Expression => 1,
            Ask::ContainsAll => 2 + random.below(3),
            _ => 1 + random.below((*left / 2).clamp(1, 12)),
        };
        *left = left.saturating_sub(count);
        let values = (0..count).map(|_| self.value(field, ask, random)).collect();
        items.push(Item { field, ask, values });
    }

    fn value(&self, field: usize, ask: Ask, random: &mut Random) -> String {
        let separator = self.separator();
        match (field, ask) {
            (_, Ask::Expression) => {
                let (first, second) = (word(random, 2), word(random, 2));
                let shapes = ["[-/]{a}\\s+{b}", "(?:{a}|{b})\\d+", "{a}.{1,20}{b}", "\\b{a}[a-f0-9]{8,}"];
                random.pick(&shapes).replace("{a}", &first).replace("{b}", &second)
            }
            (IMAGE | PARENT, Ask::Ends) => format!("{separator}{}", self.program(random)),
            (IMAGE | PARENT, Ask::Equal) => format!("{}{}", self.rooted(random), self.program(random)),
            (IMAGE | PARENT | DIRECTORY, _) => self.rooted(random),
            (USER, _) => random.pick(&["AUTHORI", "AUTORI", "SYSTEM", "admin", "svc_"]).to_owned(),
            // Half of what command lines are asked for are paths.
            _ if random.chance(48) => match random.below(3) {
                0 => format!("{}{}", self.directory(random), word(random, 3)),
                1 => format!("{separator}{}{separator}", word(random, 3)),
                _ => format!("{separator}{}", word(random, 3)),
            },
            _ => self.flag(random).to_owned(),
        }
    }

    fn rooted(&self, random: &mut Random) -> String {
        let directory = self.directory(random);
        if self.windows && directory.starts_with('\\') {
            format!(r"C:\Users\alice{directory}")
        } else {
            directory.to_owned()
        }
    }

    /// An event, now and then one that some rule is about.
    pub(crate) fn event(&self, rules: &[Rule], random: &mut Random) -> Event {
        let mut event = self.ordinary(random);
        if random.chance(30) && !rules.is_empty() {
            let rule = &rules[random.below(rules.len())];
            let wanted = if rule.any { 1 } else { rule.selections.len() };
            rule.selections.iter().take(wanted).for_each(|selection| satisfy(selection, &mut event, random));
        }
        event
    }

    fn ordinary(&self, random: &mut Random) -> Event {
        // A few hundred parents and images come again and again; arguments do not.
        let place = |random: &mut Random| {
            let mut few = Random::new(u64::try_from(random.below(300)).unwrap());
            few.next();
            format!("{}{}", self.rooted(&mut few), self.program(&mut few))
        };
        let (image, parent) = (place(random), place(random));
        let arguments = (0..1 + random.below(6)).fold(String::new(), |mut text, _| {
            match random.below(5) {
                0 => write!(
                    text,
                    " {}{}.{}",
                    self.rooted(random),
                    word_of(self.syllables, random, 3),
                    random.pick(&["txt", "log", "dat", "xml"])
                )
                .unwrap(),
                1 => write!(text, " --{}={}", word_of(self.syllables, random, 2), random.below(100_000)).unwrap(),
                2 if random.chance(25) => write!(text, " {}", self.flag(random)).unwrap(),
                3 => write!(text, " {:016x}", random.next()).unwrap(),
                _ => write!(text, " /{}", word_of(self.syllables, random, 2)).unwrap(),
            }
            text
        });
        let user = random.pick(&[r"NT AUTHORITY\SYSTEM", r"CORP\alice", r"CORP\bob", r"NT AUTHORITY\NETWORK SERVICE"]);
        Event::from([
            (COMMAND, format!("{image}{arguments}")),
            (PARENT_COMMAND, format!("{parent} -k {}", random.below(40))),
            (IMAGE, image),
            (PARENT, parent),
            (USER, if self.windows { user.to_owned() } else { "root".to_owned() }),
            (DIRECTORY, self.rooted(&mut Random::new(u64::try_from(random.below(40)).unwrap()))),
        ])
    }
}

fn flag(random: &mut Random, windows: bool) -> String {
    let name = word(random, 2);
    match random.below(6) {
        0 => format!(" -{name} "),
        1 => format!("--{name}"),
        2 if windows => format!("/{name}"),
        3 => format!("{name}="),
        4 => format!(".{name}("),
        _ => name + &word(random, 1),
    }
}

fn satisfy(selection: &Selection, event: &mut Event, random: &mut Random) {
    for item in selection {
        let value = || item.values[0].clone();
        let old = event.get(&item.field).cloned().unwrap_or_default();
        let new = match item.ask {
            Ask::Contains => format!("{old} {}", item.values[random.below(item.values.len())]),
            Ask::ContainsAll => item.values.iter().fold(old, |text, value| text + " " + value),
            Ask::Ends => format!("{old}{}", item.values[random.below(item.values.len())]),
            Ask::Equal => value(),
            Ask::Expression => old,
            Ask::Starts => value() + &old,
        };
        event.insert(item.field, new);
    }
}
