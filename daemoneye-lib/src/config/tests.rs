use super::*;
use std::fs;
use std::path::Path;

fn sources(root: &Path) -> Sources {
    let places = Places {
        etc: Some(root.join("etc")),
        config_home: Some(root.join("home")),
        data_home: Some(root.join("data")),
        runtime_home: Some(root.join("run")),
        root: false,
    };
    Sources { places, ..Sources::default() }
}

fn put(root: &Path, below: &str, text: &str) -> PathBuf {
    let path = root.join(below);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path
}

fn messages(result: Result<Config, ConfigErrors>) -> Vec<String> {
    result.unwrap_err().errors.iter().map(ToString::to_string).collect()
}

#[test]
fn every_default_passes_its_own_table_and_is_documented() {
    let root = tempfile::tempdir().unwrap();
    for component in COMPONENTS {
        let config = load(component, &sources(root.path())).unwrap();
        assert_eq!(config.entries().len(), component.settings.len());
        for setting in component.settings {
            assert!(!setting.doc.is_empty(), "{}", setting.key);
            if let (Kind::Integer(min, max), Fallback::Integer(value)) = (setting.kind, setting.fallback) {
                assert!((min..=max).contains(&value), "{}", setting.key);
            }
            if let (Kind::Choice(words), Fallback::Text(word)) = (setting.kind, setting.fallback) {
                assert!(words.contains(&word), "{}", setting.key);
            }
        }
    }
}

#[test]
fn every_setting_is_a_flag_whose_help_says_what_it_takes_and_what_else_sets_it() {
    let flags: Vec<Flag> = PROCMOND.flags().collect();
    assert_eq!(flags.len(), PROCMOND.settings.len());
    let sync = flags.iter().find(|flag| flag.key == "wal.sync").unwrap();
    assert_eq!((sync.long, sync.words, sync.switch), ("wal-sync", &["group", "always", "never"][..], false));
    for wanted in ["[one of group, always, never]", "[default: group]", "[variable: PROCMOND_WAL__SYNC]"] {
        assert!(sync.help.contains(wanted), "{}", sync.help);
    }
    let unset = flags.iter().find(|flag| flag.key == "snapshot_interval_ms").unwrap();
    assert!(!unset.help.contains("[default"), "{}", unset.help);
    assert!(flags.iter().any(|flag| flag.key == "standalone" && flag.switch && !flag.repeats));
    let rules = AGENT.flags().find(|flag| flag.key == "rules").unwrap();
    assert!(rules.repeats && rules.help.contains("[a path; the flag may be repeated]"), "{}", rules.help);
}

#[test]
fn flags_beat_variables_beat_the_users_file_beats_the_systems_file_beats_defaults() {
    let root = tempfile::tempdir().unwrap();
    put(
        root.path(),
        "etc/daemoneye-agent/config.yaml",
        "store:\n  seal_rows: 1\n  seal_ms: 11\nquery:\n  concurrent: 3\n  row_cap: 9\n",
    );
    put(root.path(), "home/daemoneye-agent/config.toml", "[store]\nseal_rows = 2\nseal_ms = 22\nquery.row_cap = 8\n");
    let mut sources = sources(root.path());
    assert_eq!(messages(load(&AGENT, &sources)).len(), 1, "TOML nests query under store here");
    put(root.path(), "home/daemoneye-agent/config.toml", "query.row_cap = 8\n[store]\nseal_rows = 2\nseal_ms = 22\n");
    sources.environment = vec![("DAEMONEYE_AGENT_STORE__SEAL_ROWS".into(), "3".into()), ("HOME".into(), "/x".into())];
    sources.environment.push(("DAEMONEYE_AGENT_STORE__SEAL_MS".into(), "33".into()));
    sources.flags = vec![("store.seal_rows".into(), "4".into())];

    let config = load(&AGENT, &sources).unwrap();
    assert_eq!(config.integer("store.seal_rows"), 4);
    assert_eq!(config.duration_ms("store.seal_ms"), Duration::from_millis(33));
    assert_eq!(config.integer("query.row_cap"), 8);
    assert_eq!(config.integer("query.concurrent"), 3);
    assert_eq!(config.integer("store.retention_days"), 30);

    let origin = |key: &str| config.entries().into_iter().find(|entry| entry.key == key).unwrap().origin;
    assert_eq!(origin("store.seal_rows"), "--store-seal-rows");
    assert_eq!(origin("store.seal_ms"), "DAEMONEYE_AGENT_STORE__SEAL_MS");
    assert!(Path::new(&origin("query.row_cap")).ends_with("home/daemoneye-agent/config.toml"));
    assert!(Path::new(&origin("query.concurrent")).ends_with("etc/daemoneye-agent/config.yaml"));
    assert_eq!(origin("store.retention_days"), DEFAULT_ORIGIN);
}

