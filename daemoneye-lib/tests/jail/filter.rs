//! The compiled filters of a program, run by an interpreter: what they answer to every call, whatever its arguments, and to
//! the arguments that an attacker would choose.

use std::collections::BTreeSet;

use daemoneye_lib::jail::Plan;
use nix::libc;

/// One line a call of x86-64: number, name, and what each program's jail answers: `any`, `some` (it depends on the
/// arguments), `nosys`, `-` (never).
const TABLE: &str = include_str!("x86_64.txt");
const PROGRAMS: [&str; 4] = ["procmond", "agent-worker", "agent-parent", "console"];

const X86_64: u32 = 0xC000_003E;
const I386: u32 = 0x4000_0003;
/// Bit of the x32 numbers, under which each call can be made a second time.
const X32: u32 = 0x4000_0000;

const ALLOW: u32 = 0x7FFF_0000;
const KILL: u32 = 0x8000_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;

#[derive(Clone, Copy)]
struct Instruction(u16, u8, u8, u32);

/// Both programs of a plan.
pub(crate) struct Filters([Vec<Instruction>; 2]);

impl Filters {
    pub(crate) fn of(plan: &Plan) -> Self {
        Self(
            plan.filters()
                .unwrap()
                .map(|program| program.iter().map(|line| Instruction(line.code, line.jt, line.jf, line.k)).collect()),
        )
    }

    /// What the kernel may answer; `None` stands for every value that an argument can have.
    fn answers(&self, arch: u32, number: u32, arguments: Option<[u64; 6]>) -> BTreeSet<u32> {
        let load = |offset: u32| match offset {
            0 => Some(number),
            4 => Some(arch),
            offset => {
                let argument = arguments?[(offset as usize - 16) / 8];
                Some(if offset % 8 == 0 { argument as u32 } else { (argument >> 32) as u32 })
            }
        };
        let [first, second] = self.0.each_ref().map(|program| reached(program, load));
        // The strictest action counts; among equals that of the filter which was applied last.
        let action = |answer: u32| (answer & 0xFFFF_0000).cast_signed();
        let stricter = |first: u32, second: u32| if action(first) < action(second) { first } else { second };
        first.iter().flat_map(|first| second.iter().map(move |second| stricter(*first, *second))).collect()
    }

    fn word(&self, number: u32) -> &'static str {
        let answers: Vec<u32> = self.answers(X86_64, number, None).into_iter().collect();
        match answers.as_slice() {
            [ALLOW] => "any",
            [EPERM] => "-",
            [ENOSYS] => "nosys",
            [EPERM, ALLOW] => "some",
            other => panic!("call {number} is answered by {other:x?}"),
        }
    }

    fn allows(&self, number: i64, arguments: [u64; 6]) -> bool {
        let answers = self.answers(X86_64, number.try_into().unwrap(), Some(arguments));
        assert_eq!(answers.len(), 1, "a call with all its arguments has one answer");
        answers.contains(&ALLOW)
    }
}

/// Every answer that is reached; a test of something unknown goes both ways.
fn reached(program: &[Instruction], load: impl Fn(u32) -> Option<u32>) -> BTreeSet<u32> {
    let (mut answers, mut seen) = (BTreeSet::new(), BTreeSet::new());
    let mut open = vec![(0_usize, Some(0_u32))];
    while let Some((at, held)) = open.pop() {
        if !seen.insert((at, held)) {
            continue;
        }
        let Instruction(code, if_true, if_false, operand) = program[at];
        let next = at + 1;
        match code {
            0x20 => open.push((next, load(operand))),
            0x54 => open.push((next, held.map(|held| held & operand))),
            0x05 => open.push((next + operand as usize, held)),
            0x06 => drop(answers.insert(operand)),
            0x15 | 0x25 | 0x35 | 0x45 => {
                let holds = held.map(|held| match code {
                    0x15 => held == operand,
                    0x25 => held > operand,
                    0x35 => held >= operand,
                    _ => held & operand != 0,
                });
                let ways = [(Some(false), if_true), (Some(true), if_false)];
                open.extend(ways.iter().filter(|way| holds != way.0).map(|way| (next + usize::from(way.1), held)));
            }
            code => panic!("instruction {code:#x} is none that the library emits"),
        }
    }
    answers
}

fn is_x86_64() -> bool {
    let is = std::env::consts::ARCH == "x86_64";
    if !is {
        println!("skipped: the table of calls is that of x86-64");
    }
    is
}

