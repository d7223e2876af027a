//! No statement of the server reads a whole table of accounts, devices, queues or keys: what one request costs must not grow
//! with how many people there are, or with how much waits.
//!
//! The statements are not listed here. They are read out of the sources of both backends, whatever begins like a statement,
//! so that a new one is looked at without anybody thinking of it. SQLite is asked for its program: a loop over a whole table
//! or index is an instruction there, and what foreign keys and cascades do is part of it. PostgreSQL is asked for its plan on
//! empty tables and on full ones, once for whatever parameters come and once for usual ones.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use sqlx::{ConnectOptions, Connection, PgConnection, Row, SqliteConnection};

use super::migrate::Location;
use super::postgres::{SERVER_SETTINGS, options};
use super::testing::{ROOMY, postgres, sqlite};

/// The tables that are never read whole.
const GUARDED: [&str; 8] = [
    "accounts",
    "devices",
    "mailboxes",
    "envelopes",
    "signed_keys",
    "one_time_ec_keys",
    "one_time_kyber_keys",
    "spent_keys",
];

/// Statements that read whole tables because that is what they are for, and that nobody causes from outside.
const WHOLE: [(&str, &str); 6] = [
    // The operator's sums.
    ("admin.rs", "COUNT_ACCOUNTS"),
    ("admin.rs", "COUNT_OTHERS"),
    ("admin.rs", "COUNT_QUEUED"),
    // After a restore, before anybody connects.
    ("age.rs", "DROP_KEYS"),
    ("age.rs", "PASS_NUMBERS_OVER"),
    ("age.rs", "SPEND_ALL"),
];

/// Indexes of which all entries may be read: of what the operator has suspended.
const FEW: [&str; 1] = ["accounts_suspended"];

struct Statement {
    file: String,
    name: String,
    sql: String,
}

impl Statement {
    fn is_whole_by_design(&self) -> bool {
        WHOLE
            .iter()
            .any(|(file, name)| self.file.ends_with(file) && self.name == *name)
    }

    fn shown(&self, plan: &str) -> String {
        format!("{} {}: {}\n{plan}", self.file, self.name, self.sql)
    }
}

