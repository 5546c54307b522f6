//! One rule in the languages of those who are measured.

use std::fmt::Write as _;

use crate::corpus::{Ask, FIELDS, Item, Rule, Selection};

fn sql_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn yaml_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn joined(parts: impl Iterator<Item = String>, by: &str) -> String {
    let parts: Vec<String> = parts.collect();
    if parts.len() == 1 { parts.into_iter().next().unwrap() } else { format!("({})", parts.join(by)) }
}

/// The condition of a rule, given how an item is written.
fn condition(rule: &Rule, item: impl Fn(&Item) -> String) -> String {
    let selection = |selection: &Selection| joined(selection.iter().map(&item), " AND ");
    let mut text = joined(rule.selections.iter().map(selection), if rule.any { " OR " } else { " AND " });
    if !rule.filters.is_empty() {
        write!(text, " AND NOT ({})", joined(rule.filters.iter().map(selection), " OR ")).unwrap();
    }
    text
}

/// Our rule file.
pub(crate) fn ours(rule: &Rule) -> String {
    let item = |item: &Item| {
        let column = FIELDS[item.field].1;
        let call = |function: &str, values: &[String]| {
            let values: Vec<String> = values.iter().map(|value| sql_text(value)).collect();
            format!("{function}({column}, {})", values.join(", "))
        };
        match item.ask {
            Ask::Contains => call("ci_contains", &item.values),
            Ask::ContainsAll => {
                joined(item.values.iter().map(|value| call("ci_contains", std::slice::from_ref(value))), " AND ")
            }
            Ask::Ends => call("ci_ends", &item.values),
            Ask::Equal => call("ci_eq", &item.values),
            Ask::Expression => call("re_match", &item.values),
            Ask::Starts => call("ci_starts", &item.values),
        }
    };
    format!(
        "id: {}\nname: generated {}\nseverity: medium\nsql: |\n  SELECT pid, executable_path, command_line FROM process_events WHERE {}\n",
        rule.id,
        rule.id,
        condition(rule, item)
    )
}

/// For SQLite, whose LIKE folds ASCII letters as we do.
pub(crate) fn sqlite(rule: &Rule) -> String {
    let like = |text: &str| text.replace('~', "~~").replace('%', "~%").replace('_', "~_");
    let item = |item: &Item| {
        let column = FIELDS[item.field].0;
        let one = |value: &String| {
            let pattern = match item.ask {
                Ask::Contains | Ask::ContainsAll => format!("%{}%", like(value)),
                Ask::Ends => format!("%{}", like(value)),
                Ask::Starts => format!("{}%", like(value)),
                Ask::Equal => return format!("{column} = {} COLLATE NOCASE", sql_text(value)),
                Ask::Expression => return format!("{column} REGEXP {}", sql_text(value)),
            };
            format!("{column} LIKE {} ESCAPE '~'", sql_text(&pattern))
        };
        joined(item.values.iter().map(one), if item.ask == Ask::ContainsAll { " AND " } else { " OR " })
    };
    condition(rule, item)
}

/// A Sigma rule.
pub(crate) fn sigma(rule: &Rule) -> String {
    let mut text = format!(
        "title: generated {}\nid: {}\nstatus: experimental\nlevel: medium\nlogsource:\n  category: process_creation\ndetection:\n",
        rule.id, rule.id
    );
    let item = |item: &Item| {
        let modifier = match item.ask {
            Ask::ContainsAll if item.values.len() > 1 => "|contains|all",
            Ask::Contains | Ask::ContainsAll => "|contains",
            Ask::Ends => "|endswith",
            Ask::Equal => "",
            Ask::Expression => "|re",
            Ask::Starts => "|startswith",
        };
        (format!("{}{modifier}", FIELDS[item.field].0), item.values.iter().map(|value| yaml_text(value)).collect())
    };
    mappings(rule, item, &mut text);
    let all = if rule.any { "1" } else { "all" };
    let filters = if rule.filters.is_empty() { "" } else { " and not 1 of filter_*" };
    writeln!(text, "  condition: {all} of selection_*{filters}").unwrap();
    text
}

/// A rule of the tau engine.
pub(crate) fn tau(rule: &Rule) -> String {
    let mut text = String::from("detection:\n");
    let item = |item: &Item| {
        let all = item.ask == Ask::ContainsAll && item.values.len() > 1;
        let field = FIELDS[item.field].0;
        let one = |value: &String| {
            yaml_text(&match item.ask {
                Ask::Contains | Ask::ContainsAll => format!("i*{value}*"),
                Ask::Ends => format!("i*{value}"),
                Ask::Equal => format!("i{value}"),
                Ask::Expression => format!("?{value}"),
                Ask::Starts => format!("i{value}*"),
            })
        };
        (if all { format!("all({field})") } else { field.to_owned() }, item.values.iter().map(one).collect())
    };
    // A key stands once in an identifier, so each item is one.
    let mut group = |kind: &str, selections: &[Selection], by: &str| {
        let of = |(at, selection): (usize, &Selection)| {
            let names: Vec<String> = (0..selection.len()).map(|part| format!("{kind}_{at}_{part}")).collect();
            for (name, (key, values)) in names.iter().zip(selection.iter().map(&item)) {
                let values: Vec<String> = values;
                writeln!(text, "  {name}:\n    {key}:").unwrap();
                values.iter().for_each(|value| writeln!(text, "      - {value}").unwrap());
            }
            format!("({})", names.join(" and "))
        };
        selections.iter().enumerate().map(of).collect::<Vec<_>>().join(by)
    };
    let selections = group("selection", &rule.selections, if rule.any { " or " } else { " and " });
    let filters = group("filter", &rule.filters, " or ");
    write!(text, "  condition: ({selections})").unwrap();
    if !rule.filters.is_empty() {
        write!(text, " and not ({filters})").unwrap();
    }
    text + "\ntrue_positives: []\ntrue_negatives: []\n"
}

fn mappings(rule: &Rule, item: impl Fn(&Item) -> (String, Vec<String>), text: &mut String) {
    for (kind, selections) in [("selection", &rule.selections), ("filter", &rule.filters)] {
        for (at, selection) in selections.iter().enumerate() {
            writeln!(text, "  {kind}_{at}:").unwrap();
            for (key, values) in selection.iter().map(&item) {
                writeln!(text, "    {key}:").unwrap();
                values.iter().for_each(|value| writeln!(text, "      - {value}").unwrap());
            }
        }
    }
}
