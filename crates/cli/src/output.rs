//! What commands print: tables for people, JSON for programs. JSON keys are snake_case and stable; times are RFC 3339.

use std::fmt;
use std::io::Write;
use std::time::Duration;

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use tokenward_types::Timestamp;

use crate::failure::{Failure, printable};

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Something that can be listed.
pub(crate) trait Row: Serialize {
    /// The members that a table shows, in order.
    const COLUMNS: &'static [&'static str];
}

impl Output {
    /// Prints one thing with all its members.
    pub(crate) fn one(self, thing: &impl Serialize) -> Result<(), Failure> {
        match self {
            Self::Json => print(&json(thing)?),
            Self::Table => print(&members(&ordered(thing)?)),
        }
    }

    /// Prints a list; JSON is an array.
    pub(crate) fn list<R: Row>(self, rows: &[R]) -> Result<(), Failure> {
        match self {
            Self::Json => print(&json(&rows)?),
            Self::Table => {
                let values: Result<Vec<_>, _> = rows.iter().map(serde_json::to_value).collect();
                print(&table(R::COLUMNS, &values.map_err(|error| cannot_print(&error))?))
            }
        }
    }

    /// Prints that something was done which has no result, such as a deletion.
    pub(crate) fn done(self, what: &str) -> Result<(), Failure> {
        match self {
            Self::Json => print("{}\n"),
            Self::Table => print(&format!("{}\n", printable(what))),
        }
    }
}

/// Prints to standard output; a reader that went away is no error worth a message.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

fn cannot_print(error: &serde_json::Error) -> Failure {
    Failure::new(format!("cannot print the result: {error}"))
}

fn json(thing: &impl Serialize) -> Result<String, Failure> {
    Ok(serde_json::to_string_pretty(thing).map_err(|error| cannot_print(&error))? + "\n")
}

/// The members of a struct in the order in which it declares them, which `Value` forgets.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("members")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

fn ordered(thing: &impl Serialize) -> Result<Members, Failure> {
    let text = serde_json::to_string(thing).map_err(|error| cannot_print(&error))?;
    serde_json::from_str(&text).map_err(|error| cannot_print(&error))
}

fn empty_table() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

fn table(columns: &[&str], values: &[Value]) -> String {
    if values.is_empty() {
        return "nothing found\n".to_owned();
    }
    let mut table = empty_table();
    table.set_header(columns.iter().map(|column| column.to_uppercase().replace('_', " ")));
    for value in values {
        table.add_row(columns.iter().map(|column| cell(&value[*column])));
    }
    trimmed(&table)
}

fn members(members: &Members) -> String {
    let mut table = empty_table();
    for (key, value) in &members.0 {
        table.add_row([key.replace('_', " "), cell(value)]);
    }
    trimmed(&table)
}

fn trimmed(table: &Table) -> String {
    let text = table.trim_fmt();
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    lines.join("\n") + "\n"
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => printable(text).replace('\n', " "),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(" "),
        Value::Object(map) if map.is_empty() => "-".to_owned(),
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| format!("{}={}", printable(key), cell(value)))
            .collect::<Vec<_>>()
            .join(" "),
        other => other.to_string(),
    }
}

/// A time of the API as RFC 3339.
pub(crate) fn time(time: Option<prost_types::Timestamp>) -> Option<String> {
    time.map(|time| {
        let micros = time.seconds.saturating_mul(1_000_000).saturating_add(i64::from(time.nanos) / 1000);
        Timestamp::from_micros(micros).to_string()
    })
}

/// A duration for the API.
pub(crate) fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// A text, or nothing where the API leaves it empty.
pub(crate) fn text(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_shows_its_columns_in_order() {
        let rows = [
            json!({"tenant_id": "acme", "labels": {"plan": "pro"}, "scopes": ["a", "b"], "more": 1}),
            json!({"tenant_id": "b", "labels": {}, "scopes": [], "more": 2}),
        ];
        let shown = table(&["tenant_id", "labels", "scopes"], &rows);
        let words: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            words,
            [
                vec!["TENANT", "ID", "LABELS", "SCOPES"],
                vec!["acme", "plan=pro", "a", "b"],
                vec!["b", "-", "-"]
            ]
        );
    }

    #[test]
    fn one_thing_is_shown_member_by_member() {
        #[derive(Serialize)]
        struct View {
            tenant_id: &'static str,
            state: &'static str,
        }
        let shown = members(&ordered(&View { tenant_id: "acme", state: "active" }).unwrap());
        assert_eq!(shown, "tenant id  acme\nstate      active\n", "in the order of the struct");
    }

    #[test]
    fn what_came_over_the_network_cannot_steer_the_terminal() {
        let shown = members(&ordered(&json!({"display_name": "a\u{1b}[2J\nb"})).unwrap());
        assert!(!shown.contains('\u{1b}') && shown.lines().count() == 1, "{shown:?}");
    }

    #[test]
    fn an_empty_list_says_so() {
        assert_eq!(table(&["a"], &[]), "nothing found\n");
    }

    #[test]
    fn times_are_rfc_3339() {
        let shown = time(Some(prost_types::Timestamp { seconds: 1, nanos: 500_000_000 }));
        assert_eq!(shown.as_deref(), Some("1970-01-01T00:00:01.500000Z"));
    }
}