#[tokio::test]
async fn no_statement_on_sqlite_reads_a_whole_table_of_queues_or_keys() {
    let database = sqlite(ROOMY).await.unwrap();
    let Location::Sqlite(path) = database.location() else {
        panic!("it is SQLite")
    };
    let mut db = SqliteConnection::connect(&format!("sqlite://{}", path.display()))
        .await
        .unwrap();
    sqlx::query("PRAGMA foreign_keys = ON").execute(&mut db).await.unwrap();
    let statements = statements_of("sqlite");
    let mut found = Vec::new();
    let mut whole = BTreeSet::new();
    for statement in &statements {
        let read = read_whole_on_sqlite(&mut db, &statement.sql).await;
        if statement.is_whole_by_design() {
            whole.extend(read);
        } else if !read.is_empty() {
            found.push(statement.shown(&format!("{read:?}")));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert!(
        whole.contains("envelopes"),
        "what reads whole tables by design does so: {whole:?}"
    );
    for planted in PLANTED {
        assert!(!read_whole_on_sqlite(&mut db, planted).await.is_empty(), "{planted}");
    }
}

#[tokio::test]
async fn no_statement_on_postgres_reads_a_whole_table_of_queues_or_keys() {
    let Some(database) = postgres(ROOMY).await else { return };
    let Location::Postgres(url) = database.location() else {
        panic!("it is PostgreSQL")
    };
    let (options, _) = options(url).unwrap();
    let mut db = options.options(SERVER_SETTINGS).connect().await.unwrap();
    let indexes = indexes(&mut db).await;
    let statements = statements_of("postgres");
    let mut found = Vec::new();
    // A plan stays in its connection until the tables are analyzed again. The queue is often empty when they are, and fills
    // within seconds; the others grow slowly.
    for (fill, guarded) in [("ANALYZE", &["envelopes"][..]), (FILL_POSTGRES, &GUARDED[..])] {
        run(&mut db, fill).await;
        for statement in statements.iter().filter(|statement| !statement.is_whole_by_design()) {
            for parameters in [Parameters::Any, Parameters::Usual] {
                let plan = plan_on_postgres(&mut db, &statement.sql, parameters).await;
                if reads_whole_on_postgres(&plan, guarded, &indexes) {
                    found.push(statement.shown(&format!("{parameters:?}\n{plan}")));
                }
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    for planted in PLANTED {
        for parameters in [Parameters::Any, Parameters::Usual] {
            let plan = plan_on_postgres(&mut db, planted, parameters).await;
            assert!(reads_whole_on_postgres(&plan, &GUARDED, &indexes), "{planted}\n{plan}");
        }
    }
}

/// A cascade runs statements of the database's own, which no plan shows.
#[tokio::test]
async fn every_foreign_key_on_postgres_has_an_index_that_begins_with_its_columns() {
    let Some(database) = postgres(ROOMY).await else { return };
    assert_eq!(database.number(FOREIGN_KEYS_WITHOUT_INDEX).await, 0);
    database
        .execute("CREATE TABLE planted (aci UUID NOT NULL REFERENCES accounts (aci) ON DELETE CASCADE)")
        .await;
    assert_eq!(database.number(FOREIGN_KEYS_WITHOUT_INDEX).await, 1);
}

#[test]
fn a_statement_is_found_wherever_it_is_written() {
    let source = r#"
        //! "SELECT 1 FROM comments"
        use x::Y;
        /// A 'quoted' word, and "SELECT 2 FROM comments".
        const ONE: &str = "SELECT 'a' \
            FROM one";
        pub(super) const BOTH: [&str; 2] = ["DELETE FROM two", "UPDATE three SET a = \"b\""];
        const SOME: &str = concat!("UPDATE four SET a = 1 RETURNING ", columns!());
        const NO: &str = "PRAGMA five";
        fn g<const N: usize>(all: [u8; N]) -> usize { N }
        fn f<'a>(x: &'a str) -> char {
            sqlx::query("INSERT INTO six VALUES (1)");
            let quote = '"';
            let message = "Select one";
            if quote == '\'' { return 'x'; }
            sqlx::query_as("WITH seven AS (SELECT 1) SELECT 1")
        }
        #[cfg(test)]
        mod tests {
            const NOT_THIS: &str = "SELECT 1 FROM tests";
        }
    "#;
    let found: Vec<(String, String)> = statements_in("some.rs", source)
        .into_iter()
        .map(|statement| (statement.name, statement.sql))
        .collect();
    let expected = [
        ("ONE", "SELECT 'a' FROM one"),
        ("BOTH", "DELETE FROM two"),
        ("BOTH", "UPDATE three SET a = \"b\""),
        ("SOME", "UPDATE four SET a = 1 RETURNING *"),
        ("", "INSERT INTO six VALUES (1)"),
        ("", "WITH seven AS (SELECT 1) SELECT 1"),
    ];
    assert_eq!(
        found,
        expected.map(|(name, sql)| (name.to_owned(), sql.to_owned())).to_vec()
    );
}

#[test]
fn every_statement_that_is_run_is_among_those_that_are_looked_at() {
    for backend in ["sqlite", "postgres"] {
        let seen: BTreeSet<String> = statements_of(backend).into_iter().map(|one| one.name).collect();
        for name in [
            "DELETE",
            "PENDING",
            "HEADS",
            "DUE",
            "COUNT",
            "SPENT",
            "FIND_BY_ACI",
            "FORGET_SPENT",
        ] {
            assert!(seen.contains(name), "{backend}: {name}");
        }
        for path in sources_of(backend) {
            let source = std::fs::read_to_string(&path).unwrap();
            assert!(
                !source.contains("QueryBuilder") && !before_tests(&source).contains("AssertSqlSafe"),
                "{}: a statement that is put together at run time cannot be read here",
                path.display()
            );
            let other = consts_of_other_kinds(&source);
            for run in run_in(&source) {
                assert!(
                    seen.contains(&run) || other.contains(&run),
                    "{}: {run} is run, and not looked at",
                    path.display()
                );
            }
        }
    }
}

/// What the tests must find: by no index, by the second column of one, by all of one, and a join that begins with a table.
const PLANTED: [&str; 5] = [
    "SELECT seq FROM envelopes WHERE bucket = $1",
    "DELETE FROM envelopes WHERE seq = $1",
    "SELECT count(*) FROM spent_keys",
    "UPDATE mailboxes SET bytes = 0 WHERE last_seq = $1",
    "SELECT d.mailbox FROM devices AS d JOIN accounts AS a ON a.aci = d.aci WHERE d.registration_id = $1",
];

// ---- what is in the sources

/// Every statement that a backend runs, its own and those that both run.
fn statements_of(backend: &str) -> Vec<Statement> {
    let statements: Vec<Statement> = sources_of(backend)
        .iter()
        .flat_map(|path| {
            let file = path.file_name().unwrap().to_string_lossy().into_owned();
            statements_in(&file, &std::fs::read_to_string(path).unwrap())
        })
        .collect();
    assert!(statements.len() > 100, "{}", statements.len());
    statements
}

fn sources_of(backend: &str) -> Vec<PathBuf> {
    let storage = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/storage");
    let mut paths: Vec<PathBuf> = [storage.join(backend), storage]
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        // Migrations run before anybody is served, and against other tables.
        .filter(|path| {
            !["migrate.rs", "testing.rs", "plans.rs", "conformance.rs"]
                .iter()
                .any(|name| path.ends_with(name))
        })
        .collect();
    paths.sort();
    paths
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Mark(char),
}

fn statements_in(file: &str, source: &str) -> Vec<Statement> {
    let tokens = tokens(before_tests(source));
    // What a macro of `export.rs` puts between its two texts.
    let asking = tokens.iter().find_map(|token| match token {
        Token::Text(text) if text.starts_with(" AND EXISTS") => Some(text.clone()),
        _ => None,
    });
    let mut statements = Vec::new();
    let mut add = |name: &str, sql: String| {
        if begins_like_a_statement(&sql) {
            statements.push(Statement {
                file: file.to_owned(),
                name: name.to_owned(),
                sql,
            });
        }
    };
    let mut at = 0;
    while at < tokens.len() {
        if let Some((name, value, end)) = constant(&tokens, at) {
            match &tokens[value..end] {
                [Token::Word(by), Token::Mark('!'), inside @ ..] => {
                    let between = if by == "for_caller" { asking.as_deref() } else { None };
                    add(name, joined(inside, between.unwrap_or_default()));
                }
                inside => {
                    for token in inside {
                        if let Token::Text(text) = token {
                            add(name, text.clone());
                        }
                    }
                }
            }
            at = end;
        } else {
            if let Token::Text(text) = &tokens[at] {
                add("", text.clone());
            }
            at += 1;
        }
    }
    statements
}

/// The texts inside a macro, with what stands for columns between them.
fn joined(inside: &[Token], after_first: &str) -> String {
    let mut all = String::new();
    let mut texts = 0;
    for (at, token) in inside.iter().enumerate() {
        match token {
            Token::Text(text) => {
                all.push_str(text);
                if texts == 0 {
                    all.push_str(after_first);
                }
                texts += 1;
            }
            Token::Word(_) if inside.get(at + 1) == Some(&Token::Mark('!')) => all.push('*'),
            _ => {}
        }
    }
    all
}

/// The name of a constant that begins here, and where its value begins and ends.
fn constant(tokens: &[Token], at: usize) -> Option<(&str, usize, usize)> {
    let (Token::Word(word), Some(Token::Word(name))) = (&tokens[at], tokens.get(at + 1)) else {
        return None;
    };
    let is_parameter = at > 0 && matches!(tokens[at - 1], Token::Mark('<' | ','));
    if !["const", "static"].contains(&word.as_str()) || name == "fn" || is_parameter {
        return None;
    }
    let is = at + until(&tokens[at..], '=')?;
    let end = is + until(&tokens[is..], ';')?;
    Some((name, is + 1, end))
}

/// Where a mark is first that stands in no brackets.
fn until(tokens: &[Token], mark: char) -> Option<usize> {
    let mut depth = 0_i32;
    tokens.iter().position(|token| {
        match token {
            Token::Mark('(' | '[' | '{') => depth += 1,
            Token::Mark(')' | ']' | '}') => depth -= 1,
            _ => {}
        }
        depth == 0 && *token == Token::Mark(mark)
    })
}

fn begins_like_a_statement(text: &str) -> bool {
    let first = text.split_whitespace().next().unwrap_or_default();
    ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "REPLACE", "MERGE"].contains(&first)
}

fn before_tests(source: &str) -> &str {
    let tests = source.split("#[cfg(test)]").next().unwrap_or_default();
    // Something smaller for tests only may come before the rest.
    match source[tests.len()..].split_once("#[cfg(test)]") {
        Some((_, rest)) if !rest.trim_start().starts_with("mod ") => source,
        _ => tests,
    }
}

/// Constants whose texts are no statements about rows.
fn consts_of_other_kinds(source: &str) -> BTreeSet<String> {
    let tokens = tokens(before_tests(source));
    let constants = (0..tokens.len()).filter_map(|at| constant(&tokens, at));
    constants
        .filter(|(_, value, _)| {
            matches!(&tokens[*value], Token::Text(text)
                if ["PRAGMA", "LOCK", "SET", "VACUUM"].contains(&text.split(' ').next().unwrap_or_default()))
        })
        .map(|(name, ..)| name.to_owned())
        .collect()
}

/// The constants that are handed to the driver.
fn run_in(source: &str) -> Vec<String> {
    let tokens = tokens(before_tests(source));
    let mut run = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let Token::Word(word) = token else { continue };
        if !["query", "query_as", "query_scalar", "raw_sql"].contains(&word.as_str()) {
            continue;
        }
        let Some(open) = tokens[at..].iter().position(|token| *token == Token::Mark('(')) else {
            continue;
        };
        // The last word of a path.
        let argument = tokens[at + open + 1..]
            .iter()
            .take_while(|token| matches!(token, Token::Word(_) | Token::Mark(':')))
            .last();
        if let Some(Token::Word(name)) = argument
            && name
                .chars()
                .all(|c| c.is_ascii_uppercase() || c == '_' || c.is_ascii_digit())
        {
            run.push(name.clone());
        }
    }
    run
}

/// Words, texts and marks of Rust, without comments, lifetimes and numbers.
fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let here = chars[at];
        if here == '/' && chars.get(at + 1) == Some(&'/') {
            at += chars[at..].iter().take_while(|c| **c != '\n').count();
        } else if here == '"' {
            let (text, end) = text_from(&chars, at + 1);
            tokens.push(Token::Text(text));
            at = end;
        } else if here == '\'' {
            at += match (chars.get(at + 1), chars.get(at + 2)) {
                (Some('\\'), _) => 3 + chars[at + 3..].iter().take_while(|c| **c != '\'').count() + 1,
                (_, Some('\'')) => 3,
                // A lifetime, with its name.
                _ => 1 + chars[at + 1..].iter().take_while(|c| c.is_alphanumeric()).count(),
            };
        } else if here.is_alphabetic() || here == '_' {
            let word: String = chars[at..]
                .iter()
                .take_while(|c| c.is_alphanumeric() || **c == '_')
                .collect();
            at += word.chars().count();
            tokens.push(Token::Word(word));
        } else {
            if !here.is_whitespace() && !here.is_numeric() {
                tokens.push(Token::Mark(here));
            }
            at += 1;
        }
    }
    tokens
}

