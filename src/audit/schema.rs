//! Whether tables, columns, indexes and all else in the database's catalogue are those of the manifest.

use crate::manifest::{Engine, Manifest, Table};

use super::database::{Catalogue, EXPRESSION, LiveIndex, LiveTable};
use super::findings::{At, Findings, name};

/// Compares, and says what was compared.
pub(super) fn check(manifest: &Manifest, engine: Engine, live: &Catalogue, findings: &mut Findings) -> String {
    for (kind, other) in &live.others {
        let what = format!("a {kind} that is not declared: {}", name(other));
        findings.violation(At::check(CHECK), what, None);
    }
    for (table, found) in &live.tables {
        match manifest.table(table) {
            Some(declared) => compare(declared, engine, found, findings),
            None => findings.violation(At::table(CHECK, table), "a table that is not declared", None),
        }
    }
    for declared in &manifest.tables {
        if !live.tables.contains_key(&declared.name) {
            findings.violation(At::table(CHECK, &declared.name), "declared and not there", None);
        }
    }
    let columns: usize = live.tables.values().map(|table| table.columns.len()).sum();
    let indexes: usize = live.tables.values().map(|table| table.indexes.len()).sum();
    format!(
        "{} tables, {columns} columns, {indexes} indexes, {} other things",
        live.tables.len(),
        live.others.len()
    )
}

fn compare(declared: &Table, engine: Engine, live: &LiveTable, findings: &mut Findings) {
    let table = declared.name.as_str();
    for (column, kind) in &live.columns {
        let at = At::column(CHECK, table, column);
        match declared.column(column) {
            None => findings.violation(at, "a column that is not declared", None),
            Some(declared) if !declared.column_type.is_declared(engine, kind) => {
                findings.violation(at, format!("not of the declared type, but {}", name(kind)), None);
            }
            Some(_) => {}
        }
    }
    for column in &declared.columns {
        if !live.columns.iter().any(|(found, _)| *found == column.name) {
            findings.violation(At::column(CHECK, table, &column.name), "declared and not there", None);
        }
    }
    for (index, found) in &live.indexes {
        let known = declared.indexes_on(engine).find(|(known, _)| known == index);
        match known {
            None => findings.violation(At::table(CHECK, table), undeclared(declared, index, found), None),
            Some((_, known)) => {
                let same = known.columns == found.columns
                    && known.is_unique() == found.unique
                    && known.partial == found.partial;
                if !same {
                    let what = format!("the index {index} is not as declared, but {}", shown(found));
                    findings.violation(At::table(CHECK, table), what, None);
                }
            }
        }
    }
    for (index, _) in declared.indexes_on(engine) {
        if !live.indexes.contains_key(index) {
            let what = format!("the index {index} is declared and not there");
            findings.violation(At::table(CHECK, table), what, None);
        }
    }
}

fn undeclared(declared: &Table, index: &str, found: &LiveIndex) -> String {
    let sealed = |column: &String| {
        declared
            .column(column)
            .is_some_and(|column| column.form.is_ciphertext())
    };
    let on = if found.columns.iter().any(sealed) {
        ", on sealed bytes, which only helps whoever compares them"
    } else if found.columns.iter().any(|column| column == EXPRESSION) {
        ", on an expression"
    } else {
        ""
    };
    format!("an index that is not declared{on}: {}, {}", name(index), shown(found))
}

/// An index as reports have it.
pub(super) fn shown(index: &LiveIndex) -> String {
    let columns: Vec<String> = index.columns.iter().map(|column| name(column)).collect();
    let unique = if index.unique { "unique " } else { "" };
    let partial = if index.partial { " of some rows" } else { "" };
    format!("{unique}{}{partial}", columns.join(" "))
}

const CHECK: &str = "schema";

#[cfg(test)]
mod tests {
    use super::*;

    /// The catalogue that the manifest asks for.
    fn as_declared() -> Catalogue {
        let mut live = Catalogue::default();
        for table in &Manifest::embedded().tables {
            let columns = table
                .columns
                .iter()
                .map(|column| (column.name.clone(), sqlite(column.column_type)));
            let indexes = table.indexes_on(Engine::Sqlite).map(|(name, index)| {
                let live = LiveIndex {
                    columns: index.columns.clone(),
                    unique: index.is_unique(),
                    partial: index.partial,
                };
                (name.to_owned(), live)
            });
            let table_live = LiveTable {
                columns: columns.collect(),
                indexes: indexes.collect(),
            };
            live.tables.insert(table.name.clone(), table_live);
        }
        live
    }

    fn sqlite(kind: crate::manifest::ColumnType) -> String {
        let names = ["BLOB", "INTEGER", "TEXT", "TIMESTAMP"];
        let name = names.into_iter().find(|name| kind.is_declared(Engine::Sqlite, name));
        name.unwrap().to_owned()
    }

    fn found(change: impl FnOnce(&mut Catalogue)) -> Vec<String> {
        let mut live = as_declared();
        change(&mut live);
        let mut findings = Findings::default();
        check(Manifest::embedded(), Engine::Sqlite, &live, &mut findings);
        findings.into_list().into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn what_is_as_declared_passes() {
        assert_eq!(found(|_| {}), [""; 0]);
    }

    #[test]
    fn every_difference_is_found() {
        let envelopes = |live: &mut Catalogue, change: fn(&mut LiveTable)| {
            change(live.tables.get_mut("envelopes").unwrap());
        };
        let cases: [(&str, Vec<String>); 9] = [
            (
                "a view that is not declared",
                found(|live| live.others.push(("view", "v".into()))),
            ),
            (
                "a table that is not declared",
                found(|live| drop(live.tables.insert("extra".into(), LiveTable::default()))),
            ),
            (
                "declared and not there",
                found(|live| drop(live.tables.remove("profiles"))),
            ),
            (
                "a column that is not declared",
                found(|live| envelopes(live, |table| table.columns.push(("sender".into(), "BLOB".into())))),
            ),
            (
                "not of the declared type",
                found(|live| envelopes(live, |table| table.columns[0].1 = "TEXT".into())),
            ),
            (
                "an index that is not declared, on sealed bytes",
                found(|live| {
                    envelopes(live, |table| {
                        let index = LiveIndex {
                            columns: vec!["sealed".into()],
                            ..LiveIndex::default()
                        };
                        table.indexes.insert("by_sealed".into(), index);
                    });
                }),
            ),
            (
                "an index that is not declared, on an expression",
                found(|live| {
                    envelopes(live, |table| {
                        let index = LiveIndex {
                            columns: vec![EXPRESSION.into()],
                            ..LiveIndex::default()
                        };
                        table.indexes.insert("by_length".into(), index);
                    });
                }),
            ),
            (
                "is not as declared",
                found(|live| {
                    envelopes(live, |table| {
                        table
                            .indexes
                            .get_mut("envelopes_expires")
                            .unwrap()
                            .columns
                            .push("seq".into());
                    });
                }),
            ),
            (
                "the index envelopes_place is declared and not there",
                found(|live| envelopes(live, |table| drop(table.indexes.remove("envelopes_place")))),
            ),
        ];
        for (what, found) in cases {
            assert_eq!(found.len(), 1, "{what}: {found:?}");
            assert!(found[0].contains(what), "{what}: {found:?}");
        }
    }
}