/// Compares every number with the table, and the names in the program's lines with the names of their numbers.
pub(crate) fn answers_as_the_table_says(plan: &Plan, program: &str) {
    if !is_x86_64() {
        return;
    }
    let filters = Filters::of(plan);
    let column = PROGRAMS.iter().position(|name| *name == program).unwrap();
    let rows =
        TABLE.lines().filter(|line| !line.starts_with('#')).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let rows: std::collections::BTreeMap<u32, Vec<&str>> = rows.map(|row| (row[0].parse().unwrap(), row)).collect();
    let differs = |number: &u32| {
        let wanted = rows.get(number).map_or("-", |row| row[2 + column]);
        let name = rows.get(number).map_or("?", |row| row[1]);
        let found = filters.word(*number);
        (found != wanted).then(|| format!("{number} {name}: {found}, the table says {wanted}"))
    };
    let differing: Vec<String> = (0..1024).filter_map(|number| differs(&number)).collect();
    assert!(differing.is_empty(), "{program}:\n{}", differing.join("\n"));
    for number in 0..1024 {
        assert_eq!(filters.word(number | X32), "-", "{number} by its x32 number");
        assert_eq!(filters.answers(I386, number, None), BTreeSet::from([KILL]), "{number} of 32-bit programs");
    }
    for line in plan.calls.iter().copied().flatten() {
        assert_eq!(rows[&u32::try_from(line.number).unwrap()][1], line.name, "the name of {}", line.number);
    }
}

const fn flag(flag: i32) -> u64 {
    flag as u32 as u64
}

/// As the C library starts a thread.
const THREAD: u64 = 0x003D_0F00;
const MEMORY: u64 = flag(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
const CODE: u64 = flag(libc::PROT_READ | libc::PROT_EXEC);
const PLAIN: u64 = flag(libc::PROT_READ | libc::PROT_WRITE);
const NEW: [i32; 7] = [
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWUTS,
];

/// What every jailed program decides by arguments, with what an attacker would choose.
pub(crate) fn decides_by_arguments(plan: &Plan) {
    if !is_x86_64() {
        return;
    }
    let filters = Filters::of(plan);
    let refused = |what: &str, number: i64, given: &[u64]| {
        assert!(!filters.allows(number, padded(given)), "{what}: {given:x?}");
    };
    for namespace in NEW {
        refused("a thread in a namespace of its own", libc::SYS_clone, &[THREAD | flag(namespace)]);
        refused("a child in a namespace of its own", libc::SYS_clone, &[flag(libc::SIGCHLD | namespace)]);
    }
    refused("a child process", libc::SYS_clone, &[flag(libc::SIGCHLD)]);
    refused("a child process that shares memory", libc::SYS_clone, &[flag(libc::CLONE_VM | libc::CLONE_VFORK)]);
    refused("a page of code", libc::SYS_mmap, &[0, 4096, CODE, MEMORY]);
    refused("a page of code, upper bits set", libc::SYS_mmap, &[0, 4096, CODE | 1 << 40, MEMORY]);
    refused("data that becomes code", libc::SYS_mprotect, &[4096, 4096, CODE]);
    for request in [0x5412_u64, 0x541C, 0x5423, 0x540E, 0x8933] {
        refused("TIOCSTI, TIOCLINUX, TIOCSETD, TIOCSCTTY, SIOCGIFINDEX", libc::SYS_ioctl, &[0, request]);
        refused("the same, upper bits set", libc::SYS_ioctl, &[0, request | 1 << 32]);
    }
    for option in
        (0..80).chain([0x5961_6D61]).filter(|option| !matches!(*option, libc::PR_SET_NAME | libc::PR_GET_NAME))
    {
        refused("an attribute of the process", libc::SYS_prctl, &[flag(option), 1]);
    }
    for family in (0..64).filter(|family| *family != libc::AF_UNIX) {
        for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_RAW, libc::SOCK_SEQPACKET] {
            refused("a socket", libc::SYS_socket, &[flag(family), flag(kind)]);
            refused("a pair of sockets", libc::SYS_socketpair, &[flag(family), flag(kind)]);
        }
    }
    refused("a signal to another process's thread", libc::SYS_tgkill, &[1, 1, 9]);
    refused("limits of another process", libc::SYS_prlimit64, &[1, flag(7)]);
    for (which, who) in [(0, 1), (1, 0), (2, 0), (2, 1000)] {
        refused("the priority of others", libc::SYS_setpriority, &[which, who, 19]);
        refused("the priority of others, read", libc::SYS_getpriority, &[which, who]);
    }
    let allowed = |what: &str, number: i64, given: &[u64]| {
        assert!(filters.allows(number, padded(given)), "{what}: {given:x?}");
    };
    allowed("a thread", libc::SYS_clone, &[THREAD]);
    allowed("memory", libc::SYS_mmap, &[0, 4096, PLAIN, MEMORY]);
    allowed("a guard page", libc::SYS_mprotect, &[4096, 4096, 0]);
    allowed(
        "a socket of the bus",
        libc::SYS_socket,
        &[flag(libc::AF_UNIX), flag(libc::SOCK_STREAM | libc::SOCK_CLOEXEC)],
    );
    allowed("its own end", libc::SYS_tgkill, &[std::process::id().into(), 1, 6]);
    allowed("the name of a thread", libc::SYS_prctl, &[flag(libc::PR_SET_NAME), 1]);
    allowed("is it a terminal", libc::SYS_ioctl, &[1, 0x5401]);
}

fn padded(given: &[u64]) -> [u64; 6] {
    std::array::from_fn(|place| given.get(place).copied().unwrap_or(0))
}