/// What a text says, from behind its first quotation mark, and where it is over.
fn text_from(chars: &[char], mut at: usize) -> (String, usize) {
    let mut text = String::new();
    while let Some(here) = chars.get(at) {
        match here {
            '"' => return (text, at + 1),
            '\\' if chars.get(at + 1) == Some(&'\n') => {
                at += 1;
                at += chars[at..].iter().take_while(|c| c.is_whitespace()).count();
            }
            '\\' => {
                text.push(match chars.get(at + 1) {
                    Some('n') => '\n',
                    other => *other.unwrap_or(&'\\'),
                });
                at += 2;
            }
            other => {
                text.push(*other);
                at += 1;
            }
        }
    }
    (text, at)
}

// ---- what the databases do with them

/// The guarded tables of which SQLite would read every row or every entry of an index.
async fn read_whole_on_sqlite(db: &mut SqliteConnection, sql: &str) -> BTreeSet<String> {
    let roots: BTreeMap<i64, String> = sqlx::query_as(SQLITE_ROOTS)
        .fetch_all(&mut *db)
        .await
        .unwrap()
        .into_iter()
        .collect();
    let program = sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN {sql}")))
        .fetch_all(db)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
    let mut whole = BTreeSet::new();
    let (mut open, mut rewound) = (BTreeMap::new(), BTreeSet::new());
    for instruction in program {
        let [address, one, two] = [0, 2, 3].map(|column| instruction.get::<i64, _>(column));
        if address == 0 {
            // Triggers and cascades are programs of their own, behind the first.
            open.clear();
            rewound.clear();
        }
        match instruction.get::<String, _>(1).as_str() {
            "OpenRead" | "OpenWrite" | "ReopenIdx" => {
                open.insert(one, roots.get(&two).cloned().unwrap_or_default());
            }
            "Rewind" | "Last" => {
                rewound.insert(one);
            }
            // What begins at the first entry, and ends where a bound says.
            "IdxGT" | "IdxGE" | "IdxLT" | "IdxLE" => {
                rewound.remove(&one);
            }
            "Next" | "Prev" if rewound.contains(&one) => whole.extend(open.get(&one).cloned()),
            "Count" => whole.extend(open.get(&one).cloned()),
            "Clear" => whole.extend(roots.get(&one).cloned()),
            _ => {}
        }
    }
    whole.retain(|table| GUARDED.contains(&table.as_str()));
    whole
}

