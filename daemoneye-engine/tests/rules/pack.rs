//! The built-in rules keep what they promise: they load without a remark, pass their own tests, and stay silent on what an
//! ordinary Linux machine does.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use daemoneye_engine::detect::{LoadedRule, RuleSet, rules};
use daemoneye_engine::ingest::{EventBatch, batch_from_json};
use daemoneye_lib::model::Completeness;
use daemoneye_lib::proto::Sequence;
use serde_json::{Map, Value};

fn pack() -> Vec<LoadedRule> {
    let loaded = rules::load_dirs(&[PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../rules")]);
    assert!(loaded.problems.is_empty(), "{:#?}", loaded.problems);
    loaded.rules
}

#[test]
fn every_built_in_rule_passes_its_own_tests() {
    for rule in pack() {
        let report = rules::run_tests(&rule);
        assert!(report.is_ok(), "{}: {:#?}", rule.path.display(), report.failures);
        let positive = rule.tests.iter().filter(|test| test.expect).count();
        assert!(positive >= 2 && rule.tests.len() - positive >= 2, "{} has too few tests", rule.path.display());
    }
}

#[test]
fn every_built_in_rule_says_what_a_person_needs() {
    let pack = pack();
    assert!(pack.len() >= 60);
    for rule in &pack {
        let (file, rule) = (rule.path.display(), &rule.rule);
        assert!(!rule.description.is_empty() && !rule.author.is_empty() && !rule.category.is_empty(), "{file}");
        assert!(!rule.references.is_empty() && !rule.false_positives.is_empty(), "{file}");
        assert!(rule.tags.iter().any(|tag| tag.starts_with("attack.t")), "{file} names no technique");
        assert!(rule.references.iter().all(|link| link.starts_with("https://")), "{file}");
        assert_eq!(rule.pack, "linux", "{file}");
    }
    let names: HashSet<_> = pack.iter().map(|rule| &rule.rule.name).collect();
    assert_eq!(names.len(), pack.len(), "names are unique");
}

/// The tactics of ATT&CK, as Sigma spells them in tags.
const TACTICS: &[&str] = &[
    "collection",
    "command_and_control",
    "credential_access",
    "defense_evasion",
    "discovery",
    "execution",
    "exfiltration",
    "impact",
    "initial_access",
    "lateral_movement",
    "persistence",
    "privilege_escalation",
    "reconnaissance",
    "resource_development",
];

#[test]
fn the_pack_covers_most_tactics_and_every_tag_is_a_tactic_or_a_technique() {
    let (pack, mut covered) = (pack(), BTreeMap::<&str, usize>::new());
    let is_technique = |tag: &str| {
        let parts: Vec<_> = tag.strip_prefix('t').unwrap_or_default().split('.').collect();
        let digits = |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
        matches!(*parts.as_slice(), [main] if digits(main, 4))
            || matches!(*parts.as_slice(), [main, sub] if digits(main, 4) && digits(sub, 3))
    };
    for rule in &pack {
        let file = rule.path.display();
        let tactics = rule.rule.tags.iter().filter_map(|tag| TACTICS.iter().find(|tactic| tag[7..] == ***tactic));
        let before = covered.values().sum::<usize>();
        tactics.for_each(|tactic| *covered.entry(tactic).or_default() += 1);
        assert!(covered.values().sum::<usize>() > before, "{file} names no tactic");
        for tag in &rule.rule.tags {
            let of_attack = tag.strip_prefix("attack.").unwrap_or_default();
            assert!(is_technique(of_attack) || TACTICS.contains(&of_attack), "{file}: {tag}");
            let page = of_attack.to_ascii_uppercase().replace('.', "/");
            let referred = rule.rule.references.iter().any(|link| link.ends_with(&format!("/techniques/{page}/")));
            assert!(!is_technique(of_attack) || referred, "{file} has {tag} without its page");
        }
    }
    assert!(covered.values().filter(|rules| **rules >= 2).count() >= 10, "{covered:?}");
}

/// (name, executable, parent, command line)
const ORDINARY: &[(&str, &str, &str, &str)] = &[
    ("systemd", "/usr/lib/systemd/systemd", "", "/sbin/init splash"),
    ("systemd-journal", "/usr/lib/systemd/systemd-journald", "systemd", "/usr/lib/systemd/systemd-journald"),
    ("(sd-pam)", "/usr/lib/systemd/systemd", "systemd", "(sd-pam)"),
    ("systemctl", "/usr/bin/systemctl", "bash", "systemctl restart nginx"),
    ("sshd", "/usr/sbin/sshd", "systemd", "sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups"),
    ("sshd", "/usr/sbin/sshd", "sshd", "sshd: alice@pts/0"),
    ("bash", "/usr/bin/bash", "sshd", "-bash"),
    ("bash", "/usr/bin/bash", "tmux: server", "bash -i"),
    ("ssh", "/usr/bin/ssh", "bash", "ssh -i /home/alice/.ssh/id_ed25519 build.example.org"),
    ("cargo", "/home/dev/.cargo/bin/cargo", "bash", "cargo test --workspace"),
    (
        "rustc",
        "/home/dev/.rustup/toolchains/stable/bin/rustc",
        "cargo",
        "rustc --crate-name regex --edition=2024 -C linker=cc --out-dir /home/dev/p/target/debug/deps",
    ),
    (
        "cc",
        "/usr/bin/x86_64-linux-gnu-gcc-14",
        "rustc",
        "cc -m64 /tmp/rustcXk2a/symbols.o -o /home/dev/p/target/debug/deps/p-1a2b",
    ),
    (
        "build-script-bu",
        "/home/dev/p/target/debug/build/ring-1a/build-script-build",
        "cargo",
        "/home/dev/p/target/debug/build/ring-1a/build-script-build",
    ),
    ("rust_out", "/tmp/rustdoctestAbC123/rust_out", "rustdoc", "/tmp/rustdoctestAbC123/rust_out"),
    ("procmond", "/tmp/.tmpQw3rTy/bin/procmond", "e2e", "/tmp/.tmpQw3rTy/bin/procmond"),
    ("conftest", "/tmp/build/conftest", "sh", "./conftest"),
    ("sh", "/usr/bin/dash", "make", "/bin/sh -c cc -O2 -c a.c -o a.o > build.log 2>&1"),
    ("make", "/usr/bin/make", "bash", "make -j8 install DESTDIR=/tmp/stage"),
    ("git", "/usr/bin/git", "bash", "git commit -m add stratum+tcp:// parser"),
    ("cron", "/usr/sbin/cron", "systemd", "/usr/sbin/cron -f -P"),
    ("sh", "/usr/bin/dash", "cron", "/bin/sh -c command -v debian-sa1 > /dev/null && debian-sa1 1 1"),
    ("run-parts", "/usr/bin/run-parts", "sh", "run-parts --report /etc/cron.daily"),
    ("logrotate", "/usr/sbin/logrotate", "systemd", "/usr/sbin/logrotate /etc/logrotate.conf"),
    ("apt-get", "/usr/bin/apt-get", "bash", "apt-get -y install nginx"),
    (
        "dpkg",
        "/usr/bin/dpkg",
        "apt-get",
        "/usr/bin/dpkg --unpack --auto-deconfigure /var/cache/apt/archives/nginx_1.26_amd64.deb",
    ),
    ("modprobe", "/usr/bin/kmod", "kthreadd", "/sbin/modprobe -q -- fs-overlay"),
    ("runc", "/usr/bin/runc", "containerd-shim", "runc init"),
    ("nginx", "/usr/sbin/nginx", "nginx", "nginx: worker process"),
    ("python3", "/usr/bin/python3.13", "bash", "python3 -c import sys; print(sys.version)"),
    ("curl", "/usr/bin/curl", "bash", "curl -fsSL https://example.org/x.tar.gz -o /tmp/x.tar.gz"),
    ("base64", "/usr/bin/base64", "bash", "base64 -d token.b64"),
    ("passwd", "/usr/bin/passwd", "bash", "passwd"),
    ("unix_chkpwd", "/usr/sbin/unix_chkpwd", "login", "/usr/sbin/unix_chkpwd alice nullok"),
    ("chmod", "/usr/bin/chmod", "bash", "chmod +x /home/alice/run.sh"),
    ("rm", "/usr/bin/rm", "bash", "rm -rf /tmp/build"),
    ("journalctl", "/usr/bin/journalctl", "bash", "journalctl -u ssh --since today"),
    // Package upgrades.
    (
        "unattended-upgr",
        "/usr/bin/python3.13",
        "systemd",
        "/usr/bin/python3 /usr/bin/unattended-upgrade --no-minimal-upgrade-steps",
    ),
    (
        "sh",
        "/usr/bin/dash",
        "apt-get",
        "sh -c -- test -x /usr/bin/apt-listchanges && /usr/bin/apt-listchanges --apt || test $? -lt 10",
    ),
    (
        "dpkg-deb",
        "/usr/bin/dpkg-deb",
        "dpkg",
        "dpkg-deb --control /var/cache/apt/archives/auditd_4.0_amd64.deb /var/lib/dpkg/tmp.ci",
    ),
    ("auditd.prerm", "/usr/bin/dash", "dpkg", "/bin/sh /var/lib/dpkg/info/auditd.prerm upgrade 1:4.0"),
    (
        "deb-systemd-inv",
        "/usr/bin/perl",
        "auditd.prerm",
        "/usr/bin/perl /usr/bin/deb-systemd-invoke stop auditd.service",
    ),
    ("setcap", "/usr/sbin/setcap", "iputils-ping.po", "setcap cap_net_raw+ep /usr/bin/ping"),
    (
        "adduser",
        "/usr/bin/perl",
        "nginx.postinst",
        "/usr/bin/perl /usr/sbin/adduser --system --group --no-create-home --home /var/lib/nginx _nginx",
    ),
    (
        "useradd",
        "/usr/sbin/useradd",
        "adduser",
        "/usr/sbin/useradd --system --gid 118 --home-dir /var/lib/nginx --shell /usr/sbin/nologin _nginx",
    ),
    ("usermod", "/usr/sbin/usermod", "x.postinst", "usermod -aG video _x"),
    ("ldconfig", "/usr/sbin/ldconfig", "dpkg", "/sbin/ldconfig"),
    ("update-initramf", "/usr/bin/dash", "dpkg", "/bin/sh /usr/sbin/update-initramfs -u"),
    (
        "cp",
        "/usr/bin/cp",
        "mkinitramfs",
        "cp -pP /usr/lib/modules/6.12.0/kernel/fs/ext4/ext4.ko.zst /var/tmp/mkinitramfs_x/usr/lib/modules",
    ),
    ("depmod", "/usr/bin/kmod", "mkinitramfs", "depmod -a -b /var/tmp/mkinitramfs_x 6.12.0"),
    ("dnf", "/usr/bin/python3.12", "bash", "/usr/bin/python3 /usr/bin/dnf -y upgrade"),
    ("rpm", "/usr/bin/rpm", "dnf", "rpm -Uvh kernel-6.12.0-1.x86_64.rpm"),
    ("sh", "/usr/bin/bash", "dnf", "/bin/sh /var/tmp/rpm-tmp.Ab12Cd 1"),
    (
        "dracut",
        "/usr/bin/bash",
        "kernel-install",
        "/usr/bin/bash /usr/bin/dracut -f /boot/initramfs-6.12.0.img 6.12.0",
    ),
    ("snapd", "/usr/lib/snapd/snapd", "systemd", "/usr/lib/snapd/snapd"),
    ("needrestart", "/usr/bin/perl", "sh", "/usr/bin/perl -w /usr/sbin/needrestart"),
    // Scheduled work.
    ("crontab", "/usr/bin/crontab", "bash", "crontab -e"),
    ("anacron", "/usr/sbin/anacron", "systemd", "/usr/sbin/anacron -d -q -s"),
    ("sh", "/usr/bin/dash", "cron", "/bin/sh -c cd / && run-parts --report /etc/cron.hourly"),
    ("sh", "/usr/bin/dash", "logrotate", "sh -c /usr/lib/rsyslog/rsyslog-rotate"),
    ("systemctl", "/usr/bin/systemctl", "rsyslog-rotate", "systemctl kill -s HUP rsyslog.service"),
    ("cp", "/usr/bin/cp", "dpkg-db-backup", "cp -p /var/lib/dpkg/status /var/backups/dpkg.status.0"),
    ("gzip", "/usr/bin/gzip", "dpkg-db-backup", "gzip -9n /var/backups/dpkg.status.0"),
    (
        "find",
        "/usr/bin/find",
        "sh",
        "find /var/lib/php/sessions -depth -mindepth 1 -maxdepth 1 -type f -cmin +24 -delete",
    ),
    ("find", "/usr/bin/find", "man-db", "find /var/cache/man -type f -name *.gz -atime +6 -delete"),
    ("updatedb", "/usr/bin/updatedb.plocate", "systemd", "/usr/sbin/updatedb.plocate"),
    ("fstrim", "/usr/sbin/fstrim", "systemd", "/sbin/fstrim --listed-in /etc/fstab:/proc/self/mountinfo --verbose"),
    (
        "certbot",
        "/usr/bin/python3.13",
        "systemd",
        "/usr/bin/python3 /usr/bin/certbot -q renew --no-random-sleep-on-renew",
    ),
    ("pg_dump", "/usr/lib/postgresql/17/bin/pg_dump", "sh", "pg_dump -Fc -f /var/backups/postgresql/app.dump app"),
    ("sh", "/usr/bin/dash", "cron", "/bin/sh -c mysqldump --all-databases | gzip > /var/backups/mysql/all.sql.gz"),
    (
        "restic",
        "/usr/bin/restic",
        "systemd",
        "restic -r sftp:backup.example.org:/srv/restic backup /etc /home /var/www",
    ),
    ("rsync", "/usr/bin/rsync", "sh", "rsync -aHAX --delete /home/ backup.example.org:/srv/home/"),
    // systemd and the login.
    ("systemd-tmpfile", "/usr/bin/systemd-tmpfiles", "systemd", "systemd-tmpfiles --clean"),
    ("systemd-run", "/usr/bin/systemd-run", "sh", "systemd-run --user --scope --unit=app-firefox firefox"),
    ("nft", "/usr/sbin/nft", "systemd", "/usr/sbin/nft flush ruleset"),
    ("iptables", "/usr/sbin/xtables-nft-multi", "dockerd", "/usr/sbin/iptables --wait -t nat -F DOCKER"),
    ("iptables", "/usr/sbin/xtables-nft-multi", "kube-proxy", "iptables -w 5 -N KUBE-SERVICES -t filter"),
    ("auditctl", "/usr/sbin/auditctl", "augenrules", "/sbin/auditctl -R /etc/audit/audit.rules"),
    (
        "apparmor_parser",
        "/usr/sbin/apparmor_parser",
        "systemd",
        "apparmor_parser --replace --write-cache /etc/apparmor.d",
    ),
    ("unix_chkpwd", "/usr/sbin/unix_chkpwd", "sshd-session", "/usr/sbin/unix_chkpwd alice chkexpiry"),
    ("sshd-session", "/usr/lib/openssh/sshd-session", "sshd", "sshd-session: alice [priv]"),
    ("sudo", "/usr/bin/sudo", "bash", "sudo apt-get update"),
    ("sudo", "/usr/bin/sudo", "bash", "sudo -u postgres psql -c select 1"),
    ("su", "/usr/bin/su", "bash", "su - postgres"),
    ("polkit-agent-he", "/usr/lib/polkit-1/polkit-agent-helper-1", "gnome-shell", "polkit-agent-helper-1 alice"),
    ("pkexec", "/usr/bin/pkexec", "update-manager", "pkexec /usr/lib/update-notifier/package-system-locked"),
    (
        "gnome-keyring-d",
        "/usr/bin/gnome-keyring-daemon",
        "systemd",
        "/usr/bin/gnome-keyring-daemon --foreground --components=pkcs11,secrets",
    ),
    ("xdg-open", "/usr/bin/dash", "evince", "/bin/sh /usr/bin/xdg-open https://example.org"),
    ("update-motd", "/usr/bin/run-parts", "sshd-session", "run-parts --lsbsysinit /etc/update-motd.d"),
    ("NetworkManager", "/usr/sbin/NetworkManager", "systemd", "/usr/sbin/NetworkManager --no-daemon"),
    ("mount", "/usr/bin/mount", "systemd", "/usr/bin/mount -o bind /srv/data /home/alice/data"),
    // Containers.
    (
        "containerd-shim",
        "/usr/bin/containerd-shim-runc-v2",
        "systemd",
        "/usr/bin/containerd-shim-runc-v2 -namespace moby -id 3f4e -address /run/containerd/containerd.sock",
    ),
    ("docker", "/usr/bin/docker", "bash", "docker run --rm -v /home/dev/app:/app -w /app node:22 npm ci"),
    (
        "docker",
        "/usr/bin/docker",
        "bash",
        "docker run -d --pid=host --net=host -v /:/host:ro,rslave quay.io/prometheus/node-exporter --path.rootfs=/host",
    ),
    ("docker-entrypoi", "/usr/bin/dash", "containerd-shim", "/bin/sh /docker-entrypoint.sh nginx -g daemon off;"),
    ("sh", "/usr/bin/dash", "containerd-shim", "/bin/sh -c curl -f http://localhost:8080/health || exit 1"),
    ("postgres", "/usr/lib/postgresql/17/bin/postgres", "docker-entrypoi", "postgres -c shared_buffers=1GB"),
    (
        "sh",
        "/usr/bin/dash",
        "postgres",
        "sh -c cp pg_wal/000000010000000000000004 /mnt/archive/000000010000000000000004",
    ),
    ("kubelet", "/usr/bin/kubelet", "systemd", "/usr/bin/kubelet --config=/var/lib/kubelet/config.yaml"),
    ("nsenter", "/usr/bin/nsenter", "bash", "nsenter -t 48213 -n ip addr"),
    ("newuidmap", "/usr/bin/newuidmap", "podman", "newuidmap 4812 0 1000 1 1 100000 65536"),
    ("conmon", "/usr/bin/conmon", "podman", "/usr/bin/conmon --api-version 1 -c 3f4e -u 3f4e -r /usr/bin/crun"),
    (
        "buildkit-runc",
        "/usr/bin/runc",
        "buildkitd",
        "buildkit-runc --log /run/log.json run --bundle /var/lib/buildkit/executor/x x",
    ),
    (
        "sh",
        "/usr/bin/dash",
        "buildkit-runc",
        "/bin/sh -c apt-get update && apt-get install -y curl && rm -rf /var/lib/apt/lists/*",
    ),
    ("rm", "/usr/bin/rm", "sh", "rm -rf /var/lib/apt/lists/deb.debian.org_dists"),
    (
        "sh",
        "/usr/bin/dash",
        "buildkit-runc",
        "/bin/sh -c curl -fsSL -o /usr/local/bin/tini https://example.org/tini && chmod +x /usr/local/bin/tini",
    ),
    // Builds and developers.
    ("node", "/usr/bin/node", "npm", "node ./node_modules/.bin/webpack --mode production"),
    ("sh", "/usr/bin/dash", "npm", "sh -c node-gyp rebuild"),
    ("python3", "/usr/bin/python3.13", "bash", "python3 -m venv .venv"),
    ("pip", "/home/dev/.venv/bin/python3", "bash", "/home/dev/.venv/bin/python3 .venv/bin/pip install requests"),
    ("go", "/usr/local/go/bin/go", "bash", "go build ./..."),
    ("main", "/tmp/go-build123/b001/exe/main", "go", "/tmp/go-build123/b001/exe/main"),
    ("pkg.test", "/tmp/go-build456/b001/pkg.test", "go", "/tmp/go-build456/b001/pkg.test -test.timeout=10m0s"),
    ("gdb", "/usr/bin/gdb", "bash", "gdb --args ./target/debug/app"),
    ("strace", "/usr/bin/strace", "bash", "strace -f -e trace=openat ./target/debug/app"),
    ("grep", "/usr/bin/grep", "bash", "grep -rn password src/"),
    ("find", "/usr/bin/find", "bash", "find . -name *.rs -newer Cargo.lock"),
    ("tar", "/usr/bin/tar", "bash", "tar czf /tmp/src.tgz src Cargo.toml"),
    ("touch", "/usr/bin/touch", "make", "touch -r configure.ac configure"),
    ("install", "/usr/bin/install", "make", "install -m 755 app /usr/local/bin/app"),
    ("ssh", "/usr/bin/ssh", "git", "ssh git@example.org git-upload-pack 'project.git'"),
    (
        "ssh",
        "/usr/bin/ssh",
        "vagrant",
        "ssh vagrant@127.0.0.1 -p 2222 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -t bash -l",
    ),
    ("sshd", "/home/dev/openssh/build/sshd", "bash", "/home/dev/openssh/build/sshd -d -p 2022"),
    (
        "scp",
        "/usr/bin/scp",
        "bash",
        "scp -i /home/alice/.ssh/id_ed25519 release.tar.gz build.example.org:/tmp/release.tar.gz",
    ),
    ("ssh-keygen", "/usr/bin/ssh-keygen", "bash", "ssh-keygen -t ed25519 -f /home/alice/.ssh/id_ed25519"),
    ("ssh-add", "/usr/bin/ssh-add", "bash", "ssh-add /home/alice/.ssh/id_ed25519"),
    ("gpg", "/usr/bin/gpg", "git", "gpg --status-fd=2 -bsau 0x1234"),
    ("openssl", "/usr/bin/openssl", "bash", "openssl req -x509 -newkey rsa:4096 -nodes -keyout key.pem -out cert.pem"),
    ("xclip", "/usr/bin/xclip", "nvim", "xclip -o -selection clipboard"),
    ("bash", "/usr/bin/bash", "make", "/bin/bash -c for i in $(seq 1 200); do ./run-test $i; done"),
    // Administration and configuration management.
    ("ansible-playbo", "/usr/bin/python3.13", "bash", "/usr/bin/python3 /usr/bin/ansible-playbook site.yml"),
    ("sh", "/usr/bin/dash", "sshd-session", "/bin/sh -c echo ~ansible && sleep 0"),
    (
        "sh",
        "/usr/bin/dash",
        "sh",
        "/bin/sh -c chmod u+rwx /home/ansible/.ansible/tmp/ansible-tmp-1/ /home/ansible/.ansible/tmp/ansible-tmp-1/AnsiballZ_apt.py && sleep 0",
    ),
    (
        "python3",
        "/usr/bin/python3.13",
        "sh",
        "/usr/bin/python3 /home/ansible/.ansible/tmp/ansible-tmp-1/AnsiballZ_apt.py",
    ),
    (
        "sshpass",
        "/usr/bin/sshpass",
        "ansible-playbo",
        "sshpass -d12 ssh -o ControlMaster=auto -o ControlPersist=60s host.example.org",
    ),
    ("puppet", "/usr/bin/ruby3.3", "systemd", "/usr/bin/ruby /usr/bin/puppet agent --onetime --no-daemonize"),
    ("salt-minion", "/usr/bin/python3.13", "systemd", "/usr/bin/python3 /usr/bin/salt-minion"),
    ("cloud-init", "/usr/bin/python3.13", "systemd", "/usr/bin/python3 /usr/bin/cloud-init modules --mode=final"),
    ("growpart", "/usr/bin/dash", "cloud-init", "/bin/sh /usr/bin/growpart /dev/vda 1"),
    ("curl", "/usr/bin/curl", "sh", "curl -s http://169.254.169.254/latest/meta-data/placement/availability-zone"),
    ("vim", "/usr/bin/vim.basic", "sudo", "vim /etc/sudoers.d/ops"),
    ("visudo", "/usr/sbin/visudo", "sudo", "visudo"),
    ("passwd", "/usr/bin/passwd", "bash", "passwd -S alice"),
    ("useradd", "/usr/sbin/useradd", "bash", "useradd -m -s /bin/bash -u 1001 carol"),
    ("ufw", "/usr/bin/python3.13", "bash", "/usr/bin/python3 /usr/sbin/ufw allow 22/tcp"),
    ("dd", "/usr/bin/dd", "bash", "dd if=/dev/zero of=/swapfile bs=1M count=2048"),
    ("dd", "/usr/bin/dd", "bash", "dd if=debian.iso of=/dev/sdb bs=4M status=progress"),
    ("chattr", "/usr/bin/chattr", "bash", "chattr +i /etc/resolv.conf"),
    ("tcpdump", "/usr/bin/tcpdump", "bash", "tcpdump -ni eth0 port 53"),
    ("nmap", "/usr/bin/nmap", "bash", "nmap -p 443 www.example.org"),
    ("journalctl", "/usr/bin/journalctl", "bash", "journalctl --vacuum-time=30d"),
    ("tee", "/usr/bin/tee", "bash", "tee -a build.log"),
    ("zfs", "/usr/sbin/zfs", "zfs-auto-snapsh", "zfs destroy -r tank/data@zfs-auto-snap_daily-2026-01-31"),
    ("borg", "/usr/bin/python3.13", "systemd", "/usr/bin/python3 /usr/bin/borg prune --keep-daily 7 /srv/borg"),
    ("rclone", "/usr/bin/rclone", "systemd", "rclone sync /srv/files backup:files --config /etc/rclone.conf"),
    ("zabbix_agentd", "/usr/sbin/zabbix_agentd", "systemd", "/usr/sbin/zabbix_agentd: collector [idle 1 sec]"),
    ("sh", "/usr/bin/dash", "zabbix_agentd", "sh -c ps aux | grep -c '[n]ginx'"),
    ("pgrep", "/usr/bin/pgrep", "sh", "pgrep -x osqueryd"),
    ("daemoneye-agent", "/usr/bin/daemoneye-agent", "systemd", "/usr/bin/daemoneye-agent run"),
    ("procmond", "/usr/bin/procmond", "systemd", "/usr/bin/procmond"),
    ("kworker/0:1", "", "kthreadd", ""),
];

fn ordinary() -> Vec<Map<String, Value>> {
    let known = |text: &str| if text.is_empty() { Value::Null } else { text.into() };
    let event = |(at, (name, executable, parent, command)): (i64, &(&str, &str, &str, &str))| {
        let mut event = Map::new();
        event.insert("time".into(), (1_769_860_800_000_000 + at * 500_000).into());
        event.insert("user".into(), "alice".into());
        event.insert("session".into(), 7.into());
        event.insert("cwd".into(), "/home/alice".into());
        event.insert("event_type".into(), "start".into());
        event.insert("start_kind".into(), "exec".into());
        event.insert("name".into(), known(name));
        event.insert("executable_path".into(), known(executable));
        event.insert("parent_name".into(), known(parent));
        event.insert("command_line".into(), known(command));
        event.insert("ancestry".into(), format!("/systemd/{parent}/{name}").into());
        event.insert("deleted_executable".into(), false.into());
        event.insert("memfd".into(), false.into());
        event
    };
    (0..).zip(ORDINARY).map(event).collect()
}

#[test]
fn an_ordinary_machine_raises_no_alert() {
    let (set, refusals) = RuleSet::compile(pack());
    assert!(refusals.is_empty());
    let at = Sequence { epoch: 1, number: 1 };
    let batch = batch_from_json(&ordinary()).unwrap();
    let events =
        EventBatch { batch, collector: "test".into(), first: at, last: at, gaps: Vec::new(), live: Vec::new() };
    let mut matches = set.evaluate(&events, &Completeness::complete());
    matches.extend(set.advance(i64::MAX));
    let wrong: Vec<_> = matches.iter().map(|found| (&found.rule.name, found.output())).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
