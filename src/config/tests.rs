use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn refused(text: &str) -> String {
    parse_toml(text).err().expect("refused").to_string()
}

fn environment(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn config_of(sources: Sources) -> Result<Config, ConfigError> {
    Config::from_settings(load(sources))
}

#[test]
fn defaults_have_a_field_each_and_every_field_a_default() {
    let mut settings = Settings::defaults();
    let keys: BTreeSet<String> = settings.iter().map(|setting| setting.key.clone()).collect();
    let mut reader = Reader::new(&mut settings);
    let config = read_config(&mut reader);
    let seen: BTreeSet<String> = reader.seen.iter().map(ToString::to_string).collect();
    assert_eq!(seen, keys);
    assert!(settings.problems.is_empty());
    assert_eq!(config.listen, ["127.0.0.1:8080".parse().unwrap()]);
    assert_eq!(config.registration, Registration::Open);
    assert!(matches!(config.database, Database::Sqlite(path) if path.ends_with("relay.db")));
}

#[test]
fn the_defaults_are_a_configuration_file() {
    assert!(parse_toml(DEFAULTS).is_ok());
}

#[test]
fn every_default_is_explained() {
    let mut explained = false;
    for line in DEFAULTS.lines() {
        match line {
            "" => explained = false,
            line if line.starts_with('#') => explained = true,
            line if line.starts_with('[') => {}
            line => assert!(explained, "{line}"),
        }
    }
}

#[test]
fn later_layers_win() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("relay.toml");
    fs::write(
        &file,
        "log = 'json'\ndrain_secs = 7\nlisten = '127.0.0.1:1'\n[queue]\nmax_envelopes = 10\n",
    )
    .unwrap();
    let sources = || Sources {
        file: Some(file.clone()),
        environment: environment(&[
            ("BLIND_RELAY_DRAIN_SECS", "8"),
            ("BLIND_RELAY_QUEUE__MAX_ENVELOPES", "11"),
            ("BLIND_RELAY_LISTEN", "127.0.0.1:2, [::1]:2"),
            ("BLIND_RELAY_TEST_POSTGRES_URL", "ignored"),
            ("BLIND_RELAY_BIN", "ignored"),
            ("PATH", "ignored"),
        ]),
        flags: vec![Flag {
            key: "drain_secs",
            name: "--drain-secs",
            value: toml::Value::Integer(9),
        }],
    };
    let config = config_of(sources()).unwrap();
    assert_eq!(config.log, LogFormat::Json);
    assert_eq!(config.queue.max_envelopes, 11);
    assert_eq!(config.listen.len(), 2);
    assert_eq!(config.drain, Duration::from_secs(9));

    let text = show(&load(sources()));
    assert!(
        text.contains(&format!("log = \"json\"  # file {}", file.display())),
        "{text}"
    );
    assert!(
        text.contains("max_envelopes = 11  # environment BLIND_RELAY_QUEUE__MAX_ENVELOPES"),
        "{text}"
    );
    assert!(text.contains("drain_secs = 9  # flag --drain-secs"), "{text}");
    assert!(text.contains("retention_days = 30\n"), "{text}");
}