/// For which parameters a plan is made.
#[derive(Clone, Copy, Debug)]
enum Parameters {
    /// As it is made once a connection has run a statement a few times.
    Any,
    /// As it is made before that, of lists of a hundred.
    Usual,
}

async fn plan_on_postgres(db: &mut PgConnection, sql: &str, parameters: Parameters) -> String {
    prepare(db, sql).await;
    let types: Vec<String> = sqlx::query_scalar(
        "SELECT unnest(parameter_types)::regtype::text FROM pg_prepared_statements WHERE name = 'looked_at'",
    )
    .fetch_all(&mut *db)
    .await
    .unwrap();
    let (mode, values): (_, Vec<String>) = match parameters {
        Parameters::Any => ("force_generic_plan", types.iter().map(|_| "NULL".to_owned()).collect()),
        Parameters::Usual => ("force_custom_plan", types.iter().map(|of| usual(of)).collect()),
    };
    run(db, &format!("SET plan_cache_mode = {mode}")).await;
    let values = if values.is_empty() {
        String::new()
    } else {
        format!("({})", values.join(", "))
    };
    let plan: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("EXPLAIN EXECUTE looked_at{values}")))
        .fetch_all(&mut *db)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
    run(db, "DEALLOCATE looked_at").await;
    plan.join("\n")
}