#[test]
fn every_mistake_is_reported_at_once_with_its_key_value_origin_and_remedy() {
    let root = tempfile::tempdir().unwrap();
    let text = "snapshot_interval_ms: 5\nsource: dtrace\nstandalone: 3\nwal:\n  segmnt_bytes: 70000\ntoken: hunter2\n";
    let file = put(root.path(), "home/procmond/config.yaml", text);
    let mut sources = sources(root.path());
    sources.environment =
        vec![("PROCMOND_SNAPSHOT_INTERVALL_MS".into(), "5".into()), ("PROCMOND_BUFFER_BYTES".into(), "many".into())];
    sources.flags = vec![("data_dri".into(), "/d".into())];
    let found = messages(load(&PROCMOND, &sources)).join("\n");
    let path = file.display();
    for expected in [
        "unknown variable PROCMOND_SNAPSHOT_INTERVALL_MS; did you mean PROCMOND_SNAPSHOT_INTERVAL_MS?".to_owned(),
        "buffer_bytes = \"many\" from PROCMOND_BUFFER_BYTES is refused; it takes a whole number of bytes from 65536"
            .to_owned(),
        "unknown key \"data_dri\" from --data-dri; did you mean data_dir?".to_owned(),
        format!("snapshot_interval_ms = 5 from {path} is refused; it takes a whole number of milliseconds from 100"),
        format!(
            "source = \"dtrace\" from {path} is refused; it takes one of auto, ebpf, proc-connector, procfs, sysinfo"
        ),
        format!("standalone = 3 from {path} is refused; it takes true or false"),
        format!("unknown key \"wal.segmnt_bytes\" from {path}; did you mean wal.segment_bytes?"),
        format!("unknown key \"token\" from {path}; remove it"),
    ] {
        assert!(found.contains(&expected), "{expected}\nis not in\n{found}");
    }
    assert!(!found.contains("hunter2"), "what stands under an unknown key may be a secret");
}

#[test]
fn a_group_that_is_given_one_value_is_called_a_group_and_an_empty_one_sets_nothing() {
    let root = tempfile::tempdir().unwrap();
    let file = put(root.path(), "agent.yaml", "sinks: 3\nstore: [1]\nquery:\nalerts: {}\nprocmond.hashing: true\n");
    let found = messages(load(&AGENT, &Sources::of_file(file.clone())));
    let path = file.display();
    let refused = |key: &str, member: &str| {
        format!("{key} from {path} is one value; it is a group of keys, such as {key}.{member}")
    };
    let members = [("procmond.hashing", "enabled"), ("sinks", "stdout.enabled"), ("store", "seal_rows")];
    assert_eq!(found, members.map(|(key, member)| refused(key, member)));
}

#[test]
fn an_unknown_variable_is_compared_without_what_all_begin_with() {
    let root = tempfile::tempdir().unwrap();
    let told = |name: &str| {
        let environment = vec![(name.into(), "1".into())];
        messages(load(&AGENT, &Sources { environment, ..sources(root.path()) })).join("\n")
    };
    for (given, meant) in [
        ("CONFIGG", "CONFIG"),
        ("STORE_SEAL_ROWS", "STORE__SEAL_ROWS"),
        ("SEAL_ROWS", "STORE__SEAL_ROWS"),
        ("DATADIR", "DATA_DIR"),
    ] {
        let (given, meant) = (format!("DAEMONEYE_AGENT_{given}"), format!("DAEMONEYE_AGENT_{meant}"));
        assert_eq!(told(&given).lines().last(), Some(&*format!("unknown variable {given}; did you mean {meant}?")));
    }
    for given in ["DAEMONEYE_AGENT_FOO", "DAEMONEYE_AGENT_", "DAEMONEYE_AGENT_FROBNICATE"] {
        assert!(!told(given).contains("did you mean"), "{}", told(given));
    }
}

#[test]
fn a_file_that_does_not_parse_is_named_with_line_and_column() {
    let root = tempfile::tempdir().unwrap();
    for (name, text, place) in [
        ("a.yaml", "data_dir: /d\nwal:\n  sync: [group\n", "a.yaml:"),
        ("b.toml", "data_dir = \"/d\"\nsource = = 3\n", "b.toml:2:10: "),
        ("c.json", "{\n  \"source\": oops\n}", "c.json:2:"),
        ("d.yaml", "just a sentence", "d.yaml:1:1: "),
    ] {
        let file = put(root.path(), name, text);
        let found = messages(load(&PROCMOND, &Sources::of_file(file)));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(place), "{found:?}");
        assert!(!found[0].contains(":0:"), "{found:?}");
        assert_eq!(found[0].lines().count(), 1, "{found:?}");
    }
}