#[test]
fn the_variable_names_the_file_and_the_flag_wins() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (dir.path().join("one"), dir.path().join("other"));
    fs::write(&one, "drain_secs = 1").unwrap();
    fs::write(&other, "drain_secs = 2").unwrap();
    let variables = environment(&[("BLIND_RELAY_CONFIG", one.to_str().unwrap())]);
    let drain = |file| {
        let sources = Sources {
            file,
            environment: variables.clone(),
            flags: Vec::new(),
        };
        config_of(sources).unwrap().drain.as_secs()
    };
    assert_eq!((drain(None), drain(Some(other))), (1, 2));
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_name_and_their_origin() {
    let text = refused("regstration = 'open'\nmax_envelopes = 3\n[queue]\nretention = 3\n[quue]\nmax_bytes = 3");
    for wanted in [
        "regstration (file blind-relay.toml): unknown key; the nearest known key is registration",
        "max_envelopes (file blind-relay.toml): unknown key; the nearest known key is queue.max_envelopes",
        "the nearest known key is queue.retention_days",
    ] {
        assert!(text.contains(wanted), "{wanted} is not in {text}");
    }
    assert!(text.contains("quue (file"), "{text}");

    let error = config_of(Sources {
        environment: environment(&[
            ("BLIND_RELAY_DATABSE_URL", "postgres://u:hunter2@h/d"),
            ("BLIND_RELAY_LISTEn", ""),
        ]),
        ..Sources::default()
    });
    let text = error.err().unwrap().to_string();
    assert!(
        text.contains("unknown variable; the nearest known name is BLIND_RELAY_DATABASE_URL"),
        "{text}"
    );
    assert!(text.contains("nearest known name is BLIND_RELAY_LISTEN"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn wrong_values_name_the_key_and_the_remedy() {
    for (text, wanted) in [
        (
            "drain_secs = 'soon'",
            "drain_secs (file blind-relay.toml): wrong kind of value; write a whole number",
        ),
        (
            "drain_secs = 0",
            "drain_secs (file blind-relay.toml): out of range; choose a number from 1 to 3600",
        ),
        ("drain_secs = -1", "out of range"),
        ("queue = 3", "queue (file blind-relay.toml): is a table"),
        ("listen = ['here']", "write IP:PORT"),
        ("listen = [3]", "a list of strings"),
        ("listen = []", "give at least one"),
        ("log = 'xml'", "choose text or json"),
        ("log_level = 'sqlx=trace'", "name parts of blind_relay only"),
        ("redis_url = 'localhost'", "redis://HOST:PORT"),
        (
            "database_url = 'mysql://u:hunter2@h/d'",
            "postgres://USER:PASSWORD@HOST/NAME",
        ),
        ("pepper = 'hunter2'", "openssl rand -hex 32"),
        ("tls_cert = 'cert.pem'", "--tls-key FILE"),
        ("tls_key = 'key.pem'", "--tls-cert FILE"),
        (
            "tls_self_signed = true\ntls_cert = 'c'\ntls_key = 'k'",
            "keep one of the two",
        ),
        ("registration = 'all'", "choose open, invite, otp or closed"),
        ("a = 1\ndatabase_url = 'hunter2", "line 2 is not TOML"),
    ] {
        let message = refused(text);
        assert!(message.contains(wanted), "{text}: {message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let error = parse_toml("drain_secs = 0\nlog = 'xml'\nnonsense = 1").err().unwrap();
    assert_eq!(error.problems.len(), 3);
}

#[test]
fn a_reachable_admin_listener_needs_consent() {
    assert!(refused("admin_listen = '0.0.0.0:9090'").contains("admin_allow_remote = true"));
    assert!(parse_toml("admin_listen = '0.0.0.0:9090'\nadmin_allow_remote = true").is_ok());
}

#[test]
fn secrets_are_read_from_their_files() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("database-url");
    fs::write(&file, "postgres://relay:hunter2@db/relay\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let sources = |more: &[(&str, &str)]| {
        let mut variables = environment(&[("BLIND_RELAY_DATABASE_URL_FILE", file.to_str().unwrap())]);
        variables.extend(environment(more));
        Sources {
            environment: variables,
            ..Sources::default()
        }
    };
    let settings = load(sources(&[]));
    let text = show(&settings);
    assert!(
        text.contains("database_url = \"postgres://relay:****@db/relay\"  # secret file "),
        "{text}"
    );
    let config = Config::from_settings(settings).unwrap();
    assert!(matches!(config.database, Database::Postgres(url) if url.expose() == "postgres://relay:hunter2@db/relay"));

    let both = config_of(sources(&[("BLIND_RELAY_DATABASE_URL", "postgres://x/y")]))
        .err()
        .unwrap()
        .to_string();
    assert!(both.contains("keep one of the two"), "{both}");

    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let message = config_of(sources(&[])).err().unwrap().to_string();
    assert!(
        message.contains(&format!("run: chmod 600 {}", file.display())),
        "{message}"
    );
}

#[test]
fn turn_servers_come_with_their_secret_or_not_at_all() {
    assert!(parse_toml("").unwrap().turn.is_none());
    let urls = "urls = ['turn:turn.example.org:3478?transport=udp', 'stun:stun.example.org']";
    let config = parse_toml(&format!("[turn]\n{urls}\nsecret = 'north'\nttl_secs = 600")).unwrap();
    let turn = config.turn.unwrap();
    assert_eq!(turn.urls.len(), 2);
    assert_eq!((turn.secret.expose(), turn.ttl.as_secs()), ("north", 600));
    for (text, wanted) in [
        (urls.to_owned(), "given without turn.secret; give turn.secret_file"),
        ("secret = 'hunter2'".to_owned(), "given without turn.urls"),
        (
            "urls = ['turn.example.org']\nsecret = 'hunter2'".to_owned(),
            "write them as turn:HOST:PORT",
        ),
        (
            "urls = ['turn:']\nsecret = 'hunter2'".to_owned(),
            "write them as turn:HOST:PORT",
        ),
        (
            "urls = ['turn:a\"b']\nsecret = 'hunter2'".to_owned(),
            "write them as turn:HOST:PORT",
        ),
        (
            format!("urls = ['turn:{}']\nsecret = 'hunter2'", "x".repeat(300)),
            "write them as turn:HOST:PORT",
        ),
        (
            format!("urls = {:?}\nsecret = 'hunter2'", vec!["turn:x"; 33]),
            "write them as turn:HOST:PORT",
        ),
        (
            format!("{urls}\nsecret = 'hunter2'\nttl_secs = 59"),
            "from 60 to 604800",
        ),
    ] {
        let message = refused(&format!("[turn]\n{text}"));
        assert!(message.contains(wanted), "{text}: {message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
}

#[test]
fn the_turn_secret_is_read_from_its_file_and_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("turn-secret");
    fs::write(&file, "hunter2\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let settings = load(Sources {
        environment: environment(&[
            (
                "BLIND_RELAY_TURN__URLS",
                "turn:turn.example.org, turns:turn.example.org:5349",
            ),
            ("BLIND_RELAY_TURN__SECRET_FILE", file.to_str().unwrap()),
        ]),
        ..Sources::default()
    });
    let text = show(&settings);
    assert!(
        text.contains("secret = \"****\"  # secret file ") && !text.contains("hunter2"),
        "{text}"
    );
    let turn = Config::from_settings(settings).unwrap().turn.unwrap();
    assert_eq!((turn.urls.len(), turn.secret.expose()), (2, "hunter2"));
}

#[test]
fn remote_config_has_names_of_its_own() {
    assert!(parse_toml("").unwrap().remote_config.is_empty());
    let file = "[remote_config]\n\"global.max\" = '8'\ngreeting = 'hello'\n";
    let config = parse_toml(file).unwrap();
    assert_eq!(config.remote_config["global.max"], "8");
    assert_eq!(config.remote_config.len(), 2);
    // A later layer replaces the whole of it, and what is shown can be given back.
    let mut settings = Settings::defaults();
    settings.apply_toml(file, Path::new("blind-relay.toml"));
    let shown = show(&settings);
    assert!(
        shown.contains("\n[remote_config]  # file blind-relay.toml\n"),
        "{shown}"
    );
    assert_eq!(parse_toml(&shown).unwrap().remote_config, config.remote_config);
    settings.apply_environment(&environment(&[("BLIND_RELAY_REMOTE_CONFIG", "a.b=1, c = d = e")]));
    let values = Config::from_settings(settings).unwrap().remote_config;
    assert_eq!(
        values.into_iter().collect::<Vec<_>>(),
        [("a.b".to_owned(), "1".to_owned()), ("c".to_owned(), "d = e".to_owned())]
    );
    let many: String = (0..257).map(|n| format!("v{n} = ''\n")).collect();
    let long = format!("x = '{}'", "x".repeat(1025));
    for (text, wanted) in [
        ("global.max = '8'", "quotes around a name that has dots"),
        ("max = 8", "write name = \"value\""),
        ("x = 'a\"b'", "without quotes, backslashes and line breaks"),
        ("x = 'a\\b'", "without quotes, backslashes"),
        ("x = \"a\\nb\"", "without quotes, backslashes"),
        ("'' = 'x'", "too much, or not plain text"),
        (&many, "up to 256 names"),
        (&long, "of up to 1024 bytes"),
    ] {
        let message = refused(&format!("[remote_config]\n{text}"));
        assert!(message.contains(wanted), "{text}: {message}");
    }
    let mut settings = Settings::defaults();
    settings.apply_environment(&environment(&[("BLIND_RELAY_REMOTE_CONFIG", "no value")]));
    assert!(Config::from_settings(settings).is_err());
}

#[test]
fn what_is_shown_can_be_given_back() {
    let text = show(&load(Sources {
        environment: environment(&[("BLIND_RELAY_DATA_DIR", "/srv/\"relay\"\n")]),
        ..Sources::default()
    }));
    let config = parse_toml(&text).unwrap();
    assert_eq!(config.data_dir, PathBuf::from("/srv/\"relay\"\n"));
}

#[test]
fn database_urls_choose_the_backend() {
    for (url, path) in [
        ("sqlite:a/b.db", "a/b.db"),
        ("sqlite:///srv/b.db", "/srv/b.db"),
        ("sqlite://b.db", "b.db"),
    ] {
        let config = parse_toml(&format!("database_url = '{url}'")).unwrap();
        assert!(
            matches!(config.database, Database::Sqlite(found) if found == Path::new(path)),
            "{url}"
        );
    }
    for url in ["sqlite:", "sqlite::memory:", "sqlite:x?mode=rwc", "/srv/b.db"] {
        assert!(parse_toml(&format!("database_url = '{url}'")).is_err(), "{url}");
    }
}

#[test]
fn settings_of_attachments_that_could_never_work_are_refused() {
    for (text, key) in [
        (
            "max_bytes = 17_179_869_185\ndaily_bytes = 100_000_000_000",
            "attachments.max_bytes",
        ),
        ("max_bytes = 2048\ndaily_bytes = 65_535", "attachments.daily_bytes"),
        ("daily_bytes = 65_536", "attachments.daily_bytes"),
        ("incomplete_secs = 59", "attachments.incomplete_secs"),
        ("idle_secs = 1\nincomplete_secs = 1", "attachments.incomplete_secs"),
    ] {
        let text = refused(&format!("[attachments]\n{text}"));
        assert!(text.contains(key), "{text}");
    }
    for text in [
        "max_bytes = 2048\ndaily_bytes = 65_536",
        "idle_secs = 1\nincomplete_secs = 2",
    ] {
        assert!(parse_toml(&format!("[attachments]\n{text}")).is_ok(), "{text}");
    }
}

#[test]
fn no_text_panics() {
    for text in [
        "[queue.max_envelopes]\nx=1",
        "[[queue]]\nmax_bytes=1",
        "\u{0}",
        "''=1",
        "queue.''=1",
        "[limits]\n''.x=1",
    ] {
        assert!(parse_toml(text).is_err(), "{text}");
    }
}