/// Where a statement does not say of what type a parameter is, the driver does, and here whichever fits.
async fn prepare(db: &mut PgConnection, sql: &str) {
    let mut to_try = VecDeque::from([Vec::new()]);
    for _ in 0..ATTEMPTS {
        let types: Vec<&str> = to_try.pop_front().unwrap_or_else(|| panic!("no types fit: {sql}"));
        let list = match types.is_empty() {
            true => String::new(),
            false => format!("({})", types.join(", ")),
        };
        let prepare = sqlx::AssertSqlSafe(format!("PREPARE looked_at{list} AS {sql}"));
        let Err(error) = sqlx::raw_sql(prepare).execute(&mut *db).await else {
            return;
        };
        let with = |number: usize, of| {
            let mut types = types.clone();
            types.resize(types.len().max(number), "unknown");
            types[number - 1] = of;
            types
        };
        match error.to_string().split_once("data type of parameter $") {
            Some((_, number)) => {
                let number = number.split_whitespace().next().unwrap().parse().unwrap();
                TYPES.iter().rev().for_each(|of| to_try.push_front(with(number, of)));
            }
            None => {
                let unknown = (1..=9).filter(|number| types.get(number - 1).is_none_or(|of| *of == "unknown"));
                to_try.extend(
                    unknown
                        .flat_map(|number| TYPES.iter().map(move |of| (number, *of)))
                        .map(|(number, of)| with(number, of)),
                );
            }
        }
    }
    panic!("no types fit: {sql}");
}