#[test]
fn an_empty_file_sets_nothing_in_every_format() {
    let root = tempfile::tempdir().unwrap();
    for name in ["a.yaml", "b.toml", "c.json"] {
        for text in ["", "\n", "# nothing\n"].into_iter().filter(|text| !name.ends_with("json") || !text.contains('#'))
        {
            let file = put(root.path(), name, text);
            assert!(load(&PROCMOND, &Sources::of_file(file)).is_ok(), "{name} {text:?}");
        }
    }
}

#[test]
fn hostile_files_are_refused_and_never_end_the_program() {
    let root = tempfile::tempdir().unwrap();
    let deep = format!("{}1{}", "[".repeat(20_000), "]".repeat(20_000));
    let laughs = (1..30)
        .fold("a0: &a0 [x, x]\n".to_owned(), |text, n| format!("{text}a{n}: &a{n} [*a{}, *a{}]\n", n - 1, n - 1));
    let huge = format!("# {}", "x".repeat(2 * 1024 * 1024));
    for (name, bytes) in [
        ("deep.yaml", deep.as_bytes()),
        ("deep.json", deep.as_bytes()),
        ("deep.toml", format!("a = {deep}").as_bytes()),
        ("laughs.yaml", laughs.as_bytes()),
        ("huge.yaml", huge.as_bytes()),
        ("bytes.yaml", b"data_dir: \xff\xfe"),
    ] {
        let file = root.path().join(name);
        fs::write(&file, bytes).unwrap();
        let found = messages(load(&PROCMOND, &Sources::of_file(file)));
        assert!(found[0].contains(name), "{found:?}");
    }
}

#[test]
fn two_files_in_one_directory_are_refused_by_both_names() {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), "etc/procmond/config.yaml", "");
    put(root.path(), "etc/procmond/config.json", "{}");
    let found = messages(load(&PROCMOND, &sources(root.path())));
    assert!(found[0].contains("config.yaml") && found[0].contains("config.json"), "{found:?}");
}

#[test]
fn a_named_file_stands_in_for_the_directories_and_must_exist() {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), "etc/procmond/config.yaml", "nonsense: 1");
    let named = put(root.path(), "mine.yml", "wal.sync: always\n");
    let mut sources = sources(root.path());
    sources.environment = vec![("PROCMOND_CONFIG".into(), named.clone().into())];
    assert_eq!(load(&PROCMOND, &sources).unwrap().text("wal.sync"), "always", "a dotted key is the nested one");

    sources.config_file = Some(root.path().join("absent.yaml"));
    let found = messages(load(&PROCMOND, &sources));
    assert!(found[0].starts_with("cannot read") && found[0].contains("absent.yaml"), "{found:?}");
}

#[test]
fn lists_come_from_repeated_flags_files_and_separated_variables() {
    let root = tempfile::tempdir().unwrap();
    let mut sources = sources(root.path());
    let joined = std::env::join_paths(["/a", "/b"]).unwrap();
    sources.environment = vec![("DAEMONEYE_AGENT_RULES".into(), joined)];
    assert_eq!(load(&AGENT, &sources).unwrap().paths("rules"), [PathBuf::from("/a"), PathBuf::from("/b")]);
    sources.flags = vec![("rules".into(), "/c:d".into()), ("rules".into(), "/e".into())];
    assert_eq!(load(&AGENT, &sources).unwrap().paths("rules"), [PathBuf::from("/c:d"), PathBuf::from("/e")]);
}

#[test]
fn defaults_follow_the_user_and_the_data_directory() {
    let root = tempfile::tempdir().unwrap();
    let mut sources = sources(root.path());
    let config = load(&AGENT, &sources).unwrap();
    assert_eq!(config.path("data_dir"), root.path().join("data/daemoneye"));
    assert_eq!(config.path("runtime_dir"), root.path().join("run/daemoneye"));
    assert_eq!(config.path("sinks.file.path"), root.path().join("data/daemoneye/alerts.jsonl"));
    assert_eq!(config.optional_path("procmond.path"), None);
    assert_eq!(config.optional_integer("procmond.uid"), None);

    sources.places.runtime_home = None;
    sources.flags = vec![("data_dir".into(), "/elsewhere".into())];
    let config = load(&AGENT, &sources).unwrap();
    assert_eq!(config.path("runtime_dir"), root.path().join("data/daemoneye/run"));
    assert_eq!(config.path("sinks.file.path"), PathBuf::from("/elsewhere/alerts.jsonl"));

    sources.places = Places { root: true, ..Places::default() };
    assert_eq!(load(&AGENT, &sources).unwrap().path("runtime_dir"), PathBuf::from("/run/daemoneye"));
    sources.places.root = false;
    let found = messages(load(&AGENT, &sources));
    assert!(found[0].contains("set it with --runtime-dir or DAEMONEYE_AGENT_RUNTIME_DIR"), "{found:?}");
}