/// A value that fits what [`FILL_POSTGRES`] stores, or a hundred of them.
fn usual(of: &str) -> String {
    let one = |of: &str, n: u32| match of {
        "bigint" => Some(n.to_string()),
        "integer" => Some((20_000 + n % 5).to_string()),
        "smallint" => Some("1".to_owned()),
        "boolean" => Some("true".to_owned()),
        "uuid" => Some(format!("{n:032x}")),
        "bytea" => Some(format!("\\\\x{n:064x}")),
        _ => None,
    };
    let value = match of.strip_suffix("[]") {
        None => one(of, 1_000).map(|value| value.replace("\\\\", "\\")),
        Some(of) => (1..=100)
            .map(|n| one(of, n * 7).map(|value| format!("\"{value}\"")))
            .collect::<Option<Vec<String>>>()
            .map(|values| format!("{{{}}}", values.join(","))),
    };
    value.map_or_else(|| "NULL".to_owned(), |value| format!("'{value}'::{of}"))
}

/// Indexes by name: of which table each is, and with which column it begins.
async fn indexes(db: &mut PgConnection) -> Indexes {
    let all: Vec<(String, String, String)> = sqlx::query_as(POSTGRES_INDEXES).fetch_all(db).await.unwrap();
    all.into_iter()
        .map(|(name, table, first)| (name, (table, first)))
        .collect()
}

type Indexes = BTreeMap<String, (String, String)>;

/// Whether a plan reads every row of a guarded table, or every entry of an index of it: because it looks for nothing there, or
/// for something by which the index is not sorted first.
fn reads_whole_on_postgres(plan: &str, guarded: &[&str], indexes: &Indexes) -> bool {
    let lines: Vec<&str> = plan.lines().collect();
    lines.iter().enumerate().any(|(at, line)| {
        let Some((step, _)) = line.split_once("(cost=") else {
            return false;
        };
        let word_after = |words| {
            step.split_once(words)
                .and_then(|(_, rest)| rest.split_whitespace().next())
        };
        if let Some(table) = word_after("Seq Scan on ") {
            return guarded.contains(&table);
        }
        let name = word_after("Bitmap Index Scan on ").or_else(|| word_after(" using "));
        // One that is not among them is of the database's own tables.
        let Some((name, (table, first))) = name.and_then(|name| Some((name, indexes.get(name)?))) else {
            return false;
        };
        let condition = lines[at + 1..]
            .iter()
            .take_while(|line| !line.contains("(cost="))
            .find_map(|line| line.trim_start().strip_prefix("Index Cond:"));
        let is_by_first = condition.is_some_and(|condition| {
            let mut words = condition.split(|c: char| !c.is_alphanumeric() && c != '_');
            words.any(|word| word == first)
        });
        guarded.contains(&&**table) && !FEW.contains(&name) && !is_by_first
    })
}

async fn run(db: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()))
        .execute(db)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

const TYPES: [&str; 7] = ["smallint", "integer", "bigint", "boolean", "uuid", "bytea", "text"];
const ATTEMPTS: usize = 5_000;
const POSTGRES_INDEXES: &str = "SELECT indexrelid::regclass::text, indrelid::regclass::text, attname::text \
    FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0] \
    JOIN pg_class AS c ON c.oid = indrelid WHERE relnamespace = current_schema()::regnamespace";
const SQLITE_ROOTS: &str = "SELECT rootpage, iif(name = 'accounts_suspended', name, tbl_name) FROM sqlite_master \
    WHERE rootpage > 0";
const FILL_POSTGRES: &str = r"
    INSERT INTO mailboxes (id, last_seq, envelopes, bytes, queue_key)
        SELECT n, 3, 3, 3072, sha256(n::text::bytea) FROM generate_series(1, 40000) AS n;
    INSERT INTO accounts (aci, pni, number_hash, aci_identity, pni_identity, unrestricted, discoverable)
        SELECT lpad(to_hex(n), 32, '0')::uuid, lpad(to_hex(n + 1000000), 32, '0')::uuid, sha256(n::text::bytea),
            '\x05', '\x05', false, true
        FROM generate_series(1, 20000) AS n;
    INSERT INTO devices (aci, device_id, mailbox, registration_id, pni_registration_id, credential_salt,
            credential_hash, sealed_number, fetches_messages, capabilities, last_seen)
        SELECT lpad(to_hex(n), 32, '0')::uuid, id, n + (id - 1) * 20000, 1, 1, '\x01', '\x01', '\x01', true, 0, 20000 + n % 60
        FROM generate_series(1, 20000) AS n, generate_series(1, 2) AS id;
    INSERT INTO envelopes (mailbox, seq, bucket, sealed, expires)
        SELECT n, seq, 1, decode(repeat('5a', 1276), 'hex'), 20000 + n % 30
        FROM generate_series(1, 20000) AS n, generate_series(1, 3) AS seq;
    INSERT INTO signed_keys (aci, device_id, kind)
        SELECT lpad(to_hex(n), 32, '0')::uuid, 1, kind FROM generate_series(1, 20000) AS n, generate_series(0, 1) AS kind;
    INSERT INTO one_time_ec_keys (aci, device_id, kind, position, key_id, key)
        SELECT lpad(to_hex(n), 32, '0')::uuid, 1, 0, place, place, decode(repeat('5a', 33), 'hex')
        FROM generate_series(1, 20000) AS n, generate_series(1, 5) AS place;
    INSERT INTO one_time_kyber_keys (aci, device_id, kind, position, key_id, key, signature)
        SELECT lpad(to_hex(n), 32, '0')::uuid, 1, 0, place, place, decode(repeat('5a', 200), 'hex'), '\x01'
        FROM generate_series(1, 20000) AS n, generate_series(1, 5) AS place;
    INSERT INTO spent_keys (aci, device_id, kind, kyber, key_id, tail, day)
        SELECT lpad(to_hex(n), 32, '0')::uuid, 1, 0, false, id, '\x0102030405060708', 20000 + n % 90
        FROM generate_series(1, 20000) AS n, generate_series(1, 5) AS id;
    ANALYZE;
";
const FOREIGN_KEYS_WITHOUT_INDEX: &str = "SELECT count(*) FROM pg_constraint AS c \
    WHERE contype = 'f' AND connamespace = current_schema()::regnamespace AND NOT EXISTS (\
        SELECT 1 FROM pg_index AS i WHERE i.indrelid = c.conrelid AND i.indpred IS NULL \
            AND (string_to_array(i.indkey::text, ' ')::int2[])[1:cardinality(c.conkey)] @> c.conkey)";
